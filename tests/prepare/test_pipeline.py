from __future__ import annotations

import json
import shutil
from copy import deepcopy
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
from gyri.cohort.sources.phantom import phantom
from gyri.cohort.table import CONVENTIONAL
from gyri.errors import DataError, UnavailableError, UsageError
from gyri.prepare import claim as claim_module
from gyri.prepare import parallel as parallel_module
from gyri.prepare import session as session_module
from gyri.prepare.defaults import default_shape, default_steps
from gyri.prepare.pipeline import prepare
from gyri.prepare.plan import _with_window
from gyri.prepare.steps import load_steps, parse_steps
from gyri.prepare.survey import Finding
from gyri.prepare.template import CENTRE_MM
from gyri.registry import STEPS

SHIPPED = sorted((Path(__file__).parents[2] / "recipes" / "prepare").glob("*.yaml"))
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
    scans = [Scan(f"S{n:03d}", "T1w", file=path) for n, path in enumerate(files)]
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
        shutil.copy(path, tmp_path / "src")
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


@pytest.mark.parametrize(
    ("method", "limits"),
    [
        ("percentile", (-1.0, 1.0)),
        ("min-max", (0.0, 1.0)),
        ("z-score", (-4.0, 4.0)),
        ("white-stripe", (0.0, 1.25)),
        ("histogram", (-1.0, 1.0)),
    ],
)
def test_every_scaling_and_range_can_be_chosen(
    raw: Path, tmp_path: Path, method: str, limits: tuple[float, float]
) -> None:
    names = ["reorient", {"name": "crop", "shape": [20, 24, 20]}]
    scaling = {"name": "intensity", "method": method, "output_range": list(limits)}
    cohort = prepare(raw, tmp_path / "out", steps=[*names, scaling], jobs=1)
    assert cohort.quarantine == []
    assert cohort.intensity_range == limits
    stored, scale = cohort.load(cohort.table)
    values = stored[:, 0] * scale
    assert values[:, 0].max() == values.min() == pytest.approx(limits[0], abs=1e-4)
    assert limits[0] < values.max() <= limits[1] + 1e-4
    inside = [volume[volume > limits[0]] for volume in values]
    if method == "percentile":
        for brain_values in inside:
            assert np.percentile(brain_values, 95) == pytest.approx(0.6, abs=0.02)
    if method == "z-score":
        # The files hold the z-scores themselves; the bright block lies beyond 4.
        raw_values = brain(0)
        z = (raw_values - raw_values[raw_values > 0].mean()) / raw_values[raw_values > 0].std()
        assert np.sort(inside[0])[100] == pytest.approx(np.sort(z[raw_values > 0])[100], abs=2e-3)


