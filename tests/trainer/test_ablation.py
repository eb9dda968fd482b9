import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from ocr_model.alphabet import DEFAULT_ALPHABET
from ocr_model.errors import BadArgument, BadInput
from ocr_model.recogniser import RecogniserConfig
from tests.tiny_bundle import drawn, write_lines
from trainer import ablation
from trainer.ablation import (
    Ablation,
    LineResult,
    Outcome,
    RunResult,
    ablate,
    chosen_real,
    mixed_batches,
    read_result,
    synthetic_pool,
    test_lines,
)
from trainer.ablation_report import difference_of, findings, plot, rate_of, report, table, write_report
from trainer.line_data import RealLine
from trainer.loop import Ways
from trainer.synthesis.fonts import FontCase, find_fonts
from trainer.synthesis.text import TextSource

test_lines.__test__ = False  # type: ignore[attr-defined] - a function under test, not a test

TINY = RecogniserConfig(DEFAULT_ALPHABET.classes, (4, 4, 4, 8), 8, 1)


def result(arm: str, seed: int, *lines: tuple[str, str, int, int]) -> RunResult:
    return RunResult(arm, seed, tuple(LineResult(*line) for line in lines))


def outcome_of(*results: RunResult, trained_on: tuple[str, ...] = ()) -> Outcome:
    arms = tuple(dict.fromkeys(r.arm for r in results))
    config = Ablation(Path("r"), Path("t"), arms=arms)
    return Outcome(config, results, frozenset(trained_on), counts={"real lines": 7})


def pages(edits: int, count: int = 12) -> list[tuple[str, str, int, int]]:
    return [("news", f"p{i}", edits + i % 2, 100) for i in range(count)]


# ---- statistics


def test_the_rate_is_over_all_characters_and_the_mean_of_the_runs() -> None:
    runs = [result("a", 1, ("s", "d", 1, 10), ("s", "e", 5, 90)), result("a", 2, ("s", "d", 3, 10), ("s", "e", 7, 90))]
    assert rate_of(runs, "s").value == pytest.approx(0.08)
    assert rate_of(runs, None) == rate_of(runs, "s")


def test_the_interval_is_that_of_the_mean_of_pages() -> None:
    rng = np.random.default_rng(1)
    lines = [("s", f"p{i}", int(e), 100) for i, e in enumerate(rng.integers(0, 20, 200))]
    rate = rate_of([result("a", 1, *lines)], "s")
    error = 1.96 * np.std([e / 100 for _, _, e, _ in lines]) / 200**0.5
    assert rate.high - rate.value == pytest.approx(error, rel=0.15)
    assert rate.value - rate.low == pytest.approx(error, rel=0.15)


def test_lines_of_one_page_are_not_independent() -> None:
    one_page = [("s", "p", e, 100) for e in range(20)]
    rate = rate_of([result("a", 1, *one_page)], "s")
    assert rate.low == rate.value == rate.high


def test_a_difference_on_every_page_is_shown_although_the_pages_differ() -> None:
    lines = [("s", f"p{i}", 5 * i, 100) for i in range(12)]
    better = [(s, d, max(0, e - 2), n) for s, d, e, n in lines]
    mine, other = [result("a", 1, *better)], [result("b", 1, *lines)]
    value, low, high = difference_of(mine, other, "s")
    assert low <= value <= high < 0
    assert not rate_of(mine, "s").below(rate_of(other, "s"))


# ---- the report


def test_a_gain_and_its_absence_are_both_told() -> None:
    runs = [
        *(result("real only", seed, *pages(20)) for seed in (1, 2)),
        *(result("+ rendered", seed, *pages(20)) for seed in (1, 2)),
        *(result("+ damage", seed, *pages(10)) for seed in (1, 2)),
        *(result("+ wear GAN", seed, *pages(5)) for seed in (1, 2)),
    ]
    told = findings(outcome_of(*runs))
    assert told[0] == (
        "**+ rendered** against real only: lower, with intervals that do not overlap, on no held-out source."
    )
    assert told[1].endswith("on news.") and told[2].endswith("on news.")
    assert "**+ wear GAN** against **+ damage**, page by page: lower on news" in told[4]
    assert "over all lines -5.0 points" in told[4]


def test_a_source_that_was_trained_on_is_not_held_out() -> None:
    runs = [result("real only", 1, *pages(20)), result("+ damage", 1, *pages(10))]
    assert "news †" in table(outcome_of(*runs))
    assert "†" not in table(outcome_of(*runs, trained_on=("news",)))
    assert "no held-out source" in findings(outcome_of(*runs, trained_on=("news",)))[0]


