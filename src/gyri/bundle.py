"""A published MONAI bundle of latent diffusion as a run that can be sampled.

Pinaya et al., 2022, arXiv:2209.07162: ``brain_image_synthesis_latent_diffusion_model`` of MONAI's
model zoo, and bundles of the same layout::

    BUNDLE/configs/inference.json   networks, schedule, names of the conditions
    BUNDLE/configs/metadata.json    grid of the images
    BUNDLE/models/autoencoder.pt    weights
    BUNDLE/models/model.pt          weights
    BUNDLE/large_files.yml          hashes of these, where the bundle has it

The configuration is read as plain data: what it would evaluate is not evaluated. Weights are read
in a process of its own, as all files that users add. Networks are MONAI's, the sampler is gyri's:
DDIM at indices 980, 960 ... 0, codes neither scaled nor clipped, as published.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyri import __version__
from gyri.conditions import Column, ConditionSchema
from gyri.errors import DataError, UsageError
from gyri.evaluation.weights import read_pickled
from gyri.recipe import Recipe, build_view, parse_recipe
from gyri.registry import METHODS, NETWORKS
from gyri.runtime.device import machine
from gyri.settings import read_yaml
from gyri.training import checkpoint
from gyri.training.run import Run
from gyri.types import Channel, Grid

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, METADATA, HASHES = "configs/inference.json", "configs/metadata.json", "large_files.yml"
WEIGHTS = {"autoencoder": "models/autoencoder.pt", "denoiser": "models/model.pt"}
EVALUATED = ("$", "@")
"""How a value begins that MONAI would evaluate."""
OLD_NAMES = (
    (".attn.to_", ".to_"),
    (".attn.out_proj.", ".proj_attn."),
    (".out_proj.", ".to_out.0."),
    (".postconv.", ".conv."),
)
"""Names of layers today and in the package where the published weights were trained."""
IGNORED = ("_target_", "_requires_", "spatial_dims", "use_flash_attention", "use_checkpoint")
"""Settings of a network that do not change what it computes, or that are checked by themselves."""


@dataclass(frozen=True)
class Bundle:
    """What the two files of a bundle's configuration say.

    Parameters
    ----------
    name : of the folder.
    version : as its metadata say.
    shape : of the images.
    conditions : names in the order in which the network takes them, each a number in [0, 1].
    autoencoder, denoiser : settings of gyri's networks.
    latent_channels, factor : of the code.
    num_steps : of the sampler.
    """

    name: str
    version: str
    shape: tuple[int, int, int]
    conditions: tuple[str, ...]
    autoencoder: dict[str, Any]
    denoiser: dict[str, Any]
    latent_channels: int
    factor: int
    num_steps: int

    @property
    def grid(self) -> Grid:
        """Voxels of 1 mm around the origin, axes as RAS+: the bundle states no affine."""
        middle = [-(size - 1) / 2 for size in self.shape]
        i, j, k = middle
        return Grid(
            self.shape,
            ((1.0, 0.0, 0.0, i), (0.0, 1.0, 0.0, j), (0.0, 0.0, 1.0, k), (0.0, 0.0, 0.0, 1.0)),
        )

    @property
    def schema(self) -> ConditionSchema:
        """Numbers in [0, 1] that enter as they are."""
        columns = [Column(name, "continuous", maximum=1.0) for name in self.conditions]
        return ConditionSchema(tuple(columns), combinations=((),))

    def recipes(self) -> dict[str, Recipe]:
        """Return the recipes of the two runs."""
        once = {"steps": 1, "batch_size": 1}
        return {
            "autoencoder": parse_recipe(
                {
                    "name": f"{self.name}-autoencoder",
                    "view": "volume",
                    "method": {"name": "autoencoder_kl", "unit_range": True},
                    "networks": {"autoencoder": self.autoencoder},
                    "training": once,
                }
            ),
            "denoiser": parse_recipe(
                {
                    "name": self.name,
                    "view": {
                        "name": "latent",
                        "channels": self.latent_channels,
                        "factor": self.factor,
                    },
                    "needs": {"autoencoder": "needs/autoencoder"},
                    "method": {
                        "name": "ddpm",
                        "prediction": "eps",
                        "schedule": "scaled_linear",
                        "sampling": {
                            "sampler": "ddim",
                            "spacing": "leading",
                            "num_steps": self.num_steps,
                            "clip": 0,
                        },
                    },
                    "networks": {"denoiser": self.denoiser},
                    "conditions": list(self.conditions),
                    "training": once,
                }
            ),
        }


def import_bundle(folder: Path | str, out: Path | str) -> Run:
    """Turn a bundle into a run that `gyri sample` samples.

    Parameters
    ----------
    folder : the bundle, its weights downloaded.
    out : new folder of the run; the autoencoder's lies in its ``needs``.

    Raises
    ------
    DataError
        If a file is missing or damaged, the bundle is another one, or its weights do not fit.
    UsageError
        If `out` holds something already.
    """
    folder, out = Path(folder), Path(out)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty. Give a new folder.")
    bundle = read_bundle(folder)
    hashes = {name: _checked(folder, path) for name, path in WEIGHTS.items()}
    places = {"autoencoder": out / "needs" / "autoencoder", "denoiser": out}
    for name, recipe in bundle.recipes().items():
        tensors = read_pickled(folder / WEIGHTS[name])
        _write_run(bundle, recipe, name, tensors, places[name], hashes[name])
    return Run.read(out)


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle's configuration as plain data; see `import_bundle` for errors."""
    config, metadata = (_read_json(folder / name) for name in (CONFIG, METADATA))
    autoencoder = _autoencoder(_section(config, "autoencoder_def", "AutoencoderKL"))
    names = _condition_names(config)
    unet = _section(config, "diffusion_def", "DiffusionModelUNet")
    denoiser = _denoiser(unet, names, autoencoder["latent_channels"])
    denoiser["schedule"] = _schedule(_section(config, "scheduler", "DDIMScheduler"))
    try:
        shape = metadata["network_data_format"]["outputs"]["pred"]["spatial_shape"]
    except (KeyError, TypeError):
        raise DataError(
            f"{folder / METADATA} does not say the images' size (network_data_format, outputs, "
            "pred, spatial_shape). Get the bundle as it was published."
        ) from None
    steps = re.search(r"num_inference_steps=(\d+)", str(config.get("set_timesteps", "")))
    return Bundle(
        name=folder.resolve().name,
        version=str(metadata.get("version", "unknown")),
        shape=(int(shape[0]), int(shape[1]), int(shape[2])),
        conditions=names,
        autoencoder=autoencoder,
        denoiser=denoiser,
        latent_channels=autoencoder["latent_channels"],
        factor=2 ** (len(autoencoder["channels"]) - 1),
        num_steps=int(steps[1]) if steps else 50,
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(
            f"{path} is missing. Give the folder of a MONAI bundle of latent diffusion, such as "
            "brain_image_synthesis_latent_diffusion_model, with its weights."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}). Get the bundle anew.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, not a mapping.")
    return content


