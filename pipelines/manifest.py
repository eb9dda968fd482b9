"""Manifests: lists of the files to read, as CSV with a header line or as JSON lines, here or in a bucket.

    path                 a file; a relative one is taken from the manifest's folder; `box.zip!1901/7.png` is a member
    page                 a page (`7`) or a range of pages (`3-7`), counted from 1; all of them if empty
    document             files of one document stand together in outputs that hold a document
    output               where the results go below `DIR/FORMAT/`, without extension
    size                 bytes of the file
    any other column     becomes metadata

Only the manifest is read. A file that it names and that does not exist is found out when it is to be read.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any, NamedTuple, NoReturn

from ocr_model.errors import BadInput
from pipelines.archives import split_archive, split_member
from pipelines.stems import member_stem, page_suffix, safe_path, safe_stem
from pipelines.streams import is_remote, open_file

MANIFEST_EXTENSIONS = frozenset({".csv", ".tsv", ".jsonl"})

_KNOWN = ("path", "page", "document", "output", "size")
_LONGEST_LINE_BYTES = 2**20
_PAGES = re.compile(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?")
_SIZE = re.compile(r"\s*[0-9]{1,18}\s*")

Metadata = tuple[tuple[str, str], ...]


class Row(NamedTuple):
    """What a row names.

    Attributes:
        path: absolute, or in a bucket; the archive, where a member is named.
        stem: the row's own (`has_own_stem`), or one made from the path as seen from the manifest's folder.
        last_page: None for the last one that there is.
        metadata: the other columns that are not empty, sorted by name.
    """

    path: str
    stem: str
    has_own_stem: bool = False
    member: str = ""
    first_page: int = 1
    last_page: int | None = None
    document: str = ""
    size: int | None = None
    metadata: Metadata = ()


class _Cells(NamedTuple):
    """A row as it is written; `line` is the last one that it takes."""

    line: int
    metadata: Metadata
    path: str
    page: str
    document: str
    output: str
    size: str


def is_manifest(path: str) -> bool:
    """
    >>> is_manifest("gs://archive/1901.CSV"), is_manifest("scan.jpg")
    (True, False)
    """
    return os.path.splitext(path)[1].lower() in MANIFEST_EXTENSIONS


def read_manifest(path: str) -> Iterator[Row]:
    """The rows in their order, one at a time.

    Raises:
        BadInput: it cannot be read, or a row is not what it should be; names the file and the line.
    """
    folder = path.rpartition("/")[0] if is_remote(path) else os.path.dirname(os.path.abspath(path))
    cells = _json_rows(path) if path.lower().endswith(".jsonl") else _csv_rows(path)
    seen: set[object] = set()
    for cell in cells:
        row = _row(cell, folder, path)
        is_whole = not row.member and row.first_page == 1 and row.last_page is None
        key = row.path if is_whole else (row.path, row.member, row.first_page, row.last_page)
        if key in seen:
            _refuse(path, cell.line, f"{cell.path!r} is listed before", "take one of the rows out")
        seen.add(key)
        yield row


def _row(cells: _Cells, folder: str, manifest: str) -> Row:
    if not cells.path:
        _refuse(manifest, cells.line, "the path is empty")
    path, member = split_member(cells.path)
    if not _can_be_named(path):
        _refuse(manifest, cells.line, f"{path!r} cannot be the name of a file")
    full, relative = _located(path, folder)
    pages = _pages(cells.page)
    if pages is None:
        _refuse(manifest, cells.line, f"the page is {cells.page!r}", "write a number from 1 or a range such as 3-7")
    if cells.size and not _SIZE.fullmatch(cells.size):
        _refuse(manifest, cells.line, f"the size is {cells.size!r}", "write the number of bytes")
    stem = safe_path(cells.output) if cells.output else _stem(relative, member, pages)
    if not stem:
        _refuse(manifest, cells.line, f"{cells.output or cells.path!r} names no file")
    return Row(
        sys.intern(full) if member else full,
        stem,
        bool(cells.output),
        member,
        *pages,
        sys.intern(cells.document),
        int(cells.size) if cells.size else None,
        cells.metadata,
    )


def _stem(relative: str, member: str, pages: tuple[int, int | None]) -> str:
    """
    >>> _stem("a/book.pdf", "", (7, 7)), _stem("box.tar.gz", "1/2.png", (1, None))
    ('a/book.page-0007', 'box/1/2')
    """
    stem = member_stem(safe_path(split_archive(relative)[0]), member) if member else safe_stem(relative)
    return stem and stem + page_suffix(*pages)


def _located(path: str, folder: str) -> tuple[str, str]:
    """(path to read, path that the output is named after).

    >>> _located("a/1.png", "/scans"), _located("/scans/a/1.png", "/scans"), _located("/b/1.png", "/scans")
    (('/scans/a/1.png', 'a/1.png'), ('/scans/a/1.png', 'a/1.png'), ('/b/1.png', 'b/1.png'))
    >>> _located("gs://b/x/1.png", "gs://b/x"), _located("gs://c/1.png", "gs://b/x")
    (('gs://b/x/1.png', '1.png'), ('gs://c/1.png', 'c/1.png'))
    """
    if not path.startswith("/") and not is_remote(path):
        path = f"{folder.rstrip('/')}/{path}"
    if "/." in path and "/.." not in path and not is_remote(path):
        path = os.path.normpath(path)
    below = folder.rstrip("/") + "/"
    if path.startswith(below):
        return path, path[len(below) :]
    return path, (path.partition("://")[2] if is_remote(path) else path.lstrip("/"))


def _can_be_named(path: str) -> bool:
    if path.isascii():
        return "\0" not in path
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


@lru_cache(maxsize=2**14)
def _pages(cell: str) -> tuple[int, int | None] | None:
    """(first, last) page; None where that is not what the cell says.

    >>> _pages("7"), _pages("3-7"), _pages(""), _pages("0"), _pages("7-3"), _pages("vii")
    ((7, 7), (3, 7), (1, None), None, None, None)
    """
    if not cell.strip():
        return 1, None
    found = _PAGES.fullmatch(cell)
    if found is None:
        return None
    first, last = int(found[1]), int(found[2] or found[1])
    return (first, last) if 1 <= first <= last else None


def _refuse(manifest: str, line: int, message: str, remedy: str = "correct the manifest") -> NoReturn:
    raise BadInput(f"{manifest}, line {line}: {message}", remedy)


# ---- the two notations


def _lines(path: str) -> Iterator[str]:
    """The lines with their ends, without a byte order mark."""
    try:
        with open_file(path) as stream:
            number = 0
            while line := stream.readline(_LONGEST_LINE_BYTES + 1):
                number += 1
                if len(line) > _LONGEST_LINE_BYTES:
                    _refuse(path, number, f"the line has more than {_LONGEST_LINE_BYTES} bytes")
                yield (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(path, number, f"not UTF-8: {error.reason}", "save the manifest as UTF-8")
    except OSError as error:
        raise BadInput(
            f"cannot read {path}: {error.strerror or error}", "check the path and its permissions"
        ) from error


def _csv_rows(path: str) -> Iterator[_Cells]:
    lines = _lines(path)
    first = next(lines, "")
    delimiter = _delimiter(first, is_tab_first=path.lower().endswith(".tsv"))
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
        _check_columns(path, columns)
        known = [columns.index(name) if name in columns else None for name in _KNOWN]
        others = sorted((name, i) for i, name in enumerate(columns) if name and name not in _KNOWN)
        names = tuple([name for name, _ in others])
        for row in reader:
            if len(row) == len(columns):
                values = [row[i] if i is not None else "" for i in known]
                yield _Cells(reader.line_num, _metadata(names, tuple([row[i] for _, i in others])), *values)
            elif row:
                _refuse(path, reader.line_num, f"{len(row)} columns, but the header has {len(columns)}")
    except csv.Error as error:
        _refuse(path, reader.line_num, str(error))


def _delimiter(header: str, is_tab_first: bool) -> str:
    """The first of comma, semicolon and tab that parts a `path` from the rest of the header.

    >>> _delimiter("path;page,old", False), _delimiter("path", True), _delimiter("a\\tb", False)
    (';', '\\t', '\\t')
    """
    order = "\t,;" if is_tab_first else ",;\t"
    for delimiter in order:
        if "path" in _names(header, delimiter):
            return delimiter
    return max(order, key=header.count)


def _names(header: str, delimiter: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _check_columns(path: str, columns: Sequence[str]) -> None:
    if "path" not in columns:
        found = ", ".join(columns) or "nothing"
        _refuse(path, 1, f"the header has no column `path`, but {found}", "name the columns in the first line")
    named = sorted(name for name in columns if name)
    for one, other in pairwise(named):
        if one == other:
            _refuse(path, 1, f"the header has two columns `{one}`")


def _json_rows(path: str) -> Iterator[_Cells]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        value = _json_object(path, number, line)
        if "path" not in value:
            _refuse(path, number, f"no `path`, but {', '.join(value) or 'nothing'}")
        if not isinstance(value["path"], str):
            _refuse(path, number, f"the path is {value['path']!r}")
        known = [_as_text(value.pop(name, None)) for name in _KNOWN]
        names = tuple(sorted(value))
        values = tuple([_as_text(value[name]) for name in names])
        yield _Cells(number, _metadata(names, values), *known)


def _json_object(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        _refuse(path, number, f"no JSON: {error}", "write one JSON object a line")
    if not isinstance(value, dict):
        _refuse(path, number, f"a {type(value).__name__}, not a JSON object", "write one JSON object a line")
    return value


def _as_text(value: object) -> str:
    """
    >>> _as_text("a"), _as_text(None), _as_text(7), _as_text(True), _as_text(["a", 1])
    ('a', '', '7', 'true', '["a", 1]')
    """
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


# Equal metadata are one object as long as these caches remember them, or a million rows would take a gigabyte.


@lru_cache(maxsize=2**16)
def _metadata(names: tuple[str, ...], values: tuple[str, ...]) -> Metadata:
    """
    >>> _metadata(("language", "split"), ("en", ""))
    (('language', 'en'),)
    """
    return tuple([_pair(name, value) for name, value in zip(names, values, strict=True) if value])


@lru_cache(maxsize=2**16)
def _pair(name: str, value: str) -> tuple[str, str]:
    return sys.intern(name), sys.intern(value)
