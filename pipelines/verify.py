"""Every output file against the ledger: whether it is there, as long as it was, and the same bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipelines import ledger
from pipelines.ledger import Entry
from pipelines.outputs import OutputFile, sha256_of
from pipelines.report import reconcile

_TOLD = 20


@dataclass(frozen=True)
class Verified:
    """What a check found; `problems` are (unit, what is wrong)."""

    files: int
    bytes: int
    units: int
    problems: tuple[tuple[str, str], ...]
    reopened: int = 0

    def text(self) -> str:
        """A few lines for a person."""
        said = [f"{what}" for _, what in self.problems[:_TOLD]]
        if len(self.problems) > _TOLD:
            said.append(f"and {len(self.problems) - _TOLD} more")
        verdict = "all as the ledger says" if not self.problems else f"{len(self.problems)} problems"
        said.append(f"{self.files} files ({self.bytes} bytes) of {self.units} units: {verdict}")
        if self.reopened:
            said.append(f"{self.reopened} units will be done again by the next run")
        return "\n".join(said)


def verify_output(output: str, reopen: bool = False) -> Verified:
    """Reads every file that the ledger knows.

    Args:
        reopen: take away the entries of units with a problem, so that the next run does them again.

    Raises:
        BadInput: this is no output folder.
    """
    report = reconcile(output)
    problems = [(name, f"the ledger entry of {name} is damaged") for name in report.damaged]
    problems += [(name, f"the pages of {name} do not add up") for name in report.unbalanced]
    files = size = 0
    for entry in report.entries.values():
        found, listed = _check_unit(output, entry)
        problems += [(entry.unit, what) for what in found]
        files += len(listed)
        size += sum(file.size for file in listed)
    damaged = {unit for unit, _ in problems}
    if reopen:
        for unit in damaged:
            ledger.reopen(output, unit)
    return Verified(files, size, len(report.entries), tuple(problems), len(damaged) if reopen else 0)


def _check_unit(output: str, entry: Entry) -> tuple[list[str], list[OutputFile]]:
    """What is wrong with a unit's files, and the files that it should have."""
    problems = []
    listed: list[OutputFile] = []
    for read in (ledger.file_counts, ledger.dead_letters, ledger.doubtful_pages):
        try:
            read(output, entry)
        except (OSError, ledger.DamagedEntry) as error:
            problems.append(f"{entry.unit}: {error}")
    try:
        listed = ledger.output_files(output, entry)
    except (OSError, ledger.DamagedEntry) as error:
        problems.append(f"{entry.unit}: {error}")
    with ThreadPoolExecutor(max_workers=4) as pool:
        problems += [problem for problem in pool.map(lambda file: _check_file(output, file), listed) if problem]
    return problems, listed


def _check_file(output: str, file: OutputFile) -> str | None:
    try:
        found = sha256_of(output, file.path)
    except OSError as error:
        return f"{file.path}: {error.strerror or error}"
    if found.size != file.size:
        return f"{file.path}: {found.size} bytes, the ledger has {file.size}"
    return None if found.sha256 == file.sha256 else f"{file.path}: other bytes than the ledger has"
