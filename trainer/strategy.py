"""Where training runs: one device, several of this machine, several machines, or a TPU (`tf.distribute`)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ocr_model.errors import BadArgument, BadInput, PagemillError

STRATEGIES = ("default", "mirrored", "multi_worker", "tpu")


@dataclass(frozen=True)
class Hardware:
    """What to train on.

    Attributes:
        strategy: one of `STRATEGIES`.
        devices: of `mirrored`: how many ("2"), or which ("GPU:0,GPU:3"); empty takes all GPUs. Without a GPU, a number
            divides the processor into so many logical devices.
        tpu: address of the TPU: `local` on a TPU VM, `grpc://HOST:PORT`, or the name of a Cloud TPU.
        threads: of TensorFlow's operations; 0 for all cores.
    """

    strategy: str = "default"
    devices: str = ""
    tpu: str = ""
    threads: int = 0


class WorkerLost(PagemillError):
    """Another worker of the cluster has gone: this one can do nothing but begin again from the last checkpoint."""


def open_strategy(hardware: Hardware) -> tf.distribute.Strategy:
    """The strategy. To be called before TensorFlow has done anything else, as it may divide or join devices.

    Raises:
        BadArgument: the flags do not go together, or name a device that is not there.
        BadInput: `TF_CONFIG` or the TPU cannot be used.
    """
    if hardware.strategy not in STRATEGIES:
        raise BadArgument(f"unknown strategy {hardware.strategy}", f"one of {', '.join(STRATEGIES)}")
    if hardware.devices and hardware.strategy != "mirrored":
        raise BadArgument(f"--devices with --strategy {hardware.strategy}", "--devices goes with --strategy mirrored")
    if bool(hardware.tpu) != (hardware.strategy == "tpu"):
        raise BadArgument(
            f"--strategy {hardware.strategy} with TPU address {hardware.tpu!r}",
            "--strategy tpu and --tpu ADDRESS go together; on a TPU VM the address is local",
        )
    limit_threads(hardware.threads)
    if hardware.strategy != "multi_worker":  # Vertex AI sets it on a single machine too, and TensorFlow would read it
        os.environ.pop("TF_CONFIG", None)
    if hardware.strategy == "mirrored":
        return tf.distribute.MirroredStrategy(mirrored_devices(hardware.devices))
    if hardware.strategy == "multi_worker":
        return _multi_worker()
    return _tpu(hardware.tpu) if hardware.strategy == "tpu" else tf.distribute.get_strategy()


def limit_threads(count: int) -> None:
    """TensorFlow's operations get so many threads, 0 for all cores; to be said before TensorFlow starts.

    Raises:
        BadArgument: a negative number, or TensorFlow runs with another one.
    """
    if count < 0:
        raise BadArgument(f"--threads {count}", "give a number of threads, or 0 for all cores")
    if count == tf.config.threading.get_intra_op_parallelism_threads():
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(count)
    except RuntimeError as error:
        raise BadArgument(
            f"TensorFlow runs already, it cannot be given {count} threads any more", "start a new process"
        ) from error


def mirrored_devices(wanted: str) -> list[str]:
    """The devices of `mirrored`; a number of processors makes as many logical ones.

    Raises:
        BadArgument: one of them is not there.
    """
    gpus = len(tf.config.list_physical_devices("GPU"))
    if wanted and not wanted.isdecimal():
        there = [f"{kind}:{i}" for kind in ("CPU", "GPU") for i in range(len(tf.config.list_physical_devices(kind)))]
        names = [name.strip().upper() for name in wanted.split(",")]
        if unknown := [name for name in names if name not in there]:
            raise BadArgument(f"no device {', '.join(unknown)}", f"this machine has {', '.join(there)}")
        return names
    count = int(wanted) if wanted else gpus or 1
    if count < 1 or 0 < gpus < count:
        raise BadArgument(f"--devices {wanted}, but this machine has {gpus} GPUs", "name as many as there are")
    if not gpus:
        _divide_processor(count)
    return [f"{'GPU' if gpus else 'CPU'}:{i}" for i in range(count)]


def _divide_processor(count: int) -> None:
    (cpu, *_) = tf.config.list_physical_devices("CPU")
    parts = tf.config.get_logical_device_configuration(cpu) or [None]
    if len(parts) == count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise BadArgument(
            f"TensorFlow runs already, the processor cannot be divided by {count} any more", "start a new process"
        ) from error


def cluster_of(tf_config: str) -> tuple[list[str], int]:
    """The workers' addresses and this worker's number, from the text of `TF_CONFIG`.

    Raises:
        BadInput: it is missing, no JSON, or names no worker that is in the cluster.

    >>> cluster_of('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}')
    (['a:1', 'b:1'], 1)
    """
    form = '{"cluster": {"worker": ["HOST:PORT", …]}, "task": {"type": "worker", "index": N}}'
    try:
        value = json.loads(tf_config)
        workers, task = list(value["cluster"].get("chief", [])), value["task"]
        index = int(task["index"]) + (len(workers) if task["type"] == "worker" else 0)
        workers += value["cluster"].get("worker", [])
        if task["type"] not in ("chief", "worker") or not 0 <= index < len(workers):
            raise ValueError(f"no {task['type']} {task['index']} in the cluster")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"TF_CONFIG cannot be used: {error or 'it is empty'}", f"set it to {form}") from error
    return workers, index


def _multi_worker() -> tf.distribute.Strategy:
    workers, index = cluster_of(os.environ.get("TF_CONFIG", ""))
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise BadInput(
            f"worker {index} cannot serve at {workers[index]}: {_first_line(error)}",
            "see that the port is free and that all workers of TF_CONFIG are started",
        ) from error


def _tpu(address: str) -> tf.distribute.Strategy:
    try:
        if address.startswith("grpc://"):
            host, _, port = address.removeprefix("grpc://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
        if address != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, RuntimeError, ValueError, OSError) as error:
        raise BadInput(
            f"no TPU at {address}: {_first_line(error)}", "local on a TPU VM, grpc://HOST:PORT, or a Cloud TPU's name"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# ---- values that go to replicas and come back


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the files of the run: one of all workers does."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver is None:
        return True
    return resolver.task_type == "chief" or (resolver.task_id == 0 and "chief" not in resolver.cluster_spec().as_dict())


@contextmanager
def together(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """For what all workers do together.

    Raises:
        WorkerLost: one of the others does not answer any more.
    """
    try:
        yield
    except _LOST as error:
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise
        raise WorkerLost(
            "another worker has stopped", "start all workers again, they go on from the last checkpoint"
        ) from error


_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)


def share(strategy: tf.distribute.Strategy, parts: list[Any]) -> Any:
    """One part for each replica of the whole cluster, of which this process keeps those of its own replicas."""
    if strategy.num_replicas_in_sync == 1:
        return parts[0]
    return strategy.experimental_distribute_values_from_function(lambda c: parts[c.replica_id_in_sync_group])


def first(strategy: tf.distribute.Strategy, value: Any) -> Any:
    """The value of this process's first replica, for what is equal on all."""
    return strategy.experimental_local_results(value)[0]
