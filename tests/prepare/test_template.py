from __future__ import annotations

import numpy as np

from gyri.prepare import template
from gyri.prepare.template import mni152


def test_the_kept_template_is_the_one_that_nilearn_ships(tmp_path, monkeypatch):
    monkeypatch.setenv("GYRI_CACHE", str(tmp_path / "cache"))
    made = mni152.__wrapped__()
    monkeypatch.setattr(template, "_from_nilearn", lambda: None)
    kept = mni152.__wrapped__()
    assert np.array_equal(made.image, kept.image)
    assert np.array_equal(made.mask, kept.mask)
    assert kept.mask.dtype == bool
    assert np.array_equal(made.affine, kept.affine)
    assert not list((tmp_path / "cache").glob(".*"))


def test_a_damaged_cache_is_made_again_and_a_folder_that_cannot_be_written_is_no_fault(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("GYRI_CACHE", str(tmp_path))
    mni152.__wrapped__()
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(b"PK\x03\x04")
    assert mni152.__wrapped__().mask.any()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GYRI_CACHE", str(tmp_path / "file"))
    assert mni152.__wrapped__().mask.any()
