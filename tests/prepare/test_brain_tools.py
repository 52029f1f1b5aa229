"""Programs that find brains, played by scripts that the tests put on PATH."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.prepare.heads import phantom_head, scan_of

from gyri.errors import DataError, UnavailableError, UsageError
from gyri.prepare.brain_mask import BrainMaskConfig, brain_mask
from gyri.prepare.brain_tools import TOOLS, tool_mask

SYNTHSTRIP = """
import nibabel as nib, numpy as np, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
scan = nib.load(given["-i"])
bright = (np.asarray(scan.dataobj) > 0.6 * np.asarray(scan.dataobj).max()).astype("uint8")
nib.save(nib.Nifti1Image(bright, scan.affine), given["-m"])
"""
HD_BET = """
import nibabel as nib, numpy as np, sys
assert "--save_bet_mask" in sys.argv and "--no_bet_image" in sys.argv
scan = nib.load(sys.argv[sys.argv.index("-i") + 1])
out = sys.argv[sys.argv.index("-o") + 1]
assert out.endswith(".nii.gz")
bright = (np.asarray(scan.dataobj) > 0.6 * np.asarray(scan.dataobj).max()).astype("uint8")
nib.save(nib.Nifti1Image(bright, scan.affine), out[:-7] + "_bet.nii.gz")
"""
OTHER_GRID = """
import nibabel as nib, numpy as np, sys
mask = np.zeros((9, 9, 9), dtype="uint8")
mask[3:6] = 1
nib.save(nib.Nifti1Image(mask, np.eye(4)), sys.argv[sys.argv.index("-m") + 1])
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a script on PATH, where nothing else is."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\n{script}")
        path.chmod(0o755)

    return put


@pytest.mark.parametrize(
    ("method", "program", "script"),
    [
        ("synthstrip", "mri_synthstrip", SYNTHSTRIP),
        ("synthstrip", "synthstrip-docker", SYNTHSTRIP),
        ("hd-bet", "hd-bet", HD_BET),
    ],
)
def test_the_program_s_mask_is_taken(install, method: str, program: str, script: str) -> None:
    install(program, script)
    values, affine, _ = phantom_head()
    scan = scan_of(values, affine)
    after = brain_mask(scan, BrainMaskConfig(method=method))  # type: ignore[arg-type]
    np.testing.assert_array_equal(after.foreground > 0, values > 0.6 * values.max())
    assert after.history[-1]["method"] == method
    assert os.listdir(os.environ["PATH"]) == [program]


def test_auto_takes_the_template_whatever_is_installed(install) -> None:
    install("mri_synthstrip", SYNTHSTRIP)
    values, affine, _ = phantom_head()
    after = brain_mask(scan_of(values, affine), BrainMaskConfig())
    assert after.history[-1]["method"] == "template"


def test_what_is_not_installed_is_named_with_where_to_get_it(install) -> None:
    values, affine, _ = phantom_head()
    for method, tool in TOOLS.items():
        with pytest.raises(UnavailableError, match=f"no {tool.programs[0]}.* on PATH"):
            tool_mask(method, values, affine, 5)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit('no licence')", "mri_synthstrip failed with exit status 1: no lic"),
        ("", "wrote no mask"),
        (OTHER_GRID, r"grid \(9, 9, 9\)"),
        ("import time; time.sleep(30)", "stopped after 0.5 s"),
    ],
    ids=["fails", "writes nothing", "other grid", "hangs"],
)
def test_a_program_that_goes_wrong_keeps_the_scan_out(install, script: str, message: str) -> None:
    install("mri_synthstrip", script)
    values, affine, _ = phantom_head()
    timeout_s = 0.5 if "sleep" in script else 20
    with pytest.raises(DataError, match=message):
        tool_mask("synthstrip", values, affine, timeout_s)


def test_a_mask_that_is_no_brain_keeps_the_scan_out(install) -> None:
    install("mri_synthstrip", SYNTHSTRIP.replace("0.6", "0.99"))
    values, affine, _ = phantom_head()
    with pytest.raises(DataError, match="the mask of synthstrip holds"):
        brain_mask(scan_of(values, affine), BrainMaskConfig(method="synthstrip"))
    with pytest.raises(UsageError, match="timeout_s"):
        BrainMaskConfig(timeout_s=0)
