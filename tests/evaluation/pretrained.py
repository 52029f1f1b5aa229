"""Networks with random weights that keep signals alive, and files of them as published."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from gyri.evaluation import weights


def randomised(network: nn.Module, gain: float = 1.0, seed: int = 0) -> nn.Module:
    """Fill weights and statistics; `gain` up to where layers neither die out nor explode."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.uniform_(module.weight, 0.3 * gain, 0.8 * gain)
            nn.init.normal_(module.bias, 0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval().requires_grad_(False)


def sha256(path: Path) -> str:
    """Return a file's hash."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def add_random(
    name: str, folder: Path, patch: pytest.MonkeyPatch, extra: dict[str, torch.Tensor] | None = None
) -> nn.Module:
    """Add random weights under `name` by the front door; return the network they came from.

    The published hash, which random weights cannot have, is left out.
    """
    patch.setenv(weights.FOLDER, str(folder / "weights"))
    known = weights.PUBLISHED[name]
    patch.setitem(weights.PUBLISHED, name, replace(known, sha256_prefix=""))
    network = randomised(known.build())
    path = folder / known.file
    torch.save(network.state_dict() | (extra or {}), path)
    weights.add(name, path, sha256(path))
    return network
