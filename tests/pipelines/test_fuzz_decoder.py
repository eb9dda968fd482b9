"""Mutated files through the decoder: each ends as pages or as a failure with a reason, and nothing else happens."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ocr_model.errors import UnreadablePage
from ocr_model.images import Limits
from pipelines.decoder import REASONS, Decoder
from tests import scans
from tests.mutations import mutated

LIMITS = Limits(max_bytes=2**20, max_pixels=1_000_000, hard_max_pixels=8_000_000, max_pages=20)


def written_page() -> Image.Image:
    """Some text on grey paper with noise."""
    noise = np.asarray(Image.effect_noise((160, 120), 20), np.uint8)
    page = Image.fromarray(np.clip(noise // 4 + 190, 0, 255).astype(np.uint8))
    for row in range(6):
        ImageDraw.Draw(page).text((8, 4 + 19 * row), "Sehr geehrter Herr", 20)
    return page


def seeds() -> dict[str, bytes]:
    """A small sound file of every kind."""
    page = written_page()
    colour, bilevel = page.convert("RGB"), page.convert("1")
    drawing = b"BT /F1 12 Tf 10 50 Td (Sehr geehrter Herr) Tj ET 0 0 50 100 re f"
    return {
        "grey JPEG": scans.encoded(page, "JPEG", dpi=(300, 300)),
        "colour JPEG": scans.encoded(colour, "JPEG", exif=_turned()),
        "progressive JPEG": scans.encoded(colour, "JPEG", progressive=True),
        "CMYK JPEG": scans.encoded(colour.convert("CMYK"), "JPEG"),
        "grey PNG": scans.encoded(page, "PNG", dpi=(300, 300)),
        "palette PNG": scans.encoded(page.convert("P"), "PNG"),
        "16-bit PNG": scans.encoded(Image.fromarray(np.asarray(page).astype(np.uint16) * 257), "PNG"),
        "CCITT TIFF": scans.encoded(bilevel, "TIFF", compression="group4", dpi=(204, 98)),
        "TIFF of three": scans.tiff([page.copy(), bilevel, colour.copy()], compression="tiff_lzw"),
        "JPEG in TIFF": scans.encoded(colour, "TIFF", compression="jpeg"),
        "deflated TIFF": scans.encoded(colour, "TIFF", compression="tiff_adobe_deflate"),
        "BigTIFF": scans.encoded(page, "TIFF", big_tiff=True),
        "JPEG 2000": scans.encoded(colour, "JPEG2000"),
        "JPEG 2000 codestream": scans.encoded(page, "JPEG2000", no_jp2=True),
        "WebP": scans.encoded(colour, "WEBP"),
        "lossless WebP": scans.encoded(page, "WEBP", lossless=True),
        "drawn PDF": scans.pdf(["0 0 100 100", "0 0 50 100"], contents=drawing),
        "JPEG in PDF": scans.encoded(page, "PDF", resolution=150),
        "CCITT in PDF": scans.encoded(bilevel, "PDF", resolution=150),
        "JPEG 2000 in PDF": scans.encoded(colour.convert("RGBA"), "PDF", resolution=150),
    }


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(LIMITS, timeout_s=5, memory_bytes=2**28) as running:
        yield running


def outcomes(decoder: Decoder, data: bytes) -> list[str]:
    """What became of the file: `page` or the reason of the failure for each page, or the one of the file."""
    try:
        count = decoder.open(data)
    except UnreadablePage as error:
        return [_checked(error)]
    return [_outcome_of_page(decoder, index) for index in range(count)]


def _outcome_of_page(decoder: Decoder, index: int) -> str:
    try:
        page = decoder.decode(index)
    except UnreadablePage as error:
        return _checked(error)
    assert 0 < page.pixels.size <= LIMITS.max_pixels and page.pixels.dtype == np.uint8
    return "page"


def _checked(error: UnreadablePage) -> str:
    """The reason. A child that ended by an exception was not killed by the file: that is a bug here."""
    assert error.reason in REASONS | {"timeout", "decoder-died"}
    assert error.reason != "decoder-died" or "exit code" not in error.message, error.message
    return error.reason


def run(decoder: Decoder, files: int, seed: int) -> Counter[str]:
    """Files by what became of them."""
    sound = list(seeds().values())
    counts: Counter[str] = Counter()
    for number in range(files):
        name, data = mutated(sound[number % len(sound)], random.Random(f"{seed} {number}"))
        try:
            found = set(outcomes(decoder, data))
        except Exception as error:
            raise AssertionError(f"file {number} of seed {seed}, {name}") from error
        assert found
        counts["pages and failures" if len(found) > 1 else found.pop()] += 1
    return counts


def test_sound_files_are_pages(decoder: Decoder) -> None:
    assert {name for name, data in seeds().items() if set(outcomes(decoder, data)) != {"page"}} == set()


def test_mutations_are_the_same_for_the_same_seed() -> None:
    data = seeds()["grey PNG"]
    first, again = ([mutated(data, random.Random(f"{seed}")) for seed in range(50)] for _ in range(2))
    assert first == again
    assert len({changed for _, changed in first}) > 45


def test_every_mutated_file_ends_as_pages_or_as_a_failure(decoder: Decoder) -> None:
    counts = run(decoder, files=200, seed=1)
    assert counts.total() == 200
    assert counts["page"] and counts["damaged"] + counts["truncated"] > 20


@pytest.mark.slow
def test_ten_thousand_mutated_files_end_as_pages_or_as_failures(decoder: Decoder) -> None:
    counts = run(decoder, files=10_000, seed=2)
    print(*(f"{count:6d} {what}" for what, count in counts.most_common()), sep="\n")
    assert counts.total() == 10_000
