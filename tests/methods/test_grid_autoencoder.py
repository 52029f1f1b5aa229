"""What autoencoders to a grid of codes share, and the two there are."""

from __future__ import annotations

import pytest
import torch

from gyri.errors import UsageError
from gyri.methods.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from gyri.methods.grid_autoencoder import cropped, padded
from gyri.methods.vqgan import VQGAN, VQGANConfig
from gyri.registry import NETWORKS
from gyri.runtime.streams import SampleRng
from gyri.types import Batch, ConditionLayout, ItemSpec, Progress

SPEC = ItemSpec(1, (10, 13), num_train=4)
KL_NETWORK = {"channels": (8, 8), "norm_groups": 4, "num_res_blocks": 1, "latent_channels": 2}
VQ_NETWORK = {"channels": (8,), "num_res_layers": 1, "num_codes": 8, "code_size": 2, "decay": 0.5}


def built(kind, config, spec=SPEC):
    torch.manual_seed(0)
    settings = {
        "autoencoder": KL_NETWORK if kind is AutoencoderKL else VQ_NETWORK,
        "discriminator": {"widths": (4, 8)},
    }
    networks = {}
    names = kind.default_networks(config)
    for slot, own in kind.network_specs(config, spec).items():
        entry = NETWORKS[names[slot]]
        networks[slot] = entry.component(entry.config(**settings[slot]), own)
    return kind(config, spec, networks)


def kl(spec=SPEC, **settings):
    return built(AutoencoderKL, AutoencoderKLConfig(**settings), spec)


def vq(spec=SPEC, **settings):
    return built(VQGAN, VQGANConfig(**settings), spec)


def batch(size=4, shape=(10, 13)):
    generator = torch.Generator().manual_seed(1)
    return Batch(
        x=torch.rand(size, 1, *shape, generator=generator) * 2 - 1,
        condition=torch.zeros(size, 0),
        position=None,
        subject=torch.arange(size),
        seed=torch.arange(size),
    )


def rng(items):
    return SampleRng(items.seed)


def test_borders_are_repeated_and_cut_again():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    wide = padded(x, 4)
    assert wide.shape == (1, 1, 4, 4)
    assert torch.equal(wide[0, 0, :, 3], torch.tensor([2.0, 5.0, 5.0, 5.0]))
    assert torch.equal(cropped(wide, (2, 3)), x)


@pytest.mark.parametrize("make", [kl, vq])
def test_codes_have_their_grid_and_no_noise(make):
    method, items = make(), batch()
    z = method.latents(items.x)
    assert z.shape == (4, 2, 5, 7)
    assert (method.factor, method.latent_channels) == (2, 2)
    assert torch.equal(z, method.latents(items.x))
    assert method.from_latents(z).shape == (4, 1, 10, 14)
    assert torch.equal(method.reconstruct(items), method.from_latents(z)[..., :13])
    assert method.score(items, rng(items)).shape == (4,)


@pytest.mark.parametrize("make", [kl, vq])
def test_networks_see_the_published_range_where_asked(make):
    """With codes swallowed, a decoder that writes 0 makes -1 of the unit range and 0 of ours."""
    plain, unit = make(), make(unit_range=True)
    z = torch.zeros(1, 2, 5, 7)
    assert torch.allclose(unit.from_latents(z), 2 * plain.from_latents(z) - 1, atol=1e-5)
    x = batch().x
    assert torch.allclose(unit.latents(x), plain.latents((x + 1) / 2), atol=1e-5)


def test_the_divergence_is_summed_over_a_code_and_averaged_over_items():
    method, items = kl(kl=1e-3, reconstruction_weight=0.0), batch()
    mean, std = method.networks["autoencoder"].net.encode(padded(items.x, 2))
    each = (mean**2 + std**2 - 2 * std.log() - 1).flatten(1).sum(1) / 2
    loss = method.loss("autoencoder", items, Progress(0, 0, 0.0), rng(items))
    assert torch.allclose(loss.total, 1e-3 * each.mean(), rtol=1e-4)
    assert torch.allclose(loss.logs["kl"], each.mean(), rtol=1e-4)


def test_noise_of_an_item_is_from_its_own_stream():
    method, items = kl(), batch()
    start = Progress(0, 0, 0.0)
    whole = method.loss("autoencoder", items, start, rng(items)).total
    torch.manual_seed(5)
    halves = [
        method.loss("autoencoder", half, start, rng(half)).total
        for half in (items[slice(0, 2)], items[slice(2, 4)])
    ]
    assert torch.allclose(whole, sum(halves) / 2, atol=1e-6)


