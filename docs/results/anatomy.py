"""Print, as Markdown, how far the judge's anatomy can be trusted on OASIS-1.

Tissue volumes against the published nWBV, their change with age, the error of a second scan of the
same person, and the Frechet distance against reference implementations.

python docs/results/anatomy.py PREPARED
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from gyri.cohort.prepared import PreparedCohort
from gyri.evaluation.bootstrap import percentile_interval
from gyri.evaluation.features.extraction import Extractor
from gyri.evaluation.features.morph import MORPH_NAMES
from gyri.evaluation.metrics.frechet import frechet_distance
from gyri.runtime.seeding import numpy_rng

RESAMPLES = 2000
ADULT = 20.0
QUANTITIES = {
    "tissue_fraction": "(GM + WM) / brain mask",
    "tissue_ml": "GM + WM, ml on the registered grid",
    "brain_ml": "brain mask, ml on the registered grid",
    "csf_fraction": "CSF / brain mask",
    "central_csf_ml": "central CSF, ml",
}


def header(*columns: str) -> None:
    """Print the first two lines of a table."""
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")


def measure(cohort: PreparedCohort) -> tuple[pd.DataFrame, dict[str, dict[str, np.ndarray]]]:
    """Return morphometry of every session beside its covariates, and features by split."""
    extractor = Extractor(cohort.volume_set("TRAIN"), None, ["morph-v1", "radiomics-v1"])
    tables = []
    by_split: dict[str, dict[str, np.ndarray]] = {}
    for split in ("TRAIN", "VAL", "HOLD", "TEST"):
        volumes = cohort.volume_set(split, sessions="all")
        found = extractor.extract(volumes)
        table = volumes.table.reset_index()
        table[list(MORPH_NAMES)] = found["morph-v1"]
        tables.append(table)
        first = ~volumes.table.index.duplicated()
        by_split[split] = {name: found[name][first] for name in extractor.sets}
    table = pd.concat(tables, ignore_index=True)
    table["tissue_fraction"] = (table["gm_ml"] + table["wm_ml"]) / table["brain_ml"]
    table["tissue_ml"] = table["gm_ml"] + table["wm_ml"]
    return table, by_split


def published(first: pd.DataFrame) -> None:
    """Print correlations with the published numbers, one row a quantity."""
    print(f"## Against the published numbers (n = {len(first)} subjects, first sessions)\n")
    print(
        "| quantity | mean | r with nWBV (95 %) | r with age | r with ASF |\n|---|---|---|---|---|"
    )
    rng = numpy_rng("results", "anatomy", "published")
    rows = rng.integers(0, len(first), (RESAMPLES, len(first)))
    for name, words in QUANTITIES.items():
        x, y = first[name].to_numpy(float), first["nwbv"].to_numpy(float)
        low, high = percentile_interval(np.array([np.corrcoef(x[r], y[r])[0, 1] for r in rows]))
        print(
            f"| {words} | {x.mean():.4g} | {np.corrcoef(x, y)[0, 1]:.3f} ({low:.3f} to {high:.3f}) "
            f"| {first[name].corr(first['age']):.3f} | {first[name].corr(first['asf']):.3f} |"
        )


def ageing(first: pd.DataFrame) -> None:
    """Print the change with age of adults without dementia, in per cent of the value at 20."""
    adult = first[(first["age"] >= ADULT) & (first["cdr"].fillna(0).astype(float) == 0)]
    print(f"\n## Change with age (n = {len(adult)} adults of {ADULT:.0f} years and more, CDR 0 or")
    print("not rated)\n")
    header("quantity", "slope a year (95 %)", "of the value at 20")
    rng = numpy_rng("results", "anatomy", "ageing")
    rows = rng.integers(0, len(adult), (RESAMPLES, len(adult)))
    age = adult["age"].to_numpy(float)
    for name in ("nwbv", "tissue_fraction", "gm_fraction", "wm_fraction", "central_csf_ml"):
        y = adult[name].to_numpy(float)
        slope, offset = np.polyfit(age, y, 1)
        draws = [np.polyfit(age[r], y[r], 1) for r in rows[:500]]
        low, high = percentile_interval(np.array([d[0] for d in draws]))
        share = 100 * slope / (offset + ADULT * slope)
        print(f"| {name} | {slope:.3g} ({low:.3g} to {high:.3g}) | {share:.2f} % a year |")


def repeatability(table: pd.DataFrame, names: list[str]) -> None:
    """Print the error of a second scan of the same person for every feature."""
    sizes = table.groupby("subject")["session"].transform("size")
    pairs = table[sizes == 2].sort_values(["subject", "session"])
    first = table.groupby("subject").head(1)
    k = pairs["subject"].nunique()
    print(f"\n## A second scan of the same person (n = {k} pairs within 90 days)\n")
    header(
        "feature",
        "mean",
        "within-subject SD",
        "repeatability coefficient",
        "ICC(1,1) of the pairs",
        "within-subject SD over the cohort's SD",
    )
    for name in names:
        a, b = pairs[name].to_numpy(float).reshape(-1, 2).T
        within = float(((a - b) ** 2).mean() / 2)
        between = float(2 * ((a + b) / 2).var(ddof=1))
        icc = (between - within) / (between + within) if between + within > 0 else np.nan
        sd = float(first[name].std(ddof=1))
        ratio = f"{np.sqrt(within) / sd:.2f}" if sd > 0 else "constant"
        print(
            f"| {name} | {np.mean([a, b]):.4g} | {np.sqrt(within):.3g} "
            f"| {1.96 * np.sqrt(2 * within):.3g} | {icc:.3f} | {ratio} |"
        )


def scipy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the Frechet distance by `scipy.linalg.sqrtm` of the product of covariances."""
    from scipy.linalg import sqrtm

    cov_x, cov_y = np.cov(x.T), np.cov(y.T)
    gap = x.mean(0) - y.mean(0)
    root = np.asarray(sqrtm(cov_x @ cov_y)).real
    return float(gap @ gap + np.trace(cov_x) + np.trace(cov_y) - 2 * np.trace(root))


