"""What all registrations share, on a registration that knows its field."""

from __future__ import annotations

import pytest
import torch
from tests.methods.registration import SHAPE, batch_of, blobs, scans, smooth

from gyri.capabilities import Registrar, capabilities
from gyri.errors import UsageError
from gyri.methods.atlas_registration import (
    AtlasRegistration,
    AtlasRegistrationConfig,
    RefinementConfig,
)
from gyri.nn.deformation import compose, exponential, resize_field, warp
from gyri.nn.local_correlation import local_correlation
from gyri.runtime.streams import SampleRng
from gyri.types import ItemSpec, Progress

FIELD = 2.0 * smooth(5, 3, 2.0, (8, 8, 8))


class Known(AtlasRegistration):
    """Answers every scan with the same field, on a coarser grid."""

    def propose(self, x):
        return FIELD.expand(len(x), *FIELD.shape[1:])


def build(**settings):
    method = Known(AtlasRegistrationConfig(**{"window": 5, **settings}), ItemSpec(1, SHAPE), {})
    method.take_template(blobs()[0])
    return method


def test_what_a_registration_can_do():
    assert isinstance(build(), Registrar)
    assert capabilities(Known) == ["Reconstructor", "Registrar", "Scorer"]


def test_the_template_is_state_and_of_the_scans_shape():
    method = Known(AtlasRegistrationConfig(), ItemSpec(1, SHAPE), {})
    assert method.state["template"].unique().tolist() == [-1.0]
    method.take_template(blobs()[0])
    assert torch.equal(method.template, blobs())
    with pytest.raises(UsageError, match=r"\(1, 16, 16, 15\), the scans have \(1, 16, 16, 16\)"):
        method.take_template(blobs()[0, ..., :15])


@pytest.mark.parametrize("spec", [ItemSpec(1, (16, 16)), ItemSpec(1, SHAPE, items_per_volume=3)])
def test_only_volumes_are_registered(spec):
    with pytest.raises(UsageError, match="Take the view volume"):
        AtlasRegistration.refuse_other_items(spec)
    AtlasRegistration.refuse_other_items(ItemSpec(1, SHAPE))


@pytest.mark.parametrize("form", ["velocity", "displacement"])
def test_nothing_of_the_way_is_the_identity_exactly_and_the_rest_grows(form):
    method = build(form=form)
    assert torch.equal(method.displacement(FIELD, 0.0), torch.zeros(1, 3, *SHAPE))
    lengths = [
        float(method.displacement(FIELD, eta).norm(dim=1).mean()) for eta in (0.25, 0.5, 0.75, 1.0)
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] > 0.1
    assert lengths[1] == pytest.approx(lengths[3] / 2, rel=0.1)


def test_a_velocity_is_integrated_on_its_grid_and_a_displacement_scaled():
    half = resize_field(exponential(0.5 * FIELD), SHAPE)
    torch.testing.assert_close(build().displacement(FIELD, 0.5), half)
    scaled = resize_field(0.5 * FIELD, SHAPE)
    torch.testing.assert_close(build(form="displacement").displacement(FIELD, 0.5), scaled)


def test_a_velocitys_way_back_undoes_its_way():
    method = build()
    forth, back = method.displacement(FIELD), method.displacement(FIELD, -1.0)
    left = compose(forth, back)[:, :, 4:-4, 4:-4, 4:-4].norm(dim=1).mean()
    assert left < 0.1 * forth.norm(dim=1).mean()


def test_the_way_to_scans_is_their_fields():
    method, (x, _) = build(), scans(2)
    expected = method.displacement(FIELD, 0.3).expand(2, -1, -1, -1, -1)
    torch.testing.assert_close(method.trajectory(x, 0.3), expected)


def test_a_scan_is_rebuilt_as_the_deformed_template():
    method, (x, _) = build(), scans(2)
    rebuilt = method.reconstruct(batch_of(x))
    expected = warp(blobs(), method.displacement(FIELD)).expand_as(rebuilt)
    torch.testing.assert_close(rebuilt, expected)


def test_the_loss_is_unlikeness_and_weighted_roughness():
    x, _ = scans(2)
    method = build(smoothness=0.5)
    losses, logs = method.registration_loss(x, method.field(x))
    deformed = method.reconstruct(batch_of(x))
    unlike = 1 - local_correlation(deformed, x, 5)
    # Squared forward differences, their means over the three axes averaged.
    energy = sum(float(FIELD.diff(dim=axis).square().mean()) for axis in (2, 3, 4)) / 3
    torch.testing.assert_close(losses, unlike + 0.5 * energy)
    assert float(logs["smoothness"]) == pytest.approx(energy)
    assert float(logs["local_correlation"]) == pytest.approx(1 - float(unlike.mean()))
    batch = batch_of(x)
    torch.testing.assert_close(method.score(batch, SampleRng(batch.seed)), losses)


def test_a_scan_that_is_the_deformed_template_is_wholly_alike():
    x, u = scans(2)
    torch.testing.assert_close(build().similarity(x, u), torch.ones(2), atol=0.02, rtol=0)
    assert build().similarity(x, torch.zeros_like(u)).max() < 0.9


def test_the_average_of_the_weights():
    progress = Progress(10, 20, 0.1)
    assert build().ema_half_life("registration", progress) is None
    assert build(ema_half_life_images=50.0).ema_half_life("registration", progress) == 50


def test_refinement_descends_from_what_the_network_says_and_only_when_a_scan_is_registered():
    x, _ = scans(2)
    plain, refined = build(), build(refinement=RefinementConfig(steps=15, smoothness=0.1))
    assert torch.equal(plain.field(x), plain.propose(x))
    assert torch.equal(refined.propose(x), plain.propose(x))
    with torch.no_grad():
        found = refined.field(x)
    assert not found.requires_grad
    alike = [m.similarity(x, m.displacement(m.field(x)), 5).mean() for m in (plain, refined)]
    assert alike[1] > alike[0] + 0.01
    assert torch.allclose(refined.field(x[:1]), found[:1], atol=1e-4)