def _section(config: Mapping[str, Any], key: str, kind: str) -> dict[str, Any]:
    """Return the plain settings of one of MONAI's classes."""
    section = config.get(key)
    if not isinstance(section, dict) or str(section.get("_target_", "")).split(".")[-1] != kind:
        raise DataError(
            f"{CONFIG}: {key} is no {kind}. Other bundles than of this kind are unknown."
        )
    evaluated = [
        name
        for name, value in section.items()
        if name not in IGNORED and str(value).startswith(EVALUATED)
    ]
    if evaluated:
        raise DataError(
            f"{CONFIG}: {key}.{evaluated[0]} is {section[evaluated[0]]!r}, which would have to be "
            "evaluated, and nothing is. Write the value in its place."
        )
    return {name: value for name, value in section.items() if name not in IGNORED}


class _Settings:
    """Settings of a class, each taken once; what is left over is unknown."""

    def __init__(self, section: dict[str, Any], where: str) -> None:
        self.left, self.where = dict(section), where

    def take(self, name: str, default: Any = None) -> Any:
        """Return a setting."""
        if name not in self.left and default is None:
            raise DataError(f"{CONFIG}: {self.where} has no {name}.")
        return self.left.pop(name, default)

    def must_be(self, name: str, only: Any) -> None:
        """Refuse another value than the one that gyri's network has."""
        value = self.left.pop(name, only)
        if value != only:
            raise DataError(
                f"{CONFIG}: {self.where}.{name} is {value!r}; only {only!r} can be read."
            )

    def finish(self) -> None:
        """Refuse what nobody asked for."""
        if self.left:
            raise DataError(
                f"{CONFIG}: {self.where} has settings that are not known here: "
                f"{', '.join(self.left)}."
            )


