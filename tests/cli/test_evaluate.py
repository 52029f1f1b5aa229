from __future__ import annotations

import pytest

from gyri.cli import main


def test_a_self_test_needs_enough_held_out_subjects(tiny_cohort, tmp_path, capsys):
    code = main(["evaluate", "self-test", str(tiny_cohort), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert code == 65
    assert "2 volumes would play the generated set" in said
    assert "larger HOLD" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "--help"], "gyri evaluate self-test PREPARED"),
        (["evaluate", "self-test", "--help"], "which metric notices"),
    ],
)
def test_the_help_names_both_forms(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    assert words in " ".join(capsys.readouterr().out.replace("│", " ").split())
