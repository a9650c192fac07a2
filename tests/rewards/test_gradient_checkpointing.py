"""Gradient checkpointing of preference models in training: the same gradients in less memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.memory import peak_bytes
from benchmarks.preference_models import learn, seen_pairs, small_clip
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.rewards.latent_training import latent_start
from seedpo.rewards.preference_model import PairModel, PreferenceModel, made_step_aware
from seedpo.rewards.previews import SeenPairs
from tests.models.published import pipeline_of
from tests.rewards.toy_pairs import seeded, tiny_preference_model


def clip(folder: Path, *, step_aware: bool) -> PairModel:
    return tiny_preference_model(folder, step_aware=step_aware)


BUILT: dict[str, Callable[[Path], PairModel]] = {
    "plain": lambda folder: clip(folder, step_aware=False),
    "step-aware": lambda folder: clip(folder, step_aware=True),
    "latent": lambda folder: latent_start(PipelineDenoiser(pipeline_of("sd15")), seed=0),
    "latent of XL": lambda folder: latent_start(PipelineDenoiser(pipeline_of("sdxl")), seed=0),
}


def gradients(model: PairModel, kind: str) -> dict[str, torch.Tensor | None]:
    shape = (4, 8, 8) if kind.startswith("latent") else (3, 8, 8)
    pixels = torch.randn(3, 2, *shape, generator=seeded())
    learn(model, SeenPairs(pixels=pixels, timestep=None if kind == "plain" else torch.tensor([1, 500, 951])))
    return {name: value.grad for name, value in model.trainable_parameters().items()}


@pytest.mark.parametrize("kind", BUILT)
def test_changes_no_gradient(kind: str, tmp_path: Path) -> None:
    kept, again = BUILT[kind](tmp_path), BUILT[kind](tmp_path)
    again.checkpoint_activations()
    wanted, found = gradients(kept, kind), gradients(again, kind)
    assert any(value is not None and value.any() for value in wanted.values())
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("step_aware", [True, False])
def test_takes_less_memory(step_aware: bool) -> None:
    peaks, kind = [], "step-aware CLIP" if step_aware else "plain CLIP"
    for checkpointing in (False, True):
        model = small_clip(vision_layers=4, text_layers=4, width=64)
        if step_aware:
            model = PreferenceModel(made_step_aware(model.clip, seed=0), model.tokenizer)
        if checkpointing:
            model.checkpoint_activations()
        peaks.append(peak_bytes(lambda model=model: learn(model, seen_pairs(kind, 2)), []))  # type: ignore[misc]
    assert peaks[1] < 0.6 * peaks[0]
