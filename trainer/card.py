"""The model card of a bundle, written from what the runs recorded; only the data's origin is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocr_model.bundle import bundle_digest, read_config
from ocr_model.errors import BadInput
from trainer.confusions import Confusions, confusion_table, confusions_as_json, confusions_from_json
from trainer.run_folder import FINDINGS, hardware_of

SIZES_HEADING = "## Size and latency"


@dataclass(frozen=True)
class NetworkRecord:
    """What is known of how a network was trained.

    Attributes:
        config: the run's config.json, without the names of one machine's folders.
        best: figures of the best validation; empty where they are not known.
        environment: as `trainer.run_folder.environment` gives it; empty where it is not known.
        confusions: of the recogniser on its validation lines; None where they are not known.
        bundle: what the network is taken from, if not from a run.
    """

    config: Mapping[str, Any]
    best: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    confusions: Confusions | None = None
    bundle: str = ""

    def as_json(self) -> dict[str, Any]:
        """What config.json of a bundle keeps beside the configuration, for `record_in_bundle`."""
        table = None if self.confusions is None else confusions_as_json(self.confusions)
        return {"best": dict(self.best), "environment": dict(self.environment), "confusions": table}


def read_run(folder: Path) -> NetworkRecord:
    """What a run folder tells of its best network.

    Raises:
        BadInput: the folder is no finished run.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        environment, findings = (_json_of(folder / name) for name in ("environment.json", FINDINGS))
        key = config["minimise"]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{folder} is not a training run: {error}", "name the --output folder of a finished run, or a bundle"
        ) from error
    if not rows or not (folder / "best.weights.h5").exists():
        raise BadInput(f"{folder} holds no validated weights yet", "let the run reach its first validation")
    best = min(rows, key=lambda row: (row[key], -row["step"]))
    table = findings.get("confusions")
    return NetworkRecord(
        _without_folders(config), best, environment, None if table is None else confusions_from_json(table)
    )


def record_in_bundle(bundle: Path, network: str) -> NetworkRecord:
    """What a bundle tells of one of its networks.

    Args:
        network: `recogniser` or `finder`.

    Raises:
        BadModel: the folder is no bundle.
    """
    training = read_config(bundle).get("training", {})
    known = training.get("record", {}).get(network, {})
    table = known.get("confusions")
    return NetworkRecord(
        training.get(network, {}),
        known.get("best", {}),
        known.get("environment", {}),
        None if table is None else confusions_from_json(table),
        f"`{bundle.name}` ({bundle_digest(bundle)[:16]})",
    )


