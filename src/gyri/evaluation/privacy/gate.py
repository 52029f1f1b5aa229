"""The gate before a release: pass or fail, with reasons in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gyri.evaluation.privacy.audit import Audit
from gyri.evaluation.privacy.controls import Control
from gyri.evaluation.privacy.membership import Membership
from gyri.evaluation.privacy.pairs import COPY, Pair

NAMED = 5
CONTROLS = {
    "negative": "The audit raises false alarms on people whom the model never saw",
    "positive": "The audit misses planted copies",
    "canary": "The list of pairs misses planted copies",
}


@dataclass(frozen=True)
class Gate:
    """What was decided.

    Parameters
    ----------
    passed : whether the samples may go, as far as an audit can tell.
    reasons : why not, one sentence each.
    unreviewed : flagged pairs that nobody has looked at.
    """

    passed: bool
    reasons: list[str]
    unreviewed: list[Pair]


def decide(
    audit: Audit,
    controls: Sequence[Control],
    membership: Membership | None,
    reviews: Mapping[tuple[str, str], str],
) -> Gate:
    """Decide on a release.

    Parameters
    ----------
    audit, controls : of the samples, on the same cohort.
    membership : of the model; None where its method gives no loss.
    reviews : decisions on pairs of sample and subject.
    """
    reasons = [f"Alarm: {alarm}." for alarm in audit.alarms]
    reasons += [f"{CONTROLS[c.name]}: {c.detail}." for c in controls if not c.passed]
    if membership is not None and membership.alarm:
        reasons.append(
            "Alarm: the model's loss tells who was in TRAIN (area under the curve "
            f"{membership.auc:.2f}, 95 % interval {membership.low:.2f} to {membership.high:.2f}; "
            f"{membership.tpr:.0%} of TRAIN found at 1 % false positives)."
        )
    flagged = [pair for pair in audit.pairs if pair.flagged]
    copies = [p for p in flagged if reviews.get((p.sample, p.subject)) == COPY]
    unreviewed = [p for p in flagged if (p.sample, p.subject) not in reviews]
    if copies:
        reasons.append(
            f"{len(copies)} pairs were reviewed as copies ({_names(copies)}): leave these samples "
            "out."
        )
    if unreviewed:
        reasons.append(
            f"{len(unreviewed)} pairs of sample and training subject are closer than 99.9 % of "
            f"unseen people come to TRAIN, and nobody has looked at them ({_names(unreviewed)}): "
            "look at release.html, fill in the decisions of pairs.tsv, and give it with --reviewed."
        )
    return Gate(not reasons, reasons, unreviewed)


def _names(pairs: Sequence[Pair]) -> str:
    names = ", ".join(f"{pair.sample} and {pair.subject}" for pair in pairs[:NAMED])
    return names + (f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else "")
