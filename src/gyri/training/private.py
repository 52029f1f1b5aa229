"""Training whose weights say little about any one subject: DP-SGD.

Abadi et al., 2016, arXiv:1607.00133. Every step draws each subject of TRAIN with the same
probability (Poisson sampling), clips the gradient of each drawn subject's loss to a norm, and adds
normal noise to their sum. Opacus clips, adds the noise and keeps the account (privacy loss
distributions; Gopi et al., 2021, arXiv:2106.02848).

The unit is the subject. Each is passed through the networks alone, so that its gradient is exactly
its own whatever the networks are made of; nothing needs to be replaced for hooks to see it, and
memory does not grow with the batch.

Noise that can be drawn again protects nobody. It, and who is drawn, follow from a key that belongs
to the run folder and to nobody else, never from the recipe's seed, which is published: the same run
resumes bit for bit, and another run of the same recipe differs.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gyri.capabilities import FitOnce
from gyri.errors import UnavailableError, UsageError
from gyri.recipe import DataConfig, PrivateConfig, Recipe, TrainingConfig
from gyri.runtime import distributed
from gyri.runtime.seeding import derive_seed, numpy_rng
from gyri.runtime.streams import SampleRng
from gyri.training.data import Feed
from gyri.training.loop import Trainer
from gyri.types import Method, Phase, Progress

KEY = "private.key"
"""File of the run folder; whoever has it can take the noise off the weights."""
LARGEST_DELTA = 0.1
"""Of delta, over the number of subjects: delta is the chance that the promise fails altogether."""
NOT_COVERED = (
    "preparation of the cohort",
    "levels, means and spreads of the conditions",
    "losses in log.jsonl and what was chosen by looking at results",
    "runs of other recipes on the same subjects",
)
"""What reads TRAIN and is in no account."""
OPTION = (
    "training.private needs Opacus, which is not installed. Run `pip install 'gyri[dp]'`, or leave "
    "training.private out."
)


def _default_delta(subjects: int) -> float:
    return LARGEST_DELTA / subjects


def epsilon_of(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """Return the epsilon that `steps` steps spend.

    Parameters
    ----------
    noise_multiplier : standard deviation of the noise over the largest norm of a subject.
    sample_rate : probability that a subject is drawn in a step.

    Raises
    ------
    UnavailableError
        If Opacus is not installed.
    """
    try:
        from opacus.accountants import PRVAccountant
    except ImportError:
        raise UnavailableError(OPTION) from None
    accountant = PRVAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    return float(accountant.get_epsilon(delta))


def noise_for(target_epsilon: float, sample_rate: float, steps: int, delta: float) -> float:
    """Return the noise multiplier with which `steps` steps spend at most `target_epsilon`.

    Raises
    ------
    UnavailableError
        If Opacus is not installed.
    """
    try:
        from opacus.accountants.utils import get_noise_multiplier
    except ImportError:
        raise UnavailableError(OPTION) from None
    return float(
        get_noise_multiplier(
            target_epsilon=target_epsilon,
            target_delta=delta,
            sample_rate=sample_rate,
            steps=steps,
            accountant="prv",
        )
    )


def refuse_unprivate(recipe: Recipe, method: Method, feed: Feed) -> None:
    """Say what in a recipe cannot be trained privately.

    Raises
    ------
    UsageError
        Where something but the noised gradients would learn from TRAIN, or where the gradient of
        a subject is not its own.
    """
    reasons = [
        *_of_method(recipe.method.name, method),
        *_of_data(recipe.data, recipe.training, feed),
    ]
    if recipe.needs:
        reasons.append(
            f"needs {', '.join(recipe.needs)} would be trained on the same subjects without noise"
        )
    if reasons:
        raise UsageError(
            f"training.private cannot serve this recipe: {'; '.join(reasons)}. Change that, or "
            "leave training.private out."
        )


def _of_method(name: str, method: Method) -> list[str]:
    if isinstance(method, FitOnce):
        return [f"{name} is not trained by gradients"]
    if refusal := method.private_refusal():
        return [f"{name}: {refusal}"]
    (*_, last) = method.phases
    if len(method.phases) != 1 or (last.every, last.repeats) != (1, 1):
        return [f"{name} does not take one update a step"]
    batch_normalised = sorted(
        slot
        for slot, network in method.networks.items()
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats
    )
    if batch_normalised:
        return [f"network {batch_normalised[0]} keeps running statistics of its batches"]
    return []


def _of_data(data: DataConfig, training: TrainingConfig, feed: Feed) -> list[str]:
    reasons = []
    if data.sessions != "first":
        reasons.append("data.sessions must be first, one scan a subject")
    if training.batch_size > len(feed):
        reasons.append(
            f"training.batch_size is {training.batch_size}, more than the {len(feed)} subjects"
        )
    if distributed.world_size() > 1:
        reasons.append("it runs on one process")
    return reasons


class PrivateTrainer(Trainer):
    """The loop with noised gradients.

    ``training.batch_size`` is the expected number of subjects a step. What method and view would
    measure on TRAIN before the first step is left out: their constants stay as they were built.
    ``clip_norm`` of the optimisers acts after the noise.

    Parameters
    ----------
    As in `Trainer`; ``config.private`` must be given.

    Raises
    ------
    UnavailableError
        If Opacus is not installed.
    UsageError
        If delta is larger than 1 / (10 N) for N subjects.
    """

    def __init__(
        self, method: Method, feed: Feed, config: TrainingConfig, seed: int, root: Path, *args: Any
    ) -> None:
        super().__init__(method, feed, config, seed, root, *args)
        assert config.private is not None
        assert config.steps is not None
        self.private: PrivateConfig = config.private
        self.sample_rate = config.batch_size / len(feed)
        largest = _default_delta(len(feed))
        self.delta = self.private.delta or largest
        if self.delta > largest:
            raise UsageError(
                f"training.private.delta is {self.delta:g}; with {len(feed)} subjects it must not "
                f"exceed 1 / (10 x {len(feed)}) = {largest:.3g}."
            )
        self.noise_multiplier = self.private.noise_multiplier or noise_for(
            self.private.target_epsilon or 0.0, self.sample_rate, config.steps, self.delta
        )
        self._key = _key(root / KEY)
        self._mechanisms = {name: self._mechanism(o) for name, o in self.optimisers.items()}

    def _mechanism(self, optimiser: torch.optim.Optimizer) -> Any:
        try:
            from opacus.optimizers import DPOptimizer
        except ImportError:
            raise UnavailableError(OPTION) from None
        return DPOptimizer(
            optimiser,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.private.max_grad_norm,
            expected_batch_size=self.config.batch_size,
        )

    def statement(self) -> dict[str, Any]:
        """Return what the whole run spends, as ``run.json`` keeps it; earlier steps spent less."""
        steps = self.config.steps or 0
        spent = epsilon_of(self.noise_multiplier, self.sample_rate, steps, self.delta)
        return {
            "epsilon": spent,
            "delta": self.delta,
            "unit": "subject",
            "noise_multiplier": self.noise_multiplier,
            "max_grad_norm": self.private.max_grad_norm,
            "sample_rate": self.sample_rate,
            "steps": steps,
            "accountant": "prv",
            "not_covered": list(NOT_COVERED),
        }

    def _calibrate(self) -> None:
        """Measure nothing: the method keeps the constants that it was built with."""

    def drawn_at(self, step: int) -> Tensor:
        """Return the rows of the subjects drawn at a step, each with `sample_rate`."""
        rng = numpy_rng(self._key, "draw", step)
        return torch.from_numpy(np.flatnonzero(rng.random(len(self.feed)) < self.sample_rate))

    def _gradients(
        self, phase: Phase, parameters: list[nn.Parameter], progress: Progress
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Leave the noised mean of the clipped gradients; return the mean of the logs."""
        step, mechanism = self.clock.step, self._mechanisms[phase.optimiser]
        rows = self.drawn_at(step)
        for parameter in parameters:
            # Of nobody yet, so that a step that draws nobody is noise alone.
            parameter.summed_grad = None  # type: ignore[attr-defined]
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))  # type: ignore[attr-defined]
        mechanism.clip_and_accumulate()
        sums: dict[str, Tensor] = {}
        for row in rows:
            loss = self._of_subject(phase, row, progress)
            for parameter in parameters:
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad_sample, parameter.grad = own[None], None  # type: ignore[attr-defined]
            mechanism.clip_and_accumulate()
            for name, value in loss.items():
                sums[name] = sums.get(name, torch.zeros(())) + value / len(rows)
        device = parameters[0].device
        generator = torch.Generator(device).manual_seed(derive_seed(self._key, "noise", step))
        mechanism.generator = generator
        mechanism.add_noise()
        mechanism.scale_grad()
        self.clock.drawn += self.config.batch_size
        return sums, {}

    def _of_subject(self, phase: Phase, row: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Go backward through the loss of one subject; return the logs."""
        position = self.clock.step * len(self.feed) + row[None]
        batch = self.feed.take(row[None], position)
        # Only dropout reads the global generator, as in the public loop.
        torch.manual_seed(derive_seed(self.seed, phase.name, int(position)))
        with self._autocast():
            rng = SampleRng(batch.seed, self.feed.device)
            loss = self.method.loss(phase.name, batch, progress, rng)
        if loss.statistics:
            raise UsageError(
                f"phase {phase.name} of this method keeps statistics of its batches, which "
                "training.private does not cover; leave training.private out."
            )
        loss.total.backward()
        found = {"loss": loss.total, **loss.logs}
        return {name: value.detach().float().cpu() for name, value in found.items()}


def _key(path: Path) -> str:
    """Read the run's key, or make one that only its owner can read."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path.read_text()
