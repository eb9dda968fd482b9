import json
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocr_model.document import Page
from ocr_model.errors import BadModel, NothingToDo
from pipelines.corpus import SourceFile
from pipelines.cost import load_machine
from pipelines.estimate import PAGES_OF_A_FILE, Estimate, Range, estimate, systematic
from pipelines.routing import Routing
from pipelines.transcribe import TranscribeOptions
from tests import scans
from tests.pipelines.folders import png, put
from tests.pipelines.readers import SizeReader


def sources_of(*sizes: int | None) -> list[SourceFile]:
    return [SourceFile(f"{n}", f"{n}", size) for n, size in enumerate(sizes)]


def estimated(root: Path, sample: int = 50, seed: int = 1, **changes: object) -> Estimate:
    options = TranscribeOptions(inputs=(str(root / "in"),), output="/dev/null", load=SizeReader)
    return estimate(replace(options, **changes), sample, seed, load_machine())  # type: ignore[arg-type]


# The sample.


@given(st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 40), st.integers(0, 99))
def test_sample_is_some_of_the_files_once_each_in_their_order(sizes: list[int | None], wanted: int, seed: int) -> None:
    sources = sources_of(*sizes)
    sample = systematic(sources, wanted, random.Random(seed))
    assert sample == [source for source in sources if source in sample]
    assert len(sample) == min(wanted, len(sources))
    assert sample == systematic(sources, wanted, random.Random(seed))


@given(st.integers(1, 20), st.integers(1, 10), st.integers(0, 99))
def test_small_and_large_files_are_in_the_sample_as_in_the_corpus(wanted: int, per_step: int, seed: int) -> None:
    sizes = list(range(wanted * per_step))
    random.Random(seed).shuffle(sizes)
    sample = systematic(sources_of(*sizes), wanted, random.Random(seed))
    steps = Counter((source.size or 0) // per_step for source in sample)
    assert steps == Counter(range(wanted))  # one of every step of the order by size


def test_every_file_is_as_likely_as_another() -> None:
    sources, rng = sources_of(*range(10)), random.Random(1)
    drawn = Counter(source.stem for _ in range(3000) for source in systematic(sources, 3, rng))
    assert all(drawn[source.stem] == pytest.approx(900, rel=0.15) for source in sources)


# What is told.

WIDTHS = range(60, 76)


class BurningReader(SizeReader):
    """Takes half a millisecond of processor time for every pixel that a page is wide."""

    def _read_one(self, image: NDArray[np.uint8]) -> Page:
        until = time.process_time() + image.shape[1] / 2000
        while time.process_time() < until:
            pass
        return super()._read_one(image)


def test_estimate_of_a_part_is_near_what_the_whole_takes(tmp_path: Path) -> None:
    widths = [WIDTHS[n % 16] for n in range(64)]
    put(tmp_path, {f"{n:03}.png": png(width, 20) for n, width in enumerate(widths)})
    found = estimated(tmp_path, sample=16, load=BurningReader)
    whole_s = sum(widths) / 2000
    assert found.cpu_s.mean == pytest.approx(whole_s, rel=0.2)
    assert found.cpu_s.low <= found.cpu_s.mean <= found.cpu_s.high
    assert found.cpu_s_per_page.mean == pytest.approx(whole_s / 64, rel=0.2)
    assert (found.files, found.sampled_files, found.sampled_pages, found.dead) == (64, 16, 16, 0)
    assert found.pages == Range(64, 64, 64)


def test_long_documents_are_read_in_part_and_counted_whole(tmp_path: Path) -> None:
    put(tmp_path, {"a.tif": scans.tiff([scans.picture(20 + n, 20) for n in range(30)]), "b.png": png(20, 20)})
    found = estimated(tmp_path)
    assert (found.sampled_pages, found.pages.mean) == (PAGES_OF_A_FILE + 1, 31)
    assert found.output_bytes["txt"] == pytest.approx(7 * 31, rel=0.1)


def test_pages_that_a_run_would_skip_are_not_counted(tmp_path: Path) -> None:
    put(tmp_path, {"a.tif": scans.tiff([scans.picture(20 + n, 20) for n in range(30)]), "b.png": png(20, 20)})
    found = estimated(tmp_path, first_page=2, last_page=4)
    assert (found.sampled_pages, found.pages.mean) == (3, 3)


def test_manifest_of_pages_of_one_file_is_estimated(tmp_path: Path) -> None:
    put(tmp_path, {"book.tif": scans.tiff([scans.picture(20 + n, 20) for n in range(9)])})
    rows = "".join(f"in/book.tif,{page}\n" for page in ("1", "3", "4-9"))
    (tmp_path / "list.csv").write_text(f"path,page\n{rows}")
    found = estimated(tmp_path, inputs=(str(tmp_path / "list.csv"),))
    assert (found.files, found.sampled_pages, found.pages.mean) == (3, 2 + PAGES_OF_A_FILE, 8)


def test_files_that_cannot_be_read_count_as_dead_pages(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": b"", "b.png": b"x", "c.png": png(20, 20), "d.png": png(13, 20)})
    found = estimated(tmp_path)
    assert (found.dead, found.sampled_pages, found.pages.mean) == (3, 4, 4)
    assert found.cpu_s.mean > 0


def test_corpus_of_nothing_but_damage_has_an_estimate(tmp_path: Path) -> None:
    put(tmp_path, {f"{n}.png": b"x" for n in range(3)})
    found = estimated(tmp_path)
    assert found.dead == 3 and found.output_bytes == {}
    json.dumps(found.to_json(), allow_nan=False)
    assert "3 files" in found.text(workers=2)


def test_sizes_of_all_formats_are_told_and_nothing_is_kept(tmp_path: Path) -> None:
    put(tmp_path, {f"{n}.png": png(20 + n, 20) for n in range(8)})
    before = sorted(tmp_path.rglob("*"))
    found = estimated(tmp_path, sample=4, formats=("txt", "jsonl", "parquet"))
    assert found.output_bytes.keys() == {"txt", "jsonl", "parquet"}
    assert found.output_bytes["txt"] == 8 * 6
    assert sorted(tmp_path.rglob("*")) == before


def test_the_same_seed_takes_the_same_sample(tmp_path: Path) -> None:
    put(tmp_path, {f"{n}.tif": scans.tiff([scans.picture(20 + n, 20)] * n) for n in range(1, 9)})
    first, again = (estimated(tmp_path, sample=3, seed=5) for _ in range(2))
    assert (first.pages, first.output_bytes) == (again.pages, again.output_bytes)


def test_cost_is_that_of_the_processor_time(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": png(20, 20)})
    found = estimated(tmp_path)
    assert found.cost(3600).vcpu_hours == pytest.approx(1 / 0.9)
    assert found.to_json()["cost"]["mean"]["price"] == round(found.cost(found.cpu_s.mean).price, 4)
    text = found.text(workers=4)
    assert "own-server" in text and "with 4 vCPUs" in text and "per million pages" in text


# What ends it.


def test_empty_corpus_has_nothing_to_estimate(tmp_path: Path) -> None:
    put(tmp_path, {"notes.txt": b"x"})
    with pytest.raises(NothingToDo):
        estimated(tmp_path)


def test_missing_model_is_told(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": png(20, 20)})
    with pytest.raises(BadModel):
        estimated(tmp_path, routing=Routing("nowhere"))


def load_broken(bundle: str | None) -> SizeReader:
    raise BadModel("it does not fit")


def test_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": png(20, 20)})
    with pytest.raises(BadModel, match="does not fit"):
        estimated(tmp_path, load=load_broken)
