"""Closed forms: spheres, shells, slabs and slits at 2 mm."""

from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.cortex_geometry import (
    LINES,
    Ribbon,
    capped_distance,
    envelope_depth,
    level_area,
    line_shares,
    surface_area,
    transition_width,
)

ISOTROPIC = (2.0, 2.0, 2.0)
ANISOTROPIC = (1.0, 1.5, 2.0)
FINE = 3


def sample(shape, spacing_mm, of_millimetres) -> np.ndarray:
    """Mean over each voxel of a function of millimetres from the grid's middle."""
    axes = [
        ((np.arange(n * FINE) + 0.5) / FINE - n / 2) * s
        for n, s in zip(shape, spacing_mm, strict=True)
    ]
    fine = of_millimetres(*np.ix_(*axes)).astype(np.float32)
    blocks = [part for n in shape for part in (n, FINE)]
    return fine.reshape(blocks).mean((1, 3, 5))


def shells(inner_mm, outer_mm, spacing_mm=ISOTROPIC, shift_mm=0.0) -> np.ndarray:
    """White ball in a grey shell, mixed where a voxel holds both."""
    shape = [int(2 * (outer_mm + 6) / s) for s in spacing_mm]

    def position(x, y, z):
        radius = np.sqrt((x - shift_mm) ** 2 + y**2 + z**2)
        return (radius < outer_mm) * 1.0 + (radius < inner_mm)

    return sample(shape, spacing_mm, position)


def mean_thickness(ribbon: Ribbon) -> float:
    return len(ribbon) / float((1 / ribbon.thickness(10.0)).sum())


def test_lines_share_out_all_directions():
    shares = line_shares((1.0, 1.0, 1.0))
    assert shares.sum() == pytest.approx(1)
    # Lehmann and Legland 2012, table 1: both directions of a line.
    length = np.abs(LINES).sum(1)
    for steps, share in ((1, 0.0915558), (2, 0.0739613), (3, 0.0703913)):
        assert shares[length == steps] == pytest.approx(share, abs=5e-4)


@pytest.mark.parametrize("spacing_mm", [ISOTROPIC, ANISOTROPIC])
@pytest.mark.parametrize("radius_mm", [20.0, 33.3])
def test_area_of_a_sphere(radius_mm, spacing_mm):
    ball = shells(radius_mm, radius_mm, spacing_mm, shift_mm=0.6) / 2
    truth = 4 * np.pi * radius_mm**2
    assert surface_area(ball > 0.5, spacing_mm) == pytest.approx(truth, rel=0.02)
    assert level_area(ball, (0.3, 0.4, 0.5, 0.6, 0.7), spacing_mm) == pytest.approx(truth, rel=0.01)


