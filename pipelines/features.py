"""What ingest learns of its records with tf.Transform: the alphabet, buckets of widths, the grey of the crops.

Only the tables that lie beside the records are read, never a picture. Two passes over the lines of the training split:

    count the characters → the alphabet is frozen: the old one, new characters at its end
    width quantiles and grey → the graph of features, saved in `OUTPUT/transform`

TensorFlow takes half a gigabyte, and protobuf has been seen to crash a process that used it at its very end. So this
runs in a process of its own, `python -m pipelines.features REQUEST`, which is believed when its result is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
from ocr_model.errors import BadInput, BadModel, MissingDependency, PagemillError
from ocr_model.line_features import ALPHABET, FEATURES, LineFeatures, appended
from ocr_model.record_files import MANIFEST, manifest_from_text
from pipelines import ledger
from pipelines.outputs import cannot_write, is_there, list_files, open_to_read, read_text, remove, write_atomically
from pipelines.report import Report
from pipelines.statistics import (
    DRIFT,
    STATISTICS,
    DriftLimits,
    Finding,
    drift_of,
    drift_to_text,
    findings_of,
    page_findings,
    page_splits,
    statistics_from_text,
    statistics_of,
)
from pipelines.supervise import die_with_parent
from pipelines.write_records import METADATA

TRANSFORM = "transform"
BUCKETS = 8
_ROWS_AT_ONCE = 2000
_QUANTILE_ERROR = 0.001
_PYTHON_PATH = "PYTHONPATH"


@dataclass(frozen=True)
class FeatureOptions:
    """How the features of a set of records are made.

    Attributes:
        output: folder of the records.
        base: what the alphabet begins with.
        previous: folder of an earlier ingest to compare with; empty for none.
        least: times that a new character must come to be taken into the alphabet.
    """

    output: str
    base: Alphabet = DEFAULT_ALPHABET
    previous: str = ""
    least: int = 3
    limits: DriftLimits = field(default_factory=DriftLimits)


def check_installed() -> None:
    """
    Raises:
        MissingDependency: tf.Transform is not there.
    """
    if importlib.util.find_spec("tensorflow_transform") is None:
        raise MissingDependency(
            "tf.Transform is not installed", "pip install 'pagemill[ingest]', or leave it out with --no-transform"
        )


def base_alphabet(previous: str, path: str = "") -> Alphabet:
    """The alphabet of a file, else of an earlier ingest, else the default one.

    Raises:
        BadInput: it cannot be read.
    """
    if path:
        return _alphabet(os.path.dirname(path) or ".", os.path.basename(path))
    return _alphabet(previous, ALPHABET) if previous else DEFAULT_ALPHABET


def continued(base: Alphabet, output: str) -> Alphabet:
    """What an earlier run of the same output made of the alphabet, or the alphabet: no class changes its meaning."""
    if not is_there(output, ALPHABET):
        return base
    own = _alphabet(output, ALPHABET)
    return own if own.characters.startswith(base.characters) else base


def _alphabet(folder: str, name: str) -> Alphabet:
    with tempfile.TemporaryDirectory() as here:
        try:
            copy = Path(here) / ALPHABET
            copy.write_text(read_text(folder, name), encoding="utf-8")
            return Alphabet.load(copy)
        except (OSError, UnicodeDecodeError, BadModel) as error:
            raise BadInput(
                f"no alphabet in {folder}/{name}: {error}", "name a finished ingest, or an alphabet file"
            ) from error


# ---- the whole


def make_features(options: FeatureOptions, report: Report) -> tuple[dict[str, str], list[Finding]]:
    """Writes alphabet, features, graph, statistics and the report on drift beside the records.

    Returns:
        SHA-256 of the documents that depend on the records alone, by path, and what was found about drift.

    Raises:
        BadInput: the earlier ingest cannot be used, or the output not be written.
        PagemillError: tf.Transform failed.
    """
    output = options.output
    tables = tables_of(report)
    statistics = statistics_of(_batches(output, tables), (report.counts.duplicates, report.counts.pages))
    findings = findings_of(statistics, options.limits)
    if options.previous:
        findings += _compared(options, statistics, tables)
    with tempfile.TemporaryDirectory(prefix="pagemill-features-") as folder:
        texts = {STATISTICS: statistics.to_text(), DRIFT: drift_to_text(findings, options.previous)}
        if statistics.grey_count:  # there are lines
            texts |= _learnt(options, tables, Path(folder))
        try:
            for name in sorted(list_files_below(output, TRANSFORM)):
                remove(output, name)
            for file in sorted((Path(folder) / TRANSFORM).rglob("*")):
                if file.is_file():
                    write_atomically(output, str(file.relative_to(folder)), file.read_bytes())
            for name, text in texts.items():
                write_atomically(output, name, text)
        except OSError as error:
            raise cannot_write(output, error) from error
    lasting = (ALPHABET, FEATURES, STATISTICS)
    return {name: hashlib.sha256(texts[name].encode()).hexdigest() for name in lasting if name in texts}, findings


def list_files_below(output: str, folder: str) -> Iterator[str]:
    """The files that tf.Transform leaves, at most three folders deep."""
    for inner in (
        "",
        "/transform_fn",
        "/transform_fn/assets",
        "/transform_fn/variables",
        "/transformed_metadata",
        "/metadata",
    ):
        yield from list_files(output, folder + inner)


def tables_of(report: Report) -> list[str]:
    """The tables of all units, relative to the output, in order."""
    files = (file for entry in report.entries.values() for file in ledger.output_files(report.output, entry))
    return sorted(file.path for file in files if file.path.startswith(f"{METADATA}/"))


def _batches(output: str, tables: Sequence[str], columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    for table in tables:
        with open_to_read(output, table) as stream:
            yield from pq.ParquetFile(stream).iter_batches(_ROWS_AT_ONCE, columns=columns)


def _compared(options: FeatureOptions, statistics: Any, tables: Sequence[str]) -> list[Finding]:
    """
    Raises:
        BadInput: the earlier ingest was not finished or is of another version.
    """
    previous = options.previous
    try:
        manifest_from_text(read_text(previous, MANIFEST), f"{previous}/{MANIFEST}")
        earlier = statistics_from_text(read_text(previous, STATISTICS), f"{previous}/{STATISTICS}")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{previous} is no finished ingest: {error}", "name the --output of one") from error
    characters = _alphabet(previous, ALPHABET).characters if earlier.grey_count else DEFAULT_ALPHABET.characters
    their_tables = sorted(list_files(previous, METADATA))
    pages = page_splits(_batches(previous, their_tables, ["page_id", "split"]))
    ours = page_splits(_batches(options.output, tables, ["page_id", "split"]))
    return drift_of(earlier, statistics, characters, options.limits) + page_findings(pages, ours, options.limits)


# ---- tf.Transform in its own process


def _learnt(options: FeatureOptions, tables: Sequence[str], folder: Path) -> dict[str, str]:
    """Contents of the alphabet and of the features; the graph lies in `folder`.

    Raises:
        PagemillError: the process failed.
    """
    request = {
        "output": os.path.abspath(options.output) if "://" not in options.output else options.output,
        "tables": list(tables),
        "base": options.base.characters,
        "least": options.least,
        "folder": str(folder),
    }
    (folder / "request.json").write_text(json.dumps(request))
    paths = os.pathsep.join(
        dict.fromkeys([*filter(None, sys.path), *os.environ.get(_PYTHON_PATH, "").split(os.pathsep)])
    )
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.features", str(folder / "request.json")],
        env={"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", **os.environ, _PYTHON_PATH: paths},
        capture_output=True,
        check=False,
    )
    if not (folder / FEATURES).exists():  # the exit code does not tell, see above
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise PagemillError(f"tf.Transform failed with exit code {done.returncode}: {' | '.join(words[-3:])}")
    return {name: (folder / name).read_text(encoding="utf-8") for name in (ALPHABET, FEATURES)}


def learn(output: str, tables: Sequence[str], base: Alphabet, least: int, folder: Path) -> LineFeatures:
    """The features of the lines of the training split, of all lines where it has none. Imports TensorFlow.

    Args:
        folder: gets `ALPHABET`, `TRANSFORM` and at last `FEATURES`.
    """
    lines = _Lines(output, tuple(tables), _split_of_lines(output, tables))
    counts = _count_characters(lines, folder / "characters")
    alphabet = appended(base, counts, least)
    bounds, mean, deviation = _write_graph(lines, alphabet, folder)
    features = LineFeatures(alphabet, bounds, mean, deviation)
    alphabet.save(folder / ALPHABET)
    text = json.dumps(features.to_json(), indent=1) + "\n"
    (folder / "unfinished.json").write_text(text, encoding="utf-8")
    (folder / "unfinished.json").rename(folder / FEATURES)
    return features


@dataclass(frozen=True)
class _Lines:
    """Which rows are looked at; `split` is empty for all."""

    output: str
    tables: tuple[str, ...]
    split: str


def _split_of_lines(output: str, tables: Sequence[str]) -> str:
    for batch in _batches(output, tables, ["kind", "split"]):
        kinds, splits = batch.column("kind").to_pylist(), batch.column("split").to_pylist()
        if any(pair == ("line", "train") for pair in zip(kinds, splits, strict=True)):
            return "train"
    return ""


_RAW = {"text": pa.binary(), "line_width": pa.int64(), "mean": pa.float32()}


def line_batches(output: str, table: str, split: str) -> Iterator[pa.RecordBatch]:
    """The lines of a table as tf.Transform takes them: a list of one value in every cell."""
    for batch in _batches(output, [table], ["kind", "split", *_RAW]):
        kinds, splits = batch.column("kind").to_pylist(), batch.column("split").to_pylist()
        wanted = [kind == "line" and split in ("", own) for kind, own in zip(kinds, splits, strict=True)]
        kept = batch.filter(pa.array(wanted, pa.bool_()))
        offsets = pa.array(range(len(kept) + 1), pa.int32())
        columns = [pa.ListArray.from_arrays(offsets, kept.column(name).cast(kind)) for name, kind in _RAW.items()]
        if len(kept):
            yield pa.RecordBatch.from_arrays(columns, list(_RAW))


def _analysed(lines: _Lines, preprocess: Any, write_to: Path, with_schema: bool = False) -> None:
    """Runs tf.Transform's analysis over the lines and writes its graph."""
    import apache_beam as beam
    import tensorflow as tf
    import tensorflow_transform.beam as tft_beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io
    from tfx_bsl.tfxio import tensor_adapter, tensor_representation_util

    dtypes = {"text": tf.string, "line_width": tf.int64, "mean": tf.float32}
    spec = {name: tf.io.FixedLenFeature([], dtype) for name, dtype in dtypes.items()}
    metadata = dataset_metadata.DatasetMetadata.from_feature_spec(spec)
    arrow = pa.schema([(name, pa.list_(kind)) for name, kind in _RAW.items()])
    representations = tensor_representation_util.InferTensorRepresentationsFromSchema(metadata.schema)
    config = tensor_adapter.TensorAdapterConfig(arrow, representations)
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        pipeline = stack.enter_context(beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])))
        stack.enter_context(tft_beam.Context(temp_dir=scratch))
        rows = (
            pipeline
            | "Name the tables" >> beam.Create(list(lines.tables), reshuffle=False)
            | "Read lines" >> beam.FlatMap(lambda table: line_batches(lines.output, table, lines.split))
        )
        graph = (rows, config) | "Analyse" >> tft_beam.AnalyzeDataset(preprocess)
        _ = graph | "Write the graph" >> tft_beam.WriteTransformFn(str(write_to))
    if with_schema:
        metadata_io.write_metadata(metadata, str(write_to / "metadata"))


