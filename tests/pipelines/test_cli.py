import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ocr_model.bundle import DEFAULT_BUNDLE
from ocr_model.errors import BadArgument, BadInput
from ocr_model.metrics import score
from pipelines import cli
from pipelines.commands.job_flags import DEAD_LETTERS_LEFT
from pipelines.outputs import Staging
from pipelines.supervise import SUPERVISED_RUN
from tests import scans
from tests.pipelines.readers import SizeReader


def pagemill(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = cli.main(list(argv))
    out, err = capsys.readouterr()
    return code, out, err


def parsed(*argv: str) -> tuple[dict[str, object], list[str]]:
    arguments, beam_flags = cli.parse(cli.VERBS[0], argv)
    return vars(arguments), beam_flags


def test_inputs_may_stand_anywhere() -> None:
    arguments, beam_flags = parsed("a.jpg", "--output", "out", "b c.jpg", "--format=txt", "--format", "hocr")
    assert arguments["inputs"] == ["a.jpg", "b c.jpg"]
    assert arguments["format"] == ["txt", "hocr"]
    assert beam_flags == []


@pytest.mark.parametrize(
    "flags", [["--direct_num_workers", "2"], ["--runner=DirectRunner"], ["--temp_location", "out"], ["--streaming"]]
)
def test_flags_of_beam_are_handed_on_with_their_values(flags: list[str]) -> None:
    arguments, beam_flags = parsed("in", *flags, "--output", "out", "in2")
    assert beam_flags == flags
    assert (arguments["inputs"], arguments["output"]) == (["in", "in2"], "out")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["in", "--output", "out", "--formt", "txt"], "unknown flag --formt .did you mean --format?"),
        (["in", "--outptu=out"], "unknown flag --outptu=out .did you mean --output?"),
        (["in", "--output", "out", "--per", "book"], "invalid choice: 'book'"),
        (["in", "--output", "out", "--direct_running_mode=fast"], "invalid choice: 'fast'"),
        (["in", "--output", "out", "--dpi", "x"], "invalid int value"),
    ],
)
def test_wrong_arguments_are_told(argv: list[str], message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        parsed(*argv)


@pytest.fixture
def unsupervised(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is done in this process, where a test can put something in the place of the model."""
    monkeypatch.setenv(SUPERVISED_RUN, "test")
    for name in ("die_with_parent", "end_with_workers"):
        monkeypatch.setattr(f"pipelines.supervise.{name}", lambda: None)


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["transcrib"], 1, "did you mean transcribe?"),
        (["transcribe", "{0}/in", "--output", "{0}/out", "--dpi", "7"], 1, "--dpi 7"),
        (["transcribe", "{0}/in", "--output", "{0}/out", "--format", "docx"], 1, "invalid choice: 'docx'"),
        (["transcribe", "{0}/in", "--output", "{0}/out", "--page-range", "9-1"], 1, "no range of pages"),
        (["transcribe", "{0}/in", "--output", "{0}/out", "--max-failures", "few"], 1, "is no limit"),
        (["transcribe", "{0}/in", "--output", "{0}/out", "--route", "fr"], 1, "write COLUMN=VALUE:BUNDLE"),
        (["transcribe", "{0}/in", "--output", "{0}/out", "--workers", "0"], 1, "is not positive"),
        (["transcribe", "{0}/in", "--output", "{0}/out", "--workers=2", "--direct_num_workers=2"], 1, "both set"),
        (["transcribe", "--output", "{0}/out"], 1, "required: INPUT"),
        (["transcribe", "{0}/in", "--output", "{0}/out", "--config", "{0}/no.yaml"], 2, "cannot read"),
        (["status", "{0}/in"], 2, "holds no results"),
        (["verify", "{0}/in"], 2, "holds no results"),
        (["retry", "{0}/in"], 2, "holds no results"),
        (["retry", "{0}/in", "--timeout-s", "0"], 1, "--timeout-s 0.0 is not positive"),
        (["estimate", "{0}/in", "--sample", "0"], 1, "must be positive"),
        (["estimate", "{0}/in", "--machine", "abacus"], 2, "no machine abacus"),
        (["estimate", "{0}/in"], 6, "no image in"),
        (["transcribe", "{0}/nowhere.jpg", "--output", "{0}/out"], 2, "no such file or folder"),
        (["transcribe", "{0}/in", "--output", "{0}/in/notes.txt"], 2, "cannot write to"),
        (["transcribe", "{0}/in", "--output", "{0}/out"], 6, "no image in"),
        (["transcribe", "{0}/in/notes.txt", "--output", "{0}/out", "--model", "{0}/in"], 7, "is not a model bundle"),
        (["evaluate", "--truth", "{0}/in", "--predicted", "{0}/nowhere"], 2, "no such folder"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_a_code(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    unsupervised: None,
    argv: list[str],
    code: int,
    message: str,
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("Dear Sir,")
    got, out, err = pagemill(capsys, *(word.format(tmp_path) for word in argv))
    assert (got, out) == (code, "")
    assert message in err and err.startswith("pagemill: ") and err.count("\n") == 1


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--help"], ["transcribe", "--help"], ["evaluate", "-h"]):
        code, out, err = pagemill(capsys, *argv)
        assert (code, err) == (0, "") and "example" in out
    code, out, err = pagemill(capsys, "--version")
    assert code == 0 and out.startswith("pagemill ")
    assert pagemill(capsys)[0] == 1


def test_error_raised_by_a_worker_keeps_its_code() -> None:
    error = cli.error_of_worker("…\nRuntimeError: ocr_model.errors.BadInput: disk full (make room)\n")
    assert isinstance(error, BadInput) and "disk full" in str(error)
    assert cli.error_of_worker("ZeroDivisionError: division by zero") is None


def test_full_disk_ends_the_run_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, unsupervised: None
) -> None:
    def full(self: Staging, relative: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.png").write_bytes(scans.encoded(scans.picture(), "PNG"))
    argv = ["transcribe", str(tmp_path), "--output", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "open", full)
        patch.setattr("ocr_model.reader.Reader.load", SizeReader)
        code, _, err = pagemill(capsys, *argv)
    assert (code, err.count("\n")) == (2, 1)
    assert err.endswith("/out: No space left on device (make room or choose another --output)\n")
    monkeypatch.setattr("ocr_model.reader.Reader.load", SizeReader)
    assert pagemill(capsys, *argv)[0] == 0
    assert (tmp_path / "out/txt/a.txt").read_text() == "40x20\n"


def test_failure_limit_ends_with_code_4_and_keeps_what_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, unsupervised: None
) -> None:
    (tmp_path / "in").mkdir()
    for n in range(20):
        (tmp_path / f"in/{n:02}.png").write_bytes(scans.encoded(scans.picture(20 + n, 20), "PNG") if n < 18 else b"x")
    monkeypatch.setattr("ocr_model.reader.Reader.load", SizeReader)
    argv = ["transcribe", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--duplicates", "each"]
    code, _, err = pagemill(capsys, *argv, "--max-failures", "5%")
    assert code == 4 and err.startswith("pagemill: over 1 pages failed (see the dead letters")
    assert pagemill(capsys, *argv)[0] == DEAD_LETTERS_LEFT
    assert len(list((tmp_path / "out/txt").iterdir())) == 18


def test_config_file_gives_the_flags_that_the_command_line_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, unsupervised: None
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(scans.encoded(scans.picture(), "PNG"))
    config = tmp_path / "run.yaml"
    config.write_text(f"inputs: [{tmp_path}/in]\noutput: {tmp_path}/out\nformat: [txt, hocr]\nsingle-line: true\n")
    monkeypatch.setattr("ocr_model.reader.Reader.load", SizeReader)
    assert pagemill(capsys, "transcribe", "--config", str(config), "--format", "tsv")[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["ledger", "tsv"]
    config.write_text("inputs: []\nouptut: x\n")
    code, _, err = pagemill(capsys, "transcribe", "--config", str(config))
    assert code == 2 and f"{config}, line 2: unknown key ouptut (did you mean output?)" in err


def test_books_of_a_folder_by_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, unsupervised: None
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(scans.encoded(scans.picture(), "PNG"))
    (tmp_path / "in/b.png").write_bytes(b"Dear Sir,")
    monkeypatch.setattr("ocr_model.reader.Reader.load", SizeReader)
    out = str(tmp_path / "out")
    argv = ["transcribe", str(tmp_path / "in"), "--output", out]
    assert pagemill(capsys, *argv)[0] == DEAD_LETTERS_LEFT
    code, said, _ = pagemill(capsys, "status", out, "--units")
    assert code == 0 and "2 files = 2 done + 0 open; 2 pages of the done ones = 1 read + 1 dead" in said
    value = json.loads(pagemill(capsys, "status", out, "--json")[1])
    assert (value["counts"]["read"], value["failures"], value["balanced"]) == (1, {"not-an-image": 1}, True)
    (tmp_path / "in/b.png").write_bytes(scans.encoded(scans.picture(30, 30), "PNG"))
    monkeypatch.setenv(SUPERVISED_RUN, "another")
    assert pagemill(capsys, "retry", out)[0] == 0
    assert pagemill(capsys, "retry", out)[0] == 6
    assert pagemill(capsys, "verify", out)[0] == 0
    (tmp_path / "out/txt/a.txt").write_text("other")
    code, said, _ = pagemill(capsys, "verify", out, "--reopen")
    assert code == 5 and "txt/a.txt: 5 bytes, the ledger has 6" in said
    assert pagemill(capsys, *argv)[0] == 0 and pagemill(capsys, "verify", out)[0] == 0


def test_config_show_prints_a_file_that_means_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text("inputs: [scans]\nformat: [txt, alto]\nlimit: 5\nmodel: 'yes'\nroute: l=fr:m\n")
    argv = ["config", "show", "--config", str(tmp_path / "run.yaml")]
    code, shown, err = pagemill(capsys, *argv, "--workers", "4", "--format", "tsv", "--single-line")
    assert (code, err) == (0, "")
    for line in ("inputs: [scans]", "limit: 5", "workers: 4", "format: [tsv]", "single-line: true", "output: null"):
        assert line in shown.splitlines()
    (tmp_path / "shown.yaml").write_text(shown)
    assert pagemill(capsys, *argv[:3], str(tmp_path / "shown.yaml"))[1] == shown
    assert pagemill(capsys, "config", "show", "--dpi", "7")[0] == 1
    assert "did you mean config show?" in pagemill(capsys, "config")[2]


def test_logs_can_be_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, unsupervised: None
) -> None:
    monkeypatch.setenv("PAGEMILL_JSON_LOGS", "")
    argv = ["transcribe", str(tmp_path / "no"), "--output", str(tmp_path / "out"), "--json-logs"]
    code, _, err = pagemill(capsys, *argv)
    (told,) = map(json.loads, err.splitlines())
    assert (told["level"], told["error"], told["exit_code"]) == ("error", "BadInput", code)
    assert "no such file or folder" in told["message"] and told["time"]


def test_books_of_a_folder_that_is_not_there_make_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["status"], ["verify"], ["verify", "--reopen"]):
        assert pagemill(capsys, *argv, str(tmp_path / "nowhere"))[0] == 2
    assert not (tmp_path / "nowhere").exists()


def test_retry_reads_as_the_run_did_unless_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, unsupervised: None
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(b"Dear Sir,")
    monkeypatch.setattr("ocr_model.reader.Reader.load", SizeReader)
    out = str(tmp_path / "out")
    argv = ["transcribe", str(tmp_path / "in"), "--output", out, "--single-line", "--max-megapixels", "0.0001"]
    assert pagemill(capsys, *argv)[0] == DEAD_LETTERS_LEFT
    (tmp_path / "in/a.png").write_bytes(scans.encoded(scans.picture(30, 30), "PNG"))
    for run, flags, code in ("1", [], DEAD_LETTERS_LEFT), ("2", ["--max-megapixels", "1"], 0):
        monkeypatch.setenv(SUPERVISED_RUN, run)
        assert pagemill(capsys, "retry", out, *flags)[0] == code
    assert (tmp_path / "out/txt/a.txt").read_text() == "line\n"


def test_estimate_tells_pages_and_price(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        (tmp_path / f"{n}.tif").write_bytes(scans.tiff([scans.picture(20 + n, 20)] * (n + 1)))
    monkeypatch.setattr("ocr_model.reader.Reader.load", SizeReader)
    code, said, _ = pagemill(capsys, "estimate", str(tmp_path), "--machine", "dataflow-batch")
    assert code == 0 and "3 files, some 6 pages" in said and "USD" in said
    value = json.loads(pagemill(capsys, "estimate", str(tmp_path), "--json", "--format", "txt,tsv")[1])
    assert value["pages"]["mean"] == 6 and set(value["output_bytes"]) == {"txt", "tsv"}


def test_dry_run_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(scans.encoded(scans.picture(), "PNG"))
    monkeypatch.setattr("ocr_model.reader.Reader.load", SizeReader)
    code, said, _ = pagemill(capsys, "transcribe", str(tmp_path), "--output", str(tmp_path / "out"), "--dry-run")
    assert code == 0 and "1 files, 1 of them new" in said and "CPU seconds a page" in said
    assert not (tmp_path / "out").exists()


def test_evaluate_writes_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "1.gt.txt").write_text("abcd")
    (tmp_path / "1.txt").write_text("abce")
    (tmp_path / "groups.json").write_text('{"1": "ones"}')
    argv = ["--truth", tmp_path, "--predicted", tmp_path, "--json", tmp_path / "r.json", "--groups"]
    code, out, _ = pagemill(capsys, "evaluate", *map(str, argv), str(tmp_path / "groups.json"))
    assert code == 0
    assert "ones" in out and "25.00" in out
    assert '"cer": 0.25' in (tmp_path / "r.json").read_text()


# In a process of its own: what is imported, the exit code after Python's shutdown, Ctrl-C.

RUN = """
import dataclasses, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from pipelines import cli
from tests.pipelines.readers import {reader}
cli.be_quiet()
from pipelines import transcribe
run = transcribe.run
transcribe.run = lambda options, *rest: run(dataclasses.replace(options, load={reader}), *rest)
sys.exit(cli.main(sys.argv[1:]))
"""


def start(reader: str, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN.format(reader=reader), *argv],
        cwd=Path(__file__).parents[2],
        env={**os.environ, SUPERVISED_RUN: "test"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_light_verbs_import_neither_beam_nor_tensorflow() -> None:
    code = (
        "import sys; from pipelines import cli\n"
        "cli.main(['transcribe', '--help']); cli.main(['evaluate', '--truth', 'no', '--predicted', 'no'])\n"
        "print({'apache_beam', 'tensorflow', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_dead_letters_make_exit_code_3_of_the_whole_process(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(scans.encoded(scans.picture(), "PNG"))
    (tmp_path / "bad.png").write_bytes(b"")
    process = start("SizeReader", "transcribe", str(tmp_path), "--output", str(tmp_path / "out"))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (3, "")
    assert out.startswith("1 of 2 pages read (1 lines) from 2 files\n1 could not be read: 1 empty-file")
    assert (tmp_path / "out/txt/good.txt").read_text() == "40x20\n"


def test_interrupted_run_ends_at_once_with_130(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(scans.encoded(scans.picture(), "PNG"))
    process = start("StuckReader", "transcribe", str(tmp_path), "--output", str(tmp_path / "out"))
    started = tmp_path / "out" / "ledger" / "attempts"
    deadline = time.monotonic() + 30
    while not (started.is_dir() and any(started.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == cli.INTERRUPTED, err
    assert err.splitlines()[-1] == "pagemill: interrupted" and "Traceback" not in err
    assert os.listdir(tmp_path / "out") == ["ledger"]


# The real thing: the default bundle, TensorFlow and Beam, in a process of their own.


@pytest.mark.skipif(not DEFAULT_BUNDLE.is_dir(), reason="no default bundle in this tree")
def test_words_on_a_scan_become_text_with_the_default_bundle(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_bytes(scans.encoded(typeset("The quick brown fox", "jumps over the dog"), "PNG"))
    (tmp_path / "blank.png").write_bytes(scans.encoded(scans.picture(800, 600, ink=255), "PNG"))
    (tmp_path / "dot.png").write_bytes(scans.encoded(scans.picture(1, 1, ink=255), "PNG"))
    (tmp_path / "bad.jpg").write_bytes(b"Dear Sir,")
    out = tmp_path / "out"
    argv = ["transcribe", str(tmp_path), "--output", str(out), "--format", "txt", "--format", "overlay"]
    code = "import sys; from pipelines.cli import main; sys.exit(main())"
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}  # JAX sets it
    command = [sys.executable, "-c", code, *argv]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=env, capture_output=True, text=True)
    assert done.returncode == DEAD_LETTERS_LEFT
    assert [line for line in done.stderr.splitlines() if " files, " not in line] == []  # progress and nothing else
    assert "3 of 4 pages read (2 lines)" in done.stdout
    assert score("The quick brown fox\njumps over the dog", (out / "txt/page.txt").read_text()).cer <= 0.06
    assert (out / "txt/blank.txt").read_text() == (out / "txt/dot.txt").read_text() == ""
    assert (out / "overlay/page.jpg").stat().st_size > 1000


def typeset(*lines: str) -> Image.Image:
    pixels = np.full((600, 800), 255, np.uint8)
    for n, line in enumerate(lines):
        cv2.putText(pixels, line, (60, 120 + 60 * n), (0,), cv2.FontFace("sans"), 36, 400)
    return Image.fromarray(pixels)
