"""Make a reader study: draw matched pairs, encode them alike, check for cues, seal the order."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gyri import __version__
from gyri.cohort.files import write_json, write_text
from gyri.errors import DataError, UsageError
from gyri.reading import templates
from gyri.reading.cues import LEAST_PAIRS, CueCheck, check_cues, cue_features
from gyri.reading.design import Pair, deal, trials_of
from gyri.reading.encode import Encoder
from gyri.reading.ledger import FILE, Ledger
from gyri.reading.matching import match_pairs, rules_for
from gyri.reading.sources import RealSource, SyntheticSource, refuse_mixture
from gyri.reading.study import FAULTS, SCALES, Study
from gyri.runtime.seeding import numpy_rng

RECORD = "gyri-reading.json"
VOLUMES = "volumes"
LINKS = "readers.txt"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Made:
    """What `new_study` made.

    Parameters
    ----------
    root : the study's folder.
    cues : the cue check of each folder of samples.
    matched : rule a column.
    num_pairs : pairs that could be matched, by folder of samples.
    tokens : by reader; they are kept nowhere else but in ``readers.txt``.
    """

    root: Path
    cues: dict[str, CueCheck]
    matched: dict[str, Any]
    num_pairs: dict[str, int]
    tokens: dict[str, str]


class CuesFound(DataError):
    """The cue check beats its limit; the study is not made."""


def new_study(
    study: Study, out: Path, *, allow_cues: bool = False, progress: Progress | None = None
) -> Made:
    """Draw, encode, check and seal a study.

    Parameters
    ----------
    study : what is asked.
    out : new folder: encoded volumes, the sealed file, readers' links, templates.
    allow_cues : make the study although readers can tell without anatomy; it says so everywhere.
    progress : told (what, done, of how many).

    Raises
    ------
    CuesFound
        Real and synthetic can be told by border, histogram or file; the message says by which and
        what to do.
    UsageError
        The volumes do not go together, faces are shown, or there are too few pairs.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty. A study is drawn once; give another folder.")
    real = RealSource.open(study.cohort, study.split, study.channel)
    sources = [SyntheticSource.open(path, study.channel) for path in study.synthetic]
    for source in sources:
        refuse_mixture(real, source, study.split)
    if not real.cohort.skull_stripped and not study.allow_faces:
        raise UsageError(
            "The volumes show heads, and faces are drawn from them in seconds. Prepare with a "
            "skull strip, or say `allow_faces: true` in the study file."
        )
    rules = [rules_for(study.match, real.table, source.table) for source in sources]
    pools = [match_pairs(real.table, source.table, rule) for source, rule in zip(sources, rules)]
    for source, pool in zip(sources, pools):
        if len(pool) < LEAST_PAIRS:
            raise UsageError(
                f"{source.cohort.root}: {len(pool)} pairs match; the cue check needs "
                f"{LEAST_PAIRS}. Sample more volumes, widen `match` or take another split."
            )
    pairs = _draw(pools, study.seed, study.blocks.pairs_needed)
    encoder = Encoder.fit(
        study.encoding, real.grid, lambda: map(real.volume, range(len(real.table)))
    )
    shop = _Workshop(encoder, real, sources, out / VOLUMES, progress)
    cues = {
        str(source.cohort.root): shop.check(place, pool, study.seed)
        for place, (source, pool) in enumerate(zip(sources, pools))
    }
    if not all(check.passed for check in cues.values()) and not allow_cues:
        shop.clear()
        raise CuesFound(_advice(cues, study))
    named = [Pair(shop.keep_real(i), shop.keep_synthetic(place, j)) for place, i, j in pairs]
    dealt = deal(named, study.blocks, study.seed)
    trials = [
        trial
        for reader in study.readers
        for trial in trials_of(reader, dealt, study.blocks.repeats, study.seed)
    ]
    ledger, tokens = Ledger.create(out / FILE, shop.volumes, trials)
    seal = ledger.seal()
    ledger.close()
    made = Made(
        out, cues, dict(rules[0]), {str(s.cohort.root): len(p) for s, p in zip(sources, pools)},
        tokens,
    )  # fmt: skip
    _write_folder(study, made, seal, real)
    return made


def _draw(pools: list[list[tuple[int, int]]], seed: int, need: int) -> list[tuple[int, int, int]]:
    """Return (folder, real row, synthetic row): equal shares of folders, nobody real twice.

    Raises
    ------
    UsageError
        There are fewer pairs than needed.
    """
    rng = numpy_rng("draw pairs", seed)
    orders = [[pool[i] for i in rng.permutation(len(pool))] for pool in pools]
    taken: set[int] = set()
    drawn: list[tuple[int, int, int]] = []
    while len(drawn) < need and any(orders):
        for place, order in enumerate(orders):
            while order:
                i, j = order.pop()
                if i not in taken:
                    taken.add(i)
                    drawn.append((place, i, j))
                    break
    if len(drawn) < need:
        raise UsageError(
            f"The blocks take {need} matched pairs (yes_no / 2 + pairs + ratings / 2); there are "
            f"{len(drawn)}. Ask for fewer trials, sample more volumes or widen `match`."
        )
    return drawn[:need]


