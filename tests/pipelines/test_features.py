"""tf.Transform's part of ingest: needs the `ingest` extra, and takes half a minute because it starts TensorFlow."""

import json
from pathlib import Path
from typing import Any

import pytest

from ocr_model.alphabet import Alphabet
from ocr_model.errors import BadInput, BadModel, MissingDependency, PagemillError
from ocr_model.line_features import ALPHABET, FEATURES, LineFeatures
from ocr_model.record_files import load_manifest
from pipelines import features
from pipelines.cli import _Parser
from pipelines.commands import ingest
from pipelines.commands.job_flags import with_workers
from pipelines.features import FeatureOptions, apply_graph, base_alphabet, continued, make_features
from pipelines.report import reconcile
from tests.pipelines.corpora import corpus_of, lines_json, page_image, put

needs_transform = pytest.mark.skipif(
    features.importlib.util.find_spec("tensorflow_transform") is None, reason="tf.Transform is not installed"
)
TEXTS = ["0000 1", "ſtrange", "", " ", "Łódź, „zł“!", "00000 11111 22222"]
WIDTHS = [4, 100, 199, 300, 1000, 4096]


def command(*words: str) -> int:
    """Exit code of `pagemill ingest WORDS` in this process."""
    parser = _Parser(prog="pagemill ingest", allow_abbrev=False)
    ingest.add_arguments(parser)
    arguments = parser.parse_args(list(words))
    return ingest.ingest(arguments, with_workers(arguments.workers, []))


def files() -> dict[str, bytes]:
    found = corpus_of(12, lines=30)
    for n in range(4):
        found[f"pages/{n:05d}.lines.json"] = lines_json(n).replace(b'0"', 'ſ"'.encode())
    return found


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ingested")
    put(root / "in", files())
    assert command(f"{root}/in", "--output", f"{root}/out", "--validation", "20%") == 0
    return root / "out"


@pytest.mark.slow
@needs_transform
def test_training_and_serving_see_the_same_ids_and_buckets(ingested: Path) -> None:
    """The graph that training may read, and the numbers that serving computes without it."""
    serving = LineFeatures.load(ingested)
    widths = sorted({*WIDTHS, *(int(bound) + step for bound in serving.bounds for step in (-1, 0, 1))})
    texts = (TEXTS * len(widths))[: len(widths)]
    training = apply_graph(str(ingested / features.TRANSFORM), texts, widths, [200.0] * len(widths))
    ids = training["ids"]
    rows: list[list[int]] = [[] for _ in texts]
    for (row, _), value in zip(ids.indices.numpy().tolist(), ids.values.numpy().tolist(), strict=True):
        rows[row].append(value)
    assert rows == [serving.ids(text) for text in texts]
    assert training["bucket"].numpy().tolist() == [serving.bucket(width) for width in widths]
    grey = (200.0 - serving.grey_mean) / serving.grey_deviation
    assert training["grey"].numpy() == pytest.approx(grey, rel=1e-4)


@pytest.mark.slow
@needs_transform
def test_features_lie_beside_the_records_and_the_manifest_knows_them(ingested: Path) -> None:
    manifest = load_manifest(ingested)
    assert sorted(manifest.documents) == [ALPHABET, FEATURES, "statistics.json"]
    alphabet = Alphabet.load(ingested / ALPHABET)
    assert alphabet.characters.startswith(base_alphabet("").characters)
    assert (ingested / "transform/transform_fn/saved_model.pb").exists()
    assert (ingested / "transform/metadata/schema.pbtxt").exists()
    assert json.loads((ingested / "drift.json").read_text())["previous"] == ""


