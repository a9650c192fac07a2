"""Tiny untrained pipelines of the very classes of FLUX.2 (dev and klein) and SANA. Seeded; nothing is fetched.

Tokenizers are of the published classes, trained on a few sentences; the chat templates say what the published ones say
of a system and a user message.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cache, partial
from inspect import signature
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKLFlux2,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
)
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from seedpo.models.pipelines.parts import evenly
from tests.models.tiny import PROMPTS

KINDS = ("flux2", "klein", "sana")
"""That can be trained."""

QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
MISTRAL_TEMPLATE = (
    "<s>{% for message in messages %}"
    "{% if message['role'] == 'system' %}[SYSTEM_PROMPT]{{ message['content'][0]['text'] }}[/SYSTEM_PROMPT]"
    "{% else %}[INST]{{ message['content'][0]['text'] }}[/INST]{% endif %}{% endfor %}"
)
INSTRUCTION: list[str] = signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default


class TextProcessor(ProcessorMixin):  # type: ignore[misc]
    """A processor without images: that of the published model is a PixtralProcessor, which needs torchvision."""

    attributes = ("tokenizer",)
    tokenizer_class = "PreTrainedTokenizerFast"

    def __init__(self, tokenizer: Any = None, chat_template: str | None = None) -> None:
        super().__init__(tokenizer, chat_template=chat_template)


def trained_on_sentences(tokenizer: Any) -> Any:
    """A tokenizer of the same class whose tokens are those of our sentences."""
    sentences = [*PROMPTS, SYSTEM_MESSAGE, "\n".join(INSTRUCTION), "user\n assistant\n system\n"]
    return tokenizer.train_new_from_iterator(sentences, vocab_size=600, show_progress=False)


def qwen_tokenizer() -> Any:
    tokenizer = trained_on_sentences(Qwen2Tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]})
    tokenizer.chat_template = QWEN_TEMPLATE
    return tokenizer


def mistral_processor() -> TextProcessor:
    """Pads on the left, as the published one does."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained_on_sentences(Qwen2Tokenizer()).backend_tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        additional_special_tokens=["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"],
    )
    return TextProcessor(tokenizer, MISTRAL_TEMPLATE)


def gemma_tokenizer() -> Any:
    """Begins each text with a token of its own, as the published one does."""
    tokenizer = trained_on_sentences(GemmaTokenizer())
    begin = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.bos_token_id)]
    )
    return tokenizer


def text_sizes(tokenizer: Any, layers: int) -> dict[str, Any]:
    """Configuration of a text model; with usual initial weights all prompts would be alike in so small a model."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "initializer_range": 0.3,
        "pad_token_id": tokenizer.pad_token_id,
    }


def mistral(tokenizer: Any) -> Any:
    vision = PixtralVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = MistralConfig(**text_sizes(tokenizer, 31))
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision))


def flux_autoencoder() -> AutoencoderKLFlux2:
    """Its batch norm has statistics that are not those of a new one."""
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    return vae


def flux_transformer(*, embedded_guidance: bool) -> Flux2Transformer2DModel:
    """With usual initial weights a prompt would hardly move its images."""
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * 16,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=embedded_guidance,
    )
    for weight in transformer.parameters():
        weight.data.mul_(2.0)
    return transformer


def _flux2() -> dict[str, Any]:
    processor = mistral_processor()
    return {
        "tokenizer": processor,
        "text_encoder": mistral(processor.tokenizer),
        "vae": flux_autoencoder(),
        "transformer": flux_transformer(embedded_guidance=True),
    }


def _klein() -> dict[str, Any]:
    tokenizer = qwen_tokenizer()
    return {
        "tokenizer": tokenizer,
        "text_encoder": Qwen3ForCausalLM(Qwen3Config(**text_sizes(tokenizer, 28))),
        "vae": flux_autoencoder(),
        "transformer": flux_transformer(embedded_guidance=False),
    }


def _sana() -> dict[str, Any]:
    tokenizer = gemma_tokenizer()
    return {
        "tokenizer": tokenizer,
        "text_encoder": Gemma2Model(Gemma2Config(**text_sizes(tokenizer, 2), query_pre_attn_scalar=8)),
        "vae": AutoencoderDC(
            latent_channels=4,
            attention_head_dim=8,
            encoder_block_types=("ResBlock", "ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "ResBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(4, 8, 16),
            decoder_block_out_channels=(4, 8, 16),
            encoder_layers_per_block=(1, 1, 1),
            decoder_layers_per_block=(1, 1, 1),
            encoder_qkv_multiscales=((), (), (5,)),
            decoder_qkv_multiscales=((), (), (5,)),
            scaling_factor=0.41407,
        ),
        "transformer": SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=16,
            sample_size=8,
            timestep_scale=0.5,
        ),
    }


PARTS = {"flux2": _flux2, "klein": _klein, "klein-distilled": _klein, "sana": _sana}
CLASSES = {
    "flux2": Flux2Pipeline,
    "klein": Flux2KleinPipeline,
    "klein-distilled": partial(Flux2KleinPipeline, is_distilled=True),
    "sana": SanaPipeline,
}


@cache
def _parts(kind: str) -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return PARTS[kind]()


FLUX_SCHEDULER = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
SANA_SCHEDULER = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
"""Of the published schedulers."""


def language_pipeline(kind: str) -> Any:
    """A pipeline whose parts are its own, with the scheduler that its published model comes with."""
    parts = {name: part if name == "tokenizer" else deepcopy(part) for name, part in _parts(kind).items()}
    scheduler = (
        DPMSolverMultistepScheduler(**SANA_SCHEDULER)
        if kind == "sana"
        else FlowMatchEulerDiscreteScheduler(**FLUX_SCHEDULER)
    )
    pipeline = CLASSES[kind](**parts, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn_by_pipeline(
    pipeline: Any, prompts: Sequence[str], noise: Tensor, *, steps: int, guidance_scale: float, length: int
) -> tuple[Tensor, Tensor]:
    """What the pipeline's own call draws with Euler's steps.

    Args:
        pipeline: of one of the kinds.
        prompts: B of them.
        noise: first latents, (B, C, h, w).
        steps: of denoising.
        guidance_scale: as the pipeline counts it, embedded or not.
        length: tokens of a text.

    Returns:
        Latents from the noise to the clean ones, (B, steps + 1, C, h, w), and images in [0, 1].
    """
    seen = [noise]
    is_sana = isinstance(pipeline, SanaPipeline)
    factor = pipeline.vae_scale_factor * (1 if is_sana else 2)

    def see(_: Any, step: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        latents = tensors["latents"]
        seen.append(latents if is_sana else latents.transpose(1, 2).reshape(noise.shape))
        return tensors

    own = pipeline.scheduler
    if is_sana and own.config.get("use_flow_sigmas"):
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=own.config.flow_shift)
        options: dict[str, Any] = {"sigmas": evenly(steps)}
    else:
        options = {}
    images = pipeline(
        prompt=list(prompts),
        height=noise.shape[2] * factor,
        width=noise.shape[3] * factor,
        latents=noise,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        max_sequence_length=length,
        output_type="pt",
        callback_on_step_end=see,
        **({"use_resolution_binning": False} if is_sana else {}),
        **options,
    ).images
    pipeline.scheduler = own
    return torch.stack(seen, 1), images
