"""Loaded weights lie in aligned memory, whatever loader read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from seedpo.models.loading import add_lora, add_trained, load_pipeline
from seedpo.models.lora_file import LORA_FILE
from seedpo.scenes.shipped import plain_scorer, scenes_folder, scenes_scorer
from seedpo.weights import ALIGNMENT, align, aligned, read_tensors
from tests.models.tiny import tiny_pipeline, tiny_policy


def off(tensor: torch.Tensor) -> int:
    return tensor.data_ptr() % ALIGNMENT


def misaligned(*shape: int) -> torch.Tensor:
    """Random values that start 4 bytes after an aligned address."""
    count = torch.Size(shape).numel()
    return torch.randn(count + 1, generator=torch.Generator().manual_seed(0))[1:].view(shape)


class TestTensors:
    def test_a_misaligned_tensor_is_copied_with_its_strides(self) -> None:
        tensor = misaligned(4, 3).t()
        assert off(tensor)
        copy = aligned(tensor)
        assert not off(copy)
        assert copy.stride() == tensor.stride()
        assert torch.equal(copy, tensor)

    def test_an_aligned_tensor_is_not_copied(self) -> None:
        tensor = torch.zeros(3)
        assert aligned(tensor) is tensor

    def test_a_file_whose_header_ends_anywhere(self, tmp_path: Path) -> None:
        values = {f"name{index}": misaligned(5) for index in range(4)}
        save_file(values, tmp_path / "a.safetensors", metadata={"length": "odd"})
        assert any(off(value) for value in load_file(tmp_path / "a.safetensors").values()), "else nothing is tested"
        read = read_tensors(tmp_path / "a.safetensors")
        assert not any(off(value) for value in read.values())
        assert all(torch.equal(read[name], value) for name, value in values.items())


class TestNetworks:
    def test_parameters_and_buffers_move_in_place(self) -> None:
        network = nn.BatchNorm1d(3)
        network.weight.data, network.running_mean = misaligned(3), misaligned(3)
        weight, values = network.weight, network.weight.detach().clone()
        assert align(network) is network
        assert network.weight is weight
        assert torch.equal(weight, values)
        assert not off(network.weight)
        assert not off(network.running_mean)

    @pytest.mark.parametrize("load", [lambda: load_pipeline(scenes_folder()), scenes_scorer, plain_scorer])
    def test_what_is_loaded(self, load: Callable[[], Any]) -> None:
        loaded = load()
        parts = getattr(loaded, "components", vars(loaded)).values()
        networks = [part for part in parts if isinstance(part, nn.Module)]
        assert networks
        for network in networks:
            assert not [name for name, value in network.state_dict().items() if off(value)]

    @pytest.mark.parametrize("adapter", ["lora", "full"])
    def test_what_a_run_trained(self, tmp_path: Path, adapter: Literal["lora", "full"]) -> None:
        policy = tiny_policy(adapter=adapter)
        policy.save(tmp_path)
        policy.load(tmp_path)
        pipeline = tiny_pipeline()
        add_trained(pipeline, tmp_path, adapter=adapter)
        for network in (policy.network, pipeline.unet):
            assert not [name for name, value in network.state_dict().items() if off(value)]

    def test_a_lora_from_elsewhere(self, tmp_path: Path) -> None:
        tiny_policy().save(tmp_path)
        save_file(load_file(tmp_path / LORA_FILE), tmp_path / "odd.safetensors", metadata={"length": "odd"})
        pipeline = tiny_pipeline()
        add_lora(pipeline, tmp_path / "odd.safetensors")
        assert not [name for name, value in pipeline.unet.state_dict().items() if off(value)]
