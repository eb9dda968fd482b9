"""Inputs as the user names them (files, folders, globs, here or in a bucket) -> the list of files to read."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from ocr_model.errors import BadInput, NothingToDo

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".pdf", ".webp", ".jp2", ".j2k"})

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True, order=True)
class SourceFile:
    """A file to read and where its results go.

    Attributes:
        path: as `read_bytes` takes it.
        stem: the output's path below `DIR/FORMAT/`, without extension: `a/b/scan`. Never leaves that folder.
    """

    path: str
    stem: str


def find_sources(inputs: Sequence[str], output: str) -> list[SourceFile]:
    """All files of the inputs, each once, sorted by stem, no two with one stem.

    In a folder, files are taken by their extension, and hidden ones and the output folder are passed over; a file that
    is named is taken whatever its name. Two files that differ in the extension only keep it: `scan.jpg` and `scan.tif`
    become `scan.jpg.txt` and `scan.tif.txt`.

    Raises:
        BadInput: an input does not exist or lies in the output folder, or two inputs would give one output.
        NothingToDo: there is no image.
    """
    found: dict[str, str] = {}  # path -> relative path of the output, with the file's own extension
    for name in inputs:
        files = _remote_files(name) if is_remote(name) else _local_files(name, output)
        for path, relative in files:
            found.setdefault(path, _safe(relative))
    if not found:
        raise NothingToDo(f"no image in {', '.join(inputs)}", f"looked for {' '.join(sorted(IMAGE_EXTENSIONS))}")
    return sorted((SourceFile(path, stem) for path, stem in _stems(found).items()), key=lambda s: (s.stem, s.path))


def read_bytes(path: str, limit: int) -> bytes:
    """The file's bytes, at most `limit` + 1 of them: enough to see that it is too big.

    Raises:
        OSError: it cannot be read.
    """
    if not is_remote(path):
        with open(path, "rb") as stream:
            return stream.read(limit + 1)
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
        return bytes(stream.read(limit + 1))


def is_remote(path: str) -> bool:
    """Whether the path names a bucket: local paths do not go through Beam, which takes `scan[1].jpg` for a pattern.

    >>> is_remote("gs://archive/scan.jpg"), is_remote("scans/a:b.jpg")
    (True, False)
    """
    return re.match(r"[a-z][a-z0-9+.-]+://", path) is not None


def _has_image_extension(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in IMAGE_EXTENSIONS


def _local_files(name: str, output: str) -> Iterator[tuple[str, str]]:
    """(path, path relative to the input) of a local input."""
    if not is_remote(output) and _is_inside(name, output) and os.path.lexists(name):
        raise BadInput(f"the input {name} lies in the output folder {output}", "choose another --output")
    if os.path.isdir(name):
        for path in _walk(name, output):
            yield path, os.path.relpath(path, name)
    elif os.path.exists(name):
        yield os.path.abspath(name), os.path.basename(name)
    elif _MAGIC.search(name):
        yield from _local_glob(name, output)
    else:
        raise BadInput(f"no such file or folder: {name}", "check the path")


def _walk(folder: str, output: str) -> Iterator[str]:
    """Images below a folder, through links, each real folder once."""
    seen: set[str] = set()
    for here, folders, files in os.walk(os.path.abspath(folder), followlinks=True, onerror=_refuse):
        real = os.path.realpath(here)
        if real in seen or _is_inside(here, output):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for file in sorted(files):
            if _has_image_extension(file) and not file.startswith("."):
                yield os.path.join(here, file)


def _refuse(error: OSError) -> None:
    raise BadInput(f"cannot read the folder {error.filename}: {error.strerror}", "check its permissions")


def _is_inside(path: str, folder: str) -> bool:
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _local_glob(pattern: str, output: str) -> Iterator[tuple[str, str]]:
    matches = [m for m in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(m) and not _is_inside(m, output)]
    if not matches:
        raise BadInput(f"nothing matches {pattern}", "check the pattern")
    root = _fixed_folder(pattern)
    for match in _wanted(pattern, matches):
        yield os.path.abspath(match), os.path.relpath(match, root or os.curdir)


def _remote_files(name: str) -> Iterator[tuple[str, str]]:
    """(path, path relative to the input) of an input in a bucket: an object, a pattern or a folder."""
    try:
        if _MAGIC.search(name):
            matches = _matches(name)
            root = _fixed_folder(name)
            paths = _wanted(name, matches)
        else:
            matches = [] if name.endswith("/") else _matches(name)
            root = name.rsplit("/", 1)[0] if matches else name.rstrip("/")
            paths = matches or [m for m in _matches(f"{name.rstrip('/')}/**") if _has_image_extension(m)]
    except Exception as error:  # each file system has its own classes, and some need a package that is not there
        raise BadInput(f"cannot list {name}: {error}", "check the path and the credentials") from error
    if not matches and not paths:
        raise BadInput(f"no such file or folder: {name}", "check the path")
    for path in paths:
        yield path, path[len(root) :].lstrip("/")


def _matches(pattern: str) -> list[str]:
    return sorted(found.path for found in FileSystems.match([pattern])[0].metadata_list)


def _wanted(pattern: str, matches: Iterable[str]) -> list[str]:
    """A pattern with an extension means all that it matches, one without means images."""
    named = "." in pattern.rsplit("/", 1)[-1]
    return [match for match in matches if named or _has_image_extension(match)]


def _fixed_folder(pattern: str) -> str:
    """The folder before the first wildcard.

    >>> _fixed_folder("scans/19*/page?.jpg"), _fixed_folder("*.jpg")
    ('scans', '')
    """
    return "/".join(re.split(_MAGIC, pattern, maxsplit=1)[0].split("/")[:-1])


def _safe(relative: str) -> str:
    """A relative path that cannot climb: objects in a bucket may be called `..`.

    >>> _safe("a/../../b.jpg")
    'a/%2E%2E/%2E%2E/b.jpg'
    """
    parts = (part for part in relative.replace(os.sep, "/").split("/") if part not in ("", "."))
    return "/".join("%2E%2E" if part == ".." else part for part in parts)


def _stems(found: dict[str, str]) -> dict[str, str]:
    """Path -> stem: the extension goes where the rest is unique."""
    stems = {path: os.path.splitext(relative)[0] for path, relative in found.items()}
    while True:
        count = Counter(stems.values())
        shared = [path for path, stem in stems.items() if count[stem] > 1]
        kept = [path for path in shared if stems[path] != found[path]]
        if not kept:
            break
        stems.update({path: found[path] for path in kept})
    if shared:
        same = [path for path in shared if stems[path] == stems[shared[0]]]
        raise BadInput(
            f"{same[0]} and {same[1]} would both become {stems[same[0]]}", "give their common folder, or run twice"
        )
    return stems
