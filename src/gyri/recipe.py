"""A recipe: view x method x networks x conditions x training, in one strict YAML file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field

from gyri.capabilities import capabilities
from gyri.errors import DataError, UsageError, nearest
from gyri.registry import METHODS, NETWORKS, VIEWS
from gyri.settings import Component, component, known_key, read_yaml, typed
from gyri.types import Grid, ItemSpec, Method
from gyri.views.base import View

Span = tuple[float, float]
"""Lowest and highest value of a uniform draw; twice the same value fixes it."""


@dataclass(frozen=True, kw_only=True)
class _Augment:
    """What every augmentation has.

    Parameters
    ----------
    p : probability that an item is changed.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    moves: ClassVar[bool] = True
    """Whether voxels move, labels with them; otherwise the brain's intensities alone change."""

    p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"p is {self.p:g}; a probability is from 0 to 1")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"{item.name} is {list(value)}; give [lowest, highest]")


@dataclass(frozen=True, kw_only=True)
class Flip(_Augment):
    """Mirror along one axis. Flipping left and right loses laterality."""

    axis: Literal["left_right", "back_front", "foot_head"]
    name: Literal["flip"] = "flip"
    p: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Rotate(_Augment):
    """Turn around one axis through the grid's centre by `degrees`."""

    axis: Literal["left_right", "back_front", "foot_head"]
    name: Literal["rotate"] = "rotate"
    degrees: Span = (-10.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Zoom(_Augment):
    """Enlarge by `factor`, the grid stays: what leaves it is cut, what is empty is background."""

    name: Literal["zoom"] = "zoom"
    factor: Span = (0.9, 1.1)


@dataclass(frozen=True, kw_only=True)
class Crop(_Augment):
    """Cut a box of `share` of each axis from a random place and enlarge it to the grid."""

    name: Literal["crop"] = "crop"
    share: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share:g}; it is above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class Elastic(_Augment):
    """Bend: displacements of noise between -`magnitude` and `magnitude` voxels, smoothed.

    `sigma` is the smoothing in voxels; it leaves a small part of the magnitude.
    """

    name: Literal["elastic"] = "elastic"
    sigma: Span = (5.0, 8.0)
    magnitude: Span = (50.0, 150.0)


@dataclass(frozen=True, kw_only=True)
class Shift(_Augment):
    """Add `offset` to the brain's intensities, of which 0 to 1 is the prepared range."""

    moves: ClassVar[bool] = False
    name: Literal["shift"] = "shift"
    offset: Span = (-0.1, 0.1)


@dataclass(frozen=True, kw_only=True)
class Scale(_Augment):
    """Multiply intensities by `factor`."""

    moves: ClassVar[bool] = False
    name: Literal["scale"] = "scale"
    factor: Span = (0.9, 1.1)


@dataclass(frozen=True, kw_only=True)
class Gamma(_Augment):
    """Raise intensities, over a volume's largest, to the power of `gamma`."""

    moves: ClassVar[bool] = False
    name: Literal["gamma"] = "gamma"
    gamma: Span = (0.8, 1.25)


@dataclass(frozen=True, kw_only=True)
class BiasField(_Augment):
    """Multiply intensities by the exponential of a Legendre series of `degree`."""

    moves: ClassVar[bool] = False
    name: Literal["bias_field"] = "bias_field"
    degree: int = 3
    coefficients: Span = (-0.1, 0.1)


NAMED_TEMPLATES = ("mean", "MNI")
"""Templates that are no files."""