def _autoencoder(section: dict[str, Any]) -> dict[str, Any]:
    settings = _Settings(section, "autoencoder_def")
    middle = settings.take("with_encoder_nonlocal_attn", True)
    found = {
        "name": "monai_autoencoder_kl",
        "channels": settings.take("channels"),
        "latent_channels": settings.take("latent_channels"),
        "num_res_blocks": settings.take("num_res_blocks"),
        "attention": settings.take("attention_levels"),
        "middle_attention": middle,
        "norm_groups": settings.take("norm_num_groups", 32),
    }
    for name, only in {
        "in_channels": 1, "out_channels": 1, "with_decoder_nonlocal_attn": middle,
        "norm_eps": 1e-6, "use_convtranspose": False, "include_fc": True,
        "use_combined_linear": False,
    }.items():  # fmt: skip
        settings.must_be(name, only)
    settings.finish()
    return found


def _denoiser(
    section: dict[str, Any], conditions: tuple[str, ...], latent_channels: int
) -> dict[str, Any]:
    settings = _Settings(section, "diffusion_def")
    seen = settings.take("in_channels")
    ways = {latent_channels + len(conditions): "both", latent_channels: "attention"}
    if seen not in ways:
        raise DataError(
            f"{CONFIG}: diffusion_def.in_channels is {seen}; with {latent_channels} channels of a "
            f"code and {len(conditions)} conditions it is {' or '.join(map(str, ways))}."
        )
    heads = settings.take("num_head_channels", 8)
    found = {
        "name": "monai_unet",
        "channels": settings.take("channels"),
        "num_res_blocks": settings.take("num_res_blocks"),
        "attention": settings.take("attention_levels"),
        "channels_per_head": heads if isinstance(heads, list) else [heads],
        "norm_groups": settings.take("norm_num_groups", 32),
        "resblock_updown": settings.take("resblock_updown", False),
        "upcast_attention": settings.take("upcast_attention", False),
        "condition": ways[seen],
        "missing_bits": False,
    }
    for name, only in {
        "out_channels": latent_channels, "norm_eps": 1e-6, "with_conditioning": True,
        "transformer_num_layers": 1, "cross_attention_dim": len(conditions),
        "num_class_embeds": None, "dropout_cattn": 0.0, "include_fc": True,
        "use_combined_linear": False,
    }.items():  # fmt: skip
        settings.must_be(name, only)
    settings.finish()
    return found


def _schedule(section: dict[str, Any]) -> dict[str, Any]:
    settings = _Settings(section, "scheduler")
    # gyri's schedule of that name has these ends.
    for name, only in {
        "schedule": "scaled_linear_beta", "clip_sample": False, "prediction_type": "epsilon",
        "set_alpha_to_one": True, "steps_offset": 0,
        "beta_start": 0.0015, "beta_end": 0.0205, "num_train_timesteps": 1000,
    }.items():  # fmt: skip
        settings.must_be(name, only)
    settings.finish()
    return {"first": 0.0015, "last": 0.0205, "num_steps": 1000}


