"""Phantoms: volumes are what the law says, deformations are invertible, seeds decide everything."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from gyri.cohort import phantom_anatomy as anatomy
from gyri.cohort.phantom import (
    displacement,
    make_subject,
    phantom_grid,
    phantom_volumes,
    subject_seed,
)
from gyri.cohort.phantom_truth import (
    COLUMNS,
    ETIV_MALE_EXTRA_ML,
    TISSUES,
    draw_covariates,
    draw_volumes,
    effects_given_etiv,
    effects_without_etiv,
    truth,
)
from gyri.errors import DataError, UsageError


def person(**changes: object) -> pd.Series:
    row = {"age": 50.0, "sex": "F", "scanner": "A", "cdr": None, "etiv": 1500.0}
    return pd.Series({**row, **changes})


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    mask = (a > 0) & (b > 0)
    return float(np.corrcoef(a[mask], b[mask])[0, 1])


# --- the mathematics of the anatomy -------------------------------------------------------------


def test_spline_reproduces_constants_and_linear_functions() -> None:
    i, j, k = np.meshgrid(*(np.arange(9.0) for _ in range(3)), indexing="ij")
    nodes = np.stack([np.full_like(i, 3.0), 2 * i - j + 0.5 * k])
    at = [np.linspace(2, 6, n) for n in (5, 7, 4)]
    x, y, z = np.meshgrid(*at, indexing="ij")
    out = anatomy.spline_upsample(nodes, at)
    assert np.allclose(out, [np.full_like(x, 3.0), 2 * x - y + 0.5 * z], atol=1e-5)


def test_smooth_noise_has_unit_variance() -> None:
    noise = anatomy.smooth_noise(np.random.default_rng(0), 4, 10.0)
    assert noise.std() == pytest.approx(1.0, abs=0.06)


def test_flow_of_a_constant_velocity_is_that_shift() -> None:
    velocity = np.zeros((3, *anatomy.LATTICE_SHAPE))
    velocity[1] = 7.0
    assert np.allclose(anatomy.integrate(velocity), velocity, atol=1e-4)


def test_flow_of_the_opposite_velocity_is_the_inverse() -> None:
    velocity = 3.0 * anatomy.smooth_noise(np.random.default_rng(1), 3, 48.0)
    there, back = anatomy.integrate(velocity), anatomy.integrate(-velocity)
    moved = anatomy.lattice_points_mm() + torch.from_numpy(there.reshape(3, -1).T)
    origin = anatomy.lattice_points_mm()[0].numpy()
    returned = anatomy._sample(torch.from_numpy(back)[None], moved, origin, anatomy.LATTICE_MM)
    error = np.abs(there + returned.reshape(there.shape))[:, 4:-4, 4:-4, 4:-4]
    assert error.max() < 0.35  # mm; the rest is the lattice's linear interpolation
    assert np.abs(there).max() > 6


@pytest.mark.parametrize("ventricle_scale", [-3.0, 0.0, 21.0])
def test_deformation_is_a_diffeomorphism(ventricle_scale: float) -> None:
    axes = [np.arange(2, n - 3, 0.5) for n in anatomy.LATTICE_SHAPE]
    for seed in (0, 1):
        u = anatomy.spline_upsample(displacement(seed, ventricle_scale), axes)
        step = anatomy.LATTICE_MM / 2
        rows = [np.stack(np.gradient(component, step)) for component in u]
        jacobian = np.moveaxis(np.stack(rows), (0, 1), (-2, -1)) + np.eye(3)
        assert np.linalg.det(jacobian).min() > 0


def test_solve_shift_is_the_log_odds_of_a_flat_level() -> None:
    level, weight = np.full(1000, 2.0), np.ones(1000)
    assert anatomy.solve_shift(level, weight, 200.0) == pytest.approx(np.log(0.25) - 2.0, abs=1e-6)


def test_solve_shift_meets_its_target() -> None:
    rng = np.random.default_rng(0)
    level, weight = rng.normal(0, 4, 100_000), rng.uniform(0, 1, 100_000)
    b = anatomy.solve_shift(level, weight, 12_345.0)
    assert (weight * anatomy.sigmoid(level + b)).sum() == pytest.approx(12_345.0, rel=1e-4)


def test_solve_shift_refuses_what_no_surface_can_fill() -> None:
    with pytest.raises(DataError, match="larger eTIV"):
        anatomy.solve_shift(np.zeros(10), np.ones(10), 11.0)


# --- volumes and the law ------------------------------------------------------------------------


@pytest.mark.parametrize("spacing_mm", [4.0, 8.0])
def test_volumes_hit_their_targets(spacing_mm: float) -> None:
    for label, row in draw_covariates(4, 5).iterrows():
        seed = subject_seed(5, str(label))
        subject, wanted = make_subject(row, seed, spacing_mm), draw_volumes(row, seed)
        for tissue in TISSUES:
            assert subject.volumes_ml[tissue] == pytest.approx(wanted[tissue], rel=2e-3)
        # The same volumes a second way: the maps on the scan's grid, cut at its border.
        csf, gm, wm = subject.tissues.sum((1, 2, 3), dtype=float) * spacing_mm**3 / 1000
        measured = [csf, gm, wm]
        assert measured == pytest.approx([wanted[t] for t in ("csf", "gm", "wm")], rel=5e-3)


@pytest.mark.parametrize(
    ("age", "sex", "etiv"), [(18, "F", 1180), (90, "M", 1830), (90, "F", 1180)]
)
def test_extreme_people_can_be_made(age: float, sex: str, etiv: float) -> None:
    row = person(age=age, sex=sex, etiv=etiv, cdr="2" if age > 60 else None)
    for seed in range(4):
        made, wanted = make_subject(row, seed, 8.0).volumes_ml, draw_volumes(row, seed)
        assert made["ventricle"] == pytest.approx(wanted["ventricle"], rel=2e-3)
        assert made["csf"] > made["ventricle"] > 0


def test_age_slopes_in_the_images_are_the_declared_ones() -> None:
    young, old = (make_subject(person(age=a), 3, 4.0).volumes_ml for a in (30.0, 80.0))
    effects = effects_given_etiv()
    for tissue in ("icv", "brain", "gm", "wm", "csf"):
        slope = (old[tissue] - young[tissue]) / 50
        assert slope == pytest.approx(effects[tissue].age, abs=0.03)
    law = effects["ventricle"]
    ratio = law.mean(80.0, False, 0.0, 1500.0) / law.mean(30.0, False, 0.0, 1500.0)
    assert old["ventricle"] / young["ventricle"] == pytest.approx(ratio, rel=4e-3)


def test_ventricles_are_seen_to_grow() -> None:
    young, old = (make_subject(person(age=a), 3, 4.0) for a in (25.0, 85.0))
    grid = phantom_grid(4.0)
    world = [np.arange(n) * 4.0 + grid.affine[a][3] for a, n in enumerate(grid.shape)]
    deep = np.ix_(np.abs(world[0]) < 32, np.abs(world[1] + 15) < 40, np.abs(world[2] - 12) < 20)
    grown = (old.tissues[0][deep] - young.tissues[0][deep]).sum() * 4.0**3 / 1000
    declared = old.volumes_ml["ventricle"] - young.volumes_ml["ventricle"]
    # The box also holds the insular sulci and the third ventricle, which widen too.
    assert 0.8 * declared < grown < 2.5 * declared


def test_cortex_thins_with_age() -> None:
    young, old = (make_subject(person(age=a), 3, 4.0) for a in (25.0, 85.0))
    assert old.tissues[1].sum() < 0.88 * young.tissues[1].sum()
    assert old.tissues[:].sum() == pytest.approx(young.tissues.sum(), rel=3e-3)


def test_regression_finds_the_declared_effects() -> None:
    table = draw_covariates(600, 11)
    volumes = pd.DataFrame(
        [draw_volumes(row, subject_seed(11, str(label))) for label, row in table.iterrows()],
        index=table.index,
    )
    cdr = table["cdr"].astype(float).fillna(0.0)
    design = np.column_stack(
        [np.ones(600), table["age"] - 50, table["sex"] == "M", cdr, table["etiv"] - 1500]
    ).astype(float)
    inverse = np.linalg.inv(design.T @ design)
    for tissue, effect in effects_given_etiv().items():
        target = volumes[tissue].to_numpy(dtype=float)
        found = inverse @ design.T @ target
        spread = (target - design @ found).std(ddof=5)
        declared = [effect.intercept, effect.age, effect.sex_M, effect.cdr, effect.etiv]
        error = 4 * spread * np.sqrt(np.diag(inverse)) + 1e-6
        assert (np.abs(found - declared) < error).all()
        # Residuals of the ventricle are proportional to its mean, so their overall SD is larger.
        at_least, at_most = (0.9, 1.6) if tissue == "ventricle" else (0.9, 1.1)
        assert at_least * effect.residual_sd <= spread + 1e-6
        assert spread <= at_most * effect.residual_sd + 1e-6


def test_head_size_by_sex_is_the_declared_one() -> None:
    table = draw_covariates(600, 2)
    men, women = (table.loc[table["sex"] == s, "etiv"] for s in "MF")
    error = np.sqrt(men.var() / len(men) + women.var() / len(women))
    assert men.mean() - women.mean() == pytest.approx(ETIV_MALE_EXTRA_ML, abs=4 * error)
    assert effects_without_etiv()["icv"].sex_M == ETIV_MALE_EXTRA_ML


def test_head_in_the_image_has_the_size_of_the_table() -> None:
    for etiv in (1250.0, 1750.0):
        image = make_subject(person(etiv=etiv), 8, 4.0).images["T1w"]
        assert (image > 0).sum() * 4.0**3 / 1000 == pytest.approx(etiv, rel=0.03)


def test_brain_and_csf_follow_from_the_parts() -> None:
    tables = truth()["GivenEtiv"]
    for name in ("intercept", "age", "sex_M", "cdr", "etiv"):
        gm, wm, brain, csf, icv = (tables[t][name] for t in ("gm", "wm", "brain", "csf", "icv"))
        assert brain == pytest.approx(gm + wm)
        assert csf == pytest.approx(icv - brain)
    assert tables["gm"]["scanner"] == 0.0


# --- the table ----------------------------------------------------------------------------------


def test_table_is_typed_and_a_shorter_one_is_its_beginning() -> None:
    table = draw_covariates(40, 1, num_scanners=4, tumours=0.5)
    assert draw_covariates(15, 1, num_scanners=4, tumours=0.5).equals(table.iloc[:15])
    assert not draw_covariates(40, 2, num_scanners=4, tumours=0.5).equals(table)
    assert set(table.columns) == set(COLUMNS)
    assert set(table["scanner"]) == set("ABCD")
    assert table["age"].between(18, 90).all()
    assert table.loc[table["age"] < 60, "cdr"].isna().all()


def test_missing_values_are_as_many_as_asked() -> None:
    table = draw_covariates(800, 1, missing=0.2)
    assert table["education"].isna().mean() == pytest.approx(0.2, abs=0.06)
    assert draw_covariates(50, 1, missing=0.0)["education"].notna().all()
    assert table[["age", "sex", "scanner", "etiv"]].notna().all(axis=None)


@pytest.mark.parametrize(
    "wrong", [{"num_scanners": 5}, {"missing": 1.0}, {"tumours": -0.1}, {"age_range": (5.0, 60.0)}]
)
def test_table_refuses_settings_out_of_range(wrong: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        draw_covariates(3, 0, **wrong)


def test_person_without_age_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="age missing"):
        draw_volumes(person(age=np.nan), 0)


# --- images -------------------------------------------------------------------------------------


def test_a_seed_decides_everything_whatever_the_number_of_threads() -> None:
    first = make_subject(person(), 5, 8.0, ("T1w", "FLAIR"), tumour=True)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        again = make_subject(person(), 5, 8.0, ("FLAIR",), tumour=True)
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(first.images["FLAIR"], again.images["FLAIR"])
    assert np.array_equal(first.segmentation, again.segmentation)
    other = make_subject(person(), 6, 8.0).images["T1w"]
    assert correlation(first.images["T1w"], other) < 0.95


def test_people_differ_as_registered_scans_do() -> None:
    volumes = phantom_volumes(8, 0, 4.0, num_scanners=1).volumes[:, 0]
    brain = (volumes > 0).mean(0) > 0.5
    pairs = np.corrcoef(volumes[:, brain])[np.triu_indices(8, 1)]
    # Twelve registered OASIS-1 scans at 4 mm, masked likewise: mean 0.70, from 0.58 to 0.79.
    assert 0.5 < pairs.mean() < 0.85


@pytest.mark.parametrize("fine_mm", [2.0, 4.0])
def test_anatomy_is_the_same_at_every_spacing(fine_mm: float) -> None:
    fine, coarse = (make_subject(person(), 5, mm) for mm in (fine_mm, 2 * fine_mm))
    blocks = [fine.tissues.reshape(3, *(m for n in coarse.tissues.shape[1:] for m in (n, 2)))]
    averaged = blocks[0].mean((2, 4, 6))
    for tissue in range(3):
        assert np.corrcoef(averaged[tissue].ravel(), coarse.tissues[tissue].ravel())[0, 1] > 0.95
    for name, ml in fine.volumes_ml.items():
        assert coarse.volumes_ml[name] == pytest.approx(ml, rel=3e-3)


def test_scanner_changes_the_image_and_nothing_below_it() -> None:
    made = [make_subject(person(scanner=s), 5, 8.0) for s in "ABCD"]
    for other in made[1:]:
        assert np.array_equal(made[0].tissues, other.tissues)
        assert made[0].volumes_ml == other.volumes_ml
    noise = [m.images["T1w"][m.tissues[2] > 0.97].std() / m.images["T1w"].max() for m in made]
    assert len({round(n, 4) for n in noise}) == 4


def test_contrasts_order_the_tissues_as_their_sequences_do() -> None:
    subject = make_subject(person(), 5, 4.0, ("T1w", "T1c", "T2w", "FLAIR"))
    csf, gm, wm = (subject.tissues[i] > 0.9 for i in range(3))
    mean = {n: [v[m].mean() for m in (csf, gm, wm)] for n, v in subject.images.items()}
    assert mean["T1w"][0] < mean["T1w"][1] < mean["T1w"][2]
    assert mean["T2w"][0] > mean["T2w"][1] > mean["T2w"][2]
    assert mean["FLAIR"][0] < mean["FLAIR"][2] < mean["FLAIR"][1]


def test_background_is_exactly_zero_and_brain_is_not() -> None:
    subject = make_subject(person(), 5, 4.0)
    inside = subject.tissues.sum(0) > 0.5
    image = subject.images["T1w"]
    assert image.dtype == np.float32
    assert (image[~inside] == 0).all()
    assert (image[inside] > 0).mean() > 0.9999


def test_tumour_lies_in_the_brain_and_enhances() -> None:
    for seed in (1, 2, 3):
        subject = make_subject(person(), seed, 4.0, ("T1w", "T1c", "FLAIR"), tumour=True)
        labels = subject.segmentation
        assert labels is not None
        assert labels.dtype == np.uint8
        assert set(np.unique(labels)) == {0, 1, 2, 3}
        assert (subject.images["T1w"][labels > 0] > 0).all()
        rim, oedema = labels == 3, labels == 2
        gain = np.median(subject.images["T1c"] / np.maximum(subject.images["T1w"], 1), axis=None)
        enhanced = subject.images["T1c"][rim].mean() / subject.images["T1w"][rim].mean()
        assert enhanced > 1.25
        assert gain < 1.2
        white = subject.tissues[2] > 0.9
        flair = subject.images["FLAIR"]
        assert flair[oedema].mean() > 1.2 * flair[white & (labels == 0)].mean()
        whole = sum(subject.volumes_ml[part] for part in ("core", "oedema", "rim"))
        assert (labels > 0).sum() * 4.0**3 / 1000 == pytest.approx(whole, rel=0.2)
    assert make_subject(person(), 1, 8.0).segmentation is None


def test_tumour_leaves_the_anatomy_beneath_as_it_is() -> None:
    with_it, without = (make_subject(person(), 1, 8.0, tumour=t) for t in (True, False))
    assert np.array_equal(with_it.tissues, without.tissues)
    assert {k: with_it.volumes_ml[k] for k in TISSUES} == without.volumes_ml


def test_unknown_modality_and_scanner_are_named() -> None:
    with pytest.raises(UsageError, match="Did you mean 'FLAIR'"):
        make_subject(person(), 0, 8.0, ("FLAIRE",))
    with pytest.raises(UsageError, match="no scanner 'E'"):
        make_subject(person(scanner="E"), 0, 8.0)


# --- grids and sets -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spacing_mm", "shape"),
    [
        (1, (160, 192, 160)),
        (2, (80, 96, 80)),
        (3, (54, 64, 54)),
        (4, (40, 48, 40)),
        (8, (20, 24, 20)),
    ],
)
def test_grid_covers_the_field_of_view_around_the_brain(
    spacing_mm: float, shape: tuple[int, ...]
) -> None:
    grid = phantom_grid(spacing_mm)
    assert grid.shape == shape
    centre = np.array(grid.affine) @ [*((np.array(shape) - 1) / 2), 1]
    assert np.allclose(centre[:3], anatomy.CENTRE_MM)


@pytest.mark.parametrize("spacing_mm", [0.9, 8.5, float("nan")])
def test_grid_refuses_spacings_out_of_range(spacing_mm: float) -> None:
    with pytest.raises(UsageError, match="spacing_mm"):
        phantom_grid(spacing_mm)


def test_volume_set_is_as_prepared_scans_are() -> None:
    made = phantom_volumes(3, 4, 8.0, modalities=("T1w", "FLAIR"))
    assert made.volumes.shape == (3, 2, 20, 24, 20)
    assert made.volumes.dtype == np.float32
    assert made.volumes.min() == 0.0
    assert made.volumes.max() == 1.0
    assert made.grid == phantom_grid(8.0)
    assert made.channels == ("T1w", "FLAIR")
    assert made.ids == ["phantom0001", "phantom0002", "phantom0003"]
    assert np.array_equal(phantom_volumes(2, 4, 8.0).volumes[1, 0], made.volumes[1, 0])
