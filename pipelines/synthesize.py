"""Text and fonts in, records of rendered lines or pages out, at any scale.

    plan shards → spread them over the workers → draw, damage, wear, read → publish the records → write the manifest

A line depends on the seed and its number, a shard on its lines: the same command gives the same bytes with any number
of workers, and after any number of breaks. Graph, run and manifest are those of `pipelines.records_job`; what a worker
does with a shard is `pipelines.synthetic_examples`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ocr_model.bundle import bundle_digest
from ocr_model.errors import BadArgument, BadInput
from ocr_model.examples import KINDS, VERSION
from pipelines.corpus import SourceFile
from pipelines.plan import Item, Unit, plan_units
from pipelines.records_job import plan_job, run_job, run_values, tallies_of
from pipelines.report import Report
from pipelines.routing import bundle_path
from pipelines.synthetic_examples import (
    MISREAD,
    NO_FONT,
    OTHER_FONT,
    WORN,
    SynthesisRun,
    SynthesisSettings,
    SynthesisWorker,
    faces_of,
    texts_of,
)
from pipelines.unit_jobs import Planned
from pipelines.unit_runs import ON_CHANGE, FailureLimit, OnChange, UnitRun
from trainer.synthesis.fonts import KINDS as PRINTS

MADE_BY = f"pagemill synthesize, records of version {VERSION}"
SHARD = {"line": 500, "page": 20}


@dataclass(frozen=True)
class SynthesisOptions:
    """Everything that a synthesis depends on.

    Attributes:
        output: folder for records and books.
        count: lines or pages that are drawn, dropped ones included.
        shard: of them in a file of records.
        settings: what the records depend on.
        max_failures, max_attempts, run: as in `pipelines.ingest.IngestOptions`.
    """

    output: str
    count: int
    shard: int
    settings: SynthesisSettings = field(default_factory=SynthesisSettings)
    on_change: OnChange = "fail"
    max_failures: FailureLimit | None = None
    max_attempts: int = 3
    run: str = ""

    def __post_init__(self) -> None:
        settings = self.settings
        if settings.kind not in KINDS or self.on_change not in ON_CHANGE:
            raise BadArgument(f"kind {settings.kind} or on_change {self.on_change} is unknown")
        if self.count < 1 or self.shard < 1 or self.max_attempts < 1:
            raise BadArgument("numbers of lines or pages, shards and attempts must be positive")
        unknown = sorted(set(settings.kinds) - set(PRINTS))
        if unknown or min(settings.kinds.values(), default=0) < 0 or not sum(settings.kinds.values()):
            raise BadArgument(
                f"shares of print {dict(settings.kinds)} cannot be", f"kinds are {', '.join(PRINTS)}, one above 0"
            )
        for name in ("slanted", "small_caps", "damaged", "worn", "validation_share", "test_share"):
            if not 0 <= getattr(settings, name) <= 1:
                raise BadArgument(f"a share of {getattr(settings, name):g} for {name} is not within 0 and 1")
        if settings.validation_share + settings.test_share > 1:
            raise BadArgument("validation and test are more than all")
        if settings.worn and not settings.wear:
            raise BadArgument("wear is asked for, and none is given", "name one with --wear")
        if settings.style_of and not settings.wear:
            raise BadArgument(f"a style of {settings.style_of}, and no wear that has it", "name one with --wear")
        if settings.kind == "page" and settings.wear:
            raise BadArgument("pages cannot be worn", "synthesize lines, or leave --wear away")
        if settings.max_cer is not None and settings.max_cer < 0:
            raise BadArgument(f"a highest error rate of {settings.max_cer:g} would drop everything")

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(folder for folder in (self.settings.text, self.settings.fonts) if folder)

    def configuration(self) -> dict[str, Any]:
        """All that the records depend on, plain JSON values; folders by what is in them."""
        settings = {**asdict(self.settings), "kinds": dict(sorted(self.settings.kinds.items()))}
        for name in ("text", "fonts", "wear", "reader"):
            del settings[name]
        return {"examples_version": VERSION, "settings": settings, "shard": self.shard}


# ---- what it is made of


@dataclass(frozen=True)
class Ingredients:
    """What was found of text and fonts.

    Attributes:
        digests: of texts, fonts, and of wear and reader where they are used.
        faces, paragraphs: how many there are.
        unreadable: files of either, with the reason.
        unknown: characters of the texts that are outside of the alphabet, with their counts; left_out: paragraphs that
            are not used for them.
    """

    digests: dict[str, str]
    faces: int
    paragraphs: int
    unreadable: dict[str, str]
    unknown: dict[str, int]
    left_out: int

    def as_text(self) -> str:
        """What is amiss, a line each; empty if nothing is."""
        said = [f"cannot be read and is left out: {name} ({why})" for name, why in sorted(self.unreadable.items())]
        if self.unknown:
            shown = " ".join(f"{c!r}×{n}" for c, n in sorted(self.unknown.items(), key=lambda i: (-i[1], i[0]))[:20])
            said.append(
                f"{self.left_out} paragraphs are left out for {len(self.unknown)} characters outside of the alphabet: "
                f"{shown}"
            )
        return "\n".join(said)


def find_ingredients(settings: SynthesisSettings) -> Ingredients:
    """
    Raises:
        BadInput: no text or no font can be used.
        BadModel: the reader is no bundle.
    """
    faces, unreadable = faces_of(settings)
    texts = texts_of(settings)
    digests = {
        "fonts": _digest((face.path.name, face.path.read_bytes()) for face in faces),
        "texts": _digest(("", paragraph.encode()) for paragraph in texts.paragraphs),
    }
    if settings.max_cer is not None:
        digests["reader"] = bundle_digest(bundle_path(settings.reader))
    if settings.wear and settings.worn > 0:
        folder = Path(settings.wear)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            raise BadInput(f"no wear in {folder}", "name the exported folder of `pagemill train wear`")
        style = Path(settings.style_of) if settings.style_of else None
        files += sorted(path for path in style.rglob("*") if path.is_file()) if style and style.is_dir() else []
        digests["wear"] = _digest((path.name, path.read_bytes()) for path in files)
    return Ingredients(
        digests,
        len(faces),
        len(texts.paragraphs),
        {**unreadable, **texts.unreadable},
        dict(texts.unknown),
        texts.left_out,
    )


def _digest(parts: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, data in parts:
        digest.update(f"{name} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


# ---- planning and running


def shards_of(options: SynthesisOptions) -> list[SourceFile]:
    """The shards as sources: from 0, the numbers of their first and last line are the pages that are read of them.

    >>> [(s.document, s.first_page, s.last_page) for s in shards_of(SynthesisOptions("out", 1200, 500))][-1]
    ('synthetic-1/00000002', 1000, 1199)
    """
    found = []
    for number, first in enumerate(range(0, options.count, options.shard)):
        last = min(first + options.shard, options.count) - 1
        name = f"synthetic-{options.settings.seed}/{number:08d}"
        found.append(SourceFile(name, name, last - first + 1, first_page=first, last_page=last, document=name))
    return found


def prepare(options: SynthesisOptions) -> Planned[UnitRun]:
    """Plans the shards that are new, and checks that the folder and the past fit together.

    Raises:
        BadInput: the output folder cannot be used, was written by another job or configuration, or has shards that are
            not asked for any more.
    """
    run = SynthesisRun(settings=options.settings, **run_values(options))
    return plan_job(options, run, MADE_BY, shards_of(options), _units_of, may_vanish=False)


def _units_of(shards: list[SourceFile], first: int) -> Iterable[Unit]:
    """A unit a shard: no two are ever within one "byte", which here is a line."""
    return plan_units([Item(shard) for shard in shards], max_bytes=0, first=first)


def run(options: SynthesisOptions, beam_flags: Sequence[str] = (), started_s: float | None = None) -> Report:
    """Makes what is still open; the manifest is not written yet, see `records_job.run_job`."""
    return run_job(options, MADE_BY, partial(prepare, options), SynthesisWorker, beam_flags, started_s)


def synthesis_text(report: Report, kind: str) -> str:
    """A few lines for a person."""
    tallies, counts = tallies_of(report), report.counts
    what = f"{kind}s"
    said = [f"{counts.read} of {counts.pages} {what} became records, in {counts.files} shards"]
    said.append("records: " + (", ".join(f"{n} {name}" for name, n in sorted(tallies["records"].items())) or "none"))
    if counts.skipped:
        lines = "" if kind == "line" else f", with {tallies['lines'][MISREAD]} lines"
        said.append(f"{counts.skipped} {what} were dropped as the reader could not read them{lines}")
    said += _notes_text(tallies.get("notes", Counter()))
    if counts.dead:
        said.append(f"{counts.dead} shards failed (see {report.output.rstrip('/')}/dead_letters.jsonl)")
    if report.cpu_s and counts.pages:
        said.append(f"{counts.pages / report.cpu_s:.0f} {what} a CPU second")
    return "\n".join(said)


def _notes_text(notes: Counter[str]) -> list[str]:
    """
    >>> _notes_text(Counter({"print/book": 2, "print/modern": 1, "other-font": 1, "no-font-has/ſ": 4}))
    ['print: 2 book, 1 modern', '1 in another font than the first, which lacked a glyph', "no font has: 'ſ'×4"]
    """
    groups: dict[str, Counter[str]] = {}
    for name, count in notes.items():
        group, _, member = name.partition("/")
        groups.setdefault(group, Counter())[member] += count
    lacking, other, worn = (groups.pop(name, Counter()) for name in (NO_FONT, OTHER_FONT, WORN))
    said = [f"{group}: " + ", ".join(f"{n} {m}" for m, n in found.most_common()) for group, found in groups.items()]
    if worn:
        said.append(f"{worn.total()} with wear")
    if other:
        said.append(f"{other.total()} in another font than the first, which lacked a glyph")
    if lacking:
        said.append("no font has: " + " ".join(f"{c!r}×{n}" for c, n in lacking.most_common(20)))
    return said
