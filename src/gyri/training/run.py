"""A run: the folder that training makes and that sampling reads.

::

    RUN/recipe.yaml           the resolved recipe; `gyri train RUN/recipe.yaml` repeats the run
    RUN/run.json              data and split hashes, grid, condition schema, versions, cost
    RUN/log.jsonl             losses, gradient norms, times
    RUN/previews/             pictures made while training
    RUN/checkpoints/step-N/   weights, averages, optimiser, state
    RUN/needs/NAME/           runs that this one stands on
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from gyri import __version__
from gyri.capabilities import FitOnce, Registrar, capabilities
from gyri.cohort.prepared import PreparedCohort
from gyri.conditions import ConditionSchema
from gyri.errors import DataError, UsageError
from gyri.recipe import NAMED_TEMPLATES, Recipe, build_method, build_view, load_recipe
from gyri.registry import METHODS
from gyri.runtime import distributed
from gyri.runtime.device import machine, peak_memory_gib, pick_device
from gyri.runtime.progress import progress_bar
from gyri.runtime.signals import stop_signals
from gyri.training import checkpoint
from gyri.training.augment import build_augmentation
from gyri.training.data import Feed, encode_conditions, load_split
from gyri.training.labels import width
from gyri.training.log import JsonLog
from gyri.training.loop import Clock, Trainer, load_weights
from gyri.training.template import load_template
from gyri.training.transfer import (
    SEEN,
    begin,
    origin,
    refuse_overlap,
    seen_subjects,
    taken_schema,
)
from gyri.types import Channel, Grid, ItemSpec, Method, Progress
from gyri.views.base import View

Preview = Callable[["Model", Path], None]
PREVIEWS = 4
"""Samples in a preview."""
Validate = Callable[[Progress], dict[str, float]]


@dataclass
class Model:
    """A trained method with the view and the conditions it was trained on.

    Parameters
    ----------
    shown : images given to previews, (`PREVIEWS`, C, I, J, K) by name.
    needs : the trained runs that this one stands on, by name.
    """

    method: Method
    view: View
    schema: ConditionSchema
    device: torch.device
    shown: Mapping[str, Tensor] = field(default_factory=dict)
    needs: Mapping[str, Model] = field(default_factory=dict)


@dataclass
class Run:
    """A run folder.

    Parameters
    ----------
    root : the folder.
    recipe : as resolved when the run was started.
    info : content of ``run.json``.
    """

    root: Path
    recipe: Recipe
    info: dict[str, Any]

    @classmethod
    def read(cls, root: Path | str) -> Run:
        """Read a run folder; raises `DataError` if it is none."""
        root = Path(root)
        path = root / "run.json"
        if not path.is_file():
            raise DataError(
                f"{root} is no run: it has no run.json. Give a folder that `gyri train` made."
            )
        return cls(root, load_recipe(root / "recipe.yaml"), json.loads(path.read_text()))

    @property
    def grid(self) -> Grid:
        """The voxel grid of the run's volumes."""
        grid = self.info["grid"]
        return Grid(tuple(grid["shape"]), tuple(tuple(row) for row in grid["affine"]))

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels of the run's volumes."""
        return tuple(Channel(**channel) for channel in self.info["channels"])

    @property
    def context(self) -> tuple[Channel, ...]:
        """The channels that the run is given and does not make."""
        return tuple(Channel(**channel) for channel in self.info.get("context", ()))

    @property
    def schema(self) -> ConditionSchema:
        """What the run is conditioned on."""
        return ConditionSchema.from_json(self.info["schema"])

    @property
    def capabilities(self) -> list[str]:
        """What the run's method can do; see `gyri.capabilities.CAPABILITIES`."""
        return capabilities(METHODS[self.recipe.method.name].component)

    def checkpoint(self, step: int | None = None) -> Path:
        """Return the newest checkpoint folder, or that of `step`.

        Raises
        ------
        DataError
            If there is none, or it is damaged.
        """
        root = self.root / "checkpoints"
        folder = checkpoint.latest(root) if step is None else root / f"step-{step:08d}"
        if folder is None or not checkpoint.is_whole(folder):
            have = ", ".join(str(int(f.name[5:])) for f in checkpoint.numbered(root)) or "none"
            raise DataError(f"{self.root} has no whole checkpoint {step or ''}; it has: {have}.")
        return folder

    def load(
        self, device: torch.device, step: int | None = None, recipe: Recipe | None = None
    ) -> Model:
        """Build the method with a checkpoint's averaged weights.

        Parameters
        ----------
        recipe : the run's recipe with other sampling settings; weights must still fit.
        """
        recipe = recipe or self.recipe
        folder = self.checkpoint(step)
        files, _ = checkpoint.load(folder)
        view, method = _build(
            recipe, self.channels, self.context, self.grid, self.schema, self.num_train
        )
        view.state = files.get("view", {})
        view.to(device)
        method.to(device)
        load_weights(method, files, folder, average=True)
        method.to(device)
        for network in method.networks.values():
            network.eval().requires_grad_(False)
        needs = _use_needs(method, view, self.root, recipe, device)
        return Model(method, view, self.schema, device, needs=needs)

    @property
    def num_train(self) -> int:
        """Number of TRAIN scans."""
        return int(self.info["num_train"])


