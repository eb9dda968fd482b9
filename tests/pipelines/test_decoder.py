from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocr_model.errors import PagemillError, UnreadablePage
from ocr_model.images import Limits, open_document
from pipelines.decoder import Decoder
from tests import scans
from tests.pipelines import lying_decoder, misbehaving_decoder
from tests.pipelines.misbehaving_decoder import script

PROGRAM = (sys.executable, misbehaving_decoder.__file__)
LIAR = (sys.executable, lying_decoder.__file__)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as running:
        yield running


@pytest.fixture(scope="module")
def scripted() -> Iterator[Decoder]:
    """Its documents are scripts of what happens."""
    with Decoder(timeout_s=20, memory_bytes=256 * 2**20, command=PROGRAM) as running:
        yield running


def reason(decoder: Decoder, index: int = 0) -> str:
    with pytest.raises(UnreadablePage) as caught:
        decoder.decode(index)
    return caught.value.reason


def await_end(pid: int, timeout_s: float = 10) -> bool:
    """Whether a process that may be nobody's child here ends in time."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], timeout_s)[0])
    finally:
        os.close(process)


def kill_idle(decoder: Decoder) -> int:
    """Kills a child of which nothing is asked; its process id."""
    pid = decoder.child_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert await_end(pid)
    return pid


FILES = {
    "JPEG": scans.encoded(scans.picture(), "JPEG", dpi=(300, 300)),
    "camera": scans.encoded(scans.picture(33, 17).convert("RGB"), "JPEG"),
    "PNG": scans.encoded(Image.effect_noise((301, 203), 90), "PNG"),
    "TIFF of three": scans.tiff([scans.picture(), scans.picture(60, 30).convert("1"), scans.picture(7, 5)]),
    "CCITT": scans.encoded(scans.picture().convert("1"), "TIFF", compression="group4"),
    "JPEG 2000": scans.encoded(scans.picture(), "JPEG2000"),
    "WebP": scans.encoded(scans.picture(), "WEBP"),
    "PDF": scans.pdf(["0 0 100 100", "0 0 50 100"]),
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES.keys())
def test_child_gives_the_pages_that_decoding_here_gives(decoder: Decoder, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "scan").write_bytes(data)
    expected = open_document(data)
    for source in (data, str(tmp_path / "scan")):
        assert decoder.open(source) == expected.page_count
        for index in reversed(range(expected.page_count)):
            page, here = decoder.decode(index), expected.decode(index)
            assert np.array_equal(page.pixels, here.pixels)
            assert (page.dpi, page.reduced_by) == (here.dpi, here.reduced_by)
            assert page.pixels.dtype == np.uint8 and page.pixels.flags.c_contiguous and page.pixels.flags.writeable


def test_pixels_are_the_callers_own(decoder: Decoder) -> None:
    decoder.open(FILES["TIFF of three"])
    first = decoder.decode(0)
    kept = first.pixels.copy()
    decoder.decode(1)
    assert np.array_equal(first.pixels, kept)


def test_big_page_gives_its_memory_back(decoder: Decoder) -> None:
    data = scans.encoded(Image.new("1", (7000, 5001)), "TIFF", compression="group4")
    decoder.open(data)
    for _ in range(2):
        assert decoder.decode(0).pixels.shape == (5001, 7000)


def test_limits_hold_in_the_child() -> None:
    with Decoder(Limits(max_pixels=400, max_pages=2)) as decoder:
        decoder.open(FILES["JPEG"])
        assert decoder.decode(0).pixels.shape == (10, 20)
        with pytest.raises(UnreadablePage, match="over the limit of 2") as caught:
            decoder.open(FILES["TIFF of three"])
        assert caught.value.reason == "too-many-pages"


BAD = {
    "empty": (b"", "empty-file"),
    "text": (b"Dear Sir,", "not-an-image"),
    "decompression bomb": (scans.one_colour_png(40_000, 40_000), "too-many-pixels"),
    "encrypted": (scans.encrypted_pdf(), "encrypted"),
    "cut": (FILES["PNG"][:400], "truncated"),
}


@pytest.mark.parametrize("data, expected", BAD.values(), ids=BAD.keys())
def test_bad_file_has_the_reason_that_it_has_here(decoder: Decoder, data: bytes, expected: str) -> None:
    def decode() -> None:
        decoder.open(data)
        decoder.decode(0)

    with pytest.raises(UnreadablePage) as caught:
        decode()
    with pytest.raises(UnreadablePage) as here:
        open_document(data).decode(0)
    assert caught.value.reason == here.value.reason == expected
    assert str(caught.value) == str(here.value)


def test_too_many_bytes_are_not_copied() -> None:
    with Decoder(Limits(max_bytes=10)) as decoder:
        with pytest.raises(UnreadablePage, match="over the limit of 10"):
            decoder.open(FILES["JPEG"])
        assert decoder.child_pid is None


def test_file_that_cannot_be_opened_is_an_error_of_the_path(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decoder.open(str(tmp_path / "missing.png"))
    with pytest.raises(IsADirectoryError):
        decoder.open(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        decoder.open(str(tmp_path / "pipe"))


def test_pages_are_asked_for_by_their_index(decoder: Decoder) -> None:
    decoder.open(FILES["PDF"])
    for index in (-1, 2):
        with pytest.raises(IndexError, match="of a document of 2"):
            decoder.decode(index)
    with pytest.raises(UnreadablePage):
        decoder.open(b"Dear Sir,")
    with pytest.raises(ValueError, match="no document"):
        decoder.decode(0)


def test_page_that_hangs_is_stopped_and_the_next_one_works() -> None:
    with Decoder(timeout_s=0.3, command=PROGRAM) as decoder:
        assert decoder.open(script("hang", "fine", "hang")) == 3
        hanging = decoder.child_pid
        with pytest.raises(UnreadablePage, match=r"stopped after 0\.3 s") as caught:
            decoder.decode(0)
        assert caught.value.reason == "timeout"
        assert hanging is not None and not os.path.exists(f"/proc/{hanging}")
        assert decoder.decode(1).pixels.shape == (2, 3)
        assert decoder.child_pid != hanging
        assert reason(decoder, 2) == "timeout"


def test_file_that_hangs_when_it_is_opened_is_stopped() -> None:
    with Decoder(timeout_s=0.3, command=PROGRAM) as decoder:
        with pytest.raises(UnreadablePage) as caught:
            decoder.open(script(at_opening="hang"))
        assert caught.value.reason == "timeout"
        assert decoder.open(FILES["PDF"]) == 2


DEATHS = {
    "segfault": ("signal SIGSEGV", "decoder-died", "SIGSEGV"),
    "abort": ("signal SIGABRT", "decoder-died", "SIGABRT"),
    "killed by a stranger": ("signal SIGKILL", "decoder-died", "SIGKILL"),
    "exit": ("exit disk on fire", "decoder-died", "exit code 1: disk on fire"),
    "processor time": ("signal SIGXCPU", "timeout", "SIGXCPU"),
    "too much memory": ("allocate 1000000000", "out-of-memory", "memory"),
    "abort with much memory": ("fill-and-abort 200000000", "out-of-memory", "SIGABRT"),
}


@pytest.mark.parametrize("what, expected, message", DEATHS.values(), ids=DEATHS.keys())
def test_death_of_the_child_costs_one_page(scripted: Decoder, what: str, expected: str, message: str) -> None:
    own_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if what.startswith("fill-and-abort") and own_peak > 150 * 2**20:
        pytest.skip("a child begins with the peak of its parent, which hides its own")
    assert scripted.open(script("fine", what, "fine")) == 3
    with pytest.raises(UnreadablePage, match=message) as caught:
        scripted.decode(1)
    assert caught.value.reason == expected
    assert scripted.decode(2).pixels.shape == (2, 3)


def test_death_of_the_child_while_it_opens_costs_one_file(scripted: Decoder) -> None:
    with pytest.raises(UnreadablePage) as caught:
        scripted.open(script(at_opening="signal SIGSEGV"))
    assert caught.value.reason == "decoder-died"
    assert scripted.open(FILES["PDF"]) == 2
    assert scripted.decode(1).pixels.shape == (417, 209)


def test_child_that_was_killed_while_idle_costs_nothing(decoder: Decoder) -> None:
    decoder.open(FILES["PDF"])
    pid = kill_idle(decoder)
    assert decoder.decode(0).pixels.shape == (417, 417)
    assert decoder.child_pid != pid


def test_picture_that_there_is_no_memory_for_is_not_left_out() -> None:
    page = scans.encoded(Image.new("1", (12_000, 12_000)), "PDF", resolution=1200)
    with Decoder(Limits(max_pixels=1_000_000), memory_bytes=64 * 2**20) as decoder:
        decoder.open(page)
        assert reason(decoder) == "out-of-memory"
        decoder.open(FILES["PDF"])
        assert decoder.decode(0).pixels.min() == 0


def test_file_that_changes_after_it_was_opened(scripted: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "changing"
    path.write_bytes(script("fine", "fine", "exit now", "fine"))
    assert scripted.open(str(path)) == 4
    os.truncate(path, 12)
    assert scripted.decode(1).pixels.shape == (2, 3)
    assert reason(scripted, 2) == "decoder-died"
    assert reason(scripted, 3) == "truncated"
    assert scripted.decode(0).pixels.shape == (2, 3)
    assert reason(scripted, 3) == "truncated"
    os.truncate(path, 0)
    kill_idle(scripted)
    assert reason(scripted, 0) == "empty-file"


def test_what_native_code_prints_goes_nowhere(scripted: Decoder, capfd: pytest.CaptureFixture[str]) -> None:
    scripted.open(script("chatter", "fine"))
    assert scripted.decode(0).pixels.shape == scripted.decode(1).pixels.shape == (2, 3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "what, error",
    [
        ("socket", "PermissionError"),
        ("program", "PermissionError"),
        ("write", "OSError"),
        ("files", "OSError"),
        ("secret", "KeyError"),
    ],
)
def test_child_may_do_little(scripted: Decoder, monkeypatch: pytest.MonkeyPatch, what: str, error: str) -> None:
    monkeypatch.setenv("SECRET", "token")
    scripted.close()
    scripted.open(script(f"try {what}"))
    if error == "PermissionError" and "Seccomp:\t2" not in Path(f"/proc/{scripted.child_pid}/status").read_text():
        pytest.skip("this kernel has no filter for system calls")
    with pytest.raises(UnreadablePage, match=error):
        scripted.decode(0)


def test_child_inherits_no_open_file(scripted: Decoder) -> None:
    with open(os.devnull) as stream:
        number = fcntl.fcntl(stream, fcntl.F_DUPFD, 200)
    os.set_inheritable(number, True)
    try:
        scripted.close()
        scripted.open(script(f"try inherited {number}"))
        with pytest.raises(UnreadablePage, match="OSError"):
            scripted.decode(0)
    finally:
        os.close(number)


PAGE_ANSWER = '{"id": ID, "height": %s, "width": %s, "reduced_by": %s, "dpi": %s}'

LIES = {
    "no JSON": "who knows",
    "deep JSON": "[" * 60_000,
    "no object": "[1]",
    "another question": '{"id": 77, "height": 1, "width": 1, "reduced_by": 1, "dpi": null}',
    "too long": '{"id": ID, "x": "LONG"}',
    "no sizes": '{"id": ID}',
    "over the limit": PAGE_ANSWER % (12_000, 12_000, 1, "null"),
    "overflow": PAGE_ANSWER % (2**32, 2**32, 1, "null"),
    "negative": PAGE_ANSWER % (-4, -4, 1, "null"),
    "no number": PAGE_ANSWER % ("true", '"3"', 1, "null"),
    "reduced by nothing": PAGE_ANSWER % (2, 2, 0, "null"),
    "resolution": PAGE_ANSWER % (2, 2, 1, "NaN"),
    "no resolution": PAGE_ANSWER % (2, 2, 1, '"fine"'),
    "pixels that are not there": "SHRINK",
    "unknown reason": '{"id": ID, "reason": "because", "message": "x"}',
    "reason that is no text": '{"id": ID, "reason": [], "message": "x"}',
    "message that is no text": '{"id": ID, "reason": "why", "message": ' + "[" * 900 + "]" * 900 + "}",
    "silence": "CLOSE",
}


def test_lies_of_the_child_are_not_believed() -> None:
    lines = [f'{{"id": ID, "pages": {len(LIES)}}}', *LIES.values()]
    with Decoder(timeout_s=20, command=LIAR) as decoder:
        decoder.open("\n".join(lines).encode())
        reasons = {name: reason(decoder, index) for index, name in enumerate(LIES)}
    assert reasons == dict.fromkeys(LIES, "decoder-died")


@pytest.mark.parametrize("pages", ["0", "-1", "1e3", "10002", "null", "true"])
def test_page_count_of_the_child_is_checked(pages: str) -> None:
    with Decoder(command=LIAR) as decoder:
        with pytest.raises(UnreadablePage) as caught:
            decoder.open(f'{{"id": ID, "pages": {pages}}}'.encode())
        assert caught.value.reason == "decoder-died"


def test_words_of_the_child_are_short_and_printable() -> None:
    failure = b'{"id": ID, "pages": 1}\n{"id": ID, "reason": "damaged", "message": "a\\u001b[2J\\ud800%s"}' % (
        b"b" * 9000
    )
    with Decoder(command=LIAR) as decoder:
        decoder.open(failure)
        with pytest.raises(UnreadablePage) as caught:
            decoder.decode(0)
    assert caught.value.message == "a [2J " + "b" * 994


@pytest.mark.parametrize("number", ["[]", "{}", "5", "true", "99999", "null"])
def test_file_that_the_child_cannot_read_is_an_error_of_the_path(number: str) -> None:
    with Decoder(command=LIAR) as decoder, pytest.raises(OSError):  # noqa: PT011, the number is what is tried
        decoder.open(f'{{"id": ID, "os_error": {number}}}'.encode())


def test_program_that_does_not_start_is_an_error_of_the_run() -> None:
    with Decoder(command=(sys.executable, "-c", "raise SystemExit('no such library')")) as decoder:
        with pytest.raises(PagemillError, match="exit code 1: no such library") as caught:
            decoder.open(FILES["JPEG"])
        assert not isinstance(caught.value, UnreadablePage)


@pytest.mark.parametrize("page", ["fine", "hang"])
def test_parent_that_is_killed_leaves_no_orphan(page: str) -> None:
    code = (
        "from tests.pipelines.test_decoder import *\n"
        "decoder = Decoder(command=PROGRAM)\n"
        f"decoder.open(script({page!r}))\n"
        "print(decoder.child_pid, flush=True)\n"
        "decoder.decode(0)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        while page == "hang" and cpu_ticks(child) < 60:  # it starts with about fifteen
            select.select([], [], [], 0.02)
        parent.kill()
    assert await_end(child)


def cpu_ticks(pid: int) -> int:
    """Processor time of a process, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_child_outlives_the_thread_that_started_it(decoder: Decoder) -> None:
    decoder.close()
    starter = threading.Thread(target=decoder.open, args=(FILES["PDF"],))
    starter.start()
    starter.join()
    pid = decoder.child_pid
    assert decoder.decode(0).pixels.shape == (417, 417)
    assert decoder.child_pid == pid


