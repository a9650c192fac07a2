"""LoRAs of Stable Diffusion 3 and FLUX.1: which layers carry them, and that plain diffusers draws the same images."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from seedpo.core.sampling import Sampler, Sampling
from seedpo.core.types import Conditioning
from seedpo.errors import ConfigError, DataError
from seedpo.models.loading import add_initial, add_lora, load_pipeline
from seedpo.models.lora import adapted_layers
from seedpo.models.lora_file import LORA_FILE
from seedpo.models.policy import PipelinePolicy
from seedpo.models.quantised import BasePrecision, quantise
from seedpo.models.settings import LoraForm, ModelSettings
from seedpo.settings import Precision, build_config
from tests.models.flow_pipelines import flow_pipeline
from tests.models.tiny import PROMPTS, move, on_reference, seeded

KINDS = ("sd35", "flux-dev")
EACH = pytest.mark.parametrize("kind", KINDS)
SIZE, LENGTH, STEPS = 16, 6, 2
EVERYTHING = LoraForm(rank=2, alpha=5.0, targets=("all",))


def policy_of(kind: str, lora: LoraForm = EVERYTHING, *, pipeline: Any = None, **options: Any) -> PipelinePolicy:
    base = flow_pipeline(kind) if pipeline is None else pipeline
    return PipelinePolicy(base, lora=lora, resolution=SIZE, max_sequence_length=LENGTH, **options)


def inputs_of(policy: PipelinePolicy) -> tuple[Tensor, Tensor, Conditioning]:
    latents = torch.randn(3, *policy.latent_shape, generator=seeded(1))
    return latents, torch.tensor([0.9, 0.5, 0.2]), policy.encode_prompts(PROMPTS)


def drawn(policy: PipelinePolicy) -> Tensor:
    latents = torch.randn(3, *policy.latent_shape, generator=seeded(2))
    sampler = Sampler(policy, Sampling(num_inference_steps=STEPS, guidance_scale=1.0, eta=0.0))
    with torch.no_grad():
        conditioning: Any = policy.encode_prompts(PROMPTS)
        if policy.trains_text:
            conditioning = policy.family.embed_tokens(policy.family.text_encoders(policy.pipeline), conditioning)
            policy.module, policy.trains_text = policy.network, False
        return policy.decode(sampler.sample(latents, conditioning, None))


def drawn_plainly(kind: str, folder: Path, policy: PipelinePolicy, *, text: bool = False) -> Tensor:
    """Images of diffusers' own pipeline with the LoRA of a folder; nothing of seedpo is used."""
    pipeline = flow_pipeline(kind)
    pipeline.load_lora_weights(folder)
    carriers = {name for name, part in pipeline.components.items() if hasattr(part, "peft_config")}
    assert carriers == {"transformer", *(policy.family.text_layers if text else ())}
    return called_plainly(pipeline, policy)


def called_plainly(pipeline: Any, policy: PipelinePolicy) -> Tensor:
    """Images of a pipeline's own call, from the latents of :func:`drawn`."""
    pipeline.set_progress_bar_config(disable=True)
    latents = torch.randn(3, *policy.latent_shape, generator=seeded(2))
    is_flux = type(pipeline).__name__ == "FluxPipeline"
    guidance = {} if is_flux else {"guidance_scale": 1.0}
    if is_flux:
        latents = pipeline._pack_latents(latents, *latents.shape)
    images: Tensor = pipeline(
        list(PROMPTS),
        height=SIZE,
        width=SIZE,
        latents=latents,
        num_inference_steps=STEPS,
        max_sequence_length=LENGTH,
        output_type="pt",
        **guidance,
    ).images
    return images


@pytest.mark.parametrize("form", [EVERYTHING, LoraForm(rank=2, dora=True), LoraForm(rank=2, text_encoder=True)])
@EACH
def test_plain_diffusers_draws_what_was_trained(kind: str, form: LoraForm, tmp_path: Path) -> None:
    policy = move(policy_of(kind, form), scale=0.2)
    policy.save(tmp_path)
    plain = drawn_plainly(kind, tmp_path, policy, text=form.text_encoder)
    with policy.reference():
        untrained = drawn(policy_of(kind))
    images = drawn(policy)
    torch.testing.assert_close(plain, images, rtol=0, atol=1e-5)
    assert (images - untrained).abs().max() > 0.01, "training must be seen"