def references(by_split: dict[str, dict[str, np.ndarray]]) -> None:
    """Print the Frechet distance of TRAIN and HOLD beside reference values."""
    print("\n## Frechet distance against references\n")
    header("features", "n", "d", "case", "gyri", "reference", "relative error")
    for name in ("morph-v1", "radiomics-v1"):
        train, hold = by_split["TRAIN"][name], by_split["HOLD"][name]
        spread = train.std(0, ddof=1)
        kept = spread > 1e-9 * np.maximum(np.abs(train).mean(0), 1e-12)
        x = ((train - train.mean(0)) / np.where(kept, spread, 1))[:, kept]
        y = ((hold - train.mean(0)) / np.where(kept, spread, 1))[:, kept]
        d, total = x.shape[1], float(np.trace(np.cov(y.T)))
        rows: list[tuple[str, float, float]] = []
        wide = min(len(x), len(y)) > d
        if wide:
            rows.append(("scipy.linalg.sqrtm", frechet_distance(x, y), scipy_distance(x, y)))
        else:
            axes = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:48].T
            rows.append(
                (
                    "scipy.linalg.sqrtm, 48 principal components of TRAIN",
                    frechet_distance(x @ axes, y @ axes),
                    scipy_distance(x @ axes, y @ axes),
                )
            )
        rows.append(("T1: FD(X, X) = 0, error over Tr C", frechet_distance(y, y), 0.0))
        mean = float(y.mean(0) @ y.mean(0))
        rows.append(("T3: FD(X, 1.7 X)", frechet_distance(y, 1.7 * y), 0.49 * (total + mean)))
        for case, value, expected in rows:
            error = abs(value - expected) / (expected or total)
            print(
                f"| {name} | {len(x)} / {len(y)} | {d} | {case} | {value:.10g} | {expected:.10g} "
                f"| {error:.1e} |"
            )


def main() -> None:
    """Measure the cohort once and print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    with threadpool_limits(1):
        cohort = PreparedCohort.read(parser.parse_args().prepared)
        table, by_split = measure(cohort)
    first = table.groupby("subject").head(1)
    published(first)
    ageing(first)
    repeatability(table, [*MORPH_NAMES, "tissue_fraction"])
    references(by_split)


if __name__ == "__main__":
    main()
