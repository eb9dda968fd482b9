import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ocr_model.errors import BadInput, NothingToDo
from pipelines.corpus import SourceFile, find_sources, read_source
from pipelines.manifest import read_manifest


def manifest(root: Path, name: str, content: str | bytes) -> str:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def listed(path: str) -> list[SourceFile]:
    return find_sources([path], os.path.join(os.path.dirname(path), "out"))


ROWS = [
    {"path": "a/1.jpg", "page": "", "document": "a", "size": "12", "language": "en", "date": "1901"},
    {"path": "/elsewhere/2.jpg", "page": "", "document": "", "size": "", "language": "de", "date": ""},
    {"path": "gs://bucket/x/3.jpg", "page": "", "document": "", "size": "", "language": "", "date": ""},
    {"path": "book.pdf", "page": "7", "document": "", "size": "", "language": "", "date": ""},
    {"path": "book.pdf", "page": "3-5", "document": "", "size": "", "language": "", "date": ""},
    {"path": "box.tar.gz!b/4.jpg", "page": "", "document": "", "size": "", "language": "", "date": ""},
]


def as_text(kind: str) -> str:
    if kind == "jsonl":
        return "".join(json.dumps({name: value for name, value in row.items() if value}) + "\n" for row in ROWS)
    lines = [list(ROWS[0]), *(row.values() for row in ROWS)]
    return "".join({"csv": ",", "tsv": "\t", "semicolon.csv": ";"}[kind].join(line) + "\n" for line in lines)


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolon.csv", "jsonl"])
@pytest.mark.parametrize("start, end", [("", "\n"), ("\ufeff", "\r\n")])
def test_rows_become_sources(tmp_path: Path, kind: str, start: str, end: str) -> None:
    path = manifest(tmp_path, f"list.{kind}", start + as_text(kind).replace("\n", end))
    assert listed(path) == [
        SourceFile(f"{tmp_path}/a/1.jpg", "a/1", 12, document="a", metadata=(("date", "1901"), ("language", "en"))),
        SourceFile(f"{tmp_path}/book.pdf", "book.page-0007", first_page=7, last_page=7),
        SourceFile(f"{tmp_path}/book.pdf", "book.pages-0003-0005", first_page=3, last_page=5),
        SourceFile(f"{tmp_path}/box.tar.gz", "box/b/4", member="b/4.jpg"),
        SourceFile("gs://bucket/x/3.jpg", "bucket/x/3"),
        SourceFile("/elsewhere/2.jpg", "elsewhere/2", metadata=(("language", "de"),)),
    ]


def test_quoted_cells_may_hold_anything(tmp_path: Path) -> None:
    path = manifest(tmp_path, "list.csv", 'path,note\n"a,b;c.jpg","two\nlines ""quoted"""\n')
    assert [(row.path, row.metadata) for row in read_manifest(path)] == [
        (f"{tmp_path}/a,b;c.jpg", (("note", 'two\nlines "quoted"'),))
    ]


def test_single_column_needs_no_delimiter(tmp_path: Path) -> None:
    assert [row.stem for row in read_manifest(manifest(tmp_path, "list.csv", "path\na;b.jpg\n\nc.jpg\n"))] == [
        "a;b",
        "c",
    ]


def test_values_of_json_become_text(tmp_path: Path) -> None:
    row = {"path": "a.jpg", "page": 3, "size": 7, "document": None, "year": 1901, "good": True, "tags": ["x", 1]}
    path = manifest(tmp_path, "list.jsonl", json.dumps(row))
    (source,) = listed(path)
    assert (source.first_page, source.last_page, source.size, source.document) == (3, 3, 7, "")
    assert source.metadata == (("good", "true"), ("tags", '["x", 1]'), ("year", "1901"))


def test_output_column_is_the_stem_and_stays_below_the_output(tmp_path: Path) -> None:
    path = manifest(tmp_path, "list.csv", "path,output\na.jpg,1901/first\nb.jpg,/../up\na.tif,a\na.png,\n")
    stems = {os.path.basename(source.path): source.stem for source in listed(path)}
    assert stems == {"a.jpg": "1901/first", "b.jpg": "%2E%2E/up", "a.tif": "a", "a.png": "a.png"}


def test_two_rows_with_one_output_are_refused(tmp_path: Path) -> None:
    path = manifest(tmp_path, "list.csv", "path,page,output\na.jpg,1,x\na.jpg,2,x\n")
    with pytest.raises(BadInput, match=r"a.jpg and .*a.jpg would both become x"):
        listed(path)


