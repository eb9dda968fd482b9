"""Fine-tuning: a bundle's recogniser learns somebody's collection, from a few hundred lines with their truth.

Read `finetune` first. The loop is `trainer.loop`; what it begins with is `trainer.start_model`, the lines are
`trainer.collection`. Lines of other kinds are replayed among those of the collection, so that what the model could do
is not lost.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from ocr_model.alphabet import Alphabet
from ocr_model.bundle import Bundle
from ocr_model.errors import BadArgument, BadInput
from ocr_model.self_check import character_error_rate, read_line_images
from trainer.card import FineTuned, finetuned_card
from trainer.checkpoints import write_text
from trainer.collection import Collection, as_cut, load_folder, load_records
from trainer.confusions import Confusions, confusions
from trainer.export import TrainedRecogniser, export_bundle
from trainer.line_data import Bucketer, LineDataConfig, RealLine, draw_real
from trainer.loop import FedBatch, Learning, LoopConfig, Ways, train
from trainer.losses import CtcLoss
from trainer.recogniser import arrays
from trainer.start_model import (
    ALPHABET_RULES,
    HEAD,
    AlphabetRule,
    Start,
    as_bundle,
    check_same_reading,
    sound_bundle,
    start_from,
)
from trainer.strategy import is_chief, open_strategy
from trainer.synthesis.fonts import FontCase, find_fonts
from trainer.synthesis.lines import sample_lines
from trainer.synthesis.text import TextSource

Grey = npt.NDArray[np.uint8]
Sample = tuple[Grey, str, str]  # a strip [height, width] uint8, its text, its name

BUNDLE = "bundle"  # in the folder of the run
BEFORE = "before.json"
FREEZABLE = ("none", "backbone")
FRUITLESS = 400  # rendered lines outside of the alphabet in a row, after which no more are tried
WATCHED_LINES = 60
OLD_LINES = 80  # rendered lines that tell whether the old skill is kept
LOOP = LoopConfig(steps=200, learning_rate=5e-4, warmup_steps=40, ema=0.98, validate_every=25, patience=4)
FROZEN_LEARNING_RATE = 2e-3  # of the last layer alone


@dataclass(frozen=True)
class FineTuning:
    """All that decides a fine-tuning.

    Attributes:
        lines: folder of line images with truth; records: folder of `pagemill ingest`. One of them is given.
        start: folder of the bundle to begin from; None is the default one.
        alphabet: what becomes of characters that the bundle does not know, see `start_model.alphabet_for`.
        freeze: `backbone` leaves all layers but the last as they are.
        layer_decay: factor of the learning rate from a layer to the one below it; 1 treats all alike.
        replay_share: share of lines that are not of the collection.
        replay: folder of such lines (as `lines`); None renders some, if fonts are installed.
        text: folder of text files for rendered lines; None takes the built-in word list.
        watch: folder of lines of other kinds (as `lines`) that are read before and after, and not trained on: the card
            tells what each source lost.
        validation_share: share of the documents of a folder that is kept for validation.
        batch_px: width of all lines of a batch together; max_width_px: wider lines are left out.
        precision: Keras dtype policy; None takes the one that the bundle is read in on this machine.
        focal: gamma of the focal CTC loss, see `trainer.losses.CtcLoss`; 0 is the plain one.
        loop: how long and how fast.
    """

    lines: Path | None = None
    records: Path | None = None
    start: Path | None = None
    alphabet: AlphabetRule = "union"
    freeze: str = "none"
    layer_decay: float = 0.85
    replay_share: float = 0.35
    replay: Path | None = None
    text: Path | None = None
    watch: Path | None = None
    validation_share: float = 0.15
    batch_px: int = 12_000
    max_width_px: int = 2048
    precision: str | None = None
    focal: float = 0.0
    loop: LoopConfig = field(default_factory=lambda: LOOP)

    def __post_init__(self) -> None:
        if (self.lines is None) == (self.records is None):
            raise BadArgument("fine-tuning takes a folder of lines or one of records", "give one of them")
        if self.alphabet not in ALPHABET_RULES:
            raise BadArgument(f"unknown alphabet rule {self.alphabet!r}", f"one of {', '.join(ALPHABET_RULES)}")
        if self.freeze not in FREEZABLE:
            raise BadArgument(f"cannot freeze {self.freeze!r}", f"one of {', '.join(FREEZABLE)}")
        if not 0 < self.layer_decay <= 1:
            raise BadArgument(f"layer decay {self.layer_decay}", "give a number above 0 and at most 1")
        if not 0 <= self.replay_share < 1:
            raise BadArgument(f"replay share {self.replay_share}", "give a number from 0 to below 1")
        if not 0 < self.validation_share < 1:
            raise BadArgument(f"validation share {self.validation_share}", "give a number between 0 and 1")


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        before, after: figures of the start model and of the best validation (`cer`, `cer_old`, `cer_SOURCE`), and of
            the watched lines (`cer_other_SOURCE`).
        bundle: the new bundle; None where nothing was gained, and on workers that leave the files to the chief.
    """

    before: dict[str, float]
    after: dict[str, float]
    bundle: Path | None

    @property
    def gained(self) -> bool:
        """Whether a validation was better than the start model."""
        return self.after["cer"] < self.before["cer"]


