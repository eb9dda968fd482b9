"""`pagemill ingest` and `pagemill inspect` by their command line: messages and exit codes."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ocr_model.record_files import MANIFEST
from pipelines import cli, features
from pipelines.supervise import SUPERVISED_RUN, supervise
from tests.pipelines.corpora import corpus_of, page_image, put

needs_transform = pytest.mark.skipif(
    features.importlib.util.find_spec("tensorflow_transform") is None, reason="tf.Transform is not installed"
)


@pytest.fixture(autouse=True)
def unsupervised(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is done in this process."""
    monkeypatch.setenv(SUPERVISED_RUN, "test")
    for name in ("die_with_parent", "end_with_workers"):
        monkeypatch.setattr(f"pipelines.supervise.{name}", lambda: None)


def pagemill(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in argv])
    out, err = capsys.readouterr()
    return code, out, err


def ingest(capsys: pytest.CaptureFixture[str], root: Path, *flags: object) -> tuple[int, str, str]:
    """`pagemill ingest ROOT/in --output ROOT/out --no-transform FLAGS`."""
    return pagemill(capsys, "ingest", root / "in", "--output", root / "out", "--no-transform", *flags)


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["ingest", "{0}/in"], 1, "required: --output"),
        (["ingest", "--output", "{0}/out"], 1, "required: INPUT"),
        (["ingest", "{0}/in", "--output", "{0}/out", "--kind", "books"], 1, "invalid choice: 'books'"),
        (["ingest", "{0}/in", "--output", "{0}/out", "--outputs", "x"], 1, "did you mean --output?"),
        (["ingest", "{0}/in", "--output", "{0}/out", "--validation", "lots"], 1, "--validation lots is no share"),
        (["ingest", "{0}/in", "--output", "{0}/out", "--prepare", "dewarp"], 1, "no such step: dewarp"),
        (["ingest", "{0}/in", "--output", "{0}/out", "--max-failures", "few"], 1, "is no limit"),
        (["ingest", "{0}/in", "--output", "{0}/out", "--workers", "0"], 1, "is not positive"),
        (["ingest", "{0}/in", "--output", "{0}/out", "--document-pattern", "("], 1, "is no regular expression"),
        (["ingest", "{0}/nowhere", "--output", "{0}/out"], 2, "no such file or folder: {0}/nowhere"),
        (["ingest", "{0}/bad.csv", "--output", "{0}/out"], 2, "bad.csv, line 1: the header has no column `path`"),
        (["ingest", "{0}/row.jsonl", "--output", "{0}/out"], 2, "row.jsonl, line 2: the path is 3"),
        (["ingest", "{0}/split.csv", "--output", "{0}/out"], 2, "has the split 'dev' (choose from train,"),
        (["ingest", "{0}/in", "--output", "{0}/bad.csv"], 2, "cannot write to {0}/bad.csv"),
        (["ingest", "{0}/in", "--output", "{0}/in/x", "--config", "{0}/no.yaml"], 2, "cannot read"),
        (["ingest", "{0}/in", "--output", "{0}/out", "--previous", "{0}/in"], 2, "no alphabet in {0}/in"),
        (["ingest", "{0}/empty", "--output", "{0}/out"], 6, "no image in {0}/empty"),
        (["inspect"], 1, "required: RECORD"),
        (["inspect", "{0}/in", "--kind", "book"], 1, "invalid choice: 'book'"),
        (["inspect", "{0}/in", "--limit", "0"], 1, "cannot be"),
        (["inspect", "{0}/in"], 2, "{0}/in holds no records.json"),
        (["inspect", "{0}/bad.csv"], 2, "{0}/bad.csv is damaged, or no compressed file of records"),
        (["inspect", "{0}/gone.gz"], 2, "cannot read {0}/gone.gz"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_a_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], code: int, message: str
) -> None:
    put(tmp_path / "in", {"a.png": page_image(1), "a.gt.txt": b"a\n"})
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("file,language\na.png,de\n")
    (tmp_path / "row.jsonl").write_text('{"path": "in/a.png"}\n{"path": 3}\n')
    (tmp_path / "split.csv").write_text("path,split\nin/a.png,dev\n")
    flags = ["--no-transform"] if argv[0] == "ingest" else []
    got, out, err = pagemill(capsys, *(word.format(tmp_path) for word in argv), *flags)
    assert (got, out) == (code, "")
    assert message.format(tmp_path) in err and err.startswith("pagemill: ") and err.count("\n") == 1


def test_help_tells_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("ingest", "inspect"):
        code, out, err = pagemill(capsys, verb, "--help")
        assert (code, err) == (0, "") and f"pagemill {verb} " in out


