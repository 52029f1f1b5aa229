"""SimCLR on small volumes: an encoder that learns from scans alone what tells people apart.

Chen et al., 2020, arXiv:2002.05709. A scan is changed twice at random, as scanners, preparation and
chance change scans of the same head; the two views should be near each other and far from the
views of everybody else.

Three things differ from the paper, all because a cohort has hundreds of people and not a million
pictures. There is no projection head: the vectors that the loss compares are the features, on the
unit sphere, where nobody is far out for having been trained on. The encoder sees what sets a scan
apart from TRAIN's mean, since heads on one grid are nearly the same. And it never sees the people
of TRAIN themselves but mixtures of two, each new and each a person of its own to the loss: what
tells mixtures apart tells unseen people apart, too, and TRAIN is learned less by heart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gyri.runtime.seeding import derive_seed, numpy_rng

PLANES = 3
WIDTHS = (32, 64, 16)
NUM_FEATURES = 64
GAIN_RANGE = (0.25, 4.0)
"""Of a volume's mean to TRAIN's: gains beyond these are left in."""
WARM_UP = 20


@dataclass(frozen=True)
class SimCLR:
    """Settings of the training and of the two views.

    Parameters
    ----------
    batch : people a step; a quarter of them where that is less, so that small cohorts take as
        many steps as large ones. With fewer steps unseen people are not recognised.
    steps : of the training, the same for every cohort, which bounds the cost.
    learning_rate : of AdamW; rises over 20 steps, then falls as a cosine.
    temperature : of the loss (equation 1).
    rotation : largest angle in each plane, radians.
    zoom : largest relative change of size along an axis, in each plane.
    shift : largest shift along an axis, in half-extents, in each plane.
    gamma : largest logarithm of the exponent of intensities.
    bias : largest logarithm of each linear and quadratic term of the field along an axis.
    noise : largest standard deviation of the noise, in units of the mean intensity.
    cutout : least half-width of the box that is set to zero, in half-extents; up to 0.3 more.
    blurred : share of mixtures that are blurred, by a random amount, before their views are
        made. Both views share the blur, so that sharpness belongs to what is told apart.
    """

    batch: int = 32
    steps: int = 200
    learning_rate: float = 2e-3
    weight_decay: float = 5.0
    temperature: float = 0.1
    rotation: float = 0.05
    zoom: float = 0.04
    shift: float = 0.04
    gamma: float = 0.4
    bias: float = 0.25
    noise: float = 0.08
    cutout: float = 0.25
    blurred: float = 0.5

    def batch_for(self, people: int) -> int:
        """Return how many of a TRAIN of so many people a step sees, at least 2."""
        return min(self.batch, max(2, people // 4))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread, where sums have one order; restore its number after."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Encoder(nn.Module):
    """Two strided convolutions, fewer channels, a linear map: 126 thousand weights at 32^3.

    Parameters
    ----------
    mask : (I, J, K) share of each cell that lies in the brain.
    mean : (I, J, K) mean of TRAIN's volumes, their gains removed.
    spread : standard deviation of TRAIN's volumes around `mean`, over all cells.
    level : mean intensity of TRAIN's volumes in the brain.
    """

    mask: Tensor
    mean: Tensor
    spread: Tensor
    level: Tensor

    def __init__(self, mask: Tensor, mean: Tensor, spread: Tensor, level: Tensor) -> None:
        super().__init__()
        for name, buffer in (("mask", mask), ("mean", mean), ("spread", spread), ("level", level)):
            self.register_buffer(name, buffer)
        first, second, last = WIDTHS
        self.convolutions = nn.Sequential(
            nn.Conv3d(1, first, 5, stride=4, padding=2, bias=False),
            nn.BatchNorm3d(first),
            nn.ReLU(),
            nn.Conv3d(first, second, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm3d(second),
            nn.ReLU(),
            nn.Conv3d(second, last, 1),
            nn.Flatten(),
        )
        cells = math.prod(math.ceil(size / 8) for size in mask.shape)
        self.linear = nn.Linear(last * cells, NUM_FEATURES)

    @classmethod
    def for_train(cls, volumes: Tensor, mask: Tensor) -> Encoder:
        """Return an encoder with random weights that knows TRAIN's mean, from (N, I, J, K)."""
        level = _levels(volumes, mask).mean().clamp_min(1e-6)
        encoder = cls(mask, torch.zeros_like(mask), torch.ones(()), level)
        even = encoder.even(volumes)
        encoder.mean = even.mean(0)
        encoder.spread = (even - encoder.mean).std().clamp_min(1e-6)
        return encoder

    def even(self, volumes: Tensor) -> Tensor:
        """Return (N, I, J, K) in units of their own mean in the brain.

        Where that is not within `GAIN_RANGE` of TRAIN's, the nearest that is.
        """
        gains = (_levels(volumes, self.mask) / self.level).clamp(*GAIN_RANGE)
        return volumes / (gains * self.level)[:, None, None, None]

    def forward(self, volumes: Tensor) -> Tensor:
        """Return (N, 64) points on the unit sphere, of (N, I, J, K) coarse volumes."""
        special = (self.even(volumes) - self.mean) / self.spread
        return functional.normalize(self.linear(self.convolutions(special[:, None])), dim=1)


