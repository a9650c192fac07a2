"""Stable Diffusion 1.5, 2.1 and XL: the policy is the pipeline that it was made from; results load in diffusers."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EDMEulerScheduler, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_kohya
from safetensors.numpy import load_file, save_file

from seedpo.errors import ConfigError, DataError
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.kohya import kohya_weights
from seedpo.models.lora_file import LORA_FILE, by_part, read_layers
from seedpo.models.policy import PipelinePolicy
from seedpo.models.settings import LoraForm
from tests.models.published import KINDS, drawn_by_diffusers, drawn_by_policy, pipeline_of, some_latents
from tests.models.tiny import PROMPTS, move, network_inputs, on_reference, seeded, train_steps

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


class TestEqualToDiffusers:
    @EVERY_KIND
    def test_draws_the_images_of_the_pipeline(self, kind: str) -> None:
        policy = PipelinePolicy(pipeline_of(kind))
        latents = some_latents(policy)
        for guidance_scale in (1.0, 5.0):
            expected = drawn_by_diffusers(pipeline_of(kind), latents, guidance_scale=guidance_scale)
            images = drawn_by_policy(policy, latents, guidance_scale=guidance_scale)
            assert (expected[0] - expected[1]).abs().mean() > 0.01
            torch.testing.assert_close(images, expected, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("zeros", [True, False])
    def test_empty_prompts_of_xl_are_zeros_where_the_pipeline_says_so(self, zeros: bool) -> None:
        pipeline = pipeline_of("sdxl", force_zeros_for_empty_prompt=zeros)
        prompts = [*PROMPTS, "word " * 40]
        expected = pipeline.encode_prompt(prompts, device="cpu", do_classifier_free_guidance=True)
        policy = PipelinePolicy(pipeline)
        positive, negative = policy.encode_prompts(prompts), policy.encode_prompts([""] * len(prompts))
        found = (
            positive.prompt_embeds,
            negative.prompt_embeds,
            positive.pooled_prompt_embeds,
            negative.pooled_prompt_embeds,
        )
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert bool((negative.prompt_embeds == 0).all()) == zeros
        assert bool((negative.pooled_prompt_embeds == 0).all()) == zeros

    def test_xl_is_told_the_size(self) -> None:
        policy = PipelinePolicy(pipeline_of("sdxl"))
        assert policy.encode_prompts(["a", "b"]).time_ids.tolist() == [[16, 16, 0, 0, 16, 16]] * 2
        policy = PipelinePolicy(pipeline_of("sdxl"), resolution=24)
        assert policy.encode_prompts(["a"]).time_ids.tolist() == [[24, 24, 0, 0, 24, 24]]

    @pytest.mark.parametrize("kind", ["sd15", "sdxl"])
    def test_another_resolution(self, kind: str) -> None:
        policy = PipelinePolicy(pipeline_of(kind), resolution=24)
        assert policy.latent_shape == (4, 12, 12)
        assert policy.image_size == (24, 24)
        latents = some_latents(policy)
        images = drawn_by_policy(policy, latents)
        assert images.shape == (3, 3, 24, 24)
        torch.testing.assert_close(images, drawn_by_diffusers(pipeline_of(kind), latents), rtol=0, atol=1e-4)
        assert policy.encode_images(images).shape == latents.shape


class TestPrompts:
    @EVERY_KIND
    def test_distinct_prompts_are_encoded_once(self, kind: str) -> None:
        policy = PipelinePolicy(pipeline_of(kind))
        seen: list[int] = []
        encoder = policy.pipeline.text_encoder
        encoder.register_forward_pre_hook(lambda m, a, k: seen.append(len((*a, *k.values())[0])), with_kwargs=True)
        rows = policy.encode_prompts(["", PROMPTS[0], "", PROMPTS[1], PROMPTS[0]])
        assert seen == [3]
        apart = policy.encode_prompts(["", PROMPTS[0], PROMPTS[1]])
        for name in ("prompt_embeds", "pooled_prompt_embeds"):
            together, alone = getattr(rows, name), getattr(apart, name)
            if alone is not None:
                assert torch.equal(together, alone[torch.tensor([0, 1, 0, 2, 1])])
        assert not rows.prompt_embeds.requires_grad


class TestTraining:
    @pytest.mark.parametrize("adapter", ["lora", "full"])
    def test_xl_is_trained_and_its_reference_is_not(self, adapter: Any) -> None:
        policy = PipelinePolicy(pipeline_of("sdxl"), adapter=adapter)
        inputs = network_inputs(policy)
        before = policy.predict(*inputs).detach()
        assert torch.equal(on_reference(policy, *inputs), before)
        train_steps(policy)
        assert torch.equal(on_reference(policy, *inputs), before)
        assert (policy.predict(*inputs) - before).abs().max() > 1e-4

    @pytest.mark.parametrize("adapter", ["lora", "full"])
    @pytest.mark.parametrize("kind", ["sd15", "sdxl"])
    def test_checkpointing_leaves_the_gradients_as_they_are(self, kind: str, adapter: Any) -> None:
        """The reference is asked in between, as methods do: it must not reach what is computed again."""
        gradients = []
        for checkpointing in (False, True):
            pipeline = pipeline_of(kind)
            policy = move(PipelinePolicy(pipeline, adapter=adapter, gradient_checkpointing=checkpointing))
            calls: list[int] = []
            pipeline.unet.mid_block.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
            prediction = policy.predict(*network_inputs(policy))
            asked = len(calls)
            on_reference(policy, *network_inputs(policy))
            prediction.square().mean().backward()
            gradients.append({name: value.grad for name, value in policy.trainable_parameters().items()})
            assert pipeline.unet.is_gradient_checkpointing == checkpointing
            assert asked == 1
        assert list(gradients[0]) == list(gradients[1])
        for name, value in gradients[0].items():
            assert value.abs().max() > 0
            torch.testing.assert_close(gradients[1][name], value, rtol=1e-5, atol=1e-8)


class TestAdapterFiles:
    @pytest.mark.parametrize("kind", ["sd15", "sdxl"])
    def test_loads_into_a_plain_pipeline(self, tmp_path: Path, kind: str) -> None:
        policy = move(PipelinePolicy(pipeline_of(kind)), scale=0.1)
        latents = some_latents(policy)
        images = drawn_by_policy(policy, latents)
        policy.save(tmp_path)
        plain = pipeline_of(kind)
        base = drawn_by_diffusers(plain, latents)
        plain.load_lora_weights(tmp_path)
        assert (images - base).abs().max() > 0.01
        torch.testing.assert_close(drawn_by_diffusers(plain, latents), images, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("kind", ["sd15", "sdxl"])
    def test_web_ui_names_load_back_to_the_same_images(self, tmp_path: Path, kind: str) -> None:
        policy = move(PipelinePolicy(pipeline_of(kind), lora=LoraForm(rank=3)), scale=0.1)
        latents = some_latents(policy)
        policy.save(tmp_path)
        converted = kohya_weights(by_part(read_layers(load_file(tmp_path / LORA_FILE)))["unet"])
        layers = {name.split(".")[0] for name in converted}
        assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0" in layers
        assert {name.partition(".")[2] for name in converted} == {"lora_down.weight", "lora_up.weight", "alpha"}
        assert {float(value) for name, value in converted.items() if name.endswith(".alpha")} == {3.0}
        save_file(converted, tmp_path / "web.safetensors")
        plain = pipeline_of(kind)
        plain.load_lora_weights(tmp_path, weight_name="web.safetensors")
        torch.testing.assert_close(
            drawn_by_diffusers(plain, latents), drawn_by_policy(policy, latents), rtol=0, atol=1e-4
        )

    @pytest.mark.parametrize("kind", ["sd15", "sdxl"])
    def test_web_ui_names_are_those_that_diffusers_writes(self, tmp_path: Path, kind: str) -> None:
        move(PipelinePolicy(pipeline_of(kind), lora=LoraForm(rank=3))).save(tmp_path)
        weights = by_part(read_layers(load_file(tmp_path / LORA_FILE)))["unet"]
        ours, theirs = (
            kohya_weights(weights),
            convert_state_dict_to_kohya({f"unet.{name}": torch.from_numpy(value) for name, value in weights.items()}),
        )
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(value, theirs[name].to(torch.float32).numpy()) for name, value in ours.items())

    def test_an_alpha_that_is_not_the_rank_would_be_seen(self, tmp_path: Path) -> None:
        policy = move(PipelinePolicy(pipeline_of("sd15")), scale=0.1)
        latents = some_latents(policy)
        policy.save(tmp_path)
        converted = kohya_weights(by_part(read_layers(load_file(tmp_path / LORA_FILE)))["unet"])
        halved = {name: np.asarray(value / 2) if name.endswith("alpha") else value for name, value in converted.items()}
        save_file(halved, tmp_path / "web.safetensors")
        plain = pipeline_of("sd15")
        plain.load_lora_weights(tmp_path, weight_name="web.safetensors")
        assert (drawn_by_diffusers(plain, latents) - drawn_by_policy(policy, latents)).abs().max() > 1e-3


class TestSpeed:
    def test_attention_is_the_fused_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Torch's scaled_dot_product_attention, in every attention layer; diffusers takes it where nothing is set."""
        policy, calls = PipelinePolicy(pipeline_of("sd15")), []
        fused = torch.nn.functional.scaled_dot_product_attention
        record = lambda *a, **k: calls.append(1) or fused(*a, **k)  # noqa: E731
        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", record)
        inputs = network_inputs(policy)  # the text encoder attends too
        calls.clear()
        policy.predict(*inputs)
        layers = [name for name, _ in policy.module.named_modules() if name.endswith((".attn1", ".attn2"))]
        assert len(calls) == len(layers) > 0

    @pytest.mark.slow
    @pytest.mark.parametrize("adapter", ["lora", "full"])
    def test_a_compiled_network_is_the_same_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: Any
    ) -> None:
        """Traced by torch.compile, but run as it is: a C++ compiler would take minutes."""
        torch.compiler.reset()
        monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))
        plain = PipelinePolicy(pipeline_of("sd15"), adapter=adapter)
        fast = PipelinePolicy(pipeline_of("sd15"), adapter=adapter, compile_networks=True)
        assert list(fast.trainable_parameters()) == list(plain.trainable_parameters())
        for policy in (plain, fast):
            train_steps(policy)
        inputs = network_inputs(plain)
        for ask in (PipelinePolicy.predict, on_reference):
            torch.testing.assert_close(ask(fast, *inputs), ask(plain, *inputs), rtol=1e-4, atol=1e-5)
        assert (fast.predict(*inputs) - on_reference(fast, *inputs)).abs().max() > 1e-4
        fast.save(tmp_path)
        plain.load(tmp_path)
        torch.testing.assert_close(fast.predict(*inputs), plain.predict(*inputs), rtol=1e-4, atol=1e-5)