def finetune(config: FineTuning, output: Path, ways: Ways = Ways(), data_note: str = "") -> Outcome:
    """Trains, or goes on with the run in `output`, and exports the best weights to `output/bundle`.

    Args:
        ways: how it is done; the precision is the configuration's.
        data_note: Markdown for the card: where the lines are from and under which licence.

    Raises:
        BadInput: no lines with truth; unknown characters with the rule `fail`; `output` holds another run.
        BadModel: the start model is not what was exported or does not behave as it did then; nothing is trained.
        PagemillError: as `trainer.loop.train`.
    """
    began = time.monotonic(), time.process_time()
    collection = load_collection(config)
    strategy = open_strategy(ways.hardware)
    writes = is_chief(strategy)
    bundle = sound_bundle(config.start)
    precision = config.precision or {"bfloat16": "mixed_bfloat16"}.get(bundle.precision, "float32")
    keras.mixed_precision.set_global_policy(precision)
    start = start_from(bundle, collection.texts(), config.alphabet)
    if start.added:
        counts = bundle.alphabet.unknown(collection.texts())
        print("new characters:", ", ".join(f"{c} (U+{ord(c):04X}) {counts[c]} times" for c in start.added), flush=True)
    check_start(start, collection)
    old = old_lines(config, start.alphabet)
    examination = Examination(collection.validation, old)
    before = examination.figures(as_bundle(start))
    if writes:
        output.mkdir(parents=True, exist_ok=True)
        write_text(output / BEFORE, json.dumps(before) + "\n")
    print("before", " ".join(f"{name} {value:.4f}" for name, value in before.items()), flush=True)
    dense = config.loop.jit or ways.hardware.strategy == "tpu"
    learning = learning_of(config, start, collection, examination, CtcLoss(dense, config.focal))
    after = train(learning, config.loop, output, replace(ways, precision=precision), strategy)
    if after["cer"] >= before["cer"] or not writes:
        return Outcome(before, after, None)
    start.model.load_weights(output / "best.weights.h5")
    watched = Examination(watched_lines(config), [], "cer_other_")
    before, after = (a | watched.of_sources(b) for a, b in ((before, bundle), (after, as_bundle(start))))
    spent = time.monotonic() - began[0], time.process_time() - began[1]
    facts = FineTuned(
        start=bundle.path.name,
        start_digest=bundle.digest,
        start_card=_card_of(bundle),
        added=start.added,
        characters=len(start.alphabet.characters),
        training_lines=len(collection.training),
        validation_lines=len(collection.validation),
        by_line=collection.by_line,
        skipped=dict(collection.skipped),
        config=described(config),
        before=before,
        after=after,
        confusions_before=examination.confusions(bundle),
        confusions_after=examination.confusions(as_bundle(start)),
        environment=json.loads((output / "environment.json").read_text(encoding="utf-8")),
        wall_seconds=spent[0],
        cpu_seconds=spent[1],
    )
    training = {**bundle.config.get("training", {}), "finetuning": described(config) | {"start": bundle.digest}}
    export_bundle(
        TrainedRecogniser(output / "best.weights.h5", start.config, start.alphabet),
        bundle.path,
        {"training": training},
        finetuned_card(facts, data_note),
        output / BUNDLE,
        language_model=bundle.path,
    )
    return Outcome(before, after, output / BUNDLE)


def load_collection(config: FineTuning) -> Collection:
    """The lines that are learnt, divided.

    Raises:
        BadInput: there are none.
    """
    if config.records is not None:
        return load_records(config.records, config.validation_share)
    assert config.lines is not None
    return load_folder(config.lines, config.validation_share)


