"""The work of a run, cut into units: a fixed list on disk, so that a run that was broken off knows what is left.

A unit is some hundreds of pages whose outputs become valid together (`pipelines.ledger`). The plan depends on the
listing alone: the same corpus gives the same units. Towards its end they get smaller, so that no worker is long at work
when the others are through. Files that come to the corpus later are planned as further units, and the old ones stay as
they are.

    OUTPUT/ledger/corpus.json          what was asked for; the folder belongs to this corpus
    OUTPUT/ledger/plan/0001.jsonl      a unit a line
    OUTPUT/ledger/plan/0001.index      where each unit stands in that file: what travels between workers
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from ocr_model.errors import BadInput
from pipelines.corpus import SourceFile, is_remote, read_source
from pipelines.formats import FORMATS
from pipelines.outputs import AtomicFile, list_files, open_to_read, read_text, write_atomically
from pipelines.stems import safe_path
from pipelines.streams import open_file

PLAN_VERSION = 1
PLAN = "ledger/plan"
CORPUS = "ledger/corpus.json"
_SMALLEST_UNIT, _LARGEST_UNIT = 8, 200  # files
_SMALLEST_BYTES, _LARGEST_BYTES = 2**26, 2**30  # of files, where their sizes are known
_SHARE_OF_REST = 16  # a unit takes so large a part of what is left
_MOST_COPIES = 31  # of one item; their outputs are open at the same time
_DIGESTS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Item:
    """A file to read, and the files with the same bytes that get the same result."""

    source: SourceFile
    copies: tuple[SourceFile, ...] = ()

    @property
    def files(self) -> int:
        return 1 + len(self.copies)


@dataclass(frozen=True, slots=True)
class Unit:
    """Some files whose outputs are committed together; files of one document stand side by side."""

    name: str
    items: tuple[Item, ...]

    @property
    def files(self) -> int:
        return sum(item.files for item in self.items)


@dataclass(frozen=True, slots=True)
class UnitReference:
    """Where a unit is described: small enough to travel between workers by the ten thousands."""

    name: str
    plan: str
    offset: int
    length: int
    files: int
    bytes: int


def documents(sources: Iterable[SourceFile], whole_folders: bool) -> list[SourceFile]:
    """The sources with `document` filled in, files of one document side by side, else in their order.

    Args:
        whole_folders: the files of a folder are one document, named after the folder; a manifest's column goes first.
    """
    sources = list(sources)
    folders = {posixpath.dirname(source.stem) for source in sources} if whole_folders else set()
    named = beside_folders([_with_document(source, folders) for source in sources])
    return sorted(named, key=lambda source: (source.document, source.stem, source.first_page))


def _with_document(source: SourceFile, folders: set[str]) -> SourceFile:
    """Args: folders: those whose files are one document each, if they are."""
    folder = posixpath.dirname(source.stem) if folders else ""
    alone = f"{source.stem}~file" if source.stem in folders else source.stem  # `book.png` beside the folder `book/`
    return replace(source, document=safe_path(source.document) or folder or alone)


def beside_folders(sources: list[SourceFile]) -> list[SourceFile]:
    """The sources, none of whose outputs has the name of a folder that other outputs lie in.

    `a.png` beside a folder `a.txt/` gives `a~file.txt`, since `a.txt` cannot be both.
    """
    extensions = tuple({format.extension for format in FORMATS.values()})
    taken = {
        name for source in sources for path in {source.stem, source.document} for name in _hidden_by(path, extensions)
    }
    return [_renamed(source, taken) for source in sources] if taken else sources


def _hidden_by(path: str, extensions: tuple[str, ...]) -> Iterator[str]:
    """Names that can have no output of their own, as it would have the name of a folder that a path lies in.

    >>> list(_hidden_by("a/b.txt/c", (".txt", ".pdf"))), list(_hidden_by("a/b.txt", (".txt",)))
    (['a/b'], [])
    """
    folder = posixpath.dirname(path)
    if "." not in folder:  # as nearly always, and there may be millions
        return
    parts = folder.split("/")
    for n, part in enumerate(parts, start=1):
        for extension in extensions:
            if part.endswith(extension):
                yield "/".join(parts[:n]).removesuffix(extension)


def _renamed(source: SourceFile, taken: set[str]) -> SourceFile:
    def free(name: str) -> str:
        return f"{name}~file" if name in taken else name

    return replace(source, stem=free(source.stem), document=free(source.document))


def unit_size(left: int) -> int:
    """Files of the next unit when so many are left (guided self-scheduling, Polychronopoulos and Kuck 1987).

    >>> [unit_size(left) for left in (5_000_000, 3000, 1000, 208, 20)]
    [200, 187, 62, 13, 8]
    """
    return min(_LARGEST_UNIT, max(_SMALLEST_UNIT, left // _SHARE_OF_REST))


def unit_count(files: int) -> int:
    """Units of a corpus of so many files, none of which has to go with another, or alone for its bytes.

    >>> unit_count(20), unit_count(1000), unit_count(5_000_000)
    (3, 49, 25051)
    """
    whole = max(0, files - _SHARE_OF_REST * _LARGEST_UNIT) // _LARGEST_UNIT  # of the largest size: there may be many
    units, left = whole, files - whole * _LARGEST_UNIT
    while left > 0:
        units, left = units + 1, left - unit_size(left)
    return units


def plan_units(items: Sequence[Item], max_bytes: int = _LARGEST_BYTES, first: int = 1) -> Iterator[Unit]:
    """Units of the items in their order, falling in size. A document is never cut, so one may be larger than asked.

    Args:
        items: as `documents` sorts their sources.
        max_bytes: of the files of a unit that are read, where their sizes are known.
        first: number of the first unit.
    """
    files_left, bytes_left = sum(item.files for item in items), sum(item.source.size or 0 for item in items)
    unit: list[Item] = []
    files = taken = 0
    for document in _grouped(items):
        more, weight = sum(item.files for item in document), sum(item.source.size or 0 for item in document)
        room = min(max_bytes, max(_SMALLEST_BYTES, bytes_left // _SHARE_OF_REST))
        if unit and (files + more > unit_size(files_left) or taken + weight > room):
            yield _unit(first, unit)
            files_left, bytes_left = files_left - files, bytes_left - taken
            first, unit, files, taken = first + 1, [], 0, 0
        unit += document
        files += more
        taken += weight
    if unit:
        yield _unit(first, unit)


def _grouped(items: Sequence[Item]) -> Iterator[list[Item]]:
    group: list[Item] = []
    for item in items:
        if group and group[-1].source.document != item.source.document:
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _unit(number: int, items: Sequence[Item]) -> Unit:
    digest = hashlib.sha256("\n".join(_identity(item.source) for item in items).encode("utf-8", "backslashreplace"))
    return Unit(f"{number:06d}-{digest.hexdigest()[:8]}", tuple(items))


def _identity(source: SourceFile) -> str:
    """What makes a source the same one in two listings; its stem may change when a namesake comes to the corpus."""
    return f"{source.origin}\0{source.first_page}\0{source.last_page or ''}"


# ---- copies


def with_copies(sources: Sequence[SourceFile], read_limit: int, most_copies: int = _MOST_COPIES) -> list[Item]:
    """Items in the order of the sources; a file with the bytes of an earlier one becomes that one's copy.

    Only files of equal size are read, and only those that are documents of their own: a page that two books share is
    a page of each. Of more equal files than `most_copies` (empty forms) another one is read.
    """
    alone = _alone(sources)
    by_size: dict[int, list[int]] = {}
    for i, source in enumerate(sources):
        if source.size and alone[i]:
            by_size.setdefault(source.size, []).append(i)
    candidates = [i for members in by_size.values() if len(members) > 1 for i in members]  # size by size
    size: int | None = None
    first_of: dict[tuple[bytes, int, int | None], int] = {}
    copies: dict[int, list[SourceFile]] = {}
    is_copy = set()
    for i, digest in zip(candidates, _digests([sources[i] for i in candidates], read_limit), strict=True):
        if digest is None:
            continue
        if sources[i].size != size:
            size = sources[i].size
            first_of.clear()  # nothing else can be equal to these: there may be millions
        key = (digest, sources[i].first_page, sources[i].last_page)
        original = first_of.setdefault(key, i)
        if original == i:
            continue
        if len(copies.setdefault(original, [])) == most_copies:
            first_of[key] = i
            continue
        copies[original].append(sources[i])
        is_copy.add(i)
    return [Item(s, tuple(copies.get(i, ()))) for i, s in enumerate(sources) if i not in is_copy]


def _alone(sources: Sequence[SourceFile]) -> list[bool]:
    """Whether each source is the only one of its document; sources of a document stand side by side."""
    names = [source.document for source in sources]
    return [
        (i == 0 or names[i - 1] != name) and (i + 1 == len(names) or names[i + 1] != name)
        for i, name in enumerate(names)
    ]


def _digests(sources: Sequence[SourceFile], limit: int) -> Iterator[bytes | None]:
    with ThreadPoolExecutor(max_workers=8) as pool:
        for start in range(0, len(sources), _DIGESTS_AT_ONCE):  # `map` makes a task of every one at once
            yield from pool.map(lambda source: _digest(source, limit), sources[start : start + _DIGESTS_AT_ONCE])


def _digest(source: SourceFile, limit: int) -> bytes | None:
    """SHA-256 of a file's bytes; None where it cannot be read, which whoever reads it later will tell."""
    if source.size is not None and source.size > limit:
        return None
    digest = hashlib.sha256()
    try:
        if source.member:
            digest.update(read_source(source, limit))
        else:
            with open_file(source.path) as stream:
                while block := stream.read(2**20):
                    digest.update(block)
    except Exception:  # the same error comes back, as a dead letter, when the file is to be transcribed
        return None
    return digest.digest()


