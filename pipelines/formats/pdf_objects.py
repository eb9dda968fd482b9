"""The objects of a PDF file, written to a stream one after another: nothing but their places is kept in memory.

The PDF libraries for Python hold a document until it is saved: with 2,000 scans of 109 kB pikepdf took 284 MB, fpdf2
510 and reportlab 737, more than the file itself has. What a scan with a text layer needs of PDF is
small: objects, streams and the table of their places, all in ISO 32000-1, section 7.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from typing import BinaryIO


def number(value: float, decimals: int = 2) -> str:
    """A number as PDF writes it.

    >>> number(12.0), number(-0.004), number(0.126)
    ('12', '0', '0.13')
    """
    text = f"{value:.{decimals}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def text_string(text: str) -> str:
    """A string for people, such as a title; what is half a surrogate pair becomes U+FFFD.

    >>> text_string("Aé")
    '<feff004100e9>'
    """
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return f"<{(chr(0xFEFF) + clean).encode('utf-16-be').hex()}>"


_HEAD_OF_FREE_OBJECTS = b"\0" + bytes(8) + b"\xff"  # object 0


class ObjectStream:
    """A PDF file under way. Objects may refer to others that are written later: `reserve` gives them their numbers."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._places = array("Q", [0])  # of the objects; 0 is not yet written
        self._put(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self._digest.update(data)
        self._size_bytes += len(data)

    def reserve(self) -> int:
        """The number of an object that is written later."""
        self._places.append(0)
        return len(self._places) - 1

    def write(self, content: str, object_number: int | None = None) -> int:
        """Writes an object; its number."""
        return self._write(content.encode("ascii"), object_number)

    def write_stream(self, entries: str, data: bytes, object_number: int | None = None) -> int:
        """Writes a stream as it is, `entries` those of its dictionary but the length; its number."""
        head = f"<<{entries} /Length {len(data)}>>\nstream\n".encode("ascii")
        return self._write(b"".join((head, data, b"\nendstream")), object_number)

    def write_deflated(self, entries: str, data: bytes, object_number: int | None = None) -> int:
        """Writes a stream compressed; its number."""
        return self.write_stream(f"{entries} /Filter /FlateDecode", zlib.compress(data, 9), object_number)

    def _write(self, content: bytes, object_number: int | None) -> int:
        own = self.reserve() if object_number is None else object_number
        self._places[own] = self._size_bytes
        self._put(b"%d 0 obj\n" % own)
        self._put(content)
        self._put(b"\nendobj\n")
        return own

    def finish(self, catalog: int, information: int) -> None:
        """Writes the table of places. The file's identifier is a digest of its content.

        Raises:
            ValueError: an object that was reserved has not been written.
        """
        own, start = self.reserve(), self._size_bytes
        self._places[own] = start
        missing = [n for n, place in enumerate(self._places) if n and not place]
        if missing:
            raise ValueError(f"objects {missing} of the PDF were reserved and not written")
        # An entry is its type (1: an object in the file), eight bytes of its place, and a generation, always 0.
        entries = b"".join(b"\1%b\0" % place.to_bytes(8, "big") for place in self._places[1:])
        identifier = self._digest.hexdigest()[:32]
        self.write_deflated(
            f"/Type /XRef /Size {len(self._places)} /W [1 8 1] /Root {catalog} 0 R /Info {information} 0 R"
            f" /ID [<{identifier}> <{identifier}>]",
            _HEAD_OF_FREE_OBJECTS + entries,
            own,
        )
        self._put(b"startxref\n%d\n%%%%EOF\n" % start)
