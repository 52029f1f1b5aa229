import time

import pytest

from gyri.study.cost import _risen, mean_power_w, measured, processor_energy_j


def test_a_block_is_measured_even_when_it_fails():
    with pytest.raises(ValueError, match="over"), measured() as cost:  # noqa: PT012
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass
        raise ValueError("over")
    assert cost["cpu_s"] >= 0.1
    assert cost["wall_s"] >= 0.1
    assert cost["ended"] - cost["began"] == pytest.approx(cost["wall_s"], abs=0.1)
    assert cost["peak_memory_gib"] > 0


def test_energy_of_all_packages_is_added_up(tmp_path):
    for package, energy in (("intel-rapl:0", 3_000_000), ("intel-rapl:1", 500_000)):
        (tmp_path / package).mkdir()
        (tmp_path / package / "energy_uj").write_text(f"{energy}\n")
    (tmp_path / "intel-rapl:0:0").mkdir()
    assert processor_energy_j(tmp_path) == 3.5


def test_energy_that_cannot_be_read_is_none(tmp_path):
    assert processor_energy_j(tmp_path / "absent") is None
    (tmp_path / "intel-rapl:0").mkdir()
    assert processor_energy_j(tmp_path) is None


def test_a_counter_that_has_run_over_tells_nothing():
    assert _risen(2.0, 5.0) == 3.0
    assert _risen(5.0, 2.0) is None
    assert _risen(None, 2.0) is None


def test_the_power_of_several_gpus_is_added_up():
    assert mean_power_w("0, 100.0\n1, 50\n0, 200.0\n1, [N/A]\n") == 200.0
    assert mean_power_w("0, [N/A]\n") is None
    assert mean_power_w("") is None
