"""Draw synthetic brains above real ones, as the pages in this folder show them.

python docs/results/picture.py SAMPLES PREPARED OUT.png [--num 8] [--split HOLD]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.report.figures import png, real_beside_synthetic


def main() -> None:
    """Draw the first `num` samples above the first `num` subjects of a split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", type=Path)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--num", type=int, default=8)
    parser.add_argument("--split", default="HOLD")
    arguments = parser.parse_args()
    synthetic = SyntheticCohort.read(arguments.samples).volume_set()
    real = PreparedCohort.read(arguments.prepared).volume_set(arguments.split)
    figure = real_beside_synthetic(
        list(synthetic.volumes[: arguments.num, 0]),
        list(real.volumes[: arguments.num, 0]),
        spacing_mm=synthetic.grid.spacing_mm,
    )
    arguments.out.write_bytes(png(figure, dpi=80))


if __name__ == "__main__":
    main()
