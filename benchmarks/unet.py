"""Time and memory of a training step: our `unet` against MONAI's `DiffusionModelUNet`.

Both have the same widths, levels, attention places and number of parameters; a step is forward,
backward and Adam in float32 on CPU. Steps of the two are taken in turn in one process, so that
whatever else the machine does meets both, and medians are compared. Memory is the peak of a fresh
process over what it held before the network was built.

Run ``python benchmarks/unet.py --help``; needs ``pip install 'monai>=1.5' einops``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock


@dataclass(frozen=True)
class Case:
    """What a step trains on."""

    shape: tuple[int, ...]
    batch: int


CASES = {
    "slices-96x80": Case((96, 80), 16),
    "slices-40x48": Case((40, 48), 16),
    "volumes-40x48x40": Case((40, 48, 40), 2),
}
WIDTHS = (32, 64, 96)
ATTENTION = (False, False, True)
NUM_RES_BLOCKS = 2
CHANNELS_PER_HEAD = 32
NORM_GROUPS = 16
FORMATS = ("channels_first", "channels_last", "default")
"""``default``: each network as its own defaults have it, inputs channels first."""


def our_network(case: Case, format: str):
    from gyri.networks.unet import UNet, UNetConfig
    from gyri.types import NetworkSpec

    config = UNetConfig(
        widths=WIDTHS,
        attention=ATTENTION,
        num_res_blocks=NUM_RES_BLOCKS,
        channels_per_head=CHANNELS_PER_HEAD,
        norm_groups=NORM_GROUPS,
        scale_shift=False,
        resblock_updown=False,
        channels_last=format != "channels_first",
    )
    network = UNet(config, NetworkSpec(1, 1, case.shape))
    return network, lambda model, x, t: model(x, t, x.new_zeros(len(x), 0))


def monai_network(case: Case, format: str, *, flash: bool = False):
    from monai.networks.nets import DiffusionModelUNet

    network = DiffusionModelUNet(
        len(case.shape),
        in_channels=1,
        out_channels=1,
        channels=WIDTHS,
        attention_levels=ATTENTION,
        num_res_blocks=NUM_RES_BLOCKS,
        num_head_channels=CHANNELS_PER_HEAD,
        norm_num_groups=NORM_GROUPS,
        use_flash_attention=flash,
    )
    if format == "channels_last":
        network = network.to(memory_format=memory_format(case, format))
    return network, lambda model, x, t: model(x, 1000 * t)


NETWORKS: dict[str, Callable] = {
    "ours": our_network,
    "ours, taps apart": our_network,
    "monai": monai_network,
    "monai, flash": lambda case, format: monai_network(case, format, flash=True),
}


@contextmanager
def as_named(name: str) -> Iterator[None]:
    """Under "taps apart" our upsampling does as many multiplications as MONAI's."""
    if name != "ours, taps apart":
        yield
        return
    no = lambda x, shape: False  # noqa: E731
    with mock.patch("gyri.networks.unet.doubles", no), mock.patch("gyri.nn.layers.doubles", no):
        yield


def memory_format(case: Case, format: str):
    import torch

    if format != "channels_last":
        return torch.contiguous_format
    return torch.channels_last if len(case.shape) == 2 else torch.channels_last_3d


def make_step(name: str, case: Case, format: str, compiled: bool) -> Callable[[], None]:
    """Return a function that takes one training step."""
    import torch

    torch.manual_seed(0)
    network, call = NETWORKS[name](case, format)
    x = torch.randn(case.batch, 1, *case.shape).to(memory_format=memory_format(case, format))
    noise_level = torch.rand(case.batch)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    model = torch.compile(network) if compiled else network

    def step() -> None:
        with as_named(name):
            optimiser.zero_grad()
            (call(model, x, noise_level) - x).square().mean().backward()
            optimiser.step()

    return step


