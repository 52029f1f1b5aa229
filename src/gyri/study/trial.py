"""One trial, in a process of its own: train, choose a checkpoint, sample, judge.

``python -m gyri.study.trial JOB.json`` goes on where an earlier process stopped. What each stage
cost, and why one failed, is kept in ``record.json`` beside the job.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from gyri import api
from gyri.cohort.files import write_json
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.errors import DataError, GyriError, ResumableStop
from gyri.study.cost import measured
from gyri.study.plan import Choose, JudgeSettings, Trial
from gyri.training import checkpoint
from gyri.training.run import Run

ROWS = "rows"
STAGES = ("train", "choose", "sample", "judge")
RECORD, JOB, LOG, SHEET = "record.json", "job.json", "log.txt", "contact.png"
MIN_CHOOSING = 4
NUM_PICTURED = 8
ADDED_UP = ("wall_s", "cpu_s", "processor_energy_j", "gpu_energy_j")
LARGEST = ("peak_memory_gib", "gpu_memory_gib")


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that a trial's process is told.

    Parameters
    ----------
    folder : of the trial; ``run`` and ``samples`` are folders inside, named after their keys.
    recipe : YAML file of the resolved recipe.
    needed : YAML files of what it needs and what shares its budget, by name.
    data : prepared cohort.
    cache : folder of features that all trials share.
    keys : see `gyri.study.plan.Trial`.
    sampling : overrides of the method's sampler.
    threads : of torch on the processor.
    alone : no other trial runs at the same time.
    """

    folder: str
    recipe: str
    data: str
    cache: str
    keys: dict[str, str]
    processes: int
    sampling: tuple[str, ...]
    num: int
    mix: str
    sampling_seed: int
    choose: dict[str, Any] = field(default_factory=lambda: asdict(Choose()))
    judge: dict[str, Any] = field(default_factory=lambda: asdict(JudgeSettings()))
    needed: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    alone: bool = True

    @property
    def run(self) -> Path:
        """Folder of the run; another recipe or other data have another."""
        return Path(self.folder) / f"run-{self.keys['train'][:8]}"

    @property
    def samples(self) -> Path:
        """Folder of the samples."""
        return Path(self.folder) / f"samples-{self.keys['sample'][:8]}"


def read_record(folder: Path) -> dict[str, Any]:
    """Return what is known of a trial: an entry a stage, and ``failure`` if it failed."""
    path = folder / RECORD
    record: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return record


def is_done(record: Mapping[str, Any], keys: Mapping[str, str], stage: str) -> bool:
    """Whether a stage has been finished under its present key."""
    entry = record.get(stage, {})
    return bool(entry.get("done")) and entry.get("key") == keys[stage]


def trial_folder(out: Path, trial: Trial) -> Path:
    """Return the folder of a trial."""
    return out / ROWS / trial.name


def is_finished(out: Path, trial: Trial) -> bool:
    """Whether all stages of a trial are done as the study has them now."""
    record = read_record(trial_folder(out, trial))
    return all(is_done(record, trial.keys, stage) for stage in STAGES)


def work(job: Job) -> None:
    """Do the stages that are not done yet."""
    folder = Path(job.folder)
    stages: dict[str, Callable[[Job], dict[str, Any]]] = {
        "train": _train,
        "choose": _choose,
        "sample": _sample,
        "judge": _judge,
    }
    for stage, do in stages.items():
        record = read_record(folder)
        record.pop("failure", None)
        if is_done(record, job.keys, stage):
            continue
        found: dict[str, Any] = {}
        try:
            with measured(job.alone) as cost:
                found = do(job)
        except Exception as error:
            if not isinstance(error, ResumableStop):
                code = error.exit_code if isinstance(error, GyriError) else GyriError.exit_code
                reason = str(error) or type(error).__name__
                record["failure"] = {"stage": stage, "reason": reason, "exit_code": code}
            raise
        finally:
            before = record.get(stage, {})
            if before.get("key") != job.keys[stage]:
                before = {}
            entry = {"key": job.keys[stage], "done": bool(found), **_together(before, cost)}
            record[stage] = entry | found
            write_json(folder / RECORD, record)


def _together(before: dict[str, Any], cost: dict[str, Any]) -> dict[str, Any]:
    """Add the cost of one more attempt at a stage to that of the attempts before."""
    spans = [*before.get("spans", []), [cost["began"], cost["ended"]]]
    total: dict[str, Any] = {"spans": spans}
    for names, combine in ((ADDED_UP, sum), (LARGEST, max)):
        for name in names:
            known = [c[name] for c in (before, cost) if c.get(name) is not None]
            total[name] = combine(known) if known else None
    return total


def _train(job: Job) -> dict[str, Any]:
    overrides = []
    for name, recipe in job.needed.items():
        needed = job.run.with_name(f"{name}-{job.keys['train'][:8]}")
        api.train(recipe, job.data, needed)
        overrides.append(f"needs.{name}={needed}")
    if job.processes == 1:
        run = api.train(job.recipe, job.data, job.run, overrides=tuple(overrides))
    else:
        run = _train_by_torchrun(job, overrides)
    cost = run.info["cost"]
    parameters = cost.get("parameters", {})
    return {
        "steps": cost["steps"],
        "images_seen": cost["images_seen"],
        "training_s": cost["training_s"],
        "parameters": sum(parameters.values()),
        "needs_s": sum(n["training_s"] or 0.0 for n in run.info.get("needs", {}).values()),
        "machine": run.info["machine"],
    }


