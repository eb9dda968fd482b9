"""CPU seconds -> worker hours and money, by one formula for the estimate before a run and the bill after it.

vCPU hours = CPU seconds / 3600 / relative speed / how busy a vCPU is kept
cost = vCPU hours x (vCPU price + memory per vCPU x memory price) + shuffled GB x price + output GB x a month's price
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from ocr_model.errors import BadInput
from pipelines.report import Report, clock

BUSY = 0.9  # of a vCPU's time, that pages get: the rest is starting, waiting for storage, the last unit
SHUFFLED_BYTES_PER_UNIT = 400  # a unit's description, the only thing that travels


@dataclass(frozen=True)
class Machine:
    """A machine type with its prices.

    Attributes:
        relative_speed: of one of its vCPUs, where the one that CPU seconds were measured on is 1.
    """

    name: str
    vcpus: float
    memory_gb: float
    vcpu_hour: float
    memory_gb_hour: float
    shuffle_gb: float
    storage_gb_month: float
    relative_speed: float
    currency: str = "USD"
    dated: str = ""


@dataclass(frozen=True)
class Cost:
    """What a run takes on a machine type. `cpu_s` are seconds of the machine that measured."""

    machine: Machine
    pages: int
    cpu_s: float
    output_bytes: float
    units: int

    @property
    def vcpu_hours(self) -> float:
        return self.cpu_s / 3600 / self.machine.relative_speed / BUSY

    @property
    def price(self) -> float:
        machine = self.machine
        hour = machine.vcpu_hour + machine.memory_gb / machine.vcpus * machine.memory_gb_hour
        shuffled_gb = self.units * SHUFFLED_BYTES_PER_UNIT / 1e9
        stored_gb = self.output_bytes / 1e9
        return self.vcpu_hours * hour + shuffled_gb * machine.shuffle_gb + stored_gb * machine.storage_gb_month

    @property
    def price_per_million(self) -> float:
        return self.price / self.pages * 1e6 if self.pages else 0.0

    def wall_s(self, workers: int) -> float:
        """With so many vCPUs at work."""
        return self.vcpu_hours * 3600 / workers

    def to_json(self) -> dict[str, Any]:
        return {
            "machine": asdict(self.machine),
            "vcpu_hours": round(self.vcpu_hours, 4),
            "price": round(self.price, 4),
            "price_per_million_pages": round(self.price_per_million, 2),
        }

    def text(self) -> str:
        return (
            f"{self.vcpu_hours:.2f} vCPU hours, {self.price:.2f} {self.machine.currency} on {self.machine.name}"
            f" ({self.price_per_million:.2f} per million pages; prices of {self.machine.dated})"
        )


def cost_of_run(report: Report, machine: Machine) -> Cost:
    """What the units that are done cost."""
    counts = report.counts
    return Cost(machine, counts.pages, report.cpu_s, counts.bytes_out, len(report.entries))


def load_machine(prices: str | None = None, name: str | None = None) -> Machine:
    """A machine of a price file.

    Args:
        prices: path of a file like pipelines/prices.yaml; None is that file.
        name: of the machine; None is the first one.

    Raises:
        BadInput: the file cannot be used, or has no such machine.
    """
    value = _read(prices)
    machines = {str(machine.get("name")): machine for machine in value["machines"] if isinstance(machine, Mapping)}
    wanted = name or next(iter(machines), "")
    if wanted not in machines:
        raise BadInput(f"no machine {wanted} in the prices", f"known are {', '.join(machines)}")
    try:
        numbers = {field: number for field, number in machines[wanted].items() if field != "name"}
        for field, number in numbers.items():
            if isinstance(number, bool) or not 0 <= float(number) < float("inf"):
                raise ValueError(f"{field} is {number!r}")
        numbers = {field: float(number) for field, number in numbers.items()}
        machine = Machine(
            wanted, **numbers, currency=str(value.get("currency", "USD")), dated=str(value.get("dated", ""))
        )
        if min(machine.vcpus, machine.memory_gb, machine.relative_speed) <= 0:
            raise ValueError("vcpus, memory_gb and relative_speed must be over 0")
    except (TypeError, ValueError) as error:
        raise BadInput(f"the machine {wanted} of the prices cannot be used: {error}", _WRITE_LIKE) from error
    return machine


_WRITE_LIKE = "write it like pipelines/prices.yaml"


def _read(prices: str | None) -> dict[str, Any]:
    import yaml

    try:
        if prices is None:
            text = resources.files("pipelines").joinpath("prices.yaml").read_text(encoding="utf-8")
        else:
            with open(prices, encoding="utf-8") as stream:
                text = stream.read()
        value = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"cannot read the prices {prices}: {' '.join(str(error).split())}", _WRITE_LIKE) from error
    if not isinstance(value, dict) or not isinstance(value.get("machines"), list):
        raise BadInput(f"{prices} names no machines", _WRITE_LIKE)
    return value


def duration(seconds: float) -> str:
    """
    >>> duration(90), duration(3600 * 50)
    ('1:30', '2.1 days')
    """
    return clock(seconds) if seconds < 36 * 3600 else f"{seconds / 86400:.1f} days"
