"""Synthetic cases named as BraTS 2023 names them, for tools that read nothing else.

``BraTS-SYN-00001-000/BraTS-SYN-00001-000-t1n.nii.gz`` and so on; see `gyri.cohort.sources.brats`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from gyri.cohort.files import write_json
from gyri.cohort.sources.brats import MODALITIES, NEW_ENDINGS, SEGMENTATION
from gyri.cohort.synthetic import SyntheticCohort
from gyri.errors import UsageError

COLLECTION = "SYN"


def refuse_other_channels(names: list[str], whole: str) -> None:
    """Refuse samples that make no BraTS case: it has four modalities, and perhaps a segmentation.

    Raises
    ------
    UsageError
        If a modality is missing, or there is a channel that BraTS has no name for.
    """
    missing = [name for name in MODALITIES if name not in names]
    strange = sorted({*names} - {*MODALITIES, SEGMENTATION})
    if missing or strange:
        lacks = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(strange)}"
        raise UsageError(
            f"{whole} {lacks}: a BraTS case has {', '.join(MODALITIES)} and perhaps "
            f"{SEGMENTATION}. Train with these channels, or take the BIDS data set alone."
        )


def write_brats(samples: SyntheticCohort, out: Path) -> list[str]:
    """Write finished samples under BraTS names; return the names of the cases.

    Voxels and grid are those of the samples; labels are numbered as in BraTS 2023. A file
    ``gyri-synthetic.json`` beside the cases says where they come from. Cases that are there are
    written again.

    Parameters
    ----------
    out : folder of the cases; made if it is not there.

    Raises
    ------
    UsageError
        See `refuse_other_channels`.
    """
    refuse_other_channels([channel.name for channel in samples.channels], str(samples.root))
    cases = []
    for number, sample in enumerate(samples.table.index, 1):
        if not samples.is_written(sample):
            continue
        case = f"BraTS-{COLLECTION}-{number:05d}-000"
        (out / case).mkdir(parents=True, exist_ok=True)
        for channel in samples.channels:
            target = out / case / f"{case}-{NEW_ENDINGS[channel.name]}.nii.gz"
            shutil.copyfile(samples.path(sample, channel), target)
        cases.append(case)
    write_json(out / "gyri-synthetic.json", {"synthetic": True, "cases": cases, **samples.facts})
    return cases
