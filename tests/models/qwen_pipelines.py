"""Tiny untrained pipelines of Z-Image's and Qwen-Image's classes, seeded; their tokenizer reads the real templates."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer, Qwen3Config, Qwen3Model
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from tests.models.tiny import PROMPTS

START, END = "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
"""What Qwen3's published template makes of messages without tools."""

SYSTEM_TEXT = (
    "system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of "
    "the objects and background:\n"
)
"""Qwen-Image's instruction, which is 34 tokens with what stands around it, here as in the published tokenizer."""

SCHEDULERS: dict[str, dict[str, Any]] = {
    "z-image": {"shift": 6.0},
    "z-image-turbo": {"shift": 3.0},
    "qwen-image": {
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 0.9,
        "base_image_seq_len": 256,
        "max_image_seq_len": 8192,
        "shift_terminal": 0.02,
        "time_shift_type": "exponential",
    },
}
"""The published configurations, as far as they differ from the scheduler's defaults."""


@cache
def tokenizer() -> Any:
    """A byte-level BPE tokenizer of Qwen's class, for which the words of templates and prompts are a token each."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|endoftext|>", START, END],
        show_progress=False,
    )
    learner.train_from_iterator([SYSTEM_TEXT, "user\nassistant\n", *PROMPTS], trainer)
    learnt = json.loads(learner.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(pair) for pair in learnt["merges"]],
        extra_special_tokens=[START, END],
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
    )


def text_settings(layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": None,
        "eos_token_id": tokenizer().convert_tokens_to_ids(END),
        "pad_token_id": tokenizer().pad_token_id,
        "initializer_range": 0.3,  # their own would make all prompts alike in so small an encoder
    }


@cache
def _z_image_parts() -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        transformer = ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=4,
            n_kv_heads=4,
            cap_feat_dim=32,
            axes_dims=[4, 2, 2],
            axes_lens=[640, 32, 32],
        )
        torch.nn.init.normal_(transformer.x_pad_token)
        torch.nn.init.normal_(transformer.cap_pad_token)
        return {
            "transformer": transformer,
            "text_encoder": Qwen3Model(Qwen3Config(head_dim=8, **text_settings(layers=3))),
            "vae": AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                block_out_channels=(8, 16),
                latent_channels=4,
                norm_num_groups=4,
                sample_size=16,
                scaling_factor=0.3611,
                shift_factor=0.1159,
                use_quant_conv=False,
                use_post_quant_conv=False,
            ),
        }


@cache
def _qwen_image_parts() -> dict[str, Any]:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        transformer = QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(4, 6, 6),
        )
        return {
            "transformer": transformer,
            "text_encoder": Qwen2_5_VLForConditionalGeneration(
                Qwen2_5_VLConfig(text_config={**text_settings(layers=2), "rope_parameters": rope}, vision_config=vision)
            ),
            "vae": AutoencoderKLQwenImage(
                base_dim=8,
                z_dim=4,
                dim_mult=[1, 2],
                num_res_blocks=1,
                temperal_downsample=[False],
                latents_mean=[0.1, -0.2, 0.3, 0.0],
                latents_std=[0.5, 1.5, 1.0, 0.8],
            ),
        }


PIPELINES: dict[str, Any] = {
    "z-image": (ZImagePipeline, _z_image_parts),
    "z-image-turbo": (ZImagePipeline, _z_image_parts),
    "qwen-image": (QwenImagePipeline, _qwen_image_parts),
}


def pipeline_of(kind: str, **scheduler: Any) -> Any:
    """A pipeline whose parts are its own, with the scheduler that its published model comes with."""
    pipeline_class, parts = PIPELINES[kind]
    pipeline = pipeline_class(
        **{name: deepcopy(part) for name, part in parts().items()},
        tokenizer=tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(**{**SCHEDULERS[kind], **scheduler}),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


SIZE = (16, 24)
"""Height and width of the images of tests, in pixels."""

LONG = f"{PROMPTS[1]} beside {PROMPTS[2]} beside {PROMPTS[0]}"
"""A prompt of more tokens than the others."""


def call(
    pipeline: Any, prompts: list[str], latents: Tensor, *, scale: float, steps: int
) -> tuple[list[Tensor], Tensor]:
    """The latents (B, C, h, w) after each step of the pipeline's own call, and the images.

    Args:
        pipeline: of a kind in :data:`PIPELINES`.
        prompts: B.
        latents: to start from, (B, C, h, w).
        scale: of guidance, where 1 is none.
        steps: number of them.
    """
    height, width = (side * pipeline.vae_scale_factor for side in latents.shape[-2:])
    seen: list[Tensor] = []

    def record(_: Any, step: int, time: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(tensors["latents"].clone())
        return {}

    is_packed = isinstance(pipeline, QwenImagePipeline)
    if is_packed:
        guidance = {"true_cfg_scale": scale, "negative_prompt": None if scale == 1 else [""] * len(prompts)}
        latents = pipeline._pack_latents(latents, *latents.shape)
    else:
        guidance = {"guidance_scale": scale - 1}
    images = pipeline(
        list(prompts),
        height=height,
        width=width,
        latents=latents,
        num_inference_steps=steps,
        output_type="pt",
        callback_on_step_end=record,
        **guidance,
    ).images
    if is_packed:
        seen = [pipeline._unpack_latents(one, height, width, pipeline.vae_scale_factor).squeeze(2) for one in seen]
    return seen, images
