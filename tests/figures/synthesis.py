"""The figures of the renderer and of `pagemill synthesize`; each is made by a command of its own.

    python -m tests.figures.synthesis rate --text TEXT             lines a CPU second, drawing and damage
    python -m tests.figures.synthesis memory --lines 100000        resident memory after 10,000 lines and at the end
    python -m tests.figures.synthesis boxes --lines 2000           whether every box holds its glyph's ink
    python -m tests.figures.synthesis alphabet --lines 50000       which characters are drawn how often
    python -m tests.figures.synthesis beside --trdg PYTHON --augraphy PYTHON     other generators on the same lines
    python -m tests.figures.synthesis job --lines 4000             `pagemill synthesize`: cost, workers, kill -9
    python -m tests.figures.synthesis sheet --output sheet.png     what lines look like, by kind of damage

`--text` names a folder of text files (default: a built-in word list). `beside` takes interpreters of environments of
their own: `pip install trdg 'pillow<10' 'numpy<2' 'opencv-python<4.11'` in one (TRDG calls what later versions of
Pillow no longer have), `pip install augraphy` in the other. All runs on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ocr_model.errors import BadInput
from ocr_model.record_files import load_manifest
from pipelines.outputs import locked
from tests.figures.ingest import digests, measured
from trainer.synthesis.damage import Damage, apply_damage, displaced, moved_boxes, shift_of
from trainer.synthesis.fonts import KINDS, FontCase, find_fonts
from trainer.synthesis.lines import LineParameters, Mixture, cut, draw_line, draw_line_damage, make_line, sample_lines
from trainer.synthesis.text import TextSource

ROOT = Path(__file__).parents[2]
LOW_PX, HIGH_PX = 32, 48

TRDG = """
import contextlib, json, os, random, sys, time
with contextlib.redirect_stdout(sys.stderr):
    import cv2
    from trdg.generators import GeneratorFromStrings
cv2.setNumThreads(1)
strings, fonts = json.load(open(sys.argv[1])), json.load(open(sys.argv[2]))
random.seed(1)
generator = GeneratorFromStrings(
    strings, count=len(strings), fonts=fonts, size=40, skewing_angle=1, random_skew=True, blur=1, random_blur=True,
    distorsion_type=3, background_type=0)
began, made, failed = time.process_time(), 0, 0
while generator.generated_count < len(strings):
    try:
        next(generator)
        made += 1
    except StopIteration:
        break
    except Exception:  # a text that it cannot draw is its failure, not ours
        failed += 1
print(json.dumps({"cpu_s": time.process_time() - began, "lines": made, "failed": failed}))
"""

AUGRAPHY = """
import contextlib, json, random, sys, time, warnings
warnings.filterwarnings("ignore")
with contextlib.redirect_stdout(sys.stderr):
    import cv2, numpy as np, augraphy
cv2.setNumThreads(1)
lines = [cv2.cvtColor(line, cv2.COLOR_GRAY2BGR) for line in np.load(sys.argv[1], allow_pickle=True).values()]
random.seed(1)
np.random.seed(1)
pipeline = augraphy.default_augraphy_pipeline()
failed = 0
def go(lines):
    global failed
    with contextlib.redirect_stdout(sys.stderr):
        for line in lines:
            try:
                pipeline(line)
            except Exception:
                failed += 1
