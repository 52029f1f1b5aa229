"""What a study is: rows under one protocol, in one strict YAML file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from gyri.capabilities import capabilities
from gyri.cohort.prepared import PreparedCohort
from gyri.errors import DataError, UsageError, nearest
from gyri.recipe import Recipe, load_recipe
from gyri.registry import METHODS
from gyri.sampling.draw import DrawingConfig
from gyri.settings import read_yaml, typed
from gyri.training import checkpoint
from gyri.training.run import Run

NAME_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_."


@dataclass(frozen=True, kw_only=True)
class Choose:
    """Which checkpoint speaks for a run.

    Parameters
    ----------
    on : the split that chooses; the choice is confirmed once on the judge's split.
    checkpoints : how many of the last numbered ones are compared; 1 takes the last.
    num : samples drawn from each.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    on: Literal["VAL"] = "VAL"
    checkpoints: int = 1
    num: int = 32


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How every row is judged; see `gyri.api.evaluate`."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    split: Literal["HOLD", "TEST"] = "HOLD"
    seed: int = 0
    bootstrap: int = 2000
    features: tuple[str, ...] = ()
    legacy: bool = False


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What all rows share.

    Parameters
    ----------
    budget_s, steps : training of every row that is trained by gradients; one of the two. What a
        recipe `needs` is trained besides, but for `Row.needs`; its cost is counted.
    budget_clock : what `budget_s` counts; see `gyri.recipe.TrainingConfig`.
    num : samples a row.
    mix : split whose mix of conditions the samples are made for.
    network_calls : calls of the denoiser a sample, for all rows with an iterative sampler that are
        not `Row.faithful`: as many of the sampler's steps as fit, no fewer and no more.
    seeds : of training; each gives a run of its own. From three on, differences of rows are given.
    sampling_seed : of all samples.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    budget_s: float | None = None
    budget_clock: Literal["wall", "processor"] = "wall"
    steps: int | None = None
    num: int = 128
    mix: Literal["TRAIN", "VAL", "HOLD", "TEST"] = "HOLD"
    network_calls: int = 25
    seeds: tuple[int, ...] = (0,)
    sampling_seed: int = 0
    choose: Choose = Choose()
    judge: JudgeSettings = JudgeSettings()

    def __post_init__(self) -> None:
        if (self.budget_s is None) == (self.steps is None):
            raise ValueError("give exactly one of protocol.budget_s and protocol.steps")
        for name in ("num", "network_calls"):
            if getattr(self, name) < 1:
                raise ValueError(f"protocol.{name} is {getattr(self, name)}; it is at least 1")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"protocol.seeds is {list(self.seeds)}; give different numbers")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Parameters
    ----------
    name : of the row and its folder: small letters, digits, ``-``, ``_`` and ``.``.
    recipe : YAML file, relative to the study's; `overrides` change it, as ``--override`` does.
    sampling : settings of the method's sampler instead of the recipe's.
    budget_s, steps, seeds : instead of the protocol's; the table says so.
    network_calls : instead of the protocol's.
    needs : shares of the budget that go to the recipes that the row's own needs, by name; it is
        trained with the rest.
    processes : of training, through ``torchrun``.
    label, family : what a reader sees.
    faithful : keeps the choices of a publication, the number of network calls among them.
    published : numbers of the publication, by name, shown beside the table.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    recipe: str
    overrides: tuple[str, ...] = ()
    sampling: dict[str, Any] = field(default_factory=dict)
    budget_s: float | None = None
    steps: int | None = None
    seeds: tuple[int, ...] = ()
    network_calls: int | None = None
    needs: dict[str, float] = field(default_factory=dict)
    processes: int = 1
    label: str = ""
    family: str = ""
    faithful: bool = False
    published: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or set(self.name) - set(NAME_CHARACTERS) or self.name[0] in "-.":
            raise ValueError(
                f"name is {self.name!r}; a row's name is its folder: small letters, digits, '-', "
                "'_' and '.', beginning with a letter or digit"
            )
        if self.budget_s is not None and self.steps is not None:
            raise ValueError("give at most one of budget_s and steps")
        if any(share <= 0 for share in self.needs.values()) or sum(self.needs.values()) >= 1:
            raise ValueError(
                f"needs is {self.needs}; shares of the budget are above 0, and less than 1 together"
            )
        if self.processes < 1:
            raise ValueError(f"processes is {self.processes}; it is at least 1")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study as its file has it.

    Parameters
    ----------
    recipes : by row, with overrides and the row's budget; the training seed is set by `Trial`.
    needed : by row, the recipes that share its budget, by name.
    calls : by row, calls of the network a sample; see `network_calls`.
    """

    name: str
    about: str
    protocol: Protocol
    rows: tuple[Row, ...]
    recipes: Mapping[str, Recipe]
    needed: Mapping[str, Mapping[str, Recipe]]
    calls: Mapping[str, int]

    def select(self, names: Sequence[str]) -> tuple[Row, ...]:
        """Return the rows called `names`, in the study's order; all without names."""
        known = [row.name for row in self.rows]
        for name in names:
            if name not in known:
                raise UsageError(
                    f"The study {self.name} has no row {name!r}.{nearest(name, known)} "
                    f"Its rows: {', '.join(known)}."
                )
        return tuple(row for row in self.rows if not names or row.name in names)


