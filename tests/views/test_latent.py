"""Brains as codes of an autoencoder."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tests.views.autoencoder import autoencoder
from tests.views.registration import registration

from gyri.errors import UsageError
from gyri.registry import VIEWS
from gyri.runtime.streams import SampleRng
from gyri.types import ConditionLayout, Grid

AFFINE = ((4.0, 0, 0, 0), (0, 4.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0))
GRID = Grid((9, 14, 12), AFFINE)


def latent(codebook=False, grid=GRID, **settings):
    entry = VIEWS["latent"]
    view = entry.component(entry.config(**settings), 1, grid)
    view.use({"autoencoder": autoencoder(1, grid, codebook)})
    return view


def scans(num=6, grid=GRID):
    noise = torch.randn(num, 1, *grid.shape, generator=torch.Generator().manual_seed(1))
    heads = torch.linspace(-1, 1, num)[:, None, None, None, None] + 0.5 * noise
    heads[:, :, :2] = -1
    return heads.clamp(-1, 1)


@pytest.mark.parametrize("codebook", [False, True])
def test_fitted_codes_have_unit_variance_over_train_in_every_channel(codebook):
    view, x = latent(codebook), scans()
    assert view.encode(x).x.std() < 0.9
    view.fit(x)
    items = view.encode(x).x
    assert items.shape == (6, 4, 3, 4, 3)
    assert torch.allclose(items.mean((0, 2, 3, 4)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(items.std((0, 2, 3, 4)), torch.ones(4), atol=0.02)


@pytest.mark.parametrize("codebook", [False, True])
def test_decode_of_encode_is_the_reconstruction(codebook):
    view, x = latent(codebook), scans()
    view.fit(x)
    method = view.autoencoder
    expected = method.from_latents(method.latents(x))[..., :9, :14, :12]
    assert torch.allclose(view.decode(view.encode(x).x), expected, atol=1e-4)


def test_codes_of_a_resident_volume_are_made_once():
    view = latent()

    class Resident:
        shape = (6, 1, *GRID.shape)

        def __getitem__(self, index):
            return scans()[index]

    volumes, asked, made = Resident(), torch.tensor([2, 4, 2]), []
    plain = view.autoencoder.latents
    view._autoencoder.latents = lambda x: made.append(len(x)) or plain(x)
    rng = SampleRng(torch.arange(3))
    first = view.training_items(volumes, asked, rng).x
    assert torch.equal(view.training_items(volumes, asked, rng).x, first)
    assert torch.equal(view.items_of(volumes, 4).x[0], first[1])
    assert made == [1, 1]
    del view._autoencoder.latents
    assert torch.allclose(first, view.encode(scans()[asked]).x, atol=1e-5)


def test_what_is_lost_is_measured_and_may_stop_the_run():
    view, x = latent(), scans()
    view.fit(x)
    inside = x > -1
    rebuilt = view.decode(view.encode(x).x)
    each = [float(((a - b)[i] ** 2).mean()) / 4 for a, b, i in zip(x, rebuilt, inside)]
    expected = -10 * torch.tensor(each).log10().mean()
    assert view.facts["reconstruction_psnr"] == pytest.approx(float(expected), abs=0.01)
    assert view.facts["reconstruction_ssim"] < 0.5
    for floor in ({"min_psnr": 40.0}, {"min_ssim": 0.9}):
        strict = latent(**floor)
        with pytest.raises(UsageError, match="train it longer, give it more channels"):
            strict.fit(x)


def test_a_perfect_autoencoder_has_no_loss():
    view, x = latent(), scans()
    view.decode = lambda items: x[:1].expand(len(items), -1, -1, -1, -1)
    same = x[:1].expand(6, -1, -1, -1, -1)
    view.fit(same)
    assert view.facts["reconstruction_psnr"] == pytest.approx(100)
    assert view.facts["reconstruction_ssim"] == pytest.approx(1, abs=1e-4)


def test_pieces_of_a_codebooks_code_decode_to_the_whole():
    """Its decoder normalises nothing; with enough overlap no seam is left."""
    grid = Grid((72, 8, 8), AFFINE)
    x = scans(3, grid)
    whole, pieces = latent(True, grid), latent(True, grid, decode_tile=16, tile_overlap=12)
    whole.fit(x)
    pieces.state = whole.state
    items = whole.encode(x).x
    assert torch.allclose(whole.decode(items), pieces.decode(items), atol=1e-4)


def test_pieces_of_a_normalised_decoder_come_near_to_the_whole():
    grid = Grid((72, 16, 16), AFFINE)
    x = scans(3, grid)
    whole, pieces = latent(False, grid), latent(False, grid, decode_tile=12, tile_overlap=6)
    whole.fit(x)
    pieces.state = whole.state
    items = whole.encode(x).x
    a, b = whole.decode(items), pieces.decode(items)
    assert not torch.equal(a, b)
    assert float((a - b).std()) < 0.3 * float(a.std())


def test_what_does_not_fit_is_refused():
    entry = VIEWS["latent"]
    view = entry.component(entry.config(), 1, GRID)
    with pytest.raises(UsageError, match="needs an autoencoder"):
        view.encode(scans(1))
    with pytest.raises(UsageError, match="has no grid of codes"):
        view.use({"autoencoder": SimpleNamespace(method=registration(1, GRID), view=None)})
    with pytest.raises(UsageError, match="Train it with the volume view on this grid"):
        view.use({"autoencoder": autoencoder(1, Grid((8, 8, 8), AFFINE))})
    other = entry.component(entry.config(channels=3), 1, GRID)
    with pytest.raises(UsageError, match="has 4 channels and factor 4; view.channels is 3"):
        other.use({"autoencoder": autoencoder(1, GRID)})
    with pytest.raises(UsageError, match="follow no image"):
        view.item_spec(ConditionLayout(), 3, {"mask": 1})
    with pytest.raises(UsageError, match="longer than what they share"):
        entry.config(decode_tile=4, tile_overlap=4)
    with pytest.raises(UsageError, match="at least 1"):
        entry.config(factor=0)


def test_a_channel_that_says_nothing_is_refused():
    view, x = latent(), scans()
    view.autoencoder.networks["autoencoder"].net.quant_conv_mu.conv.weight.data[1] = 0
    with pytest.raises(UsageError, match=r"Channels \[1\]"):
        view.fit(x)
