"""FLUX.2 and SANA: what a policy embeds, draws, trains and saves is what the pipelines of diffusers do."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from seedpo.core.sampling import Sampler, Sampling
from seedpo.core.types import ImagePairs
from seedpo.errors import ConfigError, DataError
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.loading import add_lora, load_pipeline
from seedpo.models.lora_file import LORA_FILE
from seedpo.models.policy import PipelinePolicy
from seedpo.models.settings import LoraForm
from tests.models.language_pipelines import INSTRUCTION, KINDS, drawn_by_pipeline, language_pipeline
from tests.models.tiny import PROMPTS, move, on_reference, seeded

LENGTH = 100
ASKED = ("", "a star", *PROMPTS)
GUIDANCE = {"flux2": 4.0, "klein": 3.0, "klein-distilled": 1.0, "sana": 3.0}
"""As the pipelines count it."""

EACH = pytest.mark.parametrize("kind", KINDS)
BOTH = pytest.mark.parametrize("adapter", ["lora", "full"])


def policy_of(kind: str, *, targets: tuple[str, ...] = ("all",), **options: Any) -> PipelinePolicy:
    form = LoraForm(rank=2, targets=targets)
    return PipelinePolicy(
        language_pipeline(kind), lora=form, **{"resolution": 32, "max_sequence_length": LENGTH, **options}
    )


def noise_for(model: PipelineDenoiser, *, rows: int = len(PROMPTS), seed: int = 0) -> Tensor:
    return torch.randn(rows, *model.latent_shape, generator=seeded(seed))


def inputs(policy: PipelinePolicy) -> tuple[Tensor, Tensor, Any]:
    return noise_for(policy), torch.tensor([0.2, 0.6, 1.0]), policy.encode_prompts(PROMPTS)


def drawn(model: Any, kind: str, noise: Tensor, *, steps: int = 3) -> Tensor:
    """Latents from the noise to the clean ones; embedded guidance counts as none."""
    sampling = Sampling(num_inference_steps=steps, guidance_scale=1.0 if kind == "flux2" else GUIDANCE[kind])
    prompts, negative = model.encode_prompts(PROMPTS), model.encode_prompts([""] * len(PROMPTS))
    return Sampler(model, sampling).trajectory(noise, prompts, negative, generator=seeded()).latents


class TestPrompts:
    @EACH
    def test_prompts_are_embedded_as_by_the_pipeline(self, kind: str) -> None:
        """Of several lengths, and cut at the end."""
        for length in (LENGTH, 60):
            policy = policy_of(kind, max_sequence_length=length)
            embedded, pipeline = policy.encode_prompts(ASKED), policy.pipeline
            assert embedded.prompt_embeds.shape[:2] == (len(ASKED), length)
            with torch.no_grad():
                if kind == "sana":
                    own = pipeline.encode_prompt(
                        list(ASKED[1:]), max_sequence_length=length, complex_human_instruction=INSTRUCTION
                    )
                    states, masks = torch.cat([own[2][:1], own[0]]), torch.cat([own[3][:1], own[1]])
                    assert torch.equal(embedded.mask, masks)
                    assert not torch.equal(masks[1], masks[2])
                    # What stands in the place of padding is not read.
                    torch.testing.assert_close(embedded.prompt_embeds[masks == 1], states[masks == 1])
                else:
                    states, _ = pipeline.encode_prompt(list(ASKED), max_sequence_length=length)
                    torch.testing.assert_close(embedded.prompt_embeds, states)

    @EACH
    def test_a_prompt_does_not_depend_on_the_others(self, kind: str) -> None:
        policy = policy_of(kind)
        together = policy.encode_prompts(ASKED)
        noise, times = noise_for(policy, rows=len(ASKED)), torch.linspace(0.1, 1.0, len(ASKED))
        predictions = policy.predict(noise, times, together)
        for row, prompt in enumerate(ASKED):
            alone = policy.encode_prompts([prompt])
            for name, values in together.tensors().items():
                torch.testing.assert_close(alone.tensors()[name], values[row : row + 1], msg=name)
            one = slice(row, row + 1)
            torch.testing.assert_close(
                policy.predict(noise[one], times[one], alone), predictions[one], rtol=1e-4, atol=1e-5
            )

    def test_words_are_not_case_sensitive_for_sana(self) -> None:
        policy = policy_of("sana")
        first, second = (policy.encode_prompts([prompt]) for prompt in ("a Red star ", "a red star"))
        assert torch.equal(first.prompt_embeds, second.prompt_embeds)

    def test_embedded_guidance_reaches_the_network(self) -> None:
        usual, strong = policy_of("flux2"), policy_of("flux2", embedded_guidance=9.0)
        assert usual.encode_prompts(PROMPTS).guidance.tolist() == [4.0] * 3  # type: ignore[attr-defined]
        assert strong.encode_prompts(PROMPTS).guidance.tolist() == [9.0] * 3  # type: ignore[attr-defined]
        assert not torch.allclose(usual.predict(*inputs(usual)), strong.predict(*inputs(strong)))

    @pytest.mark.parametrize("kind", ["klein", "sana"])
    def test_embedded_guidance_is_refused_where_there_is_none(self, kind: str) -> None:
        with pytest.raises(ConfigError, match=r"^embedded_guidance = 3"):
            policy_of(kind, embedded_guidance=3.0)


class TestDrawing:
    @pytest.mark.parametrize("kind", ["flux2", "klein", "klein-distilled", "sana"])
    @pytest.mark.parametrize(("size", "steps"), [((32, 32), 3), ((32, 64), 2)])
    def test_every_step_is_the_pipeline_s(self, kind: str, size: tuple[int, int], steps: int) -> None:
        model = PipelineDenoiser(language_pipeline(kind), resolution=size, max_sequence_length=LENGTH)
        noise = noise_for(model)
        path, images = drawn_by_pipeline(
            language_pipeline(kind), PROMPTS, noise, steps=steps, guidance_scale=GUIDANCE[kind], length=LENGTH
        )
        own = drawn(model, kind, noise, steps=steps)
        torch.testing.assert_close(own, path, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(model.decode(own[:, -1]), images, rtol=1e-3, atol=1e-3)

    def test_a_prompt_and_guidance_matter(self) -> None:
        """What the comparisons above rest on."""
        for kind in KINDS:
            model = PipelineDenoiser(language_pipeline(kind), resolution=32, max_sequence_length=LENGTH)
            noise = noise_for(model, rows=1).expand(len(PROMPTS), -1, -1, -1)
            first, second, _ = drawn(model, kind, noise)[:, -1]
            assert (first - second).abs().max() > 0.05

    @pytest.mark.parametrize(
        ("size", "steps"), [((512, 512), 1), ((1024, 768), 28), ((1024, 1024), 50), ((2048, 1024), 10)]
    )
    def test_levels_are_those_that_the_pipeline_visits(self, size: tuple[int, int], steps: int) -> None:
        """With an empty network, so that sizes can be those of published models."""
        pipeline = language_pipeline("klein")
        pipeline.vae_scale_factor = 8
        pipeline.transformer.forward = lambda hidden_states, **_: (torch.zeros_like(hidden_states),)
        model = PipelineDenoiser(pipeline, resolution=size, max_sequence_length=LENGTH)
        states = model.encode_prompts(["a star"]).prompt_embeds  # type: ignore[attr-defined]
        pipeline.vae_scale_factor = 8
        pipeline(
            prompt_embeds=states,
            height=size[0],
            width=size[1],
            num_inference_steps=steps,
            guidance_scale=1.0,
            output_type="latent",
        )
        times, following = model.process.timesteps(steps)
        assert torch.equal(times, pipeline.scheduler.sigmas[:-1])
        assert torch.equal(following, pipeline.scheduler.sigmas[1:])
        assert torch.equal(1000 * times, pipeline.scheduler.timesteps)

    @pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # in diffusers, of new versions of numpy
    def test_sana_takes_the_levels_of_its_solver_from_pure_noise(self) -> None:
        pipeline = language_pipeline("sana")
        times, following = PipelineDenoiser(pipeline, resolution=32).process.timesteps(10)
        assert times[0] == 1
        assert following[-1] == 0
        pipeline.scheduler.set_timesteps(10)
        torch.testing.assert_close(times, pipeline.scheduler.sigmas[:-1], rtol=1.1e-3, atol=0.0)

    def test_sana_with_euler_s_scheduler_takes_its_levels(self) -> None:
        pipeline = language_pipeline("sana")
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0)
        model = PipelineDenoiser(pipeline, resolution=32, max_sequence_length=LENGTH)
        noise = noise_for(model)
        path, _ = drawn_by_pipeline(pipeline, PROMPTS, noise, steps=4, guidance_scale=3.0, length=LENGTH)
        torch.testing.assert_close(drawn(model, "sana", noise, steps=4), path, rtol=1e-3, atol=1e-3)
        assert model.process.shift == 2.0  # type: ignore[attr-defined]

    @pytest.mark.parametrize("kind", ["flux2", "klein"])
    def test_the_shift_of_a_density_is_that_of_the_usual_sampler(self, kind: str) -> None:
        """At 1024 px (4096 tokens) and 50 steps mu is 2.02, from the pipeline's line."""
        pipeline = language_pipeline(kind)
        pipeline.vae_scale_factor = 8
        process: Any = PipelineDenoiser(pipeline, resolution=1024).process
        assert process.shift == pytest.approx(7.5, abs=0.2)


