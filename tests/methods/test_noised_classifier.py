from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.methods.ddpm import DDPM, DDPMConfig
from gyri.methods.noised_classifier import NoisedClassifier, NoisedClassifierConfig
from gyri.runtime.streams import SampleRng
from gyri.sampling.draw import SamplingConfig
from gyri.sampling.schedules import Level
from gyri.types import Batch, ConditionLayout, Items, ItemSpec, Progress

LAYOUT = ConditionLayout(((0, 1), (2, 4)))
SPEC = ItemSpec(1, (4, 4, 4), condition=LAYOUT)
CONFIG = NoisedClassifierConfig(column=1)
START = Progress(0, 0, 0.0)
SEPARATION, STD = 0.4, 0.5


class Exact(nn.Module):
    """Logits of two classes N(-+SEPARATION, STD^2) at any noise, times one weight to be learnt."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(
        self, x: Tensor, noise_level: Tensor, condition: Tensor, position: Tensor | None
    ) -> Tensor:
        assert condition.shape == (len(x), 0)
        ratio = (4 * noise_level).exp()
        alpha, sigma = 1 / (1 + ratio**2).sqrt(), ratio / (1 + ratio**2).sqrt()
        slope = alpha * SEPARATION / (alpha**2 * STD**2 + sigma**2)
        logit = self.weight * slope * x.flatten(1).sum(1)
        return torch.stack([-logit, logit], 1)


def classifier(weight: float = 1.0) -> NoisedClassifier:
    return NoisedClassifier(CONFIG, SPEC, {"classifier": Exact(weight)})


def a_batch(size: int = 200) -> Batch:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(size) % 2
    condition = torch.zeros(size, LAYOUT.size)
    condition[torch.arange(size), 2 + label] = 1.0
    x = STD * torch.randn(size, 1, 4, 4, 4, generator=generator)
    x += SEPARATION * (2 * label - 1)[:, None, None, None, None]
    return Batch(x, condition, None, torch.arange(size), torch.arange(size))


def total(method: NoisedClassifier, batch: Batch) -> Tensor:
    return method.loss("classify", batch, START, SampleRng(batch.seed)).total


def test_the_exact_classifier_is_the_minimum_of_the_loss() -> None:
    method = classifier()
    exact = total(method, a_batch()).item()
    assert exact < total(classifier(0.5), a_batch()).item()
    assert exact < total(classifier(2.0), a_batch()).item()
    assert total(classifier(0.0), a_batch()).item() == pytest.approx(0.6931, abs=1e-4)


def test_missing_targets_count_nothing() -> None:
    batch = a_batch(10)
    batch.condition[:5] = LAYOUT.null(batch.condition[:5])
    method = classifier()
    known = total(method, batch[slice(5, 10)]).item()
    assert total(method, batch).item() == pytest.approx(known / 2, rel=1e-5)


def test_log_prob_is_the_same_for_every_process() -> None:
    method, x = classifier(), a_batch(6).x
    target = torch.tensor([0, 1, 0, 1, 0, 1])
    one = method.log_prob(x, Level(0.6, 0.8), target)
    other = method.log_prob(5 * x, Level(3.0, 4.0), target)
    torch.testing.assert_close(one, other)
    both = one.exp() + method.log_prob(x, Level(0.6, 0.8), 1 - target).exp()
    torch.testing.assert_close(both, torch.ones(6))


class Whole:
    volume_shape = (1, 4, 4, 4)
    slice_axis = None
    lifts = True

    def encode(self, volumes: Tensor) -> Items:
        return Items(volumes)

    def decode(self, items: Tensor) -> Tensor:
        return items


def test_ddpm_takes_it_and_samples_the_class_asked_for() -> None:
    """A denoiser of the mixture, guided by the exact classifier, samples one of its Gaussians."""

    class Mixture(nn.Module):
        def forward(
            self, x: Tensor, noise_level: Tensor, condition: Tensor, position: Tensor | None
        ) -> Tensor:
            ratio = (4 * noise_level).exp()[:, None, None, None, None]
            alpha, sigma = 1 / (1 + ratio**2).sqrt(), ratio / (1 + ratio**2).sqrt()
            logits = Exact()(x, noise_level, condition[:, :0], None)
            side = torch.tanh(logits[:, 1] - logits[:, 1].mul(0)).reshape(alpha.shape) * SEPARATION
            gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
            return side + gain * (x - alpha * side)

    sampling = SamplingConfig(classifier_scale=1.0, clip=0, num_steps=50)
    config = DDPMConfig(prediction="x0", sampling=sampling)
    method = DDPM(config, SPEC, {"denoiser": Mixture()})
    method.use({"classifier": classifier()})
    condition = torch.zeros(40, LAYOUT.size)
    condition[:20, 2] = 1.0
    condition[20:, 3] = 1.0
    x = method.sample(Whole(), condition, SampleRng(torch.arange(40))).flatten(1)
    assert float(x[:20].mean()) == pytest.approx(-SEPARATION, abs=0.05)
    assert float(x[20:].mean()) == pytest.approx(SEPARATION, abs=0.05)
    assert float(x[:20].std()) == pytest.approx(STD, abs=0.05)


def test_network_is_told_the_number_of_levels_and_no_condition() -> None:
    spec = NoisedClassifier.network_specs(CONFIG, SPEC)["classifier"]
    assert (spec.latent_size, spec.condition_size, spec.in_channels) == (2, 0, 1)


@pytest.mark.parametrize(("column", "message"), [(0, "no categorical"), (2, "has 2 columns")])
def test_a_column_that_is_no_class_is_refused(column: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        NoisedClassifier.network_specs(NoisedClassifierConfig(column=column), SPEC)