def test_steps_come_from_a_file(raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "steps.yaml"
    path.write_text("- reorient\n- {name: crop, shape: [20, 24, 20]}\n- intensity\n")
    one = prepare(raw, tmp_path / "one", steps=path, jobs=1)
    other = prepare(raw, tmp_path / "other", steps=load_steps(path), jobs=1)
    assert one.data_hash == other.data_hash
    with pytest.raises(UsageError, match="spacing_mm came together with steps"):
        prepare(raw, tmp_path / "both", steps=path, spacing_mm=2.0)
    with pytest.raises(UsageError, match="Add the step intensity"):
        prepare(raw, tmp_path / "raw-values", steps=["reorient"])


def test_older_code_prepares_again_and_says_so(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = prepare(raw, tmp_path / "out", **GRID)
    record = tmp_path / "out" / ".gyri" / "settings.json"
    known = json.loads(record.read_text())
    # As the first versions wrote it: settings alone, without those that steps have learned since.
    older = deepcopy(known["settings"])
    for step in older["steps"]:
        step.pop("output_range", None)
    record.write_text(json.dumps(older))
    again = prepare(raw, tmp_path / "out", **GRID)
    assert "was prepared by gyri before 0.1" in caplog.text
    assert again.data_hash == first.data_hash
    assert json.loads(record.read_text()) == known
    caplog.clear()
    prepare(raw, tmp_path / "out", **GRID)
    assert caplog.text == ""
    monkeypatch.setattr(claim_module, "CODE_VERSION", 99)
    prepare(raw, tmp_path / "out", **GRID)
    assert f"(preparation {session_module.CODE_VERSION})" in caplog.text


def test_what_differs_is_named(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "out", **GRID)
    with pytest.raises(DataError, match=r"split.seed was 0 and is 1 now\. Choose") as refused:
        prepare(raw, tmp_path / "out", **{**GRID, "seed": 1})
    assert "crop" not in str(refused.value)
    with pytest.raises(DataError, match=r"crop.shape was \[20, 24, 20\] and is \[22, 24, 20\] now"):
        prepare(raw, tmp_path / "out", **{**GRID, "shape": (22, 24, 20)})
    order = ["reorient", {"name": "resample", "spacing_mm": 8}, "intensity"]
    with pytest.raises(DataError, match="steps was reorient, resample, crop, intensity and is"):
        prepare(raw, tmp_path / "out", steps=order)
    assert (tmp_path / "out" / MANIFEST).is_file()


def test_two_subjects_with_the_same_voxels_are_refused(raw: Path, tmp_path: Path) -> None:
    source = raw / "sub-S002" / "anat" / "sub-S002_T1w.nii.gz"
    moved = AFFINE.copy()
    moved[:3, 3] += 1
    write_volume(source, brain(5), moved, descrip="another header")
    with pytest.raises(
        DataError, match="same voxels lie under two subjects: sub-S002 and sub-S005"
    ):
        prepare(raw, tmp_path / "out", **GRID)
    assert not (tmp_path / "out" / MANIFEST).exists()
    write_volume(source, brain(2), AFFINE, descrip="")
    assert len(prepare(raw, tmp_path / "out", **GRID).table) == 8


def test_registered_scans_share_a_window_whatever_the_steps(tmp_path: Path) -> None:
    steps = parse_steps(["reorient", "register", "resample", "crop", "intensity"])
    findings = [Finding((), (9, 9, 9), AFFINE.tolist(), (1.0, 2.0, 3.0))] * 2
    placed = _with_window(steps, findings)
    assert placed["crop"].centre_mm == CENTRE_MM
    assert placed["resample"].through_mm == (0, 0, 0)
    steps.pop("register")
    assert _with_window(steps, findings)["crop"].centre_mm == (1, 2, 3)
    assert _with_window(steps, findings)["resample"].through_mm is None
    steps = parse_steps(["reorient", "conform", "crop", "intensity"])
    assert _with_window(steps, findings)["crop"].centre_mm is None


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_pipelines_run(path: Path, tmp_path: Path) -> None:
    phantom(None, tmp_path / "raw", num_subjects=2, spacing_mm=2.0, jobs=1)
    cohort = prepare(tmp_path / "raw", tmp_path / "out", steps=path, jobs=1)
    assert cohort.quarantine == []
    shape, spacing, limits = {
        "oasis1-2mm": ((80, 96, 80), 2, (0, 1)),
        "s1-central-slices-218x182": ((182, 218, 10), 1, (0, 1)),
        "s1-central-slices-4mm": ((40, 48, 10), 4, (0, 1)),
        "s1-phantom-slices-4mm": ((40, 48, 10), 4, (0, 1)),
        "s2-cube-4mm": ((48, 48, 48), 4, (0, 1)),
        "s2-planes-256": ((256, 256, 256), 1, (-1, 1)),
        "s2-tumour-slices-3mm": ((64, 64, 10), 3, (0, 1)),
        "s2-tumour-volumes-6mm": ((32, 32, 32), 6, (0, 1)),
        "s3-32x128x128": ((128, 128, 32), 1.5, (0, 1)),
        "s3-ixi-4mm": ((40, 48, 40), 4, (0, 1)),
        "conform-1mm": ((256, 256, 256), 1, (0, 1)),
        "oasis1-t88-128": ((128, 128, 80), (1.5, 1.5, 2), (0, 1)),
    }[path.stem]
    assert cohort.grid.shape == shape
    assert cohort.grid.spacing_mm == tuple(np.broadcast_to(spacing, 3))
    assert cohort.intensity_range == limits
    stored, scale = cohort.load(cohort.table)
    assert stored[0].min() * scale == pytest.approx(limits[0], abs=1e-4)
    assert 0.02 < (stored[0] * scale > limits[0]).mean() < 0.7


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same(raw: Path, tmp_path: Path) -> None:
    from distributed import LocalCluster

    here = prepare(raw, tmp_path / "here", **{**GRID, "jobs": 2})
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, worker_dashboard_address=None
    ) as cluster:
        there = prepare(raw, tmp_path / "there", dask=cluster.scheduler_address, **GRID)
    assert (there.data_hash, there.split_hash) == (here.data_hash, here.split_hash)


def test_a_dask_cluster_that_does_not_answer(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel_module, "CONNECT_S", 1)
    with pytest.raises(UnavailableError, match="No Dask scheduler answers at tcp://127.0.0.1:1"):
        prepare(raw, tmp_path / "out", dask="tcp://127.0.0.1:1", **GRID)
