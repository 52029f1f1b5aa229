"""Model card and data card in Markdown, for sharing: no real subject is named or shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import yaml

from gyri import __version__
from gyri.cohort.files import read_json
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.report.text import costs, interval, number, score_label, words

if TYPE_CHECKING:
    from gyri.evaluation.scores import Scores
    from gyri.report.release import Findings
    from gyri.training.run import Run

DESCRIPTION = "dataset_description.json"
INTENDED = """\
For research on generative models of brain MRI, on methods that need more or better balanced scans,
and for teaching. Not for diagnosis or any decision about a person, and no substitute for real scans
in a claim about the brain."""
MISUSE = """\
Do not try to find out who was in the training set, and do not mix these volumes with real scans
without keeping the mark `"Synthetic": true`."""
LIMITS = (
    "Synthetic brains can carry training subjects. The audit below looks for that and cannot prove "
    "its absence.",
    "Anatomy that the training subjects do not show is not sampled faithfully; conditions outside "
    "their range are extrapolated.",
    "The measures see volume, texture, spectrum and shape; not pathology.",
    "Biases of the training set in age, sex, scanner and recruitment go on.",
)
FLIPPED = (
    "Training mirrored brains left to right: laterality is lost, and conditions on handedness or "
    "the side of a lesion mean nothing."
)


@dataclass(frozen=True)
class CardFacts:
    """What both cards are written from."""

    run: Run
    samples: SyntheticCohort
    cohort: PreparedCohort
    scores: Scores
    found: Findings


def without_places(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe without the folders of this machine."""
    needs = {name: Path(path).name for name, path in recipe.get("needs", {}).items()}
    return {**recipe, "needs": needs}


def attribution(cohort: PreparedCohort) -> list[str]:
    """Name the source data set, its authors, licence and citation, as far as they are known."""
    prepared = read_json(cohort.root / DESCRIPTION, missing_ok=True)
    described = [prepared]
    for source in prepared.get("SourceDatasets", []):
        url = urlparse(str(source.get("URL", "")))
        if url.scheme == "file":
            described.append(read_json(Path(url.path) / DESCRIPTION, missing_ok=True))
    known = {
        key: entry[key]
        for entry in described
        for key in ("License", "Authors", "HowToAcknowledge")
        if entry.get(key)
    }
    lines = [f"Source data set: {cohort.name}"]
    if "Authors" in known:
        lines.append(f"Authors: {', '.join(known['Authors'])}")
    lines.append(f"Licence or terms of use: {known.get('License', 'see the data set itself')}")
    if "HowToAcknowledge" in known:
        lines.append(f"Please cite: {known['HowToAcknowledge']}")
    lines.append("What is made of these scans is shared under the terms that they came with.")
    return lines


def privacy_promise(info: Mapping[str, Any]) -> list[str]:
    """Say what a private run promises and what its promise leaves out, from its ``run.json``.

    Empty for a run that was trained without differential privacy.
    """
    given = info.get("differential_privacy")
    if not given:
        return []
    return [
        f"Trained with differential privacy: epsilon {given['epsilon']:.3g} at delta "
        f"{given['delta']:.2g} for each {given['unit']} of TRAIN being there or not; the weights, "
        "their moving averages and all samples together spend no more",
        f"Noise multiplier {given['noise_multiplier']:.3g}, gradients clipped to "
        f"{given['max_grad_norm']:g}, sampling rate {given['sample_rate']:.3g}, {given['steps']} "
        f"steps, {given['accountant'].upper()} accountant",
        f"Not in the account: {', '.join(given['not_covered'])}",
    ]


def model_card(facts: CardFacts) -> str:
    """Write the card of the model."""
    run, recipe = facts.run, facts.run.recipe
    parts = [
        f"# Model card: {recipe.name}",
        "A generative model of brain MRI. Whether its weights may be shared is not what the audit "
        "below decides: it looked at samples.",
        "## Model",
        _table(
            {
                "Method": recipe.method.name,
                "View": recipe.view.name,
                "Networks": ", ".join(f"{k}: {v.name}" for k, v in recipe.networks.items())
                or "those of the method",
                "Conditions": ", ".join(recipe.conditions) or "none",
                "Checkpoint": f"{facts.samples.facts['checkpoint']}, SHA-256 "
                f"{facts.samples.facts['checkpoint_sha256']}",
                "Recipe SHA-256": str(run.info.get("recipe_sha256", "")),
                "gyri": str(run.info.get("gyri", __version__)),
                **dict(costs(run.info)),
            }
        ),
        "## Training data",
        _bullets(
            [
                f"{run.num_train} scans (TRAIN) of {facts.cohort.name}",
                f"Data hash {facts.cohort.data_hash}",
                f"Split hash {facts.cohort.split_hash}",
                _grid(facts),
                *attribution(facts.cohort),
            ]
        ),
        *_promises(facts),
        *_keeps(facts),
        *_common(facts),
        "## Recipe",
        f"```yaml\n{yaml.safe_dump(without_places(recipe.to_mapping()), sort_keys=False)}```",
    ]
    return "\n\n".join(parts) + "\n"


