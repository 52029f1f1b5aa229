"""From answers to results: what readers could tell, how sure that is, and what they saw."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gyri import __version__
from gyri.cohort.files import read_json
from gyri.errors import DataError
from gyri.reading.agreement import fleiss_kappa, krippendorff_alpha, self_kappa
from gyri.reading.detection import accuracy, detect
from gyri.reading.equivalence import equivalence, trials_needed
from gyri.reading.ledger import FILE, Ledger
from gyri.reading.mixed import mixed_model
from gyri.reading.new import RECORD

SCHEMA = "gyri-reading-results-1"

_ANSWERS = """
SELECT t.reader, t.block, t.position, t.truth, t.repeat_of, t.id AS trial, a.answer, a.at,
       t.first_shown, GROUP_CONCAT(c.volume, '+') AS volumes
FROM answers a JOIN trials t ON t.id = a.trial
JOIN (SELECT * FROM cases ORDER BY side) c ON c.trial = t.id
GROUP BY t.id ORDER BY t.reader, t.position
"""


def analyse(root: Path) -> dict[str, Any]:
    """Analyse a study that is read or being read.

    Returns
    -------
    dict
        The sheet: ``blocks`` by name, ``readers``, ``refused`` requests, ``wrong`` (what is amiss
        with the sealed file, sentences) and where all comes from. Repeats count only for the
        agreement of readers with themselves. ``answers`` is a table.

    Raises
    ------
    DataError
        The folder is no study, or nobody has answered.
    """
    record = read_json(root / RECORD)
    ledger = Ledger(root / FILE)
    table = answer_table(ledger)
    if table.empty:
        raise DataError(f"{root}: no reader has answered yet. Open it with `gyri read serve`.")
    first = table[table["repeat_of"] == ""]
    margin = record["study"]["margin"]
    sheet: dict[str, Any] = {
        "schema": SCHEMA,
        "gyri": __version__,
        "study": record["study"],
        "passed_cue_check": record["passed_cue_check"],
        "cues": record["cues"],
        "matched": record["matched"],
        "wrong": ledger.verify(record["seal"]),
        "seal": record["seal"],
        "log_head": ledger.head(),
        "refused": _refusals(ledger),
        "readers": _progress(ledger),
        "margin": margin,
        "trials_needed": trials_needed(margin),
        "blocks": {},
    }
    for block, made in (("yes_no", _told), ("pairs", _told), ("ratings", _rated)):
        part = first[first["block"] == block]
        if len(part):
            again = _repeats(table[table["block"] == block])
            sheet["blocks"][block] = made(block, part, again, margin, record)
    ledger.close()
    return sheet | {"answers": table}


def answer_table(ledger: Ledger) -> pd.DataFrame:
    """Return one row an answer: reader, block, position, truth, choice, right, seconds, ..."""
    kinds = {
        row["id"]: (row["kind"], row["source"], row["subject"])
        for row in ledger.rows("SELECT * FROM volumes")
    }
    rows = []
    for row in ledger.rows(_ANSWERS):
        answer = json.loads(row["answer"])
        volumes = row["volumes"].split("+")
        synthetic = next((v for v in volumes if kinds[v][0] == "synthetic"), "")
        choice = answer.get("choice")
        rows.append(
            {
                "reader": row["reader"],
                "block": row["block"],
                "position": row["position"],
                "trial": row["trial"],
                "repeat_of": row["repeat_of"],
                # A pair is one case, whichever side its volumes are on.
                "case": "+".join(sorted(volumes)),
                "truth": row["truth"],
                "choice": choice or "",
                "right": None if choice is None else choice == row["truth"],
                "model": kinds[synthetic][1] if synthetic else "",
                "seconds": answer["shown_ms"] / 1000,
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row["at"])),
                **{scale: grade for scale, grade in (answer.get("grades") or {}).items()},
                "faults": json.dumps(answer["faults"]) if "faults" in answer else "",
            }
        )
    return pd.DataFrame(rows)


def _refusals(ledger: Ledger) -> dict[str, int]:
    rows = ledger.rows("SELECT detail FROM log WHERE event = 'refused'")
    reasons = pd.Series([json.loads(row["detail"])["reason"] for row in rows], dtype=str)
    return {str(reason): int(count) for reason, count in reasons.value_counts().items()}


def _progress(ledger: Ledger) -> dict[str, dict[str, int]]:
    rows = ledger.rows(
        "SELECT reader, COUNT(*) AS total, SUM(id IN (SELECT trial FROM answers)) AS done "
        "FROM trials GROUP BY reader ORDER BY reader"
    )
    return {row["reader"]: {"done": row["done"], "trials": row["total"]} for row in rows}


def _repeats(part: pd.DataFrame) -> pd.DataFrame:
    """Return one row a repeated trial with the columns of both times, ``_first`` and ``_again``."""
    again = part[part["repeat_of"] != ""]
    return part.merge(
        again, left_on="trial", right_on="repeat_of", suffixes=("_first", "_again"), how="inner"
    )


def _time(part: pd.DataFrame) -> dict[str, float]:
    seconds = part["seconds"]
    return {"median_s": float(seconds.median()), "q1_s": float(seconds.quantile(0.25)),
            "q3_s": float(seconds.quantile(0.75))}  # fmt: skip


def _told(
    block: str, part: pd.DataFrame, again: pd.DataFrame, margin: float, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Results of yes/no judgements, and of forced choices, which have no bias to be split off."""
    right = part["right"].astype(bool)
    pooled = accuracy(right, part["reader"], part["case"])
    effective = pooled["effective_n"]
    test = equivalence(pooled["value"] * effective, effective, margin)
    result: dict[str, Any] = {
        "accuracy": pooled,
        "equivalence": {**vars(test), "p_value": test.p_value, "shown": test.shown},
        "readers": {
            str(name): _reader(block, mine) | {"self_kappa": _self_kappa(again, str(name))}
            for name, mine in part.groupby("reader")
        },
        "models": {
            str(model): accuracy(m["right"].astype(bool), m["reader"], m["case"])
            for model, m in part[part["model"] != ""].groupby("model")
        },
        "agreement": _agreement(block, part),
        "mixed_model": mixed_model(right, part["reader"], part["case"]),
        "time": _time(part),
    }
    if block == "yes_no":
        result["detection"] = vars(detect(part["truth"].to_numpy(), part["choice"].to_numpy()))
    return result


