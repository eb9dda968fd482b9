"""Batches of lines for the recogniser: real lines with truth and rendered lines, bucketed by width.

Processes without TensorFlow render and cut; the trainer takes finished batches from a queue.
"""

from __future__ import annotations

import bisect
import itertools
import json
import math
import multiprocessing
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
from ocr_model.errors import BadArgument, BadInput, PagemillError
from ocr_model.examples import is_validation
from ocr_model.line_images import LINE_HEIGHT_PX, STRIDE_PX, bucket_width, cut_line, normalise_line_image
from ocr_model.text import normalise_line
from trainer.collection import KEPT_HEIGHT_PX, RealLine, as_cut
from trainer.record_lines import RecordLines, validation_records
from trainer.synthesis.damage import as_jpeg
from trainer.synthesis.fonts import FontCase, find_fonts
from trainer.synthesis.lines import sample_lines, sample_non_text
from trainer.synthesis.text import TextSource

Rng = np.random.Generator
Grey = npt.NDArray[np.uint8]

CONTEXT = 0.35  # of the line's height, kept around it so that a crop can be drawn anew each time


@dataclass(frozen=True)
class LineDataConfig:
    """What the recogniser is trained on.

    Attributes:
        real: folders of real lines (`SOURCE/pages`, `SOURCE/lines`); None for none.
        records: folder of `pagemill ingest` with real lines, in the place of `real`.
        mixed: further folders of records with the share of the draws that each gets: worn lines, say.
        bounds: ascending widths in pixels at which the buckets of the records' features end; empty takes the buckets of
            reading, `ocr_model.line_images.bucket_width`.
        text: folder of text files for rendered lines; None takes the built-in word list.
        real_share: share of real lines in training.
        non_text_share: share of crops without text, which must read as nothing.
        exclude: names of sources that are left out.
        validation_share: share of the documents of each source that is kept for validation.
        batch_px: width of all lines of a batch together, in pixels.
        max_width_px: lines that are wider at 40 px height are left out.
        processes: that prepare batches.
        seed: of everything drawn.
    """

    real: Path | None
    text: Path | None
    real_share: float = 0.3
    non_text_share: float = 0.015
    exclude: tuple[str, ...] = ("archiscribe_fraktur_de",)
    validation_share: float = 0.06
    batch_px: int = 24_000
    max_width_px: int = 1600
    processes: int = 1
    seed: int = 1
    records: Path | None = None
    bounds: tuple[float, ...] = ()
    mixed: tuple[tuple[Path, float], ...] = ()

    def __post_init__(self) -> None:
        shares = [share for _, share in self.mixed]
        if not 0 <= self.real_share <= 1 or min(shares, default=1.0) <= 0 or sum(shares) >= 1:
            raise BadArgument(
                f"shares of real lines {self.real_share} and of mixed records {shares}",
                "give a share of real lines from 0 to 1, and others above 0 that leave something",
            )


def padded_width(width_px: int, bounds: tuple[float, ...]) -> int:
    """The width that a line is padded to: the end of its bucket.

    >>> [padded_width(w, (300.0, 700.0)) for w in (4, 299, 300, 900)], padded_width(4, ())
    ([320, 320, 768, 1024], 32)
    """
    bucket = bisect.bisect_right(bounds, width_px)
    return bucket_width(math.ceil(bounds[bucket]) if bucket < len(bounds) else width_px)


def load_real_lines(folder: Path, exclude: tuple[str, ...] = ()) -> list[RealLine]:
    """All lines with truth below a folder of sources.

    Reads `SOURCE/pages/NAME.lines.json` with the image beside it and `SOURCE/lines/NAME.gt.txt` likewise. Lines
    marked `skip_text`, lines whose truth is doubtful (`tess_cer` over 0.25) and characters outside of the alphabet
    are left out.

    Raises:
        BadInput: the folder holds no line.
    """
    meta_file = folder / "meta.json"
    meta = json.loads(meta_file.read_text(encoding="utf-8")) if meta_file.exists() else {}
    found: list[RealLine] = []
    for source in (
        sorted(p for p in folder.iterdir() if p.is_dir() and p.name not in exclude) if folder.is_dir() else []
    ):
        for truth in sorted((source / "pages").glob("*.lines.json")):
            name = truth.name.removesuffix(".lines.json")
            document = meta.get(f"{source.name}/pages/{name}", {}).get("doc", name)
            image = _read_image(truth.parent, name)
            for line in json.loads(truth.read_text(encoding="utf-8")):
                text = normalise_line(line["text"])
                if line.get("skip_text") or line.get("hand") or line.get("tess_cer", 0) > 0.25 or not _usable(text):
                    continue
                found.append(_from_page(image, line, text, source.name, document))
        for truth in sorted((source / "lines").glob("*.gt.txt")):
            name = truth.name.removesuffix(".gt.txt")
            text = normalise_line(truth.read_text(encoding="utf-8"))
            if _usable(text):
                image = _shrunk(_read_image(truth.parent, name), 1.0)
                found.append(RealLine(image, (0, 0, 0, 0), text, source.name, name.rsplit("_", 1)[0]))
    if not found:
        raise BadInput(
            f"no line with truth in {folder}", "expected SOURCE/pages/NAME.lines.json or SOURCE/lines/NAME.gt.txt"
        )
    return found


