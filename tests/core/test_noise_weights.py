from __future__ import annotations

import pytest
import torch

from seedpo.core.noise_weights import NOISE_WEIGHTS
from seedpo.core.processes import DiffusionProcess, Process
from seedpo.errors import ConfigError
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_method
from tests.core.flow_data import flow_process
from tests.training.toys import toy_config

LEVELS = torch.tensor([0.999, 0.9, 0.5, 0.05, 0.004], dtype=torch.float64)
KINDS = ["epsilon", "v_prediction", "sample", "flow"]


def process_of(kind: str) -> tuple[Process, torch.Tensor]:
    """A process and its time steps at several levels."""
    if kind == "flow":
        return flow_process(), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    process = DiffusionProcess(alphas_cumprod=LEVELS, prediction_type=kind)  # type: ignore[arg-type]
    return process, torch.arange(5)


@pytest.mark.parametrize("kind", KINDS)
def test_factors_are_the_ratios_of_real_errors(kind: str) -> None:
    """A wrong prediction's errors of clean latents and of noise, measured."""
    process, timestep = process_of(kind)
    generator = torch.Generator().manual_seed(0)
    clean, noise, wrong = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    latents, target = process.noisy(clean, noise, timestep), process.target(clean, noise, timestep)
    predicted = process.clean(target + wrong, latents, timestep)
    scale = process.noisy(torch.ones_like(clean), torch.zeros_like(clean), timestep)[:, :1]
    noise_scale = process.noisy(torch.zeros_like(clean), torch.ones_like(clean), timestep)[:, :1]
    predicted_noise = (latents - scale * predicted) / noise_scale
    of_noise, of_clean = process.error_weights(timestep)
    error = wrong.square().sum(1)
    torch.testing.assert_close(of_clean * error, (predicted - clean).square().sum(1), rtol=1e-9, atol=0)
    torch.testing.assert_close(of_noise * error, (predicted_noise - noise).square().sum(1), rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_min_snr_never_exceeds_either_factor(kind: str) -> None:
    process, timestep = process_of(kind)
    of_noise, of_clean = process.error_weights(timestep)
    weight = NOISE_WEIGHTS["min-snr"].weight(of_noise, of_clean, 5.0)
    snr = of_noise / of_clean
    torch.testing.assert_close(weight, snr.clamp(max=5.0) * of_clean, rtol=1e-12, atol=0)
    assert 0 < (snr > 5.0).sum() < 5, "both sides of the limit occur"


def test_no_signal_at_all_has_a_weight() -> None:
    """Zero terminal SNR: the limit is 1 for a network that predicts the noise, and 0 for v."""
    for kind, expected in (("epsilon", 1.0), ("v_prediction", 0.0)):
        process = DiffusionProcess(alphas_cumprod=torch.tensor([0.5, 0.0]), prediction_type=kind)  # type: ignore[arg-type]
        assert NOISE_WEIGHTS["min-snr"].weight(*process.error_weights(torch.tensor([1])), 5.0).item() == expected


def test_the_keys_reach_the_objective() -> None:
    method = build_method(toy_config(noise_weight="min-snr", min_snr_gamma=2.0))
    assert (method.noise_weight, method.min_snr_gamma) == (NOISE_WEIGHTS["min-snr"], 2.0)
    assert build_method(toy_config(noise_weight="min-snr")).min_snr_gamma == 5.0
    assert build_method(toy_config()).noise_weight is NOISE_WEIGHTS["constant"]


def test_wrong_combinations_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_snr_gamma = 5\.0 .* set noise_weight to min-snr"):
        toy_config(min_snr_gamma=5.0)
    with pytest.raises(ConfigError, match="write one of constant, noise, clean, min-snr"):
        toy_config(noise_weight="snr")
    with pytest.raises(ConfigError, match="noise_weight = min-snr has no effect on spo"):
        resolve_config("spo", {"noise_weight": "min-snr"}, bfloat16=False)
    with pytest.raises(ConfigError, match="min_snr_gamma"):
        toy_config(noise_weight="min-snr", min_snr_gamma=0.0)
