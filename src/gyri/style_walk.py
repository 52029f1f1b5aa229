"""Walks through the styles of a generator: between samples, mixed by grid, towards real scans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, avg_pool3d

from gyri.capabilities import StyleStage, Stylist, capabilities
from gyri.cohort.prepared import PreparedCohort
from gyri.errors import UsageError
from gyri.evaluation.metrics.unpaired import DATA_RANGE
from gyri.evaluation.paired import Original
from gyri.latent_walk import STEPS, Walk
from gyri.recipe import load_recipe
from gyri.registry import METHODS
from gyri.runtime.device import pick_device
from gyri.runtime.seeding import derive_seed
from gyri.runtime.streams import SampleRng
from gyri.training.data import load_split
from gyri.training.labels import width
from gyri.training.run import Model, Run
from gyri.training.scoring import known_conditions

ITEMS_PER_CALL = {2: 16, 3: 1}
"""Items of two and of three axes that are made at once; bounds memory."""
MOST_CROSSOVERS = 3
ITERATIONS = 300
LEARNING_RATE = 0.1
COARSER = (2, 4)
"""Projections are compared with scans after pooling over so many voxels, too."""
DRAWS = 8
"""Samples whose distance from the mean styles is the unit of a projection's."""

Row = Mapping[str, str | float | None]


def load_stylist(
    run: Run, step: int | None = None, device: str = "auto", overrides: Sequence[str] = ()
) -> Model:
    """Load a run whose method is a `Stylist`.

    Parameters
    ----------
    step : a numbered checkpoint instead of the last.
    overrides : changes of the method's sampling, ``"sampling_noise=none"``.

    Raises
    ------
    UsageError
        If the method has no styles, or its samples follow images.
    """
    if "Stylist" not in run.capabilities:
        able = [name for name in METHODS if "Stylist" in capabilities(METHODS[name].component)]
        raise UsageError(
            f"{run.root} is a {run.recipe.method.name}, whose generator has no styles (methods "
            f"with styles: {', '.join(able)}). Choose a run of these."
        )
    if run.context:
        names = ", ".join(channel.name for channel in run.context)
        raise UsageError(
            f"{run.root} makes images that follow {names}; styles are looked into without any. "
            "Choose a run whose recipe has no data.context."
        )
    recipe = load_recipe(run.root, [f"method.{override}" for override in overrides])
    return run.load(pick_device(device), step, recipe)


def stylist_of(model: Model) -> Stylist:
    """Return the model's method as what it is."""
    assert isinstance(model.method, Stylist)
    return model.method


def sample_rng(model: Model, seed: int, chosen: Sequence[int]) -> SampleRng:
    """Return the streams of which `gyri sample` makes the samples `chosen`, from 0, of a seed."""
    seeds = torch.tensor([derive_seed(seed, "sample", k) for k in chosen])
    return SampleRng(seeds, model.device)


def styles_of(model: Model, rows: Sequence[Row], seed: int, chosen: Sequence[int]) -> Tensor:
    """Return the styles (V, items, L, W) of samples `chosen` of a seed, under conditions `rows`."""
    condition = model.schema.encode(rows).to(model.device)
    found = stylist_of(model).styles_of(model.view, condition, sample_rng(model, seed, chosen))
    return found.unflatten(0, (len(rows), -1))


@torch.no_grad()
def make_items(model: Model, styles: Tensor) -> Tensor:
    """Return the items (N, C, *S) of styles (N, L, W)."""
    size = ITEMS_PER_CALL[len(model.view.item_shape)]
    made = [stylist_of(model).from_styles(part).float() for part in styles.split(size)]
    return torch.cat(made)


def make_volumes(model: Model, styles: Tensor) -> Tensor:
    """Return the volumes (V, C, I, J, K), about [-1, 1], of styles (V, items, L, W)."""
    return model.view.decode(make_items(model, styles.flatten(0, 1)))


def shown(volumes: Tensor, channel: int = 0) -> np.ndarray:
    """Return a channel (V, I, J, K) of volumes in [-1, 1] as it is drawn and judged, in [0, 1]."""
    return ((volumes[:, channel] + 1) / 2).clamp(0, 1).cpu().numpy()


def first_intensity(run: Run) -> int:
    """Return where a volume's first channel of intensities lies among those inside a model."""
    place = next(k for k, channel in enumerate(run.channels) if channel.kind == "intensity")
    return width(run.channels[:place])


