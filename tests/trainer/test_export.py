import json
from pathlib import Path

import numpy as np
import pytest

from ocr_model.alphabet import Alphabet
from ocr_model.bundle import bundle_digest, load_bundle, read_config
from ocr_model.errors import BadArgument, BadModel
from ocr_model.finder import FinderConfig, build_finder
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from trainer.export import export_bundle

AB = Alphabet(" ab")
RECOGNISER = RecogniserConfig(AB.classes, (2, 2, 3, 3), 4, 2)
FINDER = FinderConfig((2, 3, 4, 5), (1, 2))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    build_recogniser(RECOGNISER).save_weights(folder / "r.weights.h5")
    build_finder(FINDER).save_weights(folder / "f.weights.h5")
    export_bundle(
        folder / "r.weights.h5",
        RECOGNISER,
        folder / "f.weights.h5",
        FINDER,
        AB,
        {"seed": 1},
        "a card",
        folder / "bundle",
    )
    return folder / "bundle"


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
