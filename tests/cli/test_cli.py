"""The command line: help, exit codes, and the real path verb by verb."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys

import pytest
from tests.contracts.tiny import recipe

from gyri.cli import main, verbs
from gyri.cli.cohort import import_cohort


def test_help_names_every_verb_with_a_line(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert next(iter(verbs())) == "demo"
    assert all(name in text and summary and summary in text for name, summary in verbs().items())


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from gyri.cli import main; main(['--help']); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'pandas', 'tyro')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("verb", list(verbs()))
def test_every_verb_has_help(verb, capsys):
    with contextlib.suppress(SystemExit):
        main([verb, "--help"])
    assert "usage" in capsys.readouterr().out


def test_mistakes_have_exit_codes_and_hints(capsys, tmp_path):
    assert main(["trian"]) == 2
    assert "Did you mean 'train'" in capsys.readouterr().err
    assert main(["list", "method"]) == 2
    assert "Did you mean 'methods'" in capsys.readouterr().err
    assert main(["cohort", "import", "oasis_1", "a", "b"]) == 2
    assert "'oasis1'" in capsys.readouterr().err
    assert main(["cohort", "import", "oasis1", "a"]) == 2
    assert "SRC OUT" in capsys.readouterr().err
    assert main(["cohort", "import", "oasis1", str(tmp_path / "no"), str(tmp_path / "out")]) == 65
    assert main(["prepare", str(tmp_path / "no"), str(tmp_path / "out")]) == 65
    assert main(["sample", str(tmp_path), "--condition", "age:70"]) == 2


@pytest.mark.parametrize("kind", ["methods", "views", "networks", "sources", "metrics", "steps"])
def test_list(kind, capsys):
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == kind
    assert len(lines) > 1
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines[1:])


def test_info_of_machine_and_folders(capsys, tiny_cohort):
    assert main(["info"]) == 0
    assert "torch" in capsys.readouterr().out
    assert main(["info", str(tiny_cohort)]) == 0
    assert "data_hash" in capsys.readouterr().out
    assert main(["cohort", "info", str(tiny_cohort)]) == 0
    assert "14 subjects" in capsys.readouterr().out


def test_the_path_from_a_prepared_cohort_to_a_report(tiny_cohort, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe("pca_gaussian").to_yaml())
    run, samples = str(tmp_path / "run"), str(tmp_path / "samples")
    assert main(["train", str(path), "--data", str(tiny_cohort), "--out", run]) == 0
    sample = ["sample", run, "--out", samples, "--num", "4", "--condition", "age=70", "sex=F"]
    assert main(sample) == 0
    assert main(["report", samples, "--against", str(tiny_cohort)]) == 65
    assert main(["evaluate", samples, "--against", str(tiny_cohort), "--bootstrap", "50"]) == 0
    assert main(["report", samples, "--against", str(tiny_cohort)]) == 0
    page = (tmp_path / "samples" / "report.html").read_text()
    assert "syn0001" in page
    assert 'src="http' not in page


def test_a_disk_fault_is_a_message_and_a_bug_is_not(monkeypatch, capsys):
    from gyri.cli import info

    def fails(number):
        def main(arguments):
            raise OSError(number, os.strerror(number), "there")

        return main

    monkeypatch.setattr(info, "main", fails(errno.ENOSPC))
    assert main(["info"]) == 75
    assert "No space left on device: 'there'" in capsys.readouterr().err
    monkeypatch.setattr(info, "main", fails(errno.EBADF))
    with pytest.raises(OSError, match="Bad file"):
        main(["info"])


def test_options_of_a_source_are_explained_whole(capsys):
    with pytest.raises(SystemExit):
        import_cohort(["folder", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "the table; None takes the only CSV or TSV file" in text