def _reader(block: str, mine: pd.DataFrame) -> dict[str, Any]:
    """Results of one reader alone; the interval is Wilson's at the number of answers."""
    right = mine["right"].astype(bool)
    found: dict[str, Any] = {
        "accuracy": accuracy(right, mine["reader"], mine["case"]),
        "time": _time(mine),
    }
    if block == "yes_no":
        found["detection"] = vars(detect(mine["truth"].to_numpy(), mine["choice"].to_numpy()))
    else:
        found["said_left"] = float((mine["choice"] == "left").mean())
    return found


def _self_kappa(again: pd.DataFrame, reader: str) -> dict[str, Any]:
    """Whether a reader was right both times tells agreement also where sides were exchanged."""
    mine = again[again["reader_first"] == reader]
    if mine.empty:
        return {"n": 0, "kappa": None, "same": None}
    exchanged = mine["truth_first"] != mine["truth_again"]
    other = {"left": "right", "right": "left"}
    second = mine["choice_again"].where(~exchanged, mine["choice_again"].map(other))
    return {
        "n": len(mine),
        "kappa": _number(self_kappa(mine["choice_first"].to_numpy(), second.to_numpy())),
        "same": float((mine["choice_first"] == second).mean()),
    }


def _agreement(block: str, part: pd.DataFrame) -> dict[str, float | None]:
    """Agreement of readers on the cases that all have seen."""
    answers = part.assign(
        code=(part["right"] if block == "pairs" else part["choice"] == "synthetic").astype(float)
    )
    table = answers.pivot_table(index="case", columns="reader", values="code")
    if table.shape[1] < 2:
        return {"fleiss_kappa": None, "krippendorff_alpha": None}
    seen = table.dropna()
    return {
        "fleiss_kappa": _number(fleiss_kappa(seen.to_numpy())) if len(seen) > 1 else None,
        "krippendorff_alpha": _number(krippendorff_alpha(table.to_numpy())),
    }


