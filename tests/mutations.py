"""Files made hostile, from a seed: cut, flipped, swapped, with other headers and with sizes that cannot be.

`mutated` works on any bytes; of pictures and PDFs it knows where sizes stand. The functions for XML make what a parser
must refuse or must not follow, and `PATH_TRICKS` are names of files that lead elsewhere.
"""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable

MAGICS = (
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"II*\0",
    b"MM\0*",
    b"II+\0\x08\0\0\0",
    b"RIFF\xff\xff\xff\xffWEBP",
    b"\0\0\0\x0cjP  \r\n\x87\n",
    b"\xff\x4f\xff\x51",
    b"%PDF-1.7\n",
    b"GIF89a",
    b"PK\x03\x04",
    b"\x1f\x8b\x08",
    b"<?xml version='1.0'?>",
)
HUGE = (0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)

Mutation = Callable[[bytes, random.Random], bytes]


def mutated(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """The names of one to three mutations, and the bytes after them. The same state of `rng` gives the same."""
    names = rng.choices(list(MUTATIONS), k=rng.choice((1, 1, 1, 2, 3)))
    for name in names:
        data = MUTATIONS[name](data, rng)
    return "+".join(names), data


def truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def bits_flipped(data: bytes, rng: random.Random) -> bytes:
    """A few bits anywhere."""
    return _flipped(data, rng, len(data), rng.choice((1, 2, 8, 64)))


def header_flipped(data: bytes, rng: random.Random) -> bytes:
    """A few bits among the first bytes, where sizes, types and offsets are."""
    return _flipped(data, rng, 128, rng.choice((1, 2, 4)))


def _flipped(data: bytes, rng: random.Random, within: int, count: int) -> bytes:
    changed = bytearray(data)
    for _ in range(count if data else 0):
        changed[rng.randrange(min(within, len(changed)))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def magic_replaced(data: bytes, rng: random.Random) -> bytes:
    """The file with the first bytes of another kind of file."""
    magic = rng.choice(MAGICS)
    return magic + data[len(magic) :]


def magic_inserted(data: bytes, rng: random.Random) -> bytes:
    return rng.choice(MAGICS) + data


def blocks_swapped(data: bytes, rng: random.Random) -> bytes:
    """Two neighbouring blocks change places."""
    a, b, c = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def block_removed(data: bytes, rng: random.Random) -> bytes:
    start, end = _block(data, rng)
    return data[:start] + data[end:]


def block_repeated(data: bytes, rng: random.Random) -> bytes:
    start, end = _block(data, rng)
    return data[:start] + data[start:end] * rng.choice((2, 3, 50)) + data[end:]


def block_inserted(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 4, 100, 5000))) + data[at:]


def block_overwritten(data: bytes, rng: random.Random) -> bytes:
    """A block of noise, zeros or ones."""
    start, end = _block(data, rng)
    filling = rng.choice((rng.randbytes(end - start), b"\0" * (end - start), b"\xff" * (end - start)))
    return data[:start] + filling + data[end:]


def _block(data: bytes, rng: random.Random) -> tuple[int, int]:
    """Where a block of at most 4 KiB starts and ends."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 4, 16, 256, 4096)))


def huge_number_written(data: bytes, rng: random.Random) -> bytes:
    """A number that cannot be, of two or four bytes, either end first, among the first bytes or anywhere."""
    code = rng.choice(("<H", ">H", "<I", ">I"))
    number = rng.choice(HUGE) & (0xFFFF if code[1] == "H" else 0xFFFFFFFF)
    at = rng.randrange(max(1, min(len(data), rng.choice((64, 512, len(data) or 1)))))
    packed = struct.pack(code, number)
    return data[:at] + packed + data[at + len(packed) :]


def size_made_huge(data: bytes, rng: random.Random) -> bytes:
    """The width or height that a picture's header states, or a number of a PDF, is set to one that cannot be."""
    if data.startswith(b"\x89PNG") and len(data) >= 33:
        return _huge_png(data, rng)
    if b"%PDF-" in data[:1024]:
        return _huge_in_pdf(data, rng)
    places = list(_size_places(data))
    if not places:
        return huge_number_written(data, rng)
    at, code = rng.choice(places)
    number = rng.choice(HUGE) & (0xFFFF if code[1] == "H" else 0xFFFFFFFF)
    return data[:at] + struct.pack(code, number) + data[at + struct.calcsize(code) :]


def _huge_png(data: bytes, rng: random.Random) -> bytes:
    """With the checksum right, or the decoder would not look at it."""
    header = bytearray(data[12:29])
    at = rng.choice((4, 8))
    header[at : at + 4] = struct.pack(">I", rng.choice(HUGE))
    return data[:12] + bytes(header) + struct.pack(">I", zlib.crc32(header)) + data[33:]


def _huge_in_pdf(data: bytes, rng: random.Random) -> bytes:
    numbers = list(re.finditer(rb"(?<=[ \[])\d+(?=[ \]\n/>])", data))
    if not numbers:
        return data
    chosen = rng.choice(numbers)
    return data[: chosen.start()] + str(rng.choice((0, *HUGE, 2**63))).encode() + data[chosen.end() :]


