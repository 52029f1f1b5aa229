import csv
import re

import numpy as np
import pytest
from tests.study.sheets import sheet

from gyri.report.figures import mosaic, png
from gyri.report.study import main_scores, markdown, write_study
from gyri.study.results import differences, heading, summary

COST = {
    "training_s": 61.0,
    "needs_s": 0.0,
    "training_cpu_s": 100.0,
    "wall_s": 90.0,
    "cpu_s": 130.0,
    "peak_memory_gib": 1.5,
    "gpu_memory_gib": None,
    "parameters": 12345,
    "steps": 200,
    "images_seen": 800,
    "seconds_a_sample": 0.25,
    "energy_kj": None,
}


def trial(seed, **values):
    content = sheet(**values).to_dict()
    return {
        "seed": seed,
        "state": "done",
        "scores": {score["key"]: score for score in content["scores"]},
        "gates": content["gates"],
        "picture": "contact.png",
        "cost": COST,
    }


def row(name, *trials, **more):
    done = [t for t in trials if t["state"] == "done"]
    facts = {"name": name, "label": f"Row <{name}>", "family": "Slices", "faithful": False}
    facts |= {"published": {}, "recipe": name, "conditions": ["age"], "network_calls": 25}
    facts |= {"budget": {"budget_s": 60.0, "steps": None, "own": False}}
    return {**facts, **more, "trials": list(trials), "summary": summary(done)}


def study(*rows, **more):
    anchors = {k: s["anchors"] for k, s in trial(0)["scores"].items()}
    judge = {"split": "HOLD", "seed": 0, "bootstrap": 2000, "features": [], "legacy": False}
    return {
        "name": "Three <ways>",
        "about": "About it.",
        "heading": heading(rows),
        "protocol": {
            "budget_s": 60.0,
            "num": 8,
            "mix": "HOLD",
            "network_calls": 25,
            "choose": {"on": "VAL", "checkpoints": 3, "num": 16},
            "judge": judge,
        },
        "data": {"cohort": "phantoms", "shape": [20, 24, 20], "spacing_mm": [8.0, 8.0, 8.0]},
        "machine": {"cpus": 2},
        "anchors": anchors,
        "rows": list(rows),
        "differences": differences(rows),
        "overhead": {"wall_s": 100.0, "inside_s": 99.0, "overhead_s": 1.0, "share": 0.01},
        **more,
    }


FAILED = {
    "seed": 0,
    "state": "failed",
    "failure": {"stage": "train", "reason": "no column 'agee'", "exit_code": 2},
}


@pytest.fixture
def one_seed():
    return study(
        row("good", trial(0, kid=1.0), published={"fid": 16.641, "ssim": 0.7904}),
        row("bad", trial(0, kid=3.0), faithful=True),
        row("broken", FAILED),
        row("waiting", {"seed": 0, "state": "not run"}),
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "contact.png").write_bytes(png(mosaic([np.eye(8)[..., None].repeat(8, 2)])))
    return tmp_path


def test_the_table_has_values_intervals_anchors_gates_and_cost(one_seed):
    text = markdown(one_seed)
    assert "One seed a row: rows are not separated" in text
    assert "| Row <good> | 1 of 2 | 1 (0.500 to 1.50) | 0.500 (0 to 1) |" in text
    assert "| *noise* |  | *50* |" in text
    assert "Row <bad>, as published: beats anchors" in text
    assert "| Row <good> | 25 | 1 min 1 s | 2 min 10 s | 1 min 30 s | 1.5 | – | 12,345 |" in text
    assert "| Row <broken> | failed at train |" in text
    assert "- Row <broken>, seed 0: train: no column 'agee'" in text
    assert "| Row <waiting> | not run |" in text
    assert "| Row <good> | 16.64 | 0.7904 |" in text
    assert "1.0 % beside the rows' own work" in text
    assert "best of 3 (kernel distance of 16 samples to VAL)" in text


def test_every_line_of_a_table_has_the_same_cells(one_seed):
    widths = {}
    block = 0
    for line in markdown(one_seed).splitlines():
        block += not line.startswith("|")
        if line.startswith("|"):
            widths.setdefault(block, set()).add(line.count(" | "))
    assert all(len(found) == 1 for found in widths.values())


def test_the_main_scores_come_in_their_order_and_only_if_known(one_seed):
    assert list(main_scores(one_seed)) == ["kid/morph-v1", "coverage/morph-v1", "msssim/delta"]


def test_rows_with_seeds_are_compared(folder):
    good = row("good", *[trial(s, kid=1.0 + s) for s in range(3)])
    bad = row("bad", *[trial(s, kid=3.0 + s) for s in range(3)])
    results = study(good, bad)
    text = markdown(results)
    assert "| The kid, morph-v1 | Row <good> | Row <bad> | 2 (2 to 2) | 3 |" in text
    page = write_study(results, folder).read_text()
    assert "Differences from the best row" in page
    assert "Row &lt;good&gt;, seed 2" in page


def test_the_page_is_complete_and_escapes_what_comes_from_outside(one_seed, folder):
    page = write_study(one_seed, folder).read_text()
    assert "Three &lt;ways&gt;" in page
    assert "Three <ways>" not in page
    assert page.count("data:image/png;base64,") == 2
    assert "As published" in page
    assert not re.search(r"""(src|href)=["']https?:""", page)
    for anchor in re.findall(r'href="#([\w-]+)"', page):
        assert f'id="{anchor}"' in page, anchor


def test_the_csv_has_one_line_a_score(one_seed, folder):
    write_study(one_seed, folder)
    lines = list(csv.DictReader((folder / "results.csv").open()))
    assert [(r["row"], r["key"]) for r in lines[:3]] == [
        ("good", "kid/morph-v1"),
        ("good", "coverage/morph-v1"),
        ("good", "msssim/delta"),
    ]
    assert (lines[0]["value"], lines[0]["noise"], lines[0]["faithful"]) == ("1.0", "50.0", "False")
    assert len(lines) == 6


def test_a_study_of_which_nothing_is_done_has_a_page(folder):
    results = study(row("waiting", {"seed": 0, "state": "not run"}), anchors={})
    assert "No row is done." in write_study(results, folder).read_text()
    assert "0 of 1 trials are done" in markdown(results)
