"""Registration of a cohort: a template deformed to every scan, and what that achieved.

The fields say where in the template each voxel of a scan is found, so that labels of the template
come to the scan by the same field, and scans to the template by its inverse.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gyri.capabilities import Registrar, capabilities
from gyri.cohort.fields import (
    FROM_TEMPLATE,
    SUMMARY,
    TABLE,
    TO_TEMPLATE,
    VELOCITY,
    FieldFolder,
)
from gyri.cohort.files import write_json, write_tsv
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.splits import SPLITS
from gyri.errors import DataError, UsageError
from gyri.evaluation.registration import (
    Regions,
    Registered,
    measure_registration,
    summarise_registrations,
    unit,
)
from gyri.nn.deformation import jacobian_determinant, resize_field, warp
from gyri.prepare.syn import syn, syn_displacements
from gyri.recipe import DataConfig, Recipe, load_recipe, override_setting, parse_recipe
from gyri.registry import METHODS
from gyri.runtime.device import pick_device
from gyri.runtime.progress import progress_bar
from gyri.runtime.seeding import derive_seed
from gyri.runtime.streams import SampleRng
from gyri.scans import refuse_strangers
from gyri.training.checkpoint import digest
from gyri.training.data import load_split
from gyri.training.run import Run, train
from gyri.training.template import load_template
from gyri.types import Grid

SYN = "syn"
SYN_ITERATIONS, SYN_RADIUS, SYN_SMOOTHNESS = (100, 70, 50), 2, 1.0
TRIED: dict[str, dict[str, Any]] = {
    name: {
        "window": 7,
        "smoothness": smoothness,
        "optimiser": {"lr": 1e-3, "clip_norm": 1.0, "final_lr": 0.1},
        "refinement": {"steps": 8},
    }
    for name, smoothness in (("voxelmorph", 1.0), ("diffusemorph", 0.5))
}
"""Settings that work for a hundred scans and minutes; published ones want days."""
STEPS_SHOWN = 7
"""Of the way from the template to a scan that is pictured."""


@dataclass(frozen=True)
class Deformation:
    """What a registration found for one scan.

    Parameters
    ----------
    u : displacement (3, I, J, K) in voxels, see `gyri.nn.deformation`.
    inverse : of its inverse; None where the method has none.
    velocity : stationary velocity (3, I, J, K) behind `u`; None where the method has none.
    """

    u: Tensor
    inverse: Tensor | None = None
    velocity: Tensor | None = None


@runtime_checkable
class Synthesising(Protocol):
    """A registration by diffusion, which can also redraw the template as it knows scans."""

    def synthesise(self, x: Tensor, rng: SampleRng) -> Tensor:
        """Return the template (B, C, I, J, K), noised and made clean, for each scan of `x`."""
        ...


class Engine(Protocol):
    """Registers one scan."""

    template: Tensor
    """(1, I, J, K) in [-1, 1]."""

    def find(self, scan: Tensor) -> Deformation:
        """Return what takes the template to a scan (1, I, J, K) in [-1, 1]."""
        ...

    def steps(self, scan: Tensor, found: Deformation) -> Tensor:
        """Return displacements (n, 3, I, J, K) on the way from the template to the scan."""
        ...

    def redrawn(self, scan: Tensor) -> Tensor | None:
        """Return the template (1, I, J, K) as a diffusion model redraws it, None without one."""
        ...


class Learned:
    """A trained `Registrar`."""

    def __init__(self, method: Registrar, device: torch.device) -> None:
        self.method, self.device = method, device
        self.template = method.template[0].cpu()

    @torch.no_grad()
    def find(self, scan: Tensor) -> Deformation:
        """One pass of the network."""
        field = self.method.field(scan[None].to(self.device))
        u = self.method.displacement(field)[0].cpu()
        if self.method.form == "displacement":
            return Deformation(u)
        velocity = resize_field(field, scan.shape[1:])[0].cpu()
        return Deformation(u, self.method.displacement(field, -1.0)[0].cpu(), velocity)

    @torch.no_grad()
    def steps(self, scan: Tensor, found: Deformation) -> Tensor:
        """Ask the method for its own way."""
        x = scan[None].to(self.device)
        ways = torch.linspace(0, 1, STEPS_SHOWN).tolist()
        return torch.cat([self.method.trajectory(x, eta).cpu() for eta in ways])

    def redrawn(self, scan: Tensor) -> Tensor | None:
        """Ask the method, if it is one of diffusion."""
        if not isinstance(self.method, Synthesising):
            return None
        rng = SampleRng(torch.tensor([derive_seed("redrawn")]), self.device)
        return self.method.synthesise(scan[None].to(self.device), rng)[0].cpu()


class Classical:
    """SyN, an optimisation for each scan."""

    def __init__(self, template: Tensor, grid: Grid) -> None:
        self.template, self.grid = template, grid

    def find(self, scan: Tensor) -> Deformation:
        """Run dipy's SyN."""
        static, moving = (((x[0] + 1) / 2).cpu().numpy() for x in (scan, self.template))
        mapping = syn(
            static,
            moving,
            np.array(self.grid.affine),
            iterations=SYN_ITERATIONS,
            radius=SYN_RADIUS,
            smoothness=SYN_SMOOTHNESS,
        )
        there, back = syn_displacements(mapping, self.grid.spacing_mm)
        return Deformation(torch.from_numpy(there), torch.from_numpy(back))

    def steps(self, scan: Tensor, found: Deformation) -> Tensor:
        """Scale the displacement."""
        ways = torch.linspace(0, 1, STEPS_SHOWN)
        return ways.view(-1, 1, 1, 1, 1) * found.u[None]

    def redrawn(self, scan: Tensor) -> None:
        """SyN knows no diffusion."""


