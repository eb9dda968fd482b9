"""python -m trainer.jax_task: trains recognisers or finders with Keras's JAX backend for a number of minutes.

    KERAS_BACKEND=jax python -m trainer.jax_task recogniser --data DATA --text TEXT --minutes 20 --output runs/lines
    KERAS_BACKEND=jax python -m trainer.jax_task finder --data DATA --text TEXT --minutes 20 --output runs/pages
    python -m trainer.validate_run runs/lines/default runs/pages/default --data DATA --text TEXT
    pagemill export --recogniser runs/lines/default --finder runs/pages/default --output my-model

The first two need JAX (`pip install pagemill[jax]`, and the plugin for the accelerator) and no TensorFlow, the last two
TensorFlow and no JAX. Every --network NAME=FIELD=VALUE,… is one more network that learns from the same batches; without
any there is one, `default`.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax

from ocr_model.alphabet import DEFAULT_ALPHABET
from ocr_model.errors import BadArgument, BadInput, PagemillError
from ocr_model.finder import FinderConfig, build_finder
from ocr_model.line_images import LINE_HEIGHT_PX, STRIDE_PX
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from trainer.finder_loss import FinderLoss
from trainer.finder_samples import SampleConfig, divided_pages, samples, stacked
from trainer.jax_loop import Feed, Learner, TimedLoop, Values, learn
from trainer.line_data import BatchStream, LineDataConfig

WIDTHS_PX = (256, 448, 768, 1280, 1536)  # that lines are padded to
LINES_PX = 400_000  # width of the lines of a batch together
CROPS = 16
POLICY = "mixed_bfloat16"

Shapes = dict[Hashable, dict[str, jax.ShapeDtypeStruct]]


def networks_of(arguments: Sequence[str], default: Any) -> dict[str, Any]:
    """NAME=FIELD=VALUE,… → name → configuration.

    >>> networks_of(["small=trunk_blocks=6,trunk_filters=192"], RecogniserConfig(5))["small"].trunk_blocks
    6

    Raises:
        BadArgument: no such field, or no value.
    """
    found = {}
    for argument in arguments:
        name, _, fields = argument.partition("=")
        try:
            call = ast.parse(f"f({fields})", mode="eval").body
            assert isinstance(call, ast.Call)
            found[name] = replace(default, **{str(k.arg): ast.literal_eval(k.value) for k in call.keywords})
        except (SyntaxError, ValueError, TypeError) as error:
            raise BadArgument(f"--network {argument}: {error}", "write NAME=FIELD=VALUE,FIELD=VALUE") from error
    return found or {"default": default}


def started(models: dict[str, keras.Model], start: Path | None) -> dict[str, keras.Model]:
    """The models, with the weights of the networks of the same names in the output of an earlier run.

    Raises:
        BadInput: it has no such network.
    """
    for name, model in models.items() if start is not None else ():
        try:
            model.load_weights(f"{start}/{name}/best.weights.h5")
        except (OSError, ValueError) as error:
            raise BadInput(
                f"no weights of a network {name} in {start}: {error}", "name the --output of a run"
            ) from error
    return models


# ---- lines


def most_characters(width_px: int) -> int:
    """Characters that the labels of a bucket have room for; narrower print than that is left out."""
    return width_px // STRIDE_PX // 2 + 8


def lines(config: LineDataConfig) -> Iterator[tuple[int, Values]]:
    """Lines of one bucket each time: `inputs`, `labels` and `lengths`."""
    for batch in BatchStream(config, DEFAULT_ALPHABET):
        width = batch.images.shape[2]
        kept = batch.lengths <= most_characters(width)
        labels = np.zeros((int(kept.sum()), most_characters(width)), np.int32)
        longest = min(labels.shape[1], batch.labels.shape[1])
        labels[:, :longest] = batch.labels[kept][:, :longest]
        if len(labels):
            yield width, {"inputs": batch.images[kept][..., None], "labels": labels, "lengths": batch.lengths[kept]}


def line_shapes() -> Shapes:
    found: Shapes = {}
    for width in WIDTHS_PX:
        count = LINES_PX // width
        found[width] = {
            "inputs": jax.ShapeDtypeStruct((count, LINE_HEIGHT_PX, width, 1), np.uint8),
            "labels": jax.ShapeDtypeStruct((count, most_characters(width)), np.int32),
            "lengths": jax.ShapeDtypeStruct((count,), np.int32),
        }
    return found


def ctc_of_all(outputs: Sequence[Any], batch: Mapping[str, Any]) -> Any:
    """[networks] float32: CTC (Graves et al. 2006) a character. All networks go through one loop over the time.

    Args:
        outputs: of each network [B, time, classes] float32 logits, class 0 is the blank.
        batch: `labels` [B, longest] int32 padded with 0, `lengths` [B] int32, each at least 1.
    """
    many, (count, steps, _) = len(outputs), outputs[0].shape
    labels = jnp.tile(batch["labels"], (many, 1))
    paddings = jnp.arange(labels.shape[1])[None] >= jnp.tile(batch["lengths"], many)[:, None]
    logits = jnp.concatenate([o.astype(jnp.float32) for o in outputs])
    losses = optax.ctc_loss(logits, jnp.zeros((many * count, steps)), labels, paddings.astype(jnp.float32))
    return losses.reshape(many, count).sum(axis=1) / batch["lengths"].sum()


def recognisers(arguments: argparse.Namespace, loop: TimedLoop) -> tuple[Learner, Feed, dict[str, Any], dict[str, Any]]:
    """(learner, feed, network configurations, what else decides the run)"""
    sizes = networks_of(arguments.network, RecogniserConfig(DEFAULT_ALPHABET.classes))
    data = LineDataConfig(
        arguments.data,
        arguments.text,
        real_share=arguments.real_share,
        processes=arguments.processes,
        max_width_px=WIDTHS_PX[-1],
        bounds=tuple(float(width) for width in WIDTHS_PX[:-1]),
        seed=arguments.seed,
    )
    shapes = line_shapes()
    feed = Feed(lines(data), lambda key: LINES_PX // int(str(key)), jax.device_put, loop, len(shapes))
    models = {name: build_recogniser(size) for name, size in sizes.items()}
    learner = Learner(started(models, arguments.start), ctc_of_all, loop)
    learner.compile(shapes)
    about = {"data": asdict(data), "focal": 0.0, "alphabet": DEFAULT_ALPHABET.characters, "minimise": "cer"}
    return learner, feed, sizes, about


# ---- pages


def crops(data: Path, text: Path, config: SampleConfig, validation_share: float) -> Iterator[tuple[int, Values]]:
    """Crops of pages, some at a time: what `trainer.finder_samples.stacked` makes of them."""
    learnt, _ = divided_pages(data, validation_share)
    stream = samples(learnt, text, config)
    while True:
        values = stacked([next(stream)[0] for _ in range(4)])
        yield config.crop_px, {**values, "inputs": values["inputs"].astype(np.uint8)}


def crop_shapes(size: int) -> Shapes:
    half = (CROPS, size // 2, size // 2)
    maps = {"core": (half, np.uint8), "ends": (half, np.uint8), "counted": (half, np.uint8)}
    return {
        size: {
            "inputs": jax.ShapeDtypeStruct((CROPS, size, size, 1), np.uint8),
            **{name: jax.ShapeDtypeStruct(shape, kind) for name, (shape, kind) in maps.items()},
            "heights": jax.ShapeDtypeStruct((*half, 2), np.float16),
            "orientation": jax.ShapeDtypeStruct((CROPS,), np.int32),
            "orientation_counted": jax.ShapeDtypeStruct((CROPS,), np.float32),
        }
    }


def finder_losses(outputs: Sequence[Any], batch: Mapping[str, Any]) -> Any:
    """[networks] float32 of `FinderLoss`."""
    loss, whole = FinderLoss(), {**batch, "weights": jnp.ones(CROPS)}
    return jnp.stack([loss.value(loss.sums(output, whole)) for output in outputs])


def finders(arguments: argparse.Namespace, loop: TimedLoop) -> tuple[Learner, Feed, dict[str, Any], dict[str, Any]]:
    """As `recognisers`."""
    sizes = networks_of(arguments.network, FinderConfig())
    config = SampleConfig(workers=arguments.processes, seed=arguments.seed, real_share=arguments.real_share)
    source = crops(arguments.data, arguments.text, config, 0.1)
    feed = Feed(source, lambda _: CROPS, jax.device_put, loop, 1)
    models = {name: build_finder(size) for name, size in sizes.items()}
    learner = Learner(started(models, arguments.start), finder_losses, loop)
    learner.compile(crop_shapes(config.crop_px))
    return learner, feed, sizes, {"samples": asdict(config), "loss": asdict(FinderLoss()), "minimise": "miss"}


# ---- command line


def environment() -> dict[str, Any]:
    """As `trainer.run_folder.environment`."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: metadata.version(name) for name in ("jax", "keras", "numpy", "optax")},
        "strategy": "jax",
        "replicas": 1,
        "devices": [devices[0].device_kind],
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }


