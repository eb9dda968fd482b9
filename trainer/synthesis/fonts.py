"""The fonts of the renderer: found where the system keeps them, each with the kind of print it stands for.

All come from Debian packages with open licences, listed in `font_packages.tsv`; `install_fonts.sh` installs them. A
machine without them renders with whatever of the list it has. A folder of somebody's own fonts can be used instead.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFont

from ocr_model.alphabet import DEFAULT_CHARACTERS
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
FRAKTUR = (
    "blankenburg", "gamaliel", "isabella", "fust&schoeffer", "rusch-gotico", "zainer-gotico", "jessen", "hamlet",
)  # fmt: skip
KINDS = ("typewriter", "book", "modern", "fraktur")
ROMAN = KINDS[:3]  # what the default model reads
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
    "ocrbe",  # of OCR-B those with white letters in black boxes, and the hollow one
    "ocrbx",
    "ocrbf",
    "linlibertinei.",  # hollow capitals, and crossed boxes for small letters
)


@dataclass(frozen=True)
class FontFace:
    """One face of a font file. `kind` is one of `KINDS`."""

    path: Path
    kind: str
    index: int = 0

    def __hash__(self) -> int:  # faces are looked up for every line, and a path's own hash is slow
        return hash((str(self.path), self.index))

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
    for kind, prefixes in zip(KINDS, (TYPEWRITER, BOOK, MODERN, FRAKTUR), strict=True):
        if name.startswith(prefixes):
            return kind
    return None


def find_fonts(folders: tuple[Path, ...] = FONT_FOLDERS, kinds: tuple[str, ...] = ROMAN) -> list[FontFace]:
    """The faces of the list that this machine has and that can be read, in a stable order, each file name once.

    Raises:
        BadInput: none is there, or none can be read.
    """
    return readable(listed_fonts(folders, kinds))[0]


def listed_fonts(folders: tuple[Path, ...] = FONT_FOLDERS, kinds: tuple[str, ...] = ROMAN) -> list[FontFace]:
    """As `find_fonts`, those that cannot be read among them.

    Raises:
        BadInput: none is there.
    """
    found: dict[str, FontFace] = {}
    for folder in folders:
        for path in _font_files(folder):
            kind = kind_of(path.name)
            if kind in kinds:
                found.setdefault(path.stem.lower(), FontFace(path, str(kind)))
    if not found:
        raise BadInput("no font for rendering was found", "run trainer/synthesis/install_fonts.sh")
    return [found[key] for key in sorted(found)]


def fonts_in(folder: Path, kinds: tuple[str, ...] = KINDS) -> list[FontFace]:
    """All font files of a folder of one's own; what the list does not know is taken for book print.

    Raises:
        BadInput: there is no folder, or no font in it.
    """
    if not folder.is_dir():
        raise BadInput(f"no font folder {folder}", "name a folder of .ttf or .otf files")
    faces = [FontFace(path, kind_of(path.name) or "book") for path in _font_files(folder)]
    kept = [face for face in faces if face.kind in kinds]
    if not kept:
        raise BadInput(f"no font of {', '.join(kinds)} in {folder}", "put .ttf or .otf files there")
    return kept


def _font_files(folder: Path) -> list[Path]:
    found = []
    for root, _, names in sorted(os.walk(folder)):
        found += [Path(root) / name for name in sorted(names) if name.lower().endswith((".ttf", ".otf"))]
    return found


def readable(faces: Iterable[FontFace]) -> tuple[list[FontFace], dict[str, str]]:
    """The faces that can be opened and draw something, and the others' files with the reason.

    Raises:
        BadInput: none can be read.
    """
    sound, unreadable = [], {}
    for face in faces:
        try:
            font = load(face, MASTER_PX)
            font.getmask2("H")
        except (OSError, ValueError, OverflowError) as error:  # what Pillow raises on damaged files
            unreadable[str(face.path)] = str(error) or type(error).__name__
            logging.warning("the font %s cannot be read and is left out: %s", face.path, error)
        else:
            sound.append(face)
    if not sound:
        raise BadInput(
            f"none of {len(unreadable)} fonts can be read: {', '.join(sorted(unreadable)[:3])}",
            "run trainer/synthesis/install_fonts.sh",
        )
    return sound, unreadable


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
        """The faces of a kind; the upright ones where it has no slanted ones, all faces where there is none of it."""
        return self._drawers.get((kind, slanted)) or self._drawers.get((kind, False)) or self.faces


MASTER_PX = 48  # em size at which the glyphs of lines are drawn, once; a line is scaled from there


@functools.lru_cache(maxsize=512)
def load(face: FontFace, size_px: int) -> ImageFont.FreeTypeFont:
    """The face at a size, cached. Pillow's own layout, so that every machine sets the same line."""
    return ImageFont.truetype(str(face.path), size_px, index=face.index, layout_engine=ImageFont.Layout.BASIC)


@functools.lru_cache(maxsize=2048)
def coverage(face: FontFace, characters: str = DEFAULT_CHARACTERS) -> frozenset[str]:
    """Those of the characters that the face draws as something else than its missing-glyph box."""
    font = load(face, 24)
    missing = {bytes(font.getmask(c)) for c in ("\U0010fffe", "\uffff")}
    drawn = set()
    for character in characters:
        try:
            mask = bytes(font.getmask(character))
            if character == " " or (any(mask) and mask not in missing):
                drawn.add(character)
        except OSError:  # this one glyph of the file is damaged
            continue
    return frozenset(drawn)
