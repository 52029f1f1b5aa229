"""What a study found: every row's scores, gates and cost, anchors, differences of rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gyri.cohort.prepared import PreparedCohort
from gyri.evaluation.scores import Scores
from gyri.runtime.device import machine
from gyri.study.plan import Study, Trial, describe, is_fitted, trials
from gyri.study.trial import SHEET, STAGES, is_finished, read_record, trial_folder

SCHEMA = "gyri-study-1"
TIMELINE = "timeline.jsonl"
"""When each call of the study began and ended."""
MIN_SEEDS = 3
"""Training seeds from which on rows are compared."""
ANCHORS = (
    "ceiling",
    "train_copies",
    "pca_gaussian",
    "blurred",
    "mean_image",
    "phase_random",
    "noise",
)


def collect(study: Study, cohort: PreparedCohort, out: Path) -> dict[str, Any]:
    """Gather whatever is done of a study.

    Parameters
    ----------
    study : the study.
    cohort : the prepared cohort.
    out : its folder.

    Returns
    -------
    dict
        Plain data: ``rows`` with their ``trials`` (state, scores by key, gates, cost) and their
        ``summary`` over seeds, ``anchors`` by key, ``differences`` between rows from three seeds
        on, ``heading``: what may be concluded.
    """
    rows = []
    for row in study.rows:
        recipe = study.recipes[row.name]
        found = [_trial(out, trial) for trial in trials(study, [row], cohort)]
        rows.append(
            {
                "name": row.name,
                "label": row.label or recipe.name,
                "family": row.family,
                "faithful": row.faithful,
                "published": row.published,
                "recipe": recipe.name,
                "conditions": list(recipe.conditions),
                "network_calls": study.calls[row.name],
                "budget": _budget(study, row.name),
                "trials": found,
                "summary": summary([trial for trial in found if trial["state"] == "done"]),
            }
        )
    return {
        "schema": SCHEMA,
        "name": study.name,
        "about": study.about,
        "heading": heading(rows),
        "protocol": describe(study.protocol),
        "data": {
            "cohort": cohort.name,
            "data_hash": cohort.data_hash,
            "split_hash": cohort.split_hash,
            "shape": list(cohort.grid.shape),
            "spacing_mm": list(cohort.grid.spacing_mm),
        },
        "machine": machine(),
        "anchors": _anchors(rows),
        "rows": rows,
        "differences": differences(rows),
    }


def _budget(study: Study, name: str) -> dict[str, Any]:
    training = study.recipes[name].training
    if is_fitted(study.recipes[name]):
        return {"fitted": True, "own": False}
    row = next(row for row in study.rows if row.name == name)
    own = row.budget_s is not None or row.steps is not None
    return {"budget_s": training.budget_s, "steps": training.steps, "own": own}


def _trial(out: Path, trial: Trial) -> dict[str, Any]:
    """Return state, scores and cost of one trial."""
    folder = trial_folder(out, trial)
    record = read_record(folder)
    entry: dict[str, Any] = {"seed": trial.seed, "state": "not run"}
    if record.get("failure"):
        entry |= {"state": "failed", "failure": record["failure"]}
    if not is_finished(out, trial):
        return entry
    samples = folder / f"samples-{trial.keys['sample'][:8]}"
    sheet = Scores.read(samples / "evaluation" / "scores.json").to_dict()
    return entry | {
        "state": "done",
        "samples": str(samples.relative_to(out)),
        "picture": str((folder / SHEET).relative_to(out)),
        "n": sheet["n"],
        "scores": {score["key"]: score for score in sheet["scores"]},
        "gates": sheet["gates"],
        "families": sheet["families"],
        "refused": sheet["refused"],
        "warnings": record["sample"]["warnings"],
        "checkpoint": {k: v for k, v in record["choose"].items() if k in ("step", "distances")},
        "cost": cost(record),
    }


def cost(record: Mapping[str, Any]) -> dict[str, Any]:
    """Add up what the stages of a trial cost; None where the machine does not tell."""
    stages = {stage: record[stage] for stage in STAGES}

    def total(name: str) -> float | None:
        known = [entry[name] for entry in stages.values() if entry.get(name) is not None]
        return sum(known) if known else None

    train = stages["train"]
    energy = [total("processor_energy_j"), total("gpu_energy_j")]
    return {
        "training_s": train["training_s"],
        "needs_s": train["needs_s"],
        "training_cpu_s": train["cpu_s"],
        "wall_s": total("wall_s"),
        "cpu_s": total("cpu_s"),
        "peak_memory_gib": train["peak_memory_gib"],
        "gpu_memory_gib": train["gpu_memory_gib"],
        "parameters": train["parameters"],
        "steps": train["steps"],
        "images_seen": train["images_seen"],
        "seconds_a_sample": stages["sample"]["seconds_a_sample"],
        "energy_kj": sum(e for e in energy if e is not None) / 1e3 if any(energy) else None,
    }


def summary(done: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return value and interval of each score over a row's training seeds.

    With one seed they are the sheet's own (a bootstrap over subjects). With several, the value is
    the mean, and from three on the interval is Student's over seeds; a score that one of them
    lacks is left out.
    """
    if not done:
        return {}
    shared = [key for key in done[0]["scores"] if all(key in trial["scores"] for trial in done)]
    found = {}
    for key in shared:
        scores = [trial["scores"][key] for trial in done]
        first = scores[0]
        entry = {name: first[name] for name in ("label", "features", "better", "target", "unit")}
        values = [score["value"] for score in scores]
        if len(scores) == 1:
            entry |= {name: first[name] for name in ("value", "low", "high")}
        elif None in values:
            entry |= {"value": None, "low": None, "high": None}
        else:
            mean, low, high = mean_interval(np.array(values))
            entry |= {"value": mean, "low": low, "high": high}
        found[key] = entry | {"seeds": len(scores), "reliable": all(s["reliable"] for s in scores)}
    return found


