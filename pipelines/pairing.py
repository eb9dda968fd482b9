"""The truth of the files of a corpus: found beside the images, paired with them, written into their metadata.

What is found is noted in columns of `SourceFile.metadata`, as if a manifest had told it: `truth` names the file (or
`archive!member`), `no_truth` says why there is none, `no_image` of a file of truth why no image belongs to it.
"""

from __future__ import annotations

import os
import posixpath
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
from apache_beam.io.filesystems import FileSystems

from ocr_model.errors import BadInput, NothingToDo, UnreadablePage
from pipelines.archives import list_members, read_member, split_member
from pipelines.corpus import SourceFile, find_sources
from pipelines.manifest import is_manifest
from pipelines.stems import safe_path
from pipelines.streams import is_remote, read_bytes
from pipelines.truth_files import Unpaired, pair_truth, truth_stem

TRUTH, NO_TRUTH, NO_IMAGE = "truth", "no_truth", "no_image"
MAX_TRUTH_BYTES = 64 * 2**20
_NAMES_AT_ONCE = 8192


def find_pairs(inputs: Sequence[str], output: str) -> list[SourceFile]:
    """The images of the inputs with their truth, and the truths that no image belongs to.

    Truth is looked for in folders that are inputs, in the folders of all images and in their archives; a manifest may
    name it itself in a column `truth`.

    Raises:
        BadInput: as `find_sources`; two manifests with relative paths of truths.
        NothingToDo: there is neither image nor truth.
    """
    truths: set[str] = set()
    for name in inputs:
        if not is_manifest(name):
            truths.update(_truths_below(name, output))
    try:
        sources = find_sources(inputs, output)
    except NothingToDo:
        if not truths:
            raise
        sources = []
    truths.update(_truths_beside(sources, [_root(name) for name in inputs if not is_manifest(name)]))
    sources = _with_located_truth(sources, inputs)
    return paired(sources, sorted(truths))


def read_truth_bytes(path: str) -> bytes:
    """The bytes of a truth, a file or a member of an archive.

    Raises:
        UnreadablePage: `too-many-bytes`, `unreadable-file`, or the archive is damaged.
    """
    archive, member = split_member(path)
    try:
        if member and not (not is_remote(path) and os.path.exists(path)):
            data = read_member(archive, member, MAX_TRUTH_BYTES)
        else:
            data = read_bytes(path, MAX_TRUTH_BYTES)
    except OSError as error:
        raise UnreadablePage(f"cannot read {path}: {error.strerror or error}", "unreadable-file") from error
    if len(data) > MAX_TRUTH_BYTES:
        raise UnreadablePage(f"{path} has over {MAX_TRUTH_BYTES} bytes", "too-many-bytes")
    return data


# ---- pairing


def paired(
    sources: list[SourceFile], truths: Sequence[str], read: Callable[[str], bytes] = read_truth_bytes
) -> list[SourceFile]:
    """The sources with the truth of each, and a source for every truth without an image; the list itself is changed.

    Args:
        truths: paths, `archive!member` in an archive.
        read: the bytes of a truth; only called for XML and HTML.
    """
    named = {value for source in sources for column, value in source.metadata if column == TRUTH}
    free = [truth for truth in truths if truth not in named]
    open_ones = [i for i, source in enumerate(sources) if not dict(source.metadata).get(TRUTH)]
    root = _common_folder(_plain(path) for path in chain((sources[i].origin for i in open_ones), free))
    orphans: list[SourceFile] = []
    for group, of_group in _groups(sources, open_ones, free):
        names = _Names([sources[i].origin for i in group], of_group, root)
        listing = pair_truth([*names.of_images, *names.of_truths], partial(_read_named, read, names))
        found = {names.path(pair.image): (TRUTH, names.path(pair.truth)) for pair in listing.pairs}
        found |= {names.path(alone.path): (NO_TRUTH, alone.reason) for alone in listing.images_without_truth}
        for i in group:
            sources[i] = _with(sources[i], *found.get(sources[i].origin, (NO_TRUTH, "no-truth")))
        orphans += _orphans(listing.truth_without_image, names)
    if orphans:
        taken = {source.stem for source in sources}
        sources += [_with_own_stem(orphan, taken) for orphan in sorted(orphans, key=lambda orphan: orphan.origin)]
    return sources


