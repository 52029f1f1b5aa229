"""Charts: training curves, tissue volumes, volumes against age, spectra, neighbours.

Every function returns small `matplotlib.figure.Figure` panels in a fixed palette. `themed_svg`
turns a panel into inline SVG whose colours are the page's own CSS variables, so that one drawing
serves the light, the dark and the printed page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from gyri.report.text import number
from gyri.runtime.seeding import numpy_rng

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE: dict[str, str] = {
    "ink": "#1c2530",
    "muted": "#66717e",
    "rule": "#d5dbe1",
    "synthetic": "#c2571a",
    "hold": "#1f6fa8",
    "train": "#7b8794",
}
"""Colours of the panels by the name of the CSS variable that replaces them."""

SET_NAMES = {"generated": "Synthetic", "HOLD": "Held out (real)", "TRAIN": "TRAIN (real)"}
_SET_COLOURS = {"generated": "synthetic", "HOLD": "hold", "TRAIN": "train"}
CURVE_GROUPS = ("Losses", "Gradients", "Machine", "Settings")
VALIDATION = "validation/"
"""What the names of held-out losses begin with."""
_CLOCKS = ("step", "horizon", "images_seen", "time_s", "elapsed_s", "data_wait_s", "fraction")
_MAX_POINTS = 400
_LOG_SPAN = 50.0
_PX_PER_POINT = 1.4


def panel(width_in: float = 3.7, height_in: float = 2.3) -> tuple[Figure, Axes]:
    """Return an empty panel with the report's axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(PALETTE["rule"])
    axes.tick_params(colors=PALETTE["muted"], labelsize=8, length=3, color=PALETTE["rule"])
    axes.grid(axis="y", color=PALETTE["rule"], linewidth=0.5)
    axes.set_axisbelow(True)
    return figure, axes


def _label(axes: Axes, x: str, y: str = "") -> None:
    """Name the axes."""
    axes.set_xlabel(x, fontsize=8.5, color=PALETTE["muted"])
    axes.set_ylabel(y, fontsize=8.5, color=PALETTE["muted"])