@dataclass(frozen=True)
class Shown:
    """One scan's registration in volumes (I, J, K) in [0, 1].

    Parameters
    ----------
    u : displacement (3, I, J, K), voxels.
    steps : (n, I, J, K), the template on its way to the scan.
    redrawn : the template, noised a little and made clean by a diffusion model that is given the
        scan; None without such a model.
    """

    registered: Registered
    scan: np.ndarray
    warped: np.ndarray
    u: np.ndarray
    steps: np.ndarray
    redrawn: np.ndarray | None


@dataclass(frozen=True)
class Registrations:
    """What `register` made.

    Parameters
    ----------
    shown : the best, the median and the worst scan by local correlation.
    template, average : (I, J, K) in [0, 1]; the second is the mean of all scans brought to the
        template, None where the method has no inverse.
    summary : content of ``registration.json``.
    """

    root: Path
    grid: Grid
    registered: list[Registered]
    shown: list[Shown]
    template: np.ndarray
    average: np.ndarray | None
    summary: dict[str, Any]


def default_recipe(
    method: str, template: str, channel: str, overrides: Sequence[str] = ()
) -> Recipe:
    """Return the recipe that `register` trains where only a method is named."""
    if method not in _able():
        raise UsageError(f"{method} registers nothing. Methods that do: {', '.join(_able())}.")
    mapping: dict[str, Any] = {
        "name": method,
        "view": "volume",
        "data": {"channels": [channel], "template": template},
        "method": {"name": method, **TRIED.get(method, {})},
        "training": {"steps": 2000, "batch_size": 2},
    }
    for override in overrides:
        override_setting(mapping, override)
    return parse_recipe(mapping)


