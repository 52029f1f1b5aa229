"""SMOTE, Borderline-SMOTE and ADASYN: new subjects on the lines between training subjects.

Chawla et al., 2002, arXiv:1106.1813; Han et al., 2005, doi:10.1007/11538059_91 (Borderline-SMOTE);
He et al., 2008, doi:10.1109/IJCNN.2008.4633969 (ADASYN); all three by imbalanced-learn. The classes
are the levels of one condition: a sample for a level lies between a subject of that level and one
of its nearest neighbours of the same level. Other conditions are not followed. Samples are weighted
means of two training subjects, which is why release refuses them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gyri.errors import DataError, UnavailableError, UsageError
from gyri.nn.gaussian import LowRankGaussian
from gyri.registry import METHODS
from gyri.types import ItemSpec, Lift, Method, SampleRng

PROPOSALS = {"smote": 1, "borderline": 1, "adasyn": 256}
"""Points asked of imbalanced-learn for one sample. ADASYN rounds every subject's share of them to a
whole number, so it needs many; one of them is drawn."""
MAX_SEED = 2**31


@dataclass(frozen=True, kw_only=True)
class SMOTEConfig:
    """Settings of `SMOTE`.

    Parameters
    ----------
    kind : ``smote`` starts from any subject of the class, ``borderline`` from those most of whose
        neighbours are of other classes, ``adasyn`` from each in proportion to that share.
    space : ``pca`` looks for neighbours among, and is made of, the first `components` principal
        components; ``voxels`` of the voxels themselves.
    components : with ``pca``.
    neighbours : of the same class, one of which is drawn.
    border_neighbours : of any class, which say how near the border a subject is (``borderline``).
    column : which column of the condition is the class, counted from 0; a categorical one.
    first_against_rest : take all levels but the first as one class: CDR 0 against above 0.
    """

    kind: Literal["smote", "borderline", "adasyn"] = "smote"
    space: Literal["pca", "voxels"] = "pca"
    components: int = 50
    neighbours: int = 5
    border_neighbours: int = 10
    column: int = 0
    first_against_rest: bool = False

    def __post_init__(self) -> None:
        for name in ("components", "neighbours", "border_neighbours"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1.")


@METHODS.register("smote", SMOTEConfig)
class SMOTE(Method):
    """Interpolates between TRAIN subjects of one class; fitted, not trained.

    Distances and interpolation are the same among voxels and among all principal components, so
    ``voxels`` is computed in the latter.

    Raises
    ------
    UsageError
        If the view cuts a volume into several items, or the class is no categorical condition.
    """

    contains_training_data: ClassVar[bool] = True
    config: SMOTEConfig

    def __init__(self, config: SMOTEConfig, spec: ItemSpec, networks: dict[str, nn.Module]) -> None:
        super().__init__(config, spec, networks)
        if spec.items_per_volume != 1:
            raise UsageError(
                f"smote needs one item a volume, this view makes {spec.items_per_volume}. "
                "Use `view: volume` or `view: stack`."
            )
        self.start, self.stop = spec.condition.levels(config.column, "SMOTE needs classes")

    def fit(self, x: Tensor, condition: Tensor) -> dict[str, float]:
        """Keep codes and classes of (N, C, *S) items; subjects of no known class are left out.

        Raises
        ------
        DataError
            If a class has too few subjects, or its subjects have no neighbours to go to.
        UnavailableError
            Without imbalanced-learn.
        """
        every = len(x) if self.config.space == "voxels" else self.config.components
        basis = LowRankGaussian.fit(x.flatten(1), every)
        label = self._classes(condition)
        known = label >= 0
        self.state = {
            **basis.tensors("basis"),
            "code": basis.project(x.flatten(1))[known],
            "label": label[known],
        }
        self._check_classes()
        sizes = {f"class_{c}": float(n) for c, n in enumerate(self._sizes())}
        left_out = float((~known).sum())
        return {"components": float(basis.num_components), "class_missing": left_out, **sizes}

    def _classes(self, condition: Tensor) -> Tensor:
        """Class (B,) int64 of conditions (B, D); -1 where it is missing."""
        code = condition[:, self.start : self.stop]
        label = code.argmax(1)
        if self.config.first_against_rest:
            label = label.clamp_max(1)
        return torch.where(condition[:, self.stop] > 0, -1, label)

    def _sizes(self) -> list[int]:
        count = 2 if self.config.first_against_rest else self.stop - self.start
        return torch.bincount(self.state["label"], minlength=count).tolist()

    def _check_classes(self) -> None:
        """Refuse classes that nothing can be made of, while it is known which."""
        sizes = self._sizes()
        least = self.config.neighbours + 1
        if min(sizes) < least:
            told = ", ".join(f"{n} of level {c}" for c, n in enumerate(sizes))
            raise DataError(
                f"TRAIN has {told} in column {self.config.column} of the condition; "
                f"neighbours {self.config.neighbours} needs at least {least} of each. Lower "
                "neighbours, set first_against_rest to merge rare levels, or take another column."
            )
        for label in range(len(sizes)):
            self._draw(label, seed=0)

    def sample(self, lift: Lift, condition: Tensor, rng: SampleRng) -> Tensor:
        """Make one volume for each row of `condition`; a missing class is drawn as in TRAIN."""
        uniform = rng.uniform((3,)).double().cpu()
        mix = self.state["label"].cpu()
        chance = mix[(uniform[:, 0] * len(mix)).long()]
        label = self._classes(condition).cpu()
        label = torch.where(label < 0, chance, label)
        codes = []
        for own, (_, start, pick) in zip(label.tolist(), uniform.tolist()):
            found = self._draw(own, int(start * MAX_SEED))
            codes.append(found[int(pick * len(found))])
        basis = LowRankGaussian.from_tensors(self.state, "basis")
        code = torch.from_numpy(np.stack(codes)).to(basis.mean)
        items = basis.expand(code).unflatten(1, (self.spec.channels, *self.spec.shape))
        return lift.decode(items)

    def _draw(self, label: int, seed: int) -> np.ndarray:
        """Return new codes (M, q) of a class, M at least 1."""
        code = self.state["code"].double().cpu().numpy()
        classes = self.state["label"].cpu().numpy()
        num = PROPOSALS[self.config.kind]
        sampler = self._sampler({label: int((classes == label).sum()) + num}, seed)
        found = np.empty((0, code.shape[1]))
        with warnings.catch_warnings():
            # A class may become larger than the others: it is not made to balance them.
            warnings.filterwarnings("ignore", "After over-sampling, the number of samples")
            try:
                found = sampler.fit_resample(code, classes)[0][len(code) :]
            except (ValueError, RuntimeError) as error:
                raise DataError(
                    f"imbalanced-learn made nothing of level {label}: {error} Change neighbours, "
                    "or take kind smote."
                ) from error
        if not len(found):
            raise DataError(
                f"No TRAIN subject of level {label} lies at the border: fewer than half, or all, "
                f"of its {self.config.border_neighbours} nearest are of other levels. Change "
                "border_neighbours, or take kind smote."
            )
        return np.asarray(found)

    def _sampler(self, strategy: dict[int, int], seed: int) -> Any:
        try:
            from imblearn import over_sampling
        except ImportError:
            raise UnavailableError(
                "SMOTE needs imbalanced-learn, which is not installed. Run "
                "`pip install 'gyri[utility]'`."
            ) from None
        config = self.config
        common = {"sampling_strategy": strategy, "random_state": seed}
        if config.kind == "adasyn":
            return over_sampling.ADASYN(n_neighbors=config.neighbours, **common)
        if config.kind == "borderline":
            return over_sampling.BorderlineSMOTE(
                k_neighbors=config.neighbours, m_neighbors=config.border_neighbours, **common
            )
        return over_sampling.SMOTE(k_neighbors=config.neighbours, **common)
