"""What work costs: wall and processor time, memory, energy where the machine tells."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gyri.runtime.device import peak_memory_gib

POWERCAP = Path("/sys/class/powercap")
MICROJOULES = 1e-6


@contextmanager
def measured(alone: bool = True) -> Iterator[dict[str, Any]]:
    """Measure the block.

    Parameters
    ----------
    alone : no other work runs on this machine by our own doing. Otherwise the processor's energy
        is not measured, for its meter knows only the whole machine.

    Yields
    ------
    dict
        Filled when the block ends, however it ends: ``began`` and ``ended`` (seconds of the
        clock), ``wall_s``, ``cpu_s`` (with children that have ended), ``peak_memory_gib`` (of this
        process so far), and, None where not known, ``gpu_memory_gib``, ``processor_energy_j`` and
        ``gpu_energy_j``.
    """
    cost: dict[str, Any] = {}
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    energy = processor_energy_j() if alone else None
    watts = _start_gpu_meter() if cuda else None
    began, cpu, wall = time.time(), _cpu_s(), time.monotonic()
    try:
        yield cost
    finally:
        wall = time.monotonic() - wall
        power_w = _stop_gpu_meter(watts)
        cost.update(
            began=began,
            ended=time.time(),
            wall_s=wall,
            cpu_s=_cpu_s() - cpu,
            peak_memory_gib=peak_memory_gib(),
            gpu_memory_gib=torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
            processor_energy_j=_risen(energy, processor_energy_j()),
            gpu_energy_j=None if power_w is None else power_w * wall,
        )


def _cpu_s() -> float:
    """Processor seconds of this process and of its children that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def processor_energy_j(root: Path = POWERCAP) -> float | None:
    """Read the energy counters of all processor packages (RAPL); None where not readable."""
    try:
        counters = [int((c / "energy_uj").read_text()) for c in root.glob("intel-rapl:?")]
    except (OSError, ValueError):
        return None
    return sum(counters) * MICROJOULES if counters else None


def _risen(before: float | None, now: float | None) -> float | None:
    """Difference of a counter; None where it is not known or has run over."""
    return None if before is None or now is None or now < before else now - before


def _start_gpu_meter() -> subprocess.Popen[str] | None:
    """Have the driver write this process's GPUs' power every second."""
    if not shutil.which("nvidia-smi"):
        return None
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = ["-i", devices] if devices else []
    query = ["--query-gpu=index,power.draw", "--format=csv,noheader,nounits", "-lms", "1000"]
    return subprocess.Popen(
        ["nvidia-smi", *chosen, *query],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _stop_gpu_meter(meter: subprocess.Popen[str] | None) -> float | None:
    """Return the mean power in watts, all GPUs together; None where the driver told none."""
    if meter is None:
        return None
    meter.terminate()
    return mean_power_w(meter.communicate()[0])


def mean_power_w(lines: str) -> float | None:
    """Add up the mean power of each GPU from lines ``index, watts``."""
    by_device: dict[str, list[float]] = {}
    for line in lines.splitlines():
        device, _, watts = line.partition(",")
        try:
            by_device.setdefault(device.strip(), []).append(float(watts))
        except ValueError:
            continue
    means = [sum(values) / len(values) for values in by_device.values() if values]
    return sum(means) if means else None
