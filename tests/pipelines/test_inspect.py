import io
from pathlib import Path

import pytest
from PIL import Image

from ocr_model.errors import BadArgument, BadInput, NothingToDo
from pipelines.cli import _Parser
from pipelines.commands import inspect
from pipelines.inspect_records import contact_sheet, example_text, read_path
from tests.ocr_model.test_examples import LINE, PAGE
from tests.pipelines.corpora import corpus_of, put
from tests.pipelines.test_features import command


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
    assert inspected(str(file), "--limit", "2") == 0
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
        assert sheet.width >= 3 * 360 and sheet.height >= 480 and sheet.mode == "RGB"
        colours = {colour for _, colour in sheet.getcolors(2**24) or []}
    assert any(blue - red > 100 for red, _, blue in colours)  # outlines
    for kind in ("page", "line"):
        one = contact_sheet(list(read_path(records, kind))[:1])  # type: ignore[arg-type]
        assert Image.open(io.BytesIO(one)).format == "PNG"


def test_what_cannot_be_shown_is_told(records: str, tmp_path: Path) -> None:
    with pytest.raises(NothingToDo):
        inspected(records, "--find", "nowhere")
    with pytest.raises(BadInput, match="cannot read"):
        inspected(str(tmp_path / "gone.gz"))
    with pytest.raises(BadInput, match="is damaged, or no compressed file"):
        inspected(__file__)
    with pytest.raises(BadArgument):
        inspected(records, "--limit", "0")
    with pytest.raises(BadInput, match="cannot write"):
        inspected(records, "--sheet", str(tmp_path / "no/such/sheet.png"))