def mean_interval(values: np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean (n,) and Student's 95 % interval; no interval below three values."""
    from scipy.stats import t

    mean = float(values.mean())
    if len(values) < MIN_SEEDS:
        return mean, None, None
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def _anchors(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the anchors by key: those of the first sheet, since all judge the same sets."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        for trial in row["trials"]:
            for key, score in trial.get("scores", {}).items():
                found.setdefault(key, {a: score["anchors"].get(a) for a in ANCHORS})
    return found


def distance_from_good(score: Mapping[str, Any], value: float, ceiling: float | None) -> float:
    """Turn a value so that lower is better; ``near`` counts from target or ceiling."""
    if score["better"] == "near":
        goal = score["target"] if score["target"] is not None else ceiling
        return abs(value - (goal or 0.0))
    return value if score["better"] == "lower" else -value


def differences(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare every row with the best one, score by score, paired by training seed.

    Returns
    -------
    list of dict
        ``key``, ``best``, ``row``, ``value`` (how much worse than the best, on average over the
        seeds that both have), ``low``, ``high`` (Student's 95 % interval, not corrected for the
        number of comparisons), ``seeds``. Rows with fewer than three shared seeds are left out.
    """
    values: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        done = [trial for trial in row["trials"] if trial["state"] == "done"]
        for trial in done if len(done) >= MIN_SEEDS else []:
            for key, score in trial["scores"].items():
                if score["value"] is None:
                    continue
                bad = distance_from_good(score, score["value"], score["anchors"].get("ceiling"))
                values.setdefault(key, {}).setdefault(row["name"], {})[trial["seed"]] = bad
    found = []
    for key, by_row in values.items():
        best = min(by_row, key=lambda name: float(np.mean(list(by_row[name].values()))))
        for name, own in by_row.items():
            seeds = sorted(own.keys() & by_row[best].keys())
            if name == best or len(seeds) < MIN_SEEDS:
                continue
            paired = np.array([own[seed] - by_row[best][seed] for seed in seeds])
            mean, low, high = mean_interval(paired)
            found.append(
                {"key": key, "best": best, "row": name, "value": mean, "low": low, "high": high}
                | {"seeds": len(seeds)}
            )
    return found


def heading(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say what the table allows one to conclude."""
    states = [trial["state"] for row in rows for trial in row["trials"]]
    told = f"{states.count('done')} of {len(states)} trials are done"
    if states.count("failed"):
        told += f", {states.count('failed')} failed"
    seeds = [sum(t["state"] == "done" for t in row["trials"]) for row in rows]
    most = max(seeds, default=0)
    if most < MIN_SEEDS:
        number = {0: "No seed", 1: "One seed", 2: "Two seeds"}[most]
        return (
            f"{told}. {number} a row: rows are not separated. Intervals are over subjects; what "
            "another training of the same row would change is not known."
        )
    fewer = [row["name"] for row, count in zip(rows, seeds) if count < MIN_SEEDS]
    kept = f" Not compared, for want of seeds: {', '.join(fewer)}." if fewer else ""
    return (
        f"{told}. Up to {most} training seeds a row: intervals are over seeds, and differences "
        f"from the best row are paired by seed, 95 % each, not corrected for their number.{kept}"
    )


def overhead(study: Study, cohort: PreparedCohort, out: Path) -> dict[str, Any]:
    """Measure the time that a study took beside the stages of its rows, over all its calls.

    Returns
    -------
    dict
        ``wall_s``, ``inside_s`` (some stage was at work), ``overhead_s``, ``share`` of `wall_s`.
    """
    calls = [json.loads(line) for line in (out / TIMELINE).read_text().splitlines()]
    spans = [
        span
        for trial in trials(study, study.rows, cohort)
        for entry in read_record(trial_folder(out, trial)).values()
        for span in entry.get("spans", [])
    ]
    wall_s = sum(call["ended"] - call["began"] for call in calls)
    inside_s = sum(
        union_s([(max(a, c["began"]), min(b, c["ended"])) for a, b in spans]) for c in calls
    )
    rest = wall_s - inside_s
    return {
        "wall_s": wall_s,
        "inside_s": inside_s,
        "overhead_s": rest,
        "share": rest / wall_s if wall_s > 0 else 0.0,
    }


def union_s(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of spans (begin, end); those that end before they begin are empty."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        if end > max(begin, until):
            total += end - max(begin, until)
            until = end
    return total
