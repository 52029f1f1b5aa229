"""Table, page and files of a study: rows with their scores, anchors, gates, cost and pictures."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gyri.cohort.files import write_text
from gyri.report.render import write_page
from gyri.report.text import MISSING, duration, interval, number, plural, score_label, words

PAGE, TABLE, CSV, JSON = "results.html", "results.md", "results.csv", "results.json"
MAIN = (
    "kid/morph-*", "kid/radiomics-*", "kid/cortex-*", "fd/morph-*", "fd/radiomics-*",
    "fd_by_level/morph-*", "coverage/morph-*", "coverage/radiomics-*", "msssim/delta",
    "msssim_by_level/*", "coherence", "components", "volumes/in_range", "anatomy/energy",
    "nearest/copy_rate", "legacy/*", "conditioning/*/gain",
)  # fmt: skip
"""Patterns of the scores that the main table shows, in its order."""
ANCHOR_NAMES = {
    "ceiling": "TRAIN against HOLD (ceiling)",
    "mean_image": "mean image",
    "phase_random": "phase-random",
    "noise": "noise",
}
"""Anchors shown below the rows."""
COSTS = {
    "training": lambda c: duration(c["training_s"]),
    "processor time": lambda c: duration(c["cpu_s"]),
    "wall time": lambda c: duration(c["wall_s"]),
    "peak memory (GiB)": lambda c: number(c["peak_memory_gib"], 2),
    "of the GPU (GiB)": lambda c: number(c["gpu_memory_gib"], 2),
    "parameters": lambda c: number(c["parameters"]),
    "steps": lambda c: number(c["steps"]),
    "items seen": lambda c: number(c["images_seen"]),
    "s a sample": lambda c: number(c["seconds_a_sample"], 2),
    "energy (kJ)": lambda c: number(c["energy_kj"]),
}


COURSE = "fd/morph-v1"
"""The distance that is followed over training."""


def main_scores(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return one score of each key that the main table shows, in its order."""
    known: dict[str, Mapping[str, Any]] = {}
    for row in results["rows"]:
        for key, score in row["summary"].items():
            known.setdefault(key, score)
    order = [key for pattern in MAIN for key in known if fnmatchcase(key, pattern)]
    return {key: known[key] for key in order}


def aim(score: Mapping[str, Any]) -> str:
    """Say in a sign which way is better."""
    signs = {"lower": "↓", "higher": "↑"}
    target = score.get("target")
    near = "≈ TRAIN's" if target is None else f"≈ {number(target)}"
    return signs.get(str(score["better"]), near)


def _state(row: Mapping[str, Any]) -> str:
    """What is to be said of a row without scores."""
    failures = [t["failure"] for t in row["trials"] if t["state"] == "failed"]
    return f"failed at {failures[0]['stage']}" if failures else "not run"


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['label']}{', as published' if row['faithful'] else ''}"


def gates_passed(row: Mapping[str, Any]) -> list[tuple[int, int, list[str]]]:
    """Per finished trial of a row: gates passed, gates in all, names of those that fail."""
    found = []
    for trial in row["trials"]:
        if trial["state"] == "done":
            wrong = [name for name, gate in trial["gates"].items() if not gate.get("passed")]
            found.append((len(trial["gates"]) - len(wrong), len(trial["gates"]), wrong))
    return found


def _gate_count(row: Mapping[str, Any]) -> str:
    return "; ".join(f"{passed} of {total}" for passed, total, _ in gates_passed(row)) or MISSING


def _cell(score: Mapping[str, Any] | None) -> tuple[str, str]:
    """Value and interval of a score."""
    if score is None:
        return MISSING, ""
    ends = interval(score.get("low"), score.get("high"))
    return number(score["value"]), "" if ends == MISSING else ends


def markdown(results: Mapping[str, Any]) -> str:
    """Write heading, table of scores with anchors, gates, and cost."""
    scores = main_scores(results)
    titles = [f"{score_label(score)} {aim(score)}" for score in scores.values()]
    lines = [f"# {results['name']}", ""]
    lines += [results["about"], ""] if results["about"] else []
    lines += [results["heading"], "", *_facts_lines(results), ""]
    body = []
    for row in results["rows"]:
        if not row["summary"]:
            body.append([_name(row), _state(row), *[""] * len(titles)])
            continue
        cells = [_cell(row["summary"].get(key)) for key in scores]
        told = [f"{value} ({ends})" if ends else value for value, ends in cells]
        body.append([_name(row), _gate_count(row), *told])
    for anchor, name in ANCHOR_NAMES.items():
        values = [results["anchors"].get(key, {}).get(anchor) for key in scores]
        if any(value is not None for value in values):
            body.append([f"*{name}*", "", *[f"*{number(value)}*" for value in values]])
    lines += _table(["row", "gates passed", *titles], body)
    lines += ["", "## Gates that fail", "", *(_failing_gates(results) or ["None."])]
    lines += ["", "## Cost", ""]
    lines += _table(["row", "network calls a sample", *COSTS], list(_cost_rows(results)))
    if courses := _courses(results):
        lines += ["", "## Over training", "", _course_note(results), ""]
        lines += _table(
            ["row", "items seen", "Fréchet distance, morph-v1"],
            [
                [name, ", ".join(map(number, seen)), ", ".join(map(number, values))]
                for name, (seen, values) in courses.items()
            ],
        )
    if results["differences"]:
        lines += ["", "## Differences from the best row", ""]
        lines += _table(
            ["score", "best", "row", "how much worse", "seeds"], _difference_rows(results)
        )
    if failures := list(_failures(results)):
        lines += ["", "## Failed", "", *[f"- {name}: {why}" for name, why in failures]]
    if published := _published_rows(results):
        lines += ["", "## As published", "", PUBLISHED_NOTE, "", *_table(*published)]
    return "\n".join(lines) + "\n"


