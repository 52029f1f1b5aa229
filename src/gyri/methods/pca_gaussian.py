"""PCA-Gaussian: the classical baseline that every learned model must beat.

Principal components of TRAIN with Gaussian coefficients, whose mean follows the conditions by
ridge regression.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.nn.gaussian import LowRankGaussian
from gyri.registry import METHODS
from gyri.types import ItemSpec, Lift, Method, SampleRng


@dataclass(frozen=True, kw_only=True)
class PCAGaussianConfig:
    """Settings of the PCA-Gaussian.

    Parameters
    ----------
    components : largest number of principal components.
    ridge : penalty of the regression of coefficients on conditions, in units of subjects.
    """

    components: int = 150
    ridge: float = 5.0


@METHODS.register("pca_gaussian", PCAGaussianConfig)
class PCAGaussian(Method):
    """Samples ``mean + basis (regression(condition) + Gaussian residual)``; fitted, not trained.

    Raises
    ------
    UsageError
        If the view cuts a volume into several items, which would be drawn independently.
    """

    config: PCAGaussianConfig

    def __init__(
        self, config: PCAGaussianConfig, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        if spec.items_per_volume != 1:
            raise UsageError(
                f"pca_gaussian needs one item a volume, this view makes {spec.items_per_volume}. "
                "Use `view: volume` or `view: stack`."
            )

    def fit(self, x: Tensor, condition: Tensor) -> dict[str, float]:
        """Fit basis, regression and residual covariance on (N, C, *S) items and (N, D)."""
        gaussian = LowRankGaussian.fit(x.flatten(1), self.config.components)
        coefficients = gaussian.project(x.flatten(1))
        design = self._design(condition)
        penalty = self.config.ridge * torch.eye(design.shape[1], device=x.device)
        penalty[0, 0] = 0.0
        weight = torch.linalg.solve(design.T @ design + penalty, design.T @ coefficients)
        residual = coefficients - design @ weight
        covariance = residual.T @ residual / max(len(x) - 1, 1)
        # The covariance has rank below q when conditions explain directions whole.
        jitter = 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance), device=x.device)
        self.state = {
            **gaussian.tensors("gaussian"),
            "weight": weight,
            "cholesky": torch.linalg.cholesky((covariance + jitter).double()).float(),
        }
        total = x.flatten(1).var(0).sum()
        return {
            "components": float(gaussian.num_components),
            "explained": float(gaussian.variance.sum() / total),
            "explained_by_conditions": float(1 - residual.var(0).sum() / coefficients.var(0).sum()),
        }

    def sample(self, lift: Lift, condition: Tensor, rng: SampleRng) -> Tensor:
        """Draw one volume for each row of `condition`."""
        gaussian = LowRankGaussian.from_tensors(self.state, "gaussian")
        noise = rng.normal((gaussian.num_components,)) @ self.state["cholesky"].T
        coefficients = self._design(condition) @ self.state["weight"] + noise
        items = gaussian.expand(coefficients).unflatten(1, (self.spec.channels, *self.spec.shape))
        return lift.decode(items)

    @staticmethod
    def _design(condition: Tensor) -> Tensor:
        return torch.cat([torch.ones(len(condition), 1, device=condition.device), condition], 1)
