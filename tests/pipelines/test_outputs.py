import errno
import fcntl
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ocr_model.errors import BadInput
from pipelines import ledger, outputs
from pipelines.decoder import Decoder
from pipelines.outputs import (
    LOCK,
    PARTIAL,
    AtomicFile,
    OutputFile,
    Staging,
    cannot_write,
    is_name_error,
    list_files,
    locked,
    open_to_read,
    prepare_output,
    read_text,
    remove,
    sha256_of,
    write_atomically,
)
from pipelines.report import reconcile
from pipelines.verify import verify_output
from tests.pipelines import memory_bucket
from tests.pipelines.folders import do_units, plan, png, put, run_options


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


# One file.


def test_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    file = AtomicFile(str(tmp_path), "a/b.txt")
    file.write("half, ")
    assert not (tmp_path / "a/b.txt").exists()
    file.write(b"whole")
    file.commit()
    assert files(tmp_path) == ["a/b.txt"]
    assert (tmp_path / "a/b.txt").read_text() == "half, whole"


def test_discarded_file_leaves_nothing(tmp_path: Path) -> None:
    file = AtomicFile(str(tmp_path), "b.txt")
    file.discard()
    assert files(tmp_path) == []


def test_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_atomically(str(tmp_path), "b.txt", "a longer text")
    write_atomically(str(tmp_path), "b.txt", "short")
    assert (tmp_path / "b.txt").read_text() == "short"


def test_text_that_is_no_unicode_is_still_written(tmp_path: Path) -> None:
    write_atomically(str(tmp_path), "b.txt", "caf\udce9 ß")
    assert (tmp_path / "b.txt").read_bytes() == b"caf\\udce9 \xc3\x9f"


def test_folder_in_the_place_of_a_file_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(str(tmp_path), "b.txt", "x")
    assert files(tmp_path) == []


def test_output_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot write to"):
        prepare_output(str(tmp_path / "file" / "out"))
    prepare_output(str(tmp_path / "out"))
    assert files(tmp_path / "out") == []


# A full disk.

FULL_DISK = """
import resource, signal, sys
from pipelines.outputs import Staging, cannot_write, write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))
write_atomically(sys.argv[1], "old.txt", "x" * 10**5)
for name, size in (("old.txt", 10**5 + 1), ("new.txt", 10**7)):
    try:
        write_atomically(sys.argv[1], name, "y" * size)
    except OSError as error:
        print(cannot_write(sys.argv[1], error).message)
staging = Staging(sys.argv[1], "ledger/staging/u.1")
file = staging.open("txt/a.txt")
try:
    file.stream.write(b"z" * (10**5 + 1))
    file.close()
except OSError as error:
    print(error.strerror)
staging.discard()
"""


def test_full_disk_leaves_the_old_file_and_nothing_new(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    told = f"cannot write to {tmp_path}: {os.strerror(errno.EFBIG)}"
    assert done.stdout.splitlines() == [told, told, os.strerror(errno.EFBIG)]
    assert files(tmp_path) == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "x" * 10**5


class FullStream(io.BytesIO):
    """Takes everything, until it is to be written."""

    def fileno(self) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_disk_that_is_full_at_the_last_moment_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AtomicFile(str(tmp_path), "a.txt")
    file._stream.close()
    file._stream = FullStream()
    with pytest.raises(OSError, match="No space left"):
        file.commit()
    assert files(tmp_path) == []


def test_error_of_the_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_atomically(str(tmp_path), "a.txt", 7)  # type: ignore[arg-type]
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "number, is_name",
    [(errno.ENAMETOOLONG, True), (errno.EISDIR, True), (errno.ENOSPC, False), (errno.EACCES, False), (None, False)],
)
def test_a_bad_name_is_told_from_a_bad_disk(number: int | None, is_name: bool) -> None:
    assert is_name_error(OSError(number, "x") if number else OSError("x")) == is_name
    assert "cannot write to out" in str(cannot_write("out", OSError(number, "x") if number else OSError("x")))


# The lock.

