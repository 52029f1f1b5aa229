"""`gyri weights`: what it says and its exit codes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import torch
from tests.evaluation.pretrained import sha256
from torch import nn

from gyri.cli import main
from gyri.evaluation import weights


def test_a_file_is_added_once_its_hash_is_stated(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(weights.FOLDER, str(tmp_path / "weights"))
    known = replace(weights.PUBLISHED["medicalnet-50"], build=lambda: nn.Linear(2, 3))
    monkeypatch.setitem(weights.PUBLISHED, "medicalnet-50", known)
    path = tmp_path / "resnet_50.pth"
    torch.save(nn.Linear(2, 3).state_dict(), path)
    assert main(["weights", "add", "medicalnet-50", str(path)]) == 2
    assert f"--sha256 {sha256(path)}" in capsys.readouterr().err
    assert main(["weights", "add", "medicalnet-50", str(path), "--sha256", sha256(path)]) == 0
    assert sha256(tmp_path / "weights/medicalnet-50/weights.safetensors") in capsys.readouterr().out
    assert main(["weights", "list"]) == 0
    listed = capsys.readouterr().out
    assert f"source SHA-256 {sha256(path)}" in listed
    assert listed.count("not there") == len(weights.PUBLISHED) - 1
    assert "CC BY 4.0" in listed


def test_mistakes_have_exit_codes_and_hints(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    assert main(["weights", "ad"]) == 2
    assert "Did you mean 'add'" in capsys.readouterr().err
    assert main(["weights", "add", "inception-tf", str(tmp_path / "no.pth")]) == 65
    assert "6726825d.pth from https" in capsys.readouterr().err
    assert main(["weights", "add", "inception", str(tmp_path / "no.pth")]) == 2
    assert main(["weights"]) == 0
    assert "usage: gyri weights add NAME FILE" in capsys.readouterr().out


def test_listing_does_not_wait_for_torch():
    code = (
        "import sys; from gyri.cli import main; main(['weights', 'list']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
