from __future__ import annotations

import numpy as np
import pytest

from gyri.reading.agreement import fleiss_kappa, krippendorff_alpha, self_kappa

NAN = np.nan
# Krippendorff (2011), "Computing Krippendorff's alpha-reliability": 4 observers, 12 units
EXAMPLE = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]).T  # fmt: skip


@pytest.mark.parametrize(
    ("scale", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_of_the_published_example(scale, alpha):
    assert krippendorff_alpha(EXAMPLE, scale) == pytest.approx(alpha, abs=0.001)


def test_kappa_of_the_published_example():
    # Fleiss (1971) as in the well-known table: 14 raters, 10 subjects, 5 categories, kappa 0.210
    counts = np.array([
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ])  # fmt: skip
    table = np.array([np.repeat(np.arange(5), row) for row in counts])
    assert fleiss_kappa(table) == pytest.approx(0.210, abs=0.001)


def test_guessing_agrees_by_chance_only():
    table = np.random.default_rng(0).integers(0, 2, (3000, 4))
    assert fleiss_kappa(table) == pytest.approx(0, abs=0.03)
    assert krippendorff_alpha(table) == pytest.approx(0, abs=0.03)


def test_one_answer_for_all_is_no_agreement_and_no_number():
    assert np.isnan(fleiss_kappa(np.ones((5, 3))))
    assert np.isnan(krippendorff_alpha(np.ones((5, 3))))
    assert np.isnan(self_kappa(np.array(["a", "a"]), np.array(["a", "a"])))


def test_self_agreement():
    first = np.array(["real", "real", "synthetic", "synthetic"])
    assert self_kappa(first, first) == 1
    assert self_kappa(first, np.array(["real", "synthetic"] * 2)) == 0
    assert self_kappa(np.array([1, 2, 5]), np.array([2, 1, 5]), "quadratic") > 0.7