def train(
    recipe: Recipe | Path | str,
    data: Path | str,
    out: Path | str,
    *,
    overrides: tuple[str, ...] = (),
    begin_from: Path | str | None = None,
    device: str = "auto",
    preview: Preview | None = None,
    quiet: bool = False,
) -> Run:
    """Train a recipe on the TRAIN subjects of a prepared cohort, or go on where it stopped.

    Parameters
    ----------
    recipe : recipe, YAML file, or run folder to repeat.
    data : prepared cohort.
    out : run folder; the same command continues an interrupted run.
    overrides : ``"training.steps=100"``, applied to a recipe read from a file.
    begin_from : run whose weights this one begins with; see `gyri.training.transfer`.
    preview : draws a picture of a few samples into the given file.

    Raises
    ------
    UsageError
        If `out` holds a run of another recipe, other data or another beginning, or is in use; if
        `begin_from` has seen a subject that this cohort holds out.
    ResumableStop
        After SIGTERM, SIGINT or SIGUSR1, or when the disk is full.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides)
    where = pick_device(device)
    distributed.init(where)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    if distributed.rank() == 0:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"{out} is in use by another run. Wait for it, or train into another folder."
            ) from None
    try:
        begun_from = None if begin_from is None else Run.read(begin_from)
        cohort = PreparedCohort.read(Path(data))
        return _train(recipe, cohort, out, where, preview, quiet, begun_from)
    finally:
        lock.release()


def _train(
    recipe: Recipe,
    cohort: PreparedCohort,
    out: Path,
    device: torch.device,
    preview: Preview | None,
    quiet: bool,
    begun_from: Run | None = None,
) -> Run:
    if recipe.training.validate_every:
        from gyri.training.validation import refuse_without_subjects

        refuse_without_subjects(recipe, cohort)
    train_rows = cohort.rows("TRAIN", recipe.data.sessions)
    kinds = {name: column.kind for name, column in cohort.columns.items()}
    if begun_from is None:
        schema = ConditionSchema.fit(train_rows, recipe.conditions, kinds, recipe.text_encoders)
    else:
        refuse_overlap(cohort, begun_from, recipe.training.private is not None)
        schema = taken_schema(recipe, begun_from)
    run = _start(recipe, cohort, schema, train_rows, out, begun_from)
    _train_needs(run, cohort, device, preview, quiet)

    volumes = load_split(cohort, "TRAIN", recipe.data, device)
    num = len(volumes.stored)
    view, method = _build(recipe, volumes.made, volumes.given, cohort.grid, schema, num)
    needs = _use_needs(method, view, out, recipe, device)
    if begun_from is not None:
        begin(method, begun_from)
    if isinstance(method, Registrar):
        if schema.columns:
            raise UsageError(
                f"conditions are {', '.join(schema.names)}, and {recipe.method.name} registers a "
                "scan whatever they are. Leave them out."
            )
        name = recipe.data.template or NAMED_TEMPLATES[0]
        method.take_template(load_template(name, volumes, cohort.grid))
    elif recipe.data.template is not None:
        raise UsageError(
            f"data.template is {recipe.data.template}, and {recipe.method.name} registers nothing. "
            "Leave it out, or take a registration (voxelmorph, diffusemorph)."
        )
    if not checkpoint.numbered(out / "checkpoints") and recipe.training.private is None:
        view.fit(volumes)
        run.info.update({"view": view.facts} if view.facts else {})
    view.to(device)
    method.to(device)
    condition = encode_conditions(cohort, schema, "TRAIN", recipe.data).to(device)
    augment = build_augmentation(recipe.data.augment, volumes.channels)
    feed = Feed(volumes, condition, view, recipe.seed, augment)
    began, cpu_began = time.monotonic(), time.process_time()
    if isinstance(method, FitOnce) and augment is not None:
        raise UsageError(
            f"{recipe.method.name} is fitted once on every TRAIN volume as it is; data.augment "
            "would change nothing. Leave it out."
        )
    if isinstance(method, FitOnce):
        clock = _fit_once(method, feed, out)
    else:
        validate = None
        if recipe.training.validate_every:
            from gyri.training.validation import build_validation

            validate = build_validation(recipe, cohort, schema, method, feed)
        shown = volumes.context(torch.arange(PREVIEWS).to(device) % len(feed))
        model = Model(method, view, schema, device, shown, needs)
        clock = _train_by_gradients(run, model, feed, preview, quiet, validate)
    elapsed_s = clock.elapsed_s or time.monotonic() - began
    run.info["cost"] = {
        "training_s": elapsed_s,
        "cpu_s": clock.cpu_s or time.process_time() - cpu_began,
        "steps": clock.step,
        "images_seen": clock.images_seen,
        "data_wait_share": clock.data_wait_s / max(elapsed_s, 1e-9),
        "peak_memory_gib": peak_memory_gib(),
        "processes": distributed.world_size(),
        "parameters": {
            name: sum(p.numel() for p in network.parameters())
            for name, network in method.networks.items()
        },
    }
    _write_info(run)
    return run


def _start(
    recipe: Recipe,
    cohort: PreparedCohort,
    schema: ConditionSchema,
    train_rows: pd.DataFrame,
    out: Path,
    begun_from: Run | None,
) -> Run:
    """Write the run's recipe and facts, or check that they are the ones of the run in `out`."""
    channels = {channel.name: channel for channel in cohort.channels}
    info = {
        "gyri": __version__,
        "recipe_sha256": recipe.sha256,
        "data": str(cohort.root),
        "data_hash": cohort.data_hash,
        "split_hash": cohort.split_hash,
        "grid": {"shape": cohort.grid.shape, "affine": cohort.grid.affine},
        "channels": [vars(channels[name]) for name in recipe.data.channels if name in channels],
        "context": [vars(channels[name]) for name in recipe.data.context if name in channels],
        "intensity_range": cohort.intensity_range,
        "skull_stripped": cohort.skull_stripped,
        "num_train": len(train_rows),
        SEEN: seen_subjects(train_rows, begun_from),
        "begun_from": None if begun_from is None else origin(begun_from),
        "schema": schema.to_json(),
        "machine": machine(),
    }
    run = Run(out, recipe, json.loads(json.dumps(info)))
    if (out / "run.json").is_file():
        old = Run.read(out)
        if old.recipe.sha256 != recipe.sha256:
            raise UsageError(
                f"{out} holds a run of another recipe; it differs in "
                f"{'; '.join(_differences(old.recipe.to_mapping(), recipe.to_mapping()))}. "
                "Train into another folder."
            )
        for key in ("data_hash", "split_hash"):
            if old.info[key] != info[key]:
                raise UsageError(
                    f"{out} was trained on other data ({key} {old.info[key][:12]}, now "
                    f"{str(info[key])[:12]}). Train into another folder."
                )
        theirs, ours = old.info.get("begun_from") or {}, run.info["begun_from"] or {}
        if theirs.get("checkpoint_sha256") != ours.get("checkpoint_sha256"):
            raise UsageError(
                f"{out} holds a run that began from {theirs.get('run', 'no other')}, and this one "
                f"is to begin from {ours.get('run', 'no other')} as it is now. Train into another "
                "folder."
            )
        run = old
    elif distributed.rank() == 0:
        (out / "recipe.yaml").write_text(recipe.to_yaml())
        _write_info(run)
    # Also on the first path: a slow process may find here what the first one has just written.
    distributed.barrier()
    return run


