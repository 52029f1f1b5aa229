from __future__ import annotations

import pytest

from gyri.errors import DataError, UsageError
from gyri.reading.study import Blocks, load_study

GOOD = "name: a\ncohort: c\nsynthetic: s\nreaders: [x, y]\n"


def test_paths_are_seen_from_the_file(tmp_path):
    (tmp_path / "a.yaml").write_text(GOOD)
    study = load_study(tmp_path / "a.yaml")
    assert study.cohort == tmp_path / "c"
    assert study.synthetic == (tmp_path / "s",)
    assert study.blocks.pairs_needed == 30 + 30 + 10
    assert study.match is None


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("readrs: [x]", "no such key"),
        ("readers: [x, x]", "every reader once"),
        ("margin: 0.7", "margin is 0.7"),
        ("blocks: {yes_no: 7}", "even"),
        ("blocks: {yes_no: 0, pairs: 0, ratings: 0}", "one is above 0"),
        ("blocks: {repeats: 0.9}", "repeats"),
        ("encoding: {mask: round}", "mask"),
        ("name: ../x", "letters"),
    ],
)
def test_wrong_files_say_what_is_wrong(tmp_path, more, words):
    lines = {line.split(":")[0]: line for line in (GOOD + more).splitlines()}
    (tmp_path / "a.yaml").write_text("\n".join(lines.values()))
    with pytest.raises(UsageError, match=words):
        load_study(tmp_path / "a.yaml")


def test_no_file_is_no_study(tmp_path):
    with pytest.raises(DataError, match="no reader study"):
        load_study(tmp_path / "none.yaml")


def test_pairs_needed_counts_every_volume_once():
    assert Blocks(yes_no=10, pairs=3, ratings=4).pairs_needed == 5 + 3 + 2
