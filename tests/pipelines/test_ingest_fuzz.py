"""Thousands of damaged and hostile images and truths through a whole ingest: nothing crashes, none is lost.

The seed is fixed; the mutator is `tests.mutations`. A few hundred files by default, ten thousand with `-m slow`.
"""

import io
import json
import random
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from ocr_model.record_files import load_manifest, read_records
from pipelines.verify import verify_output
from tests import mutations, scans
from tests.pipelines.corpora import lines_json, page_image, page_xml, put
from tests.pipelines.formats.schemas import faults
from tests.pipelines.test_ingest import ingest

SEED = 20240607
HOCR = (
    '<html><body><div class="ocr_page" title="image &quot;{image}&quot;; bbox 0 0 200 260">'
    '<span class="ocr_line" title="bbox 10 30 190 64">0001 0</span></div></body></html>'
)
ALTO = (
    '<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"><Description><MeasurementUnit>pixel</MeasurementUnit>'
    "<sourceImageInformation><fileName>{image}</fileName></sourceImageInformation></Description><Layout>"
    '<Page ID="p" PHYSICAL_IMG_NR="1" WIDTH="200" HEIGHT="260"><PrintSpace><TextBlock ID="b">'
    '<TextLine HPOS="10" VPOS="30" WIDTH="180" HEIGHT="34" BASELINE="10 58 190 58">'
    '<String CONTENT="0001" HPOS="10" VPOS="30" WIDTH="180" HEIGHT="34"/>'
    "</TextLine></TextBlock></PrintSpace></Page></Layout></alto>"
)


def test_truths_that_are_damaged_were_valid_before() -> None:
    assert faults(ALTO.format(image="a.png").encode(), "alto-4-4.xsd") == []
    assert faults(page_xml("a.png"), "pagecontent-2019-07-15.xsd") == []


def picture_of(number: int, rng: random.Random) -> tuple[str, bytes]:
    """(extension, bytes) of a sound page."""
    extension = rng.choice((".png", ".jpg", ".tif", ".webp", ".jp2", ".pdf"))
    if extension == ".pdf":
        return extension, scans.pdf([f"0 0 {100 + number % 50} 130"])
    image = scans.Image.open(io.BytesIO(page_image(number)))
    formats = {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF", ".webp": "WEBP", ".jp2": "JPEG2000"}
    return extension, scans.encoded(image, formats[extension])


def truth_of(image: str, number: int, rng: random.Random) -> tuple[str, bytes]:
    """(extension, bytes) of a sound truth."""
    extension = rng.choice((".xml", ".xml", ".hocr", ".lines.json", ".gt.txt"))
    if extension == ".xml":
        return extension, rng.choice((page_xml(image), ALTO.format(image=image).encode()))
    if extension == ".hocr":
        return extension, HOCR.format(image=image).encode()
    return extension, lines_json(number) if extension == ".lines.json" else b"0001 0\n0001 1\n"


XML_ATTACKS = (
    mutations.with_entity_bomb,
    mutations.with_long_entity,
    mutations.with_external_entity,
    mutations.with_external_dtd,
    mutations.with_deep_nesting,
)


def hostile(extension: str, data: bytes, rng: random.Random) -> bytes:
    """The truth made hostile."""
    if extension in (".xml", ".hocr") and rng.random() < 0.4:
        if rng.random() < 0.5:
            return mutations.with_path(data, rng.choice(mutations.PATH_TRICKS))
        return rng.choice(XML_ATTACKS)(data)
    return mutations.mutated(data, rng)[1]


def hostile_corpus(count: int) -> dict[str, bytes]:
    """Files of `count` pairs in which the picture, the truth or both are damaged."""
    rng = random.Random(SEED)
    files = {}
    for number in range(count):
        extension, picture = picture_of(number, rng)
        stem = f"{number % 97:02d}/{number:05d}"
        truth_extension, truth = truth_of(f"{number:05d}{extension}", number, rng)
        victim = rng.randrange(3)
        if victim != 0:
            picture = mutations.mutated(picture, rng)[1]
        if victim != 1:
            truth = hostile(truth_extension, truth, rng)
        files[stem + extension], files[stem + truth_extension] = picture, truth
    return files


def ingest_hostile(root: Path, count: int) -> Counter[str]:
    put(root / "in", hostile_corpus(count))
    with zipfile.ZipFile(root / "in/box.zip", "w") as box:
        for number, name in enumerate(mutations.PATH_TRICKS):
            if "\n" not in name and name not in ("", "."):
                box.writestr(name if name.endswith(".png") else name + ".png", page_image(number))
    report = ingest(root, {"steps": ("crop", "deskew"), "timeout_s": 20.0, "without_truth": "keep"})
    counts = report.counts
    assert counts.balanced and not report.open_units
    pictures = sum(
        1 for path in (root / "in").rglob("*") if path.suffix in {".png", ".jpg", ".tif", ".webp", ".jp2", ".pdf"}
    )
    letters = [json.loads(line) for line in (root / "out/dead_letters.jsonl").read_text().splitlines()]
    orphans = sum(1 for letter in letters if letter["stage"] == "pair" and not is_picture(letter["path"]))
    in_archive = {letter["path"] for letter in letters if "box.zip!" in letter["path"]}
    assert counts.files == pictures + orphans + len(archive_members(report)) and len(in_archive) <= counts.files
    assert all(letter["stage"] and letter["reason"] for letter in letters)
    assert verify_output(str(root / "out")).problems == ()
    manifest = load_manifest(root / "out")
    assert sum(file.records for file in manifest.files) == sum(
        1 for kind in ("page", "line") for _ in read_records(root / "out", kind)
    )
    assert {p.name for p in root.iterdir()} == {"in", "out"}
    return Counter(f"{letter['stage']}: {letter['reason']}" for letter in letters)


def is_picture(path: str) -> bool:
    return path.rpartition(".")[2] in {"png", "jpg", "tif", "webp", "jp2", "pdf"}


def archive_members(report: object) -> set[str]:
    from pipelines import ledger

    entries = report.entries.values()  # type: ignore[attr-defined]
    files = (file.path for entry in entries for file in ledger.file_counts(report.output, entry))  # type: ignore[attr-defined]
    return {path for path in files if "box.zip!" in path}


def test_a_few_hundred_hostile_files_are_all_accounted_for(tmp_path: Path) -> None:
    reasons = ingest_hostile(tmp_path, 150)
    assert len(reasons) > 5


@pytest.mark.slow
def test_ten_thousand_hostile_files_are_all_accounted_for(tmp_path: Path) -> None:
    reasons = ingest_hostile(tmp_path, 5000)  # two files each
    print("\n".join(f"{count:6} {reason}" for reason, count in reasons.most_common()))
    assert len(reasons) > 15
