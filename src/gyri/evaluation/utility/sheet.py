"""The sheet of a study: every arm's measures, every gain, and the verdicts in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np

from gyri.evaluation.utility.arms import (
    AUGMENTED,
    CONTROLS,
    REAL,
    SYNTHETIC_ONLY,
    Arm,
    all_arms,
    balanced,
    mixed,
)
from gyri.evaluation.utility.leaks import TAG
from gyri.evaluation.utility.measures import FloatArray, Measure, measures
from gyri.evaluation.utility.statistics import (
    Decision,
    Draws,
    Gain,
    Spread,
    decide,
    estimate,
    holm,
)
from gyri.evaluation.utility.study import Cell, Result, Study
from gyri.evaluation.utility.tasks import TISSUE
from gyri.runtime.seeding import numpy_rng

SCHEMA = "gyri-utility-1"
RULE = (
    "“helps”: the 95 % interval of the gain lies above 0 against R + augmentation and against "
    "R duplicated, also after Holm's adjustment over alpha. “no harm”: both intervals lie above "
    "minus the margin. Else “not shown”, which is no proof of harm."
)
BALANCE_RULE = (
    "Balancing with S: the same rule, against every other way of balancing that was asked for, or "
    "against R where none was."
)


@dataclass(frozen=True)
class Verdict:
    """What may be said of one arm at one fraction.

    Parameters
    ----------
    gains : on which it rests.
    leaks : reasons for the tag LEAKY; empty for none.
    text : a sentence or two.
    """

    arm: str
    fraction: float
    decision: Decision
    gains: list[Gain]
    leaks: list[str]
    text: str


class Analysis:
    """Turns a study's results into numbers with intervals.

    Parameters
    ----------
    study : after `Study.run`.
    """

    def __init__(self, study: Study) -> None:
        self.study, self.plan = study, study.plan
        self.measures = measures(study.task)
        self.main = self.measures[0]
        self.minimum = self.main.minimum if self.plan.minimum is None else self.plan.minimum
        self.margin = self.minimum if self.plan.margin is None else self.plan.margin
        self._draws: dict[bool, Draws] = {}
        self._spreads: dict[tuple[str, Arm, float], Spread] = {}

    def draws(self, arm: Arm) -> Draws:
        """Return the resamples of the cases that an arm is asked about."""
        if arm.on_synthetic not in self._draws:
            rng = numpy_rng("utility", self.plan.seed, "bootstrap", int(arm.on_synthetic))
            ids = self.study.asked(arm).subjects
            self._draws[arm.on_synthetic] = Draws.make(
                ids, self.plan.seeds, self.plan.resamples, rng
            )
        return self._draws[arm.on_synthetic]

    def found(self, arm: Arm, fraction: float) -> list[Result]:
        """Return the results of all seeds, or none where a seed was refused."""
        cells = [Cell(arm, fraction, seed) for seed in range(self.plan.seeds)]
        results = [self.study.results[c] for c in cells if c in self.study.results]
        return results if len(results) == len(cells) else []

    def spread(self, measure: Measure, arm: Arm, fraction: float) -> Spread:
        """Return a measure of an arm at every seed under the shared resamples."""
        key = (measure.name, arm, fraction)
        if key not in self._spreads:
            target, results = self.study.asked(arm).target, self.found(arm, fraction)

            def of_seeds(weights: FloatArray) -> FloatArray:
                return np.stack([measure.weighted(r.answers, target, weights) for r in results])

            self._spreads[key] = Spread.of(of_seeds, self.draws(arm))
        return self._spreads[key]

    def row(self, arm: Arm, fraction: float) -> dict[str, Any] | None:
        """Return an arm's measures at a fraction, None where it was refused."""
        results = self.found(arm, fraction)
        if not results:
            return None
        found = {}
        for measure in self.measures:
            entry = estimate(self.spread(measure, arm, fraction), self.draws(arm))
            found[measure.name] = {"value": entry.value, "low": entry.low, "high": entry.high}
        leaks = list(dict.fromkeys(leak for result in results for leak in result.leaks))
        return {
            "arm": arm.name,
            "fraction": fraction,
            "num_real": results[0].num_real,
            "num_synthetic": results[0].num_synthetic,
            "num_asked": len(self.study.asked(arm)),
            "measures": found,
            "tags": [TAG] if leaks else [],
            "leaks": leaks,
        }

    def gains(
        self, measure: Measure, arms: Sequence[Arm], baseline: Arm, fraction: float
    ) -> list[Gain]:
        """Return the gains of arms over a baseline, adjusted for their number."""
        if not self.found(baseline, fraction):
            return []
        found = {}
        for arm in arms:
            if arm == baseline or not self.found(arm, fraction):
                continue
            ours = self.spread(measure, arm, fraction)
            theirs = self.spread(measure, baseline, fraction)
            found[arm.name] = estimate(ours.gain_over(theirs, measure.sign), self.draws(arm))
        adjusted = holm({name: entry.p_value for name, entry in found.items()})
        return [
            Gain(name, baseline.name, e.value, e.low, e.high, e.p_value, adjusted[name])
            for name, e in found.items()
        ]

    def comparisons(self, measure: Measure, fraction: float) -> list[Gain]:
        """Return every gain of the plan, one of Holm's families after another."""
        alphas = [mixed(alpha) for alpha in self.plan.alphas]
        ways = [balanced(kind) for kind in self.plan.balance]
        found = self.gains(measure, CONTROLS, REAL, fraction)
        for baseline in (REAL, *CONTROLS):
            found += self.gains(measure, alphas, baseline, fraction)
            found += self.gains(measure, [SYNTHETIC_ONLY], baseline, fraction)
        found += self.gains(measure, ways, REAL, fraction)
        others = [balanced(kind) for kind in self.plan.balance if kind != "synthetic"]
        if "synthetic" in self.plan.balance:
            for other in others:
                found += self.gains(measure, [balanced("synthetic")], other, fraction)
        return found

    def verdicts(self, gains: Sequence[Gain], fraction: float) -> list[Verdict]:
        """Apply the rule to every arm that mixes in synthetic cases."""
        controls = [control.name for control in CONTROLS]
        found = [self._verdict(mixed(a), controls, gains, fraction) for a in self.plan.alphas]
        if "synthetic" in self.plan.balance:
            others = [balanced(k).name for k in self.plan.balance if k != "synthetic"]
            arm = balanced("synthetic")
            found.append(self._verdict(arm, others or [REAL.name], gains, fraction))
        return [verdict for verdict in found if verdict is not None]

    def _verdict(
        self, arm: Arm, baselines: Sequence[str], gains: Sequence[Gain], fraction: float
    ) -> Verdict | None:
        own = [g for g in gains if g.arm == arm.name and g.baseline in baselines]
        if len(own) < len(baselines):
            return None
        decision = decide(own, self.margin)
        row = self.found(arm, fraction)
        leaks = list(dict.fromkeys(leak for result in row for leak in result.leaks))
        text = self._words(arm, fraction, decision, own, row[0])
        if leaks:
            text += f" {TAG}."
        return Verdict(arm.name, fraction, decision, own, leaks, text)

    def _words(
        self, arm: Arm, fraction: float, decision: Decision, gains: Sequence[Gain], row: Result
    ) -> str:
        unit = f" {self.main.unit}" if self.main.unit else ""
        against = "; ".join(
            f"{_short(g.value, '+')}{unit} ({_short(g.low)} to {_short(g.high)}) against "
            f"{g.baseline}"
            for g in gains
        )
        text = (
            f"{arm.name}, {fraction:.0%} of TRAIN ({row.num_real} real, {row.num_synthetic} "
            f"synthetic): gain in {self.main.label} {against}."
        )
        worst = min(g.value for g in gains)
        if decision == "helps" and worst < self.minimum:
            text += f" It is smaller than what was called interesting, {self.minimum:g}{unit}."
        lost = [g.baseline for g in gains if g.high < 0]
        if lost:
            text += f" The interval lies below 0 against {' and '.join(lost)}: it hurts."
        return text

    def has_learned(self) -> bool:
        """Whether all of R is shown to do better than one answer for everybody.

        That is the classes' shares in TRAIN, or the median; always true of a segmentation.
        """
        task, material = self.study.task, self.study.material
        fraction = max(self.plan.fractions)
        count = len(material.test)
        if task.kind == "segmentation" or not self.found(REAL, fraction):
            return True
        if task.kind == "regression":
            same = {"prediction": np.full(count, np.median(material.train.target.astype(float)))}
        else:
            shares = np.bincount(material.train.target.astype(int), minlength=len(task.levels))
            same = {"probability": np.tile(shares / shares.sum(), (count, 1))}

        def of_constant(weights: FloatArray) -> FloatArray:
            value = self.main.weighted(same, material.test.target, weights)
            return np.tile(value, (self.plan.seeds, 1))

        draws = self.draws(REAL)
        ours = self.spread(self.main, REAL, fraction)
        found = estimate(ours.gain_over(Spread.of(of_constant, draws), self.main.sign), draws)
        return found.low > 0

    def resolution(self, gains: Sequence[Gain]) -> float | None:
        """Return the median half-width of the gains over the controls; None without one."""
        names = [control.name for control in CONTROLS]
        halves = [(g.high - g.low) / 2 for g in gains if g.baseline in names and g.high > g.low]
        return float(np.median(halves)) if halves else None