def described(config: FineTuning) -> dict[str, Any]:
    """The configuration as plain values, with the names of folders instead of where one machine keeps them."""
    values = {k: v.name if isinstance(v, Path) else v for k, v in asdict(config).items()}
    return {**values, "loop": asdict(config.loop)}


def _card_of(bundle: Bundle) -> str:
    try:
        return (bundle.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    except OSError:
        return ""


# ---- before step 1


def check_start(start: Start, collection: Collection) -> None:
    """
    Raises:
        BadModel: the network that is going to be trained does not read the validation lines as its bundle does.
    """
    knows_all = start.alphabet.covers(start.bundle.alphabet.characters)
    same = start if knows_all else start_from(start.bundle, (), "union")
    check_same_reading(same, [(as_cut(line), line.text) for line in collection.validation])


def old_lines(config: FineTuning, alphabet: Alphabet) -> list[tuple[Grey, str]]:
    """Lines that tell what is left of the old skill: of the replayed folder, or rendered ones; without either none."""
    if config.replay is not None:
        held = load_folder(config.replay, config.validation_share).validation
        return [(as_cut(line), line.text) for line in held][: 4 * OLD_LINES]
    if not has_fonts():
        print("no fonts are installed: no rendered lines are replayed, and the old skill is not measured", flush=True)
        return []
    rendered = rendered_samples(np.random.default_rng([config.loop.seed, 999_983]), config.text, alphabet)
    return [(strip, text) for strip, text, _ in islice(rendered, OLD_LINES)]


def watched_lines(config: FineTuning) -> list[RealLine]:
    """At most `WATCHED_LINES` of each source of the watched folder, evenly taken."""
    if config.watch is None:
        return []
    found = load_folder(config.watch, 0.5)
    sources: dict[str, list[RealLine]] = {}
    for line in sorted((*found.training, *found.validation), key=lambda line: (line.source, line.document, line.text)):
        sources.setdefault(line.source, []).append(line)
    return [
        lines[i * len(lines) // count]
        for lines in sources.values()
        for count in [min(len(lines), WATCHED_LINES)]
        for i in range(count)
    ]


class Examination:
    """The held-out lines, and what a bundle (or a network in its place) makes of them.

    Args:
        prefix: of the figure of a source.
    """

    def __init__(self, lines: Sequence[RealLine], old: Sequence[tuple[Grey, str]], prefix: str = "cer_") -> None:
        self.prefix = prefix
        self.strips = [*(as_cut(line) for line in lines), *(strip for strip, _ in old)]
        self.texts = [*(line.text for line in lines), *(text for _, text in old)]
        self.groups = [*(line.source for line in lines), *("old" for _ in old)]

    def _read(self, bundle: Bundle) -> list[str]:
        return [reading.text for reading in read_line_images(bundle, self.strips)]

    def figures(self, bundle: Bundle) -> dict[str, float]:
        """`cer` of the collection, `cer_old` of other lines if there are any, `cer_SOURCE` where there are several."""
        read = self._read(bundle)
        new = {group for group in self.groups if group != "old"}
        groups = {"cer": new, **({self.prefix + group: {group} for group in sorted(new)} if len(new) > 1 else {})}
        if "old" in self.groups:
            groups["cer_old"] = {"old"}
        return {name: self._cer(read, members) for name, members in groups.items()}

    def of_sources(self, bundle: Bundle) -> dict[str, float]:
        """A figure for each source and no other; none where there are no lines."""
        if not self.strips:
            return {}
        read = self._read(bundle)
        return {self.prefix + group: self._cer(read, {group}) for group in sorted(set(self.groups))}

    def _cer(self, read: Sequence[str], groups: set[str]) -> float:
        chosen = [i for i, group in enumerate(self.groups) if group in groups]
        return character_error_rate([self.texts[i] for i in chosen], [read[i] for i in chosen])

    def confusions(self, bundle: Bundle) -> Confusions:
        """Of the collection's lines."""
        pairs = zip(self.groups, self.texts, self._read(bundle), strict=True)
        return confusions((text, read) for group, text, read in pairs if group != "old")


# ---- what is learnt, and how fast


def learning_of(
    config: FineTuning, start: Start, collection: Collection, examination: Examination, loss: CtcLoss = CtcLoss()
) -> Learning:
    """What `trainer.loop.train` takes. The network is built anew, in the scope of the loop's strategy."""

    rates: dict[str, float] = {}

    def build() -> keras.Model:
        model = start_from(start.bundle, collection.texts(), config.alphabet).model
        rates.update(layer_rates(model, config.layer_decay))
        if config.freeze == "backbone":
            for layer in model.layers:
                layer.trainable = layer.name == HEAD
        return model

    readers: dict[int, Bundle] = {}  # one a model, so that TensorFlow traces the reading once

    def validate(model: keras.Model) -> dict[str, float]:
        if id(model) not in readers:
            readers[id(model)] = as_bundle(replace(start, model=model))
        return examination.figures(readers[id(model)])

    about = {
        "finetuning": described(config),
        "network": asdict(start.config),
        "alphabet": start.alphabet.characters,
        "start": start.bundle.digest,
        "lines": {"training": len(collection.training), "validation": len(collection.validation)},
    }
    return Learning(
        build,
        loss,
        lambda place: batches(config, start.alphabet, collection.training, int(place or 0)),
        validate,
        "cer",
        about,
        rate_of=rates.__getitem__,
    )


def layer_rates(model: keras.Model, decay: float) -> dict[str, float]:
    """Factor of the learning rate by path of variable: 1 for the last layer, `decay` of that for the one below, …

    In the manner of Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification".
    """
    layers = [layer for layer in model.layers if layer.weights]
    return {variable.path: decay**depth for depth, layer in enumerate(reversed(layers)) for variable in layer.weights}


# ---- batches


def batches(
    config: FineTuning, alphabet: Alphabet, lines: Sequence[RealLine], skip: int = 0
) -> Generator[FedBatch, None, None]:
    """An endless stream of batches, a function of the configuration and the lines; `skip` of them are left out.

    Raises:
        BadInput: no line is wide enough for its text, or all are too wide.
    """
    bucketer = Bucketer(
        LineDataConfig(None, None, batch_px=config.batch_px, max_width_px=config.max_width_px), alphabet
    )
    number = 0
    for strip, text, name in samples(config, alphabet, lines):
        batch = bucketer.add(strip, text, name)
        if batch is not None:
            number += 1
            if number > skip:
                yield FedBatch(arrays(batch), batch.examples, number, batch.dropped)
        elif bucketer.dropped >= 1000 and not number and not bucketer.waiting:
            raise BadInput(
                f"no line is at most {config.max_width_px} px wide and wide enough for its text",
                "check that the images show one line each and are not turned",
            )


def samples(config: FineTuning, alphabet: Alphabet, lines: Sequence[RealLine]) -> Iterator[Sample]:
    """Lines of the collection, each once a round in another order and drawn anew, and the replayed ones in between."""
    rng = np.random.default_rng(config.loop.seed)
    replayed = replay(rng, config, alphabet)
    while True:
        for i in rng.permutation(len(lines)):
            while replayed is not None and rng.random() < config.replay_share:
                other = next(replayed, None)
                if other is None:  # the renderer writes no line within this alphabet
                    break
                yield other
            line = lines[i]
            yield draw_real(rng, line), line.text, f"{line.source}/{line.document}"


def replay(rng: np.random.Generator, config: FineTuning, alphabet: Alphabet) -> Iterator[Sample] | None:
    """Lines that are not of the collection, or None where there are none."""
    if config.replay_share == 0 or (config.replay is None and not has_fonts()):
        return None
    if config.replay is None:
        return rendered_samples(rng, config.text, alphabet)
    known = [r for r in load_folder(config.replay, config.validation_share).training if alphabet.covers(r.text)]
    if not known:
        raise BadInput(f"no line of {config.replay} is within the alphabet", "name another --replay")
    return ((draw_real(rng, line), line.text, f"replay {line.document}") for line in _drawn(rng, known))


def _drawn(rng: np.random.Generator, lines: Sequence[RealLine]) -> Iterator[RealLine]:
    while True:
        yield lines[int(rng.integers(len(lines)))]


def rendered_samples(rng: np.random.Generator, text: Path | None, alphabet: Alphabet) -> Iterator[Sample]:
    """Rendered lines within the alphabet; it ends where hardly any line is."""
    texts, fonts = TextSource.load(text), FontCase(find_fonts())
    missed = 0
    while missed < FRUITLESS:
        for strip, line in sample_lines(rng, texts, fonts):
            fits = bool(line) and alphabet.covers(line)
            missed = 0 if fits else missed + 1
            if fits:
                yield strip, line, "rendered"


def has_fonts() -> bool:
    """Whether lines can be rendered here."""
    try:
        return bool(find_fonts())
    except BadInput:
        return False