# ---- on disk


def write_plan(output: str, units: Iterable[Unit]) -> int:
    """Adds a plan file with the units and its index; returns their number, 0 where there was none."""
    number = len(plan_files(output)) + 1
    plan = f"{PLAN}/{number:04d}.jsonl"
    file = AtomicFile(output, plan)
    index: list[str] = []
    offset = 0
    try:
        for unit in units:
            line = (json.dumps(_unit_to_json(unit), separators=(",", ":")) + "\n").encode()
            file.write(line)
            size = sum(item.source.size or 0 for item in unit.items)
            index.append(json.dumps([unit.name, offset, len(line), unit.files, size]))
            offset += len(line)
    except BaseException:
        file.discard()
        raise
    if not index:
        file.discard()
        return 0
    file.commit()
    # The index comes last: a plan without one was broken off, and is written anew.
    write_atomically(output, plan.replace(".jsonl", ".index"), "\n".join(index) + "\n")
    return len(index)


def plan_files(output: str) -> list[str]:
    """The complete plan files, relative to the output, in order."""
    found = list_files(output, PLAN)
    return [f"{name[: -len('.index')]}.jsonl" for name in sorted(found) if name.endswith(".index")]


def read_references(output: str) -> Iterator[UnitReference]:
    """All units, from the indexes.

    Raises:
        BadInput: an index is damaged.
    """
    for plan in plan_files(output):
        index = plan.replace(".jsonl", ".index")
        try:
            for line in read_text(output, index).splitlines():
                name, offset, length, files, size = json.loads(line)
                yield UnitReference(name, plan, offset, length, files, size)
        except (ValueError, TypeError) as error:
            raise BadInput(f"{output}/{index} is damaged", _START_ANEW) from error


