from __future__ import annotations

import pytest

from seedpo.errors import ConfigError
from seedpo.planning.gpus import GPUS, find_gpu


def test_found_as_people_write_it() -> None:
    for written, name in [
        ("a100-80gb", "A100-80"),
        ("NVIDIA A100 40GB", "A100-40"),
        ("4090", "RTX-4090"),
        ("GeForce RTX 4090", "RTX-4090"),
        ("h100-sxm", "H100"),
        ("h100_pcie", "H100-PCIe"),
        ("t4", "T4"),
    ]:
        assert find_gpu(written).name == name


def test_every_gpu_is_found_by_its_own_name() -> None:
    assert [find_gpu(gpu.name) for gpu in GPUS] == list(GPUS)


def test_an_unknown_one_is_refused_with_the_list() -> None:
    with pytest.raises(ConfigError, match=r"unknown GPU 'H10'; did you mean H100\? there are: A10, "):
        find_gpu("H10")
