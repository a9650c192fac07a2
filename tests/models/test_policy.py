from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from seedpo.core.sampling import Sampler, Sampling
from seedpo.errors import DataError
from seedpo.models.loading import load_pipeline
from seedpo.models.lora_file import LORA_FILE
from seedpo.models.policy import PipelinePolicy, build_policy
from seedpo.models.settings import ModelSettings
from seedpo.protocols import Denoiser, Policy
from tests.models.tiny import (
    PROMPTS,
    frozen_unet,
    move,
    network_inputs,
    on_reference,
    seeded,
    tiny_pipeline,
    tiny_policy,
    train_steps,
)

UNET_FILE = "diffusion_pytorch_model.safetensors"
BOTH = pytest.mark.parametrize("adapter", ["lora", "full"])
Adapter = Literal["lora", "full"]


def weights(policy: PipelinePolicy) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in policy.trainable_parameters().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@torch.no_grad()
def original(policy: PipelinePolicy, inputs: Any) -> Tensor:
    """The prediction of the UNet as it was before any policy was made of it."""
    latents, timestep, conditioning = inputs
    prediction: Tensor = frozen_unet()(latents, timestep, encoder_hidden_states=conditioning.prompt_embeds).sample
    return prediction


class TestReference:
    @BOTH
    def test_policy_reference_and_original_are_the_same_at_the_start(self, adapter: Adapter) -> None:
        policy = tiny_policy(adapter=adapter)
        inputs = network_inputs(policy)
        assert torch.equal(policy.predict(*inputs), original(policy, inputs))
        assert torch.equal(on_reference(policy, *inputs), original(policy, inputs))

    @BOTH
    def test_reference_stays_the_original_while_the_policy_is_trained(self, adapter: Adapter) -> None:
        policy = tiny_policy(adapter=adapter)
        inputs = network_inputs(policy)
        train_steps(policy)
        assert torch.equal(on_reference(policy, *inputs), original(policy, inputs))
        assert (policy.predict(*inputs) - original(policy, inputs)).abs().max() > 1e-4

    @BOTH
    def test_reference_has_no_gradient_and_the_policy_has(self, adapter: Adapter) -> None:
        policy = tiny_policy(adapter=adapter)
        inputs = network_inputs(policy)
        assert not on_reference(policy, *inputs).requires_grad
        assert policy.predict(*inputs).requires_grad

    @BOTH
    def test_policy_is_back_after_the_reference_even_after_an_error(self, adapter: Adapter) -> None:
        policy = move(tiny_policy(adapter=adapter))
        inputs = network_inputs(policy)
        before, names = policy.predict(*inputs), list(policy.trainable_parameters())
        with pytest.raises(KeyError), policy.reference():
            raise KeyError
        assert torch.equal(policy.predict(*inputs), before)
        assert list(policy.trainable_parameters()) == names
        assert torch.is_grad_enabled()

    @BOTH
    def test_a_prediction_made_before_the_reference_still_has_its_gradient(self, adapter: Adapter) -> None:
        """A method predicts with the policy first: asking the reference must not cut the policy's graph."""
        alone, asked = tiny_policy(adapter=adapter), tiny_policy(adapter=adapter)
        for policy in (alone, asked):
            prediction = policy.predict(*network_inputs(policy))
            if policy is asked:
                on_reference(policy, *network_inputs(policy))
            prediction.square().mean().backward()
        gradients = [{name: value.grad for name, value in p.trainable_parameters().items()} for p in (alone, asked)]
        assert all(value is not None for value in gradients[1].values())
        assert same(gradients[0], gradients[1])


