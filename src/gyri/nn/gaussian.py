"""A Gaussian in a few principal directions: what a linear model knows of a cohort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowRankGaussian:
    """N(mean, basis diag(variance) basisᵀ).

    Parameters
    ----------
    mean : (d,).
    basis : (d, q), orthonormal columns.
    variance : (q,), along the columns of `basis`.
    """

    mean: Tensor
    basis: Tensor
    variance: Tensor

    @classmethod
    def fit(cls, x: Tensor, components: int) -> LowRankGaussian:
        """Fit to the rows of `x`.

        Parameters
        ----------
        x : (N, d) float32.
        components : largest ``q``; at most N - 1 directions exist.
        """
        mean = x.mean(0)
        centred = x - mean
        n, d = x.shape
        q = min(components, n - 1, d)
        # The eigenvectors of the smaller of the two Gram matrices give those of the other.
        wide = d > n
        gram = centred @ centred.T if wide else centred.T @ centred
        eigenvalue, vector = torch.linalg.eigh(gram.double())
        eigenvalue, vector = eigenvalue.flip(0).clamp_min(0), vector.flip(1)
        kept = int((eigenvalue[:q] > eigenvalue[0] * 1e-10).sum()) if q else 0
        basis = vector[:, :kept].float()
        if wide:
            basis = (centred.T @ basis) / eigenvalue[:kept].sqrt().float()
        variance = eigenvalue / max(n - 1, 1)
        return cls(mean, basis, variance[:kept].float())

    @property
    def num_components(self) -> int:
        """``q``."""
        return len(self.variance)

    def project(self, x: Tensor) -> Tensor:
        """Coefficients (B, q) of the rows of `x` (B, d)."""
        return (x - self.mean) @ self.basis

    def expand(self, coefficients: Tensor) -> Tensor:
        """Points (B, d) of the coefficients (B, q)."""
        return self.mean + coefficients @ self.basis.T

    def sample(self, num: int, generator: torch.Generator) -> Tensor:
        """Draw (num, d)."""
        z = torch.randn(num, self.num_components, generator=generator, device=self.mean.device)
        return self.expand(z * self.variance.sqrt())

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors by name, for a method's `state`."""
        return {f"{prefix}.{name}": getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> LowRankGaussian:
        """Inverse of `tensors`."""
        return cls(**{name: tensors[f"{prefix}.{name}"] for name in cls.__dataclass_fields__})