def _condition_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the order of the conditions off the expression that would join them."""
    joined = re.search(r"\[\[(.*?)\]\]", str(config.get("conditioning", "")))
    names = tuple(re.findall(r"@(\w+)", joined[1])) if joined else ()
    if not names:
        raise DataError(
            f"{CONFIG}: conditioning is {config.get('conditioning')!r}; expected a tensor of named "
            "conditions, such as [[@gender, @age]]."
        )
    return names


def _checked(folder: Path, path: str) -> str:
    """Return the SHA-256 of a file of weights; refuse one that is not as its bundle says."""
    file = folder / path
    if not file.is_file():
        raise DataError(
            f"{file} is missing. A bundle comes without its weights: get them from where "
            f"{folder / HASHES} says."
        )
    if (folder / HASHES).is_file():
        listed = read_yaml(folder / HASHES, "list of files")
        entries = listed.get("large_files", []) if isinstance(listed, dict) else []
        for entry in entries:
            if entry.get("path") == path and entry.get("hash_type") == "md5":
                found = _digest(file, "md5")
                if found != entry.get("hash_val"):
                    raise DataError(
                        f"{file} has MD5 {found}; the bundle says {entry.get('hash_val')}. It is "
                        "another file, or was damaged on its way."
                    )
    return _digest(file, "sha256")


def _digest(file: Path, kind: str) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()


def _write_run(
    bundle: Bundle, recipe: Recipe, name: str, tensors: dict[str, Tensor], out: Path, digest: str
) -> None:
    """Write a run folder with one checkpoint, as if it had been trained."""
    import torch

    schema = bundle.schema if name == "denoiser" else ConditionSchema()
    view = build_view(recipe, 1, bundle.grid)
    kind, settings = METHODS[recipe.method.name].component, recipe.networks[name]
    spec = kind.network_specs(recipe.method.config, view.item_spec(schema.layout, 0))[name]
    with torch.device("meta"):
        network = NETWORKS[settings.name].component(settings.config, spec)
    expected = network.state_dict()
    state = {"data_mean": torch.tensor(0.0), "data_std": torch.tensor(1.0)}
    files = {
        "state": state if name == "denoiser" else {},
        "view": {key: tensor.cpu() for key, tensor in view.state.items()},
        f"network-{name}": renamed(tensors, expected, WEIGHTS[name]),
    }
    info = {
        "gyri": __version__,
        "recipe_sha256": recipe.sha256,
        "data": f"unknown to gyri: the data of the bundle {bundle.name} {bundle.version}",
        "data_hash": f"bundle:{digest}",
        "split_hash": f"bundle:{digest}",
        "grid": {"shape": bundle.grid.shape, "affine": bundle.grid.affine},
        "channels": [vars(Channel("T1w"))],
        "context": [],
        "intensity_range": (0.0, 1.0),
        "skull_stripped": False,
        "num_train": 0,
        "schema": schema.to_json(),
        "machine": machine(),
        "bundle": {"name": bundle.name, "version": bundle.version, "weights_sha256": digest},
    }
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.save(out / "checkpoints", 0, files, {"step": 0})
    (out / "recipe.yaml").write_text(recipe.to_yaml())
    (out / "run.json").write_text(json.dumps(info, indent=2))


def renamed(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """Return weights under the names of gyri's network, every one of them and no other.

    Parameters
    ----------
    found : by the names of the bundle, today's or those of `OLD_NAMES`.
    expected : the state dict of gyri's network, whose shapes count.
    where : names the file.

    Raises
    ------
    DataError
        If a tensor is missing, is one too many, has another shape or is not finite.
    """
    left, made, faults = dict(found), {}, []
    for name, like in expected.items():
        own = name.removeprefix("net.")
        names = [own, *(own.replace(new, old) for new, old in OLD_NAMES)]
        given = next((candidate for candidate in names if candidate in left), None)
        if given is None:
            faults.append(f"{own} is missing")
            continue
        tensor = left.pop(given)
        if tensor.shape != like.shape:
            faults.append(f"{given} is {tuple(tensor.shape)}, expected {tuple(like.shape)}")
        elif not bool(tensor.isfinite().all()):
            faults.append(f"{given} holds NaN or infinity")
        made[name] = tensor.float()
    faults += [f"{name} is unknown" for name in left]
    if faults:
        more = f" and {len(faults) - 3} more faults" if len(faults) > 3 else ""
        raise DataError(
            f"{where} does not fit the network that {CONFIG} describes: {'; '.join(faults[:3])}"
            f"{more}. Weights and configuration must be of one bundle."
        )
    return made