def counts(name: str, case: Case) -> dict[str, float]:
    """Parameters, and GFLOP of one forward pass as executed."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network, call = NETWORKS[name](case, "channels_first")
    x = torch.randn(case.batch, 1, *case.shape)
    with as_named(name), FlopCounterMode(display=False) as counter:
        call(network, x, torch.rand(case.batch))
    flops = counter.get_flop_counts()["Global"]
    convolutions = sum(count for op, count in flops.items() if "convolution" in str(op))
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "convolution_gflop": convolutions / 1e9,
    }


def interleaved(steps: dict[str, Callable[[], None]], repeats: int) -> dict[str, dict[str, float]]:
    """Median wall and processor seconds of each step."""
    for step in steps.values():
        step()
        step()
    wall: dict[str, list[float]] = {name: [] for name in steps}
    processor: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            began, began_processor = time.perf_counter(), time.process_time()
            step()
            wall[name].append(time.perf_counter() - began)
            processor[name].append(time.process_time() - began_processor)
    return {
        name: {
            "wall_s": statistics.median(wall[name]),
            "processor_s": statistics.median(processor[name]),
        }
        for name in steps
    }


def peak_mib() -> float:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure_memory(name: str, case: Case, format: str, threads: int) -> None:
    """Print the peak over the imports, in MiB; runs in a fresh process."""
    import torch

    torch.set_num_threads(threads)
    NETWORKS[name](Case((8,) * len(case.shape), 1), format)
    before = peak_mib()
    step = make_step(name, case, format, compiled=False)
    for _ in range(3):
        step()
    print(peak_mib() - before)


def memory_of(name: str, case: str, format: str, threads: int) -> float:
    command = [sys.executable, __file__, "--memory-of", name, case, format, str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def run(arguments: argparse.Namespace) -> list[dict]:
    import torch

    rows = []
    for case_name in arguments.cases:
        case = CASES[case_name]
        counted = {name: counts(name, case) for name in arguments.networks}
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            for format in arguments.formats:
                memory = {
                    name: memory_of(name, case_name, format, threads)
                    for name in arguments.networks
                    if not arguments.compile
                }
                steps = {
                    name: make_step(name, case, format, arguments.compile)
                    for name in arguments.networks
                }
                times = interleaved(steps, arguments.repeats)
                for name in arguments.networks:
                    rows.append(
                        {
                            "case": case_name,
                            "threads": threads,
                            "format": format,
                            "compiled": arguments.compile,
                            "network": name,
                            **counted[name],
                            **times[name],
                            "peak_mib": memory.get(name),
                            "wall_ratio": times[name]["wall_s"] / times["monai"]["wall_s"],
                            "processor_ratio": times[name]["processor_s"]
                            / times["monai"]["processor_s"],
                        }
                    )
                    print(as_line(rows[-1]), flush=True)
    return rows


HEADER = (
    f"{'case':<18}{'threads':>8} {'format':<15}{'network':<18}{'parameters':>11}{'conv GFLOP':>11}"
    f"{'wall s':>8}{'cpu s':>8}{'ratio':>7}{'cpu':>6}{'peak MiB':>9}"
)


def as_line(row: dict) -> str:
    peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
    return (
        f"{row['case']:<18}{row['threads']:>8} {row['format']:<15}{row['network']:<18}"
        f"{row['parameters']:>11}{row['convolution_gflop']:>11.1f}{row['wall_s']:>8.3f}"
        f"{row['processor_s']:>8.3f}{row['wall_ratio']:>7.2f}{row['processor_ratio']:>6.2f}{peak:>9}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="torch.compile both")
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=NETWORKS,
        default=["ours", "ours, taps apart", "monai"],
        help="what to measure; ratios are to monai, which must be among them",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/unet.json"))
    parser.add_argument("--memory-of", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.memory_of:
        name, case, format, threads = arguments.memory_of
        measure_memory(name, CASES[case], format, int(threads))
        return
    print(HEADER, flush=True)
    arguments.out.write_text(json.dumps(run(arguments), indent=1) + "\n")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
