import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from tests.study.sheets import sheet
from tests.study.test_plan import DDPM, STUDY, detail, protocol, write

from gyri.errors import GyriError, ResumableStop, UsageError
from gyri.evaluation.metrics.frechet import FrechetDistance
from gyri.evaluation.metrics.kernel import KernelDistance
from gyri.study import run as running
from gyri.study import trial
from gyri.study.plan import load_study
from gyri.study.run import Devices, Works, failed, run_study
from gyri.training import run as training

BROKEN = {"name": "broken", "recipe": "pca.yaml", "overrides": ["conditions=[agee]"]}


@pytest.fixture
def here(monkeypatch):
    """Trials run in this process, and a judge that needs no time."""
    begun = []

    def judge(job):
        path = job.samples / "evaluation" / "scores.json"
        sheet(kid=2.0 + len(begun)).write(path)
        trial._draw_contact_sheet(job)
        return {"num_scores": 3}

    def process(self, one, place):
        begun.append(one.name)
        folder = trial.trial_folder(self.out, one)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            trial.work(self._job(one, folder, place))
        except GyriError as error:
            return error.exit_code
        return 0

    # Trials run in threads here, where no signal can be caught.
    monkeypatch.setattr(training, "stop_signals", lambda: nullcontext(lambda: False))
    monkeypatch.setattr(trial, "_judge", judge)
    monkeypatch.setattr(Works, "_process", process)
    return begun


def states(results):
    return {row["name"]: [t["state"] for t in row["trials"]] for row in results["rows"]}


def test_a_study_runs_its_rows_and_repeats_none_that_is_done(tmp_path, tiny_cohort, here):
    path, out = write(tmp_path), tmp_path / "out"
    results = run_study(load_study(path), tiny_cohort, out)
    assert here == ["pca/seed-0", "ddpm/seed-0"]
    assert states(results) == {"pca": ["done"], "ddpm": ["done"]}
    assert "One seed a row: rows are not separated" in results["heading"]
    assert results["rows"][1]["trials"][0]["cost"]["steps"] == 2
    assert results["rows"][1]["trials"][0]["cost"]["seconds_a_sample"] > 0
    assert results["rows"][1]["summary"]["kid/morph-v1"]["value"] == 4.0
    assert results["anchors"]["kid/morph-v1"]["noise"] == 50.0
    assert 0 < results["overhead"]["overhead_s"] < results["overhead"]["wall_s"]
    for name in ("results.html", "results.md", "results.json"):
        assert "tiny" in (out / name).read_text()
    lines = list(csv.DictReader((out / "results.csv").open()))
    assert [(r["row"], r["key"]) for r in lines[:2]] == [
        ("pca", "kid/morph-v1"),
        ("pca", "coverage/morph-v1"),
    ]
    run_study(load_study(path), tiny_cohort, out)
    assert len(here) == 2


def test_what_a_row_needs_is_trained_with_its_share(tmp_path, tiny_cohort, here):
    rows, own = detail(coarse=0.5), protocol(network_calls=13)
    study = load_study(write(tmp_path, rows=rows, protocol=own))
    results = run_study(study, tiny_cohort, tmp_path / "out")
    assert states(results) == {"detail": ["done"]}
    folder = tmp_path / "out" / "rows" / "detail" / "seed-0"
    (coarse,), (run,) = folder.glob("coarse-*/"), folder.glob("run-*/")
    assert training.Run.read(coarse).info["cost"]["steps"] == 5
    assert training.Run.read(run).info["cost"]["steps"] == 5
    assert training.Run.read(run).recipe.needs == {"coarse": str(coarse)}
    assert results["rows"][0]["trials"][0]["cost"]["needs_s"] > 0


def test_a_changed_recipe_repeats_its_row_and_a_changed_judge_only_judges(
    tmp_path, tiny_cohort, here
):
    out = tmp_path / "out"
    run_study(load_study(write(tmp_path)), tiny_cohort, out)
    changed = [STUDY["rows"][0], {**STUDY["rows"][1], "overrides": ["training.batch_size=2"]}]
    run_study(load_study(write(tmp_path, rows=changed)), tiny_cohort, out)
    assert here[2:] == ["ddpm/seed-0"]
    assert len(list((out / "rows" / "ddpm" / "seed-0").glob("run-*"))) == 2
    record = json.loads((out / "rows" / "pca" / "seed-0" / "record.json").read_text())
    judged = protocol(judge={"bootstrap": 30})
    run_study(load_study(write(tmp_path, rows=changed, protocol=judged)), tiny_cohort, out)
    after = json.loads((out / "rows" / "pca" / "seed-0" / "record.json").read_text())
    assert after["train"] == record["train"]
    assert after["sample"] == record["sample"]
    assert after["judge"]["key"] != record["judge"]["key"]


