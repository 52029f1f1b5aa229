from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.bids import bids_errors
from tests.cohort.small import AFFINE, SHAPE, brain, small_cohort, subjects, write_oasis1
from tests.prepare.heads import phantom_head

from gyri.cohort.bids import Scan, read, write_raw
from gyri.cohort.nifti import write_volume
from gyri.cohort.prepared import MANIFEST, PreparedCohort
from gyri.cohort.sources.bids import bids
from gyri.cohort.sources.oasis1 import oasis1
from gyri.cohort.table import CONVENTIONAL
from gyri.errors import DataError, UsageError
from gyri.prepare import session as session_module
from gyri.prepare.defaults import default_shape, default_steps
from gyri.prepare.pipeline import prepare
from gyri.prepare.template import CENTRE_MM
from gyri.registry import STEPS

GRID = {"spacing_mm": 8.0, "shape": (20, 24, 20), "jobs": 1}


def test_steps_and_shapes() -> None:
    assert {"reorient", "resample", "crop", "intensity"} <= set(STEPS)
    assert list(default_steps(4.0)) == ["reorient", "resample", "crop", "intensity"]
    assert default_shape(4.0) == (40, 48, 40)
    assert default_shape(2.0) == (80, 96, 80)
    assert default_shape(8.0) == (20, 24, 20)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return small_cohort(tmp_path / "raw", 8).root


def test_registered_scans_share_one_window(tmp_path: Path) -> None:
    # Brains at different places of one grid: their distances must survive.
    moved = Scan("S001", "T1w", brain(1, (11.5, 12.5, 10.5)), AFFINE)
    small_cohort(tmp_path / "raw", 5, {"S001": moved})
    cohort = prepare(tmp_path / "raw", tmp_path / "out", **GRID)
    assert cohort.grid.spacing_mm == (8.0, 8.0, 8.0)
    for subject in ("S000", "S001"):
        source = nib.as_closest_canonical(
            nib.load(tmp_path / "raw" / f"sub-{subject}/anat/sub-{subject}_T1w.nii.gz")
        )
        raw_rows = cohort.table.loc[[subject]]
        values, scale = cohort.load(raw_rows)
        values = values[0, 0] * scale
        offset = np.linalg.solve(source.affine, np.array(cohort.grid.affine)[:, 3])[:3]
        a, b, c = np.rint(offset).astype(int)
        expected = source.get_fdata()[a : a + 20, b : b + 24, c : c + 20]
        assert np.corrcoef(values.ravel(), expected.ravel())[0, 1] > 0.99
        assert (values[expected == 0] == 0).all()


def test_left_stays_left(raw: Path, tmp_path: Path) -> None:
    # The bright block lies towards +I in LAS voxels, so to the left: x below the brain's middle.
    cohort = prepare(raw, tmp_path / "out", **GRID)
    volume = cohort.volume_set("TRAIN").volumes[0, 0]
    affine = np.array(cohort.grid.affine)
    bright = np.argwhere(volume >= 0.99).mean(axis=0)
    middle = np.argwhere(volume > 0).mean(axis=0)
    moved = affine[:3, :3] @ (bright - middle)
    assert moved[0] < -8
    assert moved[1] > 8
    assert moved[2] > 4


def test_unregistered_scans_are_centred_each(tmp_path: Path) -> None:
    scans = []
    for n in range(4):
        affine = AFFINE.copy()
        affine[:3, 3] += 10 * n
        scans.append(Scan(f"S{n:03d}", "T1w", brain(n, (9.5 + n, 12.5, 10.5)), affine))
    columns = {name: CONVENTIONAL[name] for name in ("age", "sex")}
    write_raw(tmp_path / "raw", name="x", subjects=subjects(4), columns=columns, scans=scans)
    cohort = prepare(tmp_path / "raw", tmp_path / "out", **GRID)
    raw_volumes, _ = cohort.load(cohort.table)
    for volume in raw_volumes[:, 0]:
        box = np.argwhere(volume > 0)
        np.testing.assert_allclose((box.min(axis=0) + box.max(axis=0)) / 2, (9.5, 11.5, 9.5))