class TestAutoencoder:
    @pytest.mark.parametrize("kind", ["flux2", "klein"])
    def test_latents_of_flux_2_are_normalised_cells(self, kind: str) -> None:
        model = PipelineDenoiser(language_pipeline(kind), resolution=32)
        images = torch.rand(2, 3, 32, 32, generator=seeded())
        latents, (mean, std) = model.encode_images(images), model.encode_distribution(images)
        assert latents.shape == (2, *model.latent_shape) == (2, 16, 8, 8)
        pipeline = model.pipeline
        with torch.no_grad():
            own = pipeline._encode_vae_image(2 * images - 1, seeded())
            drawn = pipeline.vae.encode(2 * images - 1).latent_dist.sample(seeded())
        torch.testing.assert_close(latents, own)
        torch.testing.assert_close(mean, own)
        # A draw of the distribution is a draw of the normalised one.
        noise = torch.randn(drawn.shape, generator=seeded())
        variance = pipeline.vae.bn.running_var + pipeline.vae.config.batch_norm_eps
        cells = (pipeline._patchify_latents(drawn) - pipeline.vae.bn.running_mean.view(1, -1, 1, 1)) / (
            variance.sqrt().view(1, -1, 1, 1)
        )
        torch.testing.assert_close(mean + std * pipeline._patchify_latents(noise), cells)

    def test_latents_of_sana_have_no_distribution(self) -> None:
        model = PipelineDenoiser(language_pipeline("sana"), resolution=32)
        images = torch.rand(2, 3, 32, 32, generator=seeded())
        mean, std = model.encode_distribution(images)
        assert mean.shape == (2, *model.latent_shape) == (2, 4, 8, 8)
        with torch.no_grad():
            own = model.pipeline.vae.encode(2 * images - 1).latent * model.pipeline.vae.config.scaling_factor
        torch.testing.assert_close(mean, own)
        assert std.eq(0).all()