def themed_svg(figure: Figure, alt: str, key: str) -> Markup:
    """Turn a panel into inline SVG in the page's colours and fonts.

    Parameters
    ----------
    figure : a panel of this module.
    alt : what the panel shows, for those who do not see it.
    key : unique on the page; prefixes the ids inside the SVG.
    """
    import matplotlib

    buffer = io.StringIO()
    # Text must stay text to take the page's font, and only rcParams can say so; the context
    # restores them on leaving.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gyri"}):
        figure.savefig(
            buffer,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", text)
    text = re.sub(r"font-family: [^;\"]+;?\s*", "", text)
    text = re.sub(r"\s+xmlns(:xlink)?=\"[^\"]*\"", "", text).replace("xlink:href", "href")
    for name, value in PALETTE.items():
        text = text.replace(value, f"var(--{name})")
    width, height = (72 * size for size in figure.get_size_inches())
    opening = (
        f'<svg class="chart" viewBox="0 0 {width:.4g} {height:.4g}" '
        f'style="max-width: {_PX_PER_POINT * width:.0f}px" role="img" aria-label='
    )
    return Markup(re.sub(r"<svg[^>]*>", lambda _: f'{opening}"{escape(alt)}">', text, count=1))


def smooth(values: np.ndarray, share: float = 0.02) -> np.ndarray:
    """Exponential moving average without start-up bias.

    Parameters
    ----------
    values : (N,).
    share : time constant as a share of N.
    """
    keep = np.exp(-1.0 / max(1.0, share * len(values)))
    total = weight = 0.0
    averaged = np.empty(len(values))
    for place, value in enumerate(values):
        total = keep * total + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        averaged[place] = total / weight
    return averaged


def log_series(log: Sequence[Mapping[str, Any]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Collect every finite number of a training log by name.

    Returns
    -------
    dict
        Name -> (images seen, or steps where these are not logged; values), in order of
        appearance. Clocks are left out; where images seen, elapsed time and time waited for data
        are logged, the throughput and the share of waiting between entries take their place.
    """
    series: dict[str, tuple[list[float], list[float]]] = {}
    for entry, before in zip(log, [None, *log]):
        clock = entry.get("images_seen", entry.get("step"))
        if not isinstance(clock, (int, float)):
            continue
        for name, value in {**entry, **_rates(entry, before or {})}.items():
            if name in _CLOCKS or isinstance(value, bool):
                continue
            if isinstance(value, (int, float)) and np.isfinite(value):
                xs, ys = series.setdefault(name, ([], []))
                xs.append(float(clock))
                ys.append(float(value))
    return {name: (np.array(xs), np.array(ys)) for name, (xs, ys) in series.items()}


def _rates(entry: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float]:
    """Images a second and share of time waited for data since the entry before."""

    def since(name: str) -> float | None:
        return entry[name] - before[name] if name in entry and name in before else None

    elapsed_s = since("elapsed_s")
    if not elapsed_s or elapsed_s < 0:
        return {}
    images, wait_s = since("images_seen"), since("data_wait_s")
    rates = {"images_per_s": images, "data_wait_share": wait_s}
    return {name: value / elapsed_s for name, value in rates.items() if value is not None}


def curve_group(name: str) -> str:
    """Group of a logged quantity, one of `CURVE_GROUPS`."""
    last = name.lower().rsplit("/", 1)[-1]
    if "grad" in name.lower():
        return "Gradients"
    if last in ("lr", "learning_rate"):
        return "Settings"
    if any(part in last for part in ("per_s", "wait", "_gib", "throughput", "memory")):
        return "Machine"
    return "Losses"


def training_curves(log: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Figure, str]]:
    """Draw every logged quantity, raw and smoothed, against images seen.

    Parameters
    ----------
    log : entries of a run's JSON-lines log, in order.

    Returns
    -------
    dict
        Name -> (panel, last smoothed value in words), sorted by `curve_group`. Values that stay
        above 0 and whose middle 96 % spans more than a factor of 50 are drawn on a logarithmic
        axis. Empty for an empty log. What held-out subjects get (``validation/loss``) is drawn as
        it is into the panel of the first phase's quantity of that name.
    """
    unit = "images seen" if any("images_seen" in entry for entry in log) else "steps"
    series = log_series(log)
    held_out = {}
    for name in [name for name in series if name.startswith(VALIDATION)]:
        beside = (
            n for n in series if n.endswith(f"/{name.removeprefix(VALIDATION)}") and n != name
        )
        if (training := next(beside, None)) is not None:
            held_out[training] = series.pop(name)
    return {
        name: _curve(*series[name], unit, held_out.get(name))
        for name in sorted(series, key=lambda name: CURVE_GROUPS.index(curve_group(name)))
    }


def _curve(
    xs: np.ndarray,
    ys: np.ndarray,
    unit: str,
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[Figure, str]:
    """Draw one logged quantity, and what held-out subjects get."""
    figure, axes = panel(3.7, 2.1)
    every = max(1, len(ys) // _MAX_POINTS)
    averaged = smooth(ys)
    axes.plot(xs[::every], ys[::every], color=PALETTE["train"], linewidth=0.7, alpha=0.45)
    axes.plot(xs[::every], averaged[::every], color=PALETTE["synthetic"], linewidth=1.6)
    if len(ys) == 1:
        axes.plot(xs, ys, "o", color=PALETTE["synthetic"], markersize=4)
    last = f"last {number(averaged[-1])}"
    if held_out is not None:
        axes.plot(*held_out, color=PALETTE["hold"], linewidth=1.6, marker="o", markersize=2.5)
        last += f", held out {number(held_out[1][-1])}"
        ys = np.concatenate([ys, held_out[1]])
    low, high = np.percentile(ys, [2, 98])
    if ys.min() > 0 and high > _LOG_SPAN * low:
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", useOffset=False, style="plain")
        if np.ptp(ys) < 1e-6 * max(abs(high), 1e-12):
            margin = abs(high) or 1.0
            axes.set_ylim(high - margin, high + margin)
    axes.xaxis.set_major_locator(_whole_ticks())
    axes.xaxis.set_major_formatter(_thousands())
    _label(axes, unit)
    return figure, last


def _whole_ticks() -> Any:
    """Few ticks at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4, integer=True)


def _thousands() -> Any:
    """Whole numbers as 900, 12k or 3.5M."""
    from matplotlib.ticker import FuncFormatter

    def write(value: float, _: int) -> str:
        for size, unit in ((1e6, "M"), (1e3, "k")):
            if abs(value) >= 10 * size or (abs(value) >= size and value % size == 0):
                return f"{value / size:g}{unit}"
        return f"{value:g}"

    return FuncFormatter(write)


def volume_distributions(
    values: Mapping[str, np.ndarray], quantity: str, *, width_in: float = 3.7
) -> Figure:
    """Draw one dot a subject, with median and middle half, one row a set.

    Parameters
    ----------
    values : set (``"generated"``, ``"HOLD"``, ``"TRAIN"``) -> (N,) values; non-finite ones are
        left out.
    quantity : name of the horizontal axis with its unit.
    width_in : width of the panel.
    """
    figure, axes = panel(width_in, 0.8 + 0.4 * len(values))
    for row, (name, given) in enumerate(values.items()):
        known = np.asarray(given, float)
        known = known[np.isfinite(known)]
        colour = PALETTE[_SET_COLOURS.get(name, "train")]
        jitter = numpy_rng(0, "report", name).uniform(-0.2, 0.2, len(known))
        shown = slice(None, None, max(1, len(known) // _MAX_POINTS))
        axes.plot(
            known[shown],
            row + jitter[shown],
            "o",
            color=colour,
            markersize=3,
            alpha=0.45,
            markeredgewidth=0,
        )
        if len(known):
            quarter, middle, three = np.percentile(known, [25, 50, 75])
            axes.plot([quarter, three], [row, row], color=colour, linewidth=3.5, alpha=0.9)
            axes.plot([middle], [row], "|", color=PALETTE["ink"], markersize=13, mew=2)
    axes.set_yticks(range(len(values)), [SET_NAMES.get(name, name) for name in values])
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.tick_params(axis="y", labelcolor=PALETTE["ink"], length=0)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=PALETTE["rule"], linewidth=0.5)
    _label(axes, quantity)
    return figure


def against_age(
    points: Mapping[str, tuple[np.ndarray, np.ndarray]], quantity: str
) -> tuple[Figure, dict[str, float]]:
    """Draw a quantity against age with a straight line a set.

    Parameters
    ----------
    points : set -> (ages in years, values); pairs with a missing half are left out.
    quantity : name of the vertical axis with its unit.

    Returns
    -------
    Figure
    dict
        Set -> least-squares slope per year, for sets with at least 3 different ages.
    """
    figure, axes = panel(3.7, 2.0)
    slopes = {}
    for name, (years, values) in reversed(list(points.items())):
        years, values = np.asarray(years, float), np.asarray(values, float)
        known = np.isfinite(years) & np.isfinite(values)
        years, values = years[known], values[known]
        colour = PALETTE[_SET_COLOURS.get(name, "train")]
        axes.plot(
            years,
            values,
            "o",
            color=colour,
            markersize=3,
            alpha=0.5,
            markeredgewidth=0,
            label=SET_NAMES.get(name, name),
        )
        if len(np.unique(years)) >= 3:
            slope, offset = np.polyfit(years, values, 1)
            ends = np.array([years.min(), years.max()])
            axes.plot(ends, slope * ends + offset, color=colour, linewidth=2)
            slopes[name] = float(slope)
    _label(axes, "age (years)", quantity)
    return figure, slopes


def band(x: np.ndarray, rows: Mapping[str, np.ndarray], x_name: str, y_name: str) -> Figure:
    """Draw the mean of each set over `x` with the range of its middle 98 %.

    Parameters
    ----------
    x : (K,).
    rows : set -> (N, K), NaN where unknown.
    x_name, y_name : names of the axes.
    """
    figure, axes = panel(5.2, 2.7)
    for name, values in reversed(list(rows.items())):
        known = np.isfinite(values).any(axis=0)
        if not known.any():
            continue
        colour = PALETTE[_SET_COLOURS.get(name, "train")]
        low, high = np.nanpercentile(values[:, known], [1, 99], axis=0)
        axes.fill_between(x[known], low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(x[known], np.nanmean(values[:, known], axis=0), color=colour, linewidth=1.8)
    _label(axes, x_name, y_name)
    return figure


def courses(
    rows: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_name: str, y_name: str
) -> Figure:
    """Draw a line a row on a logarithmic axis, its name at its end.

    Parameters
    ----------
    rows : name -> (x, y), y above 0.
    x_name, y_name : names of the axes.
    """
    figure, axes = panel(7.5, 0.9 + max(2.4, 0.19 * len(rows)))
    styles = [(c, s) for s in ("-", "--", ":") for c in ("synthetic", "hold", "train", "ink")]
    ends = []
    for number_of, (name, (x, y)) in enumerate(rows.items()):
        colour, style = styles[number_of % len(styles)]
        axes.plot(x, y, style, color=PALETTE[colour], linewidth=1.5, marker="o", markersize=3)
        ends.append((np.log10(y[-1]), x[-1], y[-1], name, PALETTE[colour]))
    axes.set_yscale("log")
    axes.tick_params(axis="y", which="minor", labelsize=8, labelcolor=PALETTE["muted"])
    low, high = np.log10(axes.get_ylim())
    # Names side by side where lines end, pushed apart where they would cover each other.
    room, place = (high - low) / max(len(ends), 12), low
    for log_y, x_end, y_end, name, colour in sorted(ends):
        place = max(place + room, float(log_y))
        axes.annotate(
            name,
            (x_end, y_end),
            xytext=(1.02, (place - low) / (high - low)),
            textcoords="axes fraction",
            fontsize=7,
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": PALETTE["rule"], "linewidth": 0.5},
        )
    _label(axes, x_name, y_name)
    return figure


def neighbour_distribution(generated: np.ndarray, hold: np.ndarray) -> Figure:
    """Draw how alike the nearest TRAIN subject is: of each sample and of each HOLD subject.

    Parameters
    ----------
    generated, hold : (N,) and (M,) largest correlations with TRAIN.
    """
    figure = volume_distributions(
        {"generated": generated, "HOLD": hold},
        "correlation of residuals with the nearest TRAIN subject",
        width_in=6.0,
    )
    known = np.asarray(hold, float)
    known = known[np.isfinite(known)]
    if known.size:
        figure.axes[0].axvline(
            float(np.percentile(known, 95)), color=PALETTE["hold"], linewidth=1, linestyle="--"
        )
    return figure