def test_codes_0_and_3_tell_whether_there_are_dead_letters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "in", corpus_of(2))
    code, out, _ = ingest(capsys, tmp_path)
    assert (code, out.splitlines()[0]) == (0, "2 of 2 pages of 2 files became records")
    put(tmp_path / "in", {"bare.png": page_image(7)})
    code, out, _ = ingest(capsys, tmp_path, "--resume")
    assert code == 3 and "1 pages failed: 1 no-truth (see " in out


def test_failure_limit_ends_with_code_4_and_leaves_no_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "in", {**corpus_of(30), **{f"bare{n}.png": page_image(100 + n) for n in range(2)}})
    code, _, err = ingest(capsys, tmp_path, "--max-failures", "1%")
    assert code == 4 and err.startswith("pagemill: over 0.32 pages failed")
    assert not (tmp_path / "out" / MANIFEST).exists()
    assert ingest(capsys, tmp_path, "--max-failures", "10%", "--resume")[0] == 3


def test_books_of_records_are_told_and_retry_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "in", {**corpus_of(1), "bare.png": page_image(7)})
    ingest(capsys, tmp_path)
    assert "2 files = 2 done + 0 open" in pagemill(capsys, "status", tmp_path / "out")[1]
    assert pagemill(capsys, "verify", tmp_path / "out")[0] == 0
    code, _, err = pagemill(capsys, "retry", tmp_path / "out")
    assert code == 2 and "was made by pagemill ingest" in err and "a new --output" in err


@needs_transform
def test_limit_of_drift_that_is_crossed_is_code_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "in", {**corpus_of(3), "pages/00000.lines.json": b"[]"})
    argv = ["ingest", tmp_path / "in", "--output", tmp_path / "out", "--kind", "page"]
    code, out, _ = pagemill(capsys, *argv)
    assert code == 5 and "empty_truth 0.3333 is over its limit of 0.05: 1 records have no text" in out
    assert pagemill(capsys, *argv, "--drift-limit", "empty_truth=0.5")[0] == 0


def test_corpus_that_gives_no_record_is_code_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "in", {"bare.png": page_image(1)})
    code, _, err = ingest(capsys, tmp_path)
    assert code == 6 and err.startswith("pagemill: no record was made (see ")
    put(tmp_path / "in", {**corpus_of(1)})
    assert ingest(capsys, tmp_path)[0] == 3
    assert pagemill(capsys, "inspect", tmp_path / "out", "--find", "no such text")[0] == 6
    assert pagemill(capsys, "inspect", tmp_path / "out", "--find", "0000 1")[0] == 0


def test_missing_package_is_code_7(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features.importlib.util, "find_spec", lambda name: None)
    put(tmp_path / "in", corpus_of(1))
    code, _, err = pagemill(capsys, "ingest", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 7 and "pip install 'pagemill[ingest]'" in err


def test_records_of_another_version_are_code_2_with_both_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "in", corpus_of(1))
    assert ingest(capsys, tmp_path)[0] == 0
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    (tmp_path / "out" / MANIFEST).write_text(json.dumps({**manifest, "examples_version": 9}))
    for argv in (["ingest", tmp_path / "in", "--output", tmp_path / "out"], ["inspect", tmp_path / "out"]):
        code, _, err = pagemill(capsys, *argv)
        assert code == 2 and "has record version 9, this program reads version 1" in err


@pytest.mark.parametrize(
    "where",
    [
        "pipelines.outputs.Staging.open",
        "pipelines.records_job.claim_output",
        "pipelines.records_job.write_plan",
        "pipelines.records_job.write_dead_letters",
    ],
)
def test_full_disk_is_one_line_and_the_same_command_finishes_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    put(tmp_path / "in", corpus_of(2))
    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        code, _, err = ingest(capsys, tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert err.endswith("/out: No space left on device (make room or choose another --output)\n")
    assert ingest(capsys, tmp_path)[0] == 0


def test_output_that_is_a_file_is_told_by_the_child_too(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    command = (sys.executable, "-c", "import sys; sys.exit(2)")
    assert supervise([], str(tmp_path / "out"), 1, 1, command) == 2


@pytest.mark.slow
def test_whole_process_ends_with_the_code_of_its_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SUPERVISED_RUN)
    put(tmp_path / "in", {**corpus_of(2), "bad.png": b"", "bad.gt.txt": b"x"})
    words = ["ingest", f"{tmp_path}/in", "--output", f"{tmp_path}/out", "--no-transform", "--validation", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *words],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines()[:2] == [
        "2 of 3 pages of 3 files became records",
        "records: 6 line/train, 2 page/train",
    ]
