import subprocess
import sys
from pathlib import Path

import pytest

from ocr_model.errors import BadInput, PagemillError
from pipelines.bench import find_items, measure, run_on_one_core, stratified, table


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for source, names in {"books": "abc", "letters": "d"}.items():
        folder = tmp_path / "data" / source / "pages"
        folder.mkdir(parents=True)
        for name in names:
            (folder / f"{name}.png").write_bytes(b"image")
            (folder / f"{name}.gt.txt").write_text(f"text of {name}\n")
    (tmp_path / "data" / "books" / "pages" / "no-truth.png").write_bytes(b"image")
    return tmp_path / "data"


def echo(images: Path, out: Path) -> list[list[str]]:
    """A system that finds the true text of page a and nothing of the others."""
    script = (
        "import sys, pathlib\n"
        "images, out = map(pathlib.Path, sys.argv[1:])\n"
        "for image in images.rglob('*.png'):\n"
        "    target = (out / 'txt' / image.relative_to(images)).with_suffix('.txt')\n"
        "    target.parent.mkdir(parents=True, exist_ok=True)\n"
        "    target.write_text('text of a' if image.stem == 'a' else '')\n"
    )
    return [[sys.executable, "-c", script, str(images), str(out)]]


def test_only_images_with_truth_are_items(data: Path) -> None:
    assert [(i.source, i.image.stem) for i in find_items(data, "pages", [])] == [
        ("books", "a"), ("books", "b"), ("books", "c"), ("letters", "d"),
    ]  # fmt: skip
    assert [i.source for i in find_items(data, "pages", ["letters"])] == ["letters"]
    with pytest.raises(BadInput, match="no image with truth"):
        find_items(data, "lines", [])


def test_a_sample_takes_from_each_source_in_turn(data: Path) -> None:
    items = find_items(data, "pages", [])
    assert sorted(i.source for i in stratified(items, 2, seed=1)) == ["books", "letters"]
    assert stratified(items, 3, seed=1) == stratified(items, 3, seed=1)
    assert stratified(items, 0, seed=1) == items


def test_a_system_is_scored_by_source_and_its_cost_measured(data: Path) -> None:
    result = measure("echo", echo, find_items(data, "pages", []), [])
    assert result.report.by_group()["letters"].cer == 1.0
    assert result.report.by_group()["books"].cer == pytest.approx(2 / 3)
    assert result.start_up_cpu_s > 0
    assert result.peak_rss_mb > 1
    rows = table([result]).splitlines()
    assert len(rows) == 2 + 1 + 2
    assert "| echo | letters | 1 | 100.00 |" in rows[-1]


def test_a_command_that_fails_is_an_error_with_its_last_words() -> None:
    with pytest.raises(PagemillError, match=r"exit code 5: .*no such thing"):
        run_on_one_core([[sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(5)"]])


def test_the_memory_of_one_command_is_not_counted_for_the_next() -> None:
    script = (
        "import sys\n"
        "from pipelines.bench import run_on_one_core\n"
        "for code in ('x = bytearray(400_000_000)', 'pass'):\n"
        "    print(run_on_one_core([[sys.executable, '-c', code]]).peak_rss_mb)\n"
    )
    # in a process of its own: a command inherits the peak of the one that starts it, and pytest may be large
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    large, small = map(float, printed.split())
    assert large > 380
    assert small < 200
