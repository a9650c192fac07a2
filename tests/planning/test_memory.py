"""The bytes that a training step is said to take, against those that the allocator hands out in a real one."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from seedpo.models.adapter import LoraAdapter
from seedpo.models.pipelines.stable_diffusion import STABLE_DIFFUSION_XL
from seedpo.models.settings import LoraForm
from seedpo.planning.meter import metering

TOLERANCE = 0.15
"""What kernels take for themselves, and what the autograd engine holds a little longer or shorter."""


def unet(device: str, *, adapter: bool, checkpointing: bool) -> nn.Module:
    """The shape of SDXL's UNet, small: most transformer layers at the bottom."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        network = UNet2DConditionModel(
            sample_size=16,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(32, 64),
            layers_per_block=1,
            norm_num_groups=8,
            cross_attention_dim=32,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            transformer_layers_per_block=(1, 4),
        )
    if adapter:
        network.requires_grad_(False)
        LoraAdapter.new({"unet": network}, STABLE_DIFFUSION_XL, LoraForm(rank=4))
        network.to(device)
    if checkpointing:
        network.enable_gradient_checkpointing()
    return network


def loss_of(network: nn.Module, device: str) -> Tensor:
    prediction = network(
        torch.zeros(4, 4, 16, 16, device=device),
        torch.zeros(4, dtype=torch.int64, device=device),
        encoder_hidden_states=torch.zeros(4, 16, 32, device=device),
        return_dict=False,
    )[0]
    return prediction.square().mean()


def planned(*, adapter: bool, checkpointing: bool, low: torch.dtype | None = None) -> int:
    network = unet("meta", adapter=adapter, checkpointing=checkpointing)
    with metering(known=[*network.parameters(), *network.buffers()], low=low) as meter:
        meter.backward(loss_of(network, "meta"))
    return meter.peak


def measured(*, adapter: bool, checkpointing: bool) -> int:
    network = unet("cpu", adapter=adapter, checkpointing=checkpointing)
    loss_of(network, "cpu").backward()  # what libraries set up once
    for parameter in network.parameters():
        parameter.grad = None
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        loss_of(network, "cpu").backward()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize("adapter", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("checkpointing", [True, False], ids=["checkpointing", "all kept"])
def test_a_training_step_takes_what_was_said(adapter: bool, checkpointing: bool) -> None:
    said = planned(adapter=adapter, checkpointing=checkpointing)
    taken = measured(adapter=adapter, checkpointing=checkpointing)
    assert said == pytest.approx(taken, rel=TOLERANCE)


def test_half_precision_and_checkpointing_need_less() -> None:
    kept = planned(adapter=True, checkpointing=False)
    assert planned(adapter=True, checkpointing=True) < kept / 2
    assert planned(adapter=True, checkpointing=False, low=torch.bfloat16) < 0.8 * kept