def _groups(
    sources: Sequence[SourceFile], indices: Sequence[int], truths: Sequence[str]
) -> Iterator[tuple[list[int], list[str]]]:
    """Images (as indices) and truths that may belong together, a few thousand at a time.

    Text and JSON belong to the image with their stem, so that groups can be made of stems; XML may name any image.
    """
    by_name = all(truth.lower().endswith((".gt.txt", ".lines.json")) for truth in truths)
    count = 1 + (len(indices) + len(truths)) // _NAMES_AT_ONCE if by_name else 1
    images = np.array([_bucket(posixpath.splitext(_plain(sources[i].origin))[0], count) for i in indices], np.int64)
    texts = np.array([_bucket(truth_stem(_plain(truth)) or "", count) for truth in truths], np.int64)
    image_order, text_order = np.argsort(images, kind="stable"), np.argsort(texts, kind="stable")
    for bucket in range(count):
        of_images = image_order[slice(*np.searchsorted(images[image_order], [bucket, bucket + 1]))]
        of_texts = text_order[slice(*np.searchsorted(texts[text_order], [bucket, bucket + 1]))]
        yield [indices[i] for i in of_images], [truths[i] for i in of_texts]


def _bucket(name: str, count: int) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % count


def _common_folder(paths: Iterable[str]) -> str:
    """The folder, parted by `/`, that all the names lie in; empty where there is none.

    >>> _common_folder(["a/b/1.png", "a/b/c/2.png"]), _common_folder(["a/1.png", "b"])
    ('a/b', '')
    """
    low, high = "", ""
    for number, path in enumerate(paths):
        folder = posixpath.dirname(path) + "/"
        low, high = (folder, folder) if not number else (min(low, folder), max(high, folder))
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:same].rpartition("/")[0]


class _Names:
    """Names below one root, parted by `/`, for paths on disks, in buckets and in archives."""

    def __init__(self, images: Sequence[str], truths: Sequence[str], root: str) -> None:
        cut = len(root) + 1 if root else 0
        self.of_images = [_plain(path)[cut:] for path in images]
        self.of_truths = [_plain(path)[cut:] for path in truths]
        self._paths = dict(zip([*self.of_images, *self.of_truths], [*images, *truths], strict=True))

    def path(self, name: str) -> str:
        return self._paths[name]


def _read_named(read: Callable[[str], bytes], names: _Names, name: str) -> bytes:
    return read(names.path(name))


def _plain(path: str) -> str:
    """
    >>> _plain("/scans/box.zip!a/1.png"), _plain("gs://bucket/1.png")
    ('scans/box.zip!/a/1.png', 'bucket/1.png')
    """
    archive, member = split_member(path)
    name = f"{archive}!/{member.replace(chr(92), '/').lstrip('/')}" if member else path
    return (name.partition("://")[2] if is_remote(name) else name).lstrip("/")


def _orphans(left: Iterable[Unpaired], names: _Names) -> Iterator[SourceFile]:
    for alone in left:
        path = names.path(alone.path)
        archive, member = split_member(path)
        file = SourceFile(path=archive if member else path, stem=safe_path(alone.path) or "truth", member=member)
        yield _with(file, NO_IMAGE, alone.reason)


def _with(source: SourceFile, column: str, value: str) -> SourceFile:
    metadata = {name: text for name, text in source.metadata if name not in (TRUTH, NO_TRUTH, NO_IMAGE)}
    return replace(source, metadata=tuple(sorted({**metadata, column: value}.items())))


def _with_own_stem(source: SourceFile, taken: set[str]) -> SourceFile:
    stem = source.stem
    number = 1
    while stem in taken:
        number += 1
        stem = f"{source.stem}~{number}"
    taken.add(stem)
    return replace(source, stem=stem)


