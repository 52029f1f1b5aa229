"""Pipelines: which steps, in which order, with which settings; as a YAML file or plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gyri.errors import UsageError
from gyri.registry import STEPS
from gyri.settings import component, read_yaml

Steps = Mapping[str, Any]
"""Registered step -> its config, in order."""

Range = tuple[float, float]


def load_steps(path: Path | str) -> dict[str, Any]:
    """Read a pipeline file.

    Parameters
    ----------
    path : YAML file that holds a list; an entry is a step's name, or a mapping of ``name`` and
        settings. What is not said has its default.

    Raises
    ------
    DataError
        There is no such file, or it is no YAML.
    UsageError
        A step, key or value is wrong; names the place and the nearest right one.

    Examples
    --------
    .. code-block:: yaml

        - reorient
        - {name: resample, spacing_mm: 2}
        - {name: crop, shape: [80, 96, 80]}
        - intensity
    """
    try:
        return parse_steps(read_yaml(Path(path), "pipeline"))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def parse_steps(sections: Any) -> dict[str, Any]:
    """Turn plain data into steps; see `load_steps`.

    Examples
    --------
    >>> parse_steps(["reorient", {"name": "crop", "shape": [8, 8, 8]}])["crop"].shape
    (8, 8, 8)
    """
    if not isinstance(sections, Sequence) or isinstance(sections, str) or not sections:
        raise UsageError(f"A pipeline is a list of steps; got {sections!r:.60}.")
    steps: dict[str, Any] = {}
    for number, section in enumerate(sections, 1):
        step = component(section, STEPS, f"step {number}")
        if step.name in steps:
            raise UsageError(
                f"step {number}: {step.name!r} comes a second time; a step can be taken once."
            )
        steps[step.name] = step.config
    return steps


def plain(steps: Steps) -> list[dict[str, Any]]:
    """Return the steps as plain data for records, every default written out."""
    return [{"step": name, **asdict(config)} for name, config in steps.items()]


def recorded(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Turn what `plain` returned back into steps; settings that are new since have defaults."""
    return parse_steps(
        [{"name" if key == "step" else key: value for key, value in e.items()} for e in entries]
    )


def intensity_range(steps: Steps) -> Range:
    """Return (lowest, highest) value of the files that the steps lead to.

    It is the `output_range` of the last step whose config has one.

    Raises
    ------
    UsageError
        No step has one: intensities would stay what each scanner made them.
    """
    ranges = [config.output_range for config in steps.values() if hasattr(config, "output_range")]
    if not ranges:
        raise UsageError(
            f"No step brings intensities to a common range; the steps are {', '.join(steps)}. Add "
            "the step intensity."
        )
    low, high = ranges[-1]
    return float(low), float(high)