def test_a_row_that_fails_is_recorded_and_the_others_go_on(tmp_path, tiny_cohort, here):
    path = write(tmp_path, rows=[BROKEN, STUDY["rows"][0]])
    told = []
    study = load_study(path)
    results = run_study(study, tiny_cohort, tmp_path / "out", tell=told.append)
    assert states(results) == {"broken": ["failed"], "pca": ["done"]}
    assert results["rows"][0]["trials"][0]["failure"]["stage"] == "train"
    assert any("FAILED at train" in text and "agee" in text for text in told)
    assert "Did you mean 'age'" in (tmp_path / "out" / "results.md").read_text()
    error = failed(results, study.rows)
    assert error is not None
    assert error.exit_code == UsageError.exit_code
    assert "broken/seed-0 at train" in str(error)
    assert failed(results, study.select(["pca"])) is None
    run_study(study, tiny_cohort, tmp_path / "out")
    assert here == ["broken/seed-0", "pca/seed-0", "broken/seed-0"]


def test_a_subset_runs_alone_and_the_table_holds_all_that_is_done(tmp_path, tiny_cohort, here):
    study = load_study(write(tmp_path))
    results = run_study(study, tiny_cohort, tmp_path / "out", rows=["ddpm"])
    assert here == ["ddpm/seed-0"]
    assert states(results) == {"pca": ["not run"], "ddpm": ["done"]}
    results = run_study(study, tiny_cohort, tmp_path / "out", rows=["pca"])
    assert states(results) == {"pca": ["done"], "ddpm": ["done"]}
    with pytest.raises(UsageError, match="no row 'pcaa'"):
        run_study(study, tiny_cohort, tmp_path / "out", rows=["pcaa"])


def test_a_row_goes_on_at_the_stage_that_failed(tmp_path, tiny_cohort, here, monkeypatch):
    study = load_study(write(tmp_path, rows=[STUDY["rows"][0]]))
    judge = trial._judge
    monkeypatch.setattr(trial, "_judge", lambda job: (_ for _ in ()).throw(GyriError("no judge")))
    results = run_study(study, tiny_cohort, tmp_path / "out")
    assert results["rows"][0]["trials"][0]["failure"]["stage"] == "judge"
    folder = tmp_path / "out" / "rows" / "pca" / "seed-0"
    before = json.loads((folder / "record.json").read_text())
    monkeypatch.setattr(trial, "_judge", judge)
    results = run_study(study, tiny_cohort, tmp_path / "out")
    after = json.loads((folder / "record.json").read_text())
    assert states(results) == {"pca": ["done"]}
    assert after["train"] == before["train"]
    assert len(after["judge"]["spans"]) == 2
    assert "failure" not in after


def test_several_seeds_are_several_trials_and_compare_rows(tmp_path, tiny_cohort, here):
    path = write(tmp_path, protocol=protocol(seeds=[0, 1, 2]))
    results = run_study(load_study(path), tiny_cohort, tmp_path / "out")
    assert len(here) == 6
    assert "3 training seeds" in results["heading"]
    difference = next(d for d in results["differences"] if d["key"] == "kid/morph-v1")
    assert (difference["best"], difference["row"], difference["seeds"]) == ("pca", "ddpm", 3)
    assert difference["value"] == pytest.approx(1.0)
    assert "Differences from the best row" in (tmp_path / "out" / "results.html").read_text()


def test_the_checkpoint_is_chosen_by_its_distance_to_val(tmp_path, tiny_cohort, here, monkeypatch):
    snapshots = {**STUDY["rows"][1], "overrides": ["training.snapshots=2"]}
    choose = protocol(steps=4, choose={"checkpoints": 2, "num": 4})
    study = load_study(write(tmp_path, rows=[snapshots], protocol=choose))
    results = run_study(study, tiny_cohort, tmp_path / "out")
    assert "VAL has 1 subjects" in results["rows"][0]["trials"][0]["failure"]["reason"]
    given = {
        2: {"kid/morph-v1": 1.0, "kid/radiomics-v1": 3.0, "fd/morph-v1": 9.0},
        4: {"kid/morph-v1": 2.0, "kid/radiomics-v1": 4.0, "fd/morph-v1": 3.0},
    }
    monkeypatch.setattr(
        trial, "_distances", lambda job, choose, steps: {s: given[s] for s in steps}
    )
    results = run_study(study, tiny_cohort, tmp_path / "out")
    assert results["rows"][0]["trials"][0]["checkpoint"]["step"] == 2
    table = (tmp_path / "out" / "results.md").read_text()
    assert "## Over training" in table
    assert "| 8, 16 | 9, 3 |" in table
    assert 'id="course"' in (tmp_path / "out" / "results.html").read_text()
    facts = next((tmp_path / "out" / "rows" / "ddpm" / "seed-0").glob("samples-*"))
    assert json.loads((facts / "gyri-synthetic.json").read_text())["checkpoint"] == "step-00000002"


