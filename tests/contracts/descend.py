"""Train with plain gradient descent, so that weights differ as gradients do.

Adam divides a gradient by its own size and would blow rounding up to the learning rate.
Run by `torchrun` as ``python -m tests.contracts.descend RECIPE DATA OUT``.
"""

from __future__ import annotations

import sys

import torch

from gyri.training import loop
from gyri.training.run import train


def plain_descent(method, name, settings):
    networks = {n for phase in method.phases if phase.optimiser == name for n in phase.networks}
    parameters = [p for n in sorted(networks) for p in method.networks[n].parameters()]
    return torch.optim.SGD(parameters, lr=0.0)


if __name__ == "__main__":
    loop._build_optimiser = plain_descent
    train(sys.argv[1], sys.argv[2], sys.argv[3], device="cpu", quiet=True)