class _Workshop:
    """Encodes volumes and remembers under which name which was written."""

    def __init__(
        self,
        encoder: Encoder,
        real: RealSource,
        sources: list[SyntheticSource],
        folder: Path,
        progress: Progress | None,
    ) -> None:
        self._encoder, self._real, self._sources, self._folder = encoder, real, sources, folder
        self._progress = progress or (lambda *_: None)
        recipes = [str(source.cohort.facts["recipe_name"]) for source in sources]
        self._models = [
            name if recipes.count(name) == 1 else f"{name} {source.cohort.root}"
            for name, source in zip(recipes, sources)
        ]
        self._names: dict[tuple[int, int], str] = {}
        self._features: dict[int, dict[str, float]] = {}
        self.volumes: list[dict[str, str]] = []

    def _features_of(self, volume: np.ndarray) -> dict[str, float]:
        encoded = self._encoder(volume)
        # The file as a browser gets it, written and read back, not what we believe of it.
        path = self._folder / ".cue.nii"
        self._encoder.write(path, encoded)
        features = cue_features(encoded, path.read_bytes())
        path.unlink()
        return features

    def clear(self) -> None:
        """Leave no folder behind."""
        self._folder.rmdir()

    def check(self, place: int, pool: list[tuple[int, int]], seed: int) -> CueCheck:
        """Check all matched pairs of one folder of samples."""
        real, synthetic = [], []
        for done, (i, j) in enumerate(pool):
            self._progress("cue check", done, len(pool))
            if i not in self._features:
                self._features[i] = self._features_of(self._real.volume(i))
            real.append(self._features[i])
            synthetic.append(self._features_of(self._sources[place].volume(j)))
        return check_cues(real, synthetic, seed)

    def keep_real(self, row: int) -> str:
        """Write a real volume under a random name."""
        source = f"{self._real.cohort.name} {self._real.table['split'].iloc[row]}"
        return self._keep(-1, row, self._real.volume(row), "real", source,
                          str(self._real.table.index[row]))  # fmt: skip

    def keep_synthetic(self, place: int, row: int) -> str:
        """Write a sample under a random name."""
        source = self._sources[place]
        return self._keep(place, row, source.volume(row), "synthetic",
                          self._models[place], str(source.table.index[row]))  # fmt: skip

    def _keep(
        self, place: int, row: int, volume: np.ndarray, kind: str, source: str, subject: str
    ) -> str:
        if (place, row) not in self._names:
            name = secrets.token_hex(16)
            path = self._folder / f"{name}.nii"
            self._encoder.write(path, self._encoder(volume))
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            self._names[place, row] = name
            self.volumes.append(
                {"id": name, "kind": kind, "source": source, "subject": subject, "sha256": digest}
            )
        return self._names[place, row]


def _advice(cues: dict[str, CueCheck], study: Study) -> str:
    """Say by what the classes can be told and what can be done about it."""
    lines = ["Readers could tell real from synthetic without looking at the anatomy:"]
    lines += [f"  {folder}: {check.sentence()}" for folder, check in cues.items()]
    todo = []
    worst = {g: max(c.groups[g] for c in cues.values()) for g in ("border", "histogram", "file")}
    if worst["histogram"] > 0.55 and study.encoding.intensity == "window":
        todo.append("`encoding: {intensity: matched}` gives every volume one histogram")
    if worst["border"] > 0.55 and study.encoding.mask == "own":
        todo.append("`encoding: {mask: common}` cuts all brains by one mask")
    todo.append(
        "`encoding: {smooth_fwhm_mm: ...}` takes fine noise from both; better samples are the "
        "only other cure"
    )
    return "\n".join(
        [*lines, f"The limit is 55 %. What helps: {'; '.join(todo)}.",
         "--allow-cues makes the study all the same, as a pilot; its pages say CUES."]
    )  # fmt: skip


def _write_folder(study: Study, made: Made, seal: str, real: RealSource) -> None:
    settings = asdict(study)
    settings["cohort"] = str(study.cohort)
    settings["synthetic"] = [str(path) for path in study.synthetic]
    record = {
        "schema": "gyri-reading-1",
        "gyri": __version__,
        "study": settings,
        "seal": seal,
        "matched": made.matched,
        "num_matched_pairs": made.num_pairs,
        "cues": {folder: check.to_dict() for folder, check in made.cues.items()},
        "passed_cue_check": all(check.passed for check in made.cues.values()),
        "grid": {"shape": list(real.grid.shape), "affine": [list(row) for row in real.grid.affine]},
        "data_hash": real.cohort.data_hash,
        "split_hash": real.cohort.split_hash,
        "scales": list(SCALES),
        "faults": list(FAULTS),
    }
    write_json(made.root / RECORD, record)
    links = "\n".join(f"{reader}\t{token}" for reader, token in made.tokens.items())
    write_text(made.root / LINKS, links + "\n")
    (made.root / LINKS).chmod(0o600)
    for name, text in templates.filled(record).items():
        write_text(made.root / name, text)