def read_unit(output: str, reference: UnitReference) -> Unit:
    """The unit that a reference names.

    Raises:
        BadInput: the plan is not what the index says.
    """
    try:
        with open_to_read(output, reference.plan) as stream:
            stream.seek(reference.offset)
            data = stream.read(reference.length)
    except FileNotFoundError as error:
        raise BadInput(f"{output}/{reference.plan} is gone", _START_ANEW) from error
    unit = _sound_unit(output, reference.plan, data, reference.offset)
    if unit.name != reference.name:
        raise BadInput(f"{output}/{reference.plan} holds {unit.name} in the place of {reference.name}", _START_ANEW)
    return unit


def _sound_unit(output: str, plan: str, line: bytes, offset: int) -> Unit:
    try:
        unit = _unit_from_json(json.loads(line))
        is_sound = _unit(int(unit.name.partition("-")[0]), unit.items).name == unit.name
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{output}/{plan} is damaged at byte {offset}", _START_ANEW) from error
    if not is_sound:
        raise BadInput(f"{output}/{plan} is damaged at byte {offset}: other files than {unit.name}", _START_ANEW)
    return unit


_START_ANEW = "take a new --output"


def read_units(output: str) -> Iterator[Unit]:
    """All units of the plan, in order.

    Raises:
        BadInput: the plan is damaged.
    """
    for plan in plan_files(output):
        offset = 0
        with open_to_read(output, plan) as stream:
            for line in stream:
                yield _sound_unit(output, plan, line, offset)
                offset += len(line)


_FIELDS = ("path", "stem", "size", "member", "first_page", "last_page", "document")
_DEFAULTS = SourceFile("", "")


def _source_to_json(source: SourceFile) -> dict[str, Any]:
    value = {name: getattr(source, name) for name in _FIELDS}
    value = {name: part for name, part in value.items() if part != getattr(_DEFAULTS, name) or name in ("path", "stem")}
    if source.metadata:
        value["metadata"] = dict(source.metadata)
    return value