def _levels(volumes: Tensor, mask: Tensor) -> Tensor:
    return (volumes * mask).sum((1, 2, 3)) / mask.sum().clamp_min(1e-6)


class Views:
    """Mixtures of people, and random changes that leave anatomy as it is; left stays left.

    Parameters
    ----------
    settings : how far the changes go.
    encoder : knows TRAIN's mean, mask and level.
    generator : of everything drawn.
    """

    def __init__(self, settings: SimCLR, encoder: Encoder, generator: torch.Generator) -> None:
        self.settings, self.encoder, self.generator = settings, encoder, generator
        self.places = [torch.linspace(-1, 1, size) for size in encoder.mask.shape]

    def pair(self, volumes: Tensor) -> Tensor:
        """Return (2 N, I, J, K): a view of each of (N, I, J, K), then another of each."""
        return torch.cat([self(volumes), self(volumes)])

    def __call__(self, volumes: Tensor) -> Tensor:
        """Return a view of each of (N, I, J, K) volumes."""
        return self._cut(self._noised(self._shaded(self._moved(volumes))))

    def mixtures(self, volumes: Tensor) -> Tensor:
        """Mix into each of (N, I, J, K) less of the next one than of itself, and blur some.

        Deviations from TRAIN's mean are added with weights cos(a) and sin(a), so that a mixture
        is as far from the mean as people are.
        """
        encoder, num = self.encoder, len(volumes)
        angle = torch.rand(num, generator=self.generator)[:, None, None, None] * (torch.pi / 4)
        deviations = encoder.even(volumes) - encoder.mean
        mixed = angle.cos() * deviations + angle.sin() * deviations.roll(1, 0)
        chosen = torch.rand(num, generator=self.generator) < self.settings.blurred
        amounts = torch.rand(num, generator=self.generator)
        made = (encoder.mean + mixed).clamp_min(0) * encoder.level
        made[chosen] = blur(made[chosen], amounts[chosen])
        return made

    def _within(self, limit: float, *shape: int) -> Tensor:
        return (2 * torch.rand(shape, generator=self.generator) - 1) * limit

    def _moved(self, volumes: Tensor) -> Tensor:
        """Rotate, scale and shift in one plane after the other."""
        settings, num = self.settings, len(volumes)
        for _ in range(PLANES):
            volumes = volumes.permute(0, 2, 3, 1).contiguous()
            angle = self._within(settings.rotation, num)
            theta = torch.zeros(num, 2, 3)
            theta[:, :, :2] = torch.diag_embed(1 + self._within(settings.zoom, num, 2))
            theta[:, 0, 1], theta[:, 1, 0] = -angle, angle
            theta[:, :, 2] = self._within(settings.shift, num, 2)
            size = [num, 1, *volumes.shape[2:]]
            grid = functional.affine_grid(theta, size, align_corners=False)
            volumes = functional.grid_sample(volumes, grid, align_corners=False)
        return volumes

    def _shaded(self, volumes: Tensor) -> Tensor:
        """Change contrast by a power and shade by a smooth field."""
        num = len(volumes)
        power = self._within(self.settings.gamma, num).exp()[:, None, None, None]
        field = torch.zeros(num, 1, 1, 1)
        for axis, place in enumerate(self.places):
            linear, square = self._within(self.settings.bias, 2, num, 1)
            field = field + along(linear * place + square * (place**2 - 1 / 3), axis)
        level = self.encoder.level
        return (volumes / level).pow(power) * field.exp() * level

    def _noised(self, volumes: Tensor) -> Tensor:
        sd = torch.rand(len(volumes), generator=self.generator) * self.settings.noise
        sd *= self.encoder.level
        drawn = torch.randn(volumes.shape, generator=self.generator)
        return volumes + drawn * self.encoder.mask * sd[:, None, None, None]

    def _cut(self, volumes: Tensor) -> Tensor:
        """Set a box to zero."""
        num = len(volumes)
        inside = torch.ones(num, 1, 1, 1)
        for axis, place in enumerate(self.places):
            centre = self._within(1.0, num, 1)
            half = self.settings.cutout + 0.3 * torch.rand((num, 1), generator=self.generator)
            inside = inside * along(((place - centre).abs() < half).float(), axis)
        return volumes * (1 - inside)


