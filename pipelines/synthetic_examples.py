"""Rendered lines and pages as examples: draw, damage, wear, and keep what a recogniser can read.

No Beam here. A shard is an `Item` whose source has no file: its first and last line's numbers are what is read of it.
What a line is depends on the seed and its number alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
from ocr_model.document import Point
from ocr_model.examples import Kind, LineExample, Origin, PageExample, RecordImage, split_of
from ocr_model.metrics import score
from ocr_model.truth import GroundTruthLine, LineGeometry, ground_truth_line
from pipelines.ingest_pages import DroppedPage, IngestedPage, IngestOutcome, grey_values, png, unknown_characters
from pipelines.load_reader import load_reader, native_chatter_muted
from pipelines.plan import Item
from pipelines.read_pages import Observed, PageOfFile
from pipelines.record_units import RecordsWorker
from pipelines.unit_runs import UnitRun
from trainer.synthesis.damage import Damage, apply_damage, displaced, moved_boxes, shift_of
from trainer.synthesis.fonts import FontCase, FontFace, fonts_in, listed_fonts, readable
from trainer.synthesis.lines import Mixture, cut, draw_line, draw_line_damage
from trainer.synthesis.page_plan import PagePlan, Text, TrueLine
from trainer.synthesis.page_render import render as render_page
from trainer.synthesis.pages import draw_page
from trainer.synthesis.provenance import damage_to_json, line_to_json
from trainer.synthesis.text import TextSource

Grey = NDArray[np.uint8]

STAGES = ("draw", "wear", "read")
COVERED_EVERY = 50_000  # lines, in which every character of the alphabet is drawn once at least
MISREAD = "misread"
OTHER_FONT = "other-font"  # lines that are not in the font drawn first, as that lacked a glyph
WORN = "worn"
NO_FONT = "no-font-has"  # characters that were left out
_AT_ONCE = 64  # lines; pages are made one by one


@dataclass(frozen=True)
class SynthesisSettings:
    """What the records depend on.

    Attributes:
        kind: lines or pages.
        seed: of everything.
        text: folder of text files, None for the built-in words; fonts: folder of fonts, None for those of the machine.
        alphabet: characters that lines stay within.
        kinds: shares of the kinds of print.
        slanted, small_caps, damaged: shares, see `Mixture`.
        wear: folder of an exported wear; worn: share of the lines that get wear in the place of damage; style_of: the
            collection whose look they get, "" for looks of all kinds.
        max_cer: what is read with a higher error rate is dropped; None keeps all.
        reader: bundle that reads, None for the one in the package.
        validation_share, test_share: of the shards.
        digests: of texts, fonts, wear and reader: what is in the folders, not where they are.
    """

    kind: Kind = "line"
    seed: int = 1
    text: str | None = None
    fonts: str | None = None
    alphabet: str = DEFAULT_ALPHABET.characters
    kinds: Mapping[str, float] = field(default_factory=lambda: dict(Mixture().kinds))
    slanted: float = Mixture.slanted
    small_caps: float = Mixture.small_caps
    damaged: float = 1.0
    wear: str | None = None
    worn: float = 0.0
    style_of: str = ""
    max_cer: float | None = 0.5
    reader: str | None = None
    validation_share: float = 0.0
    test_share: float = 0.0
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def mixture(self) -> Mixture:
        return Mixture(dict(self.kinds), self.slanted, self.small_caps, self.damaged)


def faces_of(settings: SynthesisSettings) -> tuple[list[FontFace], dict[str, str]]:
    """The faces of the kinds that have a share, and the font files that cannot be read, with the reason.

    Raises:
        BadInput: there is none that can be read.
    """
    kinds = tuple(kind for kind, share in settings.kinds.items() if share > 0)
    return readable(fonts_in(Path(settings.fonts), kinds) if settings.fonts else listed_fonts(kinds=kinds))


def texts_of(settings: SynthesisSettings) -> TextSource:
    """
    Raises:
        BadInput: there is no usable text.
    """
    return TextSource.load(Path(settings.text) if settings.text else None, Alphabet(settings.alphabet))


@dataclass(frozen=True, kw_only=True)
class SynthesisRun(UnitRun):
    """What the workers of a synthesis need to know."""

    settings: SynthesisSettings


@dataclass(frozen=True)
class _Made:
    """A line or page before it is an example.

    Attributes:
        picture: [height, width] uint8.
        lines: with coordinates of the picture.
        told: provenance, plain strings.
        notes: what is counted.
        ink: of a line that is to be worn, [40, width] float32; its picture comes later.
    """

    number: int
    picture: Grey
    lines: tuple[GroundTruthLine, ...]
    told: dict[str, str]
    notes: Counter[str]
    ink: NDArray[np.float32] | None = None

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)


class SynthesisWorker(RecordsWorker):
    """Makes records of text and fonts; a process keeps letters, texts and networks from unit to unit."""

    options: SynthesisRun

    def __init__(self, options: SynthesisRun, on_outcome: Callable[[IngestOutcome], None]) -> None:
        super().__init__(options, on_outcome)
        cv2.setNumThreads(1)
        settings = options.settings
        self.texts, self.fonts = texts_of(settings), FontCase(faces_of(settings)[0])
        self.reader: Any = load_reader(settings.reader) if settings.max_cer is not None else None
        self.wear = _Looks(settings) if settings.wear and settings.worn > 0 else None

    def outcomes(self, items: Sequence[Item], observed: Observed) -> Iterator[IngestOutcome]:
        for stage in STAGES:
            observed.milliseconds.setdefault(stage, Counter())
        at_once = _AT_ONCE if self.options.settings.kind == "line" else 1
        for item in items:
            last = item.source.last_page
            assert last is not None
            numbers = range(item.source.first_page, last + 1)
            for start in range(0, len(numbers), at_once):
                yield from self._some(item, numbers, start, at_once, observed)

    def _some(self, item: Item, numbers: range, start: int, count: int, observed: Observed) -> Iterator[IngestOutcome]:
        settings = self.options.settings
        began = time.perf_counter()
        make = self._line if settings.kind == "line" else self._page
        made = [make(number) for number in numbers[start : start + count]]
        observed.took("draw", time.perf_counter() - began, len(made))
        if self.wear is not None:
            began = time.perf_counter()
            made = self.wear.worn(made)
            observed.took("wear", time.perf_counter() - began, len(made))
        rates: list[float | None] = [None] * len(made)
        if self.reader is not None:
            began = time.perf_counter()
            rates = list(error_rates(self.reader, made, settings.kind))
            observed.took("read", time.perf_counter() - began, len(made))
        for i, (one, rate) in enumerate(zip(made, rates, strict=True)):
            of = PageOfFile(item, start + i + 1, len(numbers), self._page_id(one.number))
            if rate is not None and settings.max_cer is not None and rate > settings.max_cer:
                yield DroppedPage(of, MISREAD, len(one.lines))
            else:
                yield self._outcome(of, one, rate)

    def _outcome(self, of: PageOfFile, made: _Made, rate: float | None) -> IngestedPage:
        settings, source = self.options.settings, of.item.source
        height, width = made.picture.shape
        told = {**made.told, **({} if rate is None else {"cer": f"{rate:.4f}"})}
        origin = Origin(
            name=f"{source.document}/{made.number:09d}",
            document=source.document,
            page=of.number,
            page_id=of.page_id,
            width=width,
            height=height,
            split=split_of(source.document, settings.validation_share, settings.test_share),
            metadata=tuple(sorted(told.items())),
        )
        image = RecordImage(png(made.picture), "png", width, height, None, mean=0.0, deviation=0.0)
        mean, deviation = grey_values(made.picture)
        image = RecordImage(image.data, "png", width, height, None, mean=mean, deviation=deviation)
        example: LineExample | PageExample = (
            LineExample(origin, image, 1, made.lines[0])
            if settings.kind == "line"
            else PageExample(origin, image, made.lines, ordered=False)
        )
        counts = Counter({"recorded": len(made.lines)})
        return IngestedPage(of, (example,), counts, (), unknown_characters(made.lines, settings.alphabet), made.notes)

    def _page_id(self, number: int) -> str:
        """Of no file's bytes, as there is none, but of all that the line depends on."""
        digest = hashlib.sha256(f"{self.options.configuration} {number}".encode())
        return f"{digest.hexdigest()}-0001"

    def _line(self, number: int) -> _Made:
        settings = self.options.settings
        rng = np.random.default_rng([settings.seed, number])
        p = draw_line(rng, self.texts, self.fonts, settings.mixture, must_of(number, self.texts.alphabet))
        damage = draw_line_damage(rng, p, settings.mixture)
        worn = self.wear is not None and rng.random() < settings.worn
        line = cut(p)
        width = line.ink.shape[1]
        boxes = moved_boxes(line.boxes, damage, width)
        baseline = _baseline(line.baseline_px, shift_of(damage, width))
        told = {
            "made_by": "pagemill synthesize",
            "seed": str(settings.seed),
            "number": str(number),
            "font": p.face.path.name,
            "font_kind": p.face.kind,
            "text_kind": p.text_kind,
            "text_files": " ".join(p.text_files),
            "line": _json(line_to_json(p)),
            "damage": _json(damage_to_json(_only_moving(damage) if worn else damage)),
        }
        notes = Counter({f"print/{p.face.kind}": 1, f"text/{p.text_kind}": 1, OTHER_FONT: int(p.other_face)})
        notes.update(f"{NO_FONT}/{character}" for character in p.left_out)
        if not worn:
            picture = apply_damage(line.ink, damage)
            return _whole(number, picture, line.characters, boxes, baseline, told, +notes)
        ink = displaced(line.ink, shift_of(damage, width))
        return self._to_be_worn(number, ink, line.characters, boxes, baseline, told, +notes, rng)

    def _to_be_worn(
        self,
        number: int,
        ink: NDArray[np.float32],
        text: str,
        boxes: NDArray[np.float64],
        baseline: Sequence[Point],
        told: dict[str, str],
        notes: Counter[str],
        rng: np.random.Generator,
    ) -> _Made:
        from trainer.wear.lines import at_line_height

        small = np.asarray(np.clip(at_line_height(ink), 0, 1), np.float32)
        x, y = small.shape[1] / ink.shape[1], small.shape[0] / ink.shape[0]
        told["wear"] = _json({"style_of": self.options.settings.style_of, "seed": int(rng.integers(2**31))})
        points = [(x * a, y * b) for a, b in baseline]
        blank = np.full(small.shape, 255, np.uint8)
        made = _whole(number, blank, text, boxes * np.array([x, y, x, y]), points, told, notes + Counter({WORN: 1}))
        return _Made(number, blank, made.lines, made.told, made.notes, small)

    def _page(self, number: int) -> _Made:
        settings = self.options.settings
        rng = np.random.default_rng([settings.seed, number])
        plan = draw_page(rng, self.fonts.faces, self.texts)
        picture, lines = render_page(plan)
        height, width = picture.shape
        truth = [_page_line(text, line, (width, height)) for text, line in zip(_texts_of(plan), lines, strict=True)]
        kept = tuple(line for line in truth if not line.problem)
        faces = sorted({item.style.face.path.name for item in plan.items if isinstance(item, Text)})
        told = {
            "made_by": "pagemill synthesize",
            "seed": str(settings.seed),
            "number": str(number),
            "font": " ".join(faces),
            "page_kind": plan.kind,
            "damage": _json(damage_to_json(plan.damage)),
        }
        return _Made(number, picture, kept, told, Counter({f"page/{plan.kind}": 1}))