def test_second_caller_is_refused() -> None:
    with Decoder(timeout_s=20, command=PROGRAM) as decoder:
        decoder.open(script("hang"))
        outcome: list[str] = []
        waiting = threading.Thread(target=lambda: outcome.append(reason(decoder)))
        waiting.start()
        pid = decoder.child_pid
        assert pid is not None
        while cpu_ticks(pid) < 30:
            select.select([], [], [], 0.02)
        with pytest.raises(RuntimeError, match="one caller at a time"):
            decoder.decode(0)
        os.kill(pid, signal.SIGKILL)
        waiting.join()
    assert outcome == ["decoder-died"]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    def left() -> tuple[set[str], int]:
        return set(os.listdir("/dev/shm")), len(os.listdir("/proc/self/fd"))

    before = left()
    with Decoder(command=PROGRAM) as decoder:
        for source in (script("fine", "signal SIGKILL"), FILES["JPEG"]):
            decoder.open(source)
            decoder.decode(0)
        decoder.open(script("fine", "signal SIGKILL"))
        assert reason(decoder, 1) == "decoder-died"
        with pytest.raises(UnreadablePage):
            decoder.open(b"Dear Sir,")
    assert left()[0] <= before[0] and left()[1] == before[1]


def test_child_imports_neither_tensorflow_nor_beam() -> None:
    code = "import sys, pipelines.decoder_process; print(*{name.partition('.')[0] for name in sys.modules})"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"tensorflow", "keras", "apache_beam", "cv2"} & set(out.split())


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="timeout_s 0"):
        Decoder(timeout_s=0)


def test_default_timeout_of_other_sockets_does_not_reach_the_child() -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5)  # as clients of buckets do
    try:
        with Decoder() as running:
            assert running.open(scans.encoded(scans.picture(), "PNG")) == 1
            assert running.decode(0).pixels.shape == (20, 40)
    finally:
        socket.setdefaulttimeout(before)
