"""Annealed importance guidance against a loop written out in numpy's float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seedpo.core.flow import FlowProcess, shifted
from seedpo.core.mixing import mixed_prediction, tuned_share
from seedpo.core.processes import Process
from seedpo.core.sampling import Sampler, Sampling
from seedpo.models.mixing import BothConditionings, MixedDenoiser
from seedpo.models.pipelines.stable_diffusion import TextConditioning
from tests.core.denoisers import prompts, small_process
from tests.models.test_references import BUILDERS, answers, network_inputs, on_initial
from tests.models.tiny import PROMPTS, move

GUIDANCE, STEPS, SHIFT = 3.0, 7, 3.0


class Both:
    """A denoiser, linear in latents, time and prompt, that trained weights changed."""

    latent_shape, device, conditioning_type = (1, 2, 2), torch.device("cpu"), TextConditioning

    def __init__(self, process: Process) -> None:
        self.process, self.is_trained = process, True

    def encode_prompts(self, texts: Any) -> TextConditioning:
        """The trained text encoder says something else."""
        values = [len(text) / 10 + 0.5 * self.is_trained for text in texts]
        return prompts(*values, dtype=torch.float64)

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: TextConditioning) -> Tensor:
        value = conditioning.prompt_embeds.mean((1, 2)) + 0.01 * timestep.double()
        slope = 0.7 if self.is_trained else 0.3
        return slope * latents + value.view(-1, 1, 1, 1)

    @contextmanager
    def initial(self) -> Iterator[None]:
        self.is_trained = False
        yield
        self.is_trained = True

    def at_strength(self, strength: float) -> Any:
        raise NotImplementedError

    encode_images = decode = lambda self, values: values


def written_out(
    start: np.ndarray[Any, Any],
    steps: list[tuple[float, float, float]],
    power: float,
    move_on: Callable[[Any, Any, float, float], Any],
) -> np.ndarray[Any, Any]:
    """The loop: both models with guidance of their own, then their mixture, then the step."""
    x = start
    for time, share_of_noise, following in steps:

        def guided(slope: float, extra: float, x: Any = x, time: float = time) -> Any:
            negative = slope * x + (0.0 + extra) + 0.01 * time
            positive = slope * x + (0.4 + extra) + 0.01 * time
            return negative + GUIDANCE * (positive - negative)

        w = (1 - share_of_noise) ** power
        x = move_on(x, w * guided(0.7, 0.5) + (1 - w) * guided(0.3, 0.0), time, following)
    return x


def drawn(process: Process, power: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    start = torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mixed = MixedDenoiser(Both(process), power)
    sampling = Sampling(num_inference_steps=STEPS, guidance_scale=GUIDANCE)
    positive, negative = mixed.encode_prompts(["four"]), mixed.encode_prompts([""])
    return start.numpy(), Sampler(mixed, sampling).sample(start, positive, negative).numpy()


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 4.0])
class TestWrittenOut:
    def test_noise_prediction(self, power: float) -> None:
        process = small_process(torch.float64)
        start, found = drawn(process, power)
        levels = process.alphas_cumprod.numpy()

        def level(time: float) -> Any:
            return levels[int(time)] if time >= 0 else 1.0

        def ddim(x: Any, noise: Any, time: float, following: float) -> Any:
            clean = (x - np.sqrt(1 - level(time)) * noise) / np.sqrt(level(time))
            return np.sqrt(level(following)) * clean + np.sqrt(1 - level(following)) * noise

        stride = 100 // STEPS
        times = [stride * number for number in reversed(range(STEPS))]
        wanted = written_out(start, [(time, time / 100, time - stride) for time in times], power, ddim)
        np.testing.assert_allclose(found, wanted, rtol=1e-12)

    def test_flow_matching(self, power: float) -> None:
        levels = shifted(torch.linspace(1, 0, STEPS + 1, dtype=torch.float64), SHIFT)
        process = FlowProcess(levels=lambda count: levels, shift=SHIFT)
        start, found = drawn(process, power)
        plain = np.linspace(1, 0, STEPS + 1)
        sigmas = SHIFT * plain / (1 + (SHIFT - 1) * plain)
        steps = [(sigma, sigma, following) for sigma, following in pairwise(sigmas)]
        wanted = written_out(start, steps, power, lambda x, v, sigma, following: x + (following - sigma) * v)
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_the_ends_are_one_of_both_bit_for_bit() -> None:
    base, tuned = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    share = torch.tensor([0.0, 1.0, 0.25])
    mixed = mixed_prediction(base, tuned, share)
    assert torch.equal(mixed[0], base[0])
    assert torch.equal(mixed[1], tuned[1])
    torch.testing.assert_close(mixed[2], 0.25 * tuned[2] + 0.75 * base[2])


def test_the_share_falls_with_noise_and_power() -> None:
    times = torch.arange(0, 1000, 100)
    shares = torch.stack([tuned_share(times, pure_noise_time=1000, power=power) for power in (1.0, 2.0, 4.0)])
    assert (shares[:, 0] == 1).all()
    assert (shares.diff(dim=1) < 0).all()
    assert (shares[:, 1:].diff(dim=0) < 0).all()


@pytest.mark.parametrize("kind", ["lora", "dora", "text", "full", "continued", "int8"])
def test_of_a_policy_in_memory(kind: str) -> None:
    policy = move(BUILDERS[kind](), seed=9)
    latents, timestep, conditioning = network_inputs(policy)
    tuned = answers(policy, (latents, timestep, conditioning)).double().numpy()
    base = on_initial(policy, latents, timestep, conditioning).double().numpy()
    mixed = MixedDenoiser(policy, 2.0)
    with torch.no_grad():
        found = mixed.predict(latents, timestep, mixed.encode_prompts(PROMPTS[:2]))
    weights = np.array([(1 - time / 1000) ** 2 for time in timestep.tolist()])[:, None, None, None]
    np.testing.assert_allclose(found.double().numpy(), weights * tuned + (1 - weights) * base, atol=1e-5)
    assert not np.allclose(tuned, base, atol=1e-3)


def test_prompts_of_both_stay_together() -> None:
    both = MixedDenoiser(Both(small_process()), 1.0).encode_prompts(["a", "abc"])
    joined = BothConditionings.cat([both, both])
    assert len(joined) == 4
    assert float(joined[torch.tensor([3])].base.tensors()["prompt_embeds"].mean()) == pytest.approx(0.3)
    assert float(joined[torch.tensor([3])].tuned.tensors()["prompt_embeds"].mean()) == pytest.approx(0.8)