def register(
    cohort: Path | str,
    out: Path | str,
    *,
    method: str = "voxelmorph",
    template: str = "mean",
    recipe: Recipe | Path | str | None = None,
    run: Path | str | None = None,
    overrides: tuple[str, ...] = (),
    splits: Sequence[str] = SPLITS,
    bootstrap: int = 2000,
    device: str = "auto",
    quiet: bool = False,
) -> Registrations:
    """Deform a template to every scan of a prepared cohort; goes on where it was interrupted.

    A learned method is trained on TRAIN first, into ``OUT/run``, unless `run` is given.

    Parameters
    ----------
    cohort : prepared cohort.
    out : folder of the fields, a BIDS derivative.
    method : a registered method that is a `Registrar`, or ``syn``.
    template : ``mean``, ``MNI`` or a NIfTI file, see `gyri.training.template.load_template`.
    recipe : what to train instead of the method's defaults; it names method and template itself.
    run : a trained registration; scans may then be of a cohort that it never saw.
    overrides : changes of the recipe, ``"training.steps=100"``; with `run` those that need no
        training, ``"method.refinement.steps=20"``.
    splits : whose scans, the first session of each subject.
    bootstrap : resamples of the subjects behind every interval.

    Raises
    ------
    UsageError
        If the method registers nothing, or the grid differs from the run's.
    DataError
        If no subject is in `splits`.
    """
    prepared, out = PreparedCohort.read(Path(cohort)), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    engine, about = _engine(prepared, out, method, template, recipe, run, overrides, device, quiet)
    folder = FieldFolder(out, prepared)
    folder.start(about)
    table = pd.concat([prepared.rows(split) for split in dict.fromkeys(splits)])
    if not len(table):
        raise DataError(f"{prepared.root} has no subject in {', '.join(splits)}.")
    grid = prepared.grid
    registered, warped_back, regions = [], [], Regions(prepared)
    with progress_bar("register", len(table)) as advance:
        for row, scan in _scans(prepared, table, about["channel"]):
            one, found = _register_one(engine, folder, row, scan)
            registered.append(one)
            if found.inverse is not None:
                warped_back.append(warp(scan[None], found.inverse[None])[0, 0])
                regions.take(row, found.inverse)
            advance()
    average = torch.stack(warped_back).mean(0) if warped_back else None
    folder.write_common("template", unit(engine.template[0]))
    if average is not None:
        folder.write_common("average", unit(average))
    summary = {**about, **summarise_registrations(registered, regions.dice(bootstrap), bootstrap)}
    write_json(out / SUMMARY, summary)
    write_tsv(out / TABLE, _table(registered))
    shown = [
        _shown(engine, folder, one, scan)
        for one in _typical(registered)
        for _, scan in _scans(prepared, table.loc[[one.subject]], about["channel"])
    ]
    return Registrations(
        out, grid, registered, shown, unit(engine.template[0]),
        None if average is None else unit(average), summary,
    )  # fmt: skip


def _engine(
    cohort: PreparedCohort,
    out: Path,
    method: str,
    template: str,
    recipe: Recipe | Path | str | None,
    run: Path | str | None,
    overrides: tuple[str, ...],
    device: str,
    quiet: bool,
) -> tuple[Engine, dict[str, Any]]:
    """Return what registers, trained if it must be, and what is to be said of it."""
    where = pick_device(device)
    if run is None and recipe is None and method == SYN:
        channel = _channel(cohort)
        volumes = load_split(cohort, "TRAIN", DataConfig(channels=(channel,)), where)
        moving = load_template(template, volumes, cohort.grid).cpu()
        about = {"method": SYN, "template": template, "form": "displacement", "channel": channel}
        return Classical(moving, cohort.grid), about
    changed: Recipe | None = None
    if run is not None:
        trained = Run.read(run)
        changed = load_recipe(trained.root, overrides)
    else:
        wanted = recipe or default_recipe(method, template, _channel(cohort), overrides)
        given = overrides if recipe is not None else ()
        trained = train(
            wanted, cohort.root, out / "run", overrides=given, device=device, quiet=quiet
        )
    if "Registrar" not in trained.capabilities:
        raise UsageError(
            f"{trained.root} is a {trained.recipe.method.name}, which registers nothing. Choose "
            f"one of {', '.join(_able())}."
        )
    refuse_strangers(trained, cohort)
    model = trained.load(where, recipe=changed)
    assert isinstance(model.method, Registrar)
    return Learned(model.method, where), {
        "method": trained.recipe.method.name,
        "template": trained.recipe.data.template or "mean",
        "form": model.method.form,
        "channel": trained.channels[0].name,
        "run": str(trained.root.resolve()),
        "checkpoint_sha256": digest(trained.checkpoint()),
        "overrides": list(overrides) if run is not None else [],
        "training_s": trained.info.get("cost", {}).get("training_s"),
        "steps": trained.info.get("cost", {}).get("steps"),
    }


