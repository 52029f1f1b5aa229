"""The loss of held-out subjects while a run trains.

Subjects, items and noise are the same at every step and in every run of a view, so that a curve
shows what the weights do and nothing else. Nothing here is read by the training: a run with
validation ends with the weights of one without.
"""

from __future__ import annotations

from torch import Tensor, arange, full_like

from gyri.cohort.prepared import PreparedCohort
from gyri.conditions import ConditionSchema
from gyri.errors import DataError
from gyri.recipe import Recipe
from gyri.runtime import distributed
from gyri.runtime.seeding import derive_seed
from gyri.runtime.streams import SampleRng
from gyri.training.data import Feed, load_split
from gyri.training.scoring import NO_ROW, known_conditions
from gyri.types import Method, Progress

SPLIT = "VAL"
DRAWS = 4
"""Items of each scan, each with noise of its own."""


def refuse_without_subjects(recipe: Recipe, cohort: PreparedCohort) -> None:
    """Say what to do where validation is asked for and nobody is held out for it.

    Raises
    ------
    DataError
        If the cohort has no scan in VAL.
    """
    if recipe.training.validate_every and not len(cohort.rows(SPLIT, recipe.data.sessions)):
        raise DataError(
            f"training.validate_every is {recipe.training.validate_every}, and {cohort.root} has "
            f"no subject in {SPLIT}. Prepare the cohort with some (`gyri prepare ... --split`), or "
            "set training.validate_every=0."
        )


class Validation:
    """Mean loss of the first phase over held-out subjects.

    Dropout is off and running statistics stay. A loss that follows a schedule (a warm-up of one of
    its terms) is that of the step, as the training loss beside it.

    Parameters
    ----------
    method : the method in training; its networks are those that it has when called.
    feed : of the held-out subjects.
    size : items a forward pass, whole groups.
    """

    def __init__(self, method: Method, feed: Feed, size: int) -> None:
        self.method, self.feed, self.size = method, feed, size
        total = DRAWS * len(feed)
        self.positions = arange(total + -total % method.group)

    def __call__(self, progress: Progress) -> dict[str, float]:
        """Return ``loss`` and the method's other logs, means over all items."""
        networks = self.method.networks.values()
        modes = {module: module.training for network in networks for module in network.modules()}
        for network in networks:
            network.eval().requires_grad_(False)
        sums: dict[str, float] = {}
        try:
            for positions in self.positions.split(self.size):
                for name, value in self._losses(positions, progress).items():
                    share = len(positions) / len(self.positions)
                    sums[name] = sums.get(name, 0.0) + share * float(value)
        finally:
            for module, mode in modes.items():
                module.training = mode
        return sums

    def _losses(self, positions: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return the logs of one batch; gradients of its input, as of a penalty, can be taken."""
        batch = self.feed.take(positions % len(self.feed), positions)
        batch.subject = full_like(batch.subject, NO_ROW)
        rng = SampleRng(batch.seed, self.feed.device)
        loss = self.method.loss(self.method.phases[0].name, batch, progress, rng)
        return {"loss": loss.total.detach(), **{k: v.detach() for k, v in loss.logs.items()}}


def build_validation(
    recipe: Recipe, cohort: PreparedCohort, schema: ConditionSchema, method: Method, feed: Feed
) -> Validation:
    """Return the validation of a run on VAL's scans, which are not augmented.

    A level that TRAIN never held counts as missing.

    Parameters
    ----------
    feed : TRAIN's; VAL is cut by its view.
    """
    rows = cohort.rows(SPLIT, recipe.data.sessions)
    condition = schema.encode([known_conditions(schema, row) for _, row in rows.iterrows()])
    volumes = load_split(cohort, SPLIT, recipe.data, feed.device)
    held_out = Feed(volumes, condition.to(feed.device), feed.view, derive_seed("validation"))
    size = recipe.training.micro_batch or recipe.training.batch_size // distributed.world_size()
    return Validation(method, held_out, size)
