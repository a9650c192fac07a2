"""Z-Image and Qwen-Image: the policy is the pipeline that it was made from, step by step; results load in diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from seedpo.core.sampling import Sampler, Sampling
from seedpo.core.types import ImagePairs
from seedpo.errors import ConfigError
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.models.loading import load_pipeline
from seedpo.models.policy import PipelinePolicy
from seedpo.models.settings import LoraForm
from tests.models.qwen_pipelines import LONG, SIZE, call, pipeline_of
from tests.models.tiny import PROMPTS, move, on_reference, seeded

EACH = pytest.mark.parametrize("kind", ["z-image", "qwen-image"])
BOTH = pytest.mark.parametrize("adapter", ["lora", "full"])
MIXED = [PROMPTS[0], LONG]


def policy_of(kind: str, **options: Any) -> PipelinePolicy:
    """For small images and short texts."""
    return PipelinePolicy(pipeline_of(kind), resolution=16, max_sequence_length=64, **options)


def some_latents(policy: PipelinePolicy, rows: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    return torch.randn(rows, *policy.family.latent_shape(policy.pipeline, size), generator=seeded(seed))


def walk(
    policy: PipelinePolicy, prompts: list[str], latents: Tensor, *, scale: float, steps: int
) -> tuple[Tensor, ...]:
    """The latents (B, ...) after each step of the policy's own sampler."""
    sampler = Sampler(policy, Sampling(num_inference_steps=steps, guidance_scale=scale, eta=0.0))
    negative = policy.encode_prompts([""] * len(prompts))
    return sampler.trajectory(latents, policy.encode_prompts(prompts), negative).latents.unbind(1)[1:]


class TestEqualToDiffusers:
    @EACH
    @pytest.mark.parametrize("scale", [1.0, 4.0])
    def test_every_step_is_the_pipelines(self, kind: str, scale: float) -> None:
        policy = PipelinePolicy(pipeline_of(kind), resolution=SIZE)
        latents = some_latents(policy, len(PROMPTS))
        theirs, images = call(pipeline_of(kind), list(PROMPTS), latents, scale=scale, steps=4)
        own = walk(policy, list(PROMPTS), latents, scale=scale, steps=4)
        assert len(own) == len(theirs) == 4
        for step, (one, other) in enumerate(zip(own, theirs, strict=True)):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4, msg=lambda text, at=step: f"step {at}: {text}")
        moved = [PROMPTS[1], PROMPTS[2], PROMPTS[0]]
        other = walk(policy, moved, latents, scale=scale, steps=4)[-1]
        assert (other - own[-1]).abs().mean() > 1e-3
        torch.testing.assert_close(policy.decode(own[-1]), images, rtol=0, atol=1e-4)

    @EACH
    def test_texts_of_several_lengths(self, kind: str) -> None:
        policy = PipelinePolicy(pipeline_of(kind), resolution=SIZE)
        latents = some_latents(policy, 2)
        theirs, _ = call(pipeline_of(kind), MIXED, latents, scale=4.0, steps=3)
        own = walk(policy, MIXED, latents, scale=4.0, steps=3)
        torch.testing.assert_close(torch.stack(own), torch.stack(theirs), rtol=1e-4, atol=1e-4)

    @EACH
    def test_prompts_are_embedded_alike(self, kind: str) -> None:
        pipeline = pipeline_of(kind)
        for prompts in ([PROMPTS[0]], MIXED, ["", "a word. " * 300]):
            expected = embedded_by_pipeline(pipeline, prompts)
            embedded = PipelinePolicy(pipeline, adapter="full", resolution=16).encode_prompts(prompts)
            assert embedded.prompt_embeds.shape == (len(prompts), 512, 32)
            for states, mask, theirs in zip(embedded.prompt_embeds, embedded.mask, expected, strict=True):
                assert int(mask.sum()) == len(theirs)
                torch.testing.assert_close(states[mask], theirs, rtol=1e-4, atol=1e-5)
                assert not states[~mask].any()

    @EACH
    def test_a_user_may_choose_the_length(self, kind: str) -> None:
        pipeline = pipeline_of(kind)
        expected = embedded_by_pipeline(pipeline, [LONG], max_sequence_length=20)[0]
        embedded = PipelinePolicy(pipeline, resolution=16, max_sequence_length=20).encode_prompts([LONG])
        assert embedded.prompt_embeds.shape == (1, 20, 32)
        assert embedded.mask.all()
        torch.testing.assert_close(embedded.prompt_embeds[0], expected, rtol=1e-4, atol=1e-5)