go(lines[:20])  # what it compiles at its first calls is not counted
failed, began = 0, time.process_time()
go(lines[20:])
print(json.dumps({"cpu_s": time.process_time() - began, "lines": len(lines) - 20, "failed": failed}))
"""


def sources(arguments: argparse.Namespace) -> tuple[TextSource, FontCase]:
    cv2.setNumThreads(1)
    return TextSource.load(arguments.text), FontCase(find_fonts())


def rate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lines a CPU second after a warm-up in which letters are drawn for the first time; and with it."""
    texts, fonts = sources(arguments)
    began = time.process_time()
    for number in range(arguments.warm_up):
        sample_lines(np.random.default_rng([1, number]), texts, fonts, takes=1)
    cold_s = time.process_time() - began
    took, heights = [], []
    for number in range(arguments.lines):
        began = time.process_time()
        ((image, _),) = sample_lines(np.random.default_rng([2, number]), texts, fonts, takes=1)
        took.append(time.process_time() - began)
        heights.append(image.shape[0])
    times, sizes = np.array(took), np.array(heights)
    inside = (sizes >= LOW_PX) & (sizes <= HIGH_PX)
    rounds = [float(len(part) / part.sum()) for part in np.array_split(times[inside], 5)]
    return {
        "lines": arguments.lines,
        "faces": len(fonts.faces),
        "lines_per_cpu_s": round(float(len(times) / times.sum()), 1),
        f"lines_per_cpu_s_{LOW_PX}_to_{HIGH_PX}_px": round(float(inside.sum() / times[inside].sum()), 1),
        "lowest_and_highest_fifth": [round(min(rounds), 1), round(max(rounds), 1)],
        "share_of_these_heights": round(float(inside.mean()), 3),
        "mean_height_px": round(float(sizes.mean()), 1),
        "warm_up": {"lines": arguments.warm_up, "lines_per_cpu_s": round(arguments.warm_up / cold_s, 1)},
    }


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Resident memory along the way."""
    texts, fonts = sources(arguments)
    began, sizes = time.process_time(), {}
    for number in range(arguments.lines):
        sample_lines(np.random.default_rng([1, number]), texts, fonts, takes=1)
        if (number + 1) % 10_000 == 0:
            sizes[number + 1] = resident_mb()
    first, last = sizes[10_000], sizes[max(sizes)]
    return {
        "mb_after_lines": sizes,
        "last_by_first": round(last / first, 3),
        "lines_per_cpu_s": round(arguments.lines / (time.process_time() - began), 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def boxes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every glyph of drawn lines by itself, moved as its line is moved, against its box."""
    texts, fonts = sources(arguments)
    counts: Counter[str] = Counter()
    for number in range(arguments.lines):
        rng = np.random.default_rng([3, number])
        p = draw_line(rng, texts, fonts)
        p = replace(p, text=p.text[:30])
        damage = draw_line_damage(rng, p)
        counts.update(ink_in_boxes(p, damage))
    return {"lines": arguments.lines, **counts}


def ink_in_boxes(p: LineParameters, damage: Damage) -> Counter[str]:
    """Characters of a line by where their ink is: `inside` the box, or `outside`; `cut off` where the crop has none of
    it, `blank` for spaces."""
    moving = Damage(
        seed=1,
        slope=damage.slope,
        wave_px=damage.wave_px,
        phase=damage.phase,
        fold_shift_px=damage.fold_shift_px,
        fold_at=damage.fold_at,
    )
    line = cut(p)
    shift, where = shift_of(moving, line.ink.shape[1]), moved_boxes(line.boxes, moving, line.ink.shape[1])
    counts: Counter[str] = Counter()
    for i, box in enumerate(where):
        ink = displaced(cut(p, only=i).ink, shift)
        if ink.max() < 1e-3:
            counts["blank" if box[0] == box[2] else "cut off"] += 1
            continue
        left, top = np.maximum(np.floor(box[:2]), 0).astype(int)
        right, bottom = np.ceil(box[2:]).astype(int)
        outside = float(ink.sum() - ink[top:bottom, left:right].sum())
        counts["outside" if outside > 1e-2 else "inside"] += 1
    return counts


def alphabet(arguments: argparse.Namespace) -> dict[str, Any]:
    """How often each character of the alphabet is drawn; no picture is made."""
    texts, fonts = sources(arguments)
    seen: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    other_face = 0
    for number in range(arguments.lines):
        p = draw_line(np.random.default_rng([4, number]), texts, fonts)
        seen.update(p.text)
        left_out.update(p.left_out)
        other_face += p.other_face
    counts = {c: seen[c] for c in texts.alphabet.characters}
    rarest = sorted(counts, key=lambda c: counts[c])[:10]
    return {
        "lines": arguments.lines,
        "characters": len(counts),
        "missing": "".join(c for c in counts if not counts[c]),
        "rarest": {c: counts[c] for c in rarest},
        "lines_in_another_face": other_face,
        "left_out": dict(left_out),
    }


