"""Does synthetic data help? The same small recogniser is trained with and without it, at equal real data and steps.

`ablate` first. An arm is a mixture; a run is an arm with a seed, in a folder of its own, and is not repeated once its
`result.json` is there. The table and the plot are in `trainer.ablation_report`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from ocr_model.alphabet import DEFAULT_ALPHABET
from ocr_model.bundle import load_bundle
from ocr_model.errors import BadArgument, BadInput
from ocr_model.examples import is_validation
from ocr_model.line_images import STRIDE_PX, normalise_line_image
from ocr_model.metrics import comparable
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from ocr_model.self_check import read_line_images
from trainer.checkpoints import write_atomically, write_text
from trainer.collection import as_cut, load_folder
from trainer.line_data import RealLine, draw_real, load_real_lines, make_batch, source_weights, steps_needed
from trainer.loop import FedBatch, Learning, LoopConfig, Ways, train
from trainer.losses import CtcLoss
from trainer.metrics import CharacterErrors
from trainer.recogniser import Validation, arrays
from trainer.run_folder import differences
from trainer.start_model import reading_of
from trainer.synthesis.damage import apply_damage, draw_damage
from trainer.synthesis.fonts import FontCase, find_fonts
from trainer.synthesis.text import TextSource
from trainer.wear.lines import CleanLine, clean_line
from trainer.wear.model import Wear

Grey = npt.NDArray[np.uint8]
Pool = Sequence[tuple[Grey, str]]

# Arm → its kinds of synthetic lines, in equal parts.
ARMS: dict[str, tuple[str, ...]] = {
    "real only": (),
    "+ rendered": ("rendered",),
    "+ damage": ("damaged",),
    "+ wear GAN": ("worn",),
    "+ all": ("damaged", "worn"),
}
KINDS = ("rendered", "damaged", "worn")
SMALL = RecogniserConfig(DEFAULT_ALPHABET.classes, (16, 32, 40, 64), 96, 5)


@dataclass(frozen=True)
class Ablation:
    """What is compared.

    Attributes:
        real: real lines with truth, as `trainer.line_data.load_real_lines` reads them.
        test: lines that are read at the end, `SOURCE/lines`; a source that gives none to training is "held out".
        text: texts of the rendered lines; None takes the built-in word list.
        wear: folder of an exported wear; without it the arms that need one are left out, and the report says so.
        arms: of `ARMS`; seeds: runs of each.
        real_lines: that every run has, the same ones; synthetic_lines: in the pool of each kind, of the same texts.
        real_share: share of real lines in a batch where there are others.
        steps: of every run; batch_px: width of all lines of a batch together.
        max_width_px: lines that are wider at 40 px height are left out of training.
        ignore_case: test sources whose truth is in capitals.
        network: the recogniser's sizes.
    """

    real: Path
    test: Path
    text: Path | None = None
    wear: Path | None = None
    exclude: tuple[str, ...] = ("archiscribe_fraktur_de",)
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: int = 3
    real_lines: int = 500
    synthetic_lines: int = 6000
    real_share: float = 0.4
    steps: int = 2000
    learning_rate: float = 3e-3
    batch_px: int = 12_000
    max_width_px: int = 1300
    ignore_case: tuple[str, ...] = ()
    network: RecogniserConfig = SMALL

    def __post_init__(self) -> None:
        unknown = [arm for arm in self.arms if arm not in ARMS]
        if unknown or not self.arms:
            raise BadArgument(f"no arm {', '.join(unknown) or 'at all'}", f"arms: {', '.join(ARMS)}")
        if self.seeds < 1 or self.real_lines < 1 or self.synthetic_lines < 1 or self.steps < 1:
            raise BadArgument("seeds, lines and steps are at least 1", "three seeds or more tell the noise")
        if not 0 < self.real_share < 1:
            raise BadArgument(f"real share {self.real_share}", "between 0 and 1")


@dataclass(frozen=True)
class LineResult:
    """How a line of a test source was read: edits and characters of the truth, of which document."""

    source: str
    document: str
    edits: int
    length: int


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    arm: str
    seed: int
    lines: tuple[LineResult, ...]


@dataclass(frozen=True)
class Outcome:
    """All runs, and what the report needs beside.

    Attributes:
        trained_on: sources of real lines in training, and collections that the wear learnt from.
        left_out: arms that need a wear, where there is none.
    """

    config: Ablation
    results: tuple[RunResult, ...]
    trained_on: frozenset[str] = frozenset()
    worn_like: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


def ablate(config: Ablation, output: Path, ways: Ways = Ways(precision="mixed_bfloat16")) -> Outcome:
    """Trains and reads every run that `output` does not hold yet.

    Raises:
        BadInput: no real lines, no test lines; `output` holds another ablation.
        BadModel: the wear cannot be loaded.
        PagemillError: as `trainer.loop.train`; the same command goes on with the run that was broken off.
    """
    arms = tuple(arm for arm in config.arms if config.wear is not None or "worn" not in ARMS[arm])
    if not arms:
        raise BadArgument("every arm needs a wear", "name one with --wear")
    _begin(config, output)
    real, held_out = chosen_real(config)
    tests = test_lines(config.test)
    wear = Wear.load(config.wear) if config.wear is not None else None
    results = []
    for seed in range(1, config.seeds + 1):  # seed by seed, so that a table is whole as early as may be
        for arm in arms:
            folder = output / "runs" / f"{arm.strip('+ ').replace(' ', '-').lower()}-{seed}"
            if not (folder / "result.json").exists():
                pools = {kind: _pool(config, kind, output, wear) for kind in ARMS[arm]}
                model = _trained(config, seed, real, list(pools.values()), held_out, folder, ways)
                _write(folder / "result.json", RunResult(arm, seed, read_tests(model, tests, config.ignore_case)))
            results.append(read_result(folder / "result.json"))
    worn_like = frozenset(wear.styles) if wear is not None else frozenset()
    counts = {"real lines": len(real), **{f"test lines {s}": len(found) for s, found in tests.items()}}
    left_out = tuple(arm for arm in config.arms if arm not in arms)
    return Outcome(config, tuple(results), frozenset(r.source for r in real), worn_like, left_out, counts)


def _begin(config: Ablation, output: Path) -> None:
    """Writes config.json, or checks that it is the one that is there; more seeds and arms are no other ablation."""
    value = json.loads(json.dumps(asdict(config), default=str))
    path = output / "ablation.json"
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        free = {"seeds": None, "arms": None}
        if differing := differences({**known, **free}, {**value, **free}):
            raise BadInput(
                f"{output} holds another ablation: {'; '.join(differing[:3])}",
                "repeat its flags, or name another --output",
            )
    output.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(value, indent=1) + "\n")


# ---- lines


def chosen_real(config: Ablation) -> tuple[list[RealLine], list[RealLine]]:
    """The real lines of all runs, and some of other documents to look at while training."""
    found = [line for line in load_real_lines(config.real, config.exclude) if _fits(_width_of(line), line.text, config)]
    rng = np.random.default_rng(7)
    sides = []
    for held, count in ((False, config.real_lines), (True, 100)):
        side = [line for line in found if is_validation(line.document, 0.06) == held]
        if not side and not held:
            raise BadInput(f"no line in {config.real} fits", "allow wider lines with --max-width")
        count = min(count, len(side))
        numbers = rng.choice(len(side), count, replace=False, p=source_weights(side)).tolist() if side else []
        sides.append([side[i] for i in sorted(numbers)])
    return sides[0], sides[1]


def _width_of(line: RealLine) -> float:
    left, top, right, bottom = line.margins
    height, width = line.image.shape
    return (width - left - right) * 40 / max(1, height - top - bottom)


def _fits(width_px: float, text: str, config: Ablation) -> bool:
    return width_px <= config.max_width_px and steps_needed(DEFAULT_ALPHABET.encode(text)) <= width_px // STRIDE_PX


def test_lines(folder: Path) -> dict[str, list[RealLine]]:
    """The lines of each source that the alphabet covers.

    Raises:
        BadInput: there is none.
    """
    found: dict[str, list[RealLine]] = {}
    loaded = load_folder(folder, 0.5)
    for line in (*loaded.training, *loaded.validation):
        if DEFAULT_ALPHABET.covers(line.text):
            found.setdefault(line.source, []).append(line)
    if not found:
        raise BadInput(f"no test line of the alphabet in {folder}", "SOURCE/lines/NAME.png with NAME.gt.txt")
    return {source: found[source] for source in sorted(found)}


def synthetic_pool(
    kind: str, count: int, texts: TextSource, fonts: FontCase, wear: Wear | None, fits: Callable[[Grey, str], bool]
) -> list[tuple[Grey, str]]:
    """Lines of one kind, ready for the recogniser; number i has the same text and layout in every kind.

    Args:
        kind: `rendered`, `damaged` or `worn`.
        fits: of an image [40, W] uint8 and its text: whether it may be trained on.
    """
    found: list[tuple[Grey, str]] = []
    for start in range(0, count, 64):
        lines = [_clean(number, texts, fonts) for number in range(start, min(count, start + 64))]
        rng = np.random.default_rng([13, KINDS.index(kind), start])
        for line, image in zip(lines, _made(kind, lines, rng, wear), strict=True):
            strip = normalise_line_image(image)
            if fits(strip, line.text):
                found.append((strip, line.text))
    return found


def _clean(number: int, texts: TextSource, fonts: FontCase) -> CleanLine:
    return clean_line(np.random.default_rng([11, number]), texts, fonts)


def _made(kind: str, lines: Sequence[CleanLine], rng: np.random.Generator, wear: Wear | None) -> list[Grey]:
    if kind == "worn":
        if wear is None:
            raise BadArgument("worn lines without a wear", "name one with --wear")
        return wear.worn_lines(rng, lines)
    if kind == "damaged":
        return [apply_damage(line.ink, draw_damage(rng, line.scale)) for line in lines]
    return [np.asarray(255 - np.round(255 * line.ink), np.uint8) for line in lines]


def _pool(config: Ablation, kind: str, output: Path, wear: Wear | None) -> list[tuple[Grey, str]]:
    """The pool of a kind, made once and kept in `lines/KIND.npz`."""
    path = output / "lines" / f"{kind}.npz"
    try:
        with np.load(path) as file:
            pixels, widths, texts = file["pixels"], file["widths"], json.loads(bytes(file["texts"]))
        images = np.split(pixels, np.cumsum(widths)[:-1], axis=1)
        return list(zip(images, texts, strict=True))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # not there, or cut short
        pass
    source, fonts = TextSource.load(config.text), FontCase(find_fonts())
    made = synthetic_pool(
        kind, config.synthetic_lines, source, fonts, wear, lambda image, text: _fits(image.shape[1], text, config)
    )
    if not made:
        raise BadInput(f"no {kind} line fits", "allow wider lines with --max-width")
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = np.frombuffer(json.dumps([text for _, text in made]).encode(), np.uint8)
    widths = np.array([image.shape[1] for image, _ in made], np.int64)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, pixels=np.concatenate([i for i, _ in made], axis=1), widths=widths, texts=encoded)

    write_atomically(path, write)
    return made


def mixed_batches(
    config: Ablation, seed: int, real: Sequence[RealLine], pools: Sequence[Pool], place: Mapping[str, int] | None = None
) -> Generator[FedBatch, None, None]:
    """Endless batches of real lines, drawn anew each time, and of lines of the pools.

    Lines are drawn four batches at a time and sorted by width. All follows from the seed and the place.
    """
    number = place["number"] if place else 0
    weights = np.cumsum(source_weights(list(real)))
    while True:
        rng = np.random.default_rng([seed, 3, number])
        lines: list[tuple[Grey, list[int]]] = []
        while sum(image.shape[1] for image, _ in lines) < 4 * config.batch_px:
            if not pools or rng.random() < config.real_share:
                line = real[min(int(np.searchsorted(weights, rng.random() * weights[-1])), len(real) - 1)]
                image, text = normalise_line_image(draw_real(rng, line)), line.text
            else:
                pool = pools[int(rng.integers(len(pools)))]
                image, text = pool[int(rng.integers(len(pool)))]
            classes = DEFAULT_ALPHABET.encode(text)
            if steps_needed(classes) <= image.shape[1] // STRIDE_PX:
                lines.append((image, classes))
        lines.sort(key=lambda line: line[0].shape[1])
        edges = np.searchsorted(np.cumsum([line[0].shape[1] for line in lines]), config.batch_px * np.arange(1, 4))
        parts = [lines[a:b] for a, b in zip([0, *edges], [*edges, len(lines)], strict=True) if b > a]
        skipped = place["part"] if place else 0
        place = None
        rng.shuffle(order := np.arange(len(parts)))
        for i in range(skipped, len(parts)):
            batch = arrays(make_batch(parts[int(order[i])]))
            after = {"number": number, "part": i + 1} if i + 1 < len(parts) else {"number": number + 1, "part": 0}
            yield FedBatch(batch, (), after)
        number += 1


# ---- a run


def _trained(
    config: Ablation,
    seed: int,
    real: Sequence[RealLine],
    pools: Sequence[Pool],
    held_out: Sequence[RealLine],
    folder: Path,
    ways: Ways,
) -> keras.Model:
    built: list[keras.Model] = []

    def build() -> keras.Model:
        built.append(build_recogniser(config.network))
        return built[-1]

    lines = [(as_cut(line), line.text, line.source) for line in held_out] or [(as_cut(real[0]), real[0].text, "real")]
    about = {"pools": [len(pool) for pool in pools], "real": len(real), "seed": seed, "network": asdict(config.network)}
    learning = Learning(
        build=build,
        loss=CtcLoss(),
        batches=lambda place: mixed_batches(config, seed, real, pools, place),
        validate=Validation(lines, DEFAULT_ALPHABET),
        minimise="cer",
        about=about,
    )
    loop = LoopConfig(
        config.steps,
        config.learning_rate,
        warmup_steps=min(200, config.steps // 4),
        ema=0.99,
        validate_every=config.steps,
        checkpoint_every=500,
        seed=seed,
    )
    train(learning, loop, folder, replace(ways, keep=1))
    return built[-1]


def read_tests(
    model: keras.Model, tests: Mapping[str, Sequence[RealLine]], ignore_case: Sequence[str] = ()
) -> tuple[LineResult, ...]:
    """What the model makes of every test line; kinds of quotes and dashes are folded."""
    bundle = replace(load_bundle(None), alphabet=DEFAULT_ALPHABET, read_lines=reading_of(model))
    found = []
    for source, lines in tests.items():
        readings = read_line_images(bundle, [as_cut(line) for line in lines])
        for line, reading in zip(lines, readings, strict=True):
            truth, read = (comparable(t, source in ignore_case, True) for t in (line.text, reading.text))
            errors = CharacterErrors.of(truth, read)
            found.append(LineResult(source, line.document, errors.edits, errors.length))
    return tuple(found)


def _write(path: Path, result: RunResult) -> None:
    write_text(path, json.dumps(asdict(result)) + "\n")


def read_result(path: Path) -> RunResult:
    """
    Raises:
        BadInput: the file is no result of a run.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        lines = tuple(LineResult(**line) for line in value.pop("lines"))
        return RunResult(**value, lines=lines)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is no result of a run: {error}", "delete it: the run is repeated") from error