class TestTrainedParameters:
    def test_only_the_adapter_of_the_attention_projections_is_trained(self) -> None:
        policy = tiny_policy(lora_rank=3)
        trained = policy.trainable_parameters()
        attentions = [name for name, _ in policy.module.named_modules() if name.endswith((".attn1", ".attn2"))]
        assert len(trained) == 2 * len(policy.family.adapter_layers["attention"]) * len(attentions) > 0
        assert all(".lora_A." in name or ".lora_B." in name for name in trained)
        assert {min(value.shape) for value in trained.values()} == {3}
        assert not any(p.requires_grad for part in ("vae", "text_encoder") for p in _parameters(policy, part))

    def test_the_whole_unet_and_nothing_else_is_trained(self) -> None:
        policy = tiny_policy(adapter="full")
        assert list(policy.trainable_parameters()) == [name for name, _ in frozen_unet().named_parameters()]
        assert not any(p.requires_grad for part in ("vae", "text_encoder") for p in _parameters(policy, part))

    def test_adapter_is_drawn_from_its_seed_alone(self) -> None:
        torch.manual_seed(1)
        first = weights(tiny_policy(seed=7))
        torch.manual_seed(2)
        assert same(first, weights(tiny_policy(seed=7)))
        assert not same(first, weights(tiny_policy(seed=8)))

    @BOTH
    def test_global_random_state_is_left_alone(self, adapter: Adapter) -> None:
        pipeline = tiny_pipeline()
        torch.manual_seed(3)
        state = torch.get_rng_state()
        PipelinePolicy(pipeline, adapter=adapter, seed=11)
        assert torch.equal(torch.get_rng_state(), state)

    def test_adapter_of_a_half_precision_model_is_kept_in_float32(self) -> None:
        policy = PipelinePolicy(tiny_pipeline(dtype=torch.bfloat16))
        assert {value.dtype for value in policy.trainable_parameters().values()} == {torch.float32}
        assert policy.predict(*network_inputs(policy)).isfinite().all()


def _parameters(policy: PipelinePolicy, part: str) -> list[torch.nn.Parameter]:
    return list(getattr(policy.pipeline, part).parameters())