def beside(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lines a CPU second of each generator on the same texts and fonts, in turns on the same core.

    TRDG draws, skews, blurs and lays on a noisy background; Augraphy damages our clean lines with its default
    pipeline. The third of the comparisons is both in a row, which is what ours does.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    texts, fonts = sources(arguments)
    drawn = [draw_line(np.random.default_rng([5, n]), texts, fonts) for n in range(40 * arguments.lines)]
    chosen = [p for p in drawn if LOW_PX <= cut(p).ink.shape[0] <= HIGH_PX][: arguments.lines]
    damages = [draw_line_damage(np.random.default_rng([6, n]), p) for n, p in enumerate(chosen)]
    found: dict[str, list[float]] = {"ours": [], "ours, damage only": [], "trdg": [], "augraphy": []}
    failed: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="pagemill-figures-") as folder:
        place = Path(folder)
        (place / "texts.json").write_text(json.dumps([p.text.replace("\t", "    ") for p in chosen]))
        (place / "fonts.json").write_text(json.dumps(sorted({str(p.face.path) for p in chosen})))
        few = chosen[: arguments.few + 20]
        clean = {f"{n:05}": apply_damage(cut(p).ink, Damage(seed=1)) for n, p in enumerate(few)}
        np.savez(place / "lines.npz", **clean)  # type: ignore[arg-type]
        for _ in range(arguments.repeats):
            began = time.process_time()
            for p, damage in zip(chosen, damages, strict=True):
                make_line(p, damage)
            found["ours"].append(len(chosen) / (time.process_time() - began))
            inks = [cut(p).ink for p in chosen]
            began = time.process_time()
            for ink, damage in zip(inks, damages, strict=True):
                apply_damage(ink, damage)
            found["ours, damage only"].append(len(chosen) / (time.process_time() - began))
            for name, python, program, words in (
                ("trdg", arguments.trdg, TRDG, ("texts.json", "fonts.json")),
                ("augraphy", arguments.augraphy, AUGRAPHY, ("lines.npz",)),
            ):
                told = other(python, program, [str(place / word) for word in words])
                found[name].append(told["lines"] / told["cpu_s"])
                failed[name] += int(told["failed"])
    per_s = {name: float(np.median(values)) for name, values in found.items()}
    both = 1 / (1 / per_s["trdg"] + 1 / per_s["augraphy"])
    return {
        "lines": len(chosen),
        "repeats": arguments.repeats,
        "lines_per_cpu_s": {name: round(value, 1) for name, value in per_s.items()},
        "failed": dict(failed),
        "ours_by_trdg": round(per_s["ours"] / per_s["trdg"], 1),
        "our_damage_by_augraphy": round(per_s["ours, damage only"] / per_s["augraphy"], 1),
        "ours_by_both_in_a_row": round(per_s["ours"] / both, 1),
    }


