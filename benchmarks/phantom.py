"""Phantoms a second on one core; the project asks for at least 5 at 4 mm, T1w only.

CPU time of one thread, so that other work on the machine does not count.

Run: ``OMP_NUM_THREADS=1 python benchmarks/phantom.py``.
"""

from __future__ import annotations

import time

import torch

from gyri.cohort.phantom import make_subject, subject_seed
from gyri.cohort.phantom_truth import draw_covariates

CASES = (
    # spacing_mm, modalities, tumour, subjects
    (8.0, ("T1w",), False, 40),
    (4.0, ("T1w",), False, 40),
    (4.0, ("T1w", "T1c", "T2w", "FLAIR"), True, 20),
    (2.0, ("T1w",), False, 10),
    (1.0, ("T1w",), False, 3),
)


def main() -> None:
    torch.set_num_threads(1)
    began = time.process_time()
    table = draw_covariates(40, 0)
    make_subject(table.iloc[0], 0, 8.0)
    print(f"template, once a process: {time.process_time() - began:.1f} s")
    for spacing_mm, modalities, tumour, count in CASES:
        make_subject(table.iloc[0], 0, spacing_mm, modalities, tumour)
        began = time.process_time()
        for label, row in table.iloc[:count].iterrows():
            make_subject(row, subject_seed(0, str(label)), spacing_mm, modalities, tumour)
        rate = count / (time.process_time() - began)
        what = "+".join(modalities) + (" with tumour" if tumour else "")
        target = "  (target 5)" if (spacing_mm, tumour) == (4.0, False) else ""
        print(f"{spacing_mm:g} mm, {what}: {rate:.2f} subjects/s{target}")


if __name__ == "__main__":
    main()
