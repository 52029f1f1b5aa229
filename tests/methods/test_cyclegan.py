"""CycleGAN: closed forms of its terms, the pool, levels of unequal share, and what reaches whom."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gyri.capabilities import capabilities
from gyri.errors import UsageError
from gyri.methods.cyclegan import CycleGAN, CycleGANConfig
from gyri.registry import METHODS
from gyri.runtime.streams import SampleRng
from gyri.types import Batch, ConditionLayout, ItemSpec, Progress

START = Progress(0, 0, 0.0)
LAYOUT = ConditionLayout(((0, 1), (2, 5)))
"""A number, and a column of three levels."""
SHAPE = (4, 5)


class Shift(nn.Module):
    """``G(x) = x + b``."""

    def __init__(self, b: float) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.tensor(b))

    def forward(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        return x + self.b


class Constant(nn.Module):
    """The same number for every patch."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return self.value + 0 * x


class Mean(nn.Module):
    """The mean of an item, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x.flatten(1).mean(1)[:, None, None, None]


def build(
    forth: float = 0.0, back: float = 0.0, judge: type[nn.Module] | None = None, **settings: Any
) -> CycleGAN:
    networks = {
        "forward": Shift(forth),
        "backward": Shift(back),
        "discriminator_source": judge() if judge else Constant(0.3),
        "discriminator_target": judge() if judge else Constant(0.6),
    }
    config = CycleGANConfig(**{"column": 1, "pool_size": 0, **settings})
    return CycleGAN(config, ItemSpec(1, SHAPE, condition=LAYOUT), networks)


def batch_of(levels: str, first_seed: int = 7) -> Batch:
    """Items whose level of the second column is 0, 1, 2, or - where it is missing."""
    condition = torch.zeros(len(levels), LAYOUT.size)
    for row, level in enumerate(levels):
        condition[row, 5 if level == "-" else 2 + int(level)] = 1.0
    generator = torch.Generator().manual_seed(first_seed)
    seed = torch.arange(len(levels)) + first_seed
    x = torch.randn(len(levels), 1, *SHAPE, generator=generator)
    return Batch(x, condition, None, torch.arange(len(levels)), seed)


def loss_of(method: CycleGAN, phase: str, batch: Batch) -> Any:
    return method.loss(phase, batch, START, SampleRng(batch.seed))


def test_registration() -> None:
    assert METHODS["cyclegan"].component is CycleGAN
    assert capabilities(CycleGAN) == ["Translator"]
    assert build().translations() == (1, ((0, 1), (1, 0)))


def test_identity_networks_have_no_cycle_and_no_identity_term() -> None:
    method = build()
    logs = loss_of(method, "generators", batch_of("010110")).logs
    assert float(logs["cycle"]) == float(logs["identity"]) == 0.0
    assert float(logs["adversarial"]) > 0


def test_terms_of_shifts_and_constant_discriminators() -> None:
    # One of each level, seen shares of a half: a weight of 2 for both, a mean over two.
    method = build(forth=0.1, back=-0.3, cycle=7.0, identity=0.5)
    logs = loss_of(method, "generators", batch_of("01")).logs
    assert float(logs["adversarial"]) == pytest.approx((0.6 - 1) ** 2 + (0.3 - 1) ** 2)
    assert float(logs["cycle"]) == pytest.approx(7 * (0.2 + 0.2))
    # Identity crosses: the way to the source is given the source, and the other way round.
    assert float(logs["identity"]) == pytest.approx(3.5 * (0.3 + 0.1))
    found = loss_of(method, "discriminators", batch_of("01"))
    assert float(found.logs["real"]) == pytest.approx(((0.3 - 1) ** 2 + (0.6 - 1) ** 2) / 2)
    assert float(found.logs["fake"]) == pytest.approx((0.6**2 + 0.3**2) / 2)
    assert found.total.item() == pytest.approx(sum(float(v) for v in found.logs.values()))


def test_each_item_is_led_to_the_other_level() -> None:
    method = build(forth=1.0, back=-2.0, judge=Mean)
    x = batch_of("0")
    adversarial = loss_of(method, "generators", x).logs["adversarial"]
    expected = 2 * (x.x.mean() + 1.0 - 1) ** 2
    assert float(adversarial) == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(method.translate(x, 0, 1), x.x + 1)
    assert torch.equal(method.translate(x, 1, 0), x.x - 2)
    other = build(forth=1.0, back=-2.0, source=2, target=0)
    assert torch.equal(other.translate(x, 2, 0), x.x + 1)


def test_items_of_neither_level_count_nothing_but_in_the_mean() -> None:
    method = build(forth=0.1)
    for phase in ("generators", "discriminators"):
        pair = loss_of(method, phase, batch_of("01")).total.item()
        four = batch_of("01")
        none = batch_of("2-")
        joined = Batch(
            torch.cat([four.x, none.x]),
            torch.cat([four.condition, none.condition]),
            None,
            torch.arange(4),
            torch.arange(4),
        )
        assert loss_of(method, phase, joined).total.item() == pytest.approx(pair / 2, rel=1e-5)
        empty = loss_of(method, phase, none)
        assert empty.total.item() == 0
        empty.total.backward()  # micro-batches without a level are no error


def test_levels_of_unequal_share_weigh_the_same() -> None:
    method = build(forth=0.1, back=0.2)
    batch = batch_of("000000002-1-")
    for _ in range(400):
        method.after_step("generators", loss_of(method, "generators", batch).statistics)
    seen = method.state["seen"].double()
    assert float(seen[0] / seen[1]) == pytest.approx(12 / 8, rel=0.01)
    assert float(seen[0] / seen[2]) == pytest.approx(12, rel=0.02)
    identity = loss_of(method, "generators", batch).logs["identity"]
    assert float(identity) == pytest.approx(5 * (0.2 + 0.1), rel=0.02)


def test_no_gradient_of_a_discriminator_reaches_a_generator() -> None:
    method = build(forth=0.1, judge=Mean, pool_size=2)
    parameters = {name: [*n.parameters()] for name, n in method.networks.items()}
    made = parameters["forward"] + parameters["backward"]
    judges = parameters["discriminator_source"] + parameters["discriminator_target"]
    total = loss_of(method, "discriminators", batch_of("0101")).total
    assert torch.autograd.grad(total, made, allow_unused=True, retain_graph=True) == (None, None)
    assert all(float(g.abs()) > 0 for g in torch.autograd.grad(total, judges))
    total = loss_of(method, "generators", batch_of("0101")).total
    assert all(float(g.abs()) > 0 for g in torch.autograd.grad(total, made))


def test_a_loss_is_the_mean_of_micro_batches_and_statistics_are_their_sums() -> None:
    method = build(forth=0.1, judge=Mean, pool_size=3)
    for step in range(8):
        batch = batch_of("01-012", first_seed=10 * step)
        whole = loss_of(method, "discriminators", batch)
        parts = [loss_of(method, "discriminators", batch[slice(k, k + 3)]) for k in (0, 3)]
        assert whole.total.item() == pytest.approx(sum(p.total.item() for p in parts) / 2, rel=1e-5)
        assert whole.statistics.keys() == parts[0].statistics.keys()
        for name, value in whole.statistics.items():
            torch.testing.assert_close(sum(p.statistics[name] for p in parts), value)
        method.after_step("discriminators", whole.statistics)


def test_the_pool_returns_inputs_until_it_is_full_and_then_half_of_its_own() -> None:
    method = build(pool_size=5)
    filled = 0
    made = []
    for step in range(600):
        full = bool(method.state["filled_target"].all())
        fake = torch.full((1, 1, *SHAPE), float(step + 1))
        before = method.state["pool_target"].clone()
        shown, statistics = method.pooled(1, fake, SampleRng(torch.tensor([step])).uniform((2,)))
        method.after_step("discriminators", {"seen": torch.tensor([1, 1, 0]), **statistics})
        if not full:
            assert torch.equal(shown, fake)
            filled += 1
        elif not torch.equal(shown, fake):
            place = int((before[:, 0, 0, 0] == shown[0, 0, 0, 0]).nonzero())
            assert torch.equal(method.state["pool_target"][place], fake[0])
        made.append(torch.equal(shown, fake))
    assert 5 <= filled < 60
    exchanged = 1 - sum(made[filled:]) / len(made[filled:])
    assert exchanged == pytest.approx(0.5, abs=0.07)
    assert not method.state["filled_source"].any()


def test_a_place_that_two_items_ask_for_keeps_what_it_had() -> None:
    method = build(pool_size=4)
    fakes = torch.arange(1.0, 4.0).reshape(3, 1, 1, 1).expand(3, 1, *SHAPE)
    draws = torch.tensor([[0.3, 0.9], [0.3, 0.9], [0.8, 0.9]])
    _, statistics = method.pooled(0, fakes, draws)
    method.after_step("discriminators", {"seen": torch.zeros(3, dtype=torch.int64), **statistics})
    assert method.state["filled_source"].tolist() == [False, False, False, True]
    assert torch.equal(method.state["pool_source"][3], fakes[2])


def test_the_learning_rate_is_constant_and_then_falls_to_0() -> None:
    method = build()
    for fraction, share in ((0.0, 1.0), (0.5, 1.0), (0.75, 0.5), (1.0, 0.0)):
        found = method.hyperparameters("generators", Progress(1, 1, fraction))
        assert found["lr"] == pytest.approx(2e-4 * share)
    assert method.optimisers["generators"].betas == (0.5, 0.999)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"column": 2}, "has 2 columns"),
        ({"column": 0}, "no categorical column"),
        ({"target": 0}, "two different levels"),
        ({"target": 3}, "from 0 to 2"),
    ],
)
def test_what_cannot_be_translated_is_refused(settings: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build(**settings)
