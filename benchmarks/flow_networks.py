"""A pipeline of Stable Diffusion 3's classes, small enough for a CPU, with costs in the proportions of the real one."""

from __future__ import annotations

import string
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from tools.scenes.components import build_tokenizer

HEAD = 64
"""Width of an attention head, as published."""


@dataclass(frozen=True, kw_only=True)
class FlowShape:
    """Sizes of the small networks.

    Those of Stable Diffusion 3.5 medium at 512 px, with every width, depth and number of tokens divided by four. The
    autoencoder has an eighth of the channels. In forwards of the transformer, an image in the encoder costs 0.49
    (published: 0.46), a prompt in the text encoders 1.05 (1.03), and a step of LoRA training 2.10 (2.13).

    Attributes:
        latents: height and width of latents; images are 8 times as large.
        heads: attention heads of the transformer.
        layers: blocks of the transformer; the first half has the second attention.
        clips: heads and layers of both CLIP text encoders.
        t5: heads and layers of the T5 encoder.
        clip_tokens: length of a prompt for both CLIPs.
        t5_tokens: length of a prompt for T5.
        autoencoder: channels of the autoencoder's four levels.
    """

    latents: int = 32
    heads: int = 6
    layers: int = 6
    clips: tuple[tuple[int, int], tuple[int, int]] = ((3, 3), (5, 8))
    t5: tuple[int, int] = (16, 6)
    clip_tokens: int = 20
    t5_tokens: int = 64
    autoencoder: tuple[int, ...] = (16, 32, 64, 64)


FLOW_SMALL = FlowShape()
FLOW_TINY = FlowShape(
    latents=8, heads=1, layers=2, clips=((1, 1), (1, 2)), t5=(2, 1), t5_tokens=48, autoencoder=(8, 8, 8, 8)
)
"""For trying the benchmark itself."""


def small_flow_pipeline(shape: FlowShape, *, seed: int = 0) -> StableDiffusion3Pipeline:
    """Seeded random weights in the classes of Stable Diffusion 3.5 medium."""
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip, t5 = build_tokenizer(Path(folder)), _t5_tokenizer()
        clip.model_max_length = shape.clip_tokens
        pipeline = StableDiffusion3Pipeline(
            transformer=_transformer(shape),
            vae=_autoencoder(shape),
            text_encoder=_clip(clip, *shape.clips[0]),
            tokenizer=clip,
            text_encoder_2=_clip(clip, *shape.clips[1]),
            tokenizer_2=clip,
            text_encoder_3=_t5(t5, *shape.t5),
            tokenizer_3=t5,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _transformer(shape: FlowShape) -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=shape.latents,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=shape.layers,
        attention_head_dim=HEAD,
        num_attention_heads=shape.heads,
        caption_projection_dim=HEAD * shape.heads,
        joint_attention_dim=HEAD * shape.t5[0],
        pooled_projection_dim=HEAD * sum(heads for heads, _ in shape.clips),
        pos_embed_max_size=3 * shape.latents,
        dual_attention_layers=tuple(range(shape.layers // 2)),
        qk_norm="rms_norm",
    )


def _autoencoder(shape: FlowShape) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=shape.autoencoder,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=16,
        norm_num_groups=8,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _clip(tokenizer: CLIPTokenizer, heads: int, layers: int) -> CLIPTextModelWithProjection:
    width = HEAD * heads
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _t5_tokenizer() -> Any:
    """Letters and spaces: the cost depends on the padded length alone."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *string.ascii_lowercase]
    return T5TokenizerFast([(piece, -float(rank)) for rank, piece in enumerate(pieces)], extra_ids=0)


def _t5(tokenizer: Any, heads: int, layers: int) -> T5EncoderModel:
    width = HEAD * heads
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=HEAD,
            d_ff=5 * width // 2,
            num_layers=layers,
            num_heads=heads,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
        )
    )