def _able() -> list[str]:
    names = [name for name in METHODS if "Registrar" in capabilities(METHODS[name].component)]
    return [*names, SYN]


def _channel(cohort: PreparedCohort) -> str:
    return next(channel.name for channel in cohort.channels if channel.kind == "intensity")


def _scans(
    cohort: PreparedCohort, table: pd.DataFrame, channel: str
) -> Iterator[tuple[Any, Tensor]]:
    """Yield every row of the table with its scan (1, I, J, K) in [-1, 1]."""
    index = [c.name for c in cohort.channels].index(channel)
    for k in range(len(table)):
        unit = cohort.unit_intensities(table.iloc[k : k + 1], [index])
        yield table.iloc[k], 2 * torch.from_numpy(unit[0]) - 1


def _register_one(
    engine: Engine, folder: FieldFolder, row: Any, scan: Tensor
) -> tuple[Registered, Deformation]:
    """Register a scan and write its files, or read what is there."""
    who = str(row.name), str(row["session"])
    measures = folder.measures(*who)
    if measures is not None:
        found = _read(folder, who)
    else:
        began = time.monotonic()
        found = engine.find(scan)
        seconds = time.monotonic() - began
        spacing_mm = folder.cohort.grid.spacing_mm
        measures = {
            **measure_registration(engine.template, scan, found.u, found.inverse, spacing_mm),
            "seconds": seconds,
        }
        folder.write_field(*who, FROM_TEMPLATE, found.u.numpy())
        warped = warp(engine.template[None], found.u[None])[0, 0]
        folder.write_volume(*who, "desc-template", unit(warped))
        determinant = jacobian_determinant(found.u[None])[0]
        folder.write_volume(*who, "desc-jacobian", determinant.numpy())
        if found.velocity is not None:
            folder.write_field(*who, FROM_TEMPLATE, found.velocity.numpy(), VELOCITY)
        if found.inverse is not None:
            folder.write_field(*who, TO_TEMPLATE, found.inverse.numpy())
            back = warp(scan[None], found.inverse[None])[0, 0]
            folder.write_volume(*who, "space-template", unit(back))
        folder.finish(*who, measures)
    return Registered(*who, str(row["split"]), measures), found


def _read(folder: FieldFolder, who: tuple[str, str]) -> Deformation:
    """Return what was found for a scan, but for its velocity."""
    u, inverse = (folder.read_field(*who, way) for way in (FROM_TEMPLATE, TO_TEMPLATE))
    if u is None:
        raise DataError(
            f"The field to sub-{who[0]} in {folder.root} is gone and its numbers are there. Delete "
            f"sub-{who[0]} and register again."
        )
    return Deformation(torch.from_numpy(u), None if inverse is None else torch.from_numpy(inverse))


def _table(registered: Sequence[Registered]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"subject": r.subject, "session": r.session, "split": r.split, **r.measures}
            for r in registered
        ]
    )


def _typical(registered: Sequence[Registered]) -> list[Registered]:
    """Return the best, the median and the worst, in that order and each once."""
    order = sorted(registered, key=lambda one: -one.measures["local_correlation_after"])
    places = dict.fromkeys((0, len(order) // 2, len(order) - 1))
    return [order[place] for place in places]


def _shown(engine: Engine, folder: FieldFolder, one: Registered, scan: Tensor) -> Shown:
    found = _read(folder, (one.subject, one.session))
    u = found.u
    moving = engine.template[None]
    steps = engine.steps(scan, found)
    way = [unit(warp(moving, step[None])[0, 0]) for step in steps]
    warped, redrawn = unit(warp(moving, u[None])[0, 0]), engine.redrawn(scan)
    again = None if redrawn is None else unit(redrawn[0])
    return Shown(one, unit(scan[0]), warped, u.numpy(), np.stack(way), again)
