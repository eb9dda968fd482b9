"""What a bundle is: a folder with the exported networks, the alphabet and a model card, loaded without training code.

config.json     format, version, what the recogniser takes (`LineInput`) and its sizes, calibration, training
alphabet.json   `ocr_model.alphabet`
finder/         SavedModel with the signatures `find_lines` (bfloat16) and `find_lines_float32`
recogniser/     SavedModel with the signatures `read_lines` (bfloat16) and `read_lines_float32`
language_model.bin   `ocr_model.language_model`, where lines are decoded with one
self_check/     `ocr_model.self_check`: a few line images with what the recogniser made of them when it was exported
MODEL_CARD.md   training data and their licences, figures, command, seed
SHA256SUMS      digests of all other files, for `pagemill models verify` and `sha256sum -c`

Bundles of before have neither self_check/ nor SHA256SUMS; they are read all the same.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ocr_model.alphabet import Alphabet
from ocr_model.beam import refined
from ocr_model.errors import BadArgument, BadModel
from ocr_model.language_model import FILE as LANGUAGE_MODEL
from ocr_model.language_model import LanguageModel
from ocr_model.line_images import LINE_HEIGHT_PX
from ocr_model.memory import give_back
from ocr_model.served_network import load_network

FORMAT = "pagemill-bundle"
VERSION = 1
DEFAULT_BUNDLE = Path(__file__).parent / "models" / "default"
PRECISIONS = ("auto", "bfloat16", "float32")
NORMALISATION = "ink-and-paper-percentiles"  # names what `line_images.normalise_line_image` does to a strip
DECODERS = ("beam", "greedy")
CHECKSUMS = "SHA256SUMS"
CARD = "MODEL_CARD.md"
USUAL_PAGE = (1, 1088, 704, 1)  # what the networks mostly get
USUAL_LINES = (4, LINE_HEIGHT_PX, 1024, 1)

Maps = dict[str, npt.NDArray[np.float32]]
ReadLines = Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes:
        path: the folder.
        digest: SHA-256 over names and contents of its files, the identity that outputs are traced to.
        config: config.json.
        precision: `bfloat16` or `float32`, what the networks compute in.
        find_lines: [1, height, width, 1] uint8 → the finder's maps by name.
        read_lines: [batch, 40, width, 1] uint8 → classes int32 and confidences float32, both [batch, width / 4].
        language_model: that `read_lines` decodes with; None for the best path.
    """

    path: Path
    digest: str
    config: dict[str, Any]
    alphabet: Alphabet
    precision: str
    find_lines: Callable[[npt.NDArray[np.uint8]], Maps]
    read_lines: ReadLines
    language_model: LanguageModel | None = None


def bundle_digest(path: Path) -> str:
    """SHA-256 over the relative names and contents of all files, as hex."""
    return _digest_of(file_digests(path))