def must_of(number: int, alphabet: Alphabet) -> str:
    """The character that a line must have, "" for most: each in turn, all of them in every `COVERED_EVERY` lines.

    >>> [must_of(n, Alphabet(" abc")) for n in (0, 1, 12500, 25000, 37500, 50000)]
    ['a', '', 'b', 'c', 'a', 'b']
    """
    characters = alphabet.characters.replace(" ", "")
    step = max(1, COVERED_EVERY // (len(characters) + 1))
    return characters[number // step % len(characters)] if characters and number % step == 0 else ""


def error_rates(reader: Any, made: Sequence[_Made], kind: Kind) -> Iterator[float]:
    """How a reader reads each: edits by characters, of pages in whatever order the lines stand."""
    pictures = [one.picture for one in made]
    pages = reader.read_single_lines(pictures) if kind == "line" else reader.read(pictures)
    for one, page in zip(made, pages, strict=True):
        found = score(one.text, page.text)
        yield (found.edits if kind == "line" else found.order_free_edits) / max(1, found.characters)


class _Looks:
    """The wear of a folder, in the looks that are asked for."""

    def __init__(self, settings: SynthesisSettings) -> None:
        assert settings.wear is not None
        with native_chatter_muted():
            from trainer.wear.model import Wear

            self._wear = Wear.load(Path(settings.wear))
            self._bank = self._wear.bank(settings.style_of or None)

    def worn(self, made: Sequence[_Made]) -> list[_Made]:
        """The same, those that are to be worn with their pictures."""
        todo = [i for i, one in enumerate(made) if one.ink is not None]
        seeds = [int(json.loads(made[i].told["wear"])["seed"]) for i in todo]
        styles = [self._wear.drawn_style(np.random.default_rng(seed), self._bank) for seed in seeds]
        inks = [ink for i in todo if (ink := made[i].ink) is not None]
        pictures = dict(zip(todo, self._wear.worn(inks, styles, seeds) if inks else [], strict=True))
        return [
            _Made(one.number, pictures.get(i, one.picture), one.lines, one.told, one.notes)
            for i, one in enumerate(made)
        ]


# ---- truth


def _whole(
    number: int,
    picture: Grey,
    text: str,
    boxes: NDArray[np.float64],
    baseline: Sequence[Point],
    told: dict[str, str],
    notes: Counter[str],
) -> _Made:
    """A line that fills its picture; the boxes of its characters are part of what is told."""
    height, width = picture.shape
    corners = [(0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height))]
    line = ground_truth_line(text, LineGeometry(None, corners, baseline), (width, height), kind="printed")
    told["character_boxes"] = _json([[round(edge, 1) for edge in box] for box in boxes.tolist()])
    return _Made(number, picture, (line,), told, notes)


def _baseline(y: float, shift: NDArray[np.float32]) -> list[Point]:
    """Points about every 60 pixels."""
    width = len(shift)
    columns = np.linspace(0, width - 1, max(2, width // 60 + 1)).round().astype(int)
    return [(float(x), float(y - shift[x])) for x in columns]


def _only_moving(damage: Damage) -> Damage:
    names = ("seed", "slope", "wave_px", "phase", "fold_shift_px", "fold_at")
    return Damage(**{name: getattr(damage, name) for name in names})


def _texts_of(plan: PagePlan) -> list[str]:
    """Of the lines that `render_page` tells of, in its order."""
    return [item.text for item in plan.items if isinstance(item, Text) and not item.ornament]


def _page_line(text: str, line: TrueLine, size: tuple[int, int]) -> GroundTruthLine:
    above = [(x, y - line.ascender) for x, y in line.baseline]
    below = [(x, y + line.descender) for x, y in reversed(line.baseline)]
    return ground_truth_line(text, LineGeometry(None, [*above, *below], line.baseline), size, kind="printed")


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
