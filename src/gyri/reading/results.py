"""Write a study's results: tables for other programs, and a page for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gyri.cohort.files import write_json, write_text
from gyri.reading.analysis import summary
from gyri.reading.ledger import FILE, Ledger
from gyri.report.charts import PALETTE, panel, themed_svg
from gyri.report.render import write_page
from gyri.report.text import duration, number, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLOCKS = {"yes_no": "Yes or no", "pairs": "Forced choice", "ratings": "Ratings"}


def write_results(root: Path, sheet: Mapping[str, Any], out: Path) -> list[Path]:
    """Write ``results.html``, ``results.json``, ``results.csv``, ``answers.csv`` and ``log.csv``.

    Parameters
    ----------
    root : the study's folder.
    sheet : see `gyri.reading.analysis.analyse`.
    out : folder.
    """
    answers: pd.DataFrame = sheet["answers"]
    plain = {key: value for key, value in sheet.items() if key != "answers"}
    write_json(out / "results.json", plain)
    _csv(out / "results.csv", result_rows(sheet))
    _csv(out / "answers.csv", answers)
    ledger = Ledger(root / FILE)
    log = [dict(row) for row in ledger.rows("SELECT * FROM log ORDER BY seq")]
    ledger.close()
    _csv(out / "log.csv", pd.DataFrame(log))
    page = _page(out / "results.html", sheet)
    return [page, *(out / name for name in ("results.csv", "answers.csv", "log.csv"))]


def _csv(path: Path, table: pd.DataFrame) -> None:
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def result_rows(sheet: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row a number: block, reader ("all" for all), measure, value, low, high, n."""
    rows = []

    def add(
        block: str, who: str, measure: str, value: Any, ends: Any = (None, None), n: Any = None
    ) -> None:
        rows.append(
            {
                "block": block,
                "reader": who,
                "measure": measure,
                "value": value,
                "low": ends[0],
                "high": ends[1],
                "n": n,
            }
        )

    for block, result in sheet["blocks"].items():
        if block == "ratings":
            for scale, found in result["scales"].items():
                add(
                    block,
                    "all",
                    f"{scale}: synthetic less real",
                    found["difference"],
                    found["interval"],
                    sum(result["n"].values()),
                )
                add(block, "all", f"{scale}: krippendorff_alpha", found["alpha"])
            continue
        for who, part in (("all", result), *result["readers"].items()):
            found = part["accuracy"]
            add(block, who, "accuracy", found["value"], found["interval"], found["n"])
            if "detection" in part:
                seen = part["detection"]
                half = 1.96 * seen["d_error"]
                ends = seen["d_prime"] - half, seen["d_prime"] + half
                add(block, who, "d_prime", seen["d_prime"], ends, found["n"])
                ends = seen["criterion"] - half / 2, seen["criterion"] + half / 2
                add(block, who, "criterion", seen["criterion"], ends, found["n"])
            if "self_kappa" in part:
                again = part["self_kappa"]
                add(block, who, "self_kappa", again["kappa"], n=again["n"])
            add(block, who, "median_s", part["time"]["median_s"], n=found["n"])
        for model, found in result["models"].items():
            add(block, "all", f"accuracy, {model}", found["value"], found["interval"], found["n"])
        add(block, "all", "equivalence p", result["equivalence"]["p_value"])
        for name, value in result["agreement"].items():
            add(block, "all", name, value)
        if result["mixed_model"]:
            mixed = result["mixed_model"]
            add(block, "all", "mixed model accuracy", mixed["accuracy"], mixed["interval"])
    return pd.DataFrame(rows)


def _page(path: Path, sheet: Mapping[str, Any]) -> Path:
    told = [
        (name, sheet["blocks"][name]) for name in ("yes_no", "pairs") if name in sheet["blocks"]
    ]
    return write_page(
        path,
        "reading.html",
        title=f"Reader study: {sheet['study']['name']}",
        sheet=sheet,
        sentences=summary(sheet),
        facts=_facts(sheet),
        told=[
            {
                "key": name,
                "title": BLOCKS[name],
                "svg": themed_svg(
                    accuracy_figure(result, sheet["margin"]),
                    f"Accuracy of each reader, {BLOCKS[name]}",
                    name,
                ),
                "rows": [
                    _row(who, part) for who, part in (*result["readers"].items(), ("All", result))
                ],
                "more": _more(result),
                "models": _models(result),
            }
            for name, result in told
        ],
        ratings=_ratings(sheet["blocks"].get("ratings")),
        provenance={
            "seal": sheet["seal"],
            "log head": sheet["log_head"],
            "gyri": sheet["gyri"],
            "matched": sheet["matched"],
            "study": _named(sheet["study"]),
            "cues": sheet["cues"],
        },
    )