def _usable(text: str) -> bool:
    return bool(text) and DEFAULT_ALPHABET.covers(text)


def _read_image(folder: Path, name: str) -> Grey:
    for suffix in (".png", ".jpg", ".tif"):
        if (folder / (name + suffix)).exists():
            image = cv2.imread(str(folder / (name + suffix)), cv2.IMREAD_GRAYSCALE)
            if image is not None:
                return np.asarray(image, np.uint8)
    raise BadInput(f"no readable image for {folder / name}", "put NAME.png, .jpg or .tif beside the truth")


def _shrunk(image: Grey, line_share: float) -> Grey:
    """At most `KEPT_HEIGHT_PX` of line height, `line_share` being the part of the image's height that the line has."""
    scale = KEPT_HEIGHT_PX / (image.shape[0] * line_share)
    if scale >= 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def _from_page(image: Grey, line: dict[str, Any], text: str, source: str, document: str) -> RealLine:
    """The line's strip: along its baseline where it falls by more than a tenth of its height, else its box."""
    left, top, right, bottom = line["bbox"]
    baseline = line.get("baseline") or [[left, bottom], [right, bottom]]
    (x0, y0), (x1, y1) = baseline[0], baseline[-1]
    height = bottom - top
    if abs(y1 - y0) > 0.1 * height and x1 > x0:
        middle = 0.5 * (y0 + y1)
        fall = abs(y1 - y0) * (right - left) / max(1, x1 - x0)
        above = max(0.4 * height, middle - top - fall / 2)
        below = max(0.15 * height, bottom - middle - fall / 2)
        height = round(above + below)
        pad = round(CONTEXT * height)
        slope = (y1 - y0) / (x1 - x0)
        start, end = left - pad, right + pad
        level = [(start, y0 + slope * (start - x0)), (end, y0 + slope * (end - x0))]
        strip, _ = cut_line(image, level, above + pad, below + pad)
        margins = (pad, pad, pad, pad)
    else:
        pad = round(CONTEXT * height)
        outer = (
            max(0, left - pad),
            max(0, top - pad),
            min(image.shape[1], right + pad),
            min(image.shape[0], bottom + pad),
        )
        strip = image[outer[1] : outer[3], outer[0] : outer[2]]
        margins = (left - outer[0], top - outer[1], outer[2] - right, outer[3] - bottom)
    share = (strip.shape[0] - margins[1] - margins[3]) / strip.shape[0]
    small = _shrunk(np.ascontiguousarray(strip), share)
    scale = small.shape[0] / strip.shape[0]
    return RealLine(small, _scaled(margins, scale), text, source, document)


def _scaled(margins: tuple[int, int, int, int], scale: float) -> tuple[int, int, int, int]:
    left, top, right, bottom = (round(m * scale) for m in margins)
    return left, top, right, bottom


