"""Training of the wear GAN: data, networks, step, checkpoints, and the checks that it neither collapses nor blots.

`train_wear` first. The step is `trainer.wear.step`; run folder, checkpoints and interruption are those of the loop.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ocr_model.alphabet import Alphabet
from ocr_model.bundle import Bundle, load_bundle
from ocr_model.ctc import greedy, text_of
from ocr_model.errors import BadArgument, PagemillError
from ocr_model.examples import is_validation
from trainer.checkpoints import Progress, write_atomically
from trainer.export import recogniser_config
from trainer.interruption import Interrupted, StopRequest
from trainer.loop import PRECISIONS, LoopConfig, LossNotFinite, Ways, learning_rate_at
from trainer.optimiser import AdamW
from trainer.run_folder import RunFolder, environment
from trainer.schedule import momentum_at
from trainer.start_model import kept_weights, network_of
from trainer.strategy import is_chief, open_strategy, together
from trainer.synthesis.damage import apply_damage, draw_damage, in_place
from trainer.synthesis.fonts import FontCase, find_fonts
from trainer.synthesis.text import TextSource
from trainer.wear.lines import (
    CleanWindow,
    RealStrip,
    WearData,
    batches,
    drawn_windows,
    guessed_ink,
    labels_of,
    load_strips,
    long_enough,
    noise_for,
    real_window,
    reasons_of,
)
from trainer.wear.losses import as_read, only_seen, split_style
from trainer.wear.metrics import diversity, frechet_distance, legible_share, look_of
from trainer.wear.model import export_wear
from trainer.wear.networks import WIDTH_MULTIPLE_PX, WearNetworks
from trainer.wear.sheets import as_grey, sheet
from trainer.wear.step import LossWeights, Networks, Outcome, Together, WearStep

Grey = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]


class WearFailed(PagemillError):
    """The generator has collapsed to one look, or what it wears cannot be read any more."""

    exit_code = 5


@dataclass(frozen=True)
class WearLoop:
    """How long and how fast to learn.

    Attributes:
        steps: steps in all.
        learning_rate: of generator and encoder, at its peak; judge_rate: of the discriminator.
        warmup_steps: of both; then a half cosine, as `trainer.loop.learning_rate_at`.
        ema: momentum of the averaged weights, which are validated and kept.
        clip_norm: global norm that the gradients of each optimiser are clipped to.
        validate_every: steps between validations, each with a checkpoint and a sample sheet.
        compared: lines of each kind that a validation compares.
        grace: validations before collapse and illegibility end the run.
        least_legible: share of worn lines that must be read with a CER under 5 %.
        least_diversity: of the styles, against real lines; see `trainer.wear.metrics.diversity`.
        seed: of initialisation.
    """

    steps: int = 3000
    learning_rate: float = 1e-3
    judge_rate: float = 6e-4
    warmup_steps: int = 100
    ema: float = 0.995
    clip_norm: float = 5.0
    validate_every: int = 250
    compared: int = 320
    grace: int = 2
    least_legible: float = 0.5
    least_diversity: float = 0.15
    seed: int = 1
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        if self.compared < 16:
            raise BadArgument(f"{self.compared} compared lines", "compare 16 or more, better 300")


@dataclass(frozen=True)
class WearTraining:
    """All that decides a run."""

    data: WearData
    loop: WearLoop = field(default_factory=WearLoop)
    networks: WearNetworks = field(default_factory=WearNetworks)
    weights: LossWeights = field(default_factory=LossWeights)
    bundle: Path | None = None

    def __post_init__(self) -> None:
        width = self.data.crop_width_px
        if width < 64 or width % WIDTH_MULTIPLE_PX:
            raise BadArgument(f"crop width {width} px", f"a multiple of {WIDTH_MULTIPLE_PX} from 64 on")
        if self.data.batch < 2:
            raise BadArgument(f"batch {self.data.batch}", "half of it has drawn styles, half real ones: 2 or more")


def reading_network(bundle: Bundle) -> keras.Model:
    """The bundle's recogniser as a function that a gradient passes through.

    Returns:
        [B, 40, W, 1] float, 0 paper to 1 ink → features [B, W/4, F] and logits [B, W/4, classes].
    """
    config = recogniser_config(bundle.config)
    model, _ = network_of(kept_weights(bundle.path), config, bundle.alphabet, bundle.alphabet)
    return opened(model)


def opened(recogniser: keras.Model) -> keras.Model:
    """A recogniser that begins after its rescaling of bytes, and tells the features before its last layer too."""
    recogniser.trainable = False
    squeezed = recogniser.layers[-1](recogniser.get_layer("scores").input)
    return keras.Model(recogniser.layers[1].output, [squeezed, recogniser.output], name="reads")


def train_wear(config: WearTraining, output: Path, ways: Ways = Ways()) -> dict[str, float]:
    """Learns how real lines are worn, or goes on with the run in `output`.

    Leaves there what `trainer.run_folder.RunFolder` describes, the best weights being those of generator and encoder;
    `sheets/STEP.png`, clean | worn in several styles | real; and at the end `exported`, see `trainer.wear.model`.

    Returns:
        The figures of the best validation, which is that of the lowest Fréchet distance over the share of lines read.

    Raises:
        BadInput: too few real lines; `output` holds another run.
        BadArgument: the batch cannot be divided among the replicas; an unknown precision or device.
        WearFailed: collapse or illegibility, in two validations after each other.
        LossNotFinite: the checkpoints on disk are those of before.
        Interrupted: SIGTERM or Ctrl-C; a checkpoint of the last step is written.
    """
    if ways.precision not in PRECISIONS or ways.precision == "mixed_float16":
        raise BadArgument(f"precision {ways.precision}", "float32 or mixed_bfloat16")
    strategy = open_strategy(ways.hardware)
    if config.data.batch % (2 * strategy.num_replicas_in_sync):
        raise BadArgument(
            f"a batch of {config.data.batch} for {strategy.num_replicas_in_sync} replicas",
            "half of each part has drawn styles: give a multiple of twice the replicas",
        )
    keras.utils.set_random_seed(config.loop.seed)
    keras.mixed_precision.set_global_policy(ways.precision)
    bundle = load_bundle(config.bundle)
    left_out: Counter[str] = Counter()
    strips = load_strips(config.data.real, config.data.exclude, config.data.at_most, config.data.seed, left_out)
    strips = long_enough(strips, config.data.crop_width_px, left_out=left_out)
    learnt, compared = divided_strips(strips, config.data.validation_share)
    print(f"{len(learnt)} real lines to learn from, {len(compared)} to compare with{reasons_of(left_out)}", flush=True)
    with strategy.scope():
        networks = Networks.build(config.networks, reading_network(bundle))
        makes = AdamW(Together([networks.encoder, networks.generator]), config.loop.weight_decay, None, 0.5, 0.99)
        judges = AdamW(networks.discriminator, config.loop.weight_decay, None, 0.5, 0.99)
    run = RunFolder(output, ways.keep, is_chief(strategy))
    about = {"wear": asdict(config), "precision": ways.precision, "lines": len(learnt), "bundle": bundle.digest}
    run.start(about, environment(strategy))
    step = WearStep(strategy, networks, makes, judges, config.weights, config.loop.clip_norm)
    texts, fonts = TextSource.load(config.data.text), FontCase(find_fonts())
    check = WearCheck.drawn(config, learnt, compared, texts, fonts, bundle.alphabet)
    with StopRequest() as stop:
        return _WearRun(config, run, networks, step, check, stop).finish(learnt, texts, fonts, bundle.alphabet)


def divided_strips(strips: list[RealStrip], share: float) -> tuple[list[RealStrip], list[RealStrip]]:
    """Lines to learn from and lines to compare with, of other documents where there are enough of them."""
    held = [is_validation(strip.document, share) for strip in strips]
    if not 0.02 <= np.mean(held) <= 0.5:  # few documents: by line
        held = [i % max(2, round(1 / share)) == 0 for i in range(len(strips))]
    sides: tuple[list[RealStrip], list[RealStrip]] = ([], [])
    for strip, is_held in zip(strips, held, strict=True):
        sides[is_held].append(strip)
    return sides


# ---- validation


@dataclass
class WearCheck:
    """What worn lines are compared with: the same in every validation.

    How far from real lines is measured on the ink of real lines, so that both say the same: what else texts and fonts
    change is more than what wear does, and would hide it.

    Attributes:
        windows: clean ones, which must stay legible.
        real: [N, 40, W] uint8 of held-out documents; guessed: [N, 40, W] float32, their ink by `guessed_ink`.
        damaged: [N, 40, W] uint8, that ink after hand-written damage.
        models: [N, 40, W] uint8 of documents that are learnt from: they give the styles.
        noise: [N, 40, W, 2].
    """

    windows: list[CleanWindow]
    real: Grey
    guessed: Array
    damaged: Grey
    models: Grey
    noise: Array
    alphabet: Alphabet
    seed: int
    _of_real: dict[str, npt.NDArray[np.floating]] = field(default_factory=dict)

    @classmethod
    def drawn(
        cls,
        config: WearTraining,
        learnt: list[RealStrip],
        strips: list[RealStrip],
        texts: TextSource,
        fonts: FontCase,
        alphabet: Alphabet,
    ) -> WearCheck:
        rng = np.random.default_rng([config.data.seed, 999_983])
        count, width = config.loop.compared, config.data.crop_width_px
        windows = drawn_windows(rng, texts, fonts, width, count)
        worded = sum(bool(window.text) for window in windows)
        if worded < count / 4:
            raise BadArgument(f"{worded} of {count} windows of {width} px hold a whole word", "take wider ones")
        real = np.stack([real_window(rng, strips[int(rng.integers(len(strips)))], width) for _ in range(count)])
        guessed = np.stack([guessed_ink(np.ascontiguousarray(grey)) for grey in real])
        damaged = np.stack([apply_damage(ink, in_place(draw_damage(rng))) for ink in guessed])
        models = np.stack([real_window(rng, learnt[int(rng.integers(len(learnt)))], width) for _ in range(count)])
        return cls(windows, real, guessed, damaged, models, noise_for(rng, count, width), alphabet, config.data.seed)

    def __call__(self, networks: Networks) -> dict[str, float]:
        """`frechet` to held-out real lines, beside that of damaged lines; `diversity`, `legible`, and `score`."""
        styles = self.styles(networks, self.models)
        readings = self.read(networks, self.worn(networks, styles))
        features = _features(
            networks, _in_parts(networks.generator, self.guessed[..., None], styles, self.noise)[..., 0]
        )
        if not self._of_real:
            for name, lines in (("real", self.real), ("damaged", self.damaged)):
                self._of_real[name] = _features(networks, lines / np.float32(255))
            self._of_real["look"] = look_of(self.real / 255)
        read = [(w.text, r) for w, r in zip(self.windows, readings, strict=True) if w.text]
        share = legible_share([text for text, _ in read], [text for _, text in read])
        frechet = frechet_distance(features, self._of_real["real"])
        return {
            "score": frechet / max(share, 1e-3),
            "frechet": frechet,
            "frechet_damaged": frechet_distance(self._of_real["damaged"], self._of_real["real"]),
            "diversity": self.diversity(networks),
            "legible": share,
        }

    def styles(self, networks: Networks, real: Grey) -> Array:
        """[N, Z] float32 of real windows [N, 40, W]."""
        grey = (real.astype(np.float32) / 255)[..., None]
        parts = [networks.encoder(grey[i : i + 16], training=False) for i in range(0, len(grey), 16)]
        return np.concatenate([np.asarray(split_style(part)[0], np.float32) for part in parts])

    def worn(self, networks: Networks, styles: Array, windows: slice = slice(None)) -> Array:
        """[N, 40, W] float32 of 0 to 1."""
        ink = np.stack([window.ink for window in self.windows[windows]])[..., None]
        return _in_parts(networks.generator, ink, styles, self.noise[windows])[..., 0]

    def read(self, networks: Networks, grey: npt.NDArray[np.floating]) -> list[str]:
        """What is read in [N, 40, W] of the words that stand whole in their windows."""
        seen = labels_of(self.windows, self.alphabet)["seen"]
        texts = []
        for i in range(0, len(grey), 16):
            logits = networks.reads(as_read(tf.constant(grey[i : i + 16, ..., None], tf.float32)), training=False)[1]
            chances = tf.nn.softmax(only_seen(logits, tf.constant(seen[i : i + 16]))).numpy()
            texts += [text_of(greedy(row.argmax(1), row.max(1), self.alphabet)) for row in chances]
        return texts

    def diversity(self, networks: Networks, texts: int = 8, styles: int = 12) -> float:
        """See `trainer.wear.metrics.diversity`, of plain measures of the look."""
        texts = min(texts, len(self.windows))
        drawn = self.styles(networks, self.models[:styles])
        worn = [self.worn(networks, np.tile(z, (texts, 1)), slice(0, texts)) for z in drawn]
        looks = np.stack([look_of(w) for w in worn], axis=1)
        return diversity(looks, self._of_real["look"])

    def sheet(self, networks: Networks, rows: int = 10) -> Grey:
        """Clean | worn in the styles of three learnt lines | worn like the real line beside | that real line."""
        rows = min(rows, len(self.windows))
        first = slice(0, rows)
        clean = [255 - as_grey(window.ink) for window in self.windows[first]]
        columns: list[tuple[str, list[Grey]]] = [("clean", clean)]
        for i in range(3):
            worn = self.worn(networks, self.styles(networks, np.roll(self.models, i * rows, axis=0)[first]), first)
            columns.append((f"drawn style {i + 1}", [as_grey(image) for image in worn]))
        own = self.styles(networks, self.real[first])
        columns.append(("style of the real line", [as_grey(image) for image in self.worn(networks, own, first)]))
        columns.append(("real", list(self.real[first])))
        return sheet(columns)


def _features(networks: Networks, grey: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """[N, F] of [N, 40, W]: means of the recogniser's features along the lines."""
    found = []
    for i in range(0, len(grey), 16):
        maps = networks.reads(as_read(tf.constant(grey[i : i + 16, ..., None], tf.float32)), training=False)[0]
        found.append(tf.reduce_mean(tf.cast(maps, tf.float32), axis=1).numpy())
    return np.concatenate(found)