class TestTraining:
    @EACH
    @BOTH
    def test_a_preference_is_learnt(self, kind: str, adapter: Literal["lora", "full"]) -> None:
        policy = policy_of(kind, adapter=adapter)
        chosen, rejected = noise_for(policy, seed=1), noise_for(policy, seed=2)
        pairs = ImagePairs(
            chosen_latents=chosen, rejected_latents=rejected, conditioning=policy.encode_prompts(PROMPTS)
        )
        method = NoiseDPO(policy_weight=20.0, reference_weight=20.0)
        rate = 0.01 if adapter == "lora" else 0.001
        optimizer, losses = torch.optim.AdamW(policy.trainable_parameters().values(), lr=rate), []
        for _ in range(4):
            loss = method.loss(policy, pairs, generator=seeded()).losses.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(torch.tensor(2.0).log().item())
        assert losses[-1] < losses[0] - 0.01

    @EACH
    def test_checkpointing_gives_the_same_gradients(self, kind: str) -> None:
        gradients = []
        for checkpointing in (False, True):
            policy = move(policy_of(kind, gradient_checkpointing=checkpointing))
            assert policy.network.is_gradient_checkpointing == checkpointing
            policy.predict(*inputs(policy)).square().mean().backward()
            gradients.append([parameter.grad for parameter in policy.trainable_parameters().values()])
        torch.testing.assert_close(gradients[1], gradients[0])
        assert all(gradient.abs().max() > 0 for gradient in gradients[0])

    @pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # norms stay in float32
    @EACH
    def test_half_precision(self, kind: str) -> None:
        """Of bfloat16, whose last digit is 2^-8 of a number."""
        exact, rounded = policy_of(kind), policy_of(kind, mixed_precision="bf16")
        prediction = rounded.predict(*inputs(rounded))
        assert prediction.dtype == torch.float32
        error = (prediction - exact.predict(*inputs(exact))).square().mean().sqrt()
        assert 0 < error < 0.1 * prediction.std()

    @EACH
    def test_the_reference_is_the_pipeline(self, kind: str) -> None:
        policy = move(policy_of(kind))
        plain = PipelineDenoiser(language_pipeline(kind), resolution=32, max_sequence_length=LENGTH)
        with torch.no_grad():
            prediction = plain.predict(*inputs(policy))
        torch.testing.assert_close(on_reference(policy, *inputs(policy)), prediction)
        assert not torch.allclose(policy.predict(*inputs(policy)), prediction)


