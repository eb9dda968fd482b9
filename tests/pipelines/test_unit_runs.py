import shutil
from pathlib import Path

import pytest

from pipelines import unit_runs
from pipelines.unit_runs import reading_code

ROOT = Path(unit_runs.__file__).parents[1]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our packages, copied, with the module that looks at itself among them."""
    for package in ("ocr_model", "pipelines"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("models", "__pycache__"))
    monkeypatch.setattr(unit_runs, "__file__", str(tmp_path / "pipelines/unit_runs.py"))
    return tmp_path


def test_code_is_known_by_its_text_wherever_it_lies(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = reading_code()
    monkeypatch.undo()
    assert copied == reading_code()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ocr_model/reader.py", True),
        ("pipelines/formats/__init__.py", True),
        ("pipelines/write_pages.py", True),
        ("pipelines/report.py", False),
        ("pipelines/commands/transcribe.py", False),
    ],
)
def test_code_is_another_if_that_changes_which_makes_outputs(copy: Path, name: str, changes: bool) -> None:
    before = reading_code()
    with (copy / name).open("a") as stream:
        stream.write("# more\n")
    assert (reading_code() != before) == changes


def test_new_module_of_the_reader_is_other_code(copy: Path) -> None:
    before = reading_code()
    (copy / "ocr_model/better.py").write_text("")
    assert reading_code() != before
