import pytest
import torch

from gyri.nn.mean_image import RATE, MeanImage


def test_it_starts_empty_and_a_step_of_adam_moves_each_label_by_the_rate():
    mean, x = MeanImage(2, (1, 3, 2)), torch.zeros(2, 1, 3, 2)
    labels = torch.eye(2)
    assert torch.equal(mean(x, labels), torch.full_like(x, -1.0))
    optimiser = torch.optim.Adam(mean.parameters(), lr=1e-3)
    mean(x, labels)[0].sum().backward()
    optimiser.step()
    moved = mean(x, labels) + 1
    # The first item's label moves with the bias, the second item's has no gradient.
    assert moved[0].flatten().tolist() == pytest.approx([-2e-3 * RATE] * 6, rel=1e-3)
    assert moved[1].flatten().tolist() == pytest.approx([-1e-3 * RATE] * 6, rel=1e-3)
