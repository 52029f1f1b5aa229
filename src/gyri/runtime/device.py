"""Which device, how many threads, what memory: facts about the machine."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import torch

from gyri.errors import UnavailableError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's ``mallopt``."""


def pick_device(name: str = "auto") -> torch.device:
    """Return the device to work on.

    Parameters
    ----------
    name : ``auto`` takes a CUDA device when there is one, else the CPU; or a torch device name.

    Raises
    ------
    UnavailableError
        If the named device does not exist here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UnavailableError(
                "Device 'cuda' was asked for and torch sees none. Use `--device cpu`, or install "
                "a torch build with CUDA."
            )
        index = int(os.environ.get("LOCAL_RANK", device.index or 0))
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    return device


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor instead of handing it back to the system.

    Every step of a network on a CPU frees and asks for the same large blocks; having the system
    map and clear them anew costs a fifth of the time. Does nothing where there is no glibc.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    import ctypes

    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def peak_memory_gib() -> float:
    """Return the largest resident memory that this process has had, in GiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def machine() -> dict[str, Any]:
    """Return versions and hardware, as written into every run's provenance."""
    import numpy

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
