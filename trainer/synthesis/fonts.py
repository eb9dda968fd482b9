"""The fonts of the renderer: found where the system keeps them, each with the kind of print it stands for.

All come from Debian packages with open licences; `trainer/synthesis/install_fonts.sh` installs them. A machine without
them renders with whatever of the list it has.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFont

from ocr_model.errors import BadInput

FONT_FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".local/share/fonts")

# What the file name begins with (lower case) → the kind of print. Symbol, script and display fonts are not listed.
TYPEWRITER = (
    "courier", "gnutypewriter", "freemono", "liberationmono", "texgyrecursor", "cmuntt", "cmuntypewriter",
    "cmunvtt", "lmmono", "ocrb", "ocra", "inconsolata", "anonymous pro", "anonymouspro", "go-mono", "leaguemono",
    "3270", "nimbusmono", "dejavusansmono", "texgyrecursor", "ibm3270", "cmunst", "cmunit", "b612mono",
    "gwmonospace", "ptm",
)  # fmt: skip
BOOK = (
    "essays1743", "goudybookletter1911", "centurycatalogue", "century catalogue", "centurycat", "oldstandard",
    "ebgaramond", "baskervald", "romande", "accanthis", "berenis", "junicode", "cardo", "lindenhill", "linden hill",
    "fanwood", "prociono", "linlibertine", "libertine", "vollkorn", "quattrocento-", "quattrocento.", "caslonroman",
    "caslonitalic", "caslon-", "caslonbold", "monospacetypewriter", "gentium", "charis", "stix", "texgyrepagella",
    "texgyretermes", "texgyreschola", "texgyrebonum", "c059", "p052", "nimbusroman", "urwbookman", "cmunrm",
    "cmunti", "cmunsl", "cmunbx", "cmuncsc", "cmunbi", "lmroman", "freeserif", "liberationserif", "dejavuserif",
    "caladea", "ptf", "ptserif", "ptz", "sortsmillgoudy", "century-catalogue",
)  # fmt: skip
MODERN = (
    "dejavusans", "carlito", "lato-", "opensans", "robotoslab", "cabin", "gillius", "universalis", "verana", "pts",
    "ptc", "ptn", "tuffy", "oxygen", "b612-", "andika", "jura", "liberationsans", "freesans", "texgyreheros",
    "texgyreadventor", "nimbussans", "urwgothic", "go-", "quattrocentosans", "cmunss", "lmsans", "comicneue",
    "linbiolinum", "biolinum",
)  # fmt: skip
SLANTED = ("italic", "oblique", "-it", "slant", "cmunti", "cmunsl", "cmunbi", "cmunit")
_UNFIT = (
    "symbol",
    "math",
    "hairline",
    "dingbat",
    "initials",
    "outline",
    "ornament",
    "-thin",
    "condensedthin",
    "extendedthin",
    "narrowthin",
    "widethin",
    "keyboard",
    "lmmonocaps",
    "swash",
)


@dataclass(frozen=True)
class FontFace:
    """One face of a font file. `kind` is `typewriter`, `book` or `modern`."""

    path: Path
    kind: str
    index: int = 0

    @property
    def name(self) -> str:
        return self.path.stem


def kind_of(file_name: str) -> str | None:
    """The kind of print of a font file, or None where it is not for text.

    >>> kind_of("LiberationMono-Regular.ttf"), kind_of("EBGaramond12-Italic.otf"), kind_of("OpenSymbol.ttf")
    ('typewriter', 'book', None)
    """
    name = file_name.lower().replace("_", "")
    if any(part in name for part in _UNFIT):
        return None
    for kind, prefixes in (("typewriter", TYPEWRITER), ("book", BOOK), ("modern", MODERN)):
        if name.startswith(prefixes):
            return kind
    return None


def find_fonts(folders: tuple[Path, ...] = FONT_FOLDERS) -> list[FontFace]:
    """The faces of the list that this machine has, in a stable order, each file name once.

    Raises:
        BadInput: none is there.
    """
    found: dict[str, FontFace] = {}
    for folder in folders:
        for root, _, names in sorted(os.walk(folder)):
            for name in sorted(names):
                kind = kind_of(name)
                if kind and name.lower().endswith((".ttf", ".otf")):
                    found.setdefault(Path(name).stem.lower(), FontFace(Path(root) / name, kind))
    if not found:
        raise BadInput("no font for rendering was found", "run trainer/synthesis/install_fonts.sh")
    return [found[key] for key in sorted(found)]


def is_slanted(face: FontFace) -> bool:
    """Whether the file's name says that the face is an italic or an oblique."""
    return any(part in face.name.lower() for part in SLANTED)


class FontCase:
    """Faces sorted by kind of print and slant, for drawing."""

    def __init__(self, faces: Sequence[FontFace]) -> None:
        self.faces = tuple(faces)
        self._drawers: dict[tuple[str, bool], list[FontFace]] = {}
        for face in self.faces:
            self._drawers.setdefault((face.kind, is_slanted(face)), []).append(face)

    def drawer(self, kind: str, slanted: bool) -> Sequence[FontFace]:
        """The faces of a kind; all faces where there is none of it."""
        return self._drawers.get((kind, slanted)) or self.faces


@functools.lru_cache(maxsize=512)
def load(face: FontFace, size_px: int) -> ImageFont.FreeTypeFont:
    """The face at a size, cached. Pillow's own layout, so that every machine sets the same line."""
    return ImageFont.truetype(str(face.path), size_px, index=face.index, layout_engine=ImageFont.Layout.BASIC)


@functools.lru_cache(maxsize=1024)
def coverage(face: FontFace) -> frozenset[str]:
    """The characters of the default alphabet that the face draws as something else than its missing-glyph box."""
    from ocr_model.alphabet import DEFAULT_CHARACTERS

    font = load(face, 24)
    missing = {bytes(font.getmask(c)) for c in ("\U0010fffe", "\uffff")}
    drawn = set()
    for character in DEFAULT_CHARACTERS:
        if character == " " or (bytes(font.getmask(character)) not in missing and font.getbbox(character)[2] > 0):
            drawn.add(character)
    return frozenset(drawn)