def _differences(old: Any, new: Any, where: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted({*old, *new})
            for line in _differences(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
        ]
    return [] if old == new else [f"{where} ({old!r} there, {new!r} here)"]


def _write_info(run: Run) -> None:
    if distributed.rank() == 0:
        temporary = run.root / ".run.json"
        temporary.write_text(json.dumps(run.info, indent=2))
        temporary.replace(run.root / "run.json")


def _build(
    recipe: Recipe,
    channels: tuple[Channel, ...],
    context: tuple[Channel, ...],
    grid: Grid,
    schema: ConditionSchema,
    num_train: int,
) -> tuple[View, Method]:
    """Build view and method with weights that follow from the recipe's seed alone."""
    view = build_view(recipe, width(channels), grid)
    given = {channel.name: width([channel]) for channel in context}
    spec: ItemSpec = view.item_spec(schema.layout, num_train, given)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        method = build_method(recipe, spec)
    method.penalise = view.penalties
    return view, method


def _fit_once(method: Any, feed: Feed, out: Path) -> Clock:
    """Fit a method that is not trained by gradients and write its one checkpoint."""
    if (folder := checkpoint.latest(out / "checkpoints")) is not None:
        files, clock = checkpoint.load(folder)
        method.state = files["state"]
        return Clock(**clock)
    began = time.monotonic()
    logs = method.fit(*feed.everything())
    clock = Clock(step=1, horizon=1, images_seen=len(feed), elapsed_s=time.monotonic() - began)
    JsonLog(out / "log.jsonl").write({"step": 1, "elapsed_s": clock.elapsed_s, **logs})
    files = {"state": method.state, "view": feed.view.state}
    checkpoint.save(out / "checkpoints", 1, files, vars(clock))
    return clock


def _train_by_gradients(
    run: Run,
    model: Model,
    feed: Feed,
    preview: Preview | None,
    quiet: bool,
    validate: Validate | None,
) -> Clock:
    def show(step: int) -> None:
        if preview is not None and distributed.rank() == 0:
            folder = run.root / "previews"
            folder.mkdir(exist_ok=True)
            preview(model, folder / f"step-{step:08d}.png")

    trainer = _trainer(run, model.method, feed, show, validate)
    if quiet or distributed.rank() != 0:
        with stop_signals() as asked:
            return trainer.run(stop_asked=asked)
    with progress_bar(f"train {run.recipe.name}", trainer.clock.horizon or None) as advance:

        def on_step(clock: Clock, logs: dict[str, float]) -> None:
            loss = next((f"{k} {v:.4g}" for k, v in logs.items() if k.endswith("loss")), "")
            advance(completed=clock.step, total=clock.horizon or None, note=loss)

        with stop_signals() as asked:
            return trainer.run(on_step, asked)


def _trainer(
    run: Run,
    method: Method,
    feed: Feed,
    show: Callable[[int], None],
    validate: Validate | None,
) -> Trainer:
    """Return the loop; where it is private, with its account in ``run.json``."""
    recipe = run.recipe
    if recipe.training.private is None:
        return Trainer(method, feed, recipe.training, recipe.seed, run.root, show, validate)
    from gyri.training.private import PrivateTrainer, refuse_unprivate

    refuse_unprivate(recipe, method, feed)
    trainer = PrivateTrainer(method, feed, recipe.training, recipe.seed, run.root, show, validate)
    run.info["differential_privacy"] = trainer.statement()
    _write_info(run)
    return trainer


def _train_needs(
    run: Run, cohort: PreparedCohort, device: torch.device, preview: Preview | None, quiet: bool
) -> None:
    """Train what the recipe needs and does not have yet, on the same subjects."""
    record = {}
    for name, path in run.recipe.needs.items():
        if (Path(path) / "run.json").is_file():
            needed = Run.read(path)
            if needed.info["split_hash"] != cohort.split_hash:
                raise UsageError(
                    f"needs.{name}: {path} was trained on another split (split hash "
                    f"{needed.info['split_hash'][:12]}, here {cohort.split_hash[:12]}); its TRAIN "
                    "subjects may be among the ones held out here. Train it on this cohort."
                )
        else:
            folder = run.root / "needs" / name
            folder.mkdir(parents=True, exist_ok=True)
            needed = _train(load_recipe(path), cohort, folder, device, preview, quiet)
        record[name] = {
            "run": str(needed.root),
            "checkpoint_sha256": checkpoint.digest(needed.checkpoint()),
            "training_s": needed.info.get("cost", {}).get("training_s"),
        }
    if record:
        run.info["needs"] = record
        _write_info(run)


def _use_needs(
    method: Method, view: View, root: Path, recipe: Recipe, device: torch.device
) -> dict[str, Model]:
    """Hand view and method the trained runs that the recipe needs, and return them."""
    needed = {
        name: Run.read(path if (Path(path) / "run.json").is_file() else root / "needs" / name).load(
            device
        )
        for name, path in recipe.needs.items()
    }
    if missing := [name for name in view.needs if name not in needed]:
        raise UsageError(
            f"The view {recipe.view.name} stands on {', '.join(missing)}, which the recipe does "
            f"not name. Add `needs: {{{missing[0]}: RECIPE or RUN}}`."
        )
    view.use({name: needed[name] for name in view.needs})
    method.use({name: run.method for name, run in needed.items() if name not in view.needs})
    return needed