def _digest_of(digests: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(digests, key=lambda name: name.split("/")):
        digest.update(name.encode() + b"\0" + bytes.fromhex(digests[name]))
    return digest.hexdigest()


def file_digests(path: Path) -> dict[str, str]:
    """SHA-256 of every file of a bundle as hex, by its relative name.

    Raises:
        BadModel: a file cannot be read.
    """
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return {p.relative_to(path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    except OSError as error:
        raise BadModel(f"cannot read the bundle {path}: {error}", "check its permissions and the disk") from error


def write_checksums(path: Path) -> None:
    """Writes `SHA256SUMS`: digest, two spaces, name; a line a file."""
    digests = file_digests(path)
    digests.pop(CHECKSUMS, None)
    text = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    (path / CHECKSUMS).write_text(text, encoding="utf-8")


def read_checksums(path: Path) -> dict[str, str]:
    """Digests by name as `SHA256SUMS` has them; empty where a bundle has no such file.

    Raises:
        BadModel: the file is something else.
    """
    if not (path / CHECKSUMS).exists():
        return {}
    try:
        lines = (path / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        pairs = [line.split("  ", 1) for line in lines]
        wanted = {name: digest for digest, name in pairs}
    except (OSError, ValueError) as error:
        raise BadModel(f"{path / CHECKSUMS} is no list of checksums: {error}", "take a complete bundle") from error
    if not wanted or not all(len(digest) == 64 for digest in wanted.values()):
        raise BadModel(f"{path / CHECKSUMS} is no list of checksums", "take a complete bundle")
    return wanted


def differing_files(path: Path) -> list[str]:
    """What `SHA256SUMS` and the files disagree on, a line each: `NAME is missing`, `… differs`, `… is not listed`.

    Raises:
        BadModel: the bundle has no checksums, or they cannot be read.
    """
    wanted = read_checksums(path)
    if not wanted:
        raise BadModel(f"{path} has no {CHECKSUMS}", "export the bundle again with this version of Pagemill")
    return _differences(wanted, file_digests(path))


def _differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """
    >>> _differences({"a": "1", "b": "2"}, {"b": "3", "c": "4", "SHA256SUMS": "5"})
    ['a is missing', 'b differs', 'c is not listed']
    """
    problems = []
    for name in sorted({*wanted, *found} - {CHECKSUMS}):
        if name not in found:
            problems.append(f"{name} is missing")
        elif name not in wanted:
            problems.append(f"{name} is not listed")
        elif wanted[name] != found[name]:
            problems.append(f"{name} differs")
    return problems


@functools.cache
def fast_bfloat16() -> bool:
    """Whether this machine's processor multiplies bfloat16 in hardware (Linux on x86; elsewhere False)."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a bundle.

    Raises:
        BadModel: the folder is missing, is no bundle or is of another version.
    """
    if not path.is_dir():
        raise BadModel(f"no model bundle at {path}", "name the folder of an exported bundle")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadModel(
            f"{path} is not a model bundle: config.json cannot be read", "name the folder of an exported bundle"
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise BadModel(
            f"{path} is not a model bundle: config.json is of another format", "name the folder of an exported bundle"
        )
    if config.get("version") != VERSION:
        raise BadModel(
            f"{path} has bundle version {config.get('version')}, this code reads {VERSION}",
            "use a Pagemill version that matches the bundle",
        )
    return config


def load_bundle(path: Path | None = None, precision: str = "auto", decoder: str = "beam") -> Bundle:
    """Loads the networks; None is the default bundle of the package.

    Args:
        precision: `auto` takes bfloat16 where the processor has it in hardware.
        decoder: `greedy` takes the best path; `beam` searches with the bundle's language model, if it has one.

    Raises:
        BadArgument: an unknown precision or decoder.
        BadModel: the folder is no complete bundle of this version, takes other line images than this code makes, or a
            file that decides what it reads is not the one that was exported.
    """
    if precision not in PRECISIONS:
        raise BadArgument(f"unknown precision {precision!r}", f"take one of {', '.join(PRECISIONS)}")
    if decoder not in DECODERS:
        raise BadArgument(f"unknown decoder {decoder!r}", f"take one of {', '.join(DECODERS)}")
    path = DEFAULT_BUNDLE if path is None else path
    config = read_config(path)
    digests = file_digests(path)
    _check_digests(path, digests)
    _check_line_input(path, config["recogniser"])
    curve = calibration_curve(config)
    alphabet = Alphabet.load(path / "alphabet.json")
    if alphabet.classes != config["recogniser"]["classes"]:
        raise BadModel(
            f"{path}: the alphabet has {alphabet.classes} classes, the recogniser {config['recogniser']['classes']}",
            "take a complete bundle",
        )
    if precision == "auto":
        precision = "bfloat16" if fast_bfloat16() else "float32"
    suffix = "" if precision == "bfloat16" else "_float32"
    import tensorflow  # noqa: F401

    give_back()
    find = load_network(path / "finder", "find_lines" + suffix, USUAL_PAGE)
    read = load_network(path / "recogniser", "read_lines" + suffix, USUAL_LINES)
    language_model = None
    if decoder == "beam" and (path / LANGUAGE_MODEL).exists():
        language_model = LanguageModel.load(path / LANGUAGE_MODEL).speaking(alphabet)

    give_back()
    read_lines = decoded(read, language_model, curve)
    return Bundle(path, _digest_of(digests), config, alphabet, precision, find, read_lines, language_model)


def decoded(
    read: Callable[[npt.NDArray[np.uint8]], Mapping[str, npt.ArrayLike]],
    language_model: LanguageModel | None,
    curve: Callable[[Confidences], Confidences],
) -> ReadLines:
    """`Bundle.read_lines` of a network.

    Args:
        read: the network: `classes`, `confidences` and, for a language model, `scores` [batch, time, classes].
    """

    def read_lines(lines: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        found = read(lines)
        classes, confidences = np.asarray(found["classes"]), np.asarray(found["confidences"])
        if language_model is not None and "scores" in found:
            classes, confidences = refined(classes, confidences, np.asarray(found["scores"]), language_model)
        return classes, curve(confidences)

    return read_lines


def _check_digests(path: Path, digests: Mapping[str, str]) -> None:
    """The card may be edited; all else decides what is read.

    Raises:
        BadModel: a file is missing or not the one that was exported.
    """
    wanted = {name: digest for name, digest in read_checksums(path).items() if name != CARD}
    wrong = _differences(wanted, {name: digests[name] for name in wanted if name in digests})
    if wrong:
        raise BadModel(f"{path}: {', '.join(wrong)} ({CHECKSUMS})", "take a complete bundle")


def _check_line_input(path: Path, recogniser: Mapping[str, Any]) -> None:
    """
    Raises:
        BadModel: the recogniser was trained on line images of another height or another normalisation.
    """
    height = recogniser.get("line_height_px", LINE_HEIGHT_PX)
    if height != LINE_HEIGHT_PX:
        raise BadModel(
            f"{path} takes lines of {height} px height, this code makes {LINE_HEIGHT_PX} px",
            "use the Pagemill version that exported the bundle",
        )
    normalisation = recogniser.get("normalisation", NORMALISATION)
    if normalisation != NORMALISATION:
        raise BadModel(
            f"{path} takes lines normalised by {normalisation!r}, this code does {NORMALISATION!r}",
            "use the Pagemill version that exported the bundle",
        )


Confidences = npt.NDArray[np.float32]


def calibration_curve(config: Mapping[str, Any]) -> Callable[[Confidences], Confidences]:
    """What turns the recogniser's confidences into probabilities of being right: the slot `calibration` of config.json.

    The slot is empty (null or not there: confidences stay as they are) or a piecewise linear curve, as isotonic
    regression gives it: `{"kind": "table", "confidence": [0, …, 1], "probability": [0.1, …, 0.99]}`.

    >>> curve = calibration_curve({"calibration": {"kind": "table", "confidence": [0, 1], "probability": [0.5, 0.9]}})
    >>> curve(np.float32([0.0, 0.5, 1.0])).round(2).tolist()
    [0.5, 0.699999988079071, 0.8999999761581421]

    Raises:
        BadModel: the slot holds something else.
    """
    slot = config.get("calibration")
    if slot is None:
        return lambda confidences: confidences
    try:
        x, y = (np.asarray(slot[key], np.float64) for key in ("confidence", "probability"))
        whole = slot["kind"] == "table" and x.ndim == 1 and x.shape == y.shape and len(x) >= 2
        rising = whole and bool(np.all(np.diff(x) > 0) and np.all(np.diff(y) >= 0))
        if not rising or min(x[0], y[0]) < 0 or max(x[-1], y[-1]) > 1:
            raise ValueError("two rising lists of equal length from 0 to 1 are expected")
    except (KeyError, TypeError, ValueError) as error:
        raise BadModel(f"the bundle's calibration cannot be used: {error}", "take a complete bundle") from error
    return lambda confidences: np.interp(confidences, x, y).astype(np.float32)
