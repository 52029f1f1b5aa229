"""The reader of foreign checkpoints: what it takes for a state dict, and its limits."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from gyri.evaluation import unpickle


def test_a_state_dict_or_a_checkpoint_of_one():
    plain = {"a.b": torch.arange(3.0)}
    wrapped = {"epoch": 3, "state_dict": {"module.a.b": torch.arange(3.0)}}
    for content in (plain, wrapped):
        found = unpickle.tensors(content)
        assert list(found) == ["a.b"]
        assert torch.equal(found["a.b"], torch.arange(3.0))


def test_views_become_tensors_of_their_own():
    whole = torch.arange(6.0).reshape(2, 3)
    found = unpickle.tensors({"a": whole.T, "b": whole[0]})
    assert found["a"].is_contiguous()
    assert found["a"].untyped_storage().data_ptr() != found["b"].untyped_storage().data_ptr()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (["no", "names"], "holds a list"),
        ({}, "holds a dict"),
        ({"lr": 0.1}, "entry 'lr' is a float"),
        ({1: torch.zeros(1)}, "entry 1 is a Tensor"),
        ({"state_dict": {"lr": None}}, "entry 'lr' is a NoneType"),
        ({"a": torch.zeros(1), "module.a": torch.zeros(1)}, "with and without 'module.'"),
    ],
)
def test_what_is_no_state_dict_is_named(content, reason):
    with pytest.raises(ValueError, match=reason):
        unpickle.tensors(content)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits private memory")
def test_limits_hold():
    """Under the limits of a file of one byte, 3 GiB are refused, and so is a file of 100 MiB."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import unpickle, tempfile; "
        "unpickle.limit(1)\n"
        "try: bytearray(3 * 2**30); print('memory')\n"
        "except MemoryError: pass\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try: tempfile.TemporaryFile().write(bytes(100 * 2**20)); print('disk')\n"
        "except OSError: pass\n"
        "print('held')"
    )
    folder = unpickle.__file__.rpartition("/")[0]
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["held"]