def _json_of(path: Path) -> dict[str, Any]:
    """A file that runs of before lack."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return value


def _without_folders(value: Any) -> Any:
    """The configuration with the names of files instead of where one machine keeps them."""
    if isinstance(value, dict):
        return {k: _without_folders(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_folders(v) for v in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def model_card(
    recogniser: NetworkRecord, finder: NetworkRecord, characters: int, data_note: str, figures: str, version: str
) -> str:
    """The card as Markdown.

    Args:
        characters: size of the alphabet.
        data_note: what the training data are and under which licences.
        figures: Markdown, what `pagemill bench` printed; empty where there is none.
        version: of Pagemill.
    """
    parts = [
        "# Model card",
        f"Line finder and line recogniser for printed and typewritten pages in Latin script ({characters} characters: "
        "English, French, German and their neighbours). Not for handwriting, blackletter or other scripts. Apache-2.0.",
        "Blank = class 0; the networks keep their weights in bfloat16 and compute in bfloat16 (`find_lines`, "
        f"`read_lines`) or float32 (`…_float32`). Exported by Pagemill {version}.",
        "## Figures on scans that were not trained on",
        figures.strip() or "None were given to the export.",
        "## Training data",
        data_note.strip(),
        "## How it was trained",
        _run_section("Recogniser", "pagemill train recogniser", recogniser),
        _run_section("Finder", "pagemill train finder", finder),
    ]
    if recogniser.confusions is not None:
        parts += ["## Confusions on the validation lines", confusion_table(recogniser.confusions)]
    return "\n\n".join(parts) + "\n"


def card_without_sizes(card: str) -> str:
    """A card without its last section, which an export writes anew.

    >>> card_without_sizes("# Model card\\n\\ntext\\n\\n## Size and latency\\n\\n9 MB")
    '# Model card\\n\\ntext\\n'
    """
    return card.partition(f"\n{SIZES_HEADING}\n")[0].rstrip() + "\n"


def _run_section(title: str, command: str, network: NetworkRecord) -> str:
    loop = network.config.get("loop", {})
    command = "pagemill train --from" if "finetuning" in network.config else network.config.get("command", command)
    known = [f"{name} {loop[key]}" for name, key in (("seed", "seed"), ("steps", "steps")) if key in loop]
    known += [f"peak learning rate {loop['learning_rate']}"] if "learning_rate" in loop else []
    text = f"**{title}**: `{command}`, {', '.join([*known, 'AdamW, averaged weights'])}."
    if network.best:
        left_out = ("step", "seconds", "loss", "dropped", "waiting", "examples_per_s")
        figures = ", ".join(f"{k} {v:.4g}" for k, v in network.best.items() if k not in left_out)
        text += f" Best validation at step {int(network.best['step'])}: {figures}."
    if network.environment:
        minutes = f"{network.best['seconds'] / 60:.0f} minutes of training on " if "seconds" in network.best else "On "
        commit = network.environment.get("commit")
        text += f" {minutes}{hardware_of(network.environment)}{f'; commit {commit}' if commit else ''}."
    if network.bundle:
        text += f" Taken as it is from the bundle {network.bundle}."
    shown_config = json.dumps(
        {k: v for k, v in network.config.items() if k not in ("loop", "command")}, indent=1, default=str
    )
    return f"{text}\n\n```json\n{shown_config}\n```"


@dataclass(frozen=True)
class FineTuned:
    """What a fine-tuning recorded for the card.

    Attributes:
        start, start_digest, start_card: name, identity and card of the bundle that it began with.
        added: characters that it did not know; characters: size of the alphabet.
        by_line: whether lines, not documents, were divided between training and validation.
        skipped: lines that were left out, by reason.
        config: of the fine-tuning, plain values.
        before, after: figures on the validation lines; a name is `cer`, `cer_old`, `cer_SOURCE`, or `cer_other_SOURCE`.
        confusions_before, confusions_after: on the validation lines of the collection.
        environment: as `trainer.run_folder.environment` gives it.
    """

    start: str
    start_digest: str
    start_card: str
    added: str
    characters: int
    training_lines: int
    validation_lines: int
    by_line: bool
    skipped: Mapping[str, int]
    config: Mapping[str, Any]
    before: Mapping[str, float]
    after: Mapping[str, float]
    confusions_before: Confusions
    confusions_after: Confusions
    environment: Mapping[str, Any]
    wall_seconds: float
    cpu_seconds: float


NO_DATA_NOTE = "Nobody told where the lines are from and under which licence: find out before you pass the bundle on."


def finetuned_card(facts: FineTuned, data_note: str) -> str:
    """The card of a fine-tuned bundle as Markdown.

    Args:
        data_note: Markdown: where the lines are from and under which licence; empty where nobody told.
    """
    added = f", {len(facts.added)} of them new: {' '.join(_visible(c) for c in facts.added)}" if facts.added else ""
    parts = [
        "# Model card",
        f"The recogniser of the bundle `{facts.start}` ({facts.start_digest[:16]}), fine-tuned on one collection; its "
        f"line finder is unchanged. {facts.characters} characters{added}. Exported by Pagemill "
        f"{(facts.environment.get('packages') or {}).get('pagemill')}.",
        "## Figures",
        _figures(facts),
        "### Confusions on the validation lines, before",
        confusion_table(facts.confusions_before),
        "### Confusions on the validation lines, after",
        confusion_table(facts.confusions_after),
        "## Training data",
        data_note.strip() or NO_DATA_NOTE,
        _lines_section(facts),
        "## How it was trained",
        _run_of(facts),
        "## The start model",
        _demoted(facts.start_card) or "It had no card.",
    ]
    return "\n\n".join(parts) + "\n"


def _figures(facts: FineTuned) -> str:
    names = {"cer": "the collection, all", "cer_old": "replayed kinds of lines (the old skill)"}
    rows = [
        f"| {names.get(name) or _source(name)} | {100 * before:.2f} | {100 * facts.after[name]:.2f} |"
        for name, before in facts.before.items()
        if name in facts.after
    ]
    table = "\n".join(["| CER % | before | after |", "|---|---|---|", *rows])
    note = "the lines" if facts.by_line else "the documents"
    return (
        f"{table}\n\nOn {facts.validation_lines} lines that were kept out of training ({note} were divided); they "
        "chose the best step, so they are a little flattering."
    )


def _source(figure: str) -> str:
    """
    >>> _source("cer_letters"), _source("cer_other_books")
    ('letters', 'other lines: books')
    """
    name = figure.removeprefix("cer_")
    return f"other lines: {name.removeprefix('other_')}" if name.startswith("other_") else name


def _lines_section(facts: FineTuned) -> str:
    left_out = "".join(f", {count} left out ({reason})" for reason, count in facts.skipped.items())
    share, folder = facts.config["replay_share"], facts.config["replay"]
    replayed = f"lines of `{folder}`" if folder else "rendered lines" if "cer_old" in facts.before else "nothing"
    return (
        f"{facts.training_lines} lines were trained on, {facts.validation_lines} validated on{left_out}. "
        f"Replayed among them: {replayed}, share {share}. What the start model learnt from is told below."
    )


def _run_of(facts: FineTuned) -> str:
    loop, environment = facts.config["loop"], facts.environment
    versions = ", ".join(f"{name} {version}" for name, version in (environment.get("packages") or {}).items())
    return (
        f"`pagemill train --from`, seed {loop['seed']}, best validation at step {int(facts.after['step'])} of at most "
        f"{loop['steps']}, peak learning rate {loop['learning_rate']}, layer decay {facts.config['layer_decay']}, "
        f"frozen: {facts.config['freeze']}, alphabet: {facts.config['alphabet']}. "
        f"It took {facts.wall_seconds / 60:.1f} minutes ({facts.cpu_seconds:.0f} CPU seconds) on "
        f"{hardware_of(environment)}; {versions}; commit {environment.get('commit')}."
    )


def _visible(character: str) -> str:
    return f"`{character}` (U+{ord(character):04X})"


def _demoted(card: str) -> str:
    """A card as a section of another: its headings two levels deeper, without its title.

    >>> _demoted("# Model card\\n\\ntext\\n\\n## Data")
    'text\\n\\n#### Data'
    """
    lines = [line for line in card.splitlines() if line != "# Model card"]
    return "\n".join(f"##{line}" if line.startswith("#") else line for line in lines).strip()
