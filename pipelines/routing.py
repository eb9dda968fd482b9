"""Which model reads which file, and the readers that a process has loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocr_model.bundle import DEFAULT_BUNDLE, bundle_digest
from ocr_model.document import Page
from ocr_model.errors import BadModel
from pipelines.corpus import SourceFile
from pipelines.read_pages import PageReader, seconds_of

ReaderFactory = Callable[[str | None], PageReader]
Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Routing:
    """Which bundle reads which file. None stands for the bundle in the package.

    Attributes:
        bundle: of everything else.
        rules: (column of the manifest, value, bundle); the first that fits is taken. A column `bundle` goes first.
        second: reads again what the first read with less confidence than `second_below`; the better reading stays.
    """

    bundle: str | None = None
    rules: tuple[tuple[str, str, str], ...] = ()
    second: str | None = None
    second_below: float = 0.85

    def bundle_of(self, source: SourceFile) -> str | None:
        columns = dict(source.metadata)
        if columns.get("bundle"):
            return columns["bundle"]
        for column, value, bundle in self.rules:
            if columns.get(column) == value:
                return bundle
        return self.bundle

    def bundles(self, sources: Iterable[SourceFile] = ()) -> list[str | None]:
        """All bundles that a corpus needs, each once."""
        named = {self.bundle, *(rule[2] for rule in self.rules), *({self.second} if self.second else ())}
        named |= {self.bundle_of(source) for source in sources}
        return sorted(named, key=str)


def bundle_path(bundle: str | None) -> Path:
    return DEFAULT_BUNDLE if bundle is None else Path(bundle)


class Readers:
    """The readers of a process, each loaded at its first use.

    Args:
        digests: what each bundle was when the run was planned.

    Raises:
        BadModel: a bundle has changed since.
    """

    def __init__(self, load: ReaderFactory, digests: Mapping[str | None, str]) -> None:
        self._load, self._digests = load, digests
        self._loaded: dict[str | None, PageReader] = {}

    def get(self, bundle: str | None) -> PageReader:
        if bundle not in self._loaded:
            self._loaded[bundle] = load_unchanged(self._load, bundle, self._digests.get(bundle, ""))
        return self._loaded[bundle]

    # The same through a proxy, for readers that several processes of a worker share: plain values in and out.

    def read(self, bundle: str | None, images: Sequence[Grey]) -> list[Page]:
        return self.get(bundle).read(images)

    def read_single_lines(self, bundle: str | None, images: Sequence[Grey]) -> list[Page]:
        return self.get(bundle).read_single_lines(images)

    def seconds(self, bundle: str | None) -> Mapping[str, float]:
        return dict(seconds_of(self.get(bundle)))


def load_unchanged(load: ReaderFactory, bundle: str | None, digest: str) -> PageReader:
    """A reader, if its bundle still is what it was when the run was planned.

    Raises:
        BadModel: it is not.
    """
    reader = load(bundle)
    if digest and bundle_digest(bundle_path(bundle)) != digest:
        raise BadModel(f"{bundle_path(bundle)} has changed since the run began", "run again")
    return reader


class ReaderOfBundle:
    """One reader of a `Readers`, which may be a proxy."""

    def __init__(self, readers: Readers, bundle: str | None) -> None:
        self._readers, self._bundle = readers, bundle

    def read(self, images: Sequence[Grey]) -> list[Page]:
        return self._readers.read(self._bundle, images)

    def read_single_lines(self, images: Sequence[Grey]) -> list[Page]:
        return self._readers.read_single_lines(self._bundle, images)

    @property
    def seconds(self) -> Mapping[str, float]:
        return self._readers.seconds(self._bundle)


class SecondOpinion:
    """Pages that the first reader doubts are read by a second one as well; the more confident reading stays."""

    def __init__(self, first: PageReader, second: PageReader, below: float) -> None:
        self._first, self._second, self._below = first, second, below

    def read(self, images: Sequence[Grey]) -> list[Page]:
        return self._better(images, self._first.read(images), self._second.read)

    def read_single_lines(self, images: Sequence[Grey]) -> list[Page]:
        return self._better(images, self._first.read_single_lines(images), self._second.read_single_lines)

    @property
    def seconds(self) -> Mapping[str, float]:
        return seconds_of(self._first)

    def _better(
        self, images: Sequence[Grey], pages: list[Page], again: Callable[[Sequence[Grey]], list[Page]]
    ) -> list[Page]:
        doubtful = [i for i, page in enumerate(pages) if page.confidence < self._below]
        if doubtful:
            for i, page in zip(doubtful, again([images[i] for i in doubtful]), strict=True):
                if page.confidence > pages[i].confidence:
                    pages[i] = page
        return pages