def build_sheet(study: Study, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that a finished study says, as plain data.

    Parameters
    ----------
    provenance : entries about cohorts, generators and estimator.
    """
    analysis = Analysis(study)
    plan, task = study.plan, study.task
    rows, gains, verdicts = [], [], []
    main_gains: list[Gain] = []
    for fraction in sorted(plan.fractions):
        arms = all_arms(plan.alphas, plan.balance)
        rows += [r for arm in arms if (r := analysis.row(arm, fraction)) is not None]
        for measure in analysis.measures:
            found = analysis.comparisons(measure, fraction)
            gains += [{"fraction": fraction, "measure": measure.name} | asdict(g) for g in found]
            if measure is analysis.main:
                main_gains = found
                verdicts += analysis.verdicts(found, fraction)
    half_width = analysis.resolution(main_gains)
    sheet = {
        "schema": SCHEMA,
        "task": asdict(task),
        "measures": [
            {"name": m.name, "label": m.label, "unit": m.unit, "better": m.better}
            for m in analysis.measures
        ],
        "minimum": analysis.minimum,
        "margin": analysis.margin,
        "plan": asdict(plan),
        "n": {
            "TRAIN": len(study.material.train),
            "VAL": len(study.material.val),
            "TEST": len(study.material.test),
            "synthetic": sum(len(g.cases) for g in study.material.generated),
            "generators": len(study.material.generated),
        },
        "rows": rows,
        "gains": gains,
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "leaks": _leaks(rows),
        "refused": [
            {"arm": arm, "fraction": fraction, "reason": reason}
            for (arm, fraction), reason in study.refused.items()
        ],
        "half_width": half_width,
        "summary": _summary(analysis, verdicts),
        "limits": _limits(analysis, half_width),
        "rules": [RULE, *([BALANCE_RULE] if plan.balance else [])],
        "provenance": dict(provenance),
    }
    finite: dict[str, Any] = _finite(sheet)
    return finite


def _short(value: float, sign: str = "") -> str:
    """Write a number with three digits; rounding errors about 0 become 0."""
    return format(round(value, 6) + 0.0, f"{sign}.3g")


def _leaks(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return every reason for the tag once, with the fractions it holds at."""
    fractions: dict[str, list[float]] = {}
    for row in rows:
        for text in row["leaks"]:
            held = fractions.setdefault(text, [])
            held += [] if row["fraction"] in held else [row["fraction"]]
    return [{"fractions": held, "text": text} for text, held in fractions.items()]


def _summary(analysis: Analysis, verdicts: Sequence[Verdict]) -> str:
    """Say the verdicts of all fractions in short."""
    task, test = analysis.study.task, len(analysis.study.material.test)
    text = f"Task: {task.name}, tested on {test} real subjects. "
    if not verdicts:
        return text + "No arm with synthetic volumes could be judged; see below why."
    parts = []
    for fraction in sorted({v.fraction for v in verdicts}, reverse=True):
        here = [v for v in verdicts if v.fraction == fraction]
        said = [
            f"{decision}: {', '.join(v.arm for v in here if v.decision == decision)}"
            for decision in get_args(Decision)
            if any(v.decision == decision for v in here)
        ]
        tag = f" ({TAG})" if any(v.leaks for v in here) else ""
        parts.append(f"With {fraction:.0%} of TRAIN{tag}, {'; '.join(said)}.")
    return text + " ".join(parts)


def _limits(analysis: Analysis, half_width: float | None) -> list[str]:
    """Say what the study cannot show."""
    study, plan, unit = analysis.study, analysis.plan, analysis.main.unit
    test, found = len(study.material.test), []
    if half_width is not None:
        text = (
            f"With {test} TEST subjects and {plan.seeds} seeds a gain is known to about "
            f"±{half_width:.2g}{' ' + unit if unit else ''}."
        )
        if half_width > analysis.margin:
            text += (
                f" That is more than the margin of {analysis.margin:g}: neither a gain nor a loss "
                "of that size can be seen here."
            )
            if analysis.margin > 0:
                needed = math.ceil(test * (half_width / analysis.margin) ** 2)
                text += f" It would take about {needed:,} test subjects."
        found.append(text)
    if not analysis.has_learned():
        found.append(
            "The model trained on R is not shown to do better than the same answer for everybody: "
            "what S adds to it says little. Take another estimator, more updates (--steps) or more "
            "test subjects."
        )
    change = analysis.gains(analysis.main, [AUGMENTED], REAL, max(plan.fractions))
    if change and change[0].high < 0:
        found.append(
            "R + augmentation is worse than R here, so it is no hurdle: read the gains over R "
            "duplicated. Networks may need more updates (--steps) before augmentation pays."
        )
    if plan.seeds < 5:
        found.append(f"{plan.seeds} seeds were run; claims need five.")
    if len(study.material.generated) < 2:
        found.append(
            "One trained generator was judged: the intervals hold the classifiers' seeds and the "
            "test subjects, not what another training of the generator would give."
        )
    if study.task.source == TISSUE:
        found.append(
            "The true labels are those of the built-in segmenter, fitted on TRAIN: the overlap "
            "says how well a network imitates it, not how right it is."
        )
    found.append(
        f"Fractions are of the {len(study.material.train)} TRAIN subjects with a known "
        f"{study.task.name}; the {len(study.material.val)} VAL subjects tune every arm alike at "
        "every fraction."
    )
    return found


def _finite(value: Any) -> Any:
    """Replace numbers that JSON does not know by None."""
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
