"""A base in 8 or 4 bits under a LoRA: how far its predictions are off, what it saves, and that training works."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from seedpo.errors import ConfigError
from seedpo.models.policy import PipelinePolicy, build_policy
from seedpo.models.quantised import BasePrecision, quantise, saved_bytes
from seedpo.models.settings import ModelSettings
from seedpo.planning.configurations import model_configuration
from seedpo.planning.networks import build_policy as planned_policy
from seedpo.planning.networks import weight_bytes
from seedpo.settings import build_config
from seedpo.training.settings import RunConfig
from tests.models.tiny import move, network_inputs, on_reference, train_steps

EACH = pytest.mark.parametrize("precision", ["int8", "nf4"])
LARGEST_ERROR = {"int8": 0.01, "nf4": 0.1}
"""Of the embedded model's predictions, relative to their size; measured are 0.0014 and 0.028."""


def policy(precision: BasePrecision, **keys: Any) -> PipelinePolicy:
    return build_policy(build_config(ModelSettings, {"base_precision": precision, "lora_rank": 4, **keys}))


def bytes_of(network: nn.Module) -> int:
    """All that a network stores, scales included."""
    return sum(value.nbytes for value in network.state_dict().values())


def linear(precision: BasePrecision, *, rows: int = 24, columns: int = 128) -> tuple[torch.Tensor, nn.Module]:
    """The weights of a layer, and the layer quantised."""
    network = nn.Sequential(nn.Linear(columns, rows))
    with torch.no_grad():
        network[0].weight.copy_(torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)))
    weight = network[0].weight.detach().double()
    quantise(network, precision, torch.float32)
    return weight, network[0]


def stored(layer: nn.Module) -> torch.Tensor:
    """The weights that a layer computes with, from what it does to the unit vectors."""
    with torch.no_grad():
        weight: torch.Tensor = (layer(torch.eye(128)) - layer.bias).T.double()  # type: ignore[operator]
    return weight


class TestFormats:
    def test_8_bits_are_multiples_of_the_largest_weight_of_a_row_over_127(self) -> None:
        weight, layer = linear("int8")
        scale = weight.abs().amax(1, keepdim=True) / 127
        # The library rounds its inputs to float16 first.
        assert ((stored(layer) - weight).abs() <= 0.5 * scale + 2e-3).all()
        assert len(torch.unique((stored(layer) / scale).round())) > 150

    def test_4_bits_are_the_nearest_of_16_values_times_the_scale_of_64_weights(self) -> None:
        weight, layer = linear("nf4")
        blocks, ours = weight.reshape(-1, 64), stored(layer).reshape(-1, 64)
        scale = blocks.abs().amax(1, keepdim=True)
        # The widest gap of the 16 values lies between -1 and -0.6962; the scales are rounded to 8 bits.
        assert ((ours - blocks).abs() <= (0.5 * 0.3038 + 0.02) * scale).all()
        assert all(len(torch.unique(row.float())) <= 16 for row in ours)


class TestPolicy:
    @EACH
    def test_predictions_are_those_of_the_whole_base_but_for_rounding(self, precision: BasePrecision) -> None:
        whole, rounded = policy("full"), policy(precision)
        inputs = network_inputs(whole)
        with torch.no_grad():
            expected, prediction = whole.predict(*inputs), rounded.predict(*inputs)
        error = float((prediction - expected).norm() / expected.norm())
        assert 1e-4 < error < LARGEST_ERROR[precision]

    @pytest.mark.parametrize(("precision", "dora"), [("int8", False), ("nf4", False), ("nf4", True)])
    @pytest.mark.parametrize("mixed", ["no", "bf16"])
    def test_starts_as_its_reference(self, precision: BasePrecision, mixed: str, dora: bool) -> None:
        rounded = policy(precision, mixed_precision=mixed, lora_dora=dora)
        inputs = network_inputs(rounded)
        assert torch.equal(rounded.predict(*inputs), on_reference(rounded, *inputs))

    @EACH
    def test_only_linear_layers_are_rounded(self, precision: BasePrecision) -> None:
        whole, rounded = policy("full").network, policy(precision).network
        changed = {name for name, value in rounded.named_parameters() if not value.is_floating_point()}
        expected = {
            f"{name}.weight"
            for name, layer in whole.named_modules()
            if isinstance(layer, nn.Linear) and ".lora_" not in name
        }
        assert changed == expected
        for name, value in whole.named_parameters():
            if name not in changed:
                assert torch.equal(value, rounded.get_parameter(name))

    @EACH
    def test_training_lowers_the_loss_and_leaves_the_base_alone(self, precision: BasePrecision) -> None:
        rounded = policy(precision, gradient_checkpointing=True)
        frozen = {name: value.clone() for name, value in rounded.network.state_dict().items() if ".lora_" not in name}

        def loss() -> float:
            with torch.no_grad():
                return float(rounded.predict(*network_inputs(rounded)).square().mean())

        before = loss()
        train_steps(rounded, steps=8)
        assert loss() < 0.9 * before
        assert all(torch.equal(value, rounded.network.state_dict()[name]) for name, value in frozen.items())

    @EACH
    def test_what_is_saved_is_read_again(self, tmp_path: Path, precision: BasePrecision) -> None:
        rounded, other = move(policy(precision)), policy(precision)
        rounded.save(tmp_path)
        other.load(tmp_path)
        inputs = network_inputs(rounded)
        assert torch.equal(rounded.predict(*inputs), other.predict(*inputs))


class TestMemory:
    @EACH
    def test_is_what_is_reckoned(self, precision: BasePrecision) -> None:
        whole, rounded = policy("full").network, policy(precision).network
        saved = bytes_of(whole) - bytes_of(rounded)
        tables = 2000 * sum(not value.is_floating_point() for value in rounded.parameters())  # of 4 bits, per layer
        assert saved <= saved_bytes(whole, precision) <= saved + tables
        assert saved > 0.25 * bytes_of(whole)

    @EACH
    def test_plan_reckons_with_it(self, precision: BasePrecision) -> None:
        """SDXL's linear layers are most of it: bf16 takes 4.8 GiB."""
        keys = {"model": "stabilityai/stable-diffusion-xl-base-1.0", "mixed_precision": "bf16"}
        config = build_config(RunConfig, keys)
        network = planned_policy(config, model_configuration(config)).network
        left = (weight_bytes(network) - saved_bytes(network, precision)) / 2**30
        assert left == pytest.approx({"int8": 2.73, "nf4": 1.72}[precision], abs=0.02)


class TestRefusals:
    def test_where_the_library_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "bitsandbytes", None)
        with pytest.raises(ConfigError, match=r"base_precision = int8 needs bitsandbytes; pip install .*quantised"):
            quantise(nn.Sequential(nn.Linear(64, 64)), "int8", torch.float32)

    def test_the_whole_network_is_not_frozen(self) -> None:
        with pytest.raises(ConfigError, match="base_precision = nf4 needs adapter = lora"):
            build_config(ModelSettings, {"base_precision": "nf4", "adapter": "full"})
        with pytest.raises(ConfigError, match="lora_dora needs base_precision nf4 or full"):
            build_config(ModelSettings, {"base_precision": "int8", "lora_dora": True})
        with pytest.raises(ConfigError, match="base_precision"):
            build_config(ModelSettings, {"base_precision": "int4"})