def test_pages_of_files_that_differ_in_the_extension_keep_it(tmp_path: Path) -> None:
    path = manifest(tmp_path, "list.csv", "path,page\na.tif,1\na.pdf,1\na.pdf,2\n")
    assert [source.stem for source in listed(path)] == ["a.page-0002", "a.pdf.page-0001", "a.tif.page-0001"]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("list.csv", "", "list.csv, line 1: the header has no column `path`, but nothing"),
        ("list.csv", "file,page\na,1\n", "line 1: the header has no column `path`, but file, page"),
        ("list.csv", "path,x,x\n", "line 1: the header has two columns `x`"),
        ("list.csv", "path,page\na.jpg,1\nb.jpg,one\n", "line 3: the page is 'one'"),
        ("list.csv", "path,page\na.jpg,0\n", "line 2: the page is '0'"),
        ("list.csv", "path,page\na.jpg,7-3\n", "line 2: the page is '7-3'"),
        ("list.csv", "path,size\na.jpg,-1\n", "line 2: the size is '-1'"),
        ("list.csv", "path,page\n,1\n", "line 2: the path is empty"),
        ("list.csv", "path,page\n/,1\n", "line 2: '/' names no file"),
        ("list.csv", "path,output\na.jpg,/\n", "line 2: '/' names no file"),
        ("list.csv", "path,page\na.jpg,1\nb.jpg\n", "line 3: 1 columns, but the header has 2"),
        ("list.csv", "path,page\na.jpg,1\n\na.jpg,1\n", "line 4: 'a.jpg' is listed before"),
        ("list.csv", b"path\na.jpg\ncaf\xe9.jpg\n", "line 3: not UTF-8"),
        ("list.csv", "path\na.jpg\n".encode("utf-16"), "line 1: not UTF-8"),
        ("list.csv", 'path\n"a.jpg\n', "line 2: unexpected end of data"),
        ("list.csv", "path\n" + "x" * 1_100_000, "line 2: the line has more than 1048576 bytes"),
        ("list.csv", "path\na\0.jpg\n", "line 2: .* cannot be the name of a file|line 2: line contains NUL"),
        ("list.jsonl", '{"path": "a.jpg"}\n\n{"path"', "line 3: no JSON"),
        ("list.jsonl", "[" * 100_000, "line 1: no JSON"),
        ("list.jsonl", "[1]", "line 1: a list, not a JSON object"),
        ("list.jsonl", '{"file": "a.jpg"}', "line 1: no `path`, but file"),
        ("list.jsonl", '{"path": 7}', "line 1: the path is 7"),
        ("list.jsonl", '{"path": "\\ud800.jpg"}', "line 1: .* cannot be the name of a file"),
        ("list.jsonl", '{"path": "a.jpg", "page": 1.5}', "line 1: the page is '1.5'"),
        ("list.jsonl", '{"path": "a.jpg"}\n{"path": "./a.jpg"}', "line 2: './a.jpg' is listed before"),
    ],
)
def test_bad_row_is_named_by_its_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        list(read_manifest(manifest(tmp_path, name, content)))


def test_manifest_without_rows_is_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo):
        listed(manifest(tmp_path, "list.csv", "path\n"))


def test_listed_file_that_is_missing_is_an_error_of_reading(tmp_path: Path) -> None:
    (source,) = listed(manifest(tmp_path, "list.csv", "path\ngone.jpg\n"))
    with pytest.raises(FileNotFoundError):
        read_source(source, 10)


def test_name_that_is_no_unicode_can_be_written_in_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / name).write_bytes(b"page")
    (source,) = listed(manifest(tmp_path, "list.jsonl", json.dumps({"path": name})))
    assert read_source(source, 10) == b"page"


def test_file_in_a_folder_and_in_a_manifest_is_read_once_as_first_found(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"page")
    path = manifest(tmp_path, "list.csv", "path,language\n1.jpg,en\n")
    (source,) = find_sources([path, str(tmp_path)], str(tmp_path / "out"))
    assert source.metadata == (("language", "en"),)
    (source,) = find_sources([str(tmp_path), path], str(tmp_path / "out"))
    assert source.metadata == ()


def test_manifest_in_a_folder_is_no_manifest_but_a_pattern_can_name_some(tmp_path: Path) -> None:
    manifest(tmp_path, "lists/1.csv", "path\n1.jpg\n")
    manifest(tmp_path, "lists/2.csv", "path\n2.jpg\n")
    assert [source.stem for source in listed(str(tmp_path / "lists/*.csv"))] == ["1", "2"]
    with pytest.raises(NothingToDo):
        listed(str(tmp_path / "lists"))


_MEASURE = """
import resource, sys
from pipelines.corpus import find_sources
before = resource.getrusage(resource.RUSAGE_SELF)
sources = find_sources(sys.argv[1:], "out")
after = resource.getrusage(resource.RUSAGE_SELF)
cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(len(sources), cpu_s, after.ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_million_rows_are_listed_in_a_minute_and_a_gigabyte(tmp_path: Path, kind: str) -> None:
    names = ["path", "document", "language", "split", "bundle", "date", "size"]
    path = tmp_path / f"list.{kind}"
    with open(path, "w") as stream:
        stream.write(",".join(names) + "\n" if kind == "csv" else "")
        for i in range(1_000_000):
            book = f"book-{i // 200:05d}"
            date = f"19{i % 100:02d}-01-{i % 28 + 1:02d}"
            row = [f"box-{i // 1000:04d}/{book}/page-{i:07d}.jpg", book, "en", "train", f"b{i // 1000}", date, str(i)]
            stream.write((",".join(row) if kind == "csv" else json.dumps(dict(zip(names, row, strict=True)))) + "\n")
    done = subprocess.run([sys.executable, "-c", _MEASURE, str(path)], capture_output=True, text=True, check=True)
    count, cpu_s, peak_gib = (float(figure) for figure in done.stdout.split())
    assert count == 1_000_000
    assert cpu_s < 60
    assert peak_gib < 1
