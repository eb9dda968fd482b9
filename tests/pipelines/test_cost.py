from dataclasses import replace
from pathlib import Path

import pytest

from ocr_model.errors import BadInput
from pipelines.cost import BUSY, SHUFFLED_BYTES_PER_UNIT, Cost, Machine, cost_of_run, duration, load_machine
from pipelines.ledger import Counts
from tests.pipelines.test_report import entry, report_of

MACHINE = Machine(
    "m",
    vcpus=4,
    memory_gb=8,
    vcpu_hour=0.05,
    memory_gb_hour=0.01,
    shuffle_gb=2,
    storage_gb_month=0.5,
    relative_speed=2,
    dated="2025",
)
COST = Cost(MACHINE, pages=10_000, cpu_s=36_000, output_bytes=3e9, units=5_000_000)

GOOD = """
dated: 2025-06
currency: EUR
machines:
  - {name: a, vcpus: 4, memory_gb: 8, vcpu_hour: 0.05, memory_gb_hour: 0.01,
     shuffle_gb: 0, storage_gb_month: 0.02, relative_speed: 1.5}
  - {name: 7, vcpus: 1, memory_gb: 1, vcpu_hour: 0, memory_gb_hour: 0,
     shuffle_gb: 0, storage_gb_month: 0, relative_speed: 1}
"""


def prices(folder: Path, text: str) -> str:
    (folder / "prices.yaml").write_text(text)
    return str(folder / "prices.yaml")


def test_hours_are_cpu_seconds_by_speed_and_idling() -> None:
    assert COST.vcpu_hours == pytest.approx(10 / 2 / BUSY)
    assert COST.wall_s(10) == pytest.approx(36_000 / 2 / BUSY / 10)


def test_price_is_that_of_hours_memory_shuffle_and_storage() -> None:
    hours = (10 / 2 / 0.9) * (0.05 + 8 / 4 * 0.01)
    shuffle = 5_000_000 * SHUFFLED_BYTES_PER_UNIT / 1e9 * 2
    assert COST.price == pytest.approx(hours + shuffle + 3 * 0.5)
    assert COST.price_per_million == pytest.approx(100 * COST.price)
    assert f"{COST.price:.2f} USD on m" in COST.text()


def test_no_pages_cost_nothing() -> None:
    nothing = Cost(MACHINE, 0, 0.0, 0.0, 0)
    assert (nothing.price, nothing.price_per_million, nothing.wall_s(3)) == (0, 0, 0)


def test_bill_of_a_run_is_by_the_same_formula() -> None:
    counts = Counts(files=1, pages=4, read=4, bytes_out=10**9)
    report = report_of({"u1": 1, "u2": 1}, entry("u1", counts, cpu_s=100.0), entry("u2", counts, cpu_s=20.0))
    assert cost_of_run(report, MACHINE) == Cost(MACHINE, 8, 120.0, 2 * 10**9, 2)


def test_faster_machines_take_fewer_hours() -> None:
    twice = replace(COST, machine=replace(MACHINE, relative_speed=4))
    assert twice.vcpu_hours == pytest.approx(COST.vcpu_hours / 2)


def test_machines_of_the_shipped_file_can_be_used() -> None:
    assert load_machine().name == "own-server"
    for name in ("own-server", "dataflow-batch", "n2-standard-4"):
        machine = load_machine(name=name)
        assert (machine.name, machine.currency) == (name, "USD") and machine.dated


def test_own_prices_are_read(tmp_path: Path) -> None:
    path = prices(tmp_path, GOOD)
    assert load_machine(path) == Machine("a", 4, 8, 0.05, 0.01, 0, 0.02, 1.5, "EUR", "2025-06")
    assert load_machine(path, "7").vcpus == 1


@pytest.mark.parametrize(
    "found, put_in",
    [
        ("vcpus: 4", "vcpus: 0"),
        ("memory_gb: 8", "memory_gb: -8"),
        ("relative_speed: 1.5", "relative_speed: 0"),
        ("memory_gb_hour: 0.01", "memory_gb_hour: much"),
        ("memory_gb_hour: 0.01", "memory_gb_hour: -1"),
        ("storage_gb_month: 0.02", "storage_gb_month: [1]"),
        ("storage_gb_month: 0.02", "storage_gb_month: .nan"),
        ("storage_gb_month: 0.02", "storage_gb_month: .inf"),
        ("shuffle_gb: 0", "shuffle_gb: true"),
        ("shuffle_gb: 0", "shuffle_gb:"),
        ("shuffle_gb: 0", "shufle_gb: 0"),
        ("vcpu_hour: 0.05, ", ""),
        (", relative_speed", ", 3: 4, relative_speed"),
    ],
)
def test_machine_that_cannot_be_used_is_told(tmp_path: Path, found: str, put_in: str) -> None:
    text = GOOD.replace(found, put_in, 1)
    assert text != GOOD
    with pytest.raises(BadInput, match="machine a of the prices"):
        load_machine(prices(tmp_path, text))


@pytest.mark.parametrize("text", ["", "machines: 3", "[]", "machines: [", "dated: 2025", "machines: {a: b}"])
def test_file_without_machines_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match="prices"):
        load_machine(prices(tmp_path, text))


@pytest.mark.parametrize("text", ["machines: []", "machines: [3, a]", GOOD])
def test_unknown_machine_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match="no machine cray"):
        load_machine(prices(tmp_path, text), "cray")


def test_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"machines: \xff")
    for name in ("nowhere", "", "latin"):
        with pytest.raises(BadInput, match="cannot read the prices"):
            load_machine(str(tmp_path / name))


def test_long_durations_are_days() -> None:
    assert [duration(s) for s in (5, 36 * 3600 - 1, 36 * 3600)] == ["0:05", "35:59:59", "1.5 days"]
