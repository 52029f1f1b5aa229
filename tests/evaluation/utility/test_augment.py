"""Classical augmentation moves volumes and labels alike and keeps what it must."""

from __future__ import annotations

import torch

from gyri.evaluation.utility.augment import augment


def ball() -> torch.Tensor:
    """Return one volume with a bright ball off the centre, (1, 1, 20, 24, 20)."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in (20, 24, 20)), indexing="ij"))
    centre = torch.tensor([6.0, 12.0, 10.0])[:, None, None, None]
    return (((grid - centre) ** 2).sum(0) < 16).float()[None, None]


def test_labels_move_with_their_volume():
    volumes = ball().repeat(16, 1, 1, 1, 1)
    changed, labels = augment(volumes, volumes[:, 0].long(), torch.Generator().manual_seed(0))
    assert changed.shape == volumes.shape
    assert labels.dtype == torch.int64
    inside = changed[:, 0] > 0.4
    overlap = 2 * (inside & (labels == 1)).sum() / (inside.sum() + (labels == 1).sum())
    assert overlap > 0.9


def test_sizes_stay_near_and_sides_change():
    volumes = ball().repeat(32, 1, 1, 1, 1)
    changed, _ = augment(volumes, None, torch.Generator().manual_seed(0))
    inside = changed[:, 0] > 0.4
    ratio = inside.sum((1, 2, 3)) / volumes[0].sum()
    assert ratio.min() > 0.6
    assert ratio.max() < 1.6
    left = inside[:, :10].sum((1, 2, 3)) > inside[:, 10:].sum((1, 2, 3))
    assert 5 < left.sum() < 27
    # The background stays exactly 0.
    assert (changed[:, :, :, 0] == 0).all()


def test_the_same_seed_gives_the_same_changes():
    volumes = ball().repeat(4, 1, 1, 1, 1)
    one, two, other = (
        augment(volumes, None, torch.Generator().manual_seed(seed))[0] for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
