"""Training straight from the records of ingest: the stream of lines, buckets and alphabet, and pages for the finder."""

import json
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from ocr_model.affine import Affine
from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
from ocr_model.document import Box
from ocr_model.errors import BadArgument, BadInput, BadModel
from ocr_model.examples import Origin, PageExample, RecordImage
from ocr_model.line_features import LineFeatures
from ocr_model.truth import GroundTruthLine
from tests.trainer.small_records import example, write_records
from trainer.line_data import BatchStream, Bucketer, LineDataConfig, draws, generate, validation_lines
from trainer.page_records import record_pages
from trainer.recogniser import RecogniserTraining, of_records, record_digests
from trainer.record_lines import RecordLines, validation_records

TEXTS = [chr(ord("a") + i) for i in range(12)]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Four files of three lines for training, whose text is a letter each, and one of two lines for validation."""
    examples = [example(i, "train", f"book {i}", text=text) for i, text in enumerate(TEXTS)]
    held = [example(i, "validation", "held", text="zz") for i in range(2)]
    return write_records(tmp_path / "records", [*examples, *held], files_a_split=4)


def stream(folder: Path, process: int = 0, processes: int = 1, buffer: int = 4, seed: int = 1) -> RecordLines:
    return RecordLines(folder, process, processes, seed, 0.1, buffer)


def texts(lines: RecordLines, numbers: range) -> list[str]:
    found = [lines.line(n) for n in numbers]
    return [line.text for line in found if line is not None]


def test_an_epoch_gives_every_line_once_and_the_next_in_another_order(records: Path) -> None:
    lines = stream(records)
    first, second = texts(lines, range(12)), texts(lines, range(12, 24))
    assert sorted(first) == sorted(second) == TEXTS
    assert first != second


def test_lines_are_mixed_within_a_buffer_of_whole_files(records: Path) -> None:
    files = [{text for i, text in enumerate(TEXTS) if i % 4 == file} for file in range(4)]
    read = texts(stream(records, buffer=6), range(12))
    for window in (set(read[:6]), set(read[6:])):
        assert sum(file <= window for file in files) == 2
    assert read != texts(stream(records, buffer=6, seed=2), range(12))


@pytest.mark.parametrize("processes", [2, 5])
def test_processes_share_the_records_without_overlap(records: Path, processes: int) -> None:
    read: list[str] = []
    for process in range(processes):
        lines = stream(records, process, processes)
        read += texts(lines, range(lines.total))
    assert sorted(read) == TEXTS


def test_a_line_depends_on_its_number_alone(records: Path) -> None:
    whole, again = texts(stream(records), range(30)), stream(records)
    assert [texts(again, range(n, n + 1))[0] for n in (29, 3, 14)] == [whole[29], whole[3], whole[14]]


def test_lines_with_a_doubtful_truth_and_held_documents_are_not_trained_on(tmp_path: Path) -> None:
    found = [example(1, "train", "good"), example(2, "train", problem="text-outside-page")]
    folder = write_records(tmp_path / "a", [*found, example(3, "validation")])
    assert texts(stream(folder), range(2)) == ["ab"]
    folder = write_records(tmp_path / "b", [example(i, "train", f"book {i}") for i in range(40)])
    learnt = texts(RecordLines(folder, 0, 1, 1, 0.5), range(40))
    held = list(validation_records(folder, 0.5, 100))
    assert len(learnt) + len(held) == 40 and held


def test_many_lines_for_validation_are_taken_evenly(tmp_path: Path) -> None:
    folder = write_records(tmp_path, [example(i, "validation", text=f"{i}") for i in range(20)])
    assert [line.text for line in validation_records(folder, 0.1, 4)] == ["0", "5", "10", "15"]


def test_records_without_lines_are_refused(tmp_path: Path) -> None:
    folder = write_records(tmp_path, [example(1, "test")])
    with pytest.raises(BadInput, match="no line for training"):
        stream(folder)
    with pytest.raises(BadInput, match="for validation"):
        list(validation_records(folder, 0.1, 9))


def test_records_of_another_version_are_refused(records: Path) -> None:
    manifest = json.loads((records / "records.json").read_text())
    (records / "records.json").write_text(json.dumps({**manifest, "examples_version": 99}))
    with pytest.raises(BadInput, match="record version 99, this program reads version 1"):
        stream(records)
    with pytest.raises(BadInput, match="record version 99"):
        record_digests(LineDataConfig(None, None, mixed=((records, 0.1),)))


# ---- batches


CONFIG = LineDataConfig(None, None, real_share=1.0, non_text_share=0.0, batch_px=400)


def test_batches_come_from_records_alone_and_go_on_from_any_place(records: Path) -> None:
    config = LineDataConfig(None, None, 1.0, 0.0, batch_px=400, records=records)
    whole = list(islice(generate(config, DEFAULT_ALPHABET, 0), 6))
    assert {len(batch.labels[0]) for batch in whole} == {1}
    place = json.loads(json.dumps(whole[2].place))
    for expected, batch in zip(whole[3:], islice(generate(config, DEFAULT_ALPHABET, 0, place), 3), strict=True):
        np.testing.assert_array_equal(expected.images, batch.images)
        assert expected.examples == batch.examples
    assert [text for _, text, _ in validation_lines(config)] == ["zz", "zz"]


def test_other_records_are_mixed_in_at_their_share(records: Path, tmp_path: Path) -> None:
    worn = write_records(tmp_path / "worn", [example(1, "train", "worn", text="w")])
    config = LineDataConfig(None, None, 1.0, 0.0, records=records, mixed=((worn, 0.25),))
    draw = draws(config, 0)
    drawn = [text for number in range(400) for _, text, _ in draw(number)]
    assert len(drawn) == 400
    assert 0.18 < drawn.count("w") / 400 < 0.32
    for shares in ((0.5, 0.6), (0.0,)):
        with pytest.raises(BadArgument, match="mixed records"):
            LineDataConfig(None, None, mixed=tuple((worn, share) for share in shares))


def test_a_batch_is_padded_to_the_end_of_its_bucket_in_the_features() -> None:
    config = LineDataConfig(None, None, batch_px=400, bounds=(200.0, 500.0))
    for width, padded in ((40, 224), (196, 224), (204, 512), (600, 640)):
        bucketer = Bucketer(config, DEFAULT_ALPHABET)
        batches = [bucketer.add(np.full((40, width), 255, np.uint8), "ab") for _ in range(4)]
        assert batches[-1] is not None and batches[-1].images.shape == (4, 40, padded)


def test_a_line_with_an_unknown_character_is_dropped_and_counted() -> None:
    bucketer = Bucketer(CONFIG, Alphabet(" a"))
    assert bucketer.add(np.full((40, 100), 255, np.uint8), "ab") is None
    assert bucketer.dropped == 1


def test_alphabet_and_buckets_are_those_that_ingest_froze(records: Path) -> None:
    base = RecogniserTraining(CONFIG)
    assert of_records(base, records).alphabet == DEFAULT_ALPHABET  # ingest --no-transform
    features = LineFeatures(Alphabet(DEFAULT_ALPHABET.characters + "ō"), (300.0, 700.0), 200.0, 20.0)
    features.alphabet.save(records / "alphabet.json")
    (records / "features.json").write_text(json.dumps(features.to_json()))
    config = of_records(base, records)
    assert config.alphabet.covers("ō") and config.network.classes == DEFAULT_ALPHABET.classes + 1
    assert config.data.bounds == (300.0, 700.0) and config.data.records == records
    Alphabet(" ab").save(records / "alphabet.json")
    with pytest.raises(BadModel, match="has changed since"):
        of_records(base, records)


def test_what_a_data_process_finds_wrong_is_told_by_the_trainer(tmp_path: Path) -> None:
    folder = write_records(tmp_path, [example(1, "validation")])
    stream = BatchStream(LineDataConfig(None, None, 1.0, records=folder), DEFAULT_ALPHABET)
    try:
        with pytest.raises(BadInput, match=r"no line for training in .* for process 1 of 1"):
            next(iter(stream))
    finally:
        stream.close()


def test_a_run_tells_its_records_by_their_content(records: Path, tmp_path: Path) -> None:
    worn = write_records(tmp_path / "worn", [example(1, "train")])
    config = LineDataConfig(None, None, records=records, mixed=((worn, 0.1),))
    before = record_digests(config)
    assert set(before) == {str(records), str(worn)}
    write_records(worn, [example(1, "train", text="b")])
    assert record_digests(config)[str(records)] == before[str(records)]
    assert record_digests(config)[str(worn)] != before[str(worn)]


# ---- pages


def page(document: str, split: str, **changes: object) -> PageExample:
    image = np.full((60, 120), 255, np.uint8)
    image[20:40, 10:110:4] = 0
    picture = RecordImage(cv2.imencode(".png", image)[1].tobytes(), "png", 120, 60, back=Affine(2, 0, 0, 0, 2, 0))
    metadata = tuple((name, str(value)) for name, value in changes.items())
    origin = Origin(f"{document}.png", document, 1, "0-1", 240, 120, split, metadata=metadata)  # type: ignore[arg-type]
    return PageExample(origin, picture, (GroundTruthLine(text="mmm", box=Box(20, 40, 220, 80)),))


def test_pages_of_records_have_their_lines_in_the_records_picture(tmp_path: Path) -> None:
    pages = [page("a", "train"), page("b", "validation"), page("c", "test"), page("d", "train", complete="no")]
    learnt, held = record_pages(write_records(tmp_path, pages), 1e6, 0.1)
    assert [p.document for p in learnt] == ["a"] and [p.document for p in held] == ["b"]
    ((line,), image) = (learnt[0].lines, learnt[0].image)
    assert image.shape == (60, 120)
    assert line.baseline[0][0] == pytest.approx(10) and 30 < line.baseline[0][1] < 42


def test_pages_of_records_without_validation_are_divided_by_document(tmp_path: Path) -> None:
    pages = [page(f"book {i}", "train") for i in range(20)]
    learnt, held = record_pages(write_records(tmp_path, pages), 1e6, 0.5)
    assert len(learnt) + len(held) == 20 and learnt and held
