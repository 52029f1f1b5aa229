from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gyri.capabilities import capabilities
from gyri.errors import UsageError
from gyri.methods.gaussian_autoencoder import ReconstructionConfig
from gyri.methods.gmvae import GMVAE, GMVAEConfig
from gyri.methods.vae import VAE, VAEConfig
from gyri.runtime.streams import SampleRng
from gyri.types import Batch, ConditionLayout, ItemSpec, Progress

NOW = Progress(0, 0, 0.0)
UNIT = ReconstructionConfig(scale=0.5)
LAYOUT = ConditionLayout(((0, 1), (2, 5)))


class Posterior(nn.Module):
    """Mean ``(x + shift of the class) / 2`` and a fixed variance."""

    def __init__(self, classes, log_variance=-0.5):
        super().__init__()
        self.shift = nn.Parameter(torch.linspace(-1, 1, classes) if classes > 1 else torch.zeros(1))
        self.log_variance = log_variance

    def forward(self, x, condition, position):
        own = condition[:, -len(self.shift) :] @ self.shift if condition.shape[1] else 0.0
        mean = (x.flatten(1) + torch.as_tensor(own).reshape(-1, 1)) / 2
        return torch.cat([mean, torch.full_like(mean, self.log_variance)], dim=1)


class Decoder(nn.Module):
    def __init__(self, slope=1.0):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, z, condition, position):
        return (self.slope * z).reshape(-1, 1, 1, 1)


class Classifier(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.slope = nn.Parameter(torch.linspace(-1, 1, classes))

    def forward(self, x, condition, position):
        return x.flatten(1) * self.slope


class Prior(nn.Module):
    def __init__(self, means, log_variances):
        super().__init__()
        self.table = nn.Parameter(torch.tensor([means, log_variances]))

    def forward(self, of_class):
        return of_class @ self.table.T


def mixture(count, means, log_variances, condition=None, **settings):
    layout = ConditionLayout() if condition is None else LAYOUT
    config = GMVAEConfig(latent_size=1, reconstruction=UNIT, **settings)
    networks = {
        "classifier": Classifier(count),
        "encoder": Posterior(count),
        "decoder": Decoder(),
        "prior": Prior(means, log_variances),
    }
    return GMVAE(config, ItemSpec(1, (1, 1), condition=layout), networks)


def items(count, condition=None, spread=1.5):
    x = spread * torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    condition = torch.zeros(count, 0) if condition is None else condition
    return Batch(x, condition, None, torch.arange(count), torch.arange(count))


def loss_of(method, batch):
    return method.loss("autoencoder", batch, NOW, SampleRng(batch.seed))


def test_one_standard_class_is_the_plain_autoencoder():
    batch = items(50)
    ours = mixture(1, [0.0], [0.0], classes=1)
    plain = VAE(
        VAEConfig(latent_size=1, reconstruction=UNIT),
        ItemSpec(1, (1, 1)),
        {"encoder": Posterior(1), "decoder": Decoder()},
    )
    assert loss_of(ours, batch).total.item() == pytest.approx(loss_of(plain, batch).total.item())


def test_bound_is_below_the_likelihood_of_the_mixture():
    means, log_variances = [-2.0, 0.5, 2.0], [-1.0, 0.0, -0.5]
    batch = items(2000)
    constant = 0.5 * math.log(2 * math.pi)
    bound = -loss_of(mixture(3, means, log_variances, classes=3), batch).total - constant
    x = batch.x.flatten()[:, None]
    variance = torch.tensor(log_variances).exp() + 1
    parts = torch.distributions.Normal(torch.tensor(means), variance.sqrt()).log_prob(x)
    exact = (parts.logsumexp(1) - math.log(3)).mean()
    assert bound < exact


def test_names_of_classes_mean_nothing():
    batch = items(40)
    one = mixture(3, [-2.0, 0.5, 2.0], [-1.0, 0.0, -0.5], classes=3)
    other = mixture(3, [2.0, 0.5, -2.0], [-0.5, 0.0, -1.0], classes=3)
    with torch.no_grad():
        other.networks["encoder"].shift.copy_(one.networks["encoder"].shift.flip(0))
        other.networks["classifier"].slope.copy_(one.networks["classifier"].slope.flip(0))
    assert loss_of(one, batch).total.item() == pytest.approx(loss_of(other, batch).total.item())


def test_the_class_costs_at_least_nothing():
    logs = loss_of(mixture(3, [0.0] * 3, [0.0] * 3, classes=3), items(40)).logs
    assert 0 <= logs["kl_class"] <= math.log(3)


def test_known_classes_take_one_pass_and_the_missing_all():
    label = torch.tensor([[0.2, 0.0, 0.0, 1.0, 0.0, 0.0], [0.2, 0.0, 0.0, 0.0, 0.0, 1.0]])
    method = mixture(3, [-1.0, 0.0, 1.0], [0.0] * 3, condition=True, column=1)
    calls = []
    method.networks["encoder"].register_forward_hook(lambda *given: calls.append(1))
    known = loss_of(method, items(1, label[:1]))
    assert len(calls) == 1
    assert known.logs["kl_class"].item() == pytest.approx(math.log(3))
    assert known.logs["cross_entropy"] > 0
    missing = loss_of(method, items(1, label[1:]))
    assert len(calls) == 4
    assert missing.logs["cross_entropy"] == 0
    both = loss_of(method, items(2, label)).total
    assert torch.isfinite(both)


def test_samples_of_a_class_come_from_its_gaussian():
    class Whole:
        volume_shape, slice_axis = (1, 1, 1, 1), None

        def encode(self, volumes):
            from gyri.types import Items

            return Items(volumes[:, :, 0])

        def decode(self, x):
            return x[:, :, None]

    label = torch.tensor([[0.2, 0.0, 0.0, 0.0, 1.0, 0.0]]).repeat(400, 1)
    method = mixture(3, [-5.0, 0.0, 5.0], [-2.0] * 3, condition=True, column=1)
    x = method.sample(Whole(), label, SampleRng(torch.arange(400))).flatten()
    assert x.mean().item() == pytest.approx(5.0, abs=0.1)
    assert x.std().item() == pytest.approx(math.exp(-1), rel=0.15)
    found = mixture(3, [-5.0, 0.0, 5.0], [-2.0] * 3, classes=3)
    x = found.sample(Whole(), torch.zeros(600, 0), SampleRng(torch.arange(600))).flatten()
    shares = [(x - centre).abs().lt(2).float().mean().item() for centre in (-5.0, 0.0, 5.0)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.06)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "one of classes"),
        ({"classes": 2, "column": 0}, "one of classes"),
        ({"classes": 0}, "at least 1"),
    ],
)
def test_a_mixture_of_nothing_is_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        GMVAEConfig(**settings)


@pytest.mark.parametrize(("column", "words"), [(0, "a number"), (4, "has 2 conditions")])
def test_a_column_that_is_no_class_is_refused(column, words):
    with pytest.raises(UsageError, match=words):
        GMVAE.network_specs(GMVAEConfig(column=column), ItemSpec(1, (4, 4), condition=LAYOUT))


def test_what_it_can_do_is_what_it_says():
    assert capabilities(GMVAE) == ["Sampler", "Reconstructor", "Autoencoder", "Scorer"]
