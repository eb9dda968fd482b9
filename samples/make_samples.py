"""Typesets and wears the two modern sample pages, receipt.jpg and two-columns.jpg, with their truth files.

The texts are invented for this purpose. Fonts are found by name among the installed ones: DejaVu Sans Mono (Debian
package fonts-dejavu-core) and Liberation Serif (fonts-liberation). The same seed gives the same pixels.

Usage: python samples/make_samples.py [FOLDER]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SEED = 1905

RECEIPT = """\
HARBOUR STREET PROVISIONS
14 Harbour Street, Eastmouth
Tel. 0555 013 274
--
RECEIPT No.|004417
Date 17/03/2019|Time 11:42
Till 02|Served by Ines
--
Rye bread, sliced|2.40
Salted butter 250 g|3.15
2 x Apricot jam @ 2.85|5.70
Oranges 1.340 kg @ 1.95/kg|2.61
Coffee, ground 500 g|7.90
Matches, box of 10|1.20
Paper bag|0.10
Discount 10% on coffee|-0.79
--
SUBTOTAL|22.27
VAT 6% included|1.26
TOTAL EUR|22.27
CASH|30.00
CHANGE|7.73
--
8 items. Goods may be exchanged
within 14 days with this receipt.
THANK YOU - PLEASE CALL AGAIN"""

HEADLINE = "The Night Mail of the Lower Valley"

COLUMNS = [
    "Before the bridge at Orme was built, letters for the lower valley went by water. A flat boat left the mill "
    "stairs at ten in the evening and was poled downstream in the dark, with one lamp at the bow and one sack of "
    "mail amidships. The boatmen knew the river by its sounds: shallow water chatters, deep water is silent, and "
    "below the weir there is a stretch that hums.",
    "The accounts of the service survive for 1871 to 1894. They are kept in three tall books, ruled by hand, and "
    "record every sack with its weight, the hour at which it left and the hour at which it was received. In an "
    "ordinary year the boat carried some 48,000 letters and 2,300 parcels; the dearest parcel, a clock, paid 4s. 6d.",
    "“We were never late,” the last boatman said, “except when the ice held us.” The books do not bear him out. Of "
    "7,212 trips 391 ended after midnight, most of them in November, when the fog lies on the meadows until noon.",
    "The bridge was opened on 2 May 1894, and on the following day the contract was cancelled. Two of the boats were "
    "sold for firewood. The third lay for years behind the mill and was drawn, by more than one visitor, as an "
    "example of early shipbuilding; it was then about nineteen years old.",
    "What the valley lost was not speed, since the cart was quicker, but an hour. People had written their letters "
    "after supper and brought them down to the stairs at nine. The cart left at five. For a generation afterwards "
    "the shops of Orme sold a paper folded once and called “evening”, and nobody remembered why.",
    "A model of the boat, at a scale of one to twelve, can be seen in the reading room of the town library, together "
    "with the lamp (restored) and one of the account books, open at the page for the great flood of 1883.",
]


@dataclass(frozen=True)
class Sheet:
    """A typeset page: grey pixels [height, width] uint8 (255 is paper) and its lines of text in reading order."""

    pixels: np.ndarray
    lines: list[str]


def open_font(file_name: str, size_px: int) -> ImageFont.FreeTypeFont:
    """An installed font. Basic layout: the other engine is there on some machines only and kerns otherwise."""
    return ImageFont.truetype(file_name, size_px, layout_engine=ImageFont.Layout.BASIC)


def typeset_receipt(width_px: int = 720, margin_px: int = 46) -> Sheet:
    """A narrow slip in a monospaced face: names at the left, amounts at the right, rules between the parts."""
    font = open_font("DejaVuSansMono.ttf", 27)
    rows = RECEIPT.splitlines()
    page = Image.new("L", (width_px, 2 * margin_px + 40 * len(rows)), 255)
    draw = ImageDraw.Draw(page)
    lines = []
    for number, row in enumerate(rows):
        top = margin_px + 40 * number
        left, _, right = row.partition("|")
        if row == "--":
            draw.line([(margin_px, top + 18), (width_px - margin_px, top + 18)], fill=40, width=2)
            continue
        if right:
            draw.text((margin_px, top), left, font=font, fill=20)
            draw.text((width_px - margin_px, top), right, font=font, fill=20, anchor="ra")
        else:
            draw.text((width_px // 2, top), left, font=font, fill=20, anchor="ma")
        lines.append(f"{left} {right}".strip())
    return Sheet(np.asarray(page), lines)


def wrap_words(text: str, font: ImageFont.FreeTypeFont, width_px: float) -> list[list[str]]:
    """The words of each line when a paragraph is filled up to a width, first come first set."""
    lines: list[list[str]] = [[]]
    for word in text.split():
        if lines[-1] and font.getlength(" ".join([*lines[-1], word])) > width_px:
            lines.append([])
        lines[-1].append(word)
    return lines


def draw_justified(
    draw: ImageDraw.ImageDraw, words: list[str], left: float, top: float, font: ImageFont.FreeTypeFont, width_px: float
) -> None:
    """Draws words so that the last one ends at the right edge of the column."""
    gap = (width_px - sum(font.getlength(word) for word in words)) / max(1, len(words) - 1)
    for word in words:
        draw.text((left, top), word, font=font, fill=15)
        left += font.getlength(word) + gap


def typeset_columns(width_px: int = 1654, height_px: int = 1300, margin_px: int = 150, gutter_px: int = 60) -> Sheet:
    """An A4-wide page with a headline over two justified columns, set left column first."""
    body = open_font("LiberationSerif-Regular.ttf", 31)
    heading = open_font("LiberationSerif-Bold.ttf", 62)
    page = Image.new("L", (width_px, height_px), 255)
    draw = ImageDraw.Draw(page)
    draw.text((width_px // 2, 130), HEADLINE, font=heading, fill=15, anchor="ma")
    draw.line([(margin_px, 230), (width_px - margin_px, 230)], fill=60, width=3)
    column_px = (width_px - 2 * margin_px - gutter_px) / 2
    paragraphs = [wrap_words(text, body, column_px) for text in COLUMNS]
    half = -(-sum(map(len, paragraphs)) // 2)
    lines = [HEADLINE]
    for paragraph in paragraphs:
        for number, words in enumerate(paragraph):
            column, row = divmod(len(lines) - 1, half)
            left, top = margin_px + column * (column_px + gutter_px), 280 + 42 * row
            if number == len(paragraph) - 1:
                draw.text((left, top), " ".join(words), font=body, fill=15)
            else:
                draw_justified(draw, words, left, top, body, column_px)
            lines.append(" ".join(words))
    draw.text((width_px // 2, height_px - 110), "23", font=body, fill=15, anchor="ma")
    return Sheet(np.asarray(page), [*lines, "23"])


def wear(
    pixels: np.ndarray, rng: np.random.Generator, angle_deg: float, blur_px: float, fading: float, noise: float
) -> np.ndarray:
    """The same page as a scanner returns it: turned a little, faded in patches, softened, shaded and noisy.

    Args:
        pixels: [height, width] uint8, 255 is paper.
        rng: source of the fading pattern and of the noise.
        angle_deg: rotation of the page.
        blur_px: standard deviation of the lens.
        fading: how much of the ink is missing where it is faintest, 0 to 1.
        noise: standard deviation of the sensor noise in grey values.

    Returns:
        [height, width] uint8.
    """
    height, width = pixels.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, 1.0)
    turned = cv2.warpAffine(pixels, turn, (width, height), flags=cv2.INTER_CUBIC, borderValue=(255,))
    patches = cv2.resize(rng.random((6, 4), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    faded = 255 - (255 - turned.astype(np.float32)) * (1 - fading * np.clip(patches, 0, 1))
    soft = cv2.GaussianBlur(faded, (0, 0), blur_px)
    paper = np.linspace(0.97, 0.88, width, dtype=np.float32) * np.linspace(0.98, 1.0, height, dtype=np.float32)[:, None]
    scanned = soft * paper + rng.normal(0, noise, soft.shape)
    return np.asarray(np.clip(scanned, 0, 255), dtype=np.uint8)


def main(folder: Path) -> None:
    """Writes NAME.jpg and NAME.gt.txt of both pages into a folder."""
    rng = np.random.default_rng(SEED)
    receipt, columns = typeset_receipt(), typeset_columns()
    worn = {
        "receipt": wear(receipt.pixels, rng, angle_deg=0.9, blur_px=0.9, fading=0.55, noise=6),
        "two-columns": wear(columns.pixels, rng, angle_deg=-0.6, blur_px=0.8, fading=0.2, noise=4),
    }
    for name, sheet in (("receipt", receipt), ("two-columns", columns)):
        Image.fromarray(worn[name]).save(folder / f"{name}.jpg", quality=72, dpi=(200, 200))
        (folder / f"{name}.gt.txt").write_text("\n".join(sheet.lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
