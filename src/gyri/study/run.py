"""Working a study off: a process a trial, several at once, each kept when it is done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from gyri.cohort.files import write_json
from gyri.cohort.prepared import PreparedCohort
from gyri.errors import GyriError, ResumableStop, UsageError
from gyri.report.study import write_study
from gyri.report.text import duration
from gyri.runtime.signals import stop_signals
from gyri.study.plan import Protocol, Row, Study, Trial, is_fitted, trials
from gyri.study.results import TIMELINE, collect, overhead
from gyri.study.trial import (
    JOB,
    LOG,
    RECORD,
    STAGES,
    Job,
    is_done,
    is_finished,
    read_record,
    trial_folder,
)

Tell = Callable[[str], None]

FEATURES = "features"
USUAL_OTHER_S = 120.0
"""Seconds of sampling and judging a trial, before the first has told."""


@dataclass(frozen=True)
class Place:
    """What a trial is given of the machine.

    Parameters
    ----------
    devices : CUDA devices by the names that ``CUDA_VISIBLE_DEVICES`` takes; none on a processor.
    threads : of torch.
    alone : no other trial runs beside it.
    """

    devices: tuple[str, ...]
    threads: int
    alone: bool


class Devices:
    """The machine's devices, lent to one trial each.

    Parameters
    ----------
    jobs : trials at once.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.free = _cuda_devices()
        self.count = len(self.free)
        self.cores = _cores()
        self._changed = threading.Condition()

    @contextmanager
    def lend(self, processes: int) -> Iterator[Place]:
        """Wait until `processes` devices are free, all there are at most, and lend them."""
        threads = max(1, self.cores // (self.jobs * processes))
        threads = min(threads, int(os.environ.get("OMP_NUM_THREADS") or threads))
        wanted = min(processes, self.count)
        with self._changed:
            self._changed.wait_for(lambda: len(self.free) >= wanted)
            lent, self.free = self.free[:wanted], self.free[wanted:]
        try:
            yield Place(tuple(lent), threads, self.jobs == 1)
        finally:
            with self._changed:
                self.free += lent
                self._changed.notify_all()


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cuda_devices() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(n) for n in range(count)]


def run_study(
    study: Study,
    data: Path | str,
    out: Path | str,
    *,
    rows: Sequence[str] = (),
    jobs: int = 1,
    tell: Tell = lambda text: None,
    began: float | None = None,
) -> dict[str, Any]:
    """Run the rows of a study that are not done yet, and gather the results of all.

    A trial is a row with a seed. One that fails is recorded with its reason, and the others go
    on; asked again, the study tries it again. Nothing is repeated unless its recipe, the protocol
    or the data have changed.

    Parameters
    ----------
    study : see `gyri.study.plan.load_study`.
    data : prepared cohort.
    out : folder of the study: ``results.html``, ``.md``, ``.csv`` and ``.json``, and all runs.
    rows : names of the rows to run, all by default; results hold whatever is done.
    jobs : trials at once.
    tell : is told what begins and ends, and how long it will take.
    began : `time.time` at which the work for this study began, if before now.

    Returns
    -------
    dict
        The content of ``results.json``.

    Raises
    ------
    UsageError
        On an unknown row, or if another process works on `out`.
    ResumableStop
        After SIGTERM, SIGINT or SIGUSR1.
    """
    began = time.time() if began is None else began
    if jobs < 1:
        raise UsageError(f"jobs is {jobs}; at least one trial runs at a time.")
    cohort = PreparedCohort.read(Path(data))
    out = Path(out)
    chosen = study.select(rows)
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"{out} is in use by another study. Wait for it, or give another --out."
        ) from None
    try:
        todo = [t for t in trials(study, chosen, cohort) if not is_finished(out, t)]
        stopped = Works(study, cohort, out, jobs, tell).run(todo) if todo else False
        results = _gather(study, cohort, out, began, jobs)
    finally:
        lock.release()
    if stopped:
        raise ResumableStop(
            f"The study was stopped. What is finished is kept in {out}; run the same command "
            "again to go on."
        )
    return results


