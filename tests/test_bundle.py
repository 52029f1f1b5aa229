"""A published bundle as a run; a tiny one of the same layout with random weights."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil

import pytest
import torch
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler

from gyri import api
from gyri.bundle import OLD_NAMES, read_bundle, renamed
from gyri.cli import main
from gyri.errors import DataError, UsageError
from gyri.runtime.streams import SampleRng
from gyri.synthesis import draw
from gyri.training.run import Run

AUTOENCODER = {
    "spatial_dims": 3, "in_channels": 1, "out_channels": 1, "latent_channels": 3,
    "channels": [4, 8, 8], "num_res_blocks": 2, "norm_num_groups": 4, "norm_eps": 1e-06,
    "attention_levels": [False, False, False], "with_encoder_nonlocal_attn": False,
    "with_decoder_nonlocal_attn": False,
}  # fmt: skip
DENOISER = {
    "spatial_dims": 3, "in_channels": 7, "out_channels": 3, "channels": [8, 16],
    "num_res_blocks": 1, "attention_levels": [False, True], "norm_num_groups": 4,
    "norm_eps": 1e-06, "resblock_updown": True, "num_head_channels": [0, 16],
    "with_conditioning": True, "transformer_num_layers": 1, "cross_attention_dim": 4,
    "upcast_attention": True, "use_flash_attention": False,
}  # fmt: skip
SCHEDULE = {
    "beta_start": 0.0015, "beta_end": 0.0205, "num_train_timesteps": 1000,
    "schedule": "scaled_linear_beta", "clip_sample": False,
}  # fmt: skip
CONFIG = {
    "imports": ["$import os; os.abort()"],
    "gender": 0.0,
    "conditioning": "$torch.tensor([[@gender, @age, @ventricular_vol, @brain_vol]]).to(@device)",
    "autoencoder_def": {"_target_": "monai.networks.nets.AutoencoderKL", **AUTOENCODER},
    "diffusion_def": {"_target_": "monai.networks.nets.DiffusionModelUNet", **DENOISER},
    "scheduler": {
        "_target_": "monai.networks.schedulers.DDIMScheduler",
        "_requires_": ["@load_diffusion"],
        **SCHEDULE,
    },
    "set_timesteps": "$@scheduler.set_timesteps(num_inference_steps=50)",
}
SHAPE = [16, 24, 16]
METADATA = {
    "version": "1.0.0",
    "network_data_format": {"outputs": {"pred": {"spatial_shape": SHAPE}}},
}
GIVEN = {"gender": "1", "age": "0.3", "ventricular_vol": "0.6", "brain_vol": "0.4"}


def old_names(tensors):
    """Name weights as the package did in which the published ones were trained."""
    old = {}
    for name, tensor in tensors.items():
        if "transformer_blocks" in name:
            name = name.replace(".out_proj.", ".to_out.0.")
        for new, before in OLD_NAMES:
            name = name.replace(new, before) if new != ".out_proj." else name
        old[name] = tensor
    return old


def networks():
    torch.manual_seed(0)
    autoencoder, denoiser = AutoencoderKL(**AUTOENCODER), DiffusionModelUNet(**DENOISER)
    torch.nn.init.normal_(denoiser.out[2].conv.weight, std=0.1)
    return autoencoder.eval(), denoiser.eval()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "tiny_ldm"
    for inner in ("configs", "models"):
        (folder / inner).mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(CONFIG))
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    autoencoder, denoiser = networks()
    torch.save(old_names(autoencoder.state_dict()), folder / "models" / "autoencoder.pt")
    torch.save({"state_dict": old_names(denoiser.state_dict())}, folder / "models" / "model.pt")
    listed = [
        {
            "path": f"models/{name}.pt",
            "hash_type": "md5",
            "hash_val": hashlib.md5((folder / "models" / f"{name}.pt").read_bytes()).hexdigest(),
        }
        for name in ("autoencoder", "model")
    ]
    (folder / "large_files.yml").write_text(json.dumps({"large_files": listed}))
    return folder


@pytest.fixture(scope="module")
def run(bundle, tmp_path_factory):
    root, said = tmp_path_factory.mktemp("runs") / "run", io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["bundle", str(bundle), "--out", str(root)]) == 0
    assert "--condition gender=0.5 age=0.5" in said.getvalue()
    return Run.read(root)


@torch.no_grad()
def test_samples_are_those_of_the_bundles_own_networks_and_scheduler(run):
    autoencoder, denoiser = networks()
    model = run.load(torch.device("cpu"))
    made = draw(model, [model.schema.assign(GIVEN)], torch.tensor([7]))
    scheduler = DDIMScheduler(**SCHEDULE)
    # What MONAI 1.6 spaces evenly from 999 to 0 it then steps through by 20.
    scheduler.set_timesteps(50)
    scheduler.timesteps = torch.arange(980, -1, -20)
    condition = torch.tensor([[float(value) for value in GIVEN.values()]])
    maps = condition[..., None, None, None].expand(-1, -1, 4, 6, 4)
    z = SampleRng(torch.tensor([7])).normal((3, 4, 6, 4))
    for t in scheduler.timesteps:
        eps = denoiser(torch.cat([z, maps], 1), t[None], context=condition[:, None])
        z, _ = scheduler.step(eps, int(t), z)
    expected = 2 * autoencoder.decode(z) - 1
    assert made.shape == (1, 1, *SHAPE)
    assert float((made - expected).abs().max()) < 2e-3 * float(expected.std())


def test_a_run_of_a_bundle_samples_like_any_other(run, tmp_path):
    made, warnings = api.sample(run.root, tmp_path / "out", num=2, condition=GIVEN)
    assert made.volume_set().volumes.shape == (2, 1, *SHAPE)
    assert not warnings
    _, warnings = api.sample(run.root, tmp_path / "far", num=1, condition={**GIVEN, "age": "70"})
    assert "range seen in training, 0 to 1" in warnings[0]
    with pytest.raises(UsageError, match="Give all of them"):
        api.sample(run.root, tmp_path / "some", num=1, condition={"age": "0.3"})
    with pytest.raises(DataError, match="no longer at"):
        api.sample(run.root, tmp_path / "like", num=1)


def test_a_run_of_a_bundle_may_be_moved(run, tmp_path):
    shutil.copytree(run.root, tmp_path / "moved")
    model = Run.read(tmp_path / "moved").load(torch.device("cpu"))
    assert model.needs["autoencoder"].method.factor == 4


def test_old_names_are_those_that_the_library_knows():
    _, denoiser = networks()
    tensors = denoiser.state_dict()
    fresh = DiffusionModelUNet(**DENOISER)
    fresh.load_old_state_dict(old_names(tensors))
    assert all(torch.equal(tensors[name], new) for name, new in fresh.state_dict().items())
    ours = renamed(old_names(tensors), {f"net.{name}": t for name, t in tensors.items()}, "x")
    assert all(torch.equal(ours[f"net.{name}"], tensors[name]) for name in tensors)


def altered(bundle, tmp_path, path=None, change=None):
    """Return a copy of the bundle, the JSON file `path` changed."""
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    if path:
        content = json.loads((copy / path).read_text())
        change(content)
        (copy / path).write_text(json.dumps(content))
    return copy


def test_weights_of_another_shape_are_refused(bundle, tmp_path):
    copy = altered(bundle, tmp_path)
    (copy / "large_files.yml").unlink()
    weights = torch.load(copy / "models" / "autoencoder.pt", weights_only=True)
    first = next(iter(weights))
    weights[first] = weights[first][:2]
    weights["another"] = torch.zeros(1)
    torch.save(weights, copy / "models" / "autoencoder.pt")
    with pytest.raises(DataError, match=rf"{first} is \(2, .*another is unknown"):
        api.import_bundle(copy, tmp_path / "run")


def test_a_damaged_file_and_a_missing_one_are_refused(bundle, tmp_path):
    copy = altered(bundle, tmp_path)
    with (copy / "models" / "model.pt").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="the bundle says"):
        api.import_bundle(copy, tmp_path / "run")
    (copy / "models" / "model.pt").unlink()
    with pytest.raises(DataError, match="comes without its weights"):
        api.import_bundle(copy, tmp_path / "run")


def test_pickled_code_is_not_run(bundle, tmp_path):
    copy = altered(bundle, tmp_path)
    (copy / "large_files.yml").unlink()
    torch.save({"a": torch.nn.Linear(1, 1)}, copy / "models" / "autoencoder.pt")
    with pytest.raises(DataError, match="cannot be read as plain tensors"):
        api.import_bundle(copy, tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "name", "value", "said"),
    [
        ("autoencoder_def", "norm_eps", 1e-5, "norm_eps is 1e-05; only 1e-06"),
        ("autoencoder_def", "channels", "$[4, 8]", "would have to be evaluated"),
        ("autoencoder_def", "novel", 1, "not known here: novel"),
        ("diffusion_def", "_target_", "os.system", "is no DiffusionModelUNet"),
        ("diffusion_def", "in_channels", 5, "with 3 channels of a code and 4 conditions"),
        ("scheduler", "prediction_type", "v_prediction", "only 'epsilon'"),
        ("scheduler", "beta_end", 0.02, "only 0.0205"),
    ],
)
def test_another_bundle_is_refused(bundle, tmp_path, key, name, value, said):
    def change(content):
        content[key][name] = value

    copy = altered(bundle, tmp_path, "configs/inference.json", change)
    with pytest.raises(DataError, match=said):
        read_bundle(copy)


def test_mistakes_have_exit_codes(bundle, run, tmp_path, capsys):
    assert main(["bundle", str(bundle), "--out", str(run.root)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main(["bundle", str(tmp_path), "--out", str(tmp_path / "other")]) == 65