def other(python: str, program: str, words: Sequence[str]) -> dict[str, Any]:
    """What another generator tells.

    Raises:
        SystemExit: it failed.
    """
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")}
    done = subprocess.run([python, "-c", program, *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{python} failed: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """The command with and without the reader, with two workers, and killed at random moments.

    `--read` lines are also read. What starting takes, a run of one line, is taken off the seconds. Memory is told for a
    tenth of the lines, too.
    """
    text = ["--text", str(arguments.text)] if arguments.text else []

    def words(place: Path, *more: str) -> list[str]:
        return [sys.executable, "-m", "pipelines.cli", "synthesize", "--output", str(place), *text, *more]

    blind, lines = ("--max-cer", "none"), ("--lines", str(arguments.lines))
    with tempfile.TemporaryDirectory(prefix="pagemill-figures-") as folder:
        place = Path(folder)
        start = measured(words(place / "start", "--lines", "1", *blind))
        few = measured(words(place / "few", "--lines", str(max(1, arguments.lines // 10)), *blind))
        drawn = measured(words(place / "one", *lines, *blind))
        start_two = measured(words(place / "start-two", "--lines", "1", *blind, "--workers", "2"))
        two = measured(words(place / "two", *lines, *blind, "--workers", "2"))
        start_reading = measured(words(place / "start-reading", "--lines", "1"))
        read = measured(words(place / "read", "--lines", str(arguments.read)))
        kept = load_manifest(place / "read").counts["pages"]["read"]
        rng, kills, same = random.Random(1), 0, 0
        for number in range(arguments.rounds):
            broken = words(place / f"broken{number}", *lines, *blind, "--workers", "2")
            for _ in range(3):
                process = subprocess.Popen(
                    broken, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
                )
                threading.Event().wait(rng.uniform(2.0, arguments.longest_s))
                if process.poll() is None:
                    kills += 1
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                wait_for_lock(place / f"broken{number}")
            measured(broken)
            same += digests(place / f"broken{number}") == digests(place / "one")
        two_same = digests(place / "two") == digests(place / "one")
        size = sum(path.stat().st_size for path in (place / "one").rglob("*.gz"))
    return {
        "lines": arguments.lines,
        "lines_per_cpu_s": round(arguments.lines / (drawn["cpu_s"] - start["cpu_s"]), 1),
        "start_cpu_s": start["cpu_s"],
        "kb_per_line": round(size / arguments.lines / 1000, 1),
        "lines_per_s": round(arguments.lines / (drawn["wall_s"] - start["wall_s"]), 1),
        "largest_process_mb": drawn["largest_process_mb"],
        "largest_process_mb_of_a_tenth": few["largest_process_mb"],
        "two_workers_lines_per_s": round(arguments.lines / (two["wall_s"] - start_two["wall_s"]), 1),
        "two_workers_lines_per_cpu_s": round(arguments.lines / (two["cpu_s"] - start_two["cpu_s"]), 1),
        "two_workers_largest_process_mb": two["largest_process_mb"],
        "two_workers_same_bytes": two_same,
        "rounds": arguments.rounds,
        "kills": kills,
        "rounds_with_same_bytes": same,
        "read": {
            "lines": arguments.read,
            "kept": kept,
            "lines_per_cpu_s": round(arguments.read / (read["cpu_s"] - start_reading["cpu_s"]), 1),
            "start_cpu_s": start_reading["cpu_s"],
        },
    }


def wait_for_lock(output: Path) -> None:
    """Until the child of a launcher that was killed has noticed it."""
    for _ in range(600):
        try:
            with locked(str(output)):
                return
        except BadInput:
            threading.Event().wait(0.1)


def sheet(arguments: argparse.Namespace) -> dict[str, Any]:
    """A PNG: the same line clean and with each damage, then lines as they are drawn."""
    texts, fonts = TextSource.load(arguments.text), FontCase(find_fonts(kinds=KINDS))
    typed = fonts.drawer("typewriter", False)
    face = next((f for f in typed if "courier" in f.name.lower()), typed[0])
    p = LineParameters("Paris, le 12 mars 1938. – Réf. 1420/B", face, 34, seed=4, crop_top=0.25, crop_bottom=0.25)
    book = replace(p, face=fonts.drawer("book", False)[0])
    grey = Damage(seed=5, paper=215, ink=45, blur_px=0.5, noise=4)
    shown: list[tuple[str, LineParameters, Damage]] = [
        ("clean", p, Damage(seed=1)),
        ("uneven strike and baseline", replace(p, jitter=0.03, strike=0.8, side=0.4), grey),
        ("broken and clogged type", replace(p, broken=0.25, clogged=0.3), grey),
        ("neighbours, a loose crop", replace(p, above="gypsy jug quay", below="Habt Ihr", leading=0.85), grey),
        ("underline, form, frame", replace(p, underline=0.06, form_rule=0.04, border=0.05), grey),
        ("stamp", replace(p, stamp=0.5, seed=9), grey),
        ("small capitals", replace(book, small_caps=0.76), grey),
        ("ink spread", p, replace(grey, spread_px=1.6)),
        ("ink loss", p, replace(grey, spread_px=-1.0, mottle=0.5, holes=0.12)),
        ("faded ribbon", p, replace(grey, ribbon=0.75)),
        ("bleed-through", p, replace(grey, bleed=0.45)),
        ("stain", p, replace(grey, stain=0.5, seed=8)),
        ("fold", p, replace(grey, fold=0.8, fold_at=0.4, fold_shift_px=3)),
        ("paper texture and fibres", p, replace(grey, texture=14, fibres=1.5)),
        ("uneven light", p, replace(grey, gradient=60, shadow=0.7)),
        ("slope and curve", p, replace(grey, slope=0.012, wave_px=2.5)),
        ("blur", p, replace(grey, blur_px=1.6, motion_px=3)),
        ("bilevel", p, replace(grey, noise=24, threshold=0.6)),
        ("bilevel, adaptive", p, replace(grey, noise=10, threshold=0.5, adaptive=True)),
        ("JPEG", p, replace(grey, jpeg=12)),
        ("microfilm", p, replace(grey, paper=150, noise=16, grain_px=1.2, scratches=3)),
        ("low resolution", p, replace(grey, resolution=0.4)),
        ("needle printer", p, replace(grey, dots_px=3.2)),
    ]
    left = [tile(make_line(line, damage)[0], name) for name, line, damage in shown]
    mixture = Mixture({"typewriter": 0.3, "book": 0.3, "modern": 0.2, "fraktur": 0.2})
    right = []
    for number in range(10_000):
        rng = np.random.default_rng([arguments.seed, number])
        drawn = draw_line(rng, texts, fonts, mixture)
        image, text, _ = make_line(drawn, draw_line_damage(rng, drawn))
        if 18 < len(text) < 60:
            right.append(tile(image, drawn.face.kind))
        if len(right) == len(left):
            break
    picture = np.hstack([np.vstack(left), np.vstack(right)])
    cv2.imwrite(str(arguments.output), picture // 16 * 17, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return {"sheet": str(arguments.output), "bytes": arguments.output.stat().st_size}


def tile(image: np.ndarray, name: str, width: int = 390, height: int = 30) -> np.ndarray:
    scale = min(height / image.shape[0], width / image.shape[1])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    whole = np.full((height + 6, width + 175), 255, np.uint8)
    whole[3 : 3 + small.shape[0], : small.shape[1]] = small
    cv2.putText(whole, name, (width + 8, 22), (0, 0, 0), cv2.FontFace("sans"), 13, 400)
    return whole


FIGURES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "rate": rate,
    "memory": memory,
    "boxes": boxes,
    "alphabet": alphabet,
    "beside": beside,
    "job": job,
    "sheet": sheet,
}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=tuple(FIGURES))
    parser.add_argument("--text", type=Path, help="folder of text files")
    parser.add_argument("--lines", type=int, default=3000)
    parser.add_argument("--warm-up", type=int, default=3000, help="of rate")
    parser.add_argument("--few", type=int, default=100, help="lines for the slower generator, of beside")
    parser.add_argument("--repeats", type=int, default=3, help="of beside")
    parser.add_argument("--read", type=int, default=1000, help="lines that are also read, of job")
    parser.add_argument("--rounds", type=int, default=3, help="of job")
    parser.add_argument("--longest-s", type=float, default=12.0, help="until a kill, of job")
    parser.add_argument("--trdg", help="the Python of an environment with TRDG")
    parser.add_argument("--augraphy", help="the Python of an environment with Augraphy")
    parser.add_argument("--output", type=Path, default=Path("sheet.png"), help="of sheet")
    parser.add_argument("--seed", type=int, default=1, help="of sheet")
    arguments = parser.parse_args(argv)
    print(json.dumps({arguments.figure: FIGURES[arguments.figure](arguments)}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