@EACH
def test_every_layer_reaches_plain_diffusers_by_value(kind: str, tmp_path: Path) -> None:
    """Also the outputs of attention and the projections of text, which other trainers' loaders have dropped."""
    policy = move(policy_of(kind, EVERYTHING), scale=0.2)
    policy.save(tmp_path)
    pipeline = flow_pipeline(kind)
    pipeline.load_lora_weights(tmp_path)
    layers = dict(adapted_layers(pipeline.transformer))
    names = {name.rpartition("attn.")[2] for name in layers}
    assert {"to_out.0", "to_add_out", "add_q_proj", "add_k_proj", "add_v_proj"} <= names
    own: Any
    for name, own in adapted_layers(policy.network):
        theirs: Any = layers.pop(name)
        (adapter,) = theirs.lora_A
        for factor in ("lora_A", "lora_B"):
            trained, loaded = getattr(own, factor)["default"].weight, getattr(theirs, factor)[adapter].weight
            assert trained.abs().max() > 0
            assert torch.equal(trained, loaded)
        assert own.scaling["default"] == theirs.scaling[adapter] == 2.5
    assert not layers


def test_groups_of_layers() -> None:
    counts = {
        (kind, group): sum(1 for _ in adapted_layers(policy_of(kind, LoraForm(rank=2, targets=(group,))).network))
        for kind in KINDS
        for group in ("attention", "mlp", "all")
    }
    # SD3.5: two blocks, the second attention of the first, no outputs of text in the last. FLUX: a block of each kind.
    assert counts["sd35", "attention"] == 8 + 4 + 7
    assert counts["sd35", "mlp"] == 4 + 2
    assert counts["flux-dev", "attention"] == 8 + 3
    assert counts["flux-dev", "mlp"] == 4 + 2
    for kind in KINDS:
        assert counts[kind, "all"] == counts[kind, "attention"] + counts[kind, "mlp"]
        with pytest.raises(ConfigError, match="convolution"):
            policy_of(kind, LoraForm(targets=("convolution",)))


@EACH
def test_a_lora_is_continued_and_is_then_the_reference(kind: str, tmp_path: Path) -> None:
    first = move(policy_of(kind), scale=0.2)
    first.save(tmp_path)
    pipeline = flow_pipeline(kind)
    add_initial(pipeline, ModelSettings(initial_lora=str(tmp_path / LORA_FILE)))
    again = policy_of(kind, LoraForm(), pipeline=pipeline)
    inputs = inputs_of(again)
    expected = first.predict(*inputs)
    assert torch.equal(again.predict(*inputs), expected)
    move(again, scale=0.2)
    assert torch.equal(on_reference(again, *inputs), expected)
    assert not torch.allclose(again.predict(*inputs), expected, atol=1e-3)


def kohya_file(path: Path) -> Path:
    """As sd-scripts writes them for FLUX.1: queries, keys and values in one layer."""
    shapes = {
        "double_blocks_0_img_attn_qkv": (48, 16),
        "double_blocks_0_txt_attn_qkv": (48, 16),
        "double_blocks_0_img_attn_proj": (16, 16),
        "double_blocks_0_txt_attn_proj": (16, 16),
        "double_blocks_0_img_mlp_0": (64, 16),
        "single_blocks_0_linear2": (16, 16 + 64),  # diffusers splits linear1 at the sizes of the published model alone
    }
    generator, tensors = seeded(7), dict[str, Tensor]()
    for name, (rows, columns) in shapes.items():
        tensors[f"lora_unet_{name}.lora_down.weight"] = 0.3 * torch.randn(4, columns, generator=generator)
        tensors[f"lora_unet_{name}.lora_up.weight"] = 0.3 * torch.randn(rows, 4, generator=generator)
        tensors[f"lora_unet_{name}.alpha"] = torch.tensor(2.0)
    save_file(tensors, path)
    return path


def test_a_lora_of_kohyas_scripts_is_continued(tmp_path: Path) -> None:
    file = kohya_file(tmp_path / "kohya.safetensors")
    plain = flow_pipeline("flux-dev")
    add_lora(plain, file)
    pipeline = flow_pipeline("flux-dev")
    add_initial(pipeline, ModelSettings(initial_lora=str(file)))
    policy = policy_of("flux-dev", LoraForm(), pipeline=pipeline)
    inputs = inputs_of(policy)
    start = policy.predict(*inputs)
    assert torch.equal(start, PipelinePolicy(plain, adapter="full", resolution=SIZE).predict(*inputs))
    assert not torch.allclose(start, policy_of("flux-dev").predict(*inputs), atol=1e-3)
    # Queries, keys and values share a factor in the file, but not here: each is trained alone.
    factors = list(policy.trainable_parameters().values())
    assert len({factor.untyped_storage().data_ptr() for factor in factors}) == len(factors)
    move(policy, scale=0.1)
    policy.save(tmp_path / "out")
    torch.testing.assert_close(drawn_plainly("flux-dev", tmp_path / "out", policy), drawn(policy), rtol=0, atol=1e-5)


def test_a_lora_of_another_family(tmp_path: Path) -> None:
    policy_of("sd35").save(tmp_path)
    with pytest.raises(DataError, match="cannot be added to the model"):
        add_lora(flow_pipeline("flux-dev"), tmp_path / LORA_FILE)