def test_the_report_holds_table_facts_and_plot(tmp_path: Path) -> None:
    outcome = outcome_of(result("real only", 1, *pages(20)), result("+ damage", 1, *pages(10)))
    outcome = replace(outcome, left_out=("+ wear GAN",))
    write_report(outcome, tmp_path / "docs" / "ablation.md")
    text = (tmp_path / "docs" / "ablation.md").read_text()
    assert text == report(outcome, "ablation.svg")
    for part in ("| all | 12 | 12 | 20.5 (", "7 real lines", "1 seeds", "Left out, for want of a wear: + wear GAN"):
        assert part in text
    root = ElementTree.fromstring((tmp_path / "docs" / "ablation.svg").read_text())
    circles = root.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 2 + 2 * 2  # the key, and a mark for each arm in each row
    xs = [float(c.attrib["cx"]) for c in circles[2:]]
    assert xs[0] > xs[1]  # more errors stand further right
    assert plot(outcome) == plot(outcome)


# ---- lines and runs


def test_every_kind_has_the_same_texts() -> None:
    try:
        source = TextSource.load(None), FontCase(find_fonts())
    except BadInput:
        pytest.skip("no fonts installed")
    plain, damaged = (synthetic_pool(kind, 5, *source, None, lambda *_: True) for kind in ("rendered", "damaged"))
    assert [text for _, text in plain] == [text for _, text in damaged]
    assert [i.shape for i, _ in plain] == [i.shape for i, _ in damaged]
    assert any(not np.array_equal(a, b) for (a, _), (b, _) in zip(plain, damaged, strict=True))
    with pytest.raises(BadArgument, match="without a wear"):
        synthetic_pool("worn", 1, *source, None, lambda *_: True)


def test_batches_follow_from_seed_and_place_and_mix_as_asked() -> None:
    config = Ablation(Path("r"), Path("t"), batch_px=600, real_share=0.5)
    real = [RealLine(drawn("ab"), (0, 0, 0, 0), "ab", "s", "d")]
    pool = [(np.zeros((40, 64), np.uint8), "")]
    stream = mixed_batches(config, 1, real, [pool])
    fed = list(islice(stream, 9))
    again = list(islice(mixed_batches(config, 1, real, [pool], fed[4].place), 4))
    for old, new in zip(fed[5:], again, strict=True):
        assert old.place == new.place
        np.testing.assert_array_equal(old.values["inputs"], new.values["inputs"])
    lengths = np.concatenate([batch.values["lengths"] for batch in fed])
    assert 0.25 < (lengths > 0).mean() < 0.75
    only = next(mixed_batches(config, 1, real, []))
    assert (only.values["lengths"] == 2).all()


def test_the_real_lines_are_the_same_in_every_run(tmp_path: Path) -> None:
    write_lines(tmp_path, ["ab", "ba", "aab", "b"] * 6, documents=24)
    config = Ablation(tmp_path, tmp_path, real_lines=5)
    (first, held), (again, _) = chosen_real(config), chosen_real(config)
    assert len(first) == 5 and [x.document for x in first] == [x.document for x in again]
    assert not {x.document for x in first} & {x.document for x in held}


def test_values_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match=r"no arm \+ magic"):
        Ablation(tmp_path, tmp_path, arms=("+ magic",))
    with pytest.raises(BadArgument, match="real share"):
        Ablation(tmp_path, tmp_path, real_share=1.0)
    with pytest.raises(BadArgument, match="every arm needs a wear"):
        ablate(Ablation(tmp_path, tmp_path, arms=("+ wear GAN",)), tmp_path / "out")
    (tmp_path / "result.json").write_text('{"arm": 1')
    with pytest.raises(BadInput, match="delete it"):
        read_result(tmp_path / "result.json")


@pytest.mark.slow
def test_a_finished_run_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(tmp_path / "train", ["ab", "ba", "aab", "b"] * 4, documents=16)
    write_lines(tmp_path / "test", ["ab", "bb", "a"])
    config = Ablation(
        tmp_path / "train", tmp_path / "test", arms=("real only", "+ damage", "+ wear GAN"), seeds=1, real_lines=8,
        synthetic_lines=8, steps=2, batch_px=400, network=TINY,
    )  # fmt: skip
    first = ablate(config, tmp_path / "out", Ways())
    assert [(r.arm, r.seed) for r in first.results] == [("real only", 1), ("+ damage", 1)]
    assert first.left_out == ("+ wear GAN",)
    assert {(x.source, x.length) for x in first.results[0].lines} == {("marks", 2), ("marks", 1)}
    trained = []
    monkeypatch.setattr(ablation, "_trained", lambda c, seed, *_: trained.append(seed) or pytest.fail("again"))
    assert ablate(config, tmp_path / "out", Ways()).results == first.results
    monkeypatch.undo()
    more = ablate(replace(config, seeds=2), tmp_path / "out", Ways())
    assert len(more.results) == 4 and more.results[:2] == first.results
    with pytest.raises(BadInput, match="steps 2, now 3"):
        ablate(replace(config, steps=3), tmp_path / "out", Ways())
