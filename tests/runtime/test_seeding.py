import torch

from gyri.runtime.seeding import derive_seed, numpy_rng
from gyri.runtime.streams import SampleRng, derive_seeds


def test_seeds_follow_from_their_parts_alone():
    assert derive_seed(1, "a") == derive_seed(1, "a") != derive_seed(1, "b")
    assert derive_seed("1", "2") != derive_seed("12")
    assert 0 <= derive_seed("x") < 2**63
    seeds = derive_seeds(torch.arange(4), 7, "view")
    assert torch.equal(seeds[2:], derive_seeds(torch.tensor([2, 3]), 7, "view"))
    assert numpy_rng(3).normal() == numpy_rng(3).normal()


def test_a_stream_does_not_depend_on_its_neighbours():
    together, alone = SampleRng(torch.tensor([5, 6])), SampleRng(torch.tensor([6]))
    assert torch.equal(together.normal((3,))[1:], alone.normal((3,)))
    assert torch.equal(together.uniform(())[1:], alone.uniform(()))
    assert together.normal((2, 2)).shape == (2, 2, 2)


def test_repeated_streams_are_new_and_stay_with_their_own():
    repeated = SampleRng(torch.tensor([5, 6])).repeat(3).normal((1,)).flatten()
    alone = SampleRng(torch.tensor([6])).repeat(3).normal((1,)).flatten()
    assert torch.equal(repeated[3:], alone)
    assert len(set(repeated.tolist())) == 6