def between(first: Tensor, second: Tensor, steps: int = STEPS) -> Tensor:
    """Return styles (steps, ...) on the straight line between two, both ends among them."""
    share = torch.linspace(0, 1, steps, device=first.device)
    return torch.lerp(first, second, share.reshape(-1, *[1] * first.ndim))


def mix(coarse: Tensor, fine: Tensor, stage: StyleStage) -> Tensor:
    """Return `coarse` (..., L, W), from the first layer of a stage on `fine` (..., L, W)."""
    mixed = torch.broadcast_tensors(coarse, fine)[0].clone()
    mixed[..., stage.first :, :] = fine[..., stage.first :, :]
    return mixed


def interpolations(
    model: Model, rows: Sequence[Row], seed: int = 0, channel: int = 0
) -> list[Walk]:
    """Walk from every other sample of a seed to the next one.

    Where the two differ in their conditions, there are two walks more: the second sample under the
    conditions of the first, and the first sample under those of the second.

    Parameters
    ----------
    rows : conditions of the samples, an even number of them.
    seed : as `gyri sample` is given it.
    channel : which channel is shown.
    """
    walks = []
    for a in range(0, len(rows) - 1, 2):
        ends = styles_of(model, [rows[a], rows[a + 1]], seed, [a, a + 1])
        one, two = f"sample {a + 1}", f"sample {a + 2}"
        legs = [(f"{one} to {two}", ends)]
        if rows[a] != rows[a + 1]:
            of_two, of_one = styles_of(model, [rows[a + 1], rows[a]], seed, [a, a + 1])
            legs += [
                (f"{one} to {two}, conditions of {one}", torch.stack([ends[0], of_one])),
                (f"{one}, conditions of {one} to those of {two}", torch.stack([ends[0], of_two])),
            ]
        stops = tuple(f"{share:.0%}" for share in np.linspace(0, 1, STEPS))
        for label, (first, second) in legs:
            volumes = make_volumes(model, between(first, second))
            walks.append(Walk(label, stops, shown(volumes, channel)))
    return walks


@dataclass(frozen=True)
class Mixing:
    """Samples that take their coarse layers from one and their fine layers from another.

    Parameters
    ----------
    grid : of the stage from which on the layers are the other's.
    rows : one a source of coarse layers; its stops are the sources of fine ones. On the diagonal
        are the sources themselves.
    """

    grid: tuple[int, ...]
    rows: tuple[Walk, ...]


def mixings(model: Model, rows: Sequence[Row], seed: int = 0, channel: int = 0) -> list[Mixing]:
    """Mix all samples with each other, at up to `MOST_CROSSOVERS` stages.

    Parameters
    ----------
    rows, seed, channel : see `interpolations`; any number of samples.
    """
    styles = styles_of(model, rows, seed, range(len(rows)))
    later = stylist_of(model).style_stages()[1:]
    places = np.unique(np.linspace(0, len(later) - 1, MOST_CROSSOVERS).round().astype(int))
    stops = tuple(f"fine of {k + 1}" for k in range(len(rows)))
    found = []
    for stage in (later[k] for k in places if later):
        walks = [
            Walk(
                f"coarse of {k + 1}",
                stops,
                shown(make_volumes(model, mix(styles[k : k + 1], styles, stage)), channel),
            )
            for k in range(len(rows))
        ]
        found.append(Mixing(stage.grid, tuple(walks)))
    return found


def distance(made: Tensor, items: Tensor) -> Tensor:
    """Return the mean squared distance (B,) of items (B, C, *S), summed over resolutions."""
    pool = {4: avg_pool2d, 5: avg_pool3d}[items.ndim]
    total = (made - items).square().flatten(1).mean(1)
    for size in COARSER:
        if min(items.shape[2:]) >= size:
            total = total + pool(made - items, size).square().flatten(1).mean(1)
    return total