@pytest.mark.slow
@needs_transform
def test_alphabet_keeps_its_classes_from_ingest_to_ingest(ingested: Path, tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text((ingested / ALPHABET).read_text().replace("ſ", ""))
    put(
        tmp_path / "in",
        {"a.png": page_image(1), "a.lines.json": '[{"bbox": [10, 30, 190, 64], "text": "ſſſ∴∴∴∴"}]'.encode()},
    )
    words = [f"{tmp_path}/in", "--output", f"{tmp_path}/out", "--validation", "0"]
    code = command(*words, "--alphabet", f"{tmp_path}/base.json", "--previous", str(ingested))
    assert code == ingest.GATE_FAILED  # ∴ is new to the earlier alphabet
    base = Alphabet.load(tmp_path / "base.json")
    assert Alphabet.load(tmp_path / "out" / ALPHABET).characters == base.characters + "∴ſ"
    findings = {f["name"]: f for f in json.loads((tmp_path / "out/drift.json").read_text())["findings"]}
    assert findings["new_characters"]["crossed"] and "'∴'×4" in findings["new_characters"]["told"]
    assert load_manifest(tmp_path / "out").counts["unknown_characters"] == {"ſ": 3, "∴": 4}
    limits = [word for name in findings for word in ("--drift-limit", f"{name}=1")]
    put(
        tmp_path / "in",
        {"b.png": page_image(2), "b.lines.json": lines_json(2, 1).replace(b"0002", "§§§∵∵∵∵∵∵".encode())},
    )
    assert command(*words, "--alphabet", f"{tmp_path}/base.json", "--previous", str(ingested), *limits) == 0
    assert Alphabet.load(tmp_path / "out" / ALPHABET).characters == base.characters + "∴ſ∵"


@pytest.mark.slow
@needs_transform
def test_pages_alone_have_statistics_and_no_features(tmp_path: Path) -> None:
    put(tmp_path / "in", corpus_of(2))
    assert command(f"{tmp_path}/in", "--output", f"{tmp_path}/out", "--kind", "page") == 0
    assert list(load_manifest(tmp_path / "out").documents) == ["statistics.json"]


def test_without_transform_there_are_records_alone(tmp_path: Path) -> None:
    put(tmp_path / "in", corpus_of(2))
    assert command(f"{tmp_path}/in", "--output", f"{tmp_path}/out", "--no-transform") == 0
    assert load_manifest(tmp_path / "out").documents == {}
    assert not (tmp_path / "out" / ALPHABET).exists()
    put(tmp_path / "in", {"bare.png": page_image(9)})
    assert command(f"{tmp_path}/in", "--output", f"{tmp_path}/out", "--no-transform") == 3


def test_missing_package_shows_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features.importlib.util, "find_spec", lambda name: None)
    put(tmp_path / "in", corpus_of(1))
    with pytest.raises(MissingDependency, match="--no-transform"):
        command(f"{tmp_path}/in", "--output", f"{tmp_path}/out")
    assert not (tmp_path / "out").exists()


def test_failing_process_is_told_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "in", corpus_of(1))
    assert command(f"{tmp_path}/in", "--output", f"{tmp_path}/out", "--no-transform") == 0
    report = reconcile(f"{tmp_path}/out")

    def broken(*_: Any) -> list[str]:
        return ["metadata/gone.parquet"]

    monkeypatch.setattr(features, "_batches", lambda *_: iter(_rows(report)))
    monkeypatch.setattr(features, "tables_of", broken)
    with pytest.raises(PagemillError, match=r"tf\.Transform failed with exit code"):
        make_features(FeatureOptions(f"{tmp_path}/out"), report)


def _rows(report: Any) -> Any:
    import pyarrow.parquet as pq

    (table,) = Path(report.output, "metadata").iterdir()
    return pq.ParquetFile(table).iter_batches()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--previous", "nowhere"], BadInput),
        (["--alphabet", "nowhere.json"], BadInput),
    ],
)
def test_earlier_ingest_that_is_missing_is_named(tmp_path: Path, words: list[str], error: type[Exception]) -> None:
    put(tmp_path / "in", corpus_of(1))
    with pytest.raises(error, match="nowhere"):
        command(f"{tmp_path}/in", "--output", f"{tmp_path}/out", "--no-transform", *words)


def test_features_are_read_back_and_checked(tmp_path: Path) -> None:
    made = LineFeatures(Alphabet("ab"), (1.0, 2.5), 3.0, 4.0)
    made.alphabet.save(tmp_path / ALPHABET)
    (tmp_path / FEATURES).write_text(json.dumps(made.to_json()))
    assert LineFeatures.load(tmp_path) == made
    assert continued(Alphabet("a"), str(tmp_path)).characters == "ab"
    assert continued(Alphabet("b"), str(tmp_path)).characters == "b"
    Alphabet("ba").save(tmp_path / ALPHABET)
    with pytest.raises(BadModel, match="has changed"):
        LineFeatures.load(tmp_path)
    (tmp_path / FEATURES).write_text(json.dumps({**made.to_json(), "version": 7}))
    with pytest.raises(BadModel, match="of version 7, this program reads pagemill-features of version 1"):
        LineFeatures.load(tmp_path)
    (tmp_path / FEATURES).unlink()
    with pytest.raises(BadModel, match="cannot read"):
        LineFeatures.load(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ["--validation", "60%", "--test", "50%"],
        ["--validation", "lots"],
        ["--prepare", "dewarp"],
        ["--drift-limit", "colour=1"],
        ["--dpi", "3"],
        ["--timeout-s", "0"],
        ["--line-height", "0"],
        ["--limit", "0"],
        ["--previous", "out", "--output", "out/"],
    ],
)
def test_flags_that_cannot_be_are_refused(words: list[str]) -> None:
    from ocr_model.errors import BadArgument

    with pytest.raises(BadArgument):
        command("in", "--output", "out", *words)
