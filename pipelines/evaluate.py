"""How good the text is: predictions against truth, page by page, by group, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ocr_model.errors import BadInput
from ocr_model.metrics import Score, Totals, score, total

TRUTH_SUFFIX = ".gt.txt"
TEXT_SUFFIX = ".txt"


@dataclass(frozen=True)
class EvaluateOptions:
    """What to compare.

    Attributes:
        truth: folder with `NAME.gt.txt`, or if there is none of those `NAME.txt`, at any depth.
        predicted: folder with `NAME.txt` in the same places, as `transcribe` leaves it in `DIR/txt`.
        group_by: `folder` (of the page), `top` (first folder of its path) or `none`.
        groups: page name or pattern -> group, before `group_by`.
        ignore_case: patterns of page names or groups whose truth has no reliable case.
        fold_long_s: whether ſ counts as s.
    """

    truth: Path
    predicted: Path
    group_by: str = "folder"
    groups: Mapping[str, str] | None = None
    ignore_case: tuple[str, ...] = ()
    fold_long_s: bool = False


@dataclass(frozen=True)
class PageScore:
    """A page's name (its path below the truth's folder, without suffix), its group and its counts."""

    name: str
    group: str
    score: Score


@dataclass(frozen=True)
class Report:
    """All scores of a comparison.

    Attributes:
        missing: pages with truth and no prediction: counted as read empty.
        extra: predictions without truth: not counted.
    """

    pages: tuple[PageScore, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    def by_group(self) -> dict[str, Totals]:
        names = sorted({page.group for page in self.pages})
        return {name: total(page.score for page in self.pages if page.group == name) for name in names}

    def overall(self) -> Totals:
        return total(page.score for page in self.pages)


def evaluate(options: EvaluateOptions) -> Report:
    """Compares every page that has truth.

    Raises:
        BadInput: a folder is missing, there is no truth, or not one prediction has the name of a page.
    """
    truths = _truths(options.truth)
    predictions = _predictions(options.predicted, truths)
    missing = sorted(truths.keys() - predictions.keys())
    if len(missing) == len(truths):
        raise BadInput(
            f"no file in {options.predicted} belongs to one in {options.truth}: there is no {missing[0]}{TEXT_SUFFIX}",
            "give the folder of the txt files, laid out as the truth is",
        )
    pages = tuple(_page_score(name, truths[name], predictions.get(name), options) for name in sorted(truths))
    return Report(pages, tuple(missing), tuple(sorted(predictions.keys() - truths.keys())))


def _page_score(name: str, truth: Path, prediction: Path | None, options: EvaluateOptions) -> PageScore:
    group = group_of(name, options)
    fold_case = any(fnmatchcase(name, pattern) or fnmatchcase(group, pattern) for pattern in options.ignore_case)
    text = _read(prediction) if prediction else ""
    return PageScore(name, group, score(_read(truth), text, fold_case, options.fold_long_s))


def group_of(name: str, options: EvaluateOptions) -> str:
    """The group of a page, `.` for one that lies in no folder."""
    for pattern, group in (options.groups or {}).items():
        if fnmatchcase(name, pattern):
            return group
    folder = name.rpartition("/")[0]
    parts: dict[str, Callable[[], str]] = {
        "folder": lambda: folder,
        "top": lambda: folder.partition("/")[0],
        "none": lambda: "",
    }
    return parts[options.group_by]() or "."


def _truths(folder: Path) -> dict[str, Path]:
    """Page name -> file of its truth."""
    for suffix in (TRUTH_SUFFIX, TEXT_SUFFIX):
        found = _by_name(folder, suffix)
        if found:
            return found
    raise BadInput(f"no {TRUTH_SUFFIX} or {TEXT_SUFFIX} file in {folder}", "check --truth")


def _predictions(folder: Path, truths: Mapping[str, Path]) -> dict[str, Path]:
    """Page name -> file; `folder` may also be what `transcribe --output` was given."""
    found = {name: path for name, path in _by_name(folder, TEXT_SUFFIX).items() if path.resolve() not in _set(truths)}
    if not found.keys() & truths.keys() and (folder / "txt").is_dir():
        return _by_name(folder / "txt", TEXT_SUFFIX)
    return found


def _set(truths: Mapping[str, Path]) -> set[Path]:
    return {path.resolve() for path in truths.values()}


def _by_name(folder: Path, suffix: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise BadInput(f"no such folder: {folder}", "check the path")
    paths = sorted(folder.rglob(f"*{suffix}"))
    return {path.relative_to(folder).as_posix()[: -len(suffix)]: path for path in paths if path.is_file()}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {error}", "texts are UTF-8") from error


_COLUMNS: tuple[tuple[str, Callable[[Totals], float]], ...] = (
    ("CER", lambda t: t.cer),
    ("macro", lambda t: t.cer_macro),
    ("median", lambda t: t.cer_median),
    ("WER", lambda t: t.wer),
    ("bag of words", lambda t: t.bag_of_words_error),
    ("order-free CER", lambda t: t.order_free_cer),
)


def table(report: Report, worst: int = 5) -> str:
    """Rates in per cent for each group and all, then the worst pages, and the pages without a partner."""
    rows = [*report.by_group().items(), ("all", report.overall())]
    width = max(len(name) for name, _ in rows)
    heads = ["pages", "characters", *(name for name, _ in _COLUMNS)]
    lines = ["  ".join([" " * width, *heads])]
    for name, totals in rows:
        cells = [f"{totals.pages:>5}", f"{totals.characters:>10}"]
        cells += [f"{100 * value(totals):>{len(head)}.2f}" for head, value in _COLUMNS]
        lines.append("  ".join([f"{name:<{width}}", *cells]))
    lines.append("rates in per cent")
    by_rate = sorted(report.pages, key=lambda page: -page.score.order_free_edits / max(1, page.score.characters))
    bad = [page for page in by_rate[:worst] if page.score.order_free_edits]
    if bad:
        lines.append("worst pages (order-free CER):")
        lines += [f"  {100 * p.score.order_free_edits / max(1, p.score.characters):6.2f}  {p.name}" for p in bad]
    lines += _named("no prediction, counted as empty", report.missing)
    lines += _named("no truth, not counted", report.extra)
    return "\n".join(lines)


def _named(what: str, names: Sequence[str], shown: int = 10) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return [f"{what} ({len(names)}): {', '.join(names[:shown])}{more}"]


def report_to_json(report: Report) -> str:
    """The whole report: totals, groups, and the counts of each page."""
    value = {
        "all": asdict(report.overall()),
        "groups": {name: asdict(totals) for name, totals in report.by_group().items()},
        "pages": [{"name": p.name, "group": p.group, "cer": p.score.cer, **asdict(p.score)} for p in report.pages],
        "missing": report.missing,
        "extra": report.extra,
    }
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
