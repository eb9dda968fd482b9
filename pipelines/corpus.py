"""Inputs as the user names them (files, folders, globs, archives, manifests, also in buckets) -> the files to read."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ocr_model.errors import BadInput, NothingToDo, UnreadablePage
from pipelines.archives import ARCHIVE_EXTENSIONS, Member, list_members, read_member, split_archive
from pipelines.manifest import is_manifest, read_manifest
from pipelines.stems import member_stem, page_suffix, safe_path, safe_stem, short_digest
from pipelines.streams import is_remote, matching_files, read_bytes

__all__ = ["IMAGE_EXTENSIONS", "SourceFile", "find_sources", "is_remote", "read_bytes", "read_source"]

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".pdf", ".webp", ".jp2", ".j2k"})

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True, order=True)
class SourceFile:
    """A file to read, or some pages of it, and where the results go.

    Attributes:
        path: as `read_bytes` takes it; of a member of an archive, the archive's.
        stem: the output's path below `DIR/FORMAT/`, without extension: `a/b/scan`. Never leaves that folder.
        size: bytes, where the listing tells without opening the file.
        member: name in the tar or zip, "" for the file itself.
        first_page, last_page: what to read of it, from 1; `last_page` None for all that there are.
        document: what belongs together in outputs that hold a document, "" for the file itself.
        metadata: the other columns of the manifest, sorted by name.
    """

    path: str
    stem: str
    size: int | None = None
    member: str = ""
    first_page: int = 1
    last_page: int | None = None
    document: str = ""
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def origin(self) -> str:
        """What messages and records call it.

        >>> SourceFile("boxes/7.zip", "7/1", member="1.png").origin
        'boxes/7.zip!1.png'
        """
        return f"{self.path}!{self.member}" if self.member else self.path


def find_sources(inputs: Sequence[str], output: str) -> list[SourceFile]:
    """All files of the inputs, each once, sorted by stem, no two with one stem.

    In a folder, files are taken by their extension, and hidden ones and the output folder are passed over; a file that
    is named is taken whatever its name. Two files that differ in the extension only keep it: `scan.jpg` and `scan.tif`
    become `scan.jpg.txt` and `scan.tif.txt`. Pages that a manifest names are sources of their own:
    `book.page-0007`, `book.pages-0003-0012`. What comes from two inputs is taken as the first of them has it.

    The images of a tar or zip are sources below its name: `box/1901/7` for `1901/7.png` in `box.zip`. An archive that
    is damaged is an error where it is named; in a folder, what can be found in it is listed, and with it the archive
    itself, as if it were a scan, which cannot be read: so it ends among the dead letters and is not lost. Archives in
    archives, links and hidden members are passed over.

    Raises:
        BadInput: an input does not exist, is damaged or lies in the output folder, or two inputs would give one output.
        NothingToDo: there is no image.
    """
    sources: list[SourceFile] = []
    fixed = bytearray()  # by source: whether its stem was given and must not be changed
    seen: set[object] = set()
    for name in inputs:
        for source, has_own_stem in _sources(name, output):
            key = _identity(source)
            if key not in seen:
                seen.add(key)
                sources.append(source)
                fixed.append(has_own_stem)
    if not sources:
        wanted = " ".join([*sorted(IMAGE_EXTENSIONS), *ARCHIVE_EXTENSIONS])
        raise NothingToDo(f"no image in {', '.join(inputs)}", f"looked for {wanted}")
    seen.clear()  # a hundred bytes a file, and the next step takes as much
    _tell_apart(sources, fixed)
    sources.sort(key=lambda source: source.stem)
    return sources


def read_source(source: SourceFile, limit: int) -> bytes:
    """The bytes of the file or the member, at most `limit` + 1 of them: enough to see that it is too big.

    Raises:
        UnreadablePage: the archive or the member in it is damaged, encrypted or packed in an unknown way.
        OSError: it cannot be read.
    """
    if source.member:
        return read_member(source.path, source.member, limit)
    return read_bytes(source.path, limit)


def _identity(source: SourceFile) -> object:
    """What makes two sources the same; the path alone for most, which takes no memory."""
    is_whole = not source.member and source.first_page == 1 and source.last_page is None
    return source.path if is_whole else (source.path, source.member, source.first_page, source.last_page)


# ---- one input


class _File(NamedTuple):
    """A file of an input.

    Attributes:
        relative: path as seen from the input.
        is_named: it is itself the input.
    """

    path: str
    relative: str
    size: int | None
    is_named: bool = False


def _sources(name: str, output: str) -> Iterator[tuple[SourceFile, bool]]:
    """(source, whether its stem is to stay) of an input."""
    for file in _remote_files(name, output) if is_remote(name) else _local_files(name, output):
        if is_manifest(file.path):
            yield from _rows(file.path)
        elif split_archive(file.path)[1]:
            for source in _members(file):
                yield source, False
        else:
            yield SourceFile(file.path, safe_stem(file.relative), file.size), False


def _rows(manifest: str) -> Iterator[tuple[SourceFile, bool]]:
    for row in read_manifest(manifest):
        source = SourceFile(
            row.path, row.stem, row.size, row.member, row.first_page, row.last_page, row.document, row.metadata
        )
        yield source, row.has_own_stem


def _members(file: _File) -> Iterator[SourceFile]:
    """The images in an archive, and the archive itself if it is damaged and was not named."""
    stem = safe_path(split_archive(file.relative)[0])
    damage: UnreadablePage | OSError | None
    try:
        members, damage = list_members(file.path)
    except (UnreadablePage, OSError) as error:
        members, damage = [], error
    if damage is not None:
        if file.is_named or (is_remote(file.path) and isinstance(damage, OSError)):  # not the archive but the way to it
            raise BadInput(f"cannot read {file.path}: {damage}", "mend the archive or unpack it") from damage
        yield SourceFile(file.path, stem, file.size)
    for member in _images(members):
        yield SourceFile(file.path, member_stem(stem, member.name), member.size, member.name)


def _images(members: Iterable[Member]) -> Iterator[Member]:
    """Those that are scans by their names; of two that would be unpacked to the same place, the last one."""
    by_place: dict[str, Member] = {}
    for member in members:
        parts = [part for part in member.name.replace("\\", "/").split("/") if part not in ("", ".")]
        if not _is_hidden(parts) and _has_image_extension(member.name):
            by_place["/".join(parts)] = member
    yield from by_place.values()


def _is_hidden(parts: Iterable[str]) -> bool:
    """
    >>> _is_hidden(["a", "._1.png"]), _is_hidden(["__MACOSX", "1.png"]), _is_hidden(["..", "1.png"])
    (True, True, False)
    """
    return any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in parts)


def _has_image_extension(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in IMAGE_EXTENSIONS


def _is_scan(path: str) -> bool:
    """Whether a folder's file is wanted."""
    return _has_image_extension(path) or split_archive(path)[1] != ""


