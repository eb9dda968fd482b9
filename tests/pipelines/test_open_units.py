import threading
from dataclasses import replace
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given
from hypothesis import strategies as st

from pipelines import ledger
from pipelines.open_units import LocalWorkers, OpenUnits, longest_first, open_units, take_units
from pipelines.plan import UnitReference, read_references
from tests.pipelines.folders import plan, png, put
from tests.pipelines.test_ledger import ENTRY


def reference(name: str, files: int, size: int = 0) -> UnitReference:
    return UnitReference(name, "plan", 0, 0, files, size)


def has_no_entry(entry: ledger.Entry | None) -> bool:
    return entry is None


def folder_of(root: Path, files: int) -> list[UnitReference]:
    """An output folder with a plan."""
    plan(str(root / "out"), put(root, {f"{n:03}.png": png(20, 20) for n in range(files)}))
    return list(read_references(str(root / "out")))


def done(root: Path, unit: str) -> None:
    ledger.commit(str(root / "out"), replace(ENTRY, unit=unit), {})


# The order.


def test_units_with_much_to_read_come_first() -> None:
    many, large, few, small = reference("1", 40, 10), reference("2", 1, 500), reference("3", 8, 8), reference("4", 1, 2)
    assert longest_first([few, small, large, many]) == [large, many, few, small]


def test_units_of_unknown_size_are_ordered_by_their_files() -> None:
    units = [reference("1", 3), reference("2", 9), reference("3", 3)]
    assert [unit.name for unit in longest_first(units)] == ["2", "1", "3"]


def test_one_large_file_among_units_of_many_does_not_come_last() -> None:
    """It would be read when all others are through."""
    units = [*(reference(f"{n}", 8, 8 * 100) for n in range(9)), reference("book", 1, 5000)]
    assert longest_first(units)[0].name == "book"


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 2**30)), max_size=20))
def test_every_unit_stands_in_the_order_once(found: list[tuple[int, int]]) -> None:
    units = [reference(f"{n}", files, size) for n, (files, size) in enumerate(found)]
    assert sorted(longest_first(units), key=lambda unit: int(unit.name)) == units


# Who takes what.


def test_units_with_an_entry_are_not_open(tmp_path: Path) -> None:
    references = folder_of(tmp_path, 20)
    done(tmp_path, references[1].name)
    assert list(open_units(str(tmp_path / "out"), has_no_entry)) == [references[0], references[2]]
    here = LocalWorkers(1, str(tmp_path / "run"))
    assert sorted(u.name for u in take_units(str(tmp_path / "out"), has_no_entry, here)) == [
        references[0].name,
        references[2].name,
    ]


def test_units_whose_entry_is_damaged_are_open(tmp_path: Path) -> None:
    references = folder_of(tmp_path, 20)
    done(tmp_path, references[1].name)
    (tmp_path / "out" / ledger.UNITS / f"{references[1].name}.json").write_text("{")
    assert len(list(open_units(str(tmp_path / "out"), has_no_entry))) == 3
    here = LocalWorkers(1, str(tmp_path / "run"))
    assert len(list(take_units(str(tmp_path / "out"), has_no_entry, here))) == 3


def test_workers_that_take_in_turns_do_every_unit_once(tmp_path: Path) -> None:
    references = folder_of(tmp_path, 40)
    here = LocalWorkers(2, str(tmp_path / "run"))
    one, two = (take_units(str(tmp_path / "out"), has_no_entry, here) for _ in range(2))
    taken = [next(one), next(two), next(two), *one, *two]
    assert sorted(unit.name for unit in taken) == [unit.name for unit in references]
    assert list(take_units(str(tmp_path / "out"), has_no_entry, here)) == []


def test_unit_is_taken_when_the_worker_is_ready_and_not_before(tmp_path: Path) -> None:
    """Or a worker would keep what an idle one could do."""
    references = folder_of(tmp_path, 40)
    here = LocalWorkers(2, str(tmp_path / "run"))
    busy = take_units(str(tmp_path / "out"), has_no_entry, here)
    next(busy)
    assert len(list(take_units(str(tmp_path / "out"), has_no_entry, here))) == len(references) - 1


def test_another_run_takes_what_a_dead_one_had_taken(tmp_path: Path) -> None:
    references = folder_of(tmp_path, 20)
    next(take_units(str(tmp_path / "out"), has_no_entry, LocalWorkers(1, str(tmp_path / "dead"))))
    again = take_units(str(tmp_path / "out"), has_no_entry, LocalWorkers(1, str(tmp_path / "run")))
    assert len(list(again)) == len(references)


def test_of_many_that_want_a_unit_one_gets_it(tmp_path: Path) -> None:
    here = LocalWorkers(8, str(tmp_path))
    got: list[str] = []
    barrier = threading.Barrier(8)

    def take(worker: int) -> None:
        barrier.wait()
        got.extend(f"{unit} {worker}" for unit in range(50) if here.take(f"{unit}"))

    threads = [threading.Thread(target=take, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(name.split()[0]) for name in got) == list(range(50))


# The graph.

_meeting = threading.Barrier(2)
_names: list[str] = []


def _slowly(unit: UnitReference) -> str:
    """The first worker does not end its first unit before the second has done all others."""
    if not _names:
        _names.append(unit.name)
        _meeting.wait(30)
    else:
        _names.append(unit.name)
        if len(_names) == 3:
            _meeting.wait(30)
    return unit.name


def test_idle_worker_does_what_the_runner_would_have_dealt_to_the_busy_one(tmp_path: Path) -> None:
    references = folder_of(tmp_path, 20)
    assert len(references) == 3
    flags = ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]
    options = PipelineOptions(flags, runner="FnApiRunner")
    _names.clear()
    with beam.Pipeline(options=options) as pipeline:
        units = OpenUnits(str(tmp_path / "out"), has_no_entry, LocalWorkers(2, str(tmp_path / "run")))
        _ = pipeline | units | "Do" >> beam.Map(_slowly)
    assert sorted(_names) == [unit.name for unit in references]


@pytest.mark.parametrize("workers", [1, 3])
def test_all_open_units_come_out_of_either_graph(tmp_path: Path, workers: int) -> None:
    references = folder_of(tmp_path, 20)
    done(tmp_path, references[0].name)
    found: dict[str, list[str]] = {}
    for name, here in (("local", LocalWorkers(workers, str(tmp_path / "run"))), ("cluster", None)):
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            units = pipeline | OpenUnits(str(tmp_path / "out"), has_no_entry, here)
            _ = units | beam.Map(lambda unit: unit.name) | beam.Map(_to_file, str(tmp_path / name))
        found[name] = sorted((tmp_path / name).read_text().split())
    assert found["local"] == found["cluster"] == [unit.name for unit in references[1:]]


def _to_file(name: str, path: str) -> None:
    with open(path, "a") as stream:
        stream.write(f"{name}\n")