def embedded_by_pipeline(pipeline: Any, prompts: list[str], **options: Any) -> list[Tensor]:
    """The states of each prompt's own tokens."""
    if not hasattr(pipeline, "prompt_template_encode"):
        rows, _ = pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False, **options)
        return list(rows)
    states, mask = pipeline.encode_prompt(prompts, **{"max_sequence_length": 512, **options})
    return list(states) if mask is None else [row[keep.bool()] for row, keep in zip(states, mask, strict=True)]


class TestRows:
    @EACH
    def test_a_batch_is_its_rows(self, kind: str) -> None:
        policy = move(policy_of(kind), scale=0.1)
        latents, times, prompts = inputs(policy, MIXED)
        together = policy.predict(latents, times, prompts)
        alone = [policy.predict(latents[at : at + 1], times[at : at + 1], prompts[at : at + 1]) for at in range(2)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)

    @EACH
    def test_what_stands_behind_a_prompt_is_not_read(self, kind: str) -> None:
        policy = policy_of(kind)
        latents, times, prompts = inputs(policy, MIXED)
        before = policy.predict(latents, times, prompts)
        prompts.prompt_embeds[~prompts.mask] = 3.0
        assert torch.equal(policy.predict(latents, times, prompts), before)

    @EACH
    def test_the_target_is_noise_less_the_image(self, kind: str) -> None:
        """One step of the whole way leads from x to x - v: the sign of every family's prediction."""
        policy, pipeline = policy_of(kind), pipeline_of(kind, shift_terminal=None)
        latents = some_latents(policy, 1)
        theirs, _ = call(pipeline, [PROMPTS[0]], latents, scale=1.0, steps=1)
        velocity = policy.predict(latents, torch.ones(1), policy.encode_prompts([PROMPTS[0]]))
        torch.testing.assert_close(latents - velocity, theirs[0], rtol=1e-4, atol=1e-5)

    @EACH
    def test_images_of_another_size(self, kind: str) -> None:
        policy = policy_of(kind)
        assert policy.latent_shape == (4, 8, 8)
        latents, times, prompts = inputs(policy, MIXED, size=(24, 8))
        assert policy.predict(latents, times, prompts).shape == latents.shape == (2, 4, 12, 4)


def inputs(policy: PipelinePolicy, prompts: list[str], *, size: tuple[int, int] = SIZE) -> tuple[Tensor, Tensor, Any]:
    rows = len(prompts)
    return (
        some_latents(policy, rows, size),
        torch.linspace(0.2, 1.0, rows),
        policy.encode_prompts(prompts),
    )


class TestPrecision:
    @EACH
    def test_half_precision_rounds_and_no_more(self, kind: str) -> None:
        """Also where the pipeline is stored so: predictions are in float32, embeddings as the encoder gives them."""
        policy = policy_of(kind)
        asked = inputs(policy, MIXED)
        expected = policy.predict(*asked)
        rounded = policy_of(kind, mixed_precision="bf16").predict(*asked)
        pipeline = pipeline_of(kind)
        pipeline.transformer.bfloat16(), pipeline.text_encoder.bfloat16()
        stored = PipelinePolicy(pipeline, resolution=16, max_sequence_length=64, mixed_precision="bf16")
        prompts = stored.encode_prompts(MIXED)
        assert prompts.prompt_embeds.dtype == torch.bfloat16
        for prediction in (rounded, stored.predict(*asked[:2], prompts)):
            assert prediction.dtype == torch.float32
            error = (prediction - expected).abs().mean() / expected.abs().mean()
            assert 0 < error < 0.03