def along(values: Tensor, axis: int) -> Tensor:
    """Return (N, size) values as (N, I, J, K) with the other two axes 1."""
    shape = [len(values), 1, 1, 1]
    shape[axis + 1] = -1
    return values.reshape(shape)


def blur(volumes: Tensor, amounts: Tensor) -> Tensor:
    """Blur each of (N, I, J, K) twice by (w / 4, 1 - w / 2, w / 4) along every axis.

    Parameters
    ----------
    amounts : (N,) w in [0, 1]; 1 is a standard deviation of one cell.
    """
    weight = amounts[:, None, None, None] / 2
    for axis in (1, 2, 3) * 2:
        size = volumes.shape[axis]
        padded = functional.pad(volumes, [0, 0] * (3 - axis) + [1, 1])
        around = padded.narrow(axis, 0, size) + padded.narrow(axis, 2, size)
        volumes = (1 - weight) * volumes + weight / 2 * around
    return volumes


def nt_xent(points: Tensor, temperature: float) -> Tensor:
    """Return the normalised temperature-scaled cross entropy (equation 1), a mean over views.

    Parameters
    ----------
    points : (2 N, d) of unit norm; rows n and n + N are views of one scan.
    """
    num = len(points) // 2
    similarity = points @ points.T / temperature
    similarity = similarity.masked_fill(torch.eye(2 * num, dtype=torch.bool), -torch.inf)
    partner = torch.arange(2 * num).roll(num)
    return functional.cross_entropy(similarity, partner)


def train_encoder(
    volumes: NDArray[np.float32],
    mask: NDArray[np.float32],
    people: Sequence[str],
    settings: SimCLR,
    seed: int = 0,
) -> Encoder:
    """Train an encoder on one thread of the CPU; its weights depend on the arguments alone.

    On another kind of processor or with another torch the last bits of sums differ, and after
    some hundred steps the weights: such an encoder is as good, but not the same.

    Parameters
    ----------
    volumes : (N, I, J, K) coarse volumes, finite.
    mask : (I, J, K) share of each cell that lies in the brain.
    people : N names; scans of the same person are never told apart.
    """
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("simclr", "weights", seed))
        scans = torch.from_numpy(volumes)
        encoder = Encoder.for_train(scans, torch.from_numpy(mask))
        generator = torch.Generator().manual_seed(derive_seed("simclr", "views", seed))
        views = Views(settings, encoder, generator)
        _fit(encoder, scans, _scans_of(people), views, numpy_rng("simclr", "draws", seed))
    return encoder.eval()


def _scans_of(people: Sequence[str]) -> list[NDArray[np.int64]]:
    names = np.asarray(people, dtype=str)
    return [np.flatnonzero(names == name) for name in dict.fromkeys(people)]


def _fit(
    encoder: Encoder,
    scans: Tensor,
    scans_of: Sequence[NDArray[np.int64]],
    views: Views,
    rng: np.random.Generator,
) -> None:
    settings, people = views.settings, len(scans_of)
    steps, batch = settings.steps, settings.batch_for(people)
    optimiser = torch.optim.AdamW(
        encoder.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(1.0, (step + 1) / WARM_UP) * (1 + np.cos(np.pi * step / steps)) / 2,
    )
    for _ in range(steps):
        drawn = rng.permutation(people)[:batch]
        rows = [int(rng.choice(scans_of[person])) for person in drawn]
        points = encoder(views.pair(views.mixtures(scans[rows])))
        loss = nt_xent(points, settings.temperature)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
