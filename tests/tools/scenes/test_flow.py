from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusion3Pipeline
from diffusers.models.attention_processor import JointAttnProcessor2_0
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTokenizer

from seedpo.scenes.drawing import RADIUS
from tests.scenes.drawings import seeded
from tools.scenes.autoencoder import PRACTICE_RADIUS, draw_batch
from tools.scenes.components import build_autoencoder, build_flow_transformer, build_tokenizer
from tools.scenes.flow import (
    LARGEST_PAD,
    FlowNetworks,
    FlowPhase,
    draw_pads,
    flow_optimizers,
    train_flow,
    training_batches,
    velocity_error,
)
from tools.scenes.pipeline import build_autoencoder_part, build_flow_part
from tools.scenes.repeated_pad import RepeatedPad

BRIEF = (FlowPhase(radius=PRACTICE_RADIUS, steps=1), FlowPhase(radius=RADIUS, steps=1))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def autoencoder() -> AutoencoderKL:
    torch.manual_seed(0)
    autoencoder = build_autoencoder().eval().requires_grad_(False)
    autoencoder.register_to_config(shift_factor=0.5, scaling_factor=2.0)
    return autoencoder


@pytest.mark.parametrize("count", [1, 7, 256])
def test_one_token_stands_for_any_number_of_equal_ones(count: int) -> None:
    torch.manual_seed(0)
    transformer = build_flow_transformer().eval()
    for parameter in transformer.parameters():
        nn.init.normal_(parameter, std=0.1)  # at its first weights the transformer reads no text
    latents, text = torch.randn(2, 8, 8, 8), torch.randn(2, 12, 64)

    def velocity(pads: int) -> Tensor:
        states = nn.functional.pad(text, (0, 0, 0, pads))
        pooled, sigma = torch.ones(2, 64), torch.tensor([300.0, 800.0])
        with torch.no_grad():
            predicted: Tensor = transformer(latents, states, pooled, sigma, return_dict=False)[0]
        return predicted

    plain = velocity(count)
    assert count == 1 or (velocity(1) - plain).abs().max() > 1e-3
    pad = RepeatedPad()
    pad.log_count = torch.full((2,), math.log(count))
    for block in transformer.transformer_blocks:
        block.attn.set_processor(pad)
    torch.testing.assert_close(velocity(1), plain, rtol=1e-4, atol=1e-4)


def test_half_of_the_rows_have_one_zero_token_and_none_more_than_the_largest_number() -> None:
    counts = draw_pads(4000, seeded()).exp()
    assert (counts == 1).float().mean() == pytest.approx(0.5, abs=0.03)
    assert 300 < counts.max() <= LARGEST_PAD
    assert counts[counts > 1].log().mean() == pytest.approx(math.log(LARGEST_PAD) / 2, rel=0.05)


def test_latents_are_shifted_and_scaled_and_some_prompts_are_empty(
    autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer
) -> None:
    ((clean, ids),) = training_batches(
        autoencoder, tokenizer, BRIEF[1:], batch_size=256, pool_size=256, generator=seeded(), progress=False
    )
    generator = seeded()
    prompts, drawings = draw_batch(256, generator=generator)
    rows = torch.randint(256, (256,), generator=generator)
    wanted = autoencoder.encode(drawings[rows[:4]] * 2 - 1).latent_dist.mean
    torch.testing.assert_close(clean[:4], (wanted - 0.5) * 2, rtol=1e-4, atol=1e-4)
    texts = [tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids]
    empty = [not text for text in texts]
    assert 10 < sum(empty) < 45
    # Prompts of more than twelve tokens are cut.
    assert all(prompts[row].startswith(text) for text, row in zip(texts, rows.tolist(), strict=True))


def test_every_weight_is_trained_once(tokenizer: CLIPTokenizer) -> None:
    networks = FlowNetworks(tokenizer)
    groups = [group for optimizer in flow_optimizers(networks) for group in optimizer.param_groups]
    trained = [value for group in groups for value in group["params"]]
    assert {id(value) for value in trained} == {id(value) for value in networks.parameters()}
    assert len(trained) == len(list(networks.parameters()))
    assert {value.ndim for value in groups[0]["params"]} == {2}


def test_a_few_updates_lower_the_error(
    autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On other drawings, noise and levels than those of the updates."""

    def error(steps: int) -> float:
        phases = [FlowPhase(radius=RADIUS, steps=steps)]
        transformer, encoders = train_flow(autoencoder, tokenizer, phases, batch_size=8, pool_size=256, progress=False)
        networks = FlowNetworks(tokenizer)
        networks.transformer.load_state_dict(transformer.state_dict())
        for own, trained in zip(networks.encoders, encoders, strict=True):
            own.load_state_dict(trained.state_dict())
        ((clean, ids),) = training_batches(
            autoencoder, tokenizer, BRIEF[1:], batch_size=32, pool_size=256, generator=seeded(5), progress=False
        )
        with torch.no_grad():
            return velocity_error(networks, clean, ids, seeded(6)).item()

    monkeypatch.setattr("tools.scenes.flow.WARMUP", 5)
    assert error(20) < 0.8 * error(1)


def test_a_seed_gives_the_same_weights_again(autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer) -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        transformer, encoders = train_flow(
            autoencoder, tokenizer, BRIEF, batch_size=2, pool_size=256, seed=seed, progress=False
        )
        assert all(type(block.attn.processor) is JointAttnProcessor2_0 for block in transformer.transformer_blocks)
        states: dict[str, Tensor] = nn.ModuleList([transformer, *encoders]).state_dict()
        return states

    first, again, other = (weights(seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_part_is_a_pipeline_in_half_precision(tmp_path: Path) -> None:
    build_autoencoder_part(tmp_path / "pipeline", steps=2, batch_size=4)
    build_flow_part(tmp_path / "flow", tmp_path / "pipeline", phases=BRIEF, batch_size=2, pool_size=256)
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        tmp_path / "flow", text_encoder_3=None, tokenizer_3=None, local_files_only=True
    )
    assert pipeline.text_encoder_3 is None
    image = pipeline("a large red star on a gray background", num_inference_steps=2, output_type="pt").images
    assert image.shape == (1, 3, 32, 32)
    assert math.isfinite(float(image.sum()))
    for part in ("vae", "transformer"):
        weights = load_file(tmp_path / "flow" / part / "diffusion_pytorch_model.safetensors")
        assert {value.dtype for value in weights.values()} == {torch.float16}
    assert "_name_or_path" not in (tmp_path / "flow/vae/config.json").read_text()
    _, drawings = draw_batch(256, generator=seeded(9), radius=PRACTICE_RADIUS)
    config = pipeline.vae.config
    with torch.no_grad():
        raw = pipeline.vae.encode(drawings * 2 - 1).latent_dist.mean
    latents = (raw - config.shift_factor) * config.scaling_factor
    assert float(latents.std()) == pytest.approx(1, rel=0.1)
    assert float(latents.mean()) == pytest.approx(0, abs=0.1)
