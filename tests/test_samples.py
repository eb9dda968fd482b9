"""The sample scans are documented, small, and what their script makes."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium
import pytest
from PIL import Image

SAMPLES = Path(__file__).parents[1] / "samples"
SCANS = sorted(path for path in SAMPLES.iterdir() if path.suffix in {".jpg", ".pdf", ".png", ".tif"})


def page_count(scan: Path) -> int:
    """Pages of a sample, as the libraries count them that wrote none of our code."""
    if scan.suffix == ".pdf":
        with pdfium.PdfDocument(scan) as document:
            return len(document)
    with Image.open(scan) as image:
        return getattr(image, "n_frames", 1)


def test_there_are_eight_to_twelve_pages_in_four_megabytes():
    assert 8 <= sum(map(page_count, SCANS)) <= 12
    assert sum(path.stat().st_size for path in SAMPLES.iterdir() if path.is_file()) < 4_000_000


@pytest.mark.parametrize("scan", SCANS, ids=lambda path: path.name)
def test_sample_has_the_truth_of_each_of_its_pages(scan):
    pages = scan.with_suffix(".gt.txt").read_text(encoding="utf-8").split("\f")
    assert len(pages) == page_count(scan)
    assert all(page.strip() for page in pages)


@pytest.mark.parametrize("scan", SCANS, ids=lambda path: path.name)
def test_sample_has_one_line_with_its_source_and_licence(scan):
    rows = [row for row in (SAMPLES / "README.md").read_text(encoding="utf-8").splitlines() if f"`{scan.name}`" in row]
    assert len(rows) == 1
    assert re.search(r"\| (CC-BY 4\.0|public domain|Apache-2\.0) \|$", rows[0])


def test_typeset_samples_are_what_their_script_makes(tmp_path):
    try:
        runpy.run_path(str(SAMPLES / "make_samples.py"))["main"](tmp_path)
    except OSError:
        pytest.skip("needs the fonts of fonts-dejavu-core and fonts-liberation")
    for name in ("receipt", "two-columns"):
        assert (tmp_path / f"{name}.gt.txt").read_bytes() == (SAMPLES / f"{name}.gt.txt").read_bytes()
        made, kept = (np.asarray(Image.open(folder / f"{name}.jpg"), dtype=float) for folder in (tmp_path, SAMPLES))
        assert made.shape == kept.shape
        assert np.abs(made - kept).mean() < 1  # other versions of the JPEG encoder may round otherwise
