"""Walks through a code: the ends are the reconstructions, and only what is walked changes."""

from __future__ import annotations

import numpy as np
import pytest
from tests.contracts.tiny import recipe

from gyri import api
from gyri.errors import UsageError
from gyri.latent_walk import AXES, STEPS, latent_walks
from gyri.training.run import train


@pytest.mark.parametrize("name", ["vae", "gmvae"])
def test_walks_begin_and_end_at_the_reconstructions(name, tiny_cohort, tmp_path):
    run = train(recipe(name, steps=3), tiny_cohort, tmp_path / "run", quiet=True)
    walks = latent_walks(run.root, tiny_cohort)
    made = api.reconstruct(run.root, tiny_cohort, tmp_path / "out", bootstrap=10)
    rebuilt = made.arms["reconstruction"].volume_set().volumes[:, 0]
    between, *axes, over_sex = walks
    assert len(axes) == AXES
    assert between.volumes.shape == (STEPS, *rebuilt.shape[1:])
    assert np.allclose(between.volumes[0], rebuilt[0], atol=1e-3)
    assert over_sex.stops == ("F", "M")
    sexes = made.cohort.rows("HOLD")["sex"]
    own = over_sex.stops.index(sexes.iloc[0])
    assert np.allclose(over_sex.volumes[own], rebuilt[0], atol=1e-3)
    assert not np.allclose(over_sex.volumes[0], over_sex.volumes[1], atol=1e-5)
    for walk in axes:
        assert not np.allclose(walk.volumes[0], walk.volumes[-1], atol=1e-6)
    assert (made.root / "latent.png").is_file()


def test_a_method_without_a_code_is_refused(tiny_cohort, tmp_path):
    run = train(recipe("pca_gaussian"), tiny_cohort, tmp_path / "run", quiet=True)
    with pytest.raises(UsageError, match="pca_gaussian, which has no code"):
        latent_walks(run.root, tiny_cohort)