@EACH
def test_whole_networks_are_saved_and_read(kind: str, tmp_path: Path) -> None:
    policy = move(policy_of(kind, adapter="full"), scale=0.05)
    policy.save(tmp_path)
    again = policy_of(kind, adapter="full")
    again.load(tmp_path)
    inputs = inputs_of(policy)
    assert torch.equal(again.predict(*inputs), policy.predict(*inputs))
    assert torch.equal(on_reference(again, *inputs), on_reference(policy, *inputs))
    loaded = type(policy.network).from_pretrained(tmp_path)
    assert all(
        torch.equal(value, load_file(tmp_path / "diffusion_pytorch_model.safetensors")[name])
        for name, value in loaded.state_dict().items()
    )


def gradients(policy: PipelinePolicy) -> dict[str, Tensor]:
    policy.predict(*inputs_of(policy)).square().mean().backward()
    return {name: value.grad for name, value in policy.trainable_parameters().items() if value.grad is not None}


def all_trained(values: dict[str, Tensor]) -> bool:
    """Whether all gradients are there; nobody reads what text asks in the last block of SD3."""
    unread = "transformer_blocks.1.attn.add_q_proj"
    return all(value.abs().max() > 0 or unread in name for name, value in values.items())


@pytest.mark.parametrize("text", [False, True])
@EACH
def test_gradient_checkpointing_changes_no_gradient(kind: str, text: bool) -> None:
    form = LoraForm(rank=2, text_encoder=text)
    plain, saving = (
        gradients(move(policy_of(kind, form, gradient_checkpointing=checkpointing))) for checkpointing in (False, True)
    )
    assert len(plain) == len(policy_of(kind, form).trainable_parameters())
    assert all_trained(plain)
    for name, value in plain.items():
        torch.testing.assert_close(saving[name], value, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("precision", ["int8", "nf4"])
@EACH
def test_a_quantised_base_carries_a_lora(kind: str, precision: BasePrecision, tmp_path: Path) -> None:
    pipeline = flow_pipeline(kind)
    quantise(pipeline.transformer, precision, torch.float32)
    policy = policy_of(kind, pipeline=pipeline)
    inputs = inputs_of(policy)
    expected = policy_of(kind).predict(*inputs)
    error = (policy.predict(*inputs) - expected).norm() / expected.norm()
    assert 1e-5 < error < {"int8": 0.03, "nf4": 0.4}[precision]
    assert all_trained(gradients(move(policy)))
    policy.save(tmp_path)
    assert drawn_plainly(kind, tmp_path, policy).isfinite().all()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@EACH
def test_a_base_in_half_precision_carries_a_wide_lora(kind: str, precision: Precision, tmp_path: Path) -> None:
    """What is trained is float32, also where the base was read in half precision, and is loaded as it was saved."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    flow_pipeline(kind).to(dtype=half).save_pretrained(tmp_path / "base")
    policy = move(policy_of(kind, pipeline=load_pipeline(tmp_path / "base", half=half), mixed_precision=precision))
    assert {value.dtype for value in policy.trainable_parameters().values()} == {torch.float32}
    assert policy.predict(*inputs_of(policy)).isfinite().all()
    assert all_trained(gradients(policy))
    policy.save(tmp_path / "adapter")
    pipeline = load_pipeline(tmp_path / "base", half=half)
    add_lora(pipeline, tmp_path / "adapter" / LORA_FILE)
    loaded = {name: value for name, value in pipeline.transformer.named_parameters() if ".lora_" in name}
    for name, value in policy.trainable_parameters().items():
        assert torch.equal(loaded[name].float(), value), name


@EACH
def test_a_compiled_network_is_the_same_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced by torch.compile, but run as it is: a C++ compiler would take minutes."""
    torch.compiler.reset()
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))
    plain, compiled = policy_of(kind), policy_of(kind, compile_networks=True)
    torch.testing.assert_close(
        compiled.predict(*inputs_of(compiled)), plain.predict(*inputs_of(plain)), rtol=1e-5, atol=1e-6
    )


def test_text_encoders_that_no_loader_reads_are_left_out() -> None:
    for kind, parts in (("sd35", {"text_encoder", "text_encoder_2"}), ("flux-dev", {"text_encoder"})):
        names = policy_of(kind, LoraForm(rank=2, text_encoder=True)).trainable_parameters()
        assert {name.partition(".")[0] for name in names} == {"transformer", *parts}


def test_settings_of_a_run(tmp_path: Path) -> None:
    flow_pipeline("flux-dev").save_pretrained(tmp_path)
    settings = build_config(ModelSettings, {"model": str(tmp_path), "embedded_guidance": 2.0, "resolution": 16})
    assert settings.embedded_guidance == 2.0