class TestMemory:
    def test_released_parts_are_on_the_device_only_while_they_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        policy = PipelinePolicy(pipeline_of("sdxl"))
        moves: list[tuple[str, str]] = []
        for name in ("text_encoder", "text_encoder_2", "vae", "unet"):
            part = getattr(policy.pipeline, name)
            record = lambda place, name=name: moves.append((name, str(place)))  # noqa: E731
            monkeypatch.setattr(part, "to", record)
        monkeypatch.setattr(type(policy), "device", torch.device("cpu", 0))
        texts = ["text_encoder", "text_encoder_2"]
        policy.encode_prompts(["a"])
        policy.decode(some_latents(policy))
        assert moves == []
        policy.release("text_encoder")
        assert moves == [(name, "cpu") for name in texts]
        moves.clear()
        policy.encode_prompts(["a"])
        policy.decode(some_latents(policy))
        assert moves == [(name, place) for place in ("cpu:0", "cpu") for name in texts]
        moves.clear()
        policy.to("cpu:0")
        assert moves == [("vae", "cpu:0"), ("unet", "cpu:0")]
        policy.release("vae")
        moves.clear()
        policy.decode(some_latents(policy))
        policy.encode_images(torch.zeros(1, 3, 16, 16))
        assert moves == [("vae", "cpu:0"), ("vae", "cpu")] * 2

    @pytest.mark.parametrize("call", ["decode", "encode_images"])
    def test_large_images_pass_the_autoencoder_in_turn(self, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        policy = PipelinePolicy(pipeline_of("sd15"))
        given = torch.rand(5, *((3, 16, 16) if call == "encode_images" else policy.latent_shape), generator=seeded())
        whole = getattr(policy, call)(given)
        seen: list[int] = []
        first = policy.pipeline.vae.decoder if call == "decode" else policy.pipeline.vae.encoder
        first.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
        monkeypatch.setattr("seedpo.models.denoiser.PIXELS_PER_CALL", 2 * 16 * 16 + 1)
        torch.testing.assert_close(getattr(policy, call)(given), whole, rtol=1e-4, atol=1e-5)
        assert seen == [2, 2, 1]
        monkeypatch.setattr("seedpo.models.denoiser.PIXELS_PER_CALL", 1)
        torch.testing.assert_close(getattr(policy, call)(given), whole, rtol=1e-4, atol=1e-5)


class TestRefusals:
    def test_a_resolution_that_no_latent_has(self) -> None:
        with pytest.raises(ConfigError, match=r"resolution = 17 must be a multiple of 2, this model's pixels per lat"):
            PipelinePolicy(pipeline_of("sd15"), resolution=17)

    def test_a_schedule_of_another_family(self) -> None:
        pipeline = pipeline_of("sdxl")
        pipeline.scheduler = EDMEulerScheduler()
        with pytest.raises(DataError, match=r"a model with EDMEulerScheduler cannot be trained"):
            PipelinePolicy(pipeline)

    def test_a_unet_that_cannot_carry_an_adapter(self) -> None:
        pipeline = pipeline_of("sd15")
        pipeline.unet = UNet2DConditionModel(
            down_block_types=("DownBlock2D",),
            mid_block_type=None,
            up_block_types=("UpBlock2D",),
            block_out_channels=(8,),
            norm_num_groups=4,
        )
        with pytest.raises(ConfigError, match=r"set resolution"):
            PipelineDenoiser(pipeline)
        with pytest.raises(DataError, match=r"has none of the layers that carry an adapter \(to_q, .*full"):
            PipelinePolicy(pipeline)

    def test_a_unet_with_distilled_guidance(self) -> None:
        pipeline = pipeline_of("sd15")
        pipeline.unet.register_to_config(time_cond_proj_dim=8)
        with pytest.raises(DataError, match=r"a UNet with distilled guidance \(LCM\) cannot be trained"):
            PipelinePolicy(pipeline)
