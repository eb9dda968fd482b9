"""The self-check of a bundle: a few line images with what the recogniser made of them when it was exported.

self_check/expected.json   format, version, cer, lines: file, true text, reading, confidence
self_check/NAME.png        the line as it was cut
self_check/NAME.line.png   the same as `normalise_line_image` made it

A bundle that reads these lines otherwise now is not what was exported, or is run by code that prepares lines otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from ocr_model.bundle import Bundle
from ocr_model.ctc import text_of
from ocr_model.errors import BadModel
from ocr_model.line_images import normalise_line_image
from ocr_model.reader import read_strips

Grey = npt.NDArray[np.uint8]

FOLDER = "self_check"
FORMAT, VERSION = "pagemill-self-check", 1
CER_TOLERANCE = 0.03  # between precisions and machines a doubtful character may fall on either side
CONFIDENCE_TOLERANCE = 0.1
GREY_TOLERANCE = 3.0  # mean difference of 255 that another build of OpenCV may make


@dataclass(frozen=True)
class CheckLine:
    """A line of the self-check: names, the truth, and the reading with its mean confidence at export."""

    file: str
    text: str
    reading: str
    confidence: float


@dataclass(frozen=True)
class Reading:
    """What was read in a line, and the mean confidence of its characters (0 where nothing was read)."""

    text: str
    confidence: float


def read_line_images(bundle: Bundle, strips: Sequence[Grey]) -> list[Reading]:
    """What a bundle reads in lines as they were cut ([height, width] uint8), prepared as the `Reader` does it."""
    found = read_strips(bundle, [normalise_line_image(strip) for strip in strips])
    return [Reading(text_of(line), float(np.mean([c.confidence for c in line])) if line else 0.0) for line in found]


def character_error_rate(truths: Sequence[str], readings: Sequence[str]) -> float:
    """Edits over characters of the truth, summed over the lines; of no characters, 0.

    >>> character_error_rate(["abcd", "ab"], ["abxd", "b"])
    0.3333333333333333
    """
    edits = sum(Levenshtein.distance(truth, text) for truth, text in zip(truths, readings, strict=True))
    return edits / max(1, sum(map(len, truths)))


def write_self_check(bundle: Bundle, lines: Sequence[tuple[Grey, str]], folder: Path) -> None:
    """Writes the files of the self-check into `folder`, with what the bundle reads now as what is expected.

    Args:
        lines: strips [height, width] uint8 with their true texts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    readings = read_line_images(bundle, [strip for strip, _ in lines])
    expected = []
    for number, ((strip, text), reading) in enumerate(zip(lines, readings, strict=True), 1):
        name = f"{number:02}"
        cv2.imwrite(str(folder / f"{name}.png"), strip)
        cv2.imwrite(str(folder / f"{name}.line.png"), normalise_line_image(strip))
        expected.append(CheckLine(name, text, reading.text, round(reading.confidence, 4)))
    cer = character_error_rate([line.text for line in expected], [line.reading for line in expected])
    value = {
        "format": FORMAT,
        "version": VERSION,
        "cer": round(cer, 4),
        "lines": [asdict(line) for line in expected],
    }
    (folder / "expected.json").write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def self_check(bundle: Bundle, folder: Path) -> list[str]:
    """How a recogniser differs from what it was at export, a sentence each; empty if it does not.

    Args:
        bundle: a loaded one, or one whose `read_lines` is a network in training.
        folder: `self_check` of the bundle.

    Raises:
        BadModel: the folder is missing or damaged.
    """
    expected, lines = _load(folder)
    strips = [_image(folder / f"{line.file}.png") for line in lines]
    for line, strip in zip(lines, strips, strict=True):
        wanted, got = _image(folder / f"{line.file}.line.png"), normalise_line_image(strip)
        if wanted.shape != got.shape:
            return [
                f"lines are normalised to {got.shape[0]} x {got.shape[1]} px, "
                f"the model expects {wanted.shape[0]} x {wanted.shape[1]} px ({line.file})"
            ]
        difference = float(np.abs(wanted.astype(np.int16) - got).mean())
        if difference > GREY_TOLERANCE:
            return [f"lines are normalised otherwise: {difference:.1f} grey levels apart on average ({line.file})"]
    readings = read_line_images(bundle, strips)
    return _differences(lines, readings, float(expected["cer"]))


def _differences(lines: Sequence[CheckLine], readings: Sequence[Reading], stored_cer: float) -> list[str]:
    problems = []
    texts = [reading.text for reading in readings]
    cer = character_error_rate([line.text for line in lines], texts)
    if abs(cer - stored_cer) > CER_TOLERANCE:
        problems.append(f"the CER of its check lines is {cer:.3f}, at export it was {stored_cer:.3f}")
    apart = character_error_rate([line.reading for line in lines], texts)
    if apart > CER_TOLERANCE:
        problems.append(f"it reads its check lines otherwise than at export ({100 * apart:.1f} % of the characters)")
    confidence = float(np.mean([reading.confidence for reading in readings]))
    wanted = float(np.mean([line.confidence for line in lines]))
    if abs(confidence - wanted) > CONFIDENCE_TOLERANCE:
        problems.append(f"its mean confidence on its check lines is {confidence:.2f}, at export it was {wanted:.2f}")
    return problems


def _load(folder: Path) -> tuple[dict[str, Any], list[CheckLine]]:
    try:
        value = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        if value["format"] != FORMAT or value["version"] != VERSION:
            raise ValueError(f"format {value['format']!r}, version {value['version']!r}")
        lines = [CheckLine(**line) for line in value["lines"]]
        if not lines:
            raise ValueError("it has no lines")
        return value, lines
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadModel(
            f"{folder} is no self-check of a bundle: {error}", "export the bundle again with this version of Pagemill"
        ) from error


def _image(path: Path) -> Grey:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise BadModel(f"{path} is missing or no picture", "take a complete bundle")
    return np.asarray(image, np.uint8)