class TestSaving:
    @BOTH
    def test_what_is_saved_is_loaded(self, tmp_path: Path, adapter: Adapter) -> None:
        trained, fresh = move(tiny_policy(adapter=adapter)), tiny_policy(adapter=adapter, seed=1)
        trained.save(tmp_path)
        assert not same(weights(trained), weights(fresh))
        fresh.load(tmp_path)
        assert same(weights(trained), weights(fresh))
        inputs = network_inputs(fresh)
        assert torch.equal(trained.predict(*inputs), fresh.predict(*inputs))

    @BOTH
    def test_loading_fills_the_very_tensors_that_an_optimiser_holds(self, tmp_path: Path, adapter: Adapter) -> None:
        move(tiny_policy(adapter=adapter)).save(tmp_path)
        policy = tiny_policy(adapter=adapter, seed=1)
        optimizer = train_steps(policy)
        held = optimizer.param_groups[0]["params"]
        storages = [value.data_ptr() for value in held]
        policy.load(tmp_path)
        trained = list(policy.trainable_parameters().values())
        assert all(one is other for one, other in zip(trained, held, strict=True))
        assert [value.data_ptr() for value in trained] == storages
        loaded = weights(policy)
        for value in held:
            value.grad = torch.ones_like(value)
        optimizer.step()
        assert not any(torch.equal(value, loaded[name]) for name, value in policy.trainable_parameters().items())

    @BOTH
    def test_loading_does_not_move_the_reference(self, tmp_path: Path, adapter: Adapter) -> None:
        move(tiny_policy(adapter=adapter)).save(tmp_path)
        policy = tiny_policy(adapter=adapter)
        inputs = network_inputs(policy)
        policy.load(tmp_path)
        assert torch.equal(on_reference(policy, *inputs), original(policy, inputs))
        assert (policy.predict(*inputs) - original(policy, inputs)).abs().max() > 1e-4

    def test_adapter_file_loads_into_a_plain_pipeline(self, tmp_path: Path) -> None:
        policy = move(tiny_policy())
        policy.save(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [LORA_FILE]
        assert LORA_FILE == "pytorch_lora_weights.safetensors"
        assert all(name.startswith("unet.") for name in load_file(tmp_path / LORA_FILE))
        plain = tiny_pipeline()
        plain.load_lora_weights(tmp_path)
        latents, timestep, conditioning = network_inputs(policy)
        with torch.no_grad():
            expected = policy.predict(latents, timestep, conditioning)
            found = plain.unet(latents, timestep, encoder_hidden_states=conditioning.prompt_embeds).sample
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        images = drawn_by_diffusers(plain, latents, guidance_scale=3.0)
        torch.testing.assert_close(images, drawn_by_policy(policy, latents, guidance_scale=3.0), rtol=0, atol=1e-4)

    def test_unet_folder_loads_in_plain_diffusers(self, tmp_path: Path) -> None:
        policy = move(tiny_policy(adapter="full"))
        policy.save(tmp_path)
        unet = UNet2DConditionModel.from_pretrained(tmp_path, use_safetensors=True)
        latents, timestep, conditioning = network_inputs(policy)
        with torch.no_grad():
            found = unet(latents, timestep, encoder_hidden_states=conditioning.prompt_embeds).sample
            assert torch.equal(found, policy.predict(latents, timestep, conditioning))

    def test_a_pipeline_folder_becomes_a_policy(self, tmp_path: Path) -> None:
        tiny_pipeline().save_pretrained(tmp_path)
        policy = build_policy(ModelSettings(model=str(tmp_path), lora_rank=2, seed=3))
        inputs = network_inputs(policy)
        torch.testing.assert_close(policy.predict(*inputs), original(policy, inputs), rtol=1e-4, atol=1e-5)
        assert same(weights(policy), weights(tiny_policy(lora_rank=2, seed=3)))


def drop(tensors: dict[str, Tensor]) -> None:
    del tensors[min(tensors)]


def add(tensors: dict[str, Tensor]) -> None:
    tensors["unet.elsewhere.weight"] = torch.zeros(2)


def reshape(tensors: dict[str, Tensor]) -> None:
    tensors[min(tensors)] = torch.zeros(5, 7)


class TestUnusableFiles:
    @BOTH
    def test_other_tensors_are_refused_and_nothing_changes(self, tmp_path: Path, adapter: Adapter) -> None:
        policy = tiny_policy(adapter=adapter)
        move(policy).save(tmp_path)
        file = tmp_path / (LORA_FILE if adapter == "lora" else UNET_FILE)
        whole = load_file(file)
        before = weights(move(policy))
        for damage in (drop, add, reshape):
            tensors = dict(whole)
            damage(tensors)
            save_file(tensors, file)
            with pytest.raises(DataError, match=rf"{file.name} .*: 1 tensor"):
                policy.load(tmp_path)
            assert same(weights(policy), before)

    def test_an_adapter_of_another_rank_is_refused(self, tmp_path: Path) -> None:
        tiny_policy(lora_rank=2).save(tmp_path)
        with pytest.raises(DataError, match="does not fit this model"):
            tiny_policy(lora_rank=4).load(tmp_path)

    @BOTH
    def test_a_missing_file_is_named(self, tmp_path: Path, adapter: Adapter) -> None:
        with pytest.raises(DataError, match=r"no weights at .*safetensors"):
            tiny_policy(adapter=adapter).load(tmp_path)

    @BOTH
    def test_a_cut_file_is_named(self, tmp_path: Path, adapter: Adapter) -> None:
        policy = tiny_policy(adapter=adapter)
        policy.save(tmp_path)
        file = next(tmp_path.glob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(DataError, match=r"cannot be read as weights") as failure:
            policy.load(tmp_path)
        assert str(file) in str(failure.value)

    def test_a_folder_without_a_pipeline_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"has no model_index\.json; name a diffusers pipeline, or `scenes`"):
            load_pipeline(tmp_path)

    def test_a_pipeline_that_lacks_a_part_is_named(self, tmp_path: Path) -> None:
        tiny_pipeline().save_pretrained(tmp_path)
        (tmp_path / "unet" / UNET_FILE).unlink()
        with pytest.raises(DataError, match="cannot be loaded as a StableDiffusionPipeline") as failure:
            load_pipeline(tmp_path)
        assert str(tmp_path) in str(failure.value)


def drawn_by_diffusers(pipeline: Any, latents: Tensor, *, guidance_scale: float) -> Tensor:
    images: Tensor = pipeline(
        list(PROMPTS),
        latents=latents,
        guidance_scale=guidance_scale,
        num_inference_steps=5,
        eta=0.0,
        output_type="pt",
    ).images
    return images


def drawn_by_policy(policy: PipelinePolicy, latents: Tensor, *, guidance_scale: float) -> Tensor:
    sampler = Sampler(policy, Sampling(num_inference_steps=5, guidance_scale=guidance_scale))
    clean = sampler.sample(latents, policy.encode_prompts(PROMPTS), policy.encode_prompts([""] * len(PROMPTS)))
    return policy.decode(clean)


class TestDiffusers:
    """The policy is the pipeline that it was made from."""

    @pytest.mark.parametrize(
        ("guidance_scale", "scheduler"),
        [
            (5.0, {}),
            (1.0, {}),
            (3.0, {"prediction_type": "v_prediction"}),
            (3.0, {"prediction_type": "sample"}),
            (3.0, {"set_alpha_to_one": True}),
            (3.0, {"timestep_spacing": "trailing"}),
            (3.0, {"timestep_spacing": "linspace"}),
        ],
    )
    def test_draws_the_images_of_the_pipeline(self, guidance_scale: float, scheduler: dict[str, Any]) -> None:
        policy = move(tiny_policy(**scheduler))
        latents = network_inputs(policy)[0]
        expected = drawn_by_diffusers(policy.pipeline, latents, guidance_scale=guidance_scale)
        images = drawn_by_policy(policy, latents, guidance_scale=guidance_scale)
        assert images.std() > 0.01
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-4)

    def test_embeds_prompts_as_the_pipeline_does(self) -> None:
        policy = tiny_policy()
        prompts = ["", *PROMPTS, "word " * 40]
        expected, negative = policy.pipeline.encode_prompt(
            prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
        )
        conditioning = policy.encode_prompts(prompts)
        assert torch.equal(conditioning.prompt_embeds, expected)
        torch.testing.assert_close(policy.encode_prompts([""]).prompt_embeds[0], negative[0])
        assert len(conditioning) == 5
        assert conditioning.pooled_prompt_embeds is conditioning.time_ids is None
        assert not conditioning.prompt_embeds.requires_grad

    def test_is_a_policy(self) -> None:
        policy = tiny_policy()
        assert isinstance(policy, Policy)
        assert isinstance(policy, Denoiser)
        assert policy.latent_shape == (8, 8, 8)
        assert policy.device == torch.device("cpu")
        assert len(policy.process) == 1000