def _with_located_truth(sources: Sequence[SourceFile], inputs: Sequence[str]) -> list[SourceFile]:
    """The sources, with truths that a manifest names relative to itself as whole paths."""
    folders = sorted({_folder(name) for name in inputs if is_manifest(name)})
    located = []
    for source in sources:
        truth = dict(source.metadata).get(TRUTH, "")
        if truth and not truth.startswith("/") and not is_remote(truth):
            if len(folders) != 1:
                raise BadInput(
                    f"{source.origin}: its truth {truth} is relative to one of several manifests", "write whole paths"
                )
            truth = f"{folders[0].rstrip('/')}/{truth}"
        located.append(_with(source, TRUTH, truth) if truth else source)
    return located


def _folder(path: str) -> str:
    return path.rpartition("/")[0] if is_remote(path) else os.path.dirname(os.path.abspath(path))


# ---- listing


def _is_truth(path: str) -> bool:
    return truth_stem(path) is not None and not re.search(r"(?:^|/)(?:\.[^/]*|__MACOSX)(?:/|$)", path)


def _truths_below(name: str, output: str) -> Iterator[str]:
    """Truths in a folder that is an input, and in all that lies below it."""
    if is_remote(name):
        if not re.search(r"[*?\[]", name):
            root = name.rstrip("/")
            yield from (
                path for path in _listed(f"{root}/**") if _is_truth(path[len(root) :]) and not _below(path, output)
            )
    elif os.path.isdir(name):
        for here, folders, files in os.walk(os.path.abspath(name)):
            folders[:] = sorted(f for f in folders if not f.startswith(".") and not _is_output(f"{here}/{f}", output))
            yield from (f"{here.rstrip('/')}/{file}" for file in files if _is_truth(file))


def _is_output(folder: str, output: str) -> bool:
    return not is_remote(output) and os.path.realpath(folder) == os.path.realpath(output)


def _below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _root(name: str) -> str:
    return name.rstrip("/") if is_remote(name) else os.path.abspath(name)


def _truths_beside(sources: Iterable[SourceFile], roots: Sequence[str]) -> Iterator[str]:
    """Truths in the folders and archives of the sources; what lies below the roots has been found before."""
    archives, folders = set(), set()
    for source in sources:
        if source.member:
            archives.add(source.path)
        else:
            folders.add(source.path.rpartition("/")[0])
    for archive in sorted(archives):
        try:
            members = list_members(archive)[0]
        except (UnreadablePage, OSError):  # its images tell, when they are read
            continue
        yield from (f"{archive}!{member.name}" for member in members if _is_truth(member.name.replace("\\", "/")))
    for folder in sorted(folders):
        if any(f"{folder}/".startswith(f"{root}/") for root in roots):
            continue
        yield from (path for path in _in_folder(folder) if _is_truth(path[len(folder) + 1 :]))


def _in_folder(folder: str) -> Iterator[str]:
    if is_remote(folder):
        yield from _listed(f"{folder}/*")
        return
    try:
        with os.scandir(folder or "/") as entries:
            yield from sorted(f"{folder}/{entry.name}" for entry in entries)
    except OSError:  # its images tell, when they are read
        return


def _listed(pattern: str) -> list[str]:
    """Paths that match, none where the bucket cannot be listed: `find_sources` says so in its own words."""
    try:
        return sorted(file.path for file in FileSystems.match([pattern])[0].metadata_list)
    except Exception:  # each file system has classes of its own; see above
        return []


def name_of(source: SourceFile) -> str:
    """What the records call a source: where it lies below its input, whatever machine it lies on.

    >>> name_of(SourceFile("/scans/a/1.jpg", "a/1")), name_of(SourceFile("gs://b/box.zip", "box/7", member="7.tif"))
    ('a/1.jpg', 'box/7.tif')
    """
    extension = os.path.splitext(source.member or source.path)[1]
    return source.stem if source.stem.endswith(extension) else source.stem + extension