def _count_characters(lines: _Lines, folder: Path) -> dict[str, int]:
    import tensorflow as tf
    import tensorflow_transform as tft

    def preprocess(inputs: Mapping[str, Any]) -> dict[str, Any]:
        characters = tf.strings.unicode_split(inputs["text"], "UTF-8").to_sparse()
        tft.vocabulary(characters, vocab_filename="characters", store_frequency=True)
        return {"width": inputs["line_width"]}

    _analysed(lines, preprocess, folder)
    path = tft.TFTransformOutput(str(folder)).vocabulary_file_by_name("characters")
    assert path is not None  # the graph was just made with a vocabulary of that name
    counts = {}
    for line in Path(path).read_text(encoding="utf-8").split("\n"):
        count, _, character = line.partition(" ")
        if len(character) == 1:
            counts[character] = int(count)
    return counts


def _write_graph(lines: _Lines, alphabet: Alphabet, folder: Path) -> tuple[tuple[float, ...], float, float]:
    """(bounds of the buckets, mean grey, its deviation), as they are in the graph of `folder / TRANSFORM`.

    The graph takes `text`, `line_width` and `mean` and gives `ids`, `bucket` and `grey`; and what it was built with,
    `bounds`, `grey_mean` and `grey_deviation`.
    """
    import tensorflow as tf
    import tensorflow_transform as tft

    def table() -> Any:
        keys = tf.constant(list(alphabet.characters))
        values = tf.range(1, len(alphabet.characters) + 1, dtype=tf.int64)
        return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), default_value=-1)

    def preprocess(inputs: Mapping[str, Any]) -> dict[str, Any]:
        classes = tft.make_and_track_object(table, "alphabet")
        characters = tf.strings.unicode_split(inputs["text"], "UTF-8")
        width, rows = tf.cast(inputs["line_width"], tf.float32), tf.shape(inputs["line_width"])[0]
        bounds = tft.quantiles(width, BUCKETS, _QUANTILE_ERROR)
        mean, deviation = tft.mean(inputs["mean"]), tf.sqrt(tft.var(inputs["mean"]))
        return {
            "ids": tf.ragged.map_flat_values(classes.lookup, characters).to_sparse(),
            "bucket": tft.apply_buckets(width, bounds),
            "grey": (inputs["mean"] - mean) / tf.maximum(deviation, 1e-3),
            "bounds": tf.repeat(bounds, rows, axis=0),
            "grey_mean": tf.repeat(mean, rows),
            "grey_deviation": tf.repeat(deviation, rows),
        }

    _analysed(lines, preprocess, folder / TRANSFORM, with_schema=True)
    found = apply_graph(str(folder / TRANSFORM), [""], [1], [0.0])
    bounds = tuple(float(bound) for bound in found["bounds"].numpy().ravel())
    return bounds, float(found["grey_mean"].numpy()[0]), float(found["grey_deviation"].numpy()[0])


def apply_graph(folder: str, texts: Sequence[str], widths: Sequence[int], greys: Sequence[float]) -> dict[str, Any]:
    """What the saved graph gives for some lines, as tensors; `ids` is sparse. Imports TensorFlow."""
    import tensorflow as tf
    import tensorflow_transform as tft

    return dict(
        tft.TFTransformOutput(folder).transform_raw_features(
            {
                "text": tf.constant(list(texts)),
                "line_width": tf.constant(list(widths), tf.int64),
                "mean": tf.constant(list(greys), tf.float32),
            }
        )
    )


def main(argv: Sequence[str]) -> None:
    """The process of its own: reads the request, leaves the result in its folder."""
    die_with_parent()
    request = json.loads(Path(argv[1]).read_text())
    folder = Path(request["folder"])
    learn(request["output"], request["tables"], Alphabet(request["base"]), request["least"], folder)
    shutil.rmtree(folder / "characters", ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv)
