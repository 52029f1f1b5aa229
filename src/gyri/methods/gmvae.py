"""Gaussian-mixture VAE: the code has one Gaussian a class, known (a scanner) or found.

Shu's form of Dilokthanakul et al., 2016, arXiv:1611.02648: p(y) = 1/K, p(z|y) Gaussian with
learned mean and variance, p(x|z); q(y|x) and q(z|x,y). The sum over classes is exact: K passes of
encoder and decoder for items of unknown class, one for known ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from gyri.errors import UsageError
from gyri.methods.gaussian_autoencoder import CodeConfig, GaussianAutoencoder
from gyri.nn.variational import DiagonalGaussian
from gyri.registry import METHODS
from gyri.types import Batch, ItemSpec, Loss, NetworkSpec, Progress, SampleRng


@dataclass(frozen=True, kw_only=True)
class GMVAEConfig(CodeConfig):
    """Settings of `GMVAE`; see `gyri.methods.gaussian_autoencoder.CodeConfig`.

    Parameters
    ----------
    classes : K, Gaussians of the code that are found without labels; or
    column : which column of the condition is the class, counted from 0; a categorical one. One of
        the two. An item whose class is missing counts for every class, in proportion to q(y|x).
    beta : weight of both divergences, that of the code and that of the class.
    classifying : weight of the cross-entropy of q(y|x) where the class is known.
    """

    classes: int | None = None
    column: int | None = None
    classifying: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a mixture of none, and one whose classes are both known and to be found."""
        super().__post_init__()
        if (self.classes is None) == (self.column is None):
            raise UsageError(
                "Give one of classes (how many are to be found) and column (which condition is "
                f"the class); classes is {self.classes} and column {self.column}."
            )
        if self.classes is not None and self.classes < 1:
            raise UsageError(f"classes is {self.classes}; it must be at least 1.")

    def span(self, spec: ItemSpec) -> tuple[int, int]:
        """Return where the class lies in a condition vector, (0, K) if it is not in there."""
        if self.column is None:
            return 0, self.classes or 0
        return spec.condition.levels(self.column, "A mixture by class needs classes")


@METHODS.register("gmvae", GMVAEConfig)
class GMVAE(GaussianAutoencoder):
    """Gaussian-mixture VAE: a code with one Gaussian for each class, known or found."""

    config: GMVAEConfig

    def __init__(self, config: GMVAEConfig, spec: ItemSpec, networks: dict[str, nn.Module]) -> None:
        super().__init__(config, spec, networks)
        start, stop = config.span(spec)
        self.classes = stop - start

    @classmethod
    def network_specs(cls, config: GMVAEConfig, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """Networks for q(y|x), q(z|x,y), p(x|z) and p(z|y); all but the last see conditions too."""
        start, stop = config.span(spec)
        classes, size = stop - start, spec.condition.size
        seen = NetworkSpec(0, 0, spec.shape, size, spec.position_size)
        image = replace(seen, in_channels=spec.channels)
        twice = 2 * config.latent_size
        return {
            "classifier": replace(image, condition_size=0, latent_size=classes),
            "encoder": replace(image, condition_size=size + classes, latent_size=twice),
            "decoder": replace(seen, out_channels=spec.channels, latent_size=config.latent_size),
            "prior": replace(seen, condition_size=classes, position_size=0, latent_size=twice),
        }

    @classmethod
    def default_networks(cls, config: GMVAEConfig) -> dict[str, str]:
        """Convolutional networks; set ``prior: {spread: 1}`` to begin with classes apart."""
        return {
            "classifier": "conv_encoder",
            "encoder": "conv_encoder",
            "decoder": "conv_decoder",
            "prior": "condition_prior",
        }

    def known_class(self, condition: Tensor) -> Tensor:
        """Return the class of each item one-hot (B, K), zeros where it is not known."""
        if self.config.column is None:
            return condition.new_zeros(len(condition), self.classes)
        start, stop = self.config.span(self.spec)
        return condition[:, start:stop]

    def log_classes(self, batch: Batch) -> Tensor:
        """Return log q(y|x), (B, K)."""
        nothing = batch.condition[:, :0]
        return self.networks["classifier"](batch.x, nothing, batch.position).log_softmax(1)

    def _prior(self, of_class: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian.of(self.networks["prior"](of_class))

    def _posterior(self, batch: Batch, of_class: Tensor) -> DiagonalGaussian:
        label = torch.cat([batch.condition, of_class], dim=1)
        return DiagonalGaussian.of(self.networks["encoder"](batch.x, label, batch.position))

    def _given(self, batch: Batch, of_class: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return error and divergence of the code (B,) of items of the class `of_class` (B, K)."""
        posterior = self._posterior(batch, of_class)
        rebuilt = self.decode(posterior.at(noise), batch.condition, batch.position)
        error = self.config.reconstruction.error(batch.x, rebuilt)
        return error, posterior.kl(self._prior(of_class)).sum(1)

    def _terms(self, batch: Batch, rng: SampleRng) -> dict[str, Tensor]:
        """Return the terms (B,) of the negative ELBO, and the cross-entropy of known classes."""
        noise = rng.normal((self.config.latent_size,))
        log_q, label = self.log_classes(batch), self.known_class(batch.condition)
        known = label.sum(1) > 0
        share = torch.where(known[:, None], label, log_q.exp())
        if bool(known.all()):
            error, kl = self._given(batch, label, noise)
        else:
            error, kl = noise.new_zeros(len(noise)), noise.new_zeros(len(noise))
            for k in range(self.classes):
                own = one_hot(torch.full_like(batch.subject, k), self.classes).to(noise)
                class_error, class_kl = self._given(batch, own, noise)
                error = error + share[:, k] * class_error
                kl = kl + share[:, k] * class_kl
        entropy = torch.where(known, 0.0, -(log_q.exp() * log_q).sum(1))
        return {
            "reconstruction": error,
            "kl": kl,
            "kl_class": math.log(self.classes) - entropy,
            "cross_entropy": -(label * log_q).sum(1),
        }

    def _negative_elbo(self, terms: dict[str, Tensor]) -> Tensor:
        return terms["reconstruction"] + self.config.beta * (terms["kl"] + terms["kl_class"])

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Return the negative ELBO and the cross-entropy of known classes."""
        terms = self._terms(batch, rng)
        own = self._negative_elbo(terms) + self.config.classifying * terms["cross_entropy"]
        return Loss(own.mean(), {name: term.mean().detach() for name, term in terms.items()})

    def score(self, batch: Batch, rng: SampleRng) -> Tensor:
        """Return the negative ELBO (B,) with one draw of the code."""
        return self._negative_elbo(self._terms(batch, rng))

    def likeliest(self, batch: Batch) -> Tensor:
        """Return the class of each item one-hot (B, K): the known one, else the likeliest."""
        label = self.known_class(batch.condition)
        found = one_hot(self.log_classes(batch).argmax(1), self.classes).to(label)
        return torch.where(label.sum(1, keepdim=True) > 0, label, found)

    @torch.no_grad()
    def codes(self, batch: Batch) -> Tensor:
        """Return the posterior's mean (B, L) under the known or the likeliest class."""
        return self._posterior(batch, self.likeliest(batch)).mean

    def prior_of_volumes(self, condition: Tensor, rng: SampleRng) -> DiagonalGaussian:
        """Return the prior of the known class, or of one drawn with equal chances."""
        label = self.known_class(condition)
        drawn = (rng.uniform() * self.classes).long().clamp_max(self.classes - 1)
        found = one_hot(drawn, self.classes).to(label)
        return self._prior(torch.where(label.sum(1, keepdim=True) > 0, label, found))
