"""Some slices given others: what is noised, what is learned, how blocks make a volume."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.methods.cdpm import CDPM, CDPMConfig, CDPMSampling
from gyri.networks.unet_slice_set import UNetSliceSet, UNetSliceSetConfig
from gyri.runtime.streams import SampleRng
from gyri.sampling.slice_sets import CHANCES, blocks, drawn_sets
from gyri.types import Batch, ConditionLayout, Grid, ItemSpec, Progress
from gyri.views.volume import VolumeConfig, VolumeView

START = Progress(0, 0, 0.0)
GRID = Grid((5, 4, 9), ((2.0, 0, 0, 0), (0, 2.0, 0, 0), (0, 0, 2.0, 0), (0, 0, 0, 1.0)))
VIEW = VolumeView(VolumeConfig(), 1, GRID)
UNET = UNetSliceSetConfig(
    widths=(4,), attention=(False,), set_attention=(True,), num_res_blocks=1,
    channels_per_head=4, norm_groups=2,
)  # fmt: skip


class Reader(nn.Module):
    """Says the same of every slice, and keeps what it was asked."""

    def __init__(self, answer: float = 0.0) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(answer))
        self.asked: list[Any] = []

    def forward(self, x: Tensor, noise_level, condition, index, valid, position=None) -> Tensor:
        self.asked.append(
            SimpleNamespace(x=x, condition=condition, index=index, valid=valid, position=position)
        )
        return self.answer.expand(*x.shape[:2], 1, *x.shape[3:])


def build(network: nn.Module | None = None, spec: ItemSpec | None = None, **settings: Any) -> CDPM:
    settings = {"prediction": "x0", "window": 4, **settings}
    sampling = settings.pop("sampling", {})
    config = CDPMConfig(sampling=CDPMSampling(**{"num_steps": 3, **sampling}), **settings)
    spec = spec or VIEW.item_spec(ConditionLayout(), 8)
    return CDPM(config, spec, {"denoiser": network or Reader()})


def a_batch(num: int = 6, **context: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(num)
    return Batch(
        x=torch.randn(num, 1, *GRID.shape, generator=generator),
        condition=torch.zeros(num, 0),
        position=None,
        subject=rows,
        seed=rows + 100,
        context={
            name: torch.randn(num, count, *GRID.shape, generator=generator)
            for name, count in context.items()
        },
    )


def loss_of(method: CDPM, batch: Batch) -> Tensor:
    return method.loss("denoise", batch, START, SampleRng(batch.seed)).total


def rebuilt_network(**spec: Any) -> UNetSliceSet:
    method = build()
    own = CDPM.network_specs(method.config, method.spec)["denoiser"]
    torch.manual_seed(0)
    network = UNetSliceSet(UNET, own)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return network


def sets_of(batch: Batch, window: int = 4) -> Any:
    rng = SampleRng(batch.seed)
    rng.uniform()  # the level
    return drawn_sets(rng.uniform((window, CHANCES)), GRID.shape[2], window)


def test_observed_slices_are_clean_and_marked_and_targets_are_noised():
    method, batch = build(), a_batch()
    loss_of(method, batch)
    (asked,) = method.networks["denoiser"].asked
    sets = sets_of(batch)
    assert torch.equal(asked.index, sets.at)
    assert torch.equal(asked.valid, sets.valid)
    rows = torch.arange(6)[:, None]
    own = batch.x.movedim(4, 1)[rows, sets.at]
    observed = sets.valid & ~sets.target
    assert torch.equal(asked.x[observed][:, 0], own[observed][:, 0])
    assert (asked.x[sets.target][:, 0] - own[sets.target][:, 0]).abs().mean() > 0.01
    assert torch.equal(asked.x[:, :, 1, 0, 0].bool(), sets.target)


def test_the_loss_is_that_of_targets_alone():
    batch = a_batch()
    sets = sets_of(batch)
    answer = 0.3
    error = (batch.x.movedim(4, 1)[torch.arange(6)[:, None], sets.at] - answer).square()
    error = error.flatten(2).mean(2)
    expected = ((error * sets.target).sum(1) / sets.target.sum(1)).mean()
    torch.testing.assert_close(loss_of(build(Reader(answer)), batch), expected)


def test_slices_outside_the_set_change_nothing():
    batch = a_batch()
    method = build(rebuilt_network())
    before = loss_of(method, batch)
    sets = sets_of(batch)
    for row in range(6):
        outside = [k for k in range(9) if k not in sets.at[row, sets.valid[row]].tolist()]
        batch.x[row][..., outside] = 100
    assert torch.equal(loss_of(method, batch), before)


def test_training_looks_at_the_window_alone():
    method = build()
    loss_of(method, a_batch())
    assert method.networks["denoiser"].asked[0].x.shape == (6, 4, 2, 5, 4)


@pytest.mark.parametrize("plane", ["sagittal", "coronal", "axial"])
@pytest.mark.parametrize("order", ["hierarchical", "autoregressive"])
def test_observed_slices_come_back_unchanged_and_are_what_the_network_is_told(plane, order):
    network = Reader()

    def answer(x, noise_level, condition, index, valid, position=None):
        Reader.forward(network, x, noise_level, condition, index, valid, position)
        return (index / 10)[:, :, None, None, None].expand(-1, -1, 1, *x.shape[3:]).clone()

    network.forward = answer
    method = build(network, plane=plane, sampling={"order": order, "clip": 0})
    x = method.sample(VIEW, torch.zeros(2, 0), SampleRng(torch.tensor([1, 2])))
    axis = {"sagittal": 2, "coronal": 3, "axial": 4}[plane]
    depth = x.shape[axis]
    place = torch.arange(depth) / 10
    torch.testing.assert_close(x.movedim(axis, -1), place.expand_as(x.movedim(axis, -1)))
    plan = blocks(depth, 4, order, 2)
    assert len(network.asked) == 3 * len(plan)
    for number, block in enumerate(plan):
        asked = network.asked[3 * number]
        assert asked.index[0].tolist() == [*block.targets, *block.observed]
        told = asked.x[0, len(block.targets) :, 0]
        assert torch.allclose(told.mean((1, 2)), place[list(block.observed)])


def test_predictions_are_bounded():
    method = build(Reader(3.0), sampling={"clip": 1.0})
    x = method.sample(VIEW, torch.zeros(1, 0), SampleRng(torch.tensor([1])))
    torch.testing.assert_close(x, torch.ones_like(x))


def test_a_sample_does_not_depend_on_its_batch():
    method = build(rebuilt_network(), sampling={"items_per_call": 4})
    both = method.sample(VIEW, torch.zeros(2, 0), SampleRng(torch.tensor([1, 2])))
    alone = method.sample(VIEW, torch.zeros(1, 0), SampleRng(torch.tensor([2])))
    torch.testing.assert_close(both[1:], alone)
    assert not torch.allclose(both[0], both[1])


def test_editing_takes_a_share_of_the_way():
    method = build(rebuilt_network(), prediction="edm", sampling={"num_steps": 8, "clip": 0})
    volumes = 0.5 * torch.randn(1, 1, *GRID.shape, generator=torch.Generator().manual_seed(1))
    rng = [SampleRng(torch.tensor([1])) for _ in range(3)]
    none = torch.zeros(1, 0)
    assert method.edit(VIEW, volumes, none, 0.0, rng[0]) is volumes
    near = method.edit(VIEW, volumes, none, 0.2, rng[1])
    far = method.edit(VIEW, volumes, none, 1.0, rng[2])
    assert 0 < (near - volumes).abs().mean() < (far - volumes).abs().mean()


def test_images_are_cut_into_the_same_slices():
    spec = VIEW.item_spec(ConditionLayout(), 8, {"mask": 2})
    method, batch = build(spec=spec), a_batch(mask=2)
    loss_of(method, batch)
    (asked,) = method.networks["denoiser"].asked
    rows = torch.arange(6)[:, None]
    assert torch.equal(asked.x[:, :, 2:], batch.context["mask"].movedim(4, 1)[rows, asked.index])
    mask = batch.context["mask"][:2]
    method.sample_given(VIEW, torch.zeros(2, 0), {"mask": mask}, SampleRng(torch.tensor([1, 2])))
    asked = method.networks["denoiser"].asked[-1]
    assert torch.equal(asked.x[:, :, 2:], mask.movedim(4, 1)[rows[:2], asked.index])


def test_guidance_asks_with_and_without_the_condition():
    layout = ConditionLayout(((0, 1),))
    method = build(spec=VIEW.item_spec(layout, 8), sampling={"guidance_scale": 2.0})
    method.sample(VIEW, torch.tensor([[0.7, 0.0]]), SampleRng(torch.tensor([1])))
    asked = method.networks["denoiser"].asked[0]
    assert torch.equal(asked.condition, torch.tensor([[0.7, 0.0], [0.0, 1.0]]))


def test_positions_are_told_unless_left_out():
    method = build()
    loss_of(method, a_batch())
    (asked,) = method.networks["denoiser"].asked
    torch.testing.assert_close(asked.position[..., 0], asked.index / 4 - 1)
    blind = build(absolute_position=False)
    loss_of(blind, a_batch())
    assert blind.networks["denoiser"].asked[0].position is None
    assert CDPM.network_specs(blind.config, blind.spec)["denoiser"].position_size == 0


def test_scores_are_losses_of_single_items():
    method, batch = build(rebuilt_network()), a_batch()
    scores = method.score(batch, SampleRng(batch.seed))
    alone = method.score(batch[2:3], SampleRng(batch.seed[2:3]))
    torch.testing.assert_close(scores[2:3], alone)
    assert scores.shape == (6,)


@pytest.mark.parametrize(
    "settings",
    [
        {"prior": "gaussian"},
        {"residual": "mask"},
        {"penalties": {"folding": 1.0}},
        {"sampling": {"classifier_scale": 1.0}},
        {"sampling": {"shared_noise": 0.5, "sampler": "ddim"}},
    ],
)
def test_what_belongs_to_whole_items_is_refused(settings):
    with pytest.raises(UsageError, match="cdpm sees some slices"):
        build(**settings)


def test_windows_and_views_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"window is 4 and sampling\.kept 4"):
        build(sampling={"kept": 4})
    with pytest.raises(UsageError, match="Take the view volume"):
        CDPM.network_specs(CDPMConfig(), ItemSpec(1, (4, 5)))
    with pytest.raises(UsageError, match="takes no needs"):
        build().use({"classifier": object()})
