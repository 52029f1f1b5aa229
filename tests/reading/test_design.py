from __future__ import annotations

from collections import Counter

from gyri.reading.design import Pair, deal, trials_of
from gyri.reading.study import Blocks

PAIRS = [Pair(f"real{k}", f"made{k}") for k in range(40)]
BLOCKS = Blocks(yes_no=20, pairs=10, ratings=10, repeats=0.2)


def trials(reader: str = "ann", seed: int = 0):
    return trials_of(reader, deal(PAIRS, BLOCKS, seed), BLOCKS.repeats, seed)


def test_no_volume_is_in_two_blocks_and_half_are_real():
    blocks: dict[str, set[str]] = {}
    for trial in trials():
        blocks.setdefault(trial.block, set()).update(trial.volumes)
    assert list(blocks) == ["yes_no", "pairs", "ratings"]
    assert {block: len(volumes) for block, volumes in blocks.items()} == {
        "yes_no": 20, "pairs": 20, "ratings": 10,
    }  # fmt: skip
    assert not set.intersection(*blocks.values())
    first = [t for t in trials() if t.block == "yes_no" and not t.repeat_of]
    assert Counter(t.truth for t in first) == {"real": 10, "synthetic": 10}


def test_truth_is_what_is_shown():
    for trial in trials():
        shown = ["real" if v.startswith("real") else "synthetic" for v in trial.volumes]
        if trial.block == "pairs":
            assert shown[("left", "right").index(trial.truth)] == "real"
            assert sorted(shown) == ["real", "synthetic"]
        else:
            assert shown == [trial.truth]


def test_repeats_are_hidden_in_the_second_half():
    made = trials()
    by_id = {trial.id: trial for trial in made}
    again = [trial for trial in made if trial.repeat_of]
    assert Counter(t.block for t in again) == {"yes_no": 4, "pairs": 2, "ratings": 2}
    for trial in again:
        first = by_id[trial.repeat_of]
        assert sorted(first.volumes) == sorted(trial.volumes)
        assert not set(first.cases) & set(trial.cases)
        assert trial.position - first.position >= 2


def test_orders_differ_between_readers_and_are_drawn_by_the_seed():
    volumes = [[t.volumes for t in trials(reader)] for reader in ("ann", "ben", "ann")]
    assert volumes[0] == volumes[2] != volumes[1]
    assert {v for pair in volumes[0] for v in pair} == {v for pair in volumes[1] for v in pair}
    # names are not drawn by the seed: who knows it must not know them
    assert {t.id for t in trials()}.isdisjoint(t.id for t in trials())
