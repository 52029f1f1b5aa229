import errno
import json

import pytest
import torch

from gyri.errors import DataError, ResumableStop
from gyri.training import checkpoint

FILES = {"network-g": {"w": torch.arange(4.0)}, "state": {}}


def test_round_trip(tmp_path):
    checkpoint.save(tmp_path, 3, FILES, {"step": 3})
    folder = checkpoint.latest(tmp_path)
    files, state = checkpoint.load(folder)
    assert folder.name == "step-00000003"
    assert state == {"step": 3}
    assert torch.equal(files["network-g"]["w"], torch.arange(4.0))
    assert files["state"] == {}


@pytest.mark.parametrize("damage", ["manifest", "flip", "missing"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage, caplog):
    checkpoint.save(tmp_path, 1, FILES, {})
    newest = checkpoint.save(tmp_path, 2, FILES, {})
    if damage == "manifest":
        (newest / "manifest.json").unlink()
    elif damage == "missing":
        (newest / "network-g.safetensors").unlink()
    else:
        path = newest / "network-g.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))
    assert checkpoint.latest(tmp_path).name == "step-00000001"
    assert "going back" in caplog.text


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path):
    (tmp_path / ".writing-00000005").mkdir()
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.numbered(tmp_path) == []


def test_a_full_disk_keeps_the_old_checkpoint_and_says_so(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, FILES, {"step": 1})

    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(ResumableStop, match=r"disk is full.*step-00000001 is intact"):
        checkpoint.save(tmp_path, 2, FILES, {})
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoint.load(checkpoint.latest(tmp_path))[1] == {"step": 1}


def test_other_write_errors_are_not_called_a_full_disk(tmp_path, monkeypatch):
    def denied(tensors, path):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(checkpoint, "save_file", denied)
    with pytest.raises(PermissionError):
        checkpoint.save(tmp_path, 2, FILES, {})


def test_nan_in_a_checkpoint_is_named(tmp_path):
    checkpoint.save(tmp_path, 1, {"network-g": {"w": torch.tensor([1.0, float("nan")])}}, {})
    with pytest.raises(DataError, match=r"network-g.safetensors: w holds NaN"):
        checkpoint.load(checkpoint.latest(tmp_path))


def test_keep_only_spares_the_newest_and_the_named(tmp_path):
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, step, FILES, {})
    checkpoint.keep_only(tmp_path, {2})
    assert [int(f.name[5:]) for f in checkpoint.numbered(tmp_path)] == [2, 4]


def test_the_manifest_lists_every_other_file(tmp_path):
    folder = checkpoint.save(tmp_path, 1, FILES, {})
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["sha256"]) == {p.name for p in folder.iterdir()} - {"manifest.json"}
