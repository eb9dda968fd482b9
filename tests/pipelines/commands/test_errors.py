"""`pagemill errors`: files in, table, sheet and figures out."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from ocr_model.reader import Reader
from pipelines.cli import main
from tests.pipelines.test_error_analysis import FIRST, SECOND, TRUTH, WritesDown, found, page_image


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pages = tmp_path / "data" / "letters" / "pages"
    pages.mkdir(parents=True)
    cv2.imwrite(str(pages / "a.png"), page_image())
    cv2.imwrite(str(pages / "without-lines.png"), page_image())
    for name in ("a", "without-lines"):
        (pages / f"{name}.gt.txt").write_text("\n".join(str(r["text"]) for r in TRUTH), encoding="utf-8")
    (pages / "a.lines.json").write_text(json.dumps(TRUTH), encoding="utf-8")
    reader = WritesDown(found(FIRST, SECOND), ["the first line here", "the sekond one"])
    monkeypatch.setattr(Reader, "load", lambda *_: reader)
    return tmp_path / "data"


def test_table_sheet_and_figures_of_the_pages_with_lines(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["errors", "--data", str(data), "--output", str(tmp_path / "out")]) == 0
    assert [row.split("|")[1:3] for row in capsys.readouterr().out.splitlines()[2:]] == [
        [" all ", " 1 "],
        [" letters ", " 1 "],
    ]
    sheet = cv2.imread(str(tmp_path / "out" / "worst.png"))
    assert sheet is not None and sheet.shape[1] == 1500
    (page,) = json.loads((tmp_path / "out" / "errors.json").read_text(encoding="utf-8"))
    assert [line["truth"] for line in page["lines"]] == ["the second one"]


def test_wrong_cause_and_missing_lines_are_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--output", str(tmp_path / "out")]
    assert main(["errors", "--data", str(data), "--cause", "weather", *out]) == 1
    (data / "letters" / "pages" / "a.lines.json").unlink()
    assert main(["errors", "--data", str(data), *out]) == 2
    assert "no cause weather" in (told := capsys.readouterr().err) and "NAME.lines.json" in told