def test_output_is_a_valid_derivative_with_provenance(raw: Path, tmp_path: Path) -> None:
    cohort = prepare(raw, tmp_path / "out", **GRID)
    assert bids_errors(cohort.root) == []
    assert len(cohort.split_hash) == len(cohort.data_hash) == 64
    path = cohort.path("S003", "", cohort.channels[0])
    image = nib.load(path)
    assert image.get_data_dtype() == np.int16
    assert float(image.dataobj.slope) == pytest.approx(1 / 32767)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert [step["step"] for step in sidecar["Steps"]] == [
        "reorient", "resample", "crop", "intensity",
    ]  # fmt: skip
    assert len(sidecar["SourceSha256"]) == 64
    assert sidecar["Steps"][0]["from"] == "LAS"
    written = (cohort.root / "participants.tsv").read_text().splitlines()
    assert written[0].split("\t") == ["participant_id", "age", "sex", "split"]


def bad_scans(folder: Path) -> dict[str, Scan]:
    """Every kind of file that must end in quarantine, by subject."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    good = rng.random((8, 8, 8)).astype(np.float32)
    page = folder / "page.nii.gz"
    page.write_bytes(b"<html>not found</html>")
    series = folder / "series.nii.gz"
    nib.save(nib.Nifti1Image(rng.random((8, 8, 8, 3)).astype(np.float32), AFFINE), series)
    holed = folder / "holed.nii.gz"
    nib.save(nib.Nifti1Image(np.where(good > 0.5, np.nan, good), AFFINE), holed)
    flat = folder / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.float32), AFFINE), flat)
    cut = folder / "cut.nii.gz"
    write_volume(cut, good, AFFINE, descrip="")
    cut.write_bytes(cut.read_bytes()[:-300])
    files = [page, series, holed, flat, cut]
    scans = [Scan.from_file(path, f"S{n:03d}", "T1w") for n, path in enumerate(files)]
    large = np.zeros((30, 30, 30), np.float32)
    large[1:-1, 8:22, 8:22] = 100
    scans.append(Scan("S005", "T1w", large, AFFINE))
    return {scan.subject: scan for scan in scans}


def test_bad_scans_are_quarantined_and_the_rest_goes_on(tmp_path: Path) -> None:
    small_cohort(tmp_path / "raw", 10, bad_scans(tmp_path / "bad"))
    cohort = prepare(tmp_path / "raw", tmp_path / "out", **GRID)
    assert sorted(cohort.table.index) == ["S006", "S007", "S008", "S009"]
    rules = {entry["subject"]: entry["rule"] for entry in cohort.quarantine}
    for subject, rule in {
        "S000": "a web page",
        "S001": "(8, 8, 8, 3)",
        "S002": "NaN",
        "S003": "same value",
        "S004": "truncated",
        "S005": "does not fit",
    }.items():
        assert rule in rules[subject]
        assert f"sub-{subject}_T1w.nii" in rules[subject], "the file is named"
    assert all(entry["file"].endswith(".nii.gz") for entry in cohort.quarantine)
    assert bids_errors(cohort.root) == []


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    bad = bad_scans(tmp_path / "bad")
    small_cohort(tmp_path / "raw", 6, bad)
    with pytest.raises(DataError, match="None of the 6 scans of 'Small' can be used.*web page"):
        prepare(tmp_path / "raw", tmp_path / "out", **GRID)


def test_missing_and_empty_cohorts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        prepare(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no scans"):
        prepare(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_names_are_refused_before_work(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no column 'sexx'. Did you mean 'sex'"):
        prepare(raw, tmp_path / "out", stratify=["sexx"], **GRID)
    with pytest.raises(UsageError, match="has no T2w"):
        prepare(raw, tmp_path / "out", channels=("T2w",), **GRID)
    with pytest.raises(UsageError, match="no step 'crops'. Did you mean 'crop'"):
        prepare(raw, tmp_path / "out", steps={"crops": None})
    with pytest.raises(UsageError, match="no split 'TRIAN'"):
        prepare(raw, tmp_path / "out", sizes={"TRIAN": 1.0}, **GRID)


def test_stopped_and_started_again_is_the_same(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(raw, tmp_path / "whole", **GRID)
    wrote: list[str] = []
    original = session_module.write_volume

    def stopping(path: Path, *args: object, **settings: object) -> None:
        if len(wrote) == 3:
            raise KeyboardInterrupt
        wrote.append(path.name)
        original(path, *args, **settings)

    monkeypatch.setattr(session_module, "write_volume", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare(raw, tmp_path / "out", **GRID)
    assert not (tmp_path / "out" / MANIFEST).exists()
    with pytest.raises(DataError, match="no prepared cohort"):
        PreparedCohort.read(tmp_path / "out")

    def counting(path: Path, *args: object, **settings: object) -> None:
        wrote.append(path.name)
        original(path, *args, **settings)

    monkeypatch.setattr(session_module, "write_volume", counting)
    again = prepare(raw, tmp_path / "out", **GRID)
    assert len(wrote) == len(set(wrote)) == 8
    assert (again.data_hash, again.split_hash) == (whole.data_hash, whole.split_hash)


def test_damage_and_change_are_made_anew(raw: Path, tmp_path: Path) -> None:
    first = prepare(raw, tmp_path / "out", **GRID)
    path = first.path("S002", "", first.channels[0])
    content = bytearray(path.read_bytes())
    content[-2000] ^= 1
    path.write_bytes(content)
    assert prepare(raw, tmp_path / "out", **GRID).data_hash == first.data_hash
    source = raw / "sub-S002" / "anat" / "sub-S002_T1w.nii.gz"
    write_volume(source, brain(77), AFFINE, descrip="")
    changed = prepare(raw, tmp_path / "out", **GRID)
    assert changed.data_hash != first.data_hash
    source.write_bytes(b"<html>")
    fewer = prepare(raw, tmp_path / "out", **GRID)
    assert not path.exists()
    assert [entry["subject"] for entry in fewer.quarantine] == ["S002"]


def test_other_settings_and_foreign_folders_are_refused(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "out", **GRID)
    with pytest.raises(DataError, match="other settings"):
        prepare(raw, tmp_path / "out", **{**GRID, "seed": 1})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="is no prepared cohort"):
        prepare(raw, tmp_path / "mine", **GRID)
    with pytest.raises(DataError, match="prepared already"):
        prepare(tmp_path / "out", tmp_path / "twice", **GRID)


def test_a_folder_in_use_is_refused(raw: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    state = tmp_path / "out" / ".gyri"
    state.mkdir(parents=True)
    with FileLock(state / "lock"), pytest.raises(DataError, match="in use"):
        prepare(raw, tmp_path / "out", **GRID)


@pytest.mark.slow
def test_two_processes_give_the_same(raw: Path, tmp_path: Path) -> None:
    one = prepare(raw, tmp_path / "one", **GRID)
    two = prepare(raw, tmp_path / "two", **{**GRID, "jobs": 2})
    assert one.data_hash == two.data_hash


def test_labels_are_prepared_beside_intensities(tmp_path: Path) -> None:
    scans = []
    for n in range(3):
        volume = brain(n)
        scans.append(Scan(f"S{n:03d}", "T1w", volume, AFFINE))
        tumour = (volume > 150).astype(np.uint8) * 2
        scans.append(Scan(f"S{n:03d}", "tumour", tumour, AFFINE, is_label=True))
    columns = {name: CONVENTIONAL[name] for name in ("age", "sex")}
    write_raw(tmp_path / "raw", name="x", subjects=subjects(3), columns=columns, scans=scans)
    cohort = prepare(tmp_path / "raw", tmp_path / "out", channels=("T1w", "tumour"), **GRID)
    assert [(c.name, c.kind, c.num_labels) for c in cohort.channels] == [
        ("T1w", "intensity", 0), ("tumour", "label", 3),
    ]  # fmt: skip
    stored, scale = cohort.load(cohort.table)
    assert set(np.unique(stored[:, 1])) == {0, 2}
    bright = stored[:, 0] * scale > 0.9
    assert (bright == (stored[:, 1] == 2)).mean() > 0.999
    assert cohort.volume_set("TRAIN").channels == ("T1w",)
    assert bids_errors(cohort.root) == []
    with pytest.raises(UsageError, match="at least one that holds intensities"):
        prepare(tmp_path / "raw", tmp_path / "o2", channels=("tumour",), **GRID)


def test_files_of_one_session_must_share_a_grid(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "raw", 3)
    moved = AFFINE.copy()
    moved[0, 3] += 3
    for subject, affine in (("S000", AFFINE), ("S001", moved), ("S002", AFFINE)):
        path = cohort.root / f"sub-{subject}" / "anat" / f"sub-{subject}_T2w.nii.gz"
        write_volume(path, brain(9), affine, descrip="")
    (cohort.root / "sub-S002" / "anat" / "sub-S002_T2w.nii.gz").unlink()
    out = prepare(read(cohort.root), tmp_path / "out", channels=("T1w", "T2w"), **GRID)
    rules = {entry["subject"]: entry["rule"] for entry in out.quarantine}
    assert "is not that of" in rules["S001"]
    assert "no such file" in rules["S002"]
    assert list(out.table.index) == ["S000"]


def test_sessions_stay_with_their_subject(tmp_path: Path) -> None:
    write_oasis1(tmp_path / "src", 8)
    oasis1(tmp_path / "src", tmp_path / "raw")
    cohort = prepare(tmp_path / "raw", tmp_path / "out", **GRID)
    both = cohort.table.loc["OAS10002"]
    assert both["session"].tolist() == ["MR1", "MR2"]
    assert both["split"].nunique() == 1
    assert both["age"].tolist() == [40, 41]
    assert both["handedness"].tolist() == ["R", "R"]
    split = both["split"].iloc[0]
    assert len(cohort.rows(split, "all")) == len(cohort.rows(split)) + 1
    assert (cohort.rows(split)["session"] == "MR1").all()
    assert cohort.manifest["preparation"]["split"]["stratify"] == ["age", "sex", "cdr"]
    assert bids_errors(cohort.root) == []


def test_tilted_steps_leave_an_upright_grid(tmp_path: Path) -> None:
    tilt = np.eye(4)
    tilt[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    scans = {"S000": Scan("S000", "T1w", brain(0), tilt @ AFFINE)}
    small_cohort(tmp_path / "raw", 3, scans)
    cohort = prepare(tmp_path / "raw", tmp_path / "out", **GRID)
    assert cohort.quarantine == []
    affine = np.array(cohort.grid.affine)
    np.testing.assert_array_equal(affine[:3, :3], np.diag([8.0, 8, 8]))


def test_steps_can_be_chosen(raw: Path, tmp_path: Path) -> None:
    steps = default_steps(8.0, (20, 24, 20))
    steps["intensity"] = replace(steps["intensity"], level=0.5)
    cohort = prepare(raw, tmp_path / "out", steps=steps, jobs=1)
    values = cohort.volume_set("TRAIN").volumes
    assert np.percentile(values[values > 0], 95) == pytest.approx(0.5, abs=0.02)
    steps.pop("crop")
    uncut = prepare(raw, tmp_path / "uncut", steps=steps, jobs=1)
    assert uncut.grid.shape == SHAPE


@pytest.mark.realdata
def test_real_registered_scans(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "oasis1-2mm"
    (tmp_path / "src").mkdir()
    for path in [source / "oasis_cross-sectional.csv", *sorted(source.glob("*_MR1_*.gz"))[:12]]:
        (tmp_path / "src" / path.name).symlink_to(path)
    oasis1(tmp_path / "src", tmp_path / "raw")
    cohort = prepare(tmp_path / "raw", tmp_path / "out", jobs=1)
    assert cohort.grid.shape == (40, 48, 40)
    assert cohort.quarantine == []
    assert bids_errors(cohort.root) == []
    stored, scale = cohort.load(cohort.table)
    values = stored[:, 0] * scale
    assert cohort.grid.affine[0][3] == -78.0, "the midline lies between the middle voxels"
    mask = values > 0
    brain_ml = mask.sum(axis=(1, 2, 3)) * 0.064
    assert ((brain_ml > 1200) & (brain_ml < 2300)).all()
    # Ventricles are dark and in the middle; the cerebellum is low and behind.
    left, right = mask[:, :20].sum(axis=(1, 2, 3)), mask[:, 20:].sum(axis=(1, 2, 3))
    np.testing.assert_allclose(left / right, 1, atol=0.06)
    behind, before = (
        mask[:, :, :24, :8].sum(axis=(1, 2, 3)),
        mask[:, :, 24:, :8].sum(axis=(1, 2, 3)),
    )
    assert (behind > before).all()
    mirrored = np.corrcoef(values.mean(0).ravel(), values.mean(0)[::-1].ravel())[0, 1]
    upside = np.corrcoef(values.mean(0).ravel(), values.mean(0)[:, :, ::-1].ravel())[0, 1]
    assert mirrored > 0.95 > upside


@pytest.mark.realdata
@pytest.mark.slow
def test_real_native_scans(real_data: Path, tmp_path: Path) -> None:
    bids(real_data / "ds002748", tmp_path / "raw")
    cohort = prepare(tmp_path / "raw", tmp_path / "out", jobs=1)
    assert len(cohort.table) == 6
    stored, _ = cohort.load(cohort.table)
    for volume in stored[:, 0]:
        box = np.argwhere(volume > 0)
        assert np.abs((box.min(0) + box.max(0)) / 2 - (19.5, 23.5, 19.5)).max() <= 1


def heads_cohort(root: Path, count: int = 3) -> None:
    values, affine, _ = phantom_head()
    scans = []
    for n in range(count):
        moved = affine.copy()
        moved[:3, 3] += 7 * n
        scans.append(Scan(f"S{n:03d}", "T1w", values * (1 + n), moved))
    columns = {name: CONVENTIONAL[name] for name in ("age", "sex")}
    write_raw(root, name="heads", subjects=subjects(count), columns=columns, scans=scans)


@pytest.mark.slow
def test_whole_heads_are_masked_and_registered(tmp_path: Path) -> None:
    heads_cohort(tmp_path / "raw")
    cohort = prepare(tmp_path / "raw", tmp_path / "out", **GRID)
    assert cohort.quarantine == []
    sidecar = json.loads(
        cohort.path("S001", "", cohort.channels[0]).with_suffix(".json").read_text()
    )
    assert [step["step"] for step in sidecar["Steps"]] == [
        "reorient", "brain_mask", "register", "resample", "crop", "intensity",
    ]  # fmt: skip
    assert cohort.skull_stripped
    stored, _ = cohort.load(cohort.table)
    # The same head at other places and gains comes out the same.
    assert np.corrcoef(stored[0].ravel(), stored[1].ravel())[0, 1] > 0.99
    affine = np.array(cohort.grid.affine)
    middle = affine[:3, :3] @ ((np.array(cohort.grid.shape) - 1) / 2) + affine[:3, 3]
    np.testing.assert_allclose(middle, CENTRE_MM, atol=1e-6)


def test_faces_are_refused_unless_allowed(tmp_path: Path) -> None:
    heads_cohort(tmp_path / "raw")
    plain = {**GRID, "shape": (40, 40, 40), "mask": False}
    with pytest.raises(DataError, match=r"whole head, whose face.*--mask.*--allow-faces"):
        prepare(tmp_path / "raw", tmp_path / "refused", **plain)
    cohort = prepare(tmp_path / "raw", tmp_path / "out", allow_faces=True, **plain)
    assert not cohort.skull_stripped
    assert list(cohort.manifest["preparation"]["steps"][1]) == ["step", "spacing_mm", "through_mm"]


def test_a_new_code_version_prepares_again(raw: Path, tmp_path: Path, monkeypatch) -> None:
    cohort = prepare(raw, tmp_path / "out", **GRID)
    path = cohort.path("S000", "", cohort.channels[0])
    before = path.stat().st_mtime_ns
    prepare(raw, tmp_path / "out", **GRID)
    assert path.stat().st_mtime_ns == before
    monkeypatch.setattr(session_module, "CODE_VERSION", session_module.CODE_VERSION + 1)
    prepare(raw, tmp_path / "out", **GRID)
    assert path.stat().st_mtime_ns > before
