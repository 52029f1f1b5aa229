"""What a reader's browser may send, checked before anything is kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gyri.reading.study import FAULTS, SCALES

Grade = Annotated[int, Field(ge=1, le=5)]
Coordinate = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Enter(_Strict):
    """A reader's token."""

    token: Annotated[str, Field(max_length=64)]


class Consent(_Strict):
    """The ticked box."""

    agreed: Literal[True]


class Fault(_Strict):
    """A fault and, where the reader clicked one, its place in millimetres, RAS+."""

    name: str
    place: Annotated[list[Coordinate], Field(min_length=3, max_length=3)] | None = None

    @model_validator(mode="after")
    def _is_listed(self) -> Fault:
        if self.name not in FAULTS:
            raise ValueError("no such fault")
        return self


class Answer(_Strict):
    """The answer to one trial.

    Parameters
    ----------
    trial : its id.
    choice : ``real`` or ``synthetic``; ``left`` or ``right`` for pairs; absent for ratings.
    grades : one grade a scale, for ratings.
    faults : what is wrong, for ratings.
    shown_ms : how long the volumes were visible.
    """

    trial: Annotated[str, Field(min_length=32, max_length=32, pattern="^[0-9a-f]+$")]
    choice: Literal["real", "synthetic", "left", "right"] | None = None
    grades: dict[str, Grade] | None = None
    faults: Annotated[list[Fault], Field(max_length=len(FAULTS))] = []
    shown_ms: Annotated[int, Field(ge=0, le=86_400_000)]

    def kept(self, block: str) -> dict[str, Any] | None:
        """Return what is kept of an answer to a trial of `block`; None where it does not fit."""
        if block == "ratings":
            named = [fault.name for fault in self.faults]
            fits = (
                self.choice is None
                and self.grades is not None
                and set(self.grades) == set(SCALES)
                and len(set(named)) == len(named)
            )
            faults = [fault.model_dump() for fault in self.faults]
            kept: dict[str, Any] = {"grades": self.grades, "faults": faults}
        else:
            sides = ("left", "right") if block == "pairs" else ("real", "synthetic")
            fits = self.choice in sides and self.grades is None and not self.faults
            kept = {"choice": self.choice}
        return kept | {"shown_ms": self.shown_ms} if fits else None
