import torch

from gyri.networks.dense import DenseDecoder, DenseDecoderConfig
from gyri.types import NetworkSpec

SPEC = NetworkSpec(0, 1, (6, 5), condition_size=2, position_size=0, latent_size=3)


def untrained(output: str) -> torch.Tensor:
    torch.manual_seed(0)
    decoder = DenseDecoder(DenseDecoderConfig(hidden=(16,), output=output), SPEC)
    return decoder(torch.randn(8, 3), torch.zeros(8, 2))


def test_a_bounded_decoder_starts_from_speckle_within_its_range():
    image = untrained("tanh")
    assert image.shape == (8, 1, 6, 5)
    assert image.abs().max() < 1
    assert image.std(dim=0).min() > 0


def test_a_linear_decoder_starts_from_an_empty_image_whatever_the_code():
    assert torch.equal(untrained("linear"), torch.full((8, 1, 6, 5), -1.0))
