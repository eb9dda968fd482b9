"""What a bundle is: a folder with the exported networks, the alphabet and a model card, loaded without training code.

config.json     format, version, networks with their signatures, figures of the finder
alphabet.json   `ocr_model.alphabet`
finder/         SavedModel with the signatures `find_lines` (bfloat16) and `find_lines_float32`
recogniser/     SavedModel with the signatures `read_lines` (bfloat16) and `read_lines_float32`
MODEL_CARD.md   training data and their licences, figures, command, seed
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ocr_model.alphabet import Alphabet
from ocr_model.errors import BadArgument, BadModel

FORMAT = "pagemill-bundle"
VERSION = 1
DEFAULT_BUNDLE = Path(__file__).parent / "models" / "default"
PRECISIONS = ("auto", "bfloat16", "float32")

Maps = dict[str, npt.NDArray[np.float32]]


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
    """

    path: Path
    digest: str
    config: dict[str, Any]
    alphabet: Alphabet
    precision: str
    find_lines: Callable[[npt.NDArray[np.uint8]], Maps]
    read_lines: Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]


def bundle_digest(path: Path) -> str:
    """SHA-256 over the relative names and contents of all files, as hex."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


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


def load_bundle(path: Path | None = None, precision: str = "auto") -> Bundle:
    """Loads the networks; None is the default bundle of the package.

    Args:
        precision: `auto` takes bfloat16 where the processor has it in hardware.

    Raises:
        BadArgument: an unknown precision.
        BadModel: the folder is no complete bundle of this version.
    """
    if precision not in PRECISIONS:
        raise BadArgument(f"unknown precision {precision!r}", f"take one of {', '.join(PRECISIONS)}")
    path = DEFAULT_BUNDLE if path is None else path
    config = read_config(path)
    alphabet = Alphabet.load(path / "alphabet.json")
    if alphabet.classes != config["recogniser"]["classes"]:
        raise BadModel(
            f"{path}: the alphabet has {alphabet.classes} classes, the recogniser {config['recogniser']['classes']}",
            "take a complete bundle",
        )
    if precision == "auto":
        precision = "bfloat16" if fast_bfloat16() else "float32"
    suffix = "" if precision == "bfloat16" else "_float32"
    find = _signature(path / "finder", "find_lines" + suffix)
    read = _signature(path / "recogniser", "read_lines" + suffix)

    def find_lines(pages: npt.NDArray[np.uint8]) -> Maps:
        return {name: value.numpy() for name, value in find(pages).items()}

    def read_lines(lines: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        found = read(lines)
        return found["classes"].numpy(), found["confidences"].numpy()

    return Bundle(path, bundle_digest(path), config, alphabet, precision, find_lines, read_lines)


def _signature(folder: Path, name: str) -> Callable[[npt.NDArray[np.uint8]], dict[str, Any]]:
    import tensorflow as tf

    try:
        model = tf.saved_model.load(str(folder))
        signature = model.signatures[name]
    except (OSError, KeyError) as error:
        raise BadModel(f"{folder} holds no network with the signature {name}", "take a complete bundle") from error
    (input_name,) = signature.structured_input_signature[1]

    def call(array: npt.NDArray[np.uint8]) -> dict[str, Any]:
        # `model` is referenced here: its variables live as long as the signature is used.
        assert model is not None
        return signature(**{input_name: tf.constant(array)})

    return call