def _course_note(results: Mapping[str, Any]) -> str:
    choose = results["protocol"]["choose"]
    return (
        f"At each checkpoint that was kept, {choose['num']} samples against {choose['on']}; few, "
        "so that a value is high and compares with its own column alone."
    )


PUBLISHED_NOTE = (
    "The publications' own numbers, with their own scans, splits and definitions: not comparable "
    "with the table above. Only the order of the rows may be."
)


def _facts_lines(results: Mapping[str, Any]) -> list[str]:
    return [
        f"- {what}: {how_much}{f' ({more})' if more else ''}"
        for what, how_much, more in _facts(results)
    ]


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    protocol, data = results["protocol"], results["data"]
    budget = protocol.get("budget_s")
    training = duration(budget) if budget else plural(protocol["steps"], "step")
    if budget and protocol.get("budget_clock") == "processor":
        training += " of processor time"
    judge = protocol["judge"]
    facts = [
        (
            "Training a row",
            training,
            "but for rows fitted at once or with their own",
        ),
        ("Samples a row", number(protocol["num"]), f"for {protocol['mix']}'s mix of conditions"),
        (
            "Network calls a sample",
            f"at most {protocol['network_calls']}",
            "more only as published",
        ),
        (
            "Judged on",
            judge["split"],
            f"seed {judge['seed']}, {number(judge['bootstrap'])} resamples",
        ),
        (
            "Grid",
            " × ".join(map(str, data["shape"])),
            " × ".join(number(s) for s in data["spacing_mm"]) + f" mm, {data['cohort']}",
        ),
    ]
    choose = protocol["choose"]
    if choose["checkpoints"] > 1:
        more = f"kernel distance of {choose['num']} samples to {choose['on']}"
        facts.append(("Checkpoint", f"best of {choose['checkpoints']}", more))
    if spent := results.get("overhead"):
        share = f"{100 * spent['share']:.1f} % beside the rows' own work"
        facts.append(("Study took", duration(spent["wall_s"]), share))
    return facts


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Write a Markdown table."""
    rows = [head, ["---"] * len(head), *body]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def _failing_gates(results: Mapping[str, Any]) -> list[str]:
    return [
        f"- {_name(row)}: {', '.join(words(name).lower() for name in wrong)}"
        for row in results["rows"]
        for _, _, wrong in gates_passed(row)
        if wrong
    ]


def _done(results: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for row in results["rows"]:
        for trial in row["trials"]:
            if trial["state"] == "done":
                yield row, trial


def _cost_rows(results: Mapping[str, Any]) -> Iterator[list[str]]:
    for row, trial in _done(results):
        seed = f", seed {trial['seed']}" if len(row["trials"]) > 1 else ""
        cells = [write(trial["cost"]) for write in COSTS.values()]
        if row["budget"]["own"]:
            cells[0] += " (own budget)"
        if trial["cost"]["needs_s"]:
            cells[0] += f" + {duration(trial['cost']['needs_s'])} for what it needs"
        yield [_name(row) + seed, number(row["network_calls"]), *cells]


def _difference_rows(results: Mapping[str, Any]) -> list[list[str]]:
    labels = {row["name"]: _name(row) for row in results["rows"]}
    shown = main_scores(results)
    return [
        [
            score_label(shown[d["key"]]),
            labels[d["best"]],
            labels[d["row"]],
            f"{number(d['value'])} ({interval(d['low'], d['high'])})",
            number(d["seeds"]),
        ]
        for d in results["differences"]
        if d["key"] in shown
    ]


def _courses(results: Mapping[str, Any]) -> dict[str, tuple[list[float], list[float]]]:
    """Per finished trial with several checkpoints: items seen and `COURSE` at each."""
    found = {}
    for row, trial in _done(results):
        measured = trial.get("checkpoint", {}).get("distances", {})
        if all(COURSE in scores for scores in measured.values()) and len(measured) > 1:
            seed = f", seed {trial['seed']}" if len(row["trials"]) > 1 else ""
            per_step = trial["cost"]["images_seen"] / trial["cost"]["steps"]
            steps = sorted(measured, key=int)
            found[_name(row) + seed] = (
                [int(step) * per_step for step in steps],
                [measured[step][COURSE] for step in steps],
            )
    return found


def _failures(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for row in results["rows"]:
        for trial in row["trials"]:
            if trial["state"] == "failed":
                why = trial["failure"]
                yield f"{_name(row)}, seed {trial['seed']}", f"{why['stage']}: {why['reason']}"


def _published_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]] | None:
    names = list(dict.fromkeys(name for row in results["rows"] for name in row["published"]))
    if not names:
        return None
    body = [
        [_name(row), *[number(row["published"].get(name), 4) for name in names]]
        for row in results["rows"]
        if row["published"]
    ]
    return ["row", *[name.upper() for name in names]], body


def write_csv(results: Mapping[str, Any], path: Path) -> None:
    """Write one line a score: row, seed, value, interval and anchors."""
    anchors = sorted({name for values in results["anchors"].values() for name in values})
    head = ["row", "label", "family", "faithful", "seed", "key", "better", "value", "low", "high"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*head, "n_generated", "n_real", "reliable", *anchors])
        for row, trial in _done(results):
            told = [row["name"], row["label"], row["family"], row["faithful"], trial["seed"]]
            for key, score in trial["scores"].items():
                facts = [score[name] for name in ("better", "value", "low", "high")]
                sizes = [score["n_generated"], score["n_real"], score["reliable"]]
                marks = [score["anchors"].get(name) for name in anchors]
                writer.writerow([*told, key, *facts, *sizes, *marks])


def write_study(results: Mapping[str, Any], out: Path) -> Path:
    """Write ``results.json``, ``.csv``, ``.md`` and the self-contained ``.html`` into a folder.

    Parameters
    ----------
    results : what `gyri.study.results.collect` returns.
    out : folder of the study, in which the rows' pictures lie.

    Returns
    -------
    Path
        The page.
    """
    write_text(
        out / JSON, json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )
    write_csv(results, out / CSV)
    write_text(out / TABLE, markdown(results))
    return write_page(out / PAGE, "study.html", **_page(results, out))


def _page(results: Mapping[str, Any], out: Path) -> dict[str, Any]:
    scores = main_scores(results)
    return {
        "title": results["name"],
        "about": results["about"],
        "verdict": results["heading"],
        "facts": _facts(results),
        "columns": [
            {"label": score_label(s), "aim": aim(s), "unit": s.get("unit") or ""}
            for s in scores.values()
        ],
        "rows": [_page_row(row, scores) for row in results["rows"]],
        "anchors": [
            {
                "name": name,
                "cells": [number(results["anchors"].get(k, {}).get(anchor)) for k in scores],
            }
            for anchor, name in ANCHOR_NAMES.items()
        ],
        "cost_head": ["network calls a sample", *COSTS],
        "costs": list(_cost_rows(results)),
        "differences": _difference_rows(results),
        "failures": list(_failures(results)),
        "course": _course_figure(results),
        "course_note": _course_note(results),
        "published": _published_rows(results),
        "published_note": PUBLISHED_NOTE,
        "pictures": [
            {
                "title": _name(row) + (f", seed {trial['seed']}" if len(row["trials"]) > 1 else ""),
                "src": "data:image/png;base64,"
                + base64.b64encode((out / trial["picture"]).read_bytes()).decode(),
            }
            for row, trial in _done(results)
        ],
        "provenance": {
            k: results[k] for k in ("protocol", "data", "machine", "overhead") if k in results
        },
    }


def _course_figure(results: Mapping[str, Any]) -> Any:
    """Draw how far every row is from VAL over its training; None where nothing was followed."""
    from gyri.report.charts import courses, themed_svg

    found = _courses(results)
    if not found:
        return None
    alt = "Fréchet distance of each row over the items it has seen"
    return themed_svg(courses(found, "items seen", "Fréchet distance, morph-v1"), alt, "course")


def _page_row(row: Mapping[str, Any], scores: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": _name(row),
        "family": row["family"],
        "conditions": ", ".join(row["conditions"]) or "none",
        "state": "" if row["summary"] else _state(row),
        "gates": _gate_count(row),
        "wrong": "; ".join(
            ", ".join(words(name).lower() for name in wrong) or "none"
            for _, _, wrong in gates_passed(row)
        ),
        "cells": [
            {"value": value, "interval": ends}
            for value, ends in (_cell(row["summary"].get(key)) for key in scores)
        ],
    }
