"""The training loop: one for every method.

A step runs every phase that is due: a fresh batch, its micro-batches, mean gradients over
micro-batches and processes, a stop if anything is not finite, clipping, the update; then the
moving averages; then whatever is due: a log row, a preview, a checkpoint. All randomness is a
function of the run's seed and the position in the run, so a run that was killed and goes on ends
with the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gyri.errors import DataError, GyriError, ResumableStop
from gyri.recipe import TrainingConfig
from gyri.runtime import distributed
from gyri.runtime.seeding import derive_seed
from gyri.runtime.streams import SampleRng
from gyri.training import checkpoint
from gyri.training.data import Feed
from gyri.training.ema import Ema, averaged
from gyri.training.log import JsonLog
from gyri.training.shard import shard, spread_like, whole
from gyri.types import Method, OptimiserConfig, Phase, Progress

WARMUP_STEPS = 20
"""Steps, at least, after which a budget in seconds becomes a number of steps."""
TIMED_SHARE = 0.05
"""Share of the budget, at least, that these steps are to take: a few short ones tell too little."""
UNTIMED_STEPS = 5
"""First steps of the warm-up that are left out of the measured step time."""


@dataclass
class Clock:
    """Where a run is; saved with every checkpoint."""

    step: int = 0
    horizon: int = 0
    drawn: int = 0
    """Items drawn over all phases: the position in the feed's stream."""
    images_seen: int = 0
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    """Processor time of all threads."""
    data_wait_s: float = 0.0

    @property
    def progress(self) -> Progress:
        """The clock as methods may read it."""
        fraction = min(self.step / self.horizon, 1.0) if self.horizon else 0.0
        return Progress(self.step, self.images_seen, fraction)