class TestImages:
    def test_images_become_scaled_latents(self) -> None:
        policy = tiny_policy()
        vae = policy.pipeline.vae
        images = torch.rand(2, 3, 32, 32, generator=seeded())
        latents = policy.encode_images(images)
        assert latents.shape == (2, *policy.latent_shape)
        with torch.no_grad():
            expected = vae.encode(2 * images - 1).latent_dist.mode() * vae.config.scaling_factor
        assert torch.equal(latents, expected)
        assert not latents.requires_grad
        torch.testing.assert_close(policy.encode_images(images[:1]), latents[:1], rtol=1e-5, atol=1e-6)

    def test_latents_become_images_between_0_and_1(self) -> None:
        policy = tiny_policy()
        vae = policy.pipeline.vae
        latents = 20 * torch.randn(2, *policy.latent_shape, generator=seeded())
        images = policy.decode(latents)
        assert images.shape == (2, 3, 32, 32)
        assert images.dtype == torch.float32
        assert images.min() >= 0
        assert images.max() <= 1
        with torch.no_grad():
            raw = vae.decode(latents / vae.config.scaling_factor).sample
        assert raw.abs().max() > 1, "the range is tried only where it matters"
        torch.testing.assert_close(images, (raw / 2 + 0.5).clamp(0, 1))
        assert not images.requires_grad
