"""CycleGAN: items of one level of a condition made to look like items of another, without pairs.

Zhu et al., 2017, arXiv:1703.10593: two generators, each judged by a discriminator with the least
squares of Mao et al., 2017, arXiv:1611.04076, and held to the item by a cycle and an identity term.
For scanner harmonisation the levels are scanners. It makes no new people: a translation needs a
scan, so it is no sampler and is not ranked beside samplers.

Differences from the publication, all of them so that training does not depend on how a batch is
cut. A batch holds items of any level: those of the two levels feed the terms of their own
direction, those of others none. Every item's terms are weighted by one over the share of its level
among the items seen so far, so that the loss is the sum of two means over levels, however unequal
these are in number. The discriminators are trained on translations of a batch of their own. The
pool of earlier translations (Shrivastava et al., 2017, arXiv:1612.07828) is described at
`CycleGAN.pooled`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.registry import METHODS
from gyri.sampling.preconditioning import over_items
from gyri.types import (
    Batch,
    ItemSpec,
    Loss,
    Method,
    NetworkSpec,
    OptimiserConfig,
    Phase,
    Progress,
    SampleRng,
)

LEVELS = ("source", "target")
SOURCE, TARGET = 0, 1
GENERATORS = ("forward", "backward")
"""By the level that they start from."""
DISCRIMINATORS = ("discriminator_source", "discriminator_target")
"""By the level whose real items they know."""


@dataclass(frozen=True, kw_only=True)
class CycleGANConfig:
    """Settings of `CycleGAN`; the defaults are the published ones.

    Parameters
    ----------
    column : which column of the condition is translated, counted from 0; a categorical one.
    source, target : the two levels, counted from 0 in alphabetical order. Both directions are
        trained; the names only say which is called ``forward``.
    cycle : weight of ``|back(forth(x)) - x|``.
    identity : weight, as a share of `cycle`, of ``|G(y) - y|`` for items that already are of the
        level that G leads to.
    lr, betas : of Adam, for all networks.
    constant_share : share of the horizon with the full learning rate, which then falls to 0.
    pool_size : earlier translations that each discriminator may be shown, 0 for none. They are
        part of every checkpoint: lower it for volumes.
    """

    column: int = 0
    source: int = 0
    target: int = 1
    cycle: float = 10.0
    identity: float = 0.5
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    constant_share: float = 0.5
    pool_size: int = 50


def _code(config: CycleGANConfig, spec: ItemSpec) -> tuple[int, int]:
    """Return where in a condition vector the bits of source and target lie."""
    need = "CycleGAN translates between levels of one column"
    start, stop = spec.condition.levels(config.column, need)
    pair = (config.source, config.target)
    if config.source == config.target or not all(0 <= level < stop - start for level in pair):
        raise UsageError(
            f"source and target are {config.source} and {config.target}; expected two different "
            f"levels from 0 to {stop - start - 1}, as column {config.column} has {stop - start}."
        )
    return start + config.source, start + config.target


def per_item(values: Tensor) -> Tensor:
    """Return the mean (B,) over everything but the items."""
    return values.flatten(1).mean(1)


@METHODS.register("cyclegan", CycleGANConfig)
class CycleGAN(Method):
    """Translates scans between two levels of a condition, such as scanners; no sampler."""

    config: CycleGANConfig
    phases = (
        Phase("generators", GENERATORS, "generators"),
        Phase("discriminators", DISCRIMINATORS, "discriminators"),
    )

    def __init__(
        self, config: CycleGANConfig, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        adam = OptimiserConfig(lr=config.lr, betas=config.betas)
        self.optimisers = {"generators": adam, "discriminators": adam}
        self.code = _code(config, spec)
        # Items seen, of source and of target; the start is a guess of a half for both.
        self.state = {"seen": torch.tensor([2, 1, 1])}
        for level in LEVELS if config.pool_size else ():
            shape = (config.pool_size, spec.channels, *spec.shape)
            self.state[f"pool_{level}"] = torch.zeros(shape)
            self.state[f"filled_{level}"] = torch.zeros(config.pool_size, dtype=torch.bool)

    @classmethod
    def network_specs(cls, config: CycleGANConfig, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """Generators turn items into items; discriminators see items alone."""
        _code(config, spec)
        made = NetworkSpec(
            spec.channels, spec.channels, spec.shape, position_size=spec.position_size
        )
        judged = NetworkSpec(spec.channels, 0, spec.shape)
        return {
            **dict.fromkeys(GENERATORS, made),
            **dict.fromkeys(DISCRIMINATORS, judged),
        }

    @classmethod
    def default_networks(cls, config: CycleGANConfig) -> dict[str, str]:
        """The networks of the paper."""
        return {
            **dict.fromkeys(GENERATORS, "resnet_generator"),
            **dict.fromkeys(DISCRIMINATORS, "patch_discriminator"),
        }

    def hyperparameters(self, optimiser: str, progress: Progress) -> dict[str, Any]:
        """Constant learning rate, then a line to 0."""
        left = (1 - progress.fraction) / max(1 - self.config.constant_share, 1e-9)
        return {"lr": self.config.lr * min(1.0, left)}

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Return the mean over items of their terms, of the generators or the discriminators."""
        known = batch.condition[:, list(self.code)] > 0
        seen = self.state["seen"]
        statistics = {"seen": torch.cat([seen.new_tensor([len(batch)]), known.sum(0)])}
        pool_draws = rng.uniform((2,))
        terms: dict[str, Tensor] = {}
        for level in (SOURCE, TARGET):
            # No rows at all are well, too: the networks then run on nothing.
            rows = known[:, level].nonzero()[:, 0]
            x, position = batch.x[rows], None if batch.position is None else batch.position[rows]
            if phase == "generators":
                found = self._generator_terms(level, x, position)
            else:
                with torch.no_grad():
                    fake = self._translated(level, x, position)
                shown, changes = self.pooled(1 - level, fake, pool_draws[rows])
                statistics |= changes
                found = self._discriminator_terms(level, x, shown)
            weight = seen[0] / seen[1 + level]
            for name, values in found.items():
                whole = terms.get(name, values.new_zeros(len(batch)))
                terms[name] = whole.index_add(0, rows, weight * values)
        means = {name: values.mean() for name, values in terms.items()}
        logs = {name: mean.detach() for name, mean in means.items()}
        return Loss(torch.stack(list(means.values())).sum(), logs, statistics)

    def _translated(self, level: int, x: Tensor, position: Tensor | None) -> Tensor:
        """Bring items (B, C, *S) of `level` to the other one."""
        return self.networks[GENERATORS[level]](x, position).float()

    def _realness(self, level: int, x: Tensor) -> Tensor:
        """What the discriminator of `level` says of the patches of items, (B, 1, *patches)."""
        return self.networks[DISCRIMINATORS[level]](x).float()

    def _generator_terms(self, level: int, x: Tensor, position: Tensor | None) -> dict[str, Tensor]:
        """Terms (B,) of items of `level`: realness where they are led, the way back, the same."""
        cycle = self.config.cycle
        fake = self._translated(level, x, position)
        back = self._translated(1 - level, fake, position)
        same = self._translated(1 - level, x, position)
        return {
            "adversarial": per_item((self._realness(1 - level, fake) - 1).square()),
            "cycle": cycle * per_item((back - x).abs()),
            "identity": self.config.identity * cycle * per_item((same - x).abs()),
        }

    def _discriminator_terms(self, level: int, x: Tensor, shown: Tensor) -> dict[str, Tensor]:
        """Terms (B,) of real items of `level` and of the translations shown in their place."""
        return {
            "real": per_item((self._realness(level, x) - 1).square()) / 2,
            "fake": per_item(self._realness(1 - level, shown).square()) / 2,
        }

    def pooled(self, level: int, fake: Tensor, draws: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Choose what a discriminator is shown, and what of it enters the pool.

        Every item draws a place of the pool. Until all places are taken it is shown itself, and
        enters its place if that is free. After that, one half of the items enter their place and
        what was there is shown; the other half are shown themselves. A place that two items of one
        step ask for keeps what it had, in whatever micro-batch or process they are: the statistics
        are sums over both, and `after_step` takes those of one item alone.

        Parameters
        ----------
        level : whose pool: 0 of the source, 1 of the target.
        fake : (B, C, *S) translations to `level`.
        draws : (B, 2) uniform in [0, 1): of place and of exchange.

        Returns
        -------
        tuple
            Items (B, C, *S) and statistics for `after_step`.
        """
        size = self.config.pool_size
        if not size:
            return fake, {}
        name = LEVELS[level]
        pool, filled = self.state[f"pool_{name}"], self.state[f"filled_{name}"]
        place = (draws[:, 0] * size).long().clamp_max(size - 1)
        exchanged = (draws[:, 1] < 0.5) & filled.all()
        shown = torch.where(over_items(exchanged, fake), pool[place], fake)
        enters = exchanged | ~filled[place]
        place = place[enters]
        return shown, {
            f"entered_{name}": torch.zeros_like(pool).index_add(0, place, fake[enters]),
            f"asked_{name}": torch.bincount(place, minlength=size),
        }

    def after_step(self, phase: str, statistics: dict[str, Tensor]) -> None:
        """Count the items, and put into the pools what entered a place alone."""
        self.state["seen"] = self.state["seen"] + statistics["seen"]
        for name in LEVELS:
            if f"asked_{name}" in statistics:
                alone = statistics[f"asked_{name}"] == 1
                entered, pool = statistics[f"entered_{name}"], self.state[f"pool_{name}"]
                self.state[f"pool_{name}"] = torch.where(over_items(alone, pool), entered, pool)
                self.state[f"filled_{name}"] = self.state[f"filled_{name}"] | alone

    def translations(self) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Column of the condition, and the pairs of its levels: both ways."""
        config = self.config
        return config.column, (
            (config.source, config.target),
            (config.target, config.source),
        )

    def translate(self, batch: Batch, source: int, target: int) -> Tensor:
        """Return ``batch.x`` (B, C, *S), items of level `source`, as of level `target`."""
        direction = self.translations()[1].index((source, target))
        return self._translated(direction, batch.x, batch.position)