def project(
    stylist: Stylist, items: Tensor, start: Tensor, iterations: int = ITERATIONS
) -> tuple[Tensor, list[float]]:
    """Look for the styles whose items are nearest to given ones; each layer has its own (W+).

    Adam with a cosine to 0. After Abdal et al., 2019, arXiv:1904.03189, and Karras et al., 2020,
    arXiv:1912.04958, appendix D, with the distance of voxels in place of that of a network of
    photographs, and without noise.

    Parameters
    ----------
    items : (B, C, *S) in [-1, 1]; they do not influence each other.
    start : (B, L, W).
    iterations : steps of Adam.

    Returns
    -------
    tuple
        Styles (B, L, W), and the mean distance after each step but the last.
    """
    styles = start.detach().clone().requires_grad_()
    adam = torch.optim.Adam([styles], lr=LEARNING_RATE)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, iterations)
    course = []
    with torch.enable_grad():
        for _ in range(iterations):
            each = distance(stylist.from_styles(styles).float(), items)
            adam.zero_grad()
            each.sum().backward()
            adam.step()
            cosine.step()
            course.append(float(each.detach().mean()))
    return styles.detach(), course


@dataclass(frozen=True)
class Projection:
    """A real scan, the nearest that a generator makes, and what the mean styles make.

    Parameters
    ----------
    name : of the subject.
    scan, projected, mean : (I, J, K) in [0, 1], one channel.
    scores : by arm, ``mean styles`` and ``projection``: ``psnr`` (dB), ``ssim`` and ``nrmse`` (root
        mean square error over root mean square), inside the brain of the scan.
    reach : root mean square distance of the styles from the mean styles, over that of samples.
    """

    name: str
    scan: np.ndarray
    projected: np.ndarray
    mean: np.ndarray
    scores: dict[str, dict[str, float]]
    reach: float


def projections(
    model: Model,
    run: Run,
    cohort: PreparedCohort,
    *,
    split: str = "HOLD",
    subjects: int = 3,
    iterations: int = ITERATIONS,
    seed: int = 0,
    channel: int = 0,
    advance: Callable[[], object] = lambda: None,
) -> list[Projection]:
    """Project real scans of a split, evenly spread over its table.

    Parameters
    ----------
    cohort : prepared cohort on the run's grid.
    subjects : how many.
    iterations : see `project`.
    seed : of the samples that `Projection.reach` is measured with.
    channel : which channel is shown and measured; all are projected.
    advance : called after each subject.
    """
    table = cohort.rows(split, run.recipe.data.sessions)
    volumes = load_split(cohort, split, run.recipe.data, model.device)
    chosen = np.unique(np.linspace(0, len(table) - 1, subjects).round().astype(int))
    found = []
    for k in chosen.tolist():
        row = known_conditions(model.schema, table.iloc[k])
        name = f"sub-{table.index[k]}"
        found.append(_projected(model, volumes[k : k + 1], row, name, iterations, seed, channel))
        advance()
    return found


def _projected(
    model: Model,
    volume: Tensor,
    row: Row,
    name: str,
    iterations: int,
    seed: int,
    channel: int,
) -> Projection:
    stylist, size = stylist_of(model), ITEMS_PER_CALL[len(model.view.item_shape)]
    start = stylist.mean_styles(model.view, model.schema.encode([row]).to(model.device))
    items = model.view.encode(volume).x
    parts = [
        project(stylist, x, w, iterations)[0] for x, w in zip(items.split(size), start.split(size))
    ]
    styles = torch.cat(parts)
    drawn = styles_of(model, [row] * DRAWS, seed, range(DRAWS))
    typical = (drawn - start).square().mean().sqrt()
    made = {
        "mean styles": shown(make_volumes(model, start[None]), channel)[0],
        "projection": shown(make_volumes(model, styles[None]), channel)[0],
    }
    scan = shown(volume, channel)[0]
    original = Original.of(scan, model.view.grid.spacing_mm, name)
    return Projection(
        name=name,
        scan=scan,
        projected=made["projection"],
        mean=made["mean styles"],
        scores={arm: paired_scores(original, image) for arm, image in made.items()},
        reach=float((styles - start).square().mean().sqrt() / typical),
    )


def paired_scores(original: Original, image: np.ndarray) -> dict[str, float]:
    """Return PSNR (dB), SSIM and NRMSE of an (I, J, K) volume, inside the brain of its original."""
    scores: dict[str, Any] = original.compare(image)
    rms = float(np.sqrt(np.mean(original.image[original.mask] ** 2, dtype=np.float64)))
    nrmse = DATA_RANGE * 10 ** (-scores["psnr"] / 20) / rms
    return {"psnr": scores["psnr"], "ssim": scores["ssim"], "nrmse": nrmse}
