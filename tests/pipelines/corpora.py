"""Small corpora of pages with truth, good and bad, made in memory."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from tests import scans

PAGE = (
    '<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"><Metadata><Creator/>'
    "<Created>2024-01-01T00:00:00</Created><LastChange>2024-01-01T00:00:00</LastChange></Metadata>"
    '<Page imageFilename="{image}" imageWidth="{width}" imageHeight="{height}"><TextRegion id="r1">'
    '<Coords points="0,0 {width},0 {width},{height} 0,{height}"/>'
    '<TextLine id="l1"><Coords points="{line}"/><Baseline points="10,58 190,58"/>'
    "<TextEquiv><Unicode>{text}</Unicode></TextEquiv></TextLine></TextRegion></Page></PcGts>"
)
LINE = "10,30 190,30 190,64 10,64"


def page_image(number: int, width: int = 200, height: int = 260) -> bytes:
    """A PNG with three lines of figures, another one for every number."""
    page = np.full((height, width), 240, np.uint8)
    for row in range(3):
        cv2.putText(page, f"{number:04d} {row}", (10, 58 + 70 * row), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 10, 2)
    return scans.encoded(scans.Image.fromarray(page), "PNG")


def lines_json(number: int, rows: int = 3) -> bytes:
    """The truth of `page_image`."""
    boxes = [[10, 30 + 70 * row, 190, 64 + 70 * row] for row in range(rows)]
    return json.dumps([{"bbox": box, "text": f"{number:04d} {row}"} for row, box in enumerate(boxes)]).encode()


def page_xml(image: str, text: str = "0001 0", line: str = LINE, width: int = 200, height: int = 260) -> bytes:
    return PAGE.format(image=image, width=width, height=height, line=line, text=text).encode()


def line_image(number: int) -> bytes:
    line = np.full((40, 160), 240, np.uint8)
    cv2.putText(line, f"{number:04d}", (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 10, 2)
    return scans.encoded(scans.Image.fromarray(line), "PNG")


def corpus_of(pages: int, lines: int = 0) -> dict[str, bytes]:
    """Files of a corpus: pages with `.lines.json`, line images with `.gt.txt`."""
    files = {}
    for n in range(pages):
        files[f"pages/{n:05d}.png"] = page_image(n)
        files[f"pages/{n:05d}.lines.json"] = lines_json(n)
    for n in range(lines):
        files[f"lines/{n:05d}.png"] = line_image(n)
        files[f"lines/{n:05d}.gt.txt"] = f"{n:04d}\n".encode()
    return files


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