class TestImages:
    @EACH
    def test_latents_and_back(self, kind: str) -> None:
        policy = policy_of(kind)
        pixels = torch.rand(2, 3, *SIZE, generator=seeded())
        mean, std = policy.encode_distribution(pixels)
        assert mean.shape == std.shape == (2, 4, 8, 12)
        vae, inside = policy.pipeline.vae, 2 * pixels - 1
        with torch.no_grad():
            if kind == "z-image":
                plain = vae.encode(inside).latent_dist
                expected = ((plain.mean - 0.1159) * 0.3611, plain.std * 0.3611)
                decoded = vae.decode(mean / 0.3611 + 0.1159).sample
            else:
                plain = vae.encode(inside[:, :, None]).latent_dist
                centre = torch.tensor([0.1, -0.2, 0.3, 0.0]).view(4, 1, 1)
                spread = torch.tensor([0.5, 1.5, 1.0, 0.8]).view(4, 1, 1)
                expected = ((plain.mean[:, :, 0] - centre) / spread, plain.std[:, :, 0] / spread)
                decoded = vae.decode((mean * spread + centre)[:, :, None]).sample[:, :, 0]
        torch.testing.assert_close((mean, std), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(policy.decode(mean), (decoded / 2 + 0.5).clamp(0, 1), rtol=1e-4, atol=1e-5)


class TestTraining:
    @EACH
    @BOTH
    def test_a_preference_is_learnt(self, kind: str, adapter: Literal["lora", "full"]) -> None:
        policy = policy_of(kind, adapter=adapter)
        chosen, rejected = (some_latents(policy, 2, seed=seed) for seed in (1, 2))
        pairs = ImagePairs(chosen_latents=chosen, rejected_latents=rejected, conditioning=policy.encode_prompts(MIXED))
        before = on_reference(policy, *inputs(policy, MIXED))
        method = NoiseDPO(policy_weight=20.0, reference_weight=20.0)
        optimizer = torch.optim.AdamW(policy.trainable_parameters().values(), lr=0.01)
        losses = []
        for _ in range(4):
            loss = method.loss(policy, pairs, generator=seeded()).losses.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-6)
        assert losses[-1] < losses[0] - 0.01
        assert torch.equal(on_reference(policy, *inputs(policy, MIXED)), before)

    @EACH
    @BOTH
    def test_checkpointing_leaves_the_gradients_as_they_are(self, kind: str, adapter: Literal["lora", "full"]) -> None:
        gradients, calls = [], []
        for checkpointing in (False, True):
            policy = move(policy_of(kind, adapter=adapter, gradient_checkpointing=checkpointing))
            blocks = next(
                part for name, part in policy.network.named_children() if name in ("layers", "transformer_blocks")
            )
            seen: list[int] = []
            blocks[0].register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
            prediction = policy.predict(*inputs(policy, MIXED))
            on_reference(policy, *inputs(policy, MIXED))
            prediction.square().mean().backward()
            gradients.append({name: value.grad for name, value in policy.trainable_parameters().items()})
            calls.append(len(seen))
        assert calls[1] == calls[0] + 1
        plain, again = gradients
        for name, value in plain.items():
            torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-6)

    @EACH
    def test_every_weight_of_an_adapter_has_a_gradient(self, kind: str) -> None:
        """Processes that exchange gradients wait for each of them."""
        policy = move(policy_of(kind, lora=LoraForm(rank=2, targets=("all",))))
        policy.predict(*inputs(policy, MIXED)).square().mean().backward()
        gradients = {name: value.grad for name, value in policy.trainable_parameters().items()}
        assert [name for name, value in gradients.items() if value is None or not value.any()] == []