def _named(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study without the folders of the machine on which it was made."""
    return {
        **study,
        "cohort": Path(study["cohort"]).name,
        "synthetic": [Path(folder).name for folder in study["synthetic"]],
    }


def _span(ends: Any) -> str:
    low, high = ends
    return "–" if low is None else f"{100 * low:.0f} to {100 * high:.0f} %"


def _facts(sheet: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    done = sum(reader["done"] for reader in sheet["readers"].values())
    total = sum(reader["trials"] for reader in sheet["readers"].values())
    refused = sum(sheet["refused"].values())
    return [
        ("Readers", number(len(sheet["readers"])), ""),
        ("Answers", number(done), f"of {number(total)}, repeats counted"),
        (
            "Margin",
            f"± {100 * sheet['margin']:g} points",
            f"{sheet['trials_needed']} independent trials",
        ),
        ("Cue check", "passed" if sheet["passed_cue_check"] else "FAILED", "limit 55 %"),
        (
            "Seal and log",
            "whole" if not sheet["wrong"] else "BROKEN",
            f"{number(refused)} requests refused",
        ),
    ]


def _row(who: str, part: Mapping[str, Any]) -> dict[str, str]:
    found, seen, again = part["accuracy"], part.get("detection"), part.get("self_kappa", {})
    return {
        "who": who,
        "n": number(found["n"]),
        "accuracy": f"{found['value']:.1%}",
        "interval": _span(found["interval"]),
        "d_prime": f"{_two(seen['d_prime'])} ± {1.96 * seen['d_error']:.2f}" if seen else "",
        "criterion": f"{seen['criterion']:+.2f}".replace("-", "−") if seen else "",
        "left": f"{part['said_left']:.0%}" if "said_left" in part else "",
        "self": f"{_two(again['kappa'])} ({again['n']})" if again.get("n") else "",
        "time": duration(part["time"]["median_s"]),
    }


def _models(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows of the table by model; none where there is one."""
    models = result["models"]
    return [
        (name, f"{found['value']:.1%}", _span(found["interval"]), number(found["n"]))
        for name, found in models.items()
        if len(models) > 1
    ]


def _more(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Facts below a table: (what, how much, more)."""
    agreement, mixed, test = result["agreement"], result["mixed_model"], result["equivalence"]
    worth = number(round(result["accuracy"]["effective_n"]))
    lines = [
        ("Worth", worth, "independent trials"),
        ("Equivalence", f"p = {test['p_value']:.3f}", "two one-sided tests"),
        ("Fleiss' κ", _two(agreement["fleiss_kappa"]), "between readers"),
        ("Krippendorff's α", _two(agreement["krippendorff_alpha"]), "between readers"),
    ]
    if mixed:
        spread = f"sd of readers {mixed['reader_sd']:.2f}, of cases {mixed['case_sd']:.2f} log odds"
        span = _span(mixed["interval"])
        lines.append(("Mixed logistic model", f"{mixed['accuracy']:.1%}", f"{span}; {spread}"))
    return lines


def _two(value: float | None) -> str:
    """Write a number with two decimals."""
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def _ratings(result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if result is None:
        return None
    return {
        "n": result["n"],
        "rows": [
            {
                "scale": words(scale),
                "real": _two(found["real"]),
                "synthetic": _two(found["synthetic"]),
                "difference": _two(found["difference"]),
                "interval": " to ".join(map(_two, found["interval"])),
                "alpha": _two(found["alpha"]),
                "self": _two(found["self_kappa"]),
            }
            for scale, found in result["scales"].items()
        ],
        "faults": [
            (words(name), f["real"], f["synthetic"], len(f["places"]))
            for name, f in result["faults"].items()
        ],
    }


def accuracy_figure(result: Mapping[str, Any], margin: float) -> Figure:
    """Draw the accuracy of each reader and of all with intervals, over guessing and its margin."""
    parts = [*result["readers"].items(), ("All", result)][::-1]
    figure, axes = panel(6.2, 0.75 + 0.32 * len(parts))
    axes.grid(False)
    axes.axvspan(50 - 100 * margin, 50 + 100 * margin, color=PALETTE["rule"], alpha=0.5, lw=0)
    axes.axvline(50, color=PALETTE["muted"], lw=0.8)
    for place, (who, part) in enumerate(parts):
        found = part["accuracy"]
        colour = PALETTE["ink" if who == "All" else "hold"]
        axes.plot([100 * end for end in found["interval"]], [place, place], color=colour, lw=1.6)
        axes.plot(100 * found["value"], place, "o", color=colour, ms=5)
    axes.set_yticks(range(len(parts)), [who for who, _ in parts])
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.6, len(parts) - 0.4)
    axes.set_xlabel("right answers, %", fontsize=8.5, color=PALETTE["muted"])
    return figure