class Works:
    """The trials of one call of `run_study`, worked off.

    Parameters
    ----------
    study, cohort, out, jobs, tell : see `run_study`.
    """

    def __init__(
        self, study: Study, cohort: PreparedCohort, out: Path, jobs: int, tell: Tell
    ) -> None:
        self.study = study
        self.cohort = cohort
        self.out = out
        self.jobs = jobs
        self.tell = tell
        self.devices = Devices(jobs)
        self.live: set[subprocess.Popen[bytes]] = set()
        self.stopping = threading.Event()
        self.others_s: list[float] = []

    def run(self, todo: Sequence[Trial]) -> bool:
        """Work off trials; True if asked to stop before the end."""
        left = list(todo)
        self.tell(f"{len(todo)} trials to do, about {duration(self._remaining_s(left))}")
        with stop_signals() as asked, ThreadPoolExecutor(self.jobs) as pool:
            futures = {pool.submit(self._trial, trial): trial for trial in todo}
            while futures:
                done, _ = wait(futures, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    trial = futures.pop(future)
                    left.remove(trial)
                    outcome = future.result()
                    write_study(collect(self.study, self.cohort, self.out), self.out)
                    if not self.stopping.is_set():
                        about = duration(self._remaining_s(left))
                        rest = f"; {len(left)} left, about {about}" if left else ""
                        self.tell(f"{trial.name}: {outcome}{rest}")
                if asked() and not self.stopping.is_set():
                    self._stop()
        return self.stopping.is_set()

    def _stop(self) -> None:
        self.stopping.set()
        self.tell("stopping; training saves itself")
        for process in list(self.live):
            os.killpg(process.pid, signal.SIGTERM)

    def _trial(self, trial: Trial) -> str:
        """Run one trial and say how it went."""
        with self.devices.lend(trial.row.processes) as place:
            if self.stopping.is_set():
                return "not begun"
            began = time.monotonic()
            self.tell(f"{trial.name}: begins")
            code = self._process(trial, place)
        record = read_record(trial_folder(self.out, trial))
        seconds = time.monotonic() - began
        if code != 0 and not self.stopping.is_set():
            failure = record.get("failure") or self._died(trial, record, code)
            return f"FAILED at {failure['stage']} after {duration(seconds)}: {failure['reason']}"
        self.others_s.append(seconds - (record.get("train", {}).get("training_s") or 0.0))
        return f"done in {duration(seconds)}"

    def _process(self, trial: Trial, place: Place) -> int:
        """Start the trial's process, wait for it and return its exit status."""
        folder = trial_folder(self.out, trial)
        folder.mkdir(parents=True, exist_ok=True)
        job = self._job(trial, folder, place)
        write_json(folder / JOB, asdict(job))
        environment = {**os.environ, "OMP_NUM_THREADS": str(place.threads)}
        if place.devices:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(place.devices)
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gyri.study.trial", str(folder / JOB)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self.live.add(process)
        try:
            return process.wait()
        finally:
            self.live.discard(process)

    def _job(self, trial: Trial, folder: Path, place: Place) -> Job:
        protocol = self.study.protocol
        key = trial.keys["train"][:8]
        recipe = folder / f"recipe-{key}.yaml"
        recipe.write_text(trial.recipe.to_yaml(), encoding="utf-8")
        needed = {name: folder / f"{name}-{key}.yaml" for name in trial.needed}
        for name, path in needed.items():
            path.write_text(trial.needed[name].to_yaml(), encoding="utf-8")
        sampling = trial.row.sampling.items()
        return Job(
            folder=str(folder.resolve()),
            recipe=str(recipe.resolve()),
            needed={name: str(path.resolve()) for name, path in needed.items()},
            data=str(self.cohort.root.resolve()),
            cache=str((self.out / FEATURES).resolve()),
            keys=dict(trial.keys),
            processes=trial.row.processes,
            sampling=tuple(f"sampling.{key}={json.dumps(value)}" for key, value in sampling),
            num=protocol.num,
            mix=protocol.mix,
            sampling_seed=protocol.sampling_seed,
            choose=asdict(protocol.choose),
            judge=asdict(protocol.judge),
            threads=place.threads,
            alone=place.alone,
        )

    def _died(self, trial: Trial, record: dict[str, Any], code: int) -> dict[str, Any]:
        """Record the failure of a process that could not do so itself."""
        stage = next(s for s in STAGES if not is_done(record, trial.keys, s))
        reason = f"the process ended with exit status {code}"
        if code == -signal.SIGKILL:
            reason = "the process was killed (SIGKILL); the machine may be short of memory"
        elif code < 0:
            reason = f"the process was ended by {signal.Signals(-code).name}"
        failure = {"stage": stage, "reason": f"{reason}; see {LOG}", "exit_code": 70}
        write_json(trial_folder(self.out, trial) / RECORD, {**record, "failure": failure})
        return failure

    def _remaining_s(self, left: Sequence[Trial]) -> float:
        known = self.others_s
        other_s = sum(known) / len(known) if known else USUAL_OTHER_S
        planned = [training_s(t, self.study.protocol) + other_s for t in left]
        return sum(planned) / min(self.jobs, max(1, len(planned)))


def training_s(trial: Trial, protocol: Protocol) -> float:
    """Seconds that a trial's training is meant to take; 0 where steps are counted instead."""
    return 0.0 if is_fitted(trial.recipe) else trial.recipe.training.budget_s or 0.0


def _gather(
    study: Study, cohort: PreparedCohort, out: Path, began: float, jobs: int
) -> dict[str, Any]:
    """Write the results of all rows, whichever call ran them, and what the study itself cost."""
    results = collect(study, cohort, out)
    ended = time.time()
    with (out / TIMELINE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"began": began, "ended": ended, "jobs": jobs}) + "\n")
    results["overhead"] = overhead(study, cohort, out)
    write_study(results, out)
    return results


def failed(results: dict[str, Any], rows: Sequence[Row]) -> GyriError | None:
    """Return the error that says which of `rows` failed, None where none did."""
    names = {row.name for row in rows}
    failures = [
        (f"{row['name']}/seed-{trial['seed']}", trial["failure"])
        for row in results["rows"]
        for trial in row["trials"]
        if row["name"] in names and trial["state"] == "failed"
    ]
    if not failures:
        return None
    told = "; ".join(f"{name} at {why['stage']}: {why['reason']}" for name, why in failures)
    error = GyriError(f"{len(failures)} of the trials failed, the others are done. {told}")
    error.exit_code = failures[0][1]["exit_code"]
    return error