def _rated(
    block: str, part: pd.DataFrame, again: pd.DataFrame, margin: float, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Results of ratings: grades of real and synthetic volumes, faults and their places."""
    is_real = part["truth"] == "real"
    scales = {}
    for scale in record["scales"]:
        table = part.pivot_table(index="case", columns="reader", values=scale)
        scales[scale] = {
            "real": float(part.loc[is_real, scale].mean()),
            "synthetic": float(part.loc[~is_real, scale].mean()),
            **_difference(part, scale),
            "alpha": _number(krippendorff_alpha(table.to_numpy(), "ordinal"))
            if table.shape[1] > 1 else None,
            "self_kappa": _number(
                self_kappa(again[f"{scale}_first"].to_numpy(), again[f"{scale}_again"].to_numpy(),
                           "quadratic")
            ) if len(again) else None,
        }  # fmt: skip
    faults: dict[str, dict[str, Any]] = {
        name: {"real": 0, "synthetic": 0, "places": []} for name in record["faults"]
    }
    for truth, text, case in zip(part["truth"], part["faults"], part["case"]):
        for fault in json.loads(text):
            entry = faults[fault["name"]]
            entry[truth] += 1
            if fault["place"]:
                entry["places"].append({"kind": truth, "mm": fault["place"], "volume": case})
    return {
        "n": {"real": int(is_real.sum()), "synthetic": int((~is_real).sum())},
        "scales": scales,
        "faults": faults,
        "repeats": len(again),
        "time": _time(part),
    }


def _difference(part: pd.DataFrame, scale: str) -> dict[str, Any]:
    """Return synthetic less real with a 95 % interval over volumes, whose readers are averaged."""
    from scipy.stats import ttest_ind

    means = part.groupby(["case", "truth"])[scale].mean().reset_index()
    real, synthetic = (means.loc[means["truth"] == t, scale] for t in ("real", "synthetic"))
    if min(len(real), len(synthetic)) < 2 or max(real.nunique(), synthetic.nunique()) < 2:
        return {"difference": float(synthetic.mean() - real.mean()), "interval": [None, None]}
    ends = ttest_ind(synthetic, real, equal_var=False).confidence_interval(0.95)
    return {
        "difference": float(synthetic.mean() - real.mean()),
        "interval": [_number(ends.low), _number(ends.high)],
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def summary(sheet: Mapping[str, Any]) -> list[str]:
    """Say the main results in sentences."""
    lines = [f"WRONG: {text}" for text in sheet["wrong"]]
    if not sheet["passed_cue_check"]:
        lines.append("CUES: real and synthetic can be told without anatomy; a pilot, no result.")
    names = {"yes_no": "Yes/no", "pairs": "Forced choice"}
    for block, result in sheet["blocks"].items():
        if block == "ratings":
            continue
        found, test = result["accuracy"], result["equivalence"]
        low, high = found["interval"]
        lines.append(
            f"{names[block]}: {found['right']} of {found['n']} right, {found['value']:.1%} "
            f"({low:.1%} to {high:.1%}; worth {found['effective_n']:.0f} independent trials)."
        )
        points = f"50 % ± {100 * sheet['margin']:g} points"
        if test["shown"]:
            lines.append(f"Readers guess within {points} (p = {test['p_value']:.3f}).")
        elif low <= 0.5 <= high:
            lines.append(
                f"Neither telling nor guessing within {points} is shown (p = "
                f"{test['p_value']:.2f}); {sheet['trials_needed']} independent trials are needed."
            )
        else:
            lines.append(
                "Readers tell." if low > 0.5 else "Readers are wrong more often than right."
            )
    undone = sum(r["trials"] - r["done"] for r in sheet["readers"].values())
    if undone:
        lines.append(f"{undone} trials are not answered yet; this is an interim look.")
    return lines
