"""A template deformed to real scans: files, numbers, and what is refused."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from tests.bids import bids_errors
from tests.contracts.tiny import recipe

from gyri import api, registration
from gyri.cli import main
from gyri.cohort.fields import DISPLACEMENT, FROM_TEMPLATE, TO_TEMPLATE, VELOCITY
from gyri.cohort.files import read_tsv
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.vectors import read_vectors
from gyri.errors import UsageError
from gyri.nn.deformation import compose, exponential, warp
from gyri.training.run import train

STEPS = ("training.steps=3",)


@pytest.fixture(scope="module")
def made(tiny_cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("fields") / "syn"
    return registration.register(tiny_cohort, out, method="syn", bootstrap=50)


@pytest.fixture(scope="module")
def learned(tiny_cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("fields") / "voxelmorph"
    splits = ("VAL", "HOLD")
    return registration.register(
        tiny_cohort, out, overrides=STEPS, splits=splits, bootstrap=50, quiet=True
    )


def base(done, subject):
    return done.root / f"sub-{subject}" / "anat" / f"sub-{subject}"


def test_syn_brings_the_template_nearer_to_everybody(made, tiny_cohort):
    table = read_tsv(made.root / "registration.tsv")
    assert sorted(table["subject"]) == sorted(
        map(str, PreparedCohort.read(tiny_cohort).table.index)
    )
    for name in ("local_correlation", "correlation", "ssim"):
        before, after = (table[f"{name}_{when}"].astype(float) for when in ("before", "after"))
        assert (after > before).all(), name
    assert (table["folded"].astype(float) < 1e-3).all()
    assert (table["inverse_mm"].astype(float) < 1).all()
    assert made.summary["dice"] is None


def test_itk_applies_a_field_as_it_was_meant(made):
    subject = made.registered[0].subject
    path = str(base(made, subject)) + "_from-template_to-T1w_mode-image_xfm.nii.gz"
    field = sitk.Cast(sitk.ReadImage(path), sitk.sitkVectorFloat64)
    template = sitk.ReadImage(str(made.root / "template.nii.gz"))
    moved = sitk.Resample(
        template, template, sitk.DisplacementFieldTransform(field), sitk.sitkLinear
    )
    ours = nib.load(str(base(made, subject)) + "_desc-template_T1w.nii.gz").get_fdata()
    inner = (slice(2, -2),) * 3
    theirs = sitk.GetArrayFromImage(moved).transpose(2, 1, 0)
    assert np.abs(theirs - ours)[inner].max() < 1e-3
    assert np.abs(ours - nib.load(made.root / "template.nii.gz").get_fdata()).max() > 0.1


def test_there_and_back_is_where_it_began(made):
    subject = made.registered[0].subject
    u, inverse = (
        torch.from_numpy(
            read_vectors(base(made, subject).with_name(f"sub-{subject}{e}_xfm.nii.gz"), made.grid)
        )
        for e in (FROM_TEMPLATE, TO_TEMPLATE)
    )
    missed = compose(u[None], inverse[None]).norm(dim=1)
    assert float(missed[..., 4:-4, 4:-4, 4:-4].mean()) < 0.1
    assert float(u.norm(dim=0).mean()) > 0.1


def test_a_velocity_integrates_to_the_displacement_beside_it(learned):
    subject = learned.registered[0].subject
    endings = (VELOCITY, DISPLACEMENT)
    velocity, u = (
        torch.from_numpy(
            read_vectors(
                base(learned, subject).with_name(f"sub-{subject}{FROM_TEMPLATE}{e}.nii.gz"),
                learned.grid,
            )
        )
        for e in endings
    )
    # It was integrated on its own, coarser grid.
    missed = (exponential(velocity[None])[0] - u).norm(dim=0)
    assert float(missed.mean()) < 0.1 * float(u.norm(dim=0).mean())


def test_only_the_splits_that_were_asked_for(learned, tiny_cohort):
    table = PreparedCohort.read(tiny_cohort).table
    wanted = table.index[table["split"].isin(["VAL", "HOLD"])]
    assert sorted(one.subject for one in learned.registered) == sorted(map(str, wanted))
    assert learned.summary["training_s"] > 0
    assert learned.summary["splits"]["HOLD"]["n"] == 4


def test_it_goes_on_and_repeats_nothing(learned, tiny_cohort):
    before = {p: p.stat().st_mtime_ns for p in learned.root.rglob("*_xfm.nii.gz")}
    again = registration.register(
        tiny_cohort, learned.root, run=learned.root / "run", splits=("VAL", "HOLD"), bootstrap=50
    )
    assert {p: p.stat().st_mtime_ns for p in learned.root.rglob("*_xfm.nii.gz")} == before
    assert [one.measures for one in again.registered] == [
        one.measures for one in learned.registered
    ]


def test_files_are_bids_and_say_whose_they_are(made):
    assert bids_errors(made.root) == []
    assert "personal data" in (made.root / "README").read_text()


@pytest.fixture(scope="module")
def labelled(tiny_cohort, tmp_path_factory):
    """Phantoms whose dark, middle and bright brain are labelled 1, 2 and 3."""
    root = tmp_path_factory.mktemp("labelled")
    cohort = PreparedCohort.read(tiny_cohort)
    for subject, session in zip(cohort.table.index, cohort.table["session"]):
        image = nib.load(cohort.path(str(subject), session, cohort.channels[0]))
        volume = image.get_fdata()
        cuts = np.quantile(volume[volume > 0], [1 / 3, 2 / 3])
        labels = np.where(volume > 0, 1 + np.digitize(volume, cuts), 0).astype(np.int16)
        for name, array in (("T1w", volume.astype(np.float32)), ("layer", labels)):
            (root / "files").mkdir(exist_ok=True)
            nib.save(
                nib.Nifti1Image(array, image.affine), root / "files" / f"{subject}_{name}.nii.gz"
            )
    api.import_cohort("folder", root / "files", root / "raw", scans=("T1w",), labels=("layer",))
    steps = root / "steps.yaml"
    steps.write_text("- reorient\n- {name: resample, spacing_mm: 8}\n- intensity\n")
    sizes = {"TRAIN": 8, "VAL": 1, "HOLD": 4, "TEST": 1}
    api.prepare(
        root / "raw", root / "prepared", steps=steps, channels=("T1w", "layer"), sizes=sizes, jobs=1
    )
    return root / "prepared"


def test_labels_overlap_more_in_the_templates_space(labelled, tmp_path):
    done = registration.register(labelled, tmp_path / "out", method="syn", bootstrap=100)
    dice = done.summary["dice"]["layer"]
    assert dice["gain"]["low"] > 0
    assert dice["after"]["value"] > dice["before"]["value"]
    assert set(dice["regions"]) == {"1", "2", "3"}


def test_the_command_writes_page_and_numbers(tiny_cohort, tmp_path, capsys):
    out = tmp_path / "fields"
    code = main(
        ["register", str(tiny_cohort), "--out", str(out), "--split", "VAL", "--override",
         *STEPS, "--template", "MNI", "--bootstrap", "20"]
    )  # fmt: skip
    assert code == 0
    summary = json.loads((out / "registration.json").read_text())
    assert (summary["method"], summary["template"]) == ("voxelmorph", "MNI")
    page = (out / "registration.html").read_text()
    assert page.count("data:image") >= 4
    assert str(out / "registration.html") in capsys.readouterr().out


def test_what_is_refused(made, learned, tiny_cohort, tmp_path):
    with pytest.raises(UsageError, match="registers nothing. Methods that do: .*voxelmorph.*syn"):
        registration.register(tiny_cohort, tmp_path / "a", method="r3gan")
    with pytest.raises(UsageError, match="another registration"):
        registration.register(tiny_cohort, made.root, run=learned.root / "run")
    other = train(recipe("ddpm", steps=1), tiny_cohort, tmp_path / "ddpm", quiet=True).root
    with pytest.raises(UsageError, match="which registers nothing. Choose one of"):
        registration.register(tiny_cohort, tmp_path / "b", run=other)


def test_a_field_warps_labels_without_inventing_any(made):
    labels = torch.randint(0, 5, (1, 1, *made.grid.shape)).float()
    subject = made.registered[0].subject
    u = read_vectors(
        base(made, subject).with_name(f"sub-{subject}{FROM_TEMPLATE}_xfm.nii.gz"),
        made.grid,
    )
    moved = warp(labels, torch.from_numpy(u)[None], "nearest")
    assert set(moved.unique().tolist()) <= set(labels.unique().tolist())