class TestFiles:
    @EACH
    @pytest.mark.parametrize(
        "form",
        [
            LoraForm(rank=2),
            LoraForm(rank=2, alpha=6.0, targets=("all",)),
            LoraForm(rank=2, targets=("all",), dora=True),
        ],
        ids=["attention", "all", "dora"],
    )
    def test_plain_diffusers_draws_the_images_of_an_adapter(self, tmp_path: Path, kind: str, form: LoraForm) -> None:
        policy = move(PipelinePolicy(pipeline_of(kind), resolution=SIZE, lora=form), scale=0.3)
        policy.save(tmp_path)
        latents = some_latents(policy, 2)
        plain = pipeline_of(kind)
        before, _ = call(plain, MIXED, latents, scale=4.0, steps=3)
        plain.load_lora_weights(tmp_path)
        theirs, images = call(plain, MIXED, latents, scale=4.0, steps=3)
        own = walk(policy, MIXED, latents, scale=4.0, steps=3)
        assert (own[-1] - before[-1]).abs().mean() > 1e-3
        torch.testing.assert_close(own[-1], theirs[-1], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(policy.decode(own[-1]), images, rtol=0, atol=1e-3)

    @EACH
    @BOTH
    def test_what_is_saved_is_read_again(self, tmp_path: Path, kind: str, adapter: Literal["lora", "full"]) -> None:
        policy = move(policy_of(kind, adapter=adapter))
        policy.save(tmp_path)
        again = policy_of(kind, adapter=adapter, seed=1)
        again.load(tmp_path)
        trained, read = policy.trainable_parameters(), again.trainable_parameters()
        assert trained.keys() == read.keys()
        assert all(torch.equal(value, read[name]) for name, value in trained.items())
        asked = inputs(policy, MIXED)
        assert torch.equal(again.predict(*asked), policy.predict(*asked))

    @EACH
    def test_a_folder_of_the_pipeline_is_loaded(self, tmp_path: Path, kind: str) -> None:
        pipeline_of(kind).save_pretrained(tmp_path)
        loaded, policy = PipelinePolicy(load_pipeline(tmp_path), resolution=SIZE), policy_of(kind)
        asked = inputs(policy, MIXED)
        torch.testing.assert_close(loaded.predict(*asked), policy.predict(*asked), rtol=1e-4, atol=1e-5)
        images = torch.rand(1, 3, *SIZE, generator=seeded())
        torch.testing.assert_close(loaded.encode_images(images), policy.encode_images(images), rtol=1e-4, atol=1e-5)


class TestRefusals:
    @EACH
    def test_texts_without_room_for_a_prompt(self, kind: str) -> None:
        policy = PipelinePolicy(pipeline_of(kind), resolution=16, max_sequence_length=4)
        with pytest.raises(ConfigError, match=r"^max_sequence_length = 4 leaves no room"):
            policy.encode_prompts([PROMPTS[0]])

    @EACH
    def test_texts_longer_than_the_network_reads(self, kind: str) -> None:
        with pytest.raises(ConfigError, match=r"^max_sequence_length = 1025 is above \d+, the longest"):
            PipelinePolicy(pipeline_of(kind), resolution=16, max_sequence_length=1025)

    @EACH
    def test_sizes_that_no_token_has(self, kind: str) -> None:
        with pytest.raises(ConfigError, match=r"^resolution = 18 must be a multiple of 4, .*16$"):
            PipelinePolicy(pipeline_of(kind), resolution=18)
        with pytest.raises(ConfigError, match=r"^size 16x18"):
            PipelinePolicy(pipeline_of(kind), resolution=(16, 18))

    @EACH
    def test_text_encoders_are_not_trained(self, kind: str) -> None:
        with pytest.raises(ConfigError, match=r"^lora_text_encoder"):
            policy_of(kind, lora=LoraForm(rank=2, text_encoder=True))

    @EACH
    def test_no_value_of_guidance_is_embedded(self, kind: str) -> None:
        with pytest.raises(ConfigError, match=r"^embedded_guidance = 3.5"):
            policy_of(kind, embedded_guidance=3.5)