class Trainer:
    """Trains one method on one feed inside one run folder.

    Parameters
    ----------
    method : built method, on the feed's device.
    feed : TRAIN.
    config : the recipe's training section.
    seed : the run's seed.
    root : run folder; checkpoints go to ``root/checkpoints``, the log to ``root/log.jsonl``.
    preview : called with the step, inside the averaged weights.
    validate : called with the progress, inside the averaged weights; what it returns is logged.
    """

    def __init__(
        self,
        method: Method,
        feed: Feed,
        config: TrainingConfig,
        seed: int,
        root: Path,
        preview: Callable[[int], None] | None = None,
        validate: Callable[[Progress], dict[str, float]] | None = None,
    ) -> None:
        self.method, self.feed, self.config, self.seed = method, feed, config, seed
        self.checkpoints = root / "checkpoints"
        self.log = JsonLog(root / "log.jsonl")
        self.preview = preview
        self.validate = validate
        self.clock = Clock(horizon=config.steps or 0)
        self.ema = Ema(method)
        self.optimisers = self._build_optimisers()
        self.per_rank = self._share_of_batch()
        if config.compile:
            for network in method.networks.values():
                network.compile()

    def _build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            name: _build_optimiser(self.method, name, settings)
            for name, settings in self.method.optimisers.items()
        }

    def _share_of_batch(self) -> int:
        """Items a process, checked: whole groups must fit micro-batches and processes."""
        world, size, group = distributed.world_size(), self.config.batch_size, self.method.group
        micro = self.config.micro_batch or size // world
        if size % world or (size // world) % group or micro % group:
            raise DataError(
                f"training.batch_size={size} on {world} processes with micro_batch={micro} cannot "
                f"be cut into whole groups of {group}; choose multiples."
            )
        return size // world

    def run(
        self,
        on_step: Callable[[Clock, dict[str, float]], None] = lambda clock, logs: None,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> Clock:
        """Train to the horizon, going on from the newest whole checkpoint if there is one.

        Parameters
        ----------
        on_step : told the clock and the latest logs after every step.
        stop_asked : asked after every step; True saves and raises.

        Raises
        ------
        ResumableStop
            When `stop_asked` said so, or the disk is full.
        GyriError
            When a loss or gradient is not finite; nothing is updated, the last checkpoint stands.
        """
        saved = self._restore()
        if saved is None:
            self._calibrate()
        self._shard()
        if saved is not None:
            for name, optimiser in self.optimisers.items():
                _load_optimiser(optimiser, saved[f"optimiser-{name}"])
        started, before = time.monotonic(), self.clock.elapsed_s
        cpu_started, cpu_before = time.process_time(), self.clock.cpu_s
        last_saved = started
        timed_from: tuple[float, int] | None = None
        while not self.clock.horizon or self.clock.step < self.clock.horizon:
            logs = self._step()
            validated = self._validate()
            now = time.monotonic()
            self.clock.elapsed_s = before + now - started
            self.clock.cpu_s = cpu_before + time.process_time() - cpu_started
            if not self.clock.horizon:
                timed_from = self._measure_step_time(timed_from)
            if self.clock.step % self.config.log_every == 0 or self._at_end() or validated:
                self._write_log(logs | validated)
            on_step(self.clock, logs)
            if self._preview_due() and self.preview is not None:
                with averaged(self.method, self.ema):
                    self.preview(self.clock.step)
            if self.clock.step in self._snapshot_steps() or (
                distributed.from_rank_zero(
                    float(now - last_saved > self.config.save_every_s), self.feed.device
                )
            ):
                self.save()
                last_saved = time.monotonic()
            if distributed.from_rank_zero(float(stop_asked()), self.feed.device):
                self.save()
                raise ResumableStop(
                    f"Stopped at step {self.clock.step} of {self.clock.horizon or 'an open number'}"
                    "; everything is saved. Run the same command to go on."
                )
        return self.clock

    def _calibrate(self) -> None:
        self.method.calibrate(*self.feed.calibration_items())
        # A method may begin with other weights than it was built with.
        self.ema = Ema(self.method)

    def _shard(self) -> None:
        """Spread networks, averages and optimisers over the processes, if that is asked for."""
        if not self.config.shard or distributed.world_size() == 1:
            return
        networks = [*self.method.networks.values(), *self.ema.networks.values()]
        shard(networks, self.feed.device)
        self.optimisers = self._build_optimisers()

    def _step(self) -> dict[str, float]:
        """Run every phase that is due, then the moving averages; return the logs."""
        logs: dict[str, float] = {}
        for number, phase in enumerate(self.method.phases):
            if self.clock.step % phase.every == phase.offset:
                for _ in range(phase.repeats):
                    logs |= self._update(phase)
                    if number == 0:
                        self.clock.images_seen += self.config.batch_size
        self.clock.step += 1
        self.ema.update(self.method, self.config.batch_size, self.clock.progress)
        return logs

    def _update(self, phase: Phase) -> dict[str, float]:
        """Take one optimiser step of one phase."""
        trained = set(phase.networks)
        for name, network in self.method.networks.items():
            network.requires_grad_(name in trained)
        parameters = [p for name in phase.networks for p in self.method.networks[name].parameters()]
        for parameter in parameters:
            parameter.grad = None

        progress = self.clock.progress
        sums, statistics = self._gradients(phase, parameters, progress)
        settings = self.method.optimisers[phase.optimiser]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        (norm,) = whole({"norm": norm}).values()
        self._refuse_non_finite(phase, sums, norm)
        # Gradients within the limit are left alone: scaling them by 1 is a pass over all of them.
        if settings.clip_norm and norm > settings.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, settings.clip_norm, norm)
        optimiser = self.optimisers[phase.optimiser]
        hyper = _hyperparameters(settings, progress)
        hyper |= self.method.hyperparameters(phase.optimiser, progress)
        for group in optimiser.param_groups:
            group.update(hyper)
        optimiser.step()
        self.method.after_step(phase.name, distributed.sum_tensors(statistics))
        logs = {f"{phase.name}/{name}": float(value) for name, value in sums.items()}
        return logs | {f"{phase.name}/gradient_norm": float(norm), f"{phase.name}/lr": hyper["lr"]}

    def _gradients(
        self, phase: Phase, parameters: list[torch.nn.Parameter], progress: Progress
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Leave a fresh batch's mean gradients in `parameters`; return logs and statistics."""
        began = time.monotonic()
        first = self.clock.drawn + distributed.rank() * self.per_rank
        batch = self.feed.batch(torch.arange(first, first + self.per_rank))
        self.clock.data_wait_s += time.monotonic() - began
        # Only dropout reads the global generator; everything else has a stream of its own.
        torch.manual_seed(derive_seed(self.seed, phase.name, self.clock.drawn, distributed.rank()))
        self.clock.drawn += self.config.batch_size

        sums: dict[str, Tensor] = {}
        statistics: dict[str, Tensor] = {}
        size = self.config.micro_batch or self.per_rank
        for start in range(0, self.per_rank, size):
            micro = batch[slice(start, start + size)]
            weight = len(micro) / self.per_rank
            with self._autocast():
                loss = self.method.loss(
                    phase.name, micro, progress, SampleRng(micro.seed, self.feed.device)
                )
            (loss.total * weight).backward()
            for name, value in {"loss": loss.total, **loss.logs}.items():
                sums[name] = sums.get(name, torch.zeros(())) + value.detach().float().cpu() * weight
            for name, value in loss.statistics.items():
                statistics[name] = statistics[name] + value if name in statistics else value

        distributed.average_gradients(parameters)
        return sums, statistics

    def _autocast(self) -> Any:
        if self.config.precision == "bf16":
            return torch.autocast(self.feed.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _refuse_non_finite(self, phase: Phase, sums: dict[str, Tensor], norm: Tensor) -> None:
        values = {**sums, "gradient norm": norm}
        bad = [name for name, value in values.items() if not bool(torch.isfinite(value))]
        finite = distributed.sum_tensors(
            {"bad": torch.tensor(float(len(bad)), device=self.feed.device)}
        )
        if finite["bad"] > 0:
            raise GyriError(
                f"Phase {phase.name!r} at step {self.clock.step}: {', '.join(bad) or 'a value'} "
                "is not finite. Nothing was updated and the last checkpoint stands. Lower the "
                "learning rate or set clip_norm, and run again."
            )

    def _measure_step_time(self, timed_from: tuple[float, int] | None) -> tuple[float, int] | None:
        """Turn a budget in seconds, once, into a horizon in steps."""
        step = self.clock.step
        by_cpu = self.config.budget_clock == "processor"
        spent_s = self.clock.cpu_s if by_cpu else self.clock.elapsed_s
        if timed_from is None:
            # A run that was interrupted inside its warm-up starts measuring anew.
            return (spent_s, step) if step >= UNTIMED_STEPS else None
        budget_s = self.config.budget_s or 0.0
        if step >= WARMUP_STEPS and step > timed_from[1] and spent_s >= TIMED_SHARE * budget_s:
            step_s = (spent_s - timed_from[0]) / (step - timed_from[1])
            left_s = budget_s - spent_s
            horizon = step + max(int(left_s / step_s), 1)
            self.clock.horizon = int(distributed.from_rank_zero(horizon, self.feed.device))
        return timed_from

    def _at_end(self) -> bool:
        return self.clock.step == self.clock.horizon

    def _validate(self) -> dict[str, float]:
        """Return what validation logs where it is due; a budget's horizon is measured without."""
        every = self.config.validate_every
        due = self._at_end() or bool(every and self.clock.step % every == 0)
        if self.validate is None or not due or not self.clock.horizon or distributed.rank():
            return {}
        with averaged(self.method, self.ema), self._autocast():
            found = self.validate(self.clock.progress)
        return {f"validation/{name}": value for name, value in found.items()}

    def _preview_due(self) -> bool:
        every = self.config.preview_every
        if self.config.shard:
            return False
        return self._at_end() or bool(every and self.clock.step % every == 0)

    def _snapshot_steps(self) -> set[int]:
        """Steps whose checkpoints are kept."""
        count = self.config.snapshots
        return {round(self.clock.horizon * k / count) for k in range(1, count + 1)} - {0}

    def _write_log(self, logs: dict[str, float]) -> None:
        if distributed.rank() == 0:
            clock = asdict(self.clock)
            del clock["drawn"]
            self.log.write({**clock, **logs})

    def save(self) -> None:
        """Write a checkpoint of everything that training needs to go on."""
        files: dict[str, dict[str, Tensor]] = {
            "state": self.method.state,
            "view": self.feed.view.state,
        }
        for name, network in self.method.networks.items():
            files[f"network-{name}"] = whole(network.state_dict())
        for name, network in self.ema.networks.items():
            files[f"average-{name}"] = whole(network.state_dict())
        for name, optimiser in self.optimisers.items():
            files[f"optimiser-{name}"] = whole(_optimiser_tensors(optimiser))
        if distributed.rank() == 0:
            checkpoint.save(self.checkpoints, self.clock.step, files, asdict(self.clock))
            checkpoint.keep_only(self.checkpoints, self._snapshot_steps())
        distributed.barrier()

    def _restore(self) -> dict[str, dict[str, Tensor]] | None:
        """Load the newest whole checkpoint and return its files; None when there is none.

        What the optimisers hold is put into them later, when they are the ones that will step.
        """
        folder = checkpoint.latest(self.checkpoints)
        if folder is None:
            return None
        files, clock = checkpoint.load(folder)
        self.clock = Clock(**clock)
        load_weights(self.method, files, folder, average=False)
        for name, network in self.ema.networks.items():
            load_strictly(network, files[f"average-{name}"], f"{folder}: average-{name}")
        self.feed.view.state = files["view"]
        self.feed.view.to(self.feed.device)
        if distributed.rank() == 0:
            self.log.cut_back(self.clock.step)
        distributed.barrier()
        return files


def load_weights(
    method: Method, files: dict[str, dict[str, Tensor]], folder: Path, average: bool
) -> None:
    """Put a checkpoint's weights and state into `method`.

    Parameters
    ----------
    average : take the moving averages of the networks that have one.

    Raises
    ------
    DataError
        If a tensor is missing, is one too many or has another shape; names it.
    """
    load_networks(method, files, folder, average)
    device = next((p.device for n in method.networks.values() for p in n.parameters()), None)
    method.state = dict(files.get("state", {}))
    if device is not None:
        method.to(device)


def load_networks(
    method: Method, files: dict[str, dict[str, Tensor]], folder: Path, average: bool
) -> None:
    """Put a checkpoint's weights alone into `method`; see `load_weights`."""
    for name, network in method.networks.items():
        averaged_name = f"average-{name}"
        key = averaged_name if average and averaged_name in files else f"network-{name}"
        load_strictly(network, files.get(key, {}), f"{folder}: {key}")


def load_strictly(network: torch.nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Load a state dict, or say which tensors do not fit."""
    own = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    given = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if wrong := [key for key in sorted({*own, *given}) if own.get(key) != given.get(key)]:
        key = wrong[0]
        raise DataError(
            f"{where} does not fit the network of this recipe: {len(wrong)} tensors differ, the "
            f"first is {key}, {given.get(key, 'absent')} in the checkpoint and "
            f"{own.get(key, 'absent')} here. It belongs to another recipe; train into a new folder."
        )
    network.load_state_dict(tensors)


def _build_optimiser(method: Method, name: str, settings: OptimiserConfig) -> torch.optim.Optimizer:
    networks = {n for phase in method.phases if phase.optimiser == name for n in phase.networks}
    parameters = [p for n in sorted(networks) for p in method.networks[n].parameters()]
    return torch.optim.AdamW(
        parameters,
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def _hyperparameters(settings: OptimiserConfig, progress: Progress) -> dict[str, Any]:
    """Linear warm-up, then a cosine from `lr` to `final_lr * lr` over the horizon."""
    cosine = 0.5 * (1 + math.cos(math.pi * progress.fraction))
    lr = settings.lr * (settings.final_lr + (1 - settings.final_lr) * cosine)
    if settings.warmup_steps:
        lr *= min((progress.step + 1) / settings.warmup_steps, 1.0)
    return {"lr": lr}


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{index}.{key}": value
        for index, values in optimiser.state_dict()["state"].items()
        for key, value in values.items()
    }


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = spread_like(tensor, parameters[int(index)])
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
