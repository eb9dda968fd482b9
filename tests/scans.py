"""Small files, good and bad, made in memory: what strangers hand to an OCR program."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image


def picture(width: int = 40, height: int = 20, ink: int = 0) -> Image.Image:
    """White paper, the left half inked."""
    pixels = np.full((height, width), 255, np.uint8)
    pixels[:, : width // 2] = ink
    return Image.fromarray(pixels)


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_name, **options)
    return stream.getvalue()


def tiff(pages: Sequence[Image.Image], **options: object) -> bytes:
    return encoded(pages[0], "TIFF", save_all=True, append_images=list(pages[1:]), **options)


def one_colour_png(width: int, height: int) -> bytes:
    """A white PNG of any size, without holding its pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(1)
    row = b"\0" + b"\xff" * ((width + 7) // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def pdf(media_boxes: Sequence[str], trailer: bytes = b"", contents: bytes = b"0 0 50 100 re f") -> bytes:
    """A PDF with a page per media box; each page draws `contents`."""
    kids = " ".join(f"{4 + n} 0 R" for n in range(len(media_boxes)))
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(media_boxes)} >>".encode(),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(contents), contents),
    ]
    bodies += [f"<< /Type /Page /Parent 2 0 R /MediaBox [{b}] /Contents 3 0 R >>".encode() for b in media_boxes]
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(bodies) + 1, table)
    end += b"trailer << /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF\n" % (len(bodies) + 1, trailer, len(out))
    return out + end


def encrypted_pdf() -> bytes:
    """A PDF whose password is not the empty one."""
    key = b"<" + b"41" * 32 + b">"
    lock = b"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O %s /U %s >> /ID [<00><00>]" % (key, key)
    return pdf(["0 0 100 100"], trailer=lock)
