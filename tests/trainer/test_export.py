import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ocr_model.alphabet import Alphabet
from ocr_model.bundle import bundle_digest, differing_files, load_bundle, read_config
from ocr_model.errors import BadArgument, BadModel
from pipelines.cli import main
from pipelines.commands.models import bundle_problems
from tests.tiny_bundle import AB, RECOGNISER, tiny_bundle
from trainer.export import TrainedRecogniser, export_bundle


@pytest.fixture(scope="module")
def bundle() -> Path:
    """A bundle of tiny networks; the weights that it was made of lie beside it."""
    return tiny_bundle()


def test_a_bundle_holds_all_that_serving_needs(bundle: Path) -> None:
    names = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert {
        "config.json",
        "alphabet.json",
        "MODEL_CARD.md",
        "finder/saved_model.pb",
        "recogniser/saved_model.pb",
    } <= names
    assert not list(bundle.parent.glob("*.writing"))


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_bundle_loads_in_both_precisions(bundle: Path, precision: str) -> None:
    loaded = load_bundle(bundle, precision)
    classes, confidences = loaded.read_lines(np.zeros((3, 40, 64, 1), np.uint8))
    assert classes.shape == confidences.shape == (3, 16)
    maps = loaded.find_lines(np.zeros((1, 64, 96, 1), np.uint8))
    assert maps["core"].shape == maps["ascender"].shape == (1, 32, 48)
    assert maps["orientation"].shape == (1, 4)


def test_the_digest_follows_the_content(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = bundle_digest(tmp_path)
    (tmp_path / "a").write_text("2")
    assert bundle_digest(tmp_path) != first
    assert load_bundle(bundle).digest == bundle_digest(bundle)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ('{"format": "other"}', "another format"),
        ('{"format": "pagemill-bundle", "version": 99}', "version 99"),
    ],
)
def test_a_folder_that_is_no_bundle_of_this_version_is_refused(
    tmp_path: Path, config: str | None, message: str
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(BadModel, match=message):
        read_config(tmp_path)


def test_a_missing_folder_and_an_unknown_precision_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="no model bundle"):
        load_bundle(tmp_path / "none")
    with pytest.raises(BadArgument, match="precision"):
        load_bundle(tmp_path, "float64")


def test_an_alphabet_that_does_not_fit_the_recogniser_is_refused(bundle: Path, tmp_path: Path) -> None:
    config = json.loads((bundle / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    Alphabet("a").save(tmp_path / "alphabet.json")
    with pytest.raises(BadModel, match="2 classes, the recogniser 4"):
        load_bundle(tmp_path)


def test_a_bundle_without_its_networks_is_refused(bundle: Path, tmp_path: Path) -> None:
    for name in ("config.json", "alphabet.json"):
        (tmp_path / name).write_text((bundle / name).read_text())
    with pytest.raises(BadModel, match="no network"):
        load_bundle(tmp_path)


# ---- networks of bundles


def test_a_network_is_taken_from_a_bundle_as_it_is(bundle: Path, tmp_path: Path) -> None:
    trained = TrainedRecogniser(bundle.parent / "r.weights.h5", RECOGNISER, AB)
    lines = [(np.full((40, 64), 255, np.uint8), "a")]
    export_bundle(trained, bundle, {}, "a card", tmp_path / "new", lines)
    assert bundle_digest(tmp_path / "new" / "finder") == bundle_digest(bundle / "finder")
    assert differing_files(tmp_path / "new") == []
    assert read_config(tmp_path / "new")["finder"]["network"]["filters"] == [2, 3, 4, 5]


def test_a_copy_keeps_calibration_card_and_reading_and_gains_what_is_new(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    shutil.copytree(bundle, old)
    shutil.rmtree(old / "self_check")
    (old / "SHA256SUMS").unlink()
    config = json.loads((old / "config.json").read_text())
    config["calibration"] = {"kind": "table", "confidence": [0, 1], "probability": [0.5, 0.9]}
    (old / "config.json").write_text(json.dumps(config))
    words = ["export", "--recogniser", str(old), "--finder", str(old), "--output", str(tmp_path / "new")]
    assert main(words) == 0
    assert "MB), read back and compared" in capsys.readouterr().out
    assert bundle_problems(tmp_path / "new", fast=False) == []
    assert read_config(tmp_path / "new")["calibration"] == config["calibration"]
    card = (tmp_path / "new" / "MODEL_CARD.md").read_text()
    assert card.startswith("# Model card") and card.count("## Size and latency") == 1


def test_two_bundles_need_a_data_note(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "--recogniser", str(bundle), "--finder", "default", "--output", str(tmp_path / "new")]
    assert main(words) == 1
    assert "--data-note" in capsys.readouterr().err


def test_a_damaged_bundle_gives_no_network(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "damaged")
    (tmp_path / "damaged" / "finder" / "saved_model.pb").write_bytes(b"")
    trained = TrainedRecogniser(bundle.parent / "r.weights.h5", RECOGNISER, AB)
    with pytest.raises(BadModel, match=r"finder/saved_model\.pb differs"):
        export_bundle(trained, tmp_path / "damaged", {}, "a card", tmp_path / "new")
    assert not (tmp_path / "new").exists()