def test_a_checkpoint_of_blank_samples_is_not_chosen(tmp_path, tiny_cohort, here, monkeypatch):
    real_sample = trial.api.sample

    def sample(run, folder, *, step, **given):
        made, warnings = real_sample(run, folder, step=step, **given)
        if step in blank:
            for path in made.root.glob("sub-*/anat/*.nii.gz"):
                image = nib.load(path)
                nib.save(nib.Nifti1Image(np.zeros(image.shape, np.float32), image.affine), path)
        return made, warnings

    monkeypatch.setattr(trial.api, "sample", sample)
    monkeypatch.setattr(trial, "MIN_CHOOSING", 1)
    monkeypatch.setattr(FrechetDistance, "scores", lambda *_: [])
    scored = [SimpleNamespace(key="kid/morph-v1", value=1.0)]
    monkeypatch.setattr(KernelDistance, "scores", lambda *_: scored)
    snapshots = {**STUDY["rows"][1], "overrides": ["training.snapshots=2"]}
    choose = protocol(steps=4, choose={"checkpoints": 2, "num": 2})
    study = load_study(write(tmp_path, rows=[snapshots], protocol=choose))

    blank = {4}
    (row,) = run_study(study, tiny_cohort, tmp_path / "one")["rows"]
    assert row["trials"][0]["checkpoint"]["step"] == 2
    blank = {2, 4}
    (row,) = run_study(study, tiny_cohort, tmp_path / "none")["rows"]
    assert "same value" in row["trials"][0]["failure"]["reason"]


def test_two_jobs_share_the_threads_and_know_that_they_are_not_alone(
    tmp_path, tiny_cohort, here, monkeypatch
):
    monkeypatch.setattr(running, "_cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    places, both = [], threading.Barrier(2, timeout=60)
    inner = Works._process

    def together(self, one, place):
        places.append(place)
        both.wait()
        return inner(self, one, place)

    monkeypatch.setattr(Works, "_process", together)
    results = run_study(load_study(write(tmp_path)), tiny_cohort, tmp_path / "out", jobs=2)
    assert states(results) == {"pca": ["done"], "ddpm": ["done"]}
    assert [(p.threads, p.alone) for p in places] == [(2, False)] * 2


def test_devices_are_lent_to_one_trial_each(monkeypatch):
    monkeypatch.setattr(running, "_cuda_devices", lambda: ["0", "1"])
    devices = Devices(jobs=3)
    seen = []
    with devices.lend(1) as a, devices.lend(1) as b:
        assert {a.devices, b.devices} == {("0",), ("1",)}

        def third():
            with devices.lend(8) as place:
                seen.append(place.devices)

        waiting = threading.Thread(target=third)
        waiting.start()
        time.sleep(0.05)
        assert not seen
    waiting.join(10)
    assert sorted(seen[0]) == ["0", "1"]


def test_a_folder_in_use_is_refused(tmp_path, tiny_cohort):
    from filelock import FileLock

    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(UsageError, match="in use by another study"):
        run_study(load_study(write(tmp_path)), tiny_cohort, out)
    with pytest.raises(UsageError, match="jobs is 0"):
        run_study(load_study(write(tmp_path)), tiny_cohort, out, jobs=0)


def fake_process(monkeypatch, code):
    """Have trials be processes that do as `code` says."""
    popen = subprocess.Popen
    monkeypatch.setattr(
        running.subprocess,
        "Popen",
        lambda command, **more: popen([sys.executable, "-c", code], **more),
    )


def test_a_process_that_is_killed_is_recorded_by_the_study(tmp_path, tiny_cohort, monkeypatch):
    fake_process(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    study = load_study(write(tmp_path, rows=[STUDY["rows"][0]]))
    results = run_study(study, tiny_cohort, tmp_path / "out")
    failure = results["rows"][0]["trials"][0]["failure"]
    assert failure["stage"] == "train"
    assert "SIGKILL" in failure["reason"]


def test_a_stop_signal_is_passed_on_and_nothing_more_begins(tmp_path, tiny_cohort, monkeypatch):
    fake_process(monkeypatch, "import time; time.sleep(60)")
    study = load_study(write(tmp_path))
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    told = []
    with pytest.raises(ResumableStop, match="run the same command again"):
        run_study(study, tiny_cohort, tmp_path / "out", tell=told.append)
    assert not any(text.startswith("ddpm/seed-0: begins") for text in told)
    assert "failed" not in (tmp_path / "out" / "results.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_command_line_runs_a_study_in_processes_of_its_own(tmp_path, tiny_cohort):
    import yaml

    (tmp_path / "ddpm.yaml").write_text(
        yaml.safe_dump({**DDPM, "training": {**DDPM["training"], "batch_size": 2}})
    )
    two = {"name": "two", "recipe": "ddpm.yaml", "processes": 2}
    path = write(tmp_path, rows=[STUDY["rows"][0], BROKEN, two])
    command = [sys.executable, "-m", "gyri", "study", str(path), "--data", str(tiny_cohort)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--jobs", "2"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == UsageError.exit_code, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert states(results) == {"pca": ["done"], "broken": ["failed"], "two": ["done"]}
    assert "broken/seed-0 at train" in done.stderr
    recipe = next((tmp_path / "out" / "rows" / "two" / "seed-0").glob("run-*/run.json"))
    assert json.loads(recipe.read_text())["cost"]["processes"] == 2