def _train_by_torchrun(job: Job, overrides: Sequence[str]) -> Run:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    train = ["-m", "gyri", "train", job.recipe, "--data", job.data, "--out", str(job.run)]
    if overrides:
        train += ["--override", *overrides]
    done = subprocess.run([sys.executable, *torchrun, str(job.processes), *train])
    run = Run.read(job.run) if (job.run / "run.json").is_file() else None
    if done.returncode != 0 or run is None or "cost" not in run.info:
        raise GyriError(
            f"torchrun with {job.processes} processes ended with exit status {done.returncode}; "
            "its own messages are in the log."
        )
    return run


def _choose(job: Job) -> dict[str, Any]:
    """Compare the last checkpoints by their mean rank in kernel distance to the choosing split."""
    choose = Choose(**job.choose)
    steps = [int(f.name[5:]) for f in checkpoint.numbered(job.run / "checkpoints")]
    steps = steps[-choose.checkpoints :]
    if len(steps) == 1:
        return {"step": steps[0]}
    distances = _distances(job, choose, steps)
    steps = list(distances)
    kernel = [key for key in distances[steps[0]] if key.startswith("kid/")]
    table = np.array([[distances[step][key] for key in kernel] for step in steps])
    ranks = table.argsort(0).argsort(0).mean(1)
    # Of checkpoints that are alike the later one.
    best = max(range(len(steps)), key=lambda n: (-ranks[n], n))
    return {"step": steps[best], "split": choose.on, "num": choose.num, "distances": distances}


def _distances(job: Job, choose: Choose, steps: list[int]) -> dict[int, dict[str, float]]:
    """Kernel and Fréchet distances of each checkpoint's samples to a split, by the score's key.

    A checkpoint whose samples cannot be judged, as they are blank, is left out.
    """
    from threadpoolctl import threadpool_limits

    from gyri.evaluation.metrics.frechet import FrechetDistance
    from gyri.evaluation.metrics.kernel import KernelDistance
    from gyri.evaluation.protocol import Judge, without_nan

    cohort = PreparedCohort.read(Path(job.data))
    real = cohort.volume_set(choose.on)
    if len(real) < MIN_CHOOSING:
        raise DataError(
            f"{choose.on} has {len(real)} subjects; choosing a checkpoint needs at least "
            f"{MIN_CHOOSING}. Deal more to it, or set protocol.choose.checkpoints to 1."
        )
    with threadpool_limits(1):
        judge = Judge(
            cohort.volume_set("TRAIN"), real, choose.num, 0, Path(job.cache), 0, None,
            features=job.judge["features"] or None,
        )  # fmt: skip
        found, refused = {}, None
        for step in steps:
            folder = job.run / "chosen-from" / f"step-{step:08d}-{job.keys['choose'][:8]}"
            samples, _ = api.sample(
                job.run, folder, num=choose.num, like=job.data, split=choose.on, step=step,
                seed=job.sampling_seed, overrides=job.sampling,
            )  # fmt: skip
            try:
                evidence = judge.evidence(*without_nan(samples.volume_set()))
            except DataError as error:
                print(f"The checkpoint of step {step} is not chosen: {error}", flush=True)
                refused = error
                continue
            found[step] = {
                score.key: float(score.value)
                for metric in (KernelDistance(), FrechetDistance())
                for score in metric.scores(evidence, judge.study)
            }
    if refused is not None and not found:
        raise refused
    return found


def _sample(job: Job) -> dict[str, Any]:
    step = read_record(Path(job.folder))["choose"]["step"]
    cohort, warnings = api.sample(
        job.run,
        job.samples,
        num=job.num,
        like=job.data,
        split=job.mix,
        seed=job.sampling_seed,
        step=step,
        overrides=job.sampling,
    )
    seconds = [json.loads(path.read_text()).get("SamplingSeconds") for path in _sidecars(cohort)]
    known = [s for s in seconds if s is not None]
    return {
        "warnings": warnings,
        "seconds_a_sample": float(np.mean(known)) if known else None,
        "num": len(cohort.table),
    }


def _sidecars(cohort: SyntheticCohort) -> list[Path]:
    return sorted(cohort.root.glob("sub-*/**/*_desc-synthetic*.json"))


def _judge(job: Job) -> dict[str, Any]:
    scores = api.evaluate(
        job.samples,
        job.data,
        split=job.judge["split"],
        seed=job.judge["seed"],
        bootstrap=job.judge["bootstrap"],
        features=job.judge["features"] or None,
        legacy=job.judge["legacy"],
        cache=job.cache,
    )
    _draw_contact_sheet(job)
    return {"num_scores": len(scores.scores)}


def _draw_contact_sheet(job: Job) -> None:
    """Draw the first samples in three planes, in the window of the prepared range."""
    from gyri.report.figures import mosaic, png

    volumes = SyntheticCohort.read(job.samples).volume_set()
    first = np.nan_to_num(volumes.volumes[:NUM_PICTURED, 0])
    figure = mosaic(list(first), spacing_mm=volumes.grid.spacing_mm, window=(0.0, 1.0))
    (Path(job.folder) / SHEET).write_bytes(png(figure, dpi=80))


def _stop(number: int, frame: FrameType | None) -> None:
    """End as on Ctrl-C, so that what the stage has cost is kept; training saves itself first."""
    raise KeyboardInterrupt


def main(path: str) -> int:
    """Work off a job file; the exit status is that of `gyri` (see `gyri.errors`)."""
    job = Job(**json.loads(Path(path).read_text()))
    torch.set_num_threads(job.threads)
    signal.signal(signal.SIGTERM, _stop)
    print(f"{time.strftime('%H:%M:%S')} {job.folder}, process {os.getpid()}", flush=True)
    try:
        work(job)
    except KeyboardInterrupt:
        return ResumableStop.exit_code
    except GyriError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except Exception:
        traceback.print_exc()
        return GyriError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