def _in_parts(network: keras.Model, *inputs: Array, size: int = 16) -> Array:
    parts = [network([a[i : i + size] for a in inputs], training=False) for i in range(0, len(inputs[0]), size)]
    return np.concatenate([np.asarray(part, np.float32) for part in parts])


def verdict(figures: dict[str, float], loop: WearLoop) -> str:
    """What is wrong with a generator, or nothing.

    >>> verdict({"legible": 0.9, "diversity": 0.01}, WearLoop())
    'all styles look alike: diversity 0.010, at least 0.15 is expected'
    """
    if figures["legible"] < loop.least_legible:
        return (
            f"worn lines cannot be read: {100 * figures['legible']:.0f} % with a CER under 5 %, at least "
            f"{100 * loop.least_legible:.0f} % are expected"
        )
    if figures["diversity"] < loop.least_diversity:
        return (
            f"all styles look alike: diversity {figures['diversity']:.3f}, at least {loop.least_diversity} is expected"
        )
    return ""


# ---- the run


@dataclass
class _WearRun:
    """A run under way."""

    config: WearTraining
    run: RunFolder
    networks: Networks
    step: WearStep
    check: WearCheck
    stop: StopRequest
    _sums: Counter[str] = field(default_factory=Counter)

    def finish(
        self, strips: list[RealStrip], texts: TextSource, fonts: FontCase, alphabet: Alphabet
    ) -> dict[str, float]:
        progress = self.run.checkpoints.restore(self._variables()) or Progress()
        self.run.go_back_to(progress.step, progress.validated)
        if progress.step:
            print(f"goes on after step {progress.step}", flush=True)
        loop = self.config.loop
        if progress.validated < progress.step and progress.step % loop.validate_every == 0:
            self._validate(progress)
        size = self.config.networks.style
        with contextlib.closing(
            batches(self.config.data, strips, texts, fonts, alphabet, size, progress.place)
        ) as stream:
            self._learn_from(stream, progress)
        if not progress.best:
            raise WearFailed(
                "no validation was good enough to be kept", "look at the sheets of the run; take more steps"
            )
        if self.run.writes:
            about = {"training": asdict(self.config), "figures": progress.best}
            export_wear(self.config.networks, self._kept(), strips, about, self.run.path / "exported")
        return progress.best

    def _kept(self) -> dict[str, Path]:
        return {name: self.run.path / f"{name}.weights.h5" for name in ("generator", "encoder")}

    def _learn_from(self, stream: Iterator[tuple[dict[str, np.ndarray], dict[str, int]]], progress: Progress) -> None:
        loop = self.config.loop
        while progress.step < loop.steps:
            began = time.monotonic()
            batch, place = next(stream)
            outcome = self._learn(progress, batch)
            progress.place = place
            progress.seconds += time.monotonic() - began
            if progress.step % loop.validate_every == 0 or progress.step == loop.steps:
                self._save(progress)
                self._validate(progress)
            if outcome.stop and progress.step < loop.steps:
                self._save(progress)
                raise Interrupted(f"stopped after step {progress.step}", "the same command goes on from there")

    def _learn(self, progress: Progress, batch: dict[str, np.ndarray]) -> Outcome:
        loop, at = self.config.loop, progress.step
        factor = learning_rate_at(at, LoopConfig(loop.steps, 1.0, loop.warmup_steps))
        rates = (loop.learning_rate * factor, loop.judge_rate * factor)
        penalised = at % self.config.weights.penalty_every == 0
        with together(self.step.strategy):
            outcome = self.step(batch, rates, momentum_at(at + 1, loop.ema), penalised, bool(self.stop))
        if not outcome.good:
            raise LossNotFinite(
                f"step {at + 1}: losses {outcome.losses}, gradient norms {outcome.norms}",
                "lower --learning-rate; the last checkpoint is from before",
            )
        progress.step += 1
        progress.losses += 1
        self._sums.update(outcome.losses)
        self._sums["penalised"] += penalised
        self.run.log_step(step=progress.step, norm=outcome.norms[0], judge_norm=outcome.norms[1], **outcome.losses)
        return outcome

    def _save(self, progress: Progress) -> None:
        self.run.flush()
        if self.run.writes:
            self.run.checkpoints.save(progress, self._variables())

    def _variables(self) -> dict[str, tf.Variable]:
        networks = {name: getattr(self.networks, name) for name in ("encoder", "generator", "discriminator")}
        named = {f"{name}/{i}": v.value for name, n in networks.items() for i, v in enumerate(n.variables)}
        for name, optimiser in (("makes", self.step.makes), ("judges", self.step.judges)):
            named |= {f"{name}/{slot}": v for slot, v in optimiser.named_variables().items()}
        return named

    def _validate(self, progress: Progress) -> None:
        """Compares, draws the sheet, keeps the best, and ends the run where it has failed twice."""
        self.step.makes.swap()
        with self.stop.at_once():
            figures = self.check(self.networks)
            picture = self.check.sheet(self.networks) if self.run.writes else None
        problem = verdict(figures, self.config.loop)
        if not problem and (not progress.best or figures["score"] <= progress.best["score"]):
            for name, path in self._kept().items():
                self.run.save_weights(getattr(self.networks, name), path)
            progress.best = {"step": float(progress.step), **figures}
        self.step.makes.swap()
        progress.validated = progress.step
        progress.waited = progress.waited + 1 if problem else 0
        self._log(progress, figures, picture)
        loop = self.config.loop
        if problem and progress.waited >= 2 and progress.step > loop.grace * loop.validate_every:
            raise WearFailed(
                f"step {progress.step}: {problem}",
                "look at the sheets of the run; more lines, more steps, or another weight of the losses may help",
            )
        if problem:
            print(f"step {progress.step}: {problem}", flush=True)

    def _log(self, progress: Progress, figures: dict[str, float], picture: Grey | None) -> None:
        penalised = max(1, self._sums.pop("penalised", 1))
        means = {k: v / (penalised if k == "penalty" else max(1, progress.losses)) for k, v in self._sums.items()}
        self._sums.clear()
        progress.losses = 0
        self.run.log(step=progress.step, seconds=round(progress.seconds, 1), **figures, **means)
        if picture is not None:
            folder = self.run.path / "sheets"
            folder.mkdir(exist_ok=True)
            _, png = cv2.imencode(".png", picture)
            write_atomically(folder / f"{progress.step:06d}.png", lambda path: path.write_bytes(png.tobytes()))
            self.run.draw(progress.step, {**figures, **means}, [("clean | worn | real", picture)])