class TestFiles:
    @EACH
    @BOTH
    def test_weights_are_read_again(self, tmp_path: Path, kind: str, adapter: Literal["lora", "full"]) -> None:
        policy = move(policy_of(kind, adapter=adapter))
        policy.save(tmp_path)
        again = policy_of(kind, adapter=adapter, seed=1)
        again.load(tmp_path)
        assert torch.equal(again.predict(*inputs(again)), policy.predict(*inputs(policy)))

    @EACH
    def test_a_lora_is_read_by_diffusers_alone(self, tmp_path: Path, kind: str) -> None:
        policy = move(policy_of(kind), scale=0.2)
        policy.save(tmp_path)
        noise = noise_for(policy)
        images = policy.decode(drawn(policy, kind, noise)[:, -1])
        plain = language_pipeline(kind)
        run = {"steps": 3, "guidance_scale": GUIDANCE[kind], "length": LENGTH}
        _, before = drawn_by_pipeline(plain, PROMPTS, noise, **run)
        plain.load_lora_weights(tmp_path, weight_name=LORA_FILE)
        _, after = drawn_by_pipeline(plain, PROMPTS, noise, **run)
        torch.testing.assert_close(images, after, rtol=1e-3, atol=1e-3)
        assert (after - before).abs().max() > 0.02

    @EACH
    def test_a_lora_of_diffusers_is_drawn(self, tmp_path: Path, kind: str) -> None:
        policy = move(policy_of(kind))
        policy.save(tmp_path)
        plain = language_pipeline(kind)
        add_lora(plain, tmp_path / LORA_FILE)
        drawing = PipelineDenoiser(plain, resolution=32, max_sequence_length=LENGTH)
        with torch.no_grad():
            prediction = drawing.predict(*inputs(policy))
        torch.testing.assert_close(prediction, policy.predict(*inputs(policy)), rtol=1e-5, atol=1e-5)

    @EACH
    def test_a_pipeline_is_read_from_its_folder(self, tmp_path: Path, kind: str) -> None:
        language_pipeline(kind).save_pretrained(tmp_path)
        policy = PipelinePolicy(load_pipeline(tmp_path), resolution=32, max_sequence_length=LENGTH)
        own = policy_of(kind)
        torch.testing.assert_close(policy.predict(*inputs(own)), on_reference(own, *inputs(own)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        # Two streams: 8 projections; one stream: 2; feed-forward layers of both streams.
        ("flux2", {"attention": 8 + 2 * 2, "mlp": 4}),
        ("klein", {"attention": 8 + 2 * 2, "mlp": 4}),
        # Two attentions in each of two blocks; two 1 x 1 convolutions in each.
        ("sana", {"attention": 2 * 8, "mlp": 2 * 2}),
    ],
)
def test_layers_that_carry_an_adapter(kind: str, layers: dict[str, int]) -> None:
    for group, count in layers.items():
        names = policy_of(kind, targets=(group,)).trainable_parameters()
        assert len([name for name in names if "lora_B" in name]) == count
        if kind != "sana" and group == "attention":
            fused = [name for name in names if ".to_qkv_mlp_proj." in name]
            after = [name for name in names if name.startswith("single_") and ".attn.to_out." in name]
            assert (len(fused), len(after)) == (4, 4)


