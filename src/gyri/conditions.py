"""Conditions: typed columns of the subject table as one vector with missing bits.

The schema is fitted on TRAIN and travels in the checkpoint, so that sampling can be asked for
"age 70, female" and can refuse a level that the model has never seen. A column of free text is read
by a frozen encoder, so that any text can be asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from gyri.errors import DataError, UsageError, nearest
from gyri.text import text_encoder
from gyri.types import ConditionLayout

MISSING = ("", "n/a", "na", "nan", "none", "missing")


@dataclass(frozen=True)
class Column:
    """One column as TRAIN showed it.

    Parameters
    ----------
    levels : values of a categorical column, in the order of the one-hot code.
    mean, std : of a continuous column; its code is ``(value - mean) / std``.
    minimum, maximum : range seen in TRAIN.
    encoder, encoder_sha256 : of a text column, folder and hash of the weights; its code is
        ``(vector - centre) / std``.
    centre : mean vector of TRAIN's texts.
    """

    name: str
    kind: Literal["categorical", "continuous", "text"]
    levels: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    minimum: float = 0.0
    maximum: float = 0.0
    encoder: str = ""
    encoder_sha256: str = ""
    centre: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """Length of the column's code, without its missing bit."""
        return {"categorical": len(self.levels), "continuous": 1, "text": len(self.centre)}[
            self.kind
        ]

    def parse(self, text: Any) -> str | float | None:
        """Turn a value as the user wrote it into one of the column's; None where missing.

        Raises
        ------
        UsageError
            If the level was never seen in TRAIN or the number is none.
        """
        if text is None or pd.isna(text) or str(text).strip().lower() in MISSING:
            return None
        if self.kind == "categorical":
            level = _level(text)
            if level not in self.levels:
                raise UsageError(
                    f"{self.name}={level!r} was never seen in training."
                    f"{nearest(level, self.levels)} Known levels: {', '.join(self.levels)}."
                )
            return level
        if self.kind == "text":
            return str(text).strip()
        try:
            return float(text)
        except (TypeError, ValueError):
            raise UsageError(
                f"{self.name}={text!r} is no number; give a value such as {self.mean:.4g}, "
                f"or 'n/a' for missing."
            ) from None

    def read_texts(self, texts: Sequence[str]) -> Tensor:
        """Return the codes (N, width) of texts.

        Raises
        ------
        DataError
            If the encoder is gone or another one than in training.
        """
        encoder = text_encoder(self.encoder)
        if encoder.sha256 != self.encoder_sha256:
            raise DataError(
                f"{self.encoder} holds other weights than those that read {self.name!r} in "
                "training. Put the encoder of then back."
            )
        return (encoder.encode(texts) - torch.tensor(self.centre)) / self.std


