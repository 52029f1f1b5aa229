"""What is true of a phantom cohort: its covariates and their effects on tissue volumes.

Volumes follow one linear law. A subject's volumes are drawn from the law, then its anatomy is
solved until the tissues fill them (`phantom_anatomy.solve_shift`), so the coefficients below are
the effects in the images, not estimates of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from gyri.cohort.phantom_imaging import SCANNERS
from gyri.cohort.table import CONVENTIONAL, ColumnType, typed
from gyri.errors import UsageError
from gyri.runtime.seeding import numpy_rng

AGE_RANGE = (18.0, 90.0)
REFERENCE_AGE, REFERENCE_ETIV_ML = 50.0, 1500.0
TISSUES = ("icv", "brain", "gm", "wm", "csf", "ventricle")
NULL_COVARIATES = ("scanner", "handedness", "education", "group")
"""Covariates without any effect on any volume."""
COLUMNS: dict[str, ColumnType] = {
    **{name: CONVENTIONAL[name] for name in ("age", "sex")},
    "scanner": ColumnType(
        kind="categorical",
        description="Simulated scanner",
        levels={s.name: f"gamma {s.gamma}, blur {s.blur_mm} mm" for s in SCANNERS},
    ),
    **{name: CONVENTIONAL[name] for name in ("cdr", "handedness")},
    "education": replace(CONVENTIONAL["education"], description="Education", unit="year"),
    "etiv": replace(CONVENTIONAL["etiv"], description="True total intracranial volume"),
    "group": ColumnType(
        kind="categorical",
        description="Whether the brain bears a tumour",
        levels={"control": "no tumour", "tumour": "a glioma"},
    ),
}
"""Types of the columns that `draw_covariates` may draw."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Linear effects on one volume, in ml.

    Parameters
    ----------
    intercept : mean at age 50, female, CDR 0, eTIV 1500 ml.
    age, sex_M, cdr, etiv : change a year, for a man, a unit of CDR, a ml of eTIV.
    residual_sd : standard deviation of what the covariates leave open. Of the ventricles it is
        proportional to the mean and given at the intercept.
    """

    intercept: float
    age: float
    sex_M: float
    cdr: float
    etiv: float
    residual_sd: float

    def mean(self, age: float, male: bool, cdr: float, etiv: float) -> float:
        """Expected volume in ml."""
        return (
            self.intercept
            + self.age * (age - REFERENCE_AGE)
            + self.sex_M * male
            + self.cdr * cdr
            + self.etiv * (etiv - REFERENCE_ETIV_ML)
        )


ASSESSED_AGE = 60.0
"""CDR is known from this age on."""
ETIV_FEMALE_ML, ETIV_MALE_EXTRA_ML, ETIV_SD_ML = 1430.0, 150.0, 105.0
GIVEN_ETIV = {
    "gm": Effect(intercept=690.0, age=-2.0, sex_M=-6.0, cdr=-40.0, etiv=0.46, residual_sd=18.0),
    "wm": Effect(intercept=515.0, age=-0.5, sex_M=4.0, cdr=-12.0, etiv=0.345, residual_sd=14.0),
    "ventricle": Effect(intercept=26.0, age=0.42, sex_M=1.5, cdr=14.0, etiv=0.012, residual_sd=6.5),
}
"""The law, given eTIV; brain, CSF and ICV follow from it as sums and differences."""

_RESIDUAL_LIMIT_SD = 2.0
_TRUNCATED_SD = 0.8796
"""Standard deviation of a standard normal cut at two."""


def draw_covariates(
    num_subjects: int,
    seed: int,
    *,
    num_scanners: int = 2,
    scanner_shares: Sequence[float] = (),
    missing: float = 0.05,
    tumours: float = 0.0,
    age_range: tuple[float, float] = AGE_RANGE,
) -> pd.DataFrame:
    """Draw the subject table.

    Parameters
    ----------
    num_subjects : rows.
    seed : the table's seed; row i depends on it and on i alone.
    num_scanners : levels of ``scanner``, 1 to 4.
    scanner_shares : how many subjects each has, in any unit; none for equal chances.
    missing : share of missing values in ``handedness``, ``education`` and, above 60,
        ``cdr``. A subject without CDR was not assessed and has no dementia.
    tumours : probability of a tumour.
    age_range : ages are uniform in it, in years.

    Returns
    -------
    DataFrame
        Index ``subject`` ("phantom0001" ...); columns ``age`` (years), ``sex`` (F, M),
        ``scanner`` (A ...), ``cdr`` ("0", "0.5", "1", "2"; None below 60), ``handedness`` (R, L
        or None), ``education`` (years or NaN), ``etiv`` (ml) and, where tumours may come,
        ``group`` (control, tumour).

    Raises
    ------
    UsageError
        A number that is out of its range.
    """
    if not 1 <= num_scanners <= len(SCANNERS):
        raise UsageError(f"num_scanners is {num_scanners}; the phantom has 1 to {len(SCANNERS)}.")
    if num_subjects < 1 or not 0 <= missing < 1 or not 0 <= tumours <= 1:
        raise UsageError(
            f"num_subjects is {num_subjects}, missing {missing} and tumours {tumours}; "
            "at least one subject and shares from 0 to 1 are needed."
        )
    if scanner_shares and (len(scanner_shares) != num_scanners or min(scanner_shares) <= 0):
        raise UsageError(
            f"scanner_shares is {list(scanner_shares)}; give {num_scanners} numbers above 0, one a "
            "scanner, or none."
        )
    low, high = age_range
    if not AGE_RANGE[0] <= low <= high <= AGE_RANGE[1]:
        raise UsageError(f"age_range is {age_range}; the law holds from 18 to 90 years.")
    labels = [f"phantom{i + 1:04d}" for i in range(num_subjects)]
    rows = []
    for label in labels:
        row = _draw_row(numpy_rng("phantom", seed, label, "covariates"), num_scanners, age_range)
        if scanner_shares:
            chosen = numpy_rng("phantom", seed, label, "scanner")
            chances = np.array(scanner_shares) / sum(scanner_shares)
            row["scanner"] = SCANNERS[chosen.choice(num_scanners, p=chances)].name
        lost = numpy_rng("phantom", seed, label, "missing").random(3) < missing
        row |= {k: None for k, gone in zip(("cdr", "handedness", "education"), lost) if gone}
        if tumours:
            ill = numpy_rng("phantom", seed, label, "group").random() < tumours
            row["group"] = "tumour" if ill else "control"
        rows.append(row)
    return typed(pd.DataFrame(rows, index=pd.Index(labels, name="subject")), COLUMNS)


def _draw_row(
    rng: np.random.Generator, num_scanners: int, age_range: tuple[float, float]
) -> dict[str, Any]:
    age = round(float(rng.uniform(*age_range)), 1)
    male = bool(rng.random() < 0.5)
    scanner = SCANNERS[int(rng.integers(num_scanners))].name
    cdr = float(rng.choice([0.0, 0.5, 1.0, 2.0], p=[0.70, 0.17, 0.10, 0.03]))
    handedness = "L" if rng.random() < 0.1 else "R"
    education = float(np.clip(round(rng.normal(14, 3)), 6, 23))
    deviate = _truncated_normal(rng)
    return {
        "age": age,
        "sex": "M" if male else "F",
        "scanner": scanner,
        "cdr": None if age < ASSESSED_AGE else cdr,
        "handedness": handedness,
        "education": education,
        "etiv": round(ETIV_FEMALE_ML + ETIV_MALE_EXTRA_ML * male + ETIV_SD_ML * deviate, 1),
    }


def draw_volumes(row: pd.Series, seed: int) -> dict[str, float]:
    """Draw a subject's volumes in ml from the law.

    Parameters
    ----------
    row : covariates ``age``, ``sex``, ``etiv`` and perhaps ``cdr``; a missing CDR is 0.
    seed : the subject's seed; the residuals follow from it alone, so that the same seed at
        another age is the same person, older.

    Returns
    -------
    dict
        Volumes by the names of `TISSUES`.
    """
    needed = ("age", "sex", "etiv")
    absent = [name for name in needed if name not in row or pd.isna(row[name])]
    if absent:
        raise UsageError(
            f"A phantom needs {', '.join(needed)}; {', '.join(absent)} missing in its row. "
            "Use a row of draw_covariates, or fill it."
        )
    cdr = row.get("cdr", 0.0)
    place = (
        float(row["age"]),
        row["sex"] == "M",
        0.0 if pd.isna(cdr) else float(cdr),
        float(row["etiv"]),
    )
    rng = numpy_rng(seed, "volumes")
    deviates = np.array([_truncated_normal(rng) for _ in GIVEN_ETIV])
    gm, wm, ventricle = (effect.mean(*place) for effect in GIVEN_ETIV.values())
    gm += GIVEN_ETIV["gm"].residual_sd * deviates[0]
    wm += GIVEN_ETIV["wm"].residual_sd * deviates[1]
    ventricle *= 1 + _ventricle_variation() * deviates[2]
    icv = place[-1]
    return {
        "icv": icv,
        "brain": gm + wm,
        "gm": gm,
        "wm": wm,
        "csf": icv - gm - wm,
        "ventricle": ventricle,
    }


def _truncated_normal(rng: np.random.Generator) -> float:
    """Unit-variance, mean-zero draw from a normal cut at two standard deviations."""
    while abs(draw := float(rng.standard_normal())) > _RESIDUAL_LIMIT_SD:
        pass
    return draw / _TRUNCATED_SD


def _ventricle_variation() -> float:
    effect = GIVEN_ETIV["ventricle"]
    return effect.residual_sd / effect.intercept


def _sum(a: Effect, b: Effect, sign: float = 1.0) -> Effect:
    values = {k: v + sign * asdict(b)[k] for k, v in asdict(a).items()}
    values["residual_sd"] = float(np.hypot(a.residual_sd, b.residual_sd))
    return Effect(**values)


def effects_given_etiv() -> dict[str, Effect]:
    """Effects of every covariate on every volume, eTIV among the covariates."""
    icv = Effect(
        intercept=REFERENCE_ETIV_ML, age=0.0, sex_M=0.0, cdr=0.0, etiv=1.0, residual_sd=0.0
    )
    brain = _sum(GIVEN_ETIV["gm"], GIVEN_ETIV["wm"])
    known = {"icv": icv, "brain": brain, "csf": _sum(icv, brain, -1.0), **GIVEN_ETIV}
    return {name: known[name] for name in TISSUES}


def effects_without_etiv() -> dict[str, Effect]:
    """Effects of the other covariates when eTIV is left out of the model."""
    totals = {}
    for name, effect in effects_given_etiv().items():
        shift = effect.etiv * (ETIV_FEMALE_ML - REFERENCE_ETIV_ML)
        spread = effect.etiv * ETIV_SD_ML
        totals[name] = Effect(
            intercept=effect.intercept + shift,
            age=effect.age,
            sex_M=effect.sex_M + effect.etiv * ETIV_MALE_EXTRA_ML,
            cdr=effect.cdr,
            etiv=0.0,
            residual_sd=float(np.hypot(effect.residual_sd, spread)),
        )
    return totals


def truth() -> dict[str, Any]:
    """Everything that is true of a phantom cohort, ready for ``truth.json``."""

    def table(effects: dict[str, Effect]) -> dict[str, Any]:
        return {
            name: {k: round(v, 4) for k, v in asdict(effect).items()}
            | dict.fromkeys(NULL_COVARIATES, 0.0)
            for name, effect in effects.items()
        }

    return {
        "Unit": "ml",
        "Law": "volume = intercept + age * (age - 50) + sex_M * [sex == M] + cdr * CDR "
        "+ etiv * (eTIV - 1500) + residual; a missing CDR counts as 0",
        "Reference": {"age": REFERENCE_AGE, "sex": "F", "cdr": 0.0, "etiv": REFERENCE_ETIV_ML},
        "GivenEtiv": table(effects_given_etiv()),
        "WithoutEtiv": table(effects_without_etiv()),
        "Definition": "Volumes are integrals of the noise-free tissue probabilities. The anatomy "
        "is solved until gm, wm, ventricle and icv equal the drawn volumes within 0.2 %, so the "
        "coefficients hold by construction; a regression over n subjects meets them only "
        "within the sampling error of its residuals. gm and wm include cerebellum and brain stem; "
        "ventricle means the lateral ventricles and is part of csf. The residual of the ventricle "
        "is proportional to its mean. Cortical thinning is the loss of gm at a given icv; "
        "thickness itself is not measured. Tumours lie on top: tissue volumes are those of the "
        "anatomy beneath, and core, oedema and rim are given beside them.",
    }