def draw_real(rng: Rng, line: RealLine) -> Grey:
    """A crop of a real line with new margins and a little wear: contrast, light, blur, noise, resolution, JPEG."""
    left, top, right, bottom = line.margins
    height = line.image.shape[0] - top - bottom
    crop = line.image
    if any(line.margins):
        loose = rng.uniform(-0.05, 0.2, 4) if rng.random() < 0.65 else rng.uniform(-0.08, 0.36, 4)
        t, b = max(0, round(top - loose[1] * height)), max(0, round(bottom - loose[3] * height))
        le, r = (
            max(0, round(left - max(-0.02, loose[0] * 1.5) * height)),
            max(0, round(right - max(-0.02, loose[2] * 1.5) * height)),
        )
        crop = crop[t : crop.shape[0] - b, le : crop.shape[1] - r]
    elif rng.random() < 0.5:
        pads = [int(x) for x in rng.integers(0, max(1, height // 7), 4)]
        crop = np.pad(crop, ((pads[0], pads[1]), (pads[2], pads[3])), "edge")
    grey = crop.astype(np.float32)
    if rng.random() < 0.5:
        grey = (grey - 128) * rng.uniform(0.55, 1.15) + 128 + rng.uniform(-25, 25)
    if rng.random() < 0.35:
        factor = float(rng.uniform(0.5, 1.0))
        size = (max(8, round(grey.shape[1] * factor)), max(8, round(grey.shape[0] * factor)))
        grey = cv2.resize(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), (grey.shape[1], grey.shape[0]))
    if rng.random() < 0.25:
        grey = cv2.GaussianBlur(grey, (0, 0), float(rng.uniform(0.3, 1.1)))
    if rng.random() < 0.3:
        grey = grey + rng.uniform(2, 14) * rng.standard_normal(grey.shape, dtype=np.float32)
    if rng.random() < 0.3:
        factor = float(rng.uniform(0.85, 1.15))
        grey = cv2.resize(grey, (max(8, round(grey.shape[1] * factor)), grey.shape[0]))
    image = np.asarray(np.clip(grey, 0, 255), np.uint8)
    if rng.random() < 0.2:
        quality = int(rng.integers(25, 90))
        image = as_jpeg(image, quality)
    return image


def recropped(rng: Rng, strip: Grey, share: float) -> Grey:
    """Now and then a strip with other margins than it was cut with, so that they do not matter to the reader.

    Each side by itself gets up to a quarter of the height more, or loses up to a twentieth. What is added is what line
    finders and people add: the edge repeated, paper like that along the edge, or plain white.

    Args:
        strip: [height, width] uint8.
        share: of the strips that are changed.
    """
    if rng.random() >= share:
        return strip
    height, width = strip.shape
    wide = rng.random(4) < 0.6
    margins = np.where(wide, rng.uniform(0.0, 0.26, 4), rng.uniform(-0.05, 0.03, 4)) * height
    top, bottom, left, right = (round(float(m)) for m in margins)
    kept = strip[max(0, -top) : height - max(0, -bottom), max(0, -left) : width - max(0, -right)]
    if min(kept.shape) < 8:
        return strip
    pads = ((max(0, top), max(0, bottom)), (max(0, left), max(0, right)))
    edge = np.concatenate((kept[0], kept[-1], kept[:, 0], kept[:, -1]))
    paper = float(np.median(edge))
    kind = rng.random()
    if kind < 0.4:
        return np.pad(kept, pads, "edge")
    white = kind > 0.75 and paper > 150
    return np.pad(kept, pads, "constant", constant_values=255 if white else round(paper))


@dataclass(frozen=True)
class LineBatch:
    """Lines of one bucket.

    Attributes:
        images: [batch, 40, bucket width] uint8, ink 255, padded with 0.
        widths: [batch] int32, pixels before padding.
        labels: [batch, longest] int32 classes, padded with 0.
        lengths: [batch] int32.
        examples: names of the lines.
        place: where the stream goes on after this batch, plain JSON values; see `generate` and `BatchStream`.
        dropped: lines left out since the batch before because they are too wide, or too short for their text.
    """

    images: Grey
    widths: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    examples: tuple[str, ...] = ()
    place: Any = None
    dropped: int = 0


def steps_needed(classes: list[int]) -> int:
    """Time steps that CTC needs at least: one a character and a blank between repeats."""
    return len(classes) + sum(a == b for a, b in itertools.pairwise(classes))


def make_batch(lines: list[tuple[Grey, list[int]]], width: int = 0) -> LineBatch:
    """Pads lines (normalised images and classes) of one bucket, to its end or to `width` pixels."""
    width = width or max(bucket_width(image.shape[1]) for image, _ in lines)
    longest = max(1, *(len(classes) for _, classes in lines))
    images = np.zeros((len(lines), LINE_HEIGHT_PX, width), np.uint8)
    labels = np.zeros((len(lines), longest), np.int32)
    for i, (image, classes) in enumerate(lines):
        images[i, :, : image.shape[1]] = image
        labels[i, : len(classes)] = classes
    widths = np.array([image.shape[1] for image, _ in lines], np.int32)
    return LineBatch(images, widths, labels, np.array([len(c) for _, c in lines], np.int32))


Key = tuple[int, int]


@dataclass(frozen=True)
class WaitingLine:
    """A prepared line. `key` is its number in the stream: of the draw, and within what was drawn."""

    image: Grey
    classes: list[int]
    name: str
    key: Key


class Bucketer:
    """Collects lines by bucket and gives out a batch when a bucket is full."""

    def __init__(self, config: LineDataConfig, alphabet: Alphabet) -> None:
        self.config, self.alphabet = config, alphabet
        self.waiting: dict[int, list[WaitingLine]] = {}
        self.dropped = 0

    def add(self, image: Grey, text: str, name: str = "", key: Key = (0, 0)) -> LineBatch | None:
        """Takes a raw strip with its text.

        One that is too wide, too short for its text, or has characters outside of the alphabet is dropped and counted.
        """
        if not self.alphabet.covers(text):
            self.dropped += 1
            return None
        line, classes = normalise_line_image(image), self.alphabet.encode(text)
        if line.shape[1] > self.config.max_width_px or steps_needed(classes) > line.shape[1] // STRIDE_PX:
            self.dropped += 1
            return None
        width = padded_width(line.shape[1], self.config.bounds)
        lines = self.waiting.setdefault(width, [])
        lines.append(WaitingLine(line, classes, name, key))
        if len(lines) < max(4, min(96, self.config.batch_px // width)):
            return None
        del self.waiting[width]
        dropped, self.dropped = self.dropped, 0
        batch = make_batch([(line.image, line.classes) for line in lines], width)
        return replace(batch, examples=tuple(line.name for line in lines), dropped=dropped)

    def keys(self) -> list[Key]:
        """Of the lines that wait, bucket by bucket, oldest first."""
        return [line.key for lines in self.waiting.values() for line in lines]


def source_weights(lines: list[RealLine]) -> npt.NDArray[np.float64]:
    """Probability of each line: sources by the square root of their size, so that a small source is not drowned."""
    counts: dict[str, int] = {}
    for line in lines:
        counts[line.source] = counts.get(line.source, 0) + 1
    weights = np.array([counts[line.source] ** -0.5 for line in lines])
    return weights / weights.sum()


Drawn = list[tuple[Grey, str, str]]  # raw strips with text and name


def draws(config: LineDataConfig, worker: int) -> Callable[[int], Drawn]:
    """A function from a number to raw strips with text and name, which depend on seed, worker and number alone."""
    cv2.setNumThreads(1)
    real = real_draws(config, worker) if config.real_share > 0 else None
    mixed = [(_records(config, folder, worker, 0.0), share) for folder, share in config.mixed]
    rendered = rendered_draws(config.text) if config.real_share < 1 or real is None else None
    # a draw gives one real line or two rendered ones
    share = 0.0 if real is None else config.real_share / (config.real_share + (1 - config.real_share) / 2)

    def draw(number: int) -> Drawn:
        rng = np.random.default_rng([config.seed, worker, number])
        if rng.random() < config.non_text_share:
            # a lone space is read as nothing
            return [(sample_non_text(rng), " ", f"no text {worker}/{number}")]
        place = rng.random() if mixed else 1.0
        for stream, of_draws in mixed:
            if place < of_draws:
                return _taken(rng, stream.line(number))
            place -= of_draws
        if real is not None and rng.random() < share:
            return _taken(rng, real(rng, number))
        assert rendered is not None
        made = [(recropped(rng, image, 0.25), text) for image, text in rendered(rng)]
        return [(image, text, f"rendered {worker}/{number}/{i}: {text}") for i, (image, text) in enumerate(made)]

    return draw


def _taken(rng: Rng, line: RealLine | None) -> Drawn:
    if line is None:
        return []
    crop = recropped(rng, draw_real(rng, line), 0.15 if any(line.margins) else 0.5)
    return [(crop, line.text, f"{line.source}/{line.document}: {line.text}")]


def _records(config: LineDataConfig, folder: Path, worker: int, validation_share: float) -> RecordLines:
    return RecordLines(folder, worker, config.processes, config.seed, validation_share)


def real_draws(config: LineDataConfig, worker: int) -> Callable[[Rng, int], RealLine | None] | None:
    """A function from a draw's generator and number to a real line, or None where there are no real lines.

    Lines of records come in the order of their stream: with every draw, whether it takes a line of it or not, the
    stream goes on, so that the line depends on the number of the draw alone.
    """
    if config.records is not None:
        stream = _records(config, config.records, worker, config.validation_share)
        return lambda rng, number: stream.line(number)
    if config.real is None:
        return None
    known = load_real_lines(config.real, config.exclude)
    lines = [line for line in known if not is_validation(line.document, config.validation_share)]
    weights = np.cumsum(source_weights(lines)) if lines else np.zeros(0)
    if not lines:
        return None
    return lambda rng, number: lines[min(int(np.searchsorted(weights, rng.random())), len(lines) - 1)]


def rendered_draws(text: Path | None) -> Callable[[Rng], list[tuple[Grey, str]]]:
    """A function that renders lines.

    Raises:
        BadInput: no texts or no fonts.
    """
    texts, fonts = TextSource.load(text), FontCase(find_fonts())
    return lambda rng: sample_lines(rng, texts, fonts)


def generate(
    config: LineDataConfig, alphabet: Alphabet, worker: int, place: Mapping[str, Any] | None = None
) -> Iterator[LineBatch]:
    """An endless stream of training batches, determined by the configuration's seed and the worker's number.

    Args:
        place: of the batch to go on after; None is the beginning. It tells which lines were waiting for their
            bucket to fill, and these are drawn again.
    """
    draw, bucketer = draws(config, worker), Bucketer(config, alphabet)
    number, begin = 0, 0
    if place is not None:
        number, begin = place["number"], place["line"]
        drawn = {n: draw(n) for n in sorted({n for n, _ in place["waiting"]})}
        for n, i in place["waiting"]:
            image, text, name = drawn[n][i]
            bucketer.add(image, text, name, (n, i))
    while True:
        for i, (image, text, name) in list(enumerate(draw(number)))[begin:]:
            batch = bucketer.add(image, text, name, (number, i))
            if batch is not None:
                yield replace(batch, place={"number": number, "line": i + 1, "waiting": bucketer.keys()})
        number, begin = number + 1, 0


VALIDATION_LINES = 1500  # of records, at most


def validation_lines(config: LineDataConfig, rendered: int = 300) -> list[tuple[Grey, str, str]]:
    """Raw strips with text and group: the held-out real documents and, if training renders any, rendered lines."""
    held: Iterable[RealLine] = ()
    if config.records is not None:
        held = validation_records(config.records, config.validation_share, VALIDATION_LINES)
    elif config.real is not None:
        known = load_real_lines(config.real, config.exclude)
        held = (line for line in known if is_validation(line.document, config.validation_share))
    found = [(as_cut(line), line.text, line.source) for line in held]
    if found and config.real_share >= 1:
        return found
    rng = np.random.default_rng([config.seed, 999_983])
    texts, fonts = TextSource.load(config.text), FontCase(find_fonts())
    while rendered > 0:
        ((image, text),) = sample_lines(rng, texts, fonts, takes=1)
        if normalise_line_image(image).shape[1] <= config.max_width_px:
            found.append((image, text, "rendered"))
            rendered -= 1
    return found


def _work(config: LineDataConfig, alphabet: Alphabet, worker: int, place: Any, out: Any) -> None:
    try:
        for batch in generate(config, alphabet, worker, place):
            out.put(batch)
    except PagemillError as error:  # told by the trainer, which waits for a batch
        out.put(error)


class BatchStream:
    """Batches from worker processes, one from each in turn, so that the order is the same in every run.

    What the user can mend and a process finds (`PagemillError`: damaged records, no fonts) is raised here.

    Args:
        place: of the batch to go on after: `turn`, the worker whose turn it is, and `places` of all workers.
    """

    def __init__(self, config: LineDataConfig, alphabet: Alphabet, place: Mapping[str, Any] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self.turn: int = place["turn"] if place else 0
        self.places: list[Any] = list(place["places"]) if place else [None] * config.processes
        self.queues = [context.Queue(maxsize=12) for _ in self.places]
        self.workers = [
            context.Process(target=_work, args=(config, alphabet, i, self.places[i], q), daemon=True)
            for i, q in enumerate(self.queues)
        ]
        for worker in self.workers:
            worker.start()

    def __iter__(self) -> Iterator[LineBatch]:
        while True:
            batch = self._next_of(self.turn)
            self.places[self.turn] = batch.place
            self.turn = (self.turn + 1) % len(self.workers)
            yield replace(batch, place={"turn": self.turn, "places": list(self.places)})

    def _next_of(self, turn: int) -> LineBatch:
        while True:
            try:
                batch: LineBatch | PagemillError = self.queues[turn].get(timeout=30)
                if isinstance(batch, PagemillError):
                    raise batch
                return batch
            except queue.Empty:
                worker = self.workers[turn]
                if not worker.is_alive():
                    raise RuntimeError(f"a data process ended with exit code {worker.exitcode}") from None

    def close(self) -> None:
        for worker in self.workers:
            worker.terminate()
            worker.join()