def _source_from_json(value: dict[str, Any]) -> SourceFile:
    metadata = tuple(sorted(value.get("metadata", {}).items()))
    return SourceFile(**{**value, "metadata": metadata})


def _unit_to_json(unit: Unit) -> dict[str, Any]:
    items = [
        _source_to_json(item.source) | ({"copies": [_source_to_json(c) for c in item.copies]} if item.copies else {})
        for item in unit.items
    ]
    return {"unit": unit.name, "items": items}


def _unit_from_json(value: dict[str, Any]) -> Unit:
    items = []
    for item in value["items"]:
        copies = tuple(_source_from_json(copy) for copy in item.pop("copies", ()))
        items.append(Item(_source_from_json(item), copies))
    return Unit(value["unit"], tuple(items))


# ---- the corpus that an output folder belongs to


TRANSCRIBED = "pagemill transcribe"


def corpus_of(inputs: Sequence[str], made_by: str = TRANSCRIBED) -> dict[str, Any]:
    """What is written about the inputs; local ones as absolute paths, so that another folder does not look the same."""
    value: dict[str, Any] = {
        "version": PLAN_VERSION,
        "inputs": [name if is_remote(name) else os.path.abspath(name) for name in inputs],
    }
    return value if made_by == TRANSCRIBED else {**value, "made_by": made_by}


def claim_output(output: str, inputs: Sequence[str], made_by: str = TRANSCRIBED) -> None:
    """Makes the output folder the home of this corpus.

    Args:
        made_by: the job, and the version of what it writes.

    Raises:
        BadInput: it belongs to another corpus or job, or another version of this program.
    """
    mine = corpus_of(inputs, made_by)
    if CORPUS not in list_files(output, os.path.dirname(CORPUS)):
        write_atomically(output, CORPUS, json.dumps(mine, indent=1) + "\n")
        return
    theirs = read_corpus(output)
    if theirs.get("made_by", TRANSCRIBED) != made_by:
        raise BadInput(
            f"{output} was made by {theirs.get('made_by', TRANSCRIBED)}, not by {made_by}", "choose another --output"
        )
    if theirs["inputs"] != mine["inputs"]:
        raise BadInput(
            f"{output} holds the results of {', '.join(theirs['inputs'])}, not of {', '.join(mine['inputs'])}",
            "choose another --output",
        )


def read_corpus(output: str) -> dict[str, Any]:
    """What `claim_output` wrote.

    Raises:
        BadInput: nothing was transcribed to this folder, or by another version of this program.
    """
    try:
        value = json.loads(read_text(output, CORPUS))
        if value["version"] == PLAN_VERSION and not all(isinstance(name, str) for name in value["inputs"]):
            raise TypeError("inputs are no names")
    except OSError as error:
        raise BadInput(f"{output} holds no results of `pagemill transcribe`", "name the --output of a run") from error
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{output}/{CORPUS} is damaged", _START_ANEW) from error
    if value["version"] != PLAN_VERSION:
        raise BadInput(
            f"{output} has ledger version {value['version']}, this program writes {PLAN_VERSION}", _START_ANEW
        )
    return dict(value)


def unplanned(output: str, sources: Sequence[SourceFile]) -> tuple[list[SourceFile], list[str]]:
    """Sources that no plan names yet, and origins of planned files that the listing no longer has.

    New files of a document that is planned already are a document of their own, `book.part-0002`: its outputs stand,
    and are not overwritten.
    """
    if not plan_files(output):
        return list(sources), []
    left = {_key(source) for source in sources}
    vanished = []
    for source in _planned_sources(output):
        key = _key(source)
        if key in left:
            left.remove(key)
        else:
            vanished.append(source.origin)
    new = [source for source in sources if _key(source) in left] if left else []
    return _apart(output, new), sorted(vanished)


def _planned_sources(output: str) -> Iterator[SourceFile]:
    for unit in read_units(output):
        for item in unit.items:
            yield item.source
            yield from item.copies


def _apart(output: str, new: list[SourceFile]) -> list[SourceFile]:
    """The new sources with no document that is planned already."""
    names = {source.document for source in new}
    planned = {source.document for source in _planned_sources(output) if source.document in names} if new else set()
    part = f".part-{len(plan_files(output)) + 1:04d}"
    return [replace(s, document=s.document + part) if s.document in planned else s for s in new]


def _key(source: SourceFile) -> bytes:
    """Stands for the identity in 16 bytes: there may be millions."""
    return hashlib.blake2b(_identity(source).encode("utf-8", "surrogatepass"), digest_size=16).digest()