def parser() -> argparse.ArgumentParser:
    parsed = argparse.ArgumentParser(
        prog="python -m trainer.jax_task", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parsed.add_argument("kind", choices=("recogniser", "finder"))
    parsed.add_argument("--data", type=Path, required=True, help="folder of sources with truth")
    parsed.add_argument("--text", type=Path, required=True, help="folder of text files for what is rendered")
    parsed.add_argument("--output", type=Path, required=True)
    parsed.add_argument("--minutes", type=float, required=True, help="of learning; starting comes on top")
    parsed.add_argument("--start", type=Path, help="output of an earlier run whose weights to begin with")
    parsed.add_argument("--network", action="append", default=[], metavar="NAME=FIELD=VALUE,…")
    parsed.add_argument("--processes", type=int, default=1, help="that prepare examples")
    parsed.add_argument("--real-share", type=float, default=0.3, help="of real lines or pages")
    parsed.add_argument("--learning-rate", type=float, default=TimedLoop.learning_rate, help="at its peak")
    parsed.add_argument("--ema", type=float, default=TimedLoop.ema, help="momentum of the averaged weights")
    parsed.add_argument("--uses", type=float, default=TimedLoop.uses, help="times that an example is shown at most")
    parsed.add_argument("--memory-gb", type=float, default=TimedLoop.memory / 1e9, help="of examples that are kept")
    parsed.add_argument("--seed", type=int, default=1)
    return parsed


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    if keras.backend.backend() != "jax":
        print(f"Keras uses {keras.backend.backend()} (set KERAS_BACKEND=jax)", file=sys.stderr)
        return 2
    cv2.setNumThreads(1)
    keras.utils.set_random_seed(arguments.seed)
    keras.mixed_precision.set_global_policy(POLICY)
    loop = TimedLoop(
        60 * arguments.minutes,
        learning_rate=arguments.learning_rate,
        ema=arguments.ema,
        uses=arguments.uses,
        memory=1e9 * arguments.memory_gb,
        seed=arguments.seed,
    )
    try:
        make = recognisers if arguments.kind == "recogniser" else finders
        learner, feed, sizes, about = make(arguments, loop)
        print(f"compiled for {jax.devices()[0].device_kind}", flush=True)
        steps = learn(learner, feed, loop, arguments.output)
    except PagemillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    arrived, shown = feed.counts()
    for name, size in sizes.items():
        command = f"python -m trainer.jax_task {arguments.kind}"
        config = {"command": command, "loop": {**asdict(loop), "steps": steps, "examples": arrived, "shown": shown}}
        config |= about
        config |= {"network": asdict(size), "precision": POLICY}
        for file, value in (("config.json", config), ("environment.json", environment())):
            text = json.dumps(value, indent=1, default=str) + "\n"
            (arguments.output / name / file).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