def test_area_counts_where_it_is_asked_for():
    ball = shells(20.0, 20.0) > 1
    half = np.zeros(ball.shape, bool)
    half[: ball.shape[0] // 2] = True
    parts = [surface_area(ball, ISOTROPIC, part) for part in (half, ~half)]
    assert sum(parts) == pytest.approx(surface_area(ball, ISOTROPIC))
    # A crossing counts at its first voxel: the cut lies half a voxel off the middle, 1 mm of 20.
    assert parts[0] == pytest.approx(parts[1], rel=0.06)


@pytest.mark.parametrize("spacing_mm", [ISOTROPIC, ANISOTROPIC])
@pytest.mark.parametrize("thickness_mm", [2.0, 2.5, 3.0, 4.0])
def test_thickness_of_shells(thickness_mm, spacing_mm):
    ribbon = Ribbon(shells(30.0, 30.0 + thickness_mm, spacing_mm), spacing_mm)
    assert mean_thickness(ribbon) == pytest.approx(thickness_mm, abs=0.1)
    assert ribbon.thickness(10.0).std() < 0.2


def test_thickness_of_a_tight_fold_and_of_a_thin_sheet():
    assert mean_thickness(Ribbon(shells(15.0, 18.0), ISOTROPIC)) == pytest.approx(3, abs=0.1)
    # Thinner than a voxel, the partial volumes of both sides run into each other.
    assert mean_thickness(Ribbon(shells(30.0, 31.5), ISOTROPIC)) == pytest.approx(1.5, abs=0.25)


def test_few_sweeps_reach_the_solution():
    ribbon = Ribbon(shells(20.0, 26.0), ISOTROPIC)
    assert np.abs(ribbon.potential() - ribbon.potential(2000)).max() < 0.01
    tangent = ribbon.tangent(ribbon.potential())
    np.testing.assert_allclose(ribbon.length(tangent), ribbon.length(tangent, 100), atol=0.05)


def test_no_line_runs_in_an_island_and_a_long_one_is_cut():
    island = np.full((12, 12, 12), 2, np.float32)
    island[5:7, 5:7, 5:7] = 1
    inner = Ribbon(island, ISOTROPIC)
    lines = inner.thickness(6.0)[np.isin(inner.voxels, np.flatnonzero(island == 1))]
    assert lines.size == 8
    assert np.isnan(lines).all()
    thick = Ribbon(shells(6.0, 24.0), ISOTROPIC).thickness(6.0)
    assert np.nanmax(thick) == 6.0


@pytest.mark.parametrize("gap_mm", [4.0, 5.0, 6.0, 7.0])
def test_banks_that_touch_are_parted_in_the_middle(gap_mm):
    edges = np.arange(31) * 2.0 - 30.0
    grey = np.diff(np.clip(edges, 0.3 - gap_mm / 2, 0.3 + gap_mm / 2)) / 2
    slabs = np.tile((2 - grey).astype(np.float32)[:, None, None], (1, 30, 30))
    ribbon = Ribbon(slabs, ISOTROPIC)
    i, j, k = np.unravel_index(ribbon.voxels, slabs.shape)
    inside = (np.minimum(j, k) > 7) & (np.maximum(j, k) < 22) & (np.abs(i - 14.5) < 6)
    area = ribbon.close_sulci(ISOTROPIC)[inside].sum()
    assert area == pytest.approx(2 * (14 * 2.0) ** 2, rel=0.02)
    assert ribbon.thickness(10.0)[inside].mean() == pytest.approx(gap_mm / 2, abs=0.2)


def test_an_open_sheet_is_not_parted():
    ribbon = Ribbon(shells(20.0, 23.0), ISOTROPIC)
    before = ribbon.thickness(10.0)
    assert ribbon.close_sulci(ISOTROPIC).sum() == 0
    np.testing.assert_array_equal(ribbon.thickness(10.0), before)


@pytest.mark.parametrize("spacing_mm", [ISOTROPIC, ANISOTROPIC])
def test_capped_distance_matches_scipy(spacing_mm):
    from scipy import ndimage

    inside = np.random.default_rng(0).random((24, 20, 22)) < 0.002
    truth = ndimage.distance_transform_edt(~inside, sampling=spacing_mm)
    found = capped_distance(inside, spacing_mm, 9.0)
    np.testing.assert_allclose(found, np.minimum(truth, 9.0), atol=0.01)


def test_gyrification_of_a_sphere_is_one():
    ball = shells(33.0, 33.0) / 2
    depth = envelope_depth(ball > 0.5, ISOTROPIC, 15.0, 20.0)
    ratio = surface_area(ball > 0.5, ISOTROPIC) / surface_area(depth > 0, ISOTROPIC)
    assert ratio == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("depth_mm", [8.0, 16.0])
def test_depth_of_a_slit(depth_mm):
    block = np.zeros((40, 40, 40), bool)
    block[5:35, 5:35, 5:35] = True
    slit = np.zeros_like(block)
    slit[19:21, :, 35 - int(depth_mm / 2) : 35] = block[19:21, :, 35 - int(depth_mm / 2) : 35]
    depth = envelope_depth(block & ~slit, ISOTROPIC, 15.0, 20.0)
    # Far from the block's own edges; the first voxel's middle lies half a voxel deep.
    floor = depth[19:21, 15:25, 5:35].max(2)[slit[19:21, 15:25].any(2)]
    middle = depth[19:21, 15:25][slit[19:21, 15:25]]
    assert middle.max() == pytest.approx(depth_mm, abs=1.5)
    assert middle.mean() == pytest.approx(depth_mm / 2, abs=1.5)
    assert floor.min() >= middle.max()


def test_gyrification_of_a_ball_with_a_gap():
    """A gap between concentric spheres is too narrow for the envelope, and both walls count."""

    def body(x, y, z):
        radius = np.sqrt(x**2 + y**2 + z**2)
        return (radius < 33.0) & ~((radius > 20.0) & (radius < 25.0))

    ball = sample((40, 40, 40), ISOTROPIC, body) > 0.5
    depth = envelope_depth(ball, ISOTROPIC, 15.0, 20.0)
    ratio = surface_area(ball, ISOTROPIC) / surface_area(depth > 0, ISOTROPIC)
    assert ratio == pytest.approx((33**2 + 25**2 + 20**2) / 33**2, rel=0.02)


def test_transition_of_a_ramp():
    ramp = np.broadcast_to(np.linspace(0, 1, 21, dtype=np.float32)[:, None, None], (21, 5, 5))
    everywhere = np.ones(ramp.shape, bool)
    assert transition_width(ramp, 0.5, 0.2, ISOTROPIC, everywhere) == pytest.approx(40.0, rel=1e-4)
    assert transition_width(ramp, 0.5, 0.2, ISOTROPIC, ~everywhere) == 0.0


def test_nothing_to_measure():
    for value in (0.0, 1.0, 2.0):
        ribbon = Ribbon(np.full((6, 5, 4), value, np.float32), ISOTROPIC)
        assert ribbon.close_sulci(ISOTROPIC).sum() == 0
        assert ribbon.thickness(6.0).size == (120 if value == 1 else 0)
    assert (envelope_depth(np.zeros((4, 4, 4), bool), ISOTROPIC, 15.0, 20.0) <= 0).all()