def data_card(facts: CardFacts) -> str:
    """Write the card of the synthetic data set."""
    made = facts.samples.facts
    parts = [
        f"# Data card: synthetic brain MRI by {made['recipe_name']}",
        f"{len(facts.scores.samples)} volumes that a model generated; nobody was scanned. Files "
        'say so in their sidecars (`"Synthetic": true`) and headers.',
        "## Content",
        _bullets(
            [
                _grid(facts),
                f"Channels: {', '.join(channel.name for channel in facts.samples.channels)}, "
                "intensities in [0, 1]",
                f"Brains without heads: {'yes' if made['skull_stripped'] else 'no'}",
                f"Conditions: {', '.join(facts.run.recipe.conditions) or 'none'}. Where they were "
                "drawn from the training set's mix, rows of participants.tsv repeat its rows.",
                f"Seed {made['seed']}; checkpoint SHA-256 {made['checkpoint_sha256']}",
            ]
        ),
        "## Where it comes from",
        _bullets(
            [
                f"Model: {made['recipe_name']} ({facts.run.recipe.method.name}), trained on "
                f"{facts.run.num_train} scans of {facts.cohort.name}; see the model card",
                f"Data hash {facts.cohort.data_hash}, split hash {facts.cohort.split_hash}",
                *attribution(facts.cohort),
            ]
        ),
        *_common(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _common(facts: CardFacts) -> Iterator[str]:
    yield "## Evaluation"
    yield (
        f"{facts.scores.n['generated']} samples against {facts.scores.n['HOLD']} held-out people; "
        "ceiling: what real scans reach."
    )
    yield _scores(facts.scores)
    yield _bullets(
        f"{words(name)}: {'pass' if gate['passed'] else 'FAIL'}"
        for name, gate in facts.scores.gates.items()
    )
    yield "## Privacy"
    yield from _privacy(facts)
    yield "## Intended use"
    yield INTENDED
    yield MISUSE
    yield "## Limits"
    yield _bullets([*LIMITS, *([FLIPPED] if flips(facts.run) else [])])


def flips(run: Run) -> bool:
    """Say whether training mirrored brains left to right."""
    augment = without_places(run.recipe.to_mapping())["data"]["augment"]
    return any(step.get("name") == "flip" and step.get("axis") == "left_right" for step in augment)


def _privacy(facts: CardFacts) -> Iterator[str]:
    found = facts.found
    verdict = "passed" if found.gate.passed else "FAILED: these samples are not to be shared"
    flagged = sum(pair.flagged for pair in found.audit.pairs)
    yield (
        f"The release audit {verdict}. {len(found.audit.alarms)} alarms; {flagged} pairs of sample "
        "and training subject closer than one in a thousand unseen people"
        + (", each looked at and found distinct." if flagged and found.gate.passed else ".")
    )
    rows = [
        "| Measure | Space | Value | 95 % interval | Without memory | p |",
        "|---|---|---|---|---|---|",
        *(
            f"| {f.label} | {f.space} | {number(f.value)} | {interval(f.low, f.high)} | "
            f"{number(f.expected)} | {f.p_value:.3f} |"
            for f in found.audit.findings
        ),
    ]
    yield "\n".join(rows)
    yield _bullets(f"{words(c.name)} control: {c.detail}" for c in found.controls)
    if found.membership is None:
        yield "Membership by the model's loss: not tested, the method gives no loss."
    else:
        attack = found.membership
        yield (
            f"Membership by the model's loss: area under the curve {number(attack.auc)} "
            f"({interval(attack.low, attack.high)}; 0.5 is nothing), {attack.tpr:.1%} of TRAIN "
            "found at 1 % false positives."
        )


def _promises(facts: CardFacts) -> Iterator[str]:
    if promise := privacy_promise(facts.run.info):
        yield "## Differential privacy"
        yield _bullets(promise)


def _keeps(facts: CardFacts) -> Iterator[str]:
    if facts.found.directions:
        yield "## What the checkpoint keeps of its training data"
        yield (
            "Beside weights it holds directions computed from training scans, with room for whole "
            "volumes. Treat the checkpoint as training data:"
        )
        yield _bullets(facts.found.directions)


def _scores(scores: Scores) -> str:
    lead = [score for score in scores.scores if score.name in scores.lead] or scores.scores
    lines = ["| Score | Value | 95 % interval | Ceiling | n |", "|---|---|---|---|---|"]
    for score in lead:
        label = score_label(vars(score))
        lines.append(
            f"| {label} | {number(score.value)} | {interval(score.low, score.high)} | "
            f"{number(score.anchors.get('ceiling'))} | {score.n_generated}/{score.n_real} |"
        )
    return "\n".join(lines)


def _grid(facts: CardFacts) -> str:
    grid = facts.samples.grid
    shape = " x ".join(map(str, grid.shape))
    return f"Grid: {shape} voxels of {number(grid.spacing_mm[0])} mm, RAS+"


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())])


def _bullets(lines: Any) -> str:
    return "\n".join(f"- {line}" for line in lines)
