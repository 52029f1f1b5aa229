"""MONAI's VQVAE with gyri's codebook."""

from __future__ import annotations

import pytest
import torch

from gyri.errors import UsageError
from gyri.networks.monai_vqvae import MonaiVQVAE, MonaiVQVAEConfig
from gyri.nn.tiles import in_tiles
from gyri.types import NetworkSpec


def network(shape=(8, 12, 8), **settings):
    torch.manual_seed(0)
    config = MonaiVQVAEConfig(
        **{"channels": (8, 8), "num_res_layers": 1, "num_codes": 16, "code_size": 4, **settings}
    )
    return MonaiVQVAE(config, NetworkSpec(1, 1, shape))


def test_shapes_and_an_item_of_its_own():
    own, x = network(), torch.randn(2, 1, 8, 12, 8)
    z = own.encode(x)
    assert own.factor == 4
    assert z.shape == (2, 4, 2, 3, 2)
    assert own.decode(z).shape == x.shape
    assert torch.allclose(own.encode(x[1:]), z[1:], atol=1e-5)


def test_passing_data_moves_no_code():
    own = network().train()
    before = own.quantiser.codes.clone()
    own.quantiser(own.encode(torch.randn(2, 1, 8, 12, 8)))
    assert torch.equal(own.quantiser.codes, before)


def test_a_code_decoded_in_pieces_is_the_code_decoded_at_once():
    own = network(channels=(8,))
    z = torch.randn(1, 4, 22, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = own.decode(own.quantiser(z).features)
        pieces = in_tiles(lambda part: own.decode(own.quantiser(part).features), z, 18, 16, 2)
    assert torch.allclose(pieces, whole, atol=1e-5)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="two codes"):
        MonaiVQVAEConfig(num_codes=1)