class TestRefusals:
    @pytest.mark.parametrize("kind", ["flux2", "klein"])
    def test_a_text_without_room_for_the_prompt(self, kind: str) -> None:
        """The shortest length that leaves room for a token, and one less."""
        pipeline = language_pipeline(kind)
        family = PipelineDenoiser(pipeline, resolution=32).family
        tokens: Any = family.tokenize(pipeline, [""], family.prompt_form((32, 32)))
        around = int(tokens.mask.sum())
        assert around > 5
        assert PipelineDenoiser(pipeline, resolution=32, max_sequence_length=around + 1).encode_prompts(PROMPTS)
        with pytest.raises(ConfigError, match=f"^max_sequence_length = {around}"):
            PipelineDenoiser(pipeline, resolution=32, max_sequence_length=around).encode_prompts(PROMPTS)

    @pytest.mark.skipif(find_spec("torchvision") is not None, reason="the processor can be made")
    def test_a_processor_that_needs_torchvision(self, tmp_path: Path) -> None:
        language_pipeline("flux2").save_pretrained(tmp_path)
        index = tmp_path / "model_index.json"
        content = json.loads(index.read_text())
        content["tokenizer"] = ["transformers", "PixtralProcessor"]
        index.write_text(json.dumps(content))
        with pytest.raises(DataError, match="its tokenizer is a PixtralProcessor, which needs torchvision"):
            load_pipeline(tmp_path)

    def test_a_distilled_pipeline_is_not_trained(self) -> None:
        pipeline = language_pipeline("klein-distilled")
        with pytest.raises(ConfigError, match="distilled"):
            PipelinePolicy(pipeline, resolution=32)
        assert PipelineDenoiser(pipeline, resolution=32).latent_shape == (16, 8, 8)

    @pytest.mark.parametrize("kind", ["flux2", "klein", "klein-distilled", "sana"])
    def test_only_true_guidance_may_be_set(self, kind: str) -> None:
        model = PipelineDenoiser(language_pipeline(kind), resolution=32)
        assert (model.family.unguided(model.pipeline) is None) == (kind in ("klein", "sana"))

    @EACH
    @pytest.mark.parametrize("resolution", [30, (32, 34)])
    def test_a_size_that_cells_do_not_divide(self, kind: str, resolution: Any) -> None:
        with pytest.raises(ConfigError, match="multiple of 4"):
            PipelineDenoiser(language_pipeline(kind), resolution=resolution)

    def test_an_unknown_scheduler(self) -> None:
        for kind in KINDS:
            pipeline = language_pipeline(kind)
            pipeline.scheduler = DDIMScheduler()
            with pytest.raises(DataError, match="DDIMScheduler"):
                PipelineDenoiser(pipeline, resolution=32)

    def test_a_solver_of_sana_without_flow(self) -> None:
        pipeline = language_pipeline("sana")
        pipeline.scheduler = DPMSolverMultistepScheduler()
        with pytest.raises(DataError, match="DPMSolverMultistepScheduler"):
            PipelineDenoiser(pipeline, resolution=32)

    def test_an_autoencoder_of_another_width(self) -> None:
        for kind, wide in (("flux2", 4), ("sana", 4)):
            model = PipelineDenoiser(language_pipeline(kind), resolution=32)
            vae, transformer = model.pipeline.vae, model.pipeline.transformer
            assert model.family.misfit(transformer, vae) is None
            vae.register_to_config(latent_channels=5)
            assert str(wide) in str(model.family.misfit(transformer, vae))