HOLD = """
import sys
from pipelines.outputs import locked
with locked(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has locked `tmp_path`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_second_run_is_refused_until_the_first_is_killed(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "_DYING_S", 0.1)
    with pytest.raises(BadInput, match="another run is writing to"), locked(str(tmp_path)):
        pass
    holder.kill()
    holder.wait()
    with locked(str(tmp_path)):
        assert files(tmp_path) == [LOCK]


def test_run_that_is_dying_is_waited_for(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    dies = threading.Timer(0.3, holder.kill)
    dies.start()
    with locked(str(tmp_path)):
        assert holder.wait() == -signal.SIGKILL


def test_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("pipelines.outputs.fcntl.flock", none)
    with pytest.raises(BadInput, match=r"cannot lock .*: No locks available"), locked(str(tmp_path)):
        pass


def test_lock_ends_with_the_run_and_is_one_per_folder(tmp_path: Path) -> None:
    with locked(str(tmp_path / "a")), locked(str(tmp_path / "b")):
        pass
    with locked(str(tmp_path / "a")):
        pass


def test_run_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    with suppress(BadInput), locked(str(tmp_path)):
        prepare_output(str(tmp_path))
        raise BadInput("no such file")
    assert list(tmp_path.iterdir()) == []


def test_lock_stays_where_something_was_written(tmp_path: Path) -> None:
    with locked(str(tmp_path)):
        write_atomically(str(tmp_path), "ledger/corpus.json", "{}")
    assert files(tmp_path) == ["ledger/corpus.json", LOCK]


def test_lock_that_another_run_has_just_removed_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    flock = fcntl.flock

    def removed_at_first(file: object, how: int) -> None:
        if not tries:
            (tmp_path / LOCK).unlink()
        tries.append(how)
        flock(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr("pipelines.outputs.fcntl.flock", removed_at_first)
    with locked(str(tmp_path)):
        assert len(tries) == 2 and (tmp_path / LOCK).exists()


# Staging.


def staged(staging: Staging, relative: str, data: bytes) -> OutputFile:
    file = staging.open(relative)
    file.stream.write(data)
    return file.close()


def test_staged_file_tells_size_and_digest() -> None:
    expected = OutputFile("txt/a.txt", 3, hashlib.sha256(b"abc").hexdigest())
    file = outputs.StagedFile("txt/a.txt", io.BytesIO())
    for part in (b"a", memoryview(b"bc"), b""):
        file.stream.write(part)
    assert file.stream.tell() == 3
    assert file.close() == expected


def test_staged_files_get_their_names_when_published(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path), "ledger/staging/u.1")
    written = [staged(staging, "txt/a/b.txt", b"abc"), staged(staging, "txt/c.txt", b"")]
    assert not (tmp_path / "txt").exists()
    staging.publish(written)
    staging.discard()
    assert files(tmp_path) == ["txt/a/b.txt", "txt/c.txt"]
    assert [sha256_of(str(tmp_path), file.path) for file in written] == written


def test_discarded_staging_leaves_nothing_and_dropped_files_are_gone(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path), "ledger/staging/u.1")
    staged(staging, "txt/a.txt", b"a")
    staging.drop(staging.open("txt/b.txt"))
    assert files(tmp_path) == ["ledger/staging/u.1/txt/a.txt"]
    staging.discard()
    staging.discard()
    assert files(tmp_path) == []


def test_two_attempts_do_not_see_each_other(tmp_path: Path) -> None:
    first, second = (Staging(str(tmp_path), f"ledger/staging/u.{n}") for n in (1, 2))
    one, other = staged(first, "txt/a.txt", b"same"), staged(second, "txt/a.txt", b"same")
    first.publish([one])
    second.publish([other])
    assert (tmp_path / "txt/a.txt").read_bytes() == b"same"


@pytest.mark.parametrize("remote", [False, True])
def test_second_file_of_one_name_is_refused(tmp_path: Path, remote: bool) -> None:
    staging = Staging("mem://out" if remote else str(tmp_path), "ledger/staging/u.1")
    staged(staging, "txt/a.txt", b"first")
    with pytest.raises(FileExistsError) as raised:
        staging.open("txt/a.txt")
    assert is_name_error(raised.value)


def test_name_that_can_not_be_published_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "txt/folder.txt").mkdir(parents=True)
    (tmp_path / "txt/file").touch()
    staging = Staging(str(tmp_path), "ledger/staging/u.1")
    for name in ("txt/folder.txt", "txt/file/a.txt", "txt/file/b/a.txt"):
        with pytest.raises(OSError) as raised:  # noqa: PT011 - told by its number
            staging.open(name)
        assert is_name_error(raised.value), name


def test_digesting_stream_serves_a_tar(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path), "ledger/staging/u.1")
    file = staging.open("txt/u.tar")
    with tarfile.open(fileobj=file.stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    written = file.close()
    staging.publish([written])
    assert sha256_of(str(tmp_path), "txt/u.tar") == written


# Listing and removing.


def test_only_files_of_the_folder_itself_are_listed(tmp_path: Path) -> None:
    for name in ("a/1.json", "a/b/2.json", "3.json"):
        write_atomically(str(tmp_path), name, "x")
    assert list_files(str(tmp_path), "a") == {"a/1.json"}
    assert list_files(str(tmp_path), "nowhere") == set()


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    write_atomically(str(tmp_path), "a.txt", "x")
    for name in ("a.txt", "a.txt", "nowhere/b.txt"):
        remove(str(tmp_path), name)
    assert files(tmp_path) == []


# A bucket.


@pytest.fixture
def bucket() -> Iterator[dict[str, bytes]]:
    memory_bucket.OBJECTS.clear()
    yield memory_bucket.OBJECTS
    memory_bucket.OBJECTS.clear()


def test_object_appears_when_it_is_complete(bucket: dict[str, bytes]) -> None:
    file = AtomicFile("mem://out", "a/b.txt")
    file.write("text")
    assert bucket == {}
    file.commit()
    assert bucket == {"mem://out/a/b.txt": b"text"}
    assert read_text("mem://out/", "a/b.txt") == "text"
    with open_to_read("mem://out", "a/b.txt") as stream:
        stream.seek(2)
        assert stream.read() == b"xt"


def test_objects_are_listed_and_removed(bucket: dict[str, bytes]) -> None:
    for name in ("a/1", "a/b/2"):
        write_atomically("mem://out", name, "x")
    assert list_files("mem://out", "a") == {"a/1"}
    assert list_files("mem://out", "nowhere") == set()
    for _ in range(2):
        remove("mem://out", "a/1")
    assert list(bucket) == ["mem://out/a/b/2"]


def test_bucket_needs_no_lock_and_no_probe(bucket: dict[str, bytes]) -> None:
    prepare_output("mem://out")
    with locked("mem://out"), locked("mem://out"):
        assert bucket == {}


def test_unit_in_a_bucket_is_committed_by_its_entry(
    tmp_path: Path, bucket: dict[str, bytes], shared_decoder: Decoder
) -> None:
    sources = put(tmp_path, {"a.png": png(20, 20), "b.png": b"", "c.png": png(30, 20)})
    plan("mem://out", sources)
    do_units(run_options("mem://out", "txt", "jsonl"), shared_decoder)
    report = reconcile("mem://out")
    report.check()
    assert (report.counts.read, report.counts.dead) == (2, 1)
    assert bucket["mem://out/txt/a.txt"] == b"20x20\n"
    assert not [name for name in bucket if PARTIAL in name or ledger.STAGING in name or ledger.ATTEMPTS in name]
    assert verify_output("mem://out").problems == ()
    bucket["mem://out/txt/a.txt"] = b"other"
    assert len(verify_output("mem://out", reopen=True).problems) == 1
    do_units(run_options("mem://out", "txt", "jsonl"), shared_decoder)
    assert verify_output("mem://out").problems == ()


def test_error_of_a_writer_leaves_no_object(bucket: dict[str, bytes]) -> None:
    bad: Any = 7
    with pytest.raises(TypeError):
        write_atomically("mem://out", "a.txt", bad)
    assert bucket == {}