@dataclass(frozen=True)
class Trial:
    """One row trained with one seed: what is run, kept and judged.

    Parameters
    ----------
    keys : hash of everything that decides each stage, in order; a stage is repeated when its
        key has changed, and so are those after it.
    """

    row: Row
    seed: int
    recipe: Recipe
    needed: Mapping[str, Recipe]
    keys: Mapping[str, str]

    @property
    def name(self) -> str:
        """Row and seed."""
        return f"{self.row.name}/seed-{self.seed}"


def load_study(path: Path | str, budget_s: float | None = None, seeds: Sequence[int] = ()) -> Study:
    """Read a study file and every recipe that it names.

    Parameters
    ----------
    path : YAML file with ``name``, ``about``, ``protocol`` and ``rows``.
    budget_s : seconds of training instead of the protocol's; rows with a budget of their own keep
        its ratio to the protocol's.
    seeds : of training instead of the protocol's; rows with seeds of their own keep them.

    Raises
    ------
    DataError
        If a file is missing or no YAML.
    UsageError
        If a key, name or value is wrong; names the place and the nearest right key.
    """
    path = Path(path)
    mapping = read_yaml(path, "study")
    if not isinstance(mapping, dict):
        raise DataError(f"{path} holds {type(mapping).__name__}, not a mapping of study keys.")
    keys = ("name", "about", "protocol", "rows")
    for key in mapping:
        if key not in keys:
            raise UsageError(
                f"{path}: {key}: there is no such key.{nearest(str(key), keys)} "
                f"Keys here: {', '.join(keys)}."
            )
    missing = [key for key in ("name", "protocol", "rows") if not mapping.get(key)]
    if missing:
        raise UsageError(f"{path}: the study has no {' and no '.join(missing)}.")
    try:
        asked = mapping["protocol"]
        if seeds and isinstance(asked, Mapping):
            asked = {**asked, "seeds": list(seeds)}
        protocol = typed(asked, Protocol, "protocol")
        rows = tuple(typed(row, Row, _place(n, row)) for n, row in enumerate(mapping["rows"]))
        _check_names(rows)
        if budget_s is not None:
            protocol, rows = _scaled(protocol, rows, budget_s)
        read = {row.name: _read_recipe(row, path.parent) for row in rows}
        calls = {row.name: _calls(row, read[row.name][1], protocol) for row in rows}
        recipes = {row.name: _budgeted(read[row.name][0], row, protocol) for row in rows}
        needed = {row.name: _needed(read[row.name][0], row, protocol) for row in rows}
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return Study(
        name=str(mapping["name"]),
        about=str(mapping.get("about") or "").strip(),
        protocol=protocol,
        rows=rows,
        recipes=recipes,
        needed=needed,
        calls=calls,
    )


def _place(number: int, row: Any) -> str:
    name = row.get("name") if isinstance(row, Mapping) else None
    return f"rows.{name or number}"


def _check_names(rows: Sequence[Row]) -> None:
    names = [row.name for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"rows: {', '.join(twice)} comes twice. Give every row its own name.")


def _scaled(
    protocol: Protocol, rows: tuple[Row, ...], budget_s: float
) -> tuple[Protocol, tuple[Row, ...]]:
    """Set the budget; rows with their own keep its ratio to the protocol's."""
    ratio = budget_s / protocol.budget_s if protocol.budget_s else 1.0
    scaled = tuple(
        row if row.budget_s is None else replace(row, budget_s=row.budget_s * ratio) for row in rows
    )
    return replace(protocol, budget_s=budget_s, steps=None), scaled


def _read_recipe(row: Row, folder: Path) -> tuple[Recipe, Recipe]:
    """Return a row's recipe, and the same with the row's settings of the sampler."""
    sampling = [f"method.sampling.{key}={json.dumps(value)}" for key, value in row.sampling.items()]
    try:
        recipe = load_recipe(folder / row.recipe, row.overrides)
        return recipe, load_recipe(folder / row.recipe, [*row.overrides, *sampling])
    except UsageError as error:
        raise UsageError(f"rows.{row.name}: {error}") from None


def _budgeted(recipe: Recipe, row: Row, protocol: Protocol, share: float | None = None) -> Recipe:
    """Give a recipe that is trained by gradients its share of the row's budget.

    None is what `Row.needs` leaves.
    """
    if is_fitted(recipe):
        return recipe
    share = 1 - sum(row.needs.values()) if share is None else share
    budget_s, steps = row.budget_s, row.steps
    if budget_s is None and steps is None:
        budget_s, steps = protocol.budget_s, protocol.steps
    training = replace(
        recipe.training,
        budget_s=None if budget_s is None else share * budget_s,
        budget_clock=protocol.budget_clock,
        steps=None if steps is None else max(round(share * steps), 1),
    )
    return replace(recipe, training=training)


