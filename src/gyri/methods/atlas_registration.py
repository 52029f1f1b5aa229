"""What all learned registrations of a template to scans share.

The template moves, a subject's scan is fixed: the deformation says, for each voxel of the scan,
where in the template it is found (`gyri.nn.deformation`). So the template's labels come to the scan
by the same field, and a field of nobody makes a brain of nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.nn.deformation import diffusion_energy, exponential, resize_field, warp
from gyri.nn.local_correlation import local_correlation
from gyri.types import Batch, ItemSpec, Method, Progress, SampleRng

Form = Literal["velocity", "displacement"]


@dataclass(frozen=True, kw_only=True)
class RefinementConfig:
    """Descent on a scan's own field, starting from what the network says.

    A network that saw a hundred scans finds the large part of a deformation at once; some steps on
    the scan itself find what its regions need.

    Parameters
    ----------
    steps : of Adam; 0 takes the network's word.
    lr : largest change of a node a step, in voxels of the field's grid, roughly.
    window, smoothness : as in training.
    """

    steps: int = 0
    lr: float = 0.1
    window: int = 5
    smoothness: float = 3.0


@dataclass(frozen=True, kw_only=True)
class AtlasRegistrationConfig:
    """Settings that all learned registrations have.

    Parameters
    ----------
    form : what the network's field is: a stationary ``velocity``, integrated into a deformation
        with an inverse, or the ``displacement`` itself, which may fold.
    window : side in voxels of the windows whose correlation is maximised.
    smoothness : weight of the field's mean squared gradient beside the correlation.
    ema_half_life_images : half-life of the moving average of the weights, 0 for none.
    refinement : what follows the network when a scan is registered; may be changed after training.
    """

    form: Form = "velocity"
    window: int = 9
    smoothness: float = 1.0
    ema_half_life_images: float = 0.0
    refinement: RefinementConfig = field(default_factory=RefinementConfig)


class AtlasRegistration(Method):
    """Base of methods that deform a template to scans.

    Attributes
    ----------
    state : holds ``template`` (C, I, J, K) in [-1, 1].
    """

    config: AtlasRegistrationConfig

    def __init__(
        self, config: AtlasRegistrationConfig, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        self.state = {"template": torch.full((spec.channels, *spec.shape), -1.0)}

    @classmethod
    def refuse_other_items(cls, spec: ItemSpec) -> None:
        """Raise `UsageError` unless items are volumes."""
        if spec.dims != 3 or spec.items_per_volume != 1:
            raise UsageError(
                f"A registration deforms volumes; this view makes {spec.items_per_volume} items of "
                f"{spec.dims} axes of one. Take the view volume."
            )

    @property
    def form(self) -> Form:
        """What `field` returns."""
        return self.config.form

    @property
    def template(self) -> Tensor:
        """The template as a batch of one, (1, C, I, J, K)."""
        return self.state["template"][None]

    def take_template(self, template: Tensor) -> None:
        """Register this volume (C, I, J, K) in [-1, 1] to scans from now on."""
        if template.shape != self.state["template"].shape:
            raise UsageError(
                f"The template has the shape {tuple(template.shape)}, the scans have "
                f"{tuple(self.state['template'].shape)}. Bring it to their grid."
            )
        self.state["template"] = template

    def ema_half_life(self, network: str, progress: Progress) -> float | None:
        """Half-life that the recipe sets."""
        return self.config.ema_half_life_images or None

    def displacement(self, field: Tensor, eta: float = 1.0) -> Tensor:
        """Return the displacement (B, 3, I, J, K) that a field stands for.

        Parameters
        ----------
        field : what `field` returned, or one like it, on any grid over the same box.
        eta : how far to go: 0 is the template, 1 the subject; -1 the inverse of a velocity's. A
            displacement is scaled.

        A velocity is integrated on its own grid, as published.
        """
        u = exponential(eta * field) if self.form == "velocity" else eta * field
        return resize_field(u, self.spec.shape)

    def similarity(self, fixed: Tensor, u: Tensor, window: int | None = None) -> Tensor:
        """Mean squared local correlation (B,) of the warped template with scans (B, C, I, J, K)."""
        return local_correlation(warp(self.template, u), fixed, window or self.config.window)

    def registration_loss(
        self,
        fixed: Tensor,
        field: Tensor,
        settings: AtlasRegistrationConfig | RefinementConfig | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return ``1 - similarity + smoothness energy`` (B,) and logs.

        Parameters
        ----------
        fixed : scans (B, C, I, J, K).
        field : (B, 3, I', J', K').
        settings : whose window and smoothness count; the method's own by default.
        """
        settings = settings or self.config
        field = field.float()
        similarity = self.similarity(fixed, self.displacement(field), settings.window)
        energy = diffusion_energy(field)
        logs = {
            "local_correlation": similarity.mean().detach(),
            "smoothness": energy.mean().detach(),
        }
        return 1 - similarity + settings.smoothness * energy, logs

    def trajectory(self, x: Tensor, eta: float) -> Tensor:
        """Return the displacement (B, 3, I, J, K) that goes the share `eta` of the way to scans."""
        return self.displacement(self.field(x), eta)

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        """Return the template (B, C, I, J, K), deformed to each scan."""
        return warp(self.template, self.displacement(self.field(batch.x)))

    @torch.no_grad()
    def score(self, batch: Batch, rng: SampleRng) -> Tensor:
        """Return the registration's loss (B,) of scans."""
        return self.registration_loss(batch.x, self.field(batch.x))[0]

    def propose(self, x: Tensor) -> Tensor:
        """Return what the network says: fields (B, 3, I', J', K') to scans (B, C, I, J, K)."""
        raise NotImplementedError

    def field(self, x: Tensor) -> Tensor:
        """Return the fields (B, 3, I', J', K') to scans (B, C, I, J, K), voxels of their own grid.

        They are what the network says, refined where the recipe asks for it.
        """
        field, settings = self.propose(x), self.config.refinement
        if settings.steps == 0:
            return field
        with torch.enable_grad():
            refined = field.detach().clone().requires_grad_(True)
            descent = torch.optim.Adam([refined], lr=settings.lr)
            for _ in range(settings.steps):
                losses, _ = self.registration_loss(x, refined, settings)
                (refined.grad,) = torch.autograd.grad(losses.sum(), [refined])
                descent.step()
        return refined.detach()
