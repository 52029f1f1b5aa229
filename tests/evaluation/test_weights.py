"""Weights: what is taken, what is refused and why. Rows 43 to 46 and 62 of the table of faults."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.evaluation.pretrained import add_random, sha256
from torch import nn

from gyri.errors import DataError, UnavailableError, UsageError
from gyri.evaluation import weights

NAME = "medicalnet-50"


def tiny() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A folder of weights of its own, and a small network under a published name."""
    monkeypatch.setenv(weights.FOLDER, str(tmp_path / "weights"))
    monkeypatch.setitem(
        weights.PUBLISHED, NAME, replace(weights.PUBLISHED[NAME], build=tiny, heads=("head.",))
    )
    return tmp_path / "weights"


def saved(path: Path, content: object, **options: object) -> Path:
    torch.save(content, path, **options)
    return path


def add(path: Path) -> weights.Manifest:
    return weights.add(NAME, path, sha256(path))


def test_weights_come_back_bit_for_bit_from_a_checkpoint_of_many_gpus(tmp_path, folder):
    network = tiny()
    network[1].running_mean.normal_()
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    state["module.head.weight"] = torch.zeros(3)
    path = saved(tmp_path / "a.pth", {"epoch": 9, "state_dict": state})
    manifest = add(path)
    loaded = weights.load(NAME)
    assert not loaded.training
    for key, value in network.state_dict().items():
        if not key.endswith(weights.COUNTER):
            assert torch.equal(loaded.state_dict()[key], value), key
    assert manifest.source_sha256 == sha256(path)
    assert manifest.sha256 == sha256(folder / NAME / weights.TENSORS)
    assert json.loads((folder / NAME / weights.MANIFEST).read_text())["licence"].startswith("MIT")
    assert weights.problem(NAME) is None
    assert {p.name for p in (folder / NAME).iterdir()} == {weights.TENSORS, weights.MANIFEST}


def test_files_of_old_torch_are_read(tmp_path):
    state = tiny().state_dict()
    del state["1.num_batches_tracked"]
    add(saved(tmp_path / "old.pth", state, _use_new_zipfile_serialization=False))
    assert weights.problem(NAME) is None


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_payload_is_refused_and_not_run(tmp_path, folder):
    marker = tmp_path / "ran"
    path = saved(tmp_path / "bad.pth", {**tiny().state_dict(), "x": Payload(marker)})
    with pytest.raises(DataError, match=r"plain tensors .*Nothing in it was run"):
        add(path)
    assert not marker.exists()
    assert not list((folder / NAME).iterdir())
    torch.load(path, weights_only=False)
    assert marker.exists(), "the payload is harmless, and so is this test"


def test_a_tensor_that_claims_more_than_it_holds_does_not_fill_the_memory(tmp_path):
    claim = torch.zeros(1).expand(2**34)
    with pytest.raises(DataError, match="cannot be read as plain tensors"):
        add(saved(tmp_path / "claim.pth", tiny().state_dict() | {"0.bias": claim}))


def test_every_fault_of_the_tensors_is_named(tmp_path, folder):
    state = tiny().state_dict()
    state["1.weight"][0] = float("nan")
    state["1.bias"] = torch.zeros(3)
    state["surplus"] = torch.zeros(1)
    state["1.running_mean"] = torch.zeros(2, dtype=torch.int64)
    del state["0.bias"]
    with pytest.raises(DataError) as error:
        add(saved(tmp_path / "x.pth", state))
    for part in (
        "1.weight holds NaN",
        "1.bias has shape (3,), expected (2,)",
        "surplus is unknown",
        "0.bias is missing",
        "1.running_mean is torch.int64",
    ):
        assert part in str(error.value)
    assert weights.problem(NAME).startswith("The weights medicalnet-50 are not there.")


def test_a_file_with_another_hash_is_not_even_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_convert", lambda *given: pytest.fail("was opened"))
    path = tmp_path / "page.html"
    path.write_text("<html>")
    with pytest.raises(DataError, match=r"has SHA-256 \w{64}; the published one is 6726825d"):
        weights.add("inception-tf", path)
    with pytest.raises(DataError, match="the stated one is 0000"):
        weights.add(NAME, path, "0" * 64)
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        weights.add(NAME, path, "abc")
    with pytest.raises(UsageError, match=f"SHA-256 is {sha256(path)}.*--sha256 {sha256(path)}"):
        weights.add(NAME, path)
    with pytest.raises(UsageError, match="Did you mean 'medicalnet-50'"):
        weights.add("medicalnet-5", path)
    with pytest.raises(DataError, match="is no file"):
        weights.add(NAME, tmp_path)


def test_a_pinned_hash_stays(tmp_path, folder):
    state = tiny().state_dict()
    first = saved(tmp_path / "first.pth", state)
    add(first)
    weights.add(NAME, first)
    state["0.bias"] += 1
    with pytest.raises(DataError, match=f"pinned to a file with SHA-256 {sha256(first)}"):
        add(saved(tmp_path / "second.pth", state))


def test_what_was_changed_after_it_was_added_is_refused(tmp_path, folder):
    add(saved(tmp_path / "a.pth", tiny().state_dict()))
    kept, note = folder / NAME / weights.TENSORS, folder / NAME / weights.MANIFEST
    whole, manifest = kept.read_bytes(), json.loads(note.read_text())

    kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "was changed after it was added" in weights.problem(NAME)
    for broken in (struct.pack("<Q", 2**40) + whole[8:], whole + b"x", whole[:-4]):
        kept.write_bytes(broken)
        note.write_text(json.dumps(manifest | {"sha256": sha256(kept)}))
        assert "is no valid safetensors file" in weights.problem(NAME)
    kept.write_bytes(whole)
    note.write_text(json.dumps(manifest | {"schema": 2}))
    assert "has schema 2, this gyri reads 1" in weights.problem(NAME)
    note.write_text("{")
    assert "cannot be read" in weights.problem(NAME)
    note.write_text(json.dumps(manifest))
    assert weights.problem(NAME) is None
    kept.unlink()
    with pytest.raises(UnavailableError, match=r"Get resnet_50.pth from https.*gyri weights add"):
        weights.load(NAME)


def test_the_folder_is_the_users(monkeypatch, tmp_path):
    assert weights.root() == tmp_path / "weights"
    monkeypatch.delenv(weights.FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.root() == tmp_path / "gyri" / "weights"


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("inception-tf", {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}),
        pytest.param("radimagenet-resnet50", {}, marks=pytest.mark.slow),
        pytest.param("medicalnet-50-23datasets", {}, marks=pytest.mark.slow),
        pytest.param("medicalnet-101", {}, marks=pytest.mark.slow),
    ],
)
def test_every_published_network_round_trips(name, extra, tmp_path, monkeypatch):
    network = add_random(name, tmp_path, monkeypatch, extra)
    loaded = weights.load(name).state_dict()
    for key, value in network.state_dict().items():
        assert torch.equal(loaded[key], value), key
