"""A LoRA of the text encoders: tokens travel in place of embeddings, and gradients reach the encoders' factors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from seedpo.core.types import Conditioning
from seedpo.data.cache.tensor_digests import network_digest
from seedpo.errors import ConfigError, DataError
from seedpo.models.kohya import kohya_prefixes, kohya_weights
from seedpo.models.loading import add_initial, add_trained
from seedpo.models.lora import carriers, scaled_adapters
from seedpo.models.lora_file import LORA_FILE, alphas, by_part, read_description, read_layers, read_lora
from seedpo.models.pipelines.stable_diffusion import PromptTokens
from seedpo.models.policy import PipelinePolicy
from seedpo.models.settings import LoraForm, ModelSettings
from seedpo.settings import Precision
from tests.models.published import drawn_by_diffusers, drawn_by_policy, pipeline_of, some_latents
from tests.models.tiny import move, on_reference, seeded

KINDS = ("sd15", "sdxl")
EACH = pytest.mark.parametrize("kind", KINDS)
FORM = LoraForm(rank=2, alpha=3.0, text_encoder=True)
ASKED = ("a large red ring", "", "a small blue star")


def policy_of(kind: str, form: LoraForm = FORM, **options: Any) -> PipelinePolicy:
    return PipelinePolicy(pipeline_of(kind), lora=form, **options)


def inputs_of(policy: PipelinePolicy, prompts: tuple[str, ...] = ASKED) -> tuple[Tensor, Tensor, Conditioning]:
    latents = torch.randn(len(prompts), *policy.latent_shape, generator=seeded(3))
    return latents, torch.tensor([1, 401, 951]), policy.encode_prompts(prompts)


def text_names(policy: PipelinePolicy) -> list[str]:
    return [name for name in policy.trainable_parameters() if name.startswith("text_encoder")]


class TestTokens:
    @EACH
    def test_are_what_prompts_are_embedded_from(self, kind: str) -> None:
        policy, plain = policy_of(kind), policy_of(kind, LoraForm(rank=2))
        tokens, embedded = policy.encode_prompts(ASKED), plain.encode_prompts(ASKED)
        assert isinstance(tokens, policy.conditioning_type)
        again = policy.family.embed_tokens(policy.family.text_encoders(policy.pipeline), tokens)
        for name, value in embedded.tensors().items():
            torch.testing.assert_close(again.tensors()[name], value, rtol=1e-5, atol=1e-6)

    def test_travel_as_embeddings_do(self) -> None:
        tokens = policy_of("sdxl").encode_prompts(ASKED)
        assert isinstance(tokens, PromptTokens)
        assert tokens.is_zero is not None
        assert tokens.is_zero.tolist() == [False, True, False]
        sizes = torch.arange(18).view(3, 6)
        sized = tokens.with_sizes(sizes)
        assert sized.sizes is not None
        assert sized.sizes.tolist() == sizes.tolist()
        assert sized.sizes.is_floating_point()
        joined = Conditioning.cat([sized[1:], sized[:1].repeat_interleave(2)])
        assert isinstance(joined, PromptTokens)
        assert joined.sizes is not None
        assert joined.sizes[:, 0].tolist() == [6.0, 12.0, 0.0, 0.0]
        assert torch.equal(joined.ids[2], tokens.ids[0])
        plain = policy_of("sd15").encode_prompts(ASKED)
        assert plain.sizes is None
        assert plain.with_sizes(sizes) is plain


class TestStart:
    @EACH
    @pytest.mark.parametrize("precision", ["no", "bf16"])
    def test_is_the_base_model(self, kind: str, precision: Precision) -> None:
        policy = policy_of(kind, mixed_precision=precision)
        plain = policy_of(kind, LoraForm(rank=2), mixed_precision=precision)
        inputs = inputs_of(policy)
        start = policy.predict(*inputs)
        assert torch.equal(start, on_reference(policy, *inputs))
        with torch.no_grad(), plain._autocast():
            embedded = plain.family.embed(plain.pipeline, ASKED, plain.prompt_form)
        assert torch.equal(start, on_reference(plain, *inputs[:2], embedded))

    @EACH
    def test_the_network_starts_as_without_text_encoders(self, kind: str) -> None:
        with_text, without = (
            policy_of(kind, LoraForm(rank=2, text_encoder=text)).trainable_parameters() for text in (True, False)
        )
        for name, value in without.items():
            assert torch.equal(with_text[f"unet.{name}"], value)
        assert len(with_text) > len(without)


def double(policy: PipelinePolicy) -> PipelinePolicy:
    for part in (policy.pipeline.unet, *policy.family.text_encoders(policy.pipeline)):
        part.double()
    return policy


class TestGradients:
    @EACH
    def test_equal_those_of_merged_weights(self, kind: str) -> None:
        """W + (alpha / rank) B A in a plain network, by autograd in float64; nothing of peft, tokens or joint calls."""
        policy = double(move(policy_of(kind), scale=0.2))
        latents, times, tokens = inputs_of(policy)
        policy.predict(latents.double(), times, tokens).square().mean().backward()
        found = {name: value.grad for name, value in policy.trainable_parameters().items()}

        plain = pipeline_of(kind)
        factors = {n: v.detach().clone().requires_grad_() for n, v in policy.trainable_parameters().items()}
        for part in policy.adapter.networks:  # type: ignore[attr-defined]
            network = getattr(plain, part).double().requires_grad_(False)
            downs = [n for n in factors if n.startswith(f"{part}.") and ".lora_A." in n]
            for down in downs:
                layer = network.get_submodule(down.removeprefix(f"{part}.").partition(".lora_A")[0])
                product = factors[down.replace("lora_A", "lora_B")] @ factors[down]
                weight = layer.weight.detach() + 1.5 * product  # alpha 3, rank 2
                del layer.weight
                layer.weight = weight
        merged = policy.family.embed(plain, ASKED, policy.prompt_form)
        added = {"text_embeds": merged.tensors().get("pooled_prompt_embeds"), "time_ids": merged.sizes}
        prediction = plain.unet(
            latents.double(),
            times,
            encoder_hidden_states=merged.tensors()["prompt_embeds"],
            added_cond_kwargs={name: value.double() for name, value in added.items() if value is not None},
        ).sample
        prediction.square().mean().backward()
        assert found.keys() == factors.keys()
        for name, value in factors.items():
            assert value.grad is not None
            assert value.grad.abs().max() > 0, name
            torch.testing.assert_close(found[name], value.grad, rtol=1e-8, atol=1e-14)

    @EACH
    def test_checkpointing_gives_the_same(self, kind: str) -> None:
        form = LoraForm(rank=2, dropout=0.3, text_encoder=True)
        gradients = []
        for checkpointing in (False, True):
            policy = move(policy_of(kind, form, gradient_checkpointing=checkpointing))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                policy.predict(*inputs_of(policy)).square().mean().backward()
            gradients.append([value.grad for value in policy.trainable_parameters().values()])
        for plain, again in zip(*gradients, strict=True):
            torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-8)

    def test_layers_that_no_embedding_comes_from_carry_none(self) -> None:
        names = text_names(policy_of("sdxl"))
        assert {name for name in names if name.startswith("text_encoder.") and ".layers.1." in name} == set()
        assert any(name.startswith("text_encoder_2.") and ".layers.1." in name for name in names)
        assert any(".layers.1." in name for name in text_names(policy_of("sd15")))


class TestTraining:
    @EACH
    @pytest.mark.parametrize("dora", [False, True])
    def test_moves_both_and_leaves_the_reference(self, kind: str, dora: bool) -> None:
        policy = policy_of(kind, LoraForm(rank=2, dora=dora, text_encoder=True))
        inputs = inputs_of(policy)
        start = policy.predict(*inputs).detach()
        before = {name: value.detach().clone() for name, value in policy.trainable_parameters().items()}
        digests = [network_digest(part) for part in policy.family.text_encoders(policy.pipeline)]
        optimizer = torch.optim.AdamW(policy.trainable_parameters().values(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            policy.predict(*inputs).square().mean().backward()
            optimizer.step()
        assert all(not torch.equal(before[name], value) for name, value in policy.trainable_parameters().items())
        assert torch.equal(on_reference(policy, *inputs), start)
        assert (policy.predict(*inputs) - start).abs().max() > 1e-4
        assert [network_digest(part) for part in policy.family.text_encoders(policy.pipeline)] == digests

    def test_text_encoders_stay_on_the_device(self) -> None:
        policy = policy_of("sd15")
        policy.release("text_encoder", "vae")
        assert policy._released == {"vae"}

    def test_a_moved_reference_holds_all_parts(self) -> None:
        policy = move(policy_of("sdxl"))
        inputs = inputs_of(policy)
        moved = policy.predict(*inputs).detach()
        policy.adapter.move_reference()
        move(policy)
        assert torch.equal(on_reference(policy, *inputs), moved)
        assert (policy.predict(*inputs) - moved).abs().max() > 1e-4
        assert policy.adapter.reference_weights().keys() == policy.trainable_parameters().keys()


class TestFiles:
    @EACH
    @pytest.mark.parametrize("form", [FORM, LoraForm(rank=2, dora=True, text_encoder=True)], ids=["lora", "dora"])
    def test_plain_diffusers_draws_the_same_images(self, tmp_path: Path, kind: str, form: LoraForm) -> None:
        policy = move(policy_of(kind, form), scale=0.1)
        policy.save(tmp_path)
        latents, plain, unet_alone = some_latents(policy), pipeline_of(kind), pipeline_of(kind)
        plain.load_lora_weights(tmp_path)
        expected = drawn_by_policy(policy, latents)
        torch.testing.assert_close(drawn_by_diffusers(plain, latents), expected, rtol=0, atol=1e-4)
        tensors = {name: value for name, value in load_file(tmp_path / LORA_FILE).items() if name.startswith("unet.")}
        unet_alone.load_lora_weights(tensors)
        assert (drawn_by_diffusers(unet_alone, latents) - expected).abs().max() > 1e-3, "text encoders take part"

    @EACH
    def test_are_read_back(self, tmp_path: Path, kind: str) -> None:
        policy, other, drawing = move(policy_of(kind), scale=0.1), policy_of(kind), pipeline_of(kind)
        policy.save(tmp_path)
        other.load(tmp_path)
        inputs = inputs_of(policy)
        expected = policy.predict(*inputs)
        assert torch.equal(other.predict(*inputs), expected)
        add_trained(drawing, tmp_path, adapter="lora")
        plain = PipelinePolicy(pipeline_of(kind))  # draws as a loaded run does
        network, encoders = drawing.unet, plain.family.text_encoders(drawing)
        embedded = plain.family.embed_tokens(encoders, inputs[2])
        drawn = plain.family.predict(network, *inputs[:2], embedded, torch.float32)
        assert torch.equal(drawn, expected)
        for part in policy.adapter.networks:  # type: ignore[attr-defined]
            assert read_description(tmp_path / LORA_FILE, part)["lora_alpha"] == 3.0
        with pytest.raises(DataError, match="does not fit this model"):
            policy_of(kind, LoraForm(rank=2)).load(tmp_path)
        with scaled_adapters(carriers(drawing, plain.family).values(), 0.0):
            base = plain.family.embed_tokens(encoders, inputs[2])
            torch.testing.assert_close(
                plain.family.predict(network, *inputs[:2], base, torch.float32), on_reference(policy, *inputs)
            )

    @EACH
    def test_diffusers_reads_the_names_of_web_uis(self, tmp_path: Path, kind: str) -> None:
        policy = move(policy_of(kind), scale=0.1)
        policy.save(tmp_path)
        tensors = web_ui_tensors(tmp_path)
        starts = {name.partition("_text_model_")[0] for name in tensors if "_text_model_" in name}
        assert starts == ({"lora_te"} if kind == "sd15" else {"lora_te1", "lora_te2"})
        plain, latents = pipeline_of(kind), some_latents(policy)
        plain.load_lora_weights(tensors)
        torch.testing.assert_close(
            drawn_by_diffusers(plain, latents), drawn_by_policy(policy, latents), rtol=0, atol=1e-4
        )


def web_ui_tensors(folder: Path) -> dict[str, Tensor]:
    parts = by_part(read_layers(read_lora(folder / LORA_FILE)))
    tensors: dict[str, Any] = {}
    for part, prefix in kohya_prefixes(parts).items():
        content = read_description(folder / LORA_FILE, part)
        own = alphas({name.partition(".lora_")[0] for name in parts[part]}, content)
        tensors |= kohya_weights(parts[part], own, prefix=prefix)
    return {name: torch.from_numpy(value) for name, value in tensors.items()}


class TestContinuing:
    @EACH
    @pytest.mark.parametrize("kohya", [False, True])
    def test_starts_from_the_file(self, tmp_path: Path, kind: str, kohya: bool) -> None:
        theirs = move(policy_of(kind), scale=0.1)
        theirs.save(tmp_path)
        file = tmp_path / LORA_FILE
        if kohya:
            file = tmp_path / "web.safetensors"
            save_file(web_ui_tensors(tmp_path), file)
        pipeline = pipeline_of(kind)
        add_initial(pipeline, ModelSettings(initial_lora=str(file), lora_text_encoder=True))
        policy = PipelinePolicy(pipeline, lora=LoraForm(text_encoder=True))
        inputs = inputs_of(policy)
        start = theirs.predict(*inputs)
        torch.testing.assert_close(policy.predict(*inputs), start, rtol=1e-5, atol=1e-6)
        assert policy.trainable_parameters().keys() == theirs.trainable_parameters().keys()
        move(policy)
        torch.testing.assert_close(on_reference(policy, *inputs), start, rtol=1e-5, atol=1e-6)

    def test_layers_that_cannot_be_trained_are_kept(self, tmp_path: Path) -> None:
        """kohya's scripts put layers where diffusers reads no embedding; processes would wait for their gradient."""
        pipeline = pipeline_of("sdxl")
        for part in ("unet", "text_encoder", "text_encoder_2"):
            targets = ["to_q"] if part == "unet" else ["q_proj", "fc1"]
            getattr(pipeline, part).add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
        policy = PipelinePolicy(pipeline, lora=LoraForm(text_encoder=True))
        policy.predict(*inputs_of(policy)).square().mean().backward()
        assert all(value.grad is not None for value in policy.trainable_parameters().values())
        assert any("fc1" in name for name in text_names(policy))
        policy.save(tmp_path)
        names = load_file(tmp_path / LORA_FILE)
        assert any(name.startswith("text_encoder.") and ".layers.1." in name for name in names)

    @pytest.mark.parametrize("text", [False, True])
    def test_a_file_with_other_parts_is_refused(self, tmp_path: Path, text: bool) -> None:
        policy_of("sd15", LoraForm(rank=2, text_encoder=not text)).save(tmp_path)
        with pytest.raises(DataError, match=f"set lora_text_encoder to {str(not text).lower()}$"):
            add_initial(pipeline_of("sd15"), ModelSettings(initial_lora=str(tmp_path), lora_text_encoder=text))


def test_the_whole_network_is_refused() -> None:
    with pytest.raises(ValueError, match="lora_text_encoder = true needs adapter = lora"):
        ModelSettings(adapter="full", lora_text_encoder=True)


def test_a_family_without_known_layers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from seedpo.models import policy as module
    from seedpo.models.pipelines.stable_diffusion import STABLE_DIFFUSION

    monkeypatch.setattr(module, "family_of", lambda pipeline: replace(STABLE_DIFFUSION, text_layers={}))
    with pytest.raises(ConfigError, match=r"^lora_text_encoder must be false"):
        policy_of("sd15")
