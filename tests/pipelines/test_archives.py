import io
import random
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ocr_model.errors import BadInput, UnreadablePage
from pipelines import archives
from pipelines.archives import ArchiveReader, close_archives, list_members, read_member
from pipelines.corpus import find_sources, read_source

KINDS = ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"]
MODES = {"tar": "w", "tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_archives()


def pack(path: Path, *members: tuple[str, bytes]) -> Path:
    """An archive of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as box:
            for name, data in members:
                box.writestr(name, data)
        return path
    with tarfile.open(str(path), MODES[path.name.split(".", 1)[1]]) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def found(root: Path, *inputs: str) -> dict[str, tuple[str, int | None]]:
    """Stem -> member and size."""
    sources = find_sources([str(root / name) for name in inputs], str(root / "out"))
    return {source.stem: (source.member, source.size) for source in sources}


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_an_archive_are_sources_below_its_name(tmp_path: Path, kind: str) -> None:
    members = [("1901/2.jpg", b"two"), ("1901/1.PNG", b"one"), ("notes.txt", b"-"), ("inner.zip", b"-")]
    hidden = [("__MACOSX/1901/2.jpg", b"-"), ("1901/._2.jpg", b"-"), (".cache/3.jpg", b"-")]
    pack(tmp_path / f"in/a/box.{kind}", *members, *hidden)
    expected = {"1901/1": ("1901/1.PNG", 3), "1901/2": ("1901/2.jpg", 3)}
    assert found(tmp_path, f"in/a/box.{kind}") == {f"box/{stem}": source for stem, source in expected.items()}
    assert found(tmp_path, "in") == {f"a/box/{stem}": source for stem, source in expected.items()}
    assert found(tmp_path, "in/*/box*") == {f"a/box/{stem}": source for stem, source in expected.items()}
    sources = find_sources([str(tmp_path / "in")], str(tmp_path / "out"))
    assert [read_source(source, 100) for source in sources] == [b"one", b"two"]
    assert sources[0].origin == f"{tmp_path}/in/a/box.{kind}!1901/1.PNG"


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_member_no_more_than_the_limit_is_read(tmp_path: Path, kind: str) -> None:
    path = pack(tmp_path / f"box.{kind}", ("1.png", bytes(5000)))
    assert read_member(str(path), "1.png", 10) == bytes(11)
    assert read_member(str(path), "1.png", 5000) == bytes(5000)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("again", ["1.png", "./1.png"])
def test_of_a_name_that_comes_twice_the_last_one_counts(tmp_path: Path, kind: str, again: str) -> None:
    path = pack(tmp_path / f"box.{kind}", ("1.png", b"old"), ("2.png", b""), (again, b"newer"))
    assert found(tmp_path, path.name) == {"box/1": (again, 5), "box/2": ("2.png", 0)}
    assert read_member(str(path), again, 10) == b"newer"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name, stem",
    [
        ("/etc/1.png", "etc/1"),
        ("../../1.png", "%2E%2E/%2E%2E/1"),
        ("a/../1.png", "a/%2E%2E/1"),
        ("..\\..\\1.png", "%2E%2E/%2E%2E/1"),
        ("C:\\scans\\1.png", "C:/scans/1"),
        ("two\nlines\x1b.png", "two%0Alines%1B"),
        ("é😀.png", "é😀"),
        ("x" * 230 + ".png", "x" * 160 + "~aa12b2e189de66d4"),
    ],
)
def test_member_with_a_hostile_name_stays_below_the_output(tmp_path: Path, kind: str, name: str, stem: str) -> None:
    path = pack(tmp_path / f"box.{kind}", (name, b"page"))
    (source,) = find_sources([str(path)], str(tmp_path / "out"))
    assert source.stem == f"box/{stem}"
    assert read_source(source, 10) == b"page"


@pytest.mark.parametrize("kind", KINDS)
def test_members_whose_safe_names_are_equal_are_all_kept(tmp_path: Path, kind: str) -> None:
    names = ["a\n.png", "a%0A.png", "b.png", "b.jpg"]
    path = pack(tmp_path / f"box.{kind}", *((name, name.encode()) for name in names))
    sources = find_sources([str(path)], str(tmp_path / "out"))
    assert {read_source(source, 20).decode() for source in sources} == set(names)
    assert len({source.stem for source in sources}) == 4
    assert {"box/b.png", "box/b.jpg"} < {source.stem for source in sources}


def test_name_in_no_encoding_is_read_all_the_same(tmp_path: Path) -> None:
    path = pack(tmp_path / "box.tar", ("caf\udce9.png", b"page"))
    (source,) = find_sources([str(path)], str(tmp_path / "out"))
    assert (source.stem, read_source(source, 10)) == ("box/caf\udce9", b"page")


def test_zero_byte_in_a_name_does_no_harm(tmp_path: Path) -> None:
    path = pack(tmp_path / "box.zip", ("1.pngX.exe", b"page"), ("2.png", b"two"))
    path.write_bytes(path.read_bytes().replace(b"1.pngX.exe", b"1.png\0.exe"))
    assert set(found(tmp_path, "box.zip")) == {"box/1", "box/2"}
    assert read_member(str(path), "1.png", 10) == b"page"
    assert read_member(str(path), "2.png", 10) == b"two"


def test_archive_beside_its_folder_keeps_its_extension(tmp_path: Path) -> None:
    pack(tmp_path / "in/box.zip", ("1.png", b""))
    pack(tmp_path / "in/box.tar.gz", ("1.png", b""))
    (tmp_path / "in/box").mkdir()
    (tmp_path / "in/box/1.png").write_bytes(b"")
    assert set(found(tmp_path, "in")) == {"box/1.png", "box.zip/1.png", "box.tar.gz/1.png"}


def test_links_in_archives_are_passed_over_and_second_names_are_not(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "box.tar", "w") as tar:
        tar.addfile(sized("1.png", 4), io.BytesIO(b"page"))
        for name, kind, target in [
            ("2.png", tarfile.LNKTYPE, "1.png"),
            ("3.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("4.png", tarfile.LNKTYPE, "/etc/passwd"),
            ("5.png", tarfile.FIFOTYPE, ""),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    assert set(found(tmp_path, "box.tar")) == {"box/1", "box/2"}
    assert read_member(str(tmp_path / "box.tar"), "2.png", 10) == b"page"


def sized(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


# ---- damage


def test_encrypted_member_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    path = pack(tmp_path / "box.zip", ("1.png", b"page"), ("2.png", b"page" * 9))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    data[data.index(b"2.png") + 8] ^= 0xFF
    path.write_bytes(data)
    assert reason(path, "1.png") == "encrypted"
    assert reason(path, "2.png") == "damaged"
    assert reason(path, "3.png") == "damaged"


def test_unknown_method_is_unsupported(tmp_path: Path) -> None:
    path = pack(tmp_path / "box.zip", ("1.png", b"page"))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 10] = 97
    path.write_bytes(data)
    assert reason(path, "1.png") == "unsupported"


def reason(path: Path, member: str) -> str:
    with pytest.raises(UnreadablePage) as caught:
        read_member(str(path), member, 100)
    return caught.value.reason


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [b"", b"no archive at all" * 100], ids=["empty", "text"])
def test_damaged_archive_is_refused_if_named_and_kept_for_the_dead_letters_if_not(
    tmp_path: Path, kind: str, data: bytes
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / f"in/box.{kind}").write_bytes(data)
    with pytest.raises(BadInput, match=r"cannot read .*in/box"):
        found(tmp_path, f"in/box.{kind}")
    assert found(tmp_path, "in") == {"box": ("", len(data))}
    (source,) = find_sources([str(tmp_path / "in")], str(tmp_path / "out"))
    assert read_source(source, 10_000) == data


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_of_a_cut_tar_what_is_left_is_listed_and_the_archive_too(tmp_path: Path, kind: str) -> None:
    rng = random.Random(1)
    pages = [(f"{i}.png", rng.randbytes(100_000)) for i in range(20)]
    path = pack(tmp_path / f"in/box.{kind}", *pages)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    sources = find_sources([str(tmp_path / "in")], str(tmp_path / "out"))
    assert sources[0].stem == "box" and sources[0].member == ""
    assert 2 < len(sources) < 20
    outcomes = []
    for source in sources[1:]:
        try:
            assert read_source(source, 200_000) == dict(pages)[source.member]
            outcomes.append("read")
        except UnreadablePage as error:
            outcomes.append(error.reason)
    assert outcomes.count("read") >= len(outcomes) - 1
    assert set(outcomes) <= {"read", "truncated"}


def test_tar_with_a_broken_header_is_damaged_from_there_on(tmp_path: Path) -> None:
    path = pack(tmp_path / "in/box.tar", ("1.png", b"one"), ("2.png", b"two"), ("3.png", b"three"))
    data = bytearray(path.read_bytes())
    data[1024 + 148 : 1024 + 156] = b"garbage!"  # the second header's checksum
    path.write_bytes(data)
    assert set(found(tmp_path, "in")) == {"box", "box/1"}


def test_archive_that_is_gone_or_closed_to_us_is_an_error_of_reading(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_member(str(tmp_path / "gone.zip"), "1.png", 10)


# ---- bombs


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_bomb_is_unpacked_to_the_limit_only(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "box.zip", "w", method) as box:
        box.writestr("1.png", bytes(30_000_000))
    started_s = time.process_time()
    assert len(read_member(str(tmp_path / "box.zip"), "1.png", 1000)) == 1001
    assert time.process_time() - started_s < 1


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
def test_tar_that_unpacks_to_too_much_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_UNPACKED_FREELY_BYTES", 100_000)
    monkeypatch.setattr(archives, "_LARGEST_RATIO", 1)
    path = pack(tmp_path / f"in/box.{kind}", ("1.png", b"page"), ("2.png", bytes(10_000_000)), ("3.png", b"page"))
    members, damage = list_members(str(path))
    assert [member.name for member in members] == ["1.png", "2.png"]
    assert damage is not None and damage.reason == "too-many-bytes"
    assert read_member(str(path), "1.png", 10) == b"page"


def test_header_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**33
    (tmp_path / "box.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(BadInput, match="a header of"):
        found(tmp_path, "box.tar")


@pytest.mark.parametrize("kind", KINDS)
def test_broken_bytes_never_raise_anything_else(tmp_path: Path, kind: str) -> None:
    good = pack(tmp_path / f"box.{kind}", *((f"{i}/page.png", bytes(range(256)) * i) for i in range(4))).read_bytes()
    rng = random.Random(7)
    for _ in range(60):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / f"box.{kind}").write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        with suppress(UnreadablePage), ArchiveReader(str(tmp_path / f"box.{kind}")) as reader:
            for member in reader.members():
                with suppress(UnreadablePage):
                    reader.read(member.name, 5000)
        with suppress(UnreadablePage):
            list_members(str(tmp_path / f"box.{kind}"))


# ---- many members


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
def test_compressed_tar_is_unpacked_once_for_members_in_any_order(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{i:03d}.png" for i in range(200)]
    random.Random(3).shuffle(names)
    path = pack(tmp_path / f"box.{kind}", *((name, name.encode()) for name in names))
    calls = []
    unpack = archives._unpacked
    monkeypatch.setattr(archives, "_unpacked", lambda *given: calls.append(1) or unpack(*given))  # type: ignore[func-returns-value]
    for source in find_sources([str(path)], str(tmp_path / "out")):
        assert read_source(source, 100) == source.member.encode()
    assert calls == [1]


def test_archive_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    path = pack(tmp_path / "box.zip", ("1.png", b"old"))
    assert read_member(str(path), "1.png", 10) == b"old"
    pack(tmp_path / "box.zip", ("1.png", b"newer"))
    assert read_member(str(path), "1.png", 10) == b"newer"


def test_only_a_few_archives_stay_open(tmp_path: Path) -> None:
    for i in range(10):
        path = pack(tmp_path / f"{i}.tar", ("1.png", str(i).encode()))
        assert read_member(str(path), "1.png", 10) == str(i).encode()
    assert len(archives._open_archives) == 4
