"""What must hold on a GPU: half precision, compilation, memory, caches and resuming. `make gpu` runs these."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from seedpo.cli.cache_builds import build_cache
from seedpo.methods.presets import METHODS
from seedpo.models.adapter import LoraAdapter
from seedpo.models.pipelines.stable_diffusion import STABLE_DIFFUSION
from seedpo.models.policy import PipelinePolicy, build_policy
from seedpo.models.precision import store_rounded
from seedpo.models.settings import LoraForm, ModelSettings
from seedpo.planning.configurations import published
from seedpo.planning.meter import metering
from seedpo.settings import Precision
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_method, build_source, train
from seedpo.training.settings import RunConfig
from tests.devices.conftest import accelerator_on
from tests.models.published import pipeline_of
from tests.models.tiny import move, network_inputs, on_reference
from tests.small_runs import metrics, small

EVERY_METHOD = pytest.mark.parametrize("method", METHODS.names())
BOTH = pytest.mark.parametrize("adapter", ["lora", "full"])


def policy_on(device: torch.device, **settings: Any) -> PipelinePolicy:
    """The embedded model, moved off its reference by the same seeded steps."""
    policy = move(build_policy(ModelSettings(**settings)), scale=0.02)
    policy.to(device)
    return policy


def trained(path: Path, config: RunConfig, device: torch.device, **options: Any) -> dict[str, Any]:
    return train(config, path, accelerator=accelerator_on(device, config), progress=False, **options)


def weights(run: Path, adapter: Literal["lora", "full"] = "lora") -> dict[str, Tensor]:
    policy = build_policy(ModelSettings(adapter=adapter))
    policy.load(run / ModelSettings(adapter=adapter).weights_folder)
    return {name: value.detach() for name, value in policy.trainable_parameters().items()}


def same(device: torch.device, one: Tensor, other: Tensor) -> None:
    """Bit for bit on the CPU; kernels of a GPU may add in another order."""
    tolerance = 0.0 if device.type == "cpu" else 1e-5
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@EVERY_METHOD
def test_losses_in_half_precision_are_those_of_float32(tmp_path: Path, device: torch.device, method: str) -> None:
    gamma = 1.0 if METHODS[method].why_no_gamma is None else 0.0
    config = resolve_config(method, small(tmp_path, gamma=gamma, beta=0.01))
    whole, half = policy_on(device), policy_on(device, mixed_precision="bf16")
    batch, losses, gradients = build_source(config, whole).next_batch(), [], []
    for policy in (whole, half):
        output = build_method(config).loss(policy, batch, generator=torch.Generator().manual_seed(0))
        output.losses.mean().backward()
        losses.append(output.losses.detach())
        gradients.append(torch.cat([value.grad.flatten() for value in policy.trainable_parameters().values()]))
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0.0)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95
    assert not torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@BOTH
def test_the_policy_starts_as_its_reference(device: torch.device, adapter: str, precision: Precision) -> None:
    policy = build_policy(ModelSettings.model_validate({"adapter": adapter, "mixed_precision": precision}))
    policy.to(device)
    inputs = network_inputs(policy)
    prediction = policy.predict(*inputs).detach()
    assert prediction.isfinite().all()
    same(device, prediction, on_reference(policy, *inputs))


@BOTH
def test_a_run_with_scaled_gradients_trains(tmp_path: Path, device: torch.device, adapter: Any) -> None:
    """float16 with its loss scale on a GPU; the CPU has none, and trains in bfloat16."""
    precision = "fp16" if device.type == "cuda" else "bf16"
    config = resolve_config("diffusion-dpo", small(tmp_path, adapter=adapter, mixed_precision=precision, max_steps=3))
    last = trained(tmp_path / "run", config, device)
    assert last["step"] == 3
    assert all(line["loss"] is not None for line in metrics(tmp_path / "run") if line["kind"] == "train")
    start = build_policy(ModelSettings(adapter=adapter, seed=config.seed)).trainable_parameters()
    end = weights(tmp_path / "run", adapter)
    assert all(value.isfinite().all() for value in end.values())
    assert any(not torch.equal(value, end[name]) for name, value in start.items())


def test_a_compiled_network_is_the_same_one(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    if device.type == "cpu":  # a C++ compiler would take minutes
        monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    torch.compiler.reset()
    results = []
    for compiled in (False, True):
        policy = policy_on(device, compile=compiled)
        inputs = network_inputs(policy)
        prediction = policy.predict(*inputs)
        prediction.square().mean().backward()
        gradient = torch.cat([value.grad.flatten() for value in policy.trainable_parameters().values()])
        results.append((prediction.detach(), on_reference(policy, *inputs), gradient))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_small_xl_model_is_trained(tmp_path: Path, device: torch.device, precision: str) -> None:
    pipeline_of("sdxl").save_pretrained(tmp_path / "base")
    quick = {"metrics": ["pairwise_diversity"], "rewards": ["jpeg-compressibility"]}
    changes = {"model": str(tmp_path / "base"), "resolution": 32, "evaluation": quick, "mixed_precision": precision}
    config = resolve_config("diffusion-dpo", small(tmp_path, **changes, pairs={"resolution": 32}))
    trained(tmp_path / "run", config, device)
    policy = build_policy(config)
    policy.load(tmp_path / "run" / "adapter")
    policy.to(device)
    inputs = network_inputs(policy)
    assert policy.predict(*inputs).isfinite().all()
    assert not torch.equal(policy.predict(*inputs), on_reference(policy, *inputs))


@EVERY_METHOD
def test_a_resumed_run_is_one_that_never_stopped(tmp_path: Path, device: torch.device, method: str) -> None:
    changes = small(tmp_path, checkpoint_every=1)
    trained(tmp_path / "whole", resolve_config(method, changes), device)
    trained(tmp_path / "parts", resolve_config(method, changes | {"max_steps": 1}), device)
    trained(tmp_path / "parts", resolve_config(method, changes), device, resume="latest")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name, value in whole.items():
        same(device, parts[name], value)


def test_a_cached_run_is_a_live_one(tmp_path: Path, device: torch.device) -> None:
    live = resolve_config("diffusion-dpo", small(tmp_path))
    cached = resolve_config("diffusion-dpo", small(tmp_path, cache={"folder": str(tmp_path / "cache")}))
    accelerator_on(device, cached)
    build_cache(cached, progress=False)
    trained(tmp_path / "live", live, device)
    trained(tmp_path / "cached", cached, device)
    for one, other in zip(metrics(tmp_path / "live"), metrics(tmp_path / "cached"), strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"kind"} - {name for name in one if "memory" in name}:
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6, nan_ok=True), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@BOTH
@pytest.mark.parametrize("checkpointing", [True, False], ids=["checkpointing", "all kept"])
@pytest.mark.parametrize("half", [True, False], ids=["bf16", "float32"])
def test_a_training_step_takes_the_planned_memory(adapter: str, checkpointing: bool, half: bool) -> None:
    """The UNet of Stable Diffusion 1.5 at 512 px, in memory that torch handed out."""
    low = torch.bfloat16 if half else None
    network = sd15_unet("meta", adapter=adapter, checkpointing=checkpointing, low=low)
    with metering(known=[*network.parameters(), *network.buffers()], low=low) as meter:
        meter.backward(loss_of(network, "meta"))
    network = sd15_unet("cuda", adapter=adapter, checkpointing=checkpointing, low=low)
    for _ in range(2):  # once for what libraries set up
        network.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
            loss = loss_of(network, "cuda")
        loss.backward()
        taken = torch.cuda.max_memory_allocated() - before
    assert meter.peak == pytest.approx(taken, rel=0.15)


def sd15_unet(device: str, *, adapter: str, checkpointing: bool, low: torch.dtype | None) -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.device(device):
        network = UNet2DConditionModel.from_config(published("stable-diffusion-v1-5")["unet"])
    if adapter == "lora":
        LoraAdapter.new({"unet": network}, STABLE_DIFFUSION, LoraForm(rank=4))
        network.to(device)
    if low is not None:
        store_rounded(network, low)
    if checkpointing:
        network.enable_gradient_checkpointing()
    return network.train()


def loss_of(network: nn.Module, device: str) -> Tensor:
    prediction = network(
        torch.zeros(2, 4, 64, 64, device=device),
        torch.zeros(2, dtype=torch.int64, device=device),
        encoder_hidden_states=torch.zeros(2, 77, 768, device=device),
        return_dict=False,
    )[0]
    return prediction.float().square().mean()