def _needed(recipe: Recipe, row: Row, protocol: Protocol) -> dict[str, Recipe]:
    """Read the recipes that share the row's budget."""
    found = {}
    for name, share in row.needs.items():
        where = f"rows.{row.name}.needs"
        if name not in recipe.needs:
            known = ", ".join(recipe.needs) or "nothing"
            raise UsageError(f"{where}: the recipe needs {known}, and no {name!r}.")
        if (Path(recipe.needs[name]) / "run.json").is_file():
            raise UsageError(
                f"{where}: {name} is a run that is trained already ({recipe.needs[name]}). Leave "
                "its share out."
            )
        read = load_recipe(recipe.needs[name])
        if is_fitted(read):
            raise UsageError(
                f"{where}: {name} ({read.method.name}) is fitted once and takes no share of the "
                "budget. Leave it out."
            )
        found[name] = _budgeted(read, row, protocol, share)
    return found


def is_fitted(recipe: Recipe) -> bool:
    """Whether the method is fitted once and knows no budget."""
    return "FitOnce" in capabilities(METHODS[recipe.method.name].component)


def _sampling(recipe: Recipe) -> DrawingConfig | None:
    """Settings of an iterative sampler, None where a sample is one call."""
    config = getattr(recipe.method.config, "sampling", None)
    return config if isinstance(config, DrawingConfig) else None


def network_calls(recipe: Recipe) -> int:
    """Count the calls of the network that a sample of `recipe` takes: 1 without iterations.

    A call sees all items of a volume; a method without networks needs none.
    """
    config = _sampling(recipe)
    if config is None:
        return 1 if recipe.networks else 0
    return config.network_calls


def _calls(row: Row, recipe: Recipe, protocol: Protocol) -> int:
    """Count a row's calls; refuse an iterative sampler that takes others than the protocol's."""
    config, limit = _sampling(recipe), row.network_calls or protocol.network_calls
    calls = network_calls(recipe)
    if config is None or row.faithful:
        return calls
    right = max(
        (n for n in range(1, limit + 1) if replace(config, num_steps=n).network_calls <= limit),
        default=1,
    )
    if config.num_steps != right:
        raise UsageError(
            f"rows.{row.name}: {config.sampler} with num_steps {config.num_steps} and "
            f"guidance_scale {config.guidance_scale:g} calls the network {calls} times a sample; "
            f"network_calls {limit} are given. Write `sampling: {{num_steps: {right}}}`, mark the "
            "row `faithful: true`, or give it network_calls of its own."
        )
    return calls


def trials(study: Study, rows: Sequence[Row], cohort: PreparedCohort) -> list[Trial]:
    """Return what is to be run, in order: all rows with their first seed, then the second.

    Parameters
    ----------
    study : the study.
    rows : some of its rows.
    cohort : the prepared cohort that all of them are run on.
    """
    data = _digest(
        {
            "data_hash": cohort.data_hash,
            "split_hash": cohort.split_hash,
            "table": cohort.table.to_csv(),
        }
    )
    found = []
    for row in rows:
        for order, seed in enumerate(row.seeds or study.protocol.seeds):
            recipe = replace(study.recipes[row.name], seed=seed)
            needed = {n: replace(r, seed=seed) for n, r in study.needed[row.name].items()}
            keys = _keys(row, recipe, needed, study.protocol, data)
            found.append((order, Trial(row, seed, recipe, needed, keys)))
    return [trial for _, trial in sorted(found, key=lambda pair: pair[0])]


def _keys(
    row: Row, recipe: Recipe, needed: Mapping[str, Recipe], protocol: Protocol, data: str
) -> dict[str, str]:
    train = {"recipe": _recipe_digest(recipe), "data": data, "processes": row.processes}
    if needed:
        train["needed"] = {name: _recipe_digest(own) for name, own in needed.items()}
    choose = {"before": _digest(train), "sampling": row.sampling, **asdict(protocol.choose)}
    sample = {
        "before": _digest(choose),
        "num": protocol.num,
        "mix": protocol.mix,
        "seed": protocol.sampling_seed,
    }
    judge = {"before": _digest(sample), **asdict(protocol.judge)}
    stages = {"train": train, "choose": choose, "sample": sample, "judge": judge}
    return {stage: _digest(facts) for stage, facts in stages.items()}


def _recipe_digest(recipe: Recipe) -> str:
    """Hash of a recipe and of all that it needs, wherever these lie."""
    needs = {}
    for name, path in recipe.needs.items():
        if (Path(path) / "run.json").is_file():
            needs[name] = checkpoint.digest(Run.read(path).checkpoint())
        else:
            needs[name] = _recipe_digest(load_recipe(path))
    return _digest({"recipe": replace(recipe, needs={}).sha256, "needs": needs})


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def describe(protocol: Protocol) -> dict[str, Any]:
    """Return the protocol as plain data, without what is not set."""
    plain = json.loads(json.dumps(asdict(protocol)))
    return {f.name: plain[f.name] for f in fields(protocol) if plain[f.name] is not None}
