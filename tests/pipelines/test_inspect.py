import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ocr_model.document import Box
from ocr_model.errors import BadArgument, BadInput, NothingToDo
from ocr_model.examples import Origin, PageExample, RecordImage
from ocr_model.truth import GroundTruthLine
from pipelines.cli import _Parser
from pipelines.commands import inspect
from pipelines.ingest_pages import png
from pipelines.inspect_records import _shown, contact_sheet, example_text, read_path
from tests.ocr_model.test_examples import LINE, PAGE
from tests.pipelines.corpora import corpus_of, put
from tests.pipelines.test_features import command

Colour = NDArray[np.int_]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("records")
    put(root / "in", corpus_of(3, lines=2))
    assert command(f"{root}/in", "--output", f"{root}/out", "--no-transform", "--validation", "0") == 0
    return f"{root}/out"


def inspected(*words: str) -> int:
    parser = _Parser(prog="pagemill inspect")
    inspect.add_arguments(parser)
    return inspect.run(parser.parse_args(list(words)), [], [])


def test_example_tells_text_boxes_and_source() -> None:
    assert example_text(PAGE).splitlines() == [
        "page a/ſcan.png page 2",
        "  document letter, validation, language de, truth ſcan.xml",
        "  id ab12-0002",
        "  png 4 x 3 at 150.5 dpi, of 8 x 6; crop",
        "  archive: é",
        "    1 [0,1,5,3] Zei⸗  (print)",
        "    2 [no box]   (no-text)",
        "    3 [1,1,2,2] b  (clipped)",
    ]
    assert example_text(LINE).splitlines()[0] == "line a/ſcan.png page 2 line 3"


def test_folder_and_file_give_the_same_examples(records: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspected(records, "--kind", "page", "--limit", "2") == 0
    of_folder = capsys.readouterr().out
    (file,) = Path(records, "records/page/train").iterdir()
    for name in (str(file), f"{records}/records.json"):
        assert inspected(name, "--kind", "page", "--limit", "2") == 0
        assert capsys.readouterr().out == of_folder
    assert of_folder.count("page pages/") == 2 and "0000 1" in of_folder


def test_examples_are_found_by_name_and_text(records: str, capsys: pytest.CaptureFixture[str]) -> None:
    inspected(records, "--find", "00002.png", "--kind", "line", "--skip", "1")
    assert capsys.readouterr().out.count("line pages/00002.png") == 2
    inspected(records, "--find", "0001 2", "--kind", "line")
    assert capsys.readouterr().out.count("line pages/") == 1


def test_sheet_shows_all_pictures(records: str, tmp_path: Path) -> None:
    assert inspected(records, "--sheet", str(tmp_path / "sheet.png")) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.mode == "RGB"
        found = np.asarray(sheet, int)
    red, green, blue = found[..., 0], found[..., 1], found[..., 2]
    assert (blue - red > 100).any()  # the last line of a page, or the frame of a line
    assert ((red - blue > 60) & (green - blue > 60)).any()  # the first line of a page
    for kind in ("page", "line"):
        one = contact_sheet(list(read_path(records, kind))[:1])  # type: ignore[arg-type]
        assert Image.open(io.BytesIO(one)).format == "PNG"


def sheet_of(*lines: GroundTruthLine, ordered: bool = True) -> Colour:
    """The sheet of a white page of 100 x 100 pixels with these lines, [height, width, 3] RGB."""
    data = png(np.full((100, 100), 255, np.uint8))
    origin, image = Origin("a.png", "a", 1, "ab-0001", 100, 100), RecordImage(data, "png", 100, 100)
    with Image.open(io.BytesIO(contact_sheet([PageExample(origin, image, lines, ordered)]))) as sheet:
        return np.asarray(sheet, int)[12:112, 12:112]


def test_line_that_is_lost_is_outlined_in_red_and_others_are_not() -> None:
    box = Box(20, 40, 80, 60)
    sound, lost = sheet_of(GroundTruthLine("a", box)), sheet_of(GroundTruthLine("", box, problem="no-text"))
    assert lost[50, 20].tolist() == [220, 0, 0] and sound[50, 20].tolist() != [220, 0, 0]
    assert sound[50, 50].tolist() == lost[50, 50].tolist() != [255, 255, 255] == sound[20, 50].tolist()


def test_way_of_reading_is_drawn_where_the_order_is_known() -> None:
    lines = [GroundTruthLine("a", Box(10, 10, 40, 20)), GroundTruthLine("b", Box(10, 80, 40, 90))]
    ordered, unordered = sheet_of(*lines), sheet_of(*lines, ordered=False)
    red, green, blue = ordered[50, 10].tolist()
    assert green < 60 < 150 < red == blue and unordered[50, 10].tolist() == [255, 255, 255]


def test_character_that_the_font_lacks_is_shown_by_its_number() -> None:
    assert _shown("ſe⸗") == "ſe<2E17>"


def test_what_cannot_be_shown_is_told(records: str, tmp_path: Path) -> None:
    with pytest.raises(NothingToDo):
        inspected(records, "--find", "nowhere")
    with pytest.raises(BadInput, match=f"cannot read {tmp_path}/gone.gz: No such file"):
        inspected(str(tmp_path / "gone.gz"))
    with pytest.raises(BadInput, match=f"{tmp_path} holds no records.json"):
        inspected(str(tmp_path))
    with pytest.raises(BadInput, match="is damaged, or no compressed file"):
        inspected(__file__)
    with pytest.raises(BadArgument):
        inspected(records, "--limit", "0")
    with pytest.raises(BadInput, match="cannot write"):
        inspected(records, "--sheet", str(tmp_path / "no/such/sheet.png"))