@dataclass(frozen=True)
class ConditionSchema:
    """The columns a model is conditioned on.

    Parameters
    ----------
    columns : in the order of the condition vector.
    combinations : the combinations of categorical levels that TRAIN holds.
    """

    columns: tuple[Column, ...] = ()
    combinations: tuple[tuple[str | None, ...], ...] = ()

    @classmethod
    def fit(
        cls,
        table: pd.DataFrame,
        names: Sequence[str],
        kinds: Mapping[str, str],
        text_encoders: Mapping[str, str] | None = None,
    ) -> ConditionSchema:
        """Read levels, means and ranges off the TRAIN rows.

        Parameters
        ----------
        table : TRAIN rows.
        names : columns to condition on.
        kinds : ``"categorical"`` or ``"continuous"`` for every column of the table.
        text_encoders : folders of the encoders that read categorical columns as free text.

        Raises
        ------
        UsageError
            If a column does not exist, or has no value or only one in TRAIN.
        """
        columns, encoders = [], text_encoders or {}
        for name in names:
            if name not in kinds:
                raise UsageError(
                    f"The cohort has no column {name!r}.{nearest(name, kinds)} "
                    f"Its columns are: {', '.join(kinds)}."
                )
            values = table[name].dropna()
            if values.nunique() < 2:
                raise UsageError(
                    f"Column {name!r} has {values.nunique()} different values in TRAIN; "
                    "a condition needs at least two. Leave it out of the recipe's `conditions`."
                )
            if name in encoders:
                columns.append(_text_column(name, kinds[name], values, encoders[name]))
            elif kinds[name] == "categorical":
                columns.append(Column(name, "categorical", tuple(sorted({*map(_level, values)}))))
            else:
                number = values.astype(float)
                columns.append(
                    Column(
                        name,
                        "continuous",
                        mean=float(number.mean()),
                        std=float(number.std(ddof=0)),
                        minimum=float(number.min()),
                        maximum=float(number.max()),
                    )
                )
        schema = cls(tuple(columns))
        seen = {schema._combination(row) for row in schema.parse(table)}
        return cls(tuple(columns), tuple(sorted(seen, key=str)))

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)

    @property
    def layout(self) -> ConditionLayout:
        """Where each column lies in the vector."""
        slices, start = [], 0
        for column in self.columns:
            slices.append((start, start + column.width))
            start += column.width + 1
        return ConditionLayout(tuple(slices))

    def parse(self, table: pd.DataFrame) -> list[dict[str, str | float | None]]:
        """Read the schema's columns of `table`; a column that is absent is missing."""
        return [
            {c.name: c.parse(row[c.name]) if c.name in table else None for c in self.columns}
            for _, row in table.iterrows()
        ]

    def assign(self, assignments: Mapping[str, str]) -> dict[str, str | float | None]:
        """Read ``{"age": "70", "sex": "F"}``; columns that are not named are missing.

        Raises
        ------
        UsageError
            On a column the model was not trained with, or a level it has never seen.
        """
        for name in assignments:
            if name not in self.names:
                known = ", ".join(self.names) or "none (it is unconditional)"
                raise UsageError(
                    f"The model has no condition {name!r}.{nearest(name, self.names)} "
                    f"It was trained with: {known}."
                )
        return {c.name: c.parse(assignments.get(c.name)) for c in self.columns}

    def warnings(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Say which values lie outside TRAIN's range and which combinations it never held."""
        found = []
        for column in self.columns:
            if column.kind == "continuous":
                values = [row[column.name] for row in rows if row[column.name] is not None]
                outside = [v for v in values if not column.minimum <= v <= column.maximum]
                if outside:
                    found.append(
                        f"{column.name}: {len(outside)} of {len(values)} values lie outside the "
                        f"range seen in training, {column.minimum:.4g} to {column.maximum:.4g} "
                        f"(for example {outside[0]:.4g}); the model extrapolates."
                    )
        asked = {self._combination(row) for row in rows}
        names = [c.name for c in self.columns if c.kind == "categorical"]
        for combination in sorted(asked - set(self.combinations), key=str):
            if None not in combination:
                text = ", ".join(f"{n}={v}" for n, v in zip(names, combination))
                found.append(f"No training subject had {text} together; the model extrapolates.")
        return found

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Tensor:
        """Turn parsed rows into condition vectors (N, D), missing bits included."""
        layout = self.layout
        vectors = torch.zeros(len(rows), layout.size)
        for column, (start, stop) in zip(self.columns, layout.slices):
            said = [k for k, row in enumerate(rows) if row[column.name] is not None]
            if column.kind == "text" and said:
                texts = [rows[k][column.name] for k in said]
                vectors[said, start:stop] = column.read_texts(texts)
        for vector, row in zip(vectors, rows):
            for column, (start, stop) in zip(self.columns, layout.slices):
                value = row[column.name]
                if value is None:
                    vector[stop] = 1.0
                elif column.kind == "categorical":
                    vector[start + column.levels.index(value)] = 1.0
                elif column.kind == "continuous":
                    vector[start] = (value - column.mean) / column.std
        return vectors

    def disclosed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row as anyone may read it: of free text, which may name people, a hash."""
        texts = {c.name for c in self.columns if c.kind == "text"}
        return {
            name: f"text {hashlib.sha256(value.encode()).hexdigest()[:16]}"
            if name in texts and value is not None
            else value
            for name, value in row.items()
        }

    def _combination(self, row: Mapping[str, Any]) -> tuple[str | None, ...]:
        return tuple(row[c.name] for c in self.columns if c.kind == "categorical")

    def to_json(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ConditionSchema:
        """Inverse of `to_json`."""
        columns = tuple(
            Column(**{name: _untupled(value) for name, value in column.items()})
            for column in data["columns"]
        )
        return cls(columns, tuple(tuple(c) for c in data["combinations"]))


def _text_column(name: str, kind: str, values: pd.Series, folder: str) -> Column:
    if kind != "categorical":
        raise UsageError(
            f"text_encoders.{name}: the column holds numbers. Leave it out of text_encoders."
        )
    encoder = text_encoder(folder)
    vectors = encoder.encode([str(value).strip() for value in values])
    centre = vectors.mean(0)
    return Column(
        name,
        "text",
        std=float((vectors - centre).square().mean().sqrt().clamp_min(1e-6)),
        encoder=folder,
        encoder_sha256=encoder.sha256,
        centre=tuple(centre.tolist()),
    )


def _untupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _level(value: Any) -> str:
    """Write a level the same way whether the table held 1, 1.0 or "1"."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