Augment = Annotated[
    Flip | Rotate | Zoom | Crop | Elastic | Shift | Scale | Gamma | BiasField,
    Field(discriminator="name"),
]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which scans of a prepared cohort a model sees.

    Parameters
    ----------
    channels : modalities, in the order of the volume's channels.
    context : channels that are given, not made: a mask to make images of. Samples then take theirs
        from a prepared cohort, see `gyri sample --like`.
    sessions : ``first`` takes one scan a subject, ``all`` every session.
    template : what a registration deforms to the scans: ``mean`` of TRAIN, ``MNI``, or a NIfTI file
        of one brain, its path from the recipe's folder. Other methods take none.
    spacing_mm : the spacing the recipe is made for; another is refused. None accepts any.
    augment : changes of TRAIN volumes, in order; see `gyri.training.augment`. None by default.
    """

    channels: tuple[str, ...] = ("T1w",)
    context: tuple[str, ...] = ()
    template: str | None = None
    sessions: Literal["first", "all"] = "first"
    spacing_mm: float | None = None
    augment: tuple[Augment, ...] = ()

    def __post_init__(self) -> None:
        if both := sorted({*self.channels} & {*self.context}):
            raise ValueError(
                f"data.channels and data.context both name {', '.join(both)}; a channel is either "
                "made or given"
            )


@dataclass(frozen=True, kw_only=True)
class PrivateConfig:
    """Differential privacy of TRAIN's subjects; see `gyri.training.private`.

    Parameters
    ----------
    target_epsilon : what the whole run may spend; the noise follows from it. Or
    noise_multiplier : the noise, over `max_grad_norm`. One of the two.
    delta : chance that the promise fails, at most 1 / (10 N), which None takes.
    max_grad_norm : norm to which the gradient of each subject is clipped.
    """

    target_epsilon: float | None = None
    noise_multiplier: float | None = None
    delta: float | None = None
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if (self.target_epsilon is None) == (self.noise_multiplier is None):
            raise ValueError(
                "give exactly one of training.private.target_epsilon and "
                "training.private.noise_multiplier"
            )
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise ValueError(f"training.private.{name} is {value:g}, it must be above 0")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long and how to train.

    Parameters
    ----------
    steps : updates; or
    budget_s : seconds, turned once after 20 warm-up steps into a number of steps. One of the two.
    budget_clock : what `budget_s` counts: ``wall`` time, or the ``processor`` time of all threads,
        which other work on a shared machine does not take away. For training on a CPU.
    batch_size : items an update, over all processes.
    micro_batch : items a forward pass, 0 for all of a process's share at once.
    precision : ``bf16`` runs the networks under autocast.
    compile : compile the networks with torch.compile.
    log_every, preview_every : in steps; 0 for no previews.
    validate_every : in steps, and at the end: the loss of VAL's subjects under the averaged
        weights goes into the log; 0 for never. See `gyri.training.validation`.
    snapshots : numbered checkpoints kept, evenly spaced over the run, the last at its end.
    save_every_s : seconds between checkpoints that are only there for resuming.
    shard : spread weights, averages and optimiser over the processes of ``torchrun`` instead of
        keeping a copy on each; for networks that a device cannot hold. Without previews and
        validation, which one process makes alone.
    private : bound what the weights say of any one subject; `batch_size` is then the expected
        number of subjects an update.
    """

    steps: int | None = None
    budget_s: float | None = None
    budget_clock: Literal["wall", "processor"] = "wall"
    batch_size: int = 32
    micro_batch: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    log_every: int = 20
    preview_every: int = 0
    validate_every: int = 0
    snapshots: int = 4
    save_every_s: float = 120.0
    shard: bool = False
    private: PrivateConfig | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.budget_s is None):
            raise ValueError("give exactly one of training.steps and training.budget_s")
        for name in ("batch_size", "log_every", "snapshots"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} is {getattr(self, name)}, it must be at least 1")
        if self.validate_every < 0:
            raise ValueError(
                f"training.validate_every is {self.validate_every}; give a number of steps, or 0 "
                "for no validation"
            )
        if self.shard and (self.preview_every or self.validate_every or self.private):
            raise ValueError(
                "training.shard leaves no process with whole networks: set preview_every and "
                "validate_every to 0, and leave training.private out"
            )
        if self.private is not None and (self.steps is None or self.micro_batch):
            raise ValueError(
                "training.private needs training.steps, not budget_s, for the number of steps is "
                "part of the account, and no micro_batch, for subjects go one by one"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a training run does, apart from the scans.

    Parameters
    ----------
    needs : name -> path of a recipe or a run that must be trained first on the same subjects.
    text_encoders : condition -> folder of the encoder, in Hugging Face's format, that reads the
        column as free text.
    """

    name: str
    view: Component
    method: Component
    networks: Mapping[str, Component] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    data: DataConfig = DataConfig()
    training: TrainingConfig
    seed: int = 0
    needs: Mapping[str, str] = field(default_factory=dict)
    text_encoders: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse encoders of columns that nothing is conditioned on."""
        for name in self.text_encoders:
            if name not in self.conditions:
                raise UsageError(
                    f"text_encoders.{name} is not among the conditions "
                    f"({', '.join(self.conditions) or 'none'}).{nearest(name, self.conditions)} "
                    "Add it to them, or leave it out."
                )

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data, as the YAML file holds it, with every default written out."""
        texts = {"text_encoders": dict(self.text_encoders)} if self.text_encoders else {}
        return {
            "name": self.name,
            "seed": self.seed,
            "data": _plain(self.data),
            "view": _plain(self.view),
            "method": _plain(self.method),
            "networks": {slot: _plain(component) for slot, component in self.networks.items()},
            "conditions": list(self.conditions),
            "training": _plain(self.training),
            "needs": dict(self.needs),
            **texts,
        }

    def to_yaml(self) -> str:
        """Return the YAML text of `to_mapping`."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False, width=100)

    @property
    def sha256(self) -> str:
        """Hash of everything that `to_mapping` returns."""
        text = json.dumps(_as_floats(self.to_mapping()), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Component):
        return {"name": value.name, **_plain(value.config)}
    return json.loads(json.dumps(asdict(value)))


def _as_floats(value: Any) -> Any:
    """Write 1 and 1.0 the same way, as a setting may be typed either way."""
    if isinstance(value, dict):
        return {key: _as_floats(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_floats(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file.

    Parameters
    ----------
    path : YAML file, or a run folder (its resolved recipe is read).
    overrides : ``"training.steps=100"``; the value is read as YAML. Paths in the file are relative
        to it, those in overrides to the working directory.

    Raises
    ------
    DataError
        If there is no such file or it is no YAML.
    UsageError
        If a key, name or value is wrong; names the place and the nearest right key.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "recipe.yaml"
    if not path.is_file():
        raise DataError(f"There is no recipe {path}. Give a YAML file or a run folder.")
    mapping = read_yaml(path, "recipe")
    if not isinstance(mapping, dict):
        raise DataError(f"{path} holds {type(mapping).__name__}, not a mapping of recipe keys.")
    _resolve_paths(mapping, path.parent)
    for override in overrides:
        override_setting(mapping, override)
    _resolve_paths(mapping, Path())
    try:
        return parse_recipe(mapping)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _resolve_paths(mapping: dict[str, Any], folder: Path) -> None:
    """Make the paths of a recipe absolute that are not yet."""
    for key in ("needs", "text_encoders"):
        paths = mapping.get(key) or {}
        mapping[key] = {name: str((folder / path).resolve()) for name, path in paths.items()}
    template = (mapping.get("data") or {}).get("template")
    if template is not None and template not in NAMED_TEMPLATES:
        mapping["data"]["template"] = str((folder / str(template)).resolve())


def parse_recipe(mapping: Mapping[str, Any]) -> Recipe:
    """Turn plain data into a `Recipe`; see `load_recipe`."""
    for key in mapping:
        known_key(str(key), Recipe, str(key))
    for key in ("name", "view", "method", "training"):
        if key not in mapping:
            raise UsageError(f"the recipe has no {key!r}")
    method = component(mapping["method"], METHODS, "method")
    defaults = METHODS[method.name].component.default_networks(method.config)
    given = mapping.get("networks") or {}
    for slot in given:
        if slot not in defaults:
            known = ", ".join(defaults) or "none"
            raise UsageError(
                f"networks.{slot}: method {method.name!r} has no such network."
                f"{nearest(slot, defaults)} Its networks: {known}."
            )
    networks = {}
    for slot, name in defaults.items():
        section = given.get(slot, {})
        section = {"name": section} if isinstance(section, str) else {"name": name, **section}
        networks[slot] = component(section, NETWORKS, f"networks.{slot}")
    return Recipe(
        name=str(mapping["name"]),
        view=component(mapping["view"], VIEWS, "view"),
        method=method,
        networks=networks,
        conditions=typed(mapping.get("conditions") or [], tuple[str, ...], "conditions"),
        data=typed(mapping.get("data") or {}, DataConfig, "data"),
        training=typed(mapping["training"], TrainingConfig, "training"),
        seed=typed(mapping.get("seed", 0), int, "seed"),
        needs=typed(mapping.get("needs") or {}, dict[str, str], "needs"),
        text_encoders=typed(mapping.get("text_encoders") or {}, dict[str, str], "text_encoders"),
    )


def override_setting(mapping: dict[str, Any], text: str) -> None:
    """Set one value of a recipe's nested `mapping` from ``a.b.c=value``."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"Override {text!r} is not of the form key.inner=value.")
    *parents, last = key.split(".")
    for parent in parents:
        inner = mapping.setdefault(parent, {})
        if isinstance(inner, str):
            inner = mapping[parent] = {"name": inner}
        if not isinstance(inner, dict):
            raise UsageError(f"Override {text!r}: {parent!r} holds a value, not a section.")
        mapping = inner
    mapping[last] = yaml.safe_load(value)


def build_view(recipe: Recipe, channels: int, grid: Grid) -> View:
    """Build the recipe's view of volumes with `channels` on `grid`."""
    view: View = VIEWS[recipe.view.name].component(recipe.view.config, channels, grid)
    return view


def build_method(recipe: Recipe, spec: ItemSpec) -> Method:
    """Build the recipe's method and its networks for items of `spec`."""
    kind = METHODS[recipe.method.name].component
    if spec.context and "ContextSampler" not in capabilities(kind):
        able = ", ".join(
            name for name in METHODS if "ContextSampler" in capabilities(METHODS[name].component)
        )
        raise UsageError(
            f"data.context gives {', '.join(spec.context)}, and {recipe.method.name} takes no "
            f"images (methods that do: {able}). Choose one of them, or leave data.context out."
        )
    networks = {}
    for slot, network_spec in kind.network_specs(recipe.method.config, spec).items():
        component = recipe.networks[slot]
        networks[slot] = NETWORKS[component.name].component(component.config, network_spec)
    method: Method = kind(recipe.method.config, spec, networks)
    return method