@pytest.mark.parametrize("make", [kl, vq])
def test_the_adversary_waits_for_its_time(make):
    method, items = make(adversarial=0.5, adversarial_start=0.4), batch()
    before, after = Progress(1, 4, 0.39), Progress(1, 4, 0.41)
    early = method.loss("discriminator", items, before, rng(items))
    early.total.backward()
    weights = method.networks["discriminator"].parameters()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in weights)
    assert "adversarial" not in method.loss("autoencoder", items, before, rng(items)).logs
    late = method.loss("autoencoder", items, after, rng(items))
    plain = method.loss("autoencoder", items, before, rng(items)).total
    assert torch.allclose(late.total, plain + 0.5 * late.logs["adversarial"], atol=1e-6)
    assert method.loss("discriminator", items, after, rng(items)).total > 0


def test_least_squares_of_a_discriminator_that_knows():
    method, items = kl(adversarial=1.0, adversarial_start=0.0), batch()
    method._realness = lambda x: torch.ones(len(x), 1, 2, 2) * float(x.equal(items.x))
    progress = Progress(1, 4, 0.5)
    assert method.loss("discriminator", items, progress, rng(items)).total == 0
    logs = method.loss("autoencoder", items, progress, rng(items)).logs
    assert float(logs["adversarial"]) == 1


def test_boxes_are_cut_from_anywhere_and_lie_in_the_item():
    method = kl(patch=(4, 20))
    x = torch.arange(130.0).reshape(1, 1, 10, 13).expand(200, -1, -1, -1)
    boxes = method._cut(x, SampleRng(torch.arange(200)))
    assert boxes.shape == (200, 1, 4, 13)
    firsts = boxes[:, 0, 0, 0] // 13
    assert set(firsts.tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0}
    first = int(firsts[0])
    assert torch.equal(boxes[0], x[0, :, first : first + 4])


def test_conditions_and_wrong_boxes_are_refused():
    conditioned = ItemSpec(1, (8, 8), condition=ConditionLayout(((0, 1),)))
    with pytest.raises(UsageError, match="follows no conditions"):
        kl(conditioned)
    with pytest.raises(UsageError, match="patch has 3 axes and items have 2"):
        kl(patch=(4, 4, 4))
    with pytest.raises(UsageError, match="share from 0 to 1"):
        AutoencoderKLConfig(adversarial_start=1.5)
    with pytest.raises(UsageError, match="kl is -1"):
        AutoencoderKLConfig(kl=-1.0)
    with pytest.raises(UsageError, match="part of an even share"):
        VQGANConfig(restart=1.0)


def test_codes_move_in_after_step_alone_and_only_of_the_autoencoder():
    method, items = vq(), batch()
    method.calibrate(items.x)
    quantiser = method.networks["autoencoder"].quantiser
    before = quantiser.codes.clone()
    loss = method.loss("autoencoder", items, Progress(0, 0, 0.0), rng(items))
    method.after_step("discriminator", loss.statistics)
    assert torch.equal(quantiser.codes, before)
    method.after_step("autoencoder", loss.statistics)
    assert not torch.equal(quantiser.codes, before)


@torch.no_grad()
def test_codes_start_at_features_of_train():
    method, items = vq(), batch()
    method.calibrate(items.x)
    features = method.latents(items.x).flatten(2).transpose(1, 2).flatten(0, 1)
    apart = method.networks["autoencoder"].quantiser.codes[:, None] - features
    assert float(apart.norm(dim=2).amin(1).max()) < 1e-5


def test_what_is_decoded_is_on_the_codebook():
    method, items = vq(), batch()
    method.calibrate(items.x)
    z = method.latents(items.x)
    quantised = method.networks["autoencoder"].quantiser(z).features
    assert not torch.allclose(z, quantised, atol=1e-3)
    assert torch.allclose(method.from_latents(z), method.from_latents(quantised), atol=1e-5)


@torch.no_grad()
def test_a_code_that_no_one_takes_starts_again_at_a_feature():
    method, items = vq(restart=0.5), batch(8)
    method.calibrate(items.x)
    quantiser = method.networks["autoencoder"].quantiser
    far = torch.tensor([100.0, 100.0])
    quantiser.total[0] = far * quantiser.share[0]
    for step in range(4):
        items.seed = torch.arange(8) + 8 * step
        loss = method.loss("autoencoder", items, Progress(0, 0, 0.0), rng(items))
        method.after_step("autoencoder", loss.statistics)
    features = method.latents(items.x).flatten(2).transpose(1, 2).flatten(0, 1)
    assert float(torch.cdist(quantiser.codes, features).amin(1).max()) < 5