def _local_files(name: str, output: str) -> Iterator[_File]:
    if not is_remote(output) and _is_inside(name, output) and os.path.lexists(name):
        raise BadInput(f"the input {name} lies in the output folder {output}", "choose another --output")
    if os.path.isdir(name):
        yield from _walk(name, output)
    elif os.path.exists(name):
        yield _File(os.path.abspath(name), os.path.basename(name), os.stat(name).st_size, is_named=True)
    elif _MAGIC.search(name):
        yield from _local_glob(name, output)
    else:
        raise BadInput(f"no such file or folder: {name}", "check the path")


def _walk(folder: str, output: str) -> Iterator[_File]:
    """Scans below a folder, through links, each real folder once."""
    root = os.path.abspath(folder).rstrip("/") + "/"
    real_output = None if is_remote(output) else os.path.realpath(output)
    seen: set[str] = set()
    waiting = [root]
    while waiting:
        here = waiting.pop()
        real = os.path.realpath(here)
        if real in seen or (real_output is not None and _is_below(real, real_output)):
            continue
        seen.add(real)
        folders, files = _scan(here)
        for name, size in files:
            yield _File(here + name, (here + name)[len(root) :], size)
        waiting += [f"{here}{name}/" for name in reversed(folders)]


def _scan(folder: str) -> tuple[list[str], list[tuple[str, int | None]]]:
    """(names of folders, names and sizes of scans) in a folder, sorted, without the hidden ones."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    folders.append(entry.name)
                elif _is_scan(entry.name):
                    files.append((entry.name, _size(entry)))
    except OSError as error:
        raise BadInput(f"cannot read the folder {folder}: {error.strerror}", "check its permissions") from error
    return sorted(folders), sorted(files)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _size(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat().st_size
    except OSError:  # a link to nothing, or deleted this moment: whoever reads it will say so
        return None


def _is_inside(path: str, folder: str) -> bool:
    return _is_below(os.path.realpath(path), os.path.realpath(folder))


def _is_below(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _local_glob(pattern: str, output: str) -> Iterator[_File]:
    matches = sorted({m for m in glob.glob(pattern, recursive=True) if os.path.isfile(m)})
    if not is_remote(output):
        matches = [m for m in matches if not _is_inside(m, output)]
    if not matches:
        raise BadInput(f"nothing matches {pattern}", "check the pattern")
    root = _fixed_folder(pattern)
    for match in matches:
        if _is_wanted(pattern, match):
            yield _File(os.path.abspath(match), os.path.relpath(match, root or os.curdir), os.path.getsize(match))


def _remote_files(name: str, output: str) -> Iterator[_File]:
    """Files of an input in a bucket: an object, a pattern or a folder."""
    results = output.rstrip("/") + "/"
    if f"{name}/".startswith(results):
        raise BadInput(f"the input {name} lies in the output folder {output}", "choose another --output")
    if name.count("/") == 2:  # a bucket
        name += "/"
    is_pattern = _MAGIC.search(name) is not None
    found = [] if name.endswith("/") else matching_files(name)
    is_named = bool(found) and not is_pattern
    if found or is_pattern:
        root = _fixed_folder(name) if is_pattern else name.rpartition("/")[0]
        files = [file for file in found if is_named or _is_wanted(name, file[0])]
    else:
        root = name.rstrip("/")
        found = matching_files(f"{root}/**")
        files = [file for file in found if _is_scan(file[0]) and not _is_hidden(file[0][len(root) :].split("/"))]
    if not found:
        raise BadInput(f"no such file or folder: {name}", "check the path")
    for path, size in files:
        if not path.startswith(results):
            yield _File(path, path[len(root) :].lstrip("/"), size, is_named)


def _is_wanted(pattern: str, match: str) -> bool:
    """A pattern with an extension means all that it matches, one without means scans."""
    return "." in pattern.rpartition("/")[2] or _is_scan(match)


def _fixed_folder(pattern: str) -> str:
    """The folder before the first wildcard.

    >>> _fixed_folder("scans/19*/page?.jpg"), _fixed_folder("*.jpg")
    ('scans', '')
    """
    return "/".join(re.split(_MAGIC, pattern, maxsplit=1)[0].split("/")[:-1])


# ---- one output for each source


def _tell_apart(sources: list[SourceFile], fixed: Sequence[int]) -> None:
    """Gives sources that share a stem longer ones, in place, until no two share one.

    Args:
        fixed: by source, whether its stem must stay.

    Raises:
        BadInput: that cannot be done.
    """
    count = Counter(source.stem for source in sources)
    lengthened: Counter[int] = Counter()  # by source: how often
    while shared := [i for i, source in enumerate(sources) if count[source.stem] > 1]:
        longer = {}
        for i in shared:
            stem = None if fixed[i] else _longer_stem(sources[i], lengthened[i])
            if stem is not None:
                longer[i] = stem
        if not longer:
            _refuse_twins([sources[i] for i in shared])
        count.subtract(sources[i].stem for i in longer)
        count.update(longer.values())
        for i, stem in longer.items():
            sources[i] = replace(sources[i], stem=stem)
            lengthened[i] += 1


def _longer_stem(source: SourceFile, times: int) -> str | None:
    """The stem that tells more than the source's own, which was lengthened `times` times; None if there is no more.

    A file's extension comes first. A member's archive can also keep its own, and at last there is a digest of the name.

    >>> box = SourceFile("x/box.zip", "x/box/1", member="1.png")
    >>> _longer_stem(box, 0), _longer_stem(replace(box, stem="x/box/1.png"), 1)
    ('x/box/1.png', 'x/box.zip/1.png')
    >>> book = SourceFile("book.pdf", "book.page-0007", first_page=7, last_page=7)
    >>> _longer_stem(book, 0), _longer_stem(book, 1)
    ('book.pdf.page-0007', None)
    """
    pages = page_suffix(source.first_page, source.last_page)
    stem = source.stem.removesuffix(pages)
    if times == 0:
        extension = _extension(source)
        if extension or source.member:
            return safe_path(stem + extension) + pages
    if source.member and times == 1:
        below = safe_path(member_stem("", source.member) + _extension(source))
        archive = stem.removesuffix(f"/{below}") + split_archive(source.path)[1]
        return f"{safe_path(archive)}/{below}{pages}"
    if source.member and times == 2:
        return f"{stem}~{short_digest(source.member)}{pages}"
    return None


def _extension(source: SourceFile) -> str:
    if not source.member and (of_archive := split_archive(source.path)[1]):
        return of_archive
    return os.path.splitext((source.member or source.path).replace("\\", "/"))[1]


def _refuse_twins(shared: Sequence[SourceFile]) -> None:
    one, other = [source for source in shared if source.stem == shared[0].stem][:2]
    raise BadInput(
        f"{one.origin} and {other.origin} would both become {one.stem}",
        "give their common folder, other names in the manifest's column `output`, or run twice",
    )
