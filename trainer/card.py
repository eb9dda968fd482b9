"""The model card of a bundle, written from what the runs recorded; only the data's origin is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocr_model.errors import BadInput


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Configuration and best validation figures of a run folder.

    Raises:
        BadInput: the folder is no finished run.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{folder} is not a training run: {error}", "name the --output folder of a finished run"
        ) from error
    if not rows or not (folder / "best.weights.h5").exists():
        raise BadInput(f"{folder} holds no validated weights yet", "let the run reach its first validation")
    key = config["minimise"]
    return _without_folders(config), min(rows, key=lambda row: (row[key], -row["step"]))


def _without_folders(value: Any) -> Any:
    """The configuration with the names of files instead of where one machine keeps them."""
    if isinstance(value, dict):
        return {k: _without_folders(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_folders(v) for v in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def model_card(
    recogniser: tuple[Mapping[str, Any], Mapping[str, float]],
    finder: tuple[Mapping[str, Any], Mapping[str, float]],
    characters: int,
    data_note: str,
    figures: str,
    version: str,
) -> str:
    """The card as Markdown.

    Args:
        recogniser, finder: configuration and best validation figures, as `read_run` gives them.
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
    return "\n\n".join(parts) + "\n"


def _run_section(title: str, command: str, run: tuple[Mapping[str, Any], Mapping[str, float]]) -> str:
    config, best = run
    loop = config["loop"]
    shown = ", ".join(f"{k} {v:.4g}" for k, v in best.items() if k not in ("step", "seconds", "loss"))
    return (
        f"**{title}**: `{command}`, seed {loop['seed']}, {loop['steps']} steps, "
        f"peak learning rate {loop['learning_rate']}, AdamW, averaged weights. "
        f"Best validation at step {int(best['step'])}: {shown}.\n\n"
        f"```json\n{json.dumps({k: v for k, v in config.items() if k != 'loop'}, indent=1, default=str)}\n```"
    )