def _size_places(data: bytes) -> list[tuple[int, str]]:
    """Where the sizes of a JPEG, TIFF, JPEG 2000 or WebP stand, and their struct codes."""
    if data[:2] == b"\xff\xd8":
        starts = [found.start() for found in re.finditer(rb"\xff[\xc0-\xc2]\0[\x0b\x11\x14]\x08", data)]
        return [(start + offset, ">H") for start in starts for offset in (5, 7)]
    if data[:4] in (b"II*\0", b"MM\0*"):
        order = "<" if data[:1] == b"I" else ">"
        tags = b"".join(re.escape(struct.pack(order + "H", tag)) + b"|" for tag in (256, 257, 277, 278, 273, 279))[:-1]
        return [(found.start() + offset, order + "I") for found in re.finditer(tags, data) for offset in (4, 8)]
    siz = data.find(b"\xff\x4f\xff\x51")
    if 0 <= siz < 512:
        return [(siz + 8 + 4 * n, ">I") for n in range(8)]
    if data[8:12] == b"WEBP":
        return [(4, "<I"), (16, "<I"), (24, "<H"), (26, "<H"), (28, "<H")]
    return []


MUTATIONS: dict[str, Mutation] = {
    function.__name__: function
    for function in (
        truncated,
        bits_flipped,
        header_flipped,
        magic_replaced,
        magic_inserted,
        blocks_swapped,
        block_removed,
        block_repeated,
        block_inserted,
        block_overwritten,
        huge_number_written,
        size_made_huge,
    )
}


PATH_TRICKS = (
    "../../../../etc/passwd",
    "/etc/passwd",
    "..\\..\\windows\\win.ini",
    "file:///etc/passwd",
    "http://127.0.0.1:9/page.png",
    "\\\\127.0.0.1\\share\\page.png",
    "page.png/../../page.png",
    "./././page.png",
    "~/page.png",
    "$HOME/page.png",
    "page\u202egnp.exe",
    "page.png\n",
    " page.png",
    "-rf",
    "con.png",
    ".",
    "",
    "a" * 5000 + ".png",
    "%2e%2e%2fpage.png",
    "|cat page.png",
)
"""Names of files that an XML document or an archive may give, none of which may lead out of its folder."""


def with_entity_bomb(xml: bytes, levels: int = 9) -> bytes:
    """The document with an entity in its root element that grows tenfold with each level.

    >>> with_entity_bomb(b"<page/>", levels=1)
    b'<!DOCTYPE page [<!ENTITY e0 "ha"><!ENTITY e1 "&e0;&e0;&e0;&e0;&e0;&e0;&e0;&e0;&e0;&e0;">]><page>&e1;</page>'
    """
    entities = ['<!ENTITY e0 "ha">']
    entities += [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, levels + 1)]
    return _with_doctype(xml, "".join(entities), f"&e{levels};")


def with_long_entity(xml: bytes, size: int = 100_000, uses: int = 10_000) -> bytes:
    """The document with one long entity used many times: growth without nesting."""
    return _with_doctype(xml, f'<!ENTITY e "{"a" * size}">', "&e;" * uses)


def with_external_entity(xml: bytes, target: str = "file:///etc/passwd") -> bytes:
    """The document with an entity that stands for another file.

    >>> with_external_entity(b"<?xml version='1.0'?><a>b</a>", "file:///x")
    b'<?xml version=\\'1.0\\'?><!DOCTYPE a [<!ENTITY e SYSTEM "file:///x">]><a>&e;b</a>'
    """
    return _with_doctype(xml, f'<!ENTITY e SYSTEM "{target}">', "&e;")


def with_external_dtd(xml: bytes, target: str = "http://127.0.0.1:9/page.dtd") -> bytes:
    """The document with a DTD that has to be fetched."""
    start, name, end = _root(xml)
    del end
    return xml[:start] + f'<!DOCTYPE {name} SYSTEM "{target}">'.encode() + xml[start:]


def with_deep_nesting(xml: bytes, depth: int = 100_000) -> bytes:
    """The document with elements within elements in its root."""
    return _in_root(xml, b"<a>" * depth + b"</a>" * depth)


def with_path(xml: bytes, name: str) -> bytes:
    """The document with every name of a picture in it replaced.

    >>> with_path(b'<Page imageFilename="1.png" n="2"/>', "../x")
    b'<Page imageFilename="../x" n="2"/>'
    """
    quoted = name.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;").replace("\n", "&#10;").encode()
    attribute = re.compile(
        rb'(?<=[\s:])((?:imageFilename|filename|fileName|href|src|image)\s*=\s*)(?:"[^"]*"|\'[^\']*\')'
    )
    element = re.compile(rb"(<(?:\w+:)?fileName>)[^<]*")
    changed = attribute.sub(lambda found: found[1] + b'"' + quoted + b'"', xml)
    return element.sub(lambda found: found[1] + quoted, changed)


def _with_doctype(xml: bytes, declarations: str, reference: str) -> bytes:
    start, name, _ = _root(xml)
    used = _in_root(xml, reference.encode())
    return used[:start] + f"<!DOCTYPE {name} [{declarations}]>".encode() + used[start:]


def _in_root(xml: bytes, content: bytes) -> bytes:
    """The document with content at the beginning of its root element, which may have been empty."""
    start, name, end = _root(xml)
    if xml[end - 2 : end] == b"/>":
        return xml[: end - 2] + b">" + content + f"</{name}>".encode() + xml[end:]
    del start
    return xml[:end] + content + xml[end:]


def _root(xml: bytes) -> tuple[int, str, int]:
    """Where the start tag of the root element starts, its name and where the tag ends."""
    found = re.search(rb"<([A-Za-z_][\w:.-]*)(?:[^>\"']|\"[^\"]*\"|'[^']*')*>", xml)
    if not found:
        raise ValueError("no element")
    return found.start(), found[1].decode(), found.end()
