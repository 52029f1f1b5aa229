"""Read a pickled checkpoint in a process of its own and write its tensors as safetensors.

Run as a file, ``python -I unpickle.py SOURCE TARGET``; gyri never imports it. The process reads
SOURCE with ``weights_only=True`` under limits of memory, time and disk, so that a file made to do
harm finds neither code that it may call nor much to waste. Its last line on stderr is the reason
of a failure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

MEMORY_BASE = 2 * 2**30
MEMORY_FACTOR = 6
DISK_FACTOR = 2
DISK_BASE = 2**26
CPU_S = 120
PREFIX = "module."
"""What data-parallel training puts before every name."""


def limit(size: int) -> None:
    """Limit this process to what converting a file of `size` bytes takes."""
    import resource

    memory = MEMORY_BASE + MEMORY_FACTOR * size
    for what, most in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_FSIZE, DISK_BASE + DISK_FACTOR * size),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def tensors(content: Any) -> dict[str, Any]:
    """Return tensors by name from a state dict, or from a checkpoint that holds one.

    Raises
    ------
    ValueError
        If there is anything but tensors, or two names that differ by ``module.`` alone.
    """
    import torch

    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"it holds a {type(content).__name__}, not tensors by name")
    found: dict[str, Any] = {}
    for key, tensor in content.items():
        if not isinstance(key, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(f"entry {key!r} is a {type(tensor).__name__}, not a tensor")
        name = key.removeprefix(PREFIX)
        if name in found:
            raise ValueError(f"{name} is there with and without {PREFIX!r}")
        found[name] = tensor.detach().clone().contiguous()
    return found


def main(source: str, target: str) -> None:
    """Convert one file."""
    import torch
    from safetensors.torch import save_file

    limit(os.path.getsize(source))
    content = torch.load(source, map_location="cpu", weights_only=True)
    save_file(tensors(content), target)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        print(f"{type(error).__name__}: {lines[0]}", file=sys.stderr)
        sys.exit(1)
