from __future__ import annotations

import pytest
import torch
from tests.contracts.tiny import recipe
from tests.methods.registration import SHAPE, batch_of, blobs, endpoint_error, fit, scans

from gyri import api
from gyri.errors import UsageError
from gyri.methods.voxelmorph import VoxelMorph, VoxelMorphConfig
from gyri.networks.registration_unet import RegistrationUNet, RegistrationUNetConfig
from gyri.nn.deformation import folded
from gyri.reconstruction import MEAN_IMAGE
from gyri.registry import METHODS
from gyri.runtime.streams import SampleRng
from gyri.training.run import train
from gyri.types import ItemSpec, NetworkSpec, Progress

SMALL = RegistrationUNetConfig(down=(8, 16), up=(16, 16), last=(8,))


def build(**settings):
    torch.manual_seed(0)
    config = VoxelMorphConfig(**{"window": 5, **settings})
    network = RegistrationUNet(SMALL, NetworkSpec(2, 3, SHAPE))
    method = VoxelMorph(config, ItemSpec(1, SHAPE), {"registration": network})
    method.take_template(blobs()[0])
    return method


def test_registration_and_its_network():
    assert METHODS["voxelmorph"].component is VoxelMorph
    specs = VoxelMorph.network_specs(VoxelMorphConfig(), ItemSpec(1, SHAPE))
    assert specs == {"registration": NetworkSpec(2, 3, SHAPE)}
    with pytest.raises(UsageError, match="Take the view volume"):
        VoxelMorph.network_specs(VoxelMorphConfig(), ItemSpec(1, (16, 16)))


@pytest.mark.parametrize("form", ["velocity", "displacement"])
def test_training_starts_at_the_template(form):
    x, _ = scans(2)
    method = build(form=form)
    field = method.field(x)
    assert field.shape == (2, 3, 8, 8, 8)
    torch.testing.assert_close(
        method.reconstruct(batch_of(x)), blobs().expand_as(x), atol=1e-3, rtol=0
    )


def test_the_loss_is_the_mean_of_the_items_scores():
    x, _ = scans(3)
    method, batch = build(smoothness=0.3), batch_of(x)
    loss = method.loss("register", batch, Progress(0, 0, 0.0), SampleRng(batch.seed))
    scores = method.score(batch, SampleRng(batch.seed))
    torch.testing.assert_close(loss.total.detach(), scores.mean())
    torch.testing.assert_close(scores[1:2], method.score(batch[1:2], SampleRng(batch.seed[1:2])))


def test_it_finds_a_known_deformation():
    x, truth = scans(3)
    method = build(smoothness=0.05)
    nothing = torch.zeros_like(truth)
    fit(method, x, steps=80, lr=3e-3)
    with torch.no_grad():
        u = method.trajectory(x, 1.0)
        alike, at_first = method.similarity(x, u).mean(), method.similarity(x, nothing).mean()
    assert alike > at_first + 0.06
    assert endpoint_error(u, truth) < 0.8 * endpoint_error(nothing, truth)
    assert not folded(u).any()
    assert torch.equal(method.trajectory(x, 0.0), nothing)


def test_the_verb_rebuilds_scans_by_the_template(tiny_cohort, tmp_path):
    run = train(recipe("voxelmorph", steps=1), tiny_cohort, tmp_path / "run", quiet=True)
    made = api.reconstruct(run.root, tiny_cohort, tmp_path / "rebuilt", bootstrap=10)
    psnr = {score.arm: score.value for score in made.scores if score.metric == "psnr"}
    # After one step the template, TRAIN's mean, is hardly deformed.
    assert psnr["reconstruction"] == pytest.approx(psnr[MEAN_IMAGE], abs=0.1)
