import json
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ocr_model.bundle import (
    CHECKSUMS,
    bundle_digest,
    calibration_curve,
    differing_files,
    load_bundle,
    write_checksums,
)
from ocr_model.errors import BadModel
from ocr_model.self_check import FOLDER, character_error_rate, read_line_images, self_check, write_self_check
from tests.tiny_bundle import copy_of_bundle, drawn, tiny_bundle


def test_a_fresh_bundle_is_whole_and_passes_its_self_check() -> None:
    bundle = load_bundle(tiny_bundle())
    assert differing_files(bundle.path) == []
    assert self_check(bundle, bundle.path / FOLDER) == []


def test_the_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"1")
    write_checksums(tmp_path)
    command = ["sha256sum", "--strict", "--check", CHECKSUMS]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_every_difference_of_files_is_named(tmp_path: Path) -> None:
    bundle = copy_of_bundle(tmp_path / "bundle")
    (bundle / "alphabet.json").unlink()
    (bundle / "MODEL_CARD.md").write_text("another")
    (bundle / "new").write_text("new")
    assert differing_files(bundle) == ["MODEL_CARD.md differs", "alphabet.json is missing", "new is not listed"]


def test_a_bundle_without_checksums_loads_and_cannot_be_compared(tmp_path: Path) -> None:
    bundle = copy_of_bundle(tmp_path / "bundle")
    (bundle / CHECKSUMS).unlink()
    assert load_bundle(bundle, "float32").digest == bundle_digest(bundle)
    with pytest.raises(BadModel, match="has no SHA256SUMS"):
        differing_files(bundle)


def test_changed_weights_are_not_loaded_but_a_changed_card_is(tmp_path: Path) -> None:
    bundle = copy_of_bundle(tmp_path / "bundle")
    (bundle / "MODEL_CARD.md").write_text("read more at …")
    load_bundle(bundle, "float32")
    weights = bundle / "recogniser" / "variables" / "variables.data-00000-of-00001"
    weights.write_bytes(b"\1" + weights.read_bytes()[1:])
    with pytest.raises(BadModel, match=r"variables\.data-00000-of-00001 differs"):
        load_bundle(bundle, "float32")


@pytest.mark.parametrize("content", ["", "not a list", "abc  name"])
def test_what_is_no_list_of_checksums_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / CHECKSUMS).write_text(content)
    with pytest.raises(BadModel, match="no list of checksums"):
        differing_files(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("line_height_px", 48, "48 px height, this code makes 40"), ("normalisation", "otsu", "normalised by 'otsu'")],
)
def test_a_bundle_for_other_line_images_is_not_loaded(tmp_path: Path, key: str, value: object, message: str) -> None:
    bundle = copy_of_bundle(tmp_path / "bundle")
    config = json.loads((bundle / "config.json").read_text())
    config["recogniser"][key] = value
    (bundle / "config.json").write_text(json.dumps(config))
    write_checksums(bundle)
    with pytest.raises(BadModel, match=message):
        load_bundle(bundle)


def test_lines_prepared_otherwise_are_noticed(tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle(), "float32")
    write_self_check(bundle, [(drawn("ab"), "ab")], tmp_path)
    image = cv2.imread(str(tmp_path / "01.line.png"), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    cv2.imwrite(str(tmp_path / "01.line.png"), 255 - image)
    assert "normalised otherwise" in self_check(bundle, tmp_path)[0]
    cv2.imwrite(str(tmp_path / "01.line.png"), image[:32])
    assert "the model expects 32 x" in self_check(bundle, tmp_path)[0]


def test_a_network_that_reads_otherwise_is_noticed(tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle(), "float32")

    def steps(lines: np.ndarray, label: int, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        classes = np.zeros((len(lines), lines.shape[2] // 4), np.int32)
        classes[:, 2] = label
        return classes, np.full(classes.shape, confidence, np.float32)

    reads_a = replace(bundle, read_lines=lambda lines: steps(lines, 2, 0.9))
    write_self_check(reads_a, [(drawn("a"), "a")], tmp_path)
    assert self_check(reads_a, tmp_path) == []
    reads_b = replace(bundle, read_lines=lambda lines: steps(lines, 3, 0.9))
    cer, otherwise = self_check(reads_b, tmp_path)
    assert "is 1.000, at export it was 0.000" in cer
    assert "100.0 % of the characters" in otherwise
    (unsure,) = self_check(replace(bundle, read_lines=lambda lines: steps(lines, 2, 0.5)), tmp_path)
    assert "confidence on its check lines is 0.50, at export it was 0.90" in unsure


def test_a_damaged_self_check_is_an_error_of_the_model(tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle(), "float32")
    with pytest.raises(BadModel, match="no self-check"):
        self_check(bundle, tmp_path)
    write_self_check(bundle, [(drawn("a"), "a")], tmp_path)
    (tmp_path / "01.png").write_bytes(b"")
    with pytest.raises(BadModel, match=r"01\.png is missing or no picture"):
        self_check(bundle, tmp_path)


def test_a_line_reads_the_same_among_others() -> None:
    bundle = load_bundle(tiny_bundle(), "float32")
    strips = [drawn("ab"), drawn("abba b"), drawn("b")]
    assert read_line_images(bundle, strips) == [read_line_images(bundle, [strip])[0] for strip in strips]


def test_the_error_rate_of_nothing_is_zero() -> None:
    assert character_error_rate([], []) == 0


def test_an_empty_calibration_changes_nothing() -> None:
    confidences = np.float32([0.2, 0.9])
    assert calibration_curve({})(confidences) is confidences
    assert calibration_curve({"calibration": None})(confidences) is confidences


def test_a_bundle_gives_calibrated_confidences(tmp_path: Path) -> None:
    bundle = copy_of_bundle(tmp_path / "bundle")
    config = json.loads((bundle / "config.json").read_text())
    config["calibration"] = {"kind": "table", "confidence": [0, 1], "probability": [0.25, 0.75]}
    (bundle / "config.json").write_text(json.dumps(config))
    write_checksums(bundle)
    lines = np.zeros((1, 40, 64, 1), np.uint8)
    _, plain = load_bundle(tiny_bundle(), "float32").read_lines(lines)
    _, calibrated = load_bundle(bundle, "float32").read_lines(lines)
    np.testing.assert_allclose(calibrated, 0.25 + 0.5 * plain, atol=1e-6)
    assert calibrated.dtype == np.float32


@pytest.mark.parametrize(
    "slot",
    [
        3,
        {"kind": "temperature", "confidence": [0, 1], "probability": [0, 1]},
        {"kind": "table", "confidence": [0, 1]},
        {"kind": "table", "confidence": [0, 1], "probability": [0.9, 0.1]},
        {"kind": "table", "confidence": [0.5], "probability": [0.5]},
        {"kind": "table", "confidence": [0, 2], "probability": [0, 1]},
    ],
)
def test_a_calibration_that_is_no_rising_curve_is_refused(slot: object) -> None:
    with pytest.raises(BadModel, match="calibration cannot be used"):
        calibration_curve({"calibration": slot})
