"""Parameters of a line as plain JSON values and back, so that a line can be drawn again from what its record says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from ocr_model.errors import BadInput
from trainer.synthesis.damage import Damage
from trainer.synthesis.fonts import FontFace
from trainer.synthesis.lines import LineParameters


def line_to_json(p: LineParameters) -> dict[str, Any]:
    """What differs from the defaults; the face as the name of its file."""
    value = {f.name: getattr(p, f.name) for f in fields(p) if getattr(p, f.name) != f.default}
    return {**value, "face": p.face.path.name, **({"text_files": list(p.text_files)} if p.text_files else {})}


def line_from_json(value: Mapping[str, Any], faces: Iterable[FontFace]) -> LineParameters:
    """
    Raises:
        BadInput: the face is not among these.
    """
    face = next((face for face in faces if face.path.name == value["face"]), None)
    if face is None:
        raise BadInput(f"the font {value['face']} is not there", "run trainer/synthesis/install_fonts.sh")
    return LineParameters(**{**value, "face": face, "text_files": tuple(value.get("text_files", ()))})


def damage_to_json(damage: Any) -> dict[str, Any]:
    """The fields of a damage, of lines or of pages, that do something, and its seed."""
    return {name: value for name, value in asdict(damage).items() if name == "seed" or value}


def damage_from_json(value: Mapping[str, Any]) -> Damage:
    """The damage of a line that `damage_to_json` wrote."""
    zeros = {f.name: 0 for f in fields(Damage) if f.name != "seed" and f.default not in (0, False)}
    return Damage(**{**zeros, **value})
