"""Pipelines in the layout of single-file checkpoints: the inverse of what diffusers does when it reads one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_NAMES = {
    "conv_shortcut": "nin_shortcut",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "conv_norm_out": "norm_out",
    "resnets": "block",
}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def unet_tensors(unet: Any) -> dict[str, Tensor]:
    per_block = unet.config.layers_per_block + 1
    named = {}
    for name, value in unet.state_dict().items():
        for new, old in UNET_ENDS.items():
            if name.startswith(f"{new}."):
                name = name.replace(new, old, 1)
        for new, old in UNET_RESNET.items():
            name = re.sub(rf"(resnets\.\d+)\.{new}\.", rf"\1.{old}.", name)
        name = name.replace("mid_block.resnets.0", "middle_block.0").replace("mid_block.attentions.0", "middle_block.1")
        name = name.replace("mid_block.resnets.1", "middle_block.2")
        if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|\w+samplers)\.(\d+)\.(.*)", name):
            way, block, part, layer, rest = match.groups()
            at = int(block) * per_block + int(layer)
            if way == "down":
                place = f"input_blocks.{int(block) * per_block + per_block}.0.op" if "sampl" in part else None
                place = place or f"input_blocks.{at + 1}.{int(part == 'attentions')}"
            else:
                last = 1 + hasattr(unet.up_blocks[int(block)], "attentions")
                place = (
                    f"output_blocks.{int(block) * per_block + per_block - 1}.{last}.conv" if "sampl" in part else None
                )
                place = place or f"output_blocks.{at}.{int(part == 'attentions')}"
            name = f"{place}.{rest.removeprefix('conv.') if 'sampl' in part else rest}"
        named[f"model.diffusion_model.{name}"] = value
    return named


def vae_tensors(vae: Any) -> dict[str, Tensor]:
    count = len(vae.config.up_block_types)
    named = {}
    for name, value in vae.state_dict().items():
        if re.search(r"to_(q|k|v|out\.0)\.weight", name):
            value = value[:, :, None, None]
        name = re.sub(r"up_blocks\.(\d+)", lambda match: f"up.{count - 1 - int(match[1])}", name)
        name = re.sub(r"down_blocks\.(\d+)", r"down.\1", name)
        for new, old in VAE_NAMES.items():
            name = re.sub(rf"(?<=\.){new}(?=\.)", old, name)
        named[f"first_stage_model.{name}"] = value
    return named


def clip_tensors(encoder: Any, prefix: str) -> dict[str, Tensor]:
    return {
        f"{prefix}text_model.{name.removeprefix('text_model.')}": value for name, value in encoder.state_dict().items()
    }


def open_clip_tensors(encoder: Any, prefix: str) -> dict[str, Tensor]:
    state = {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}
    named = {
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
    }
    if "text_projection.weight" in state:
        named["text_projection"] = state["text_projection.weight"].T
    for layer in range(encoder.config.num_hidden_layers):
        here, there = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            parts = [state[f"{here}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            named[f"{there}.attn.in_proj_{kind}"] = torch.cat(parts)
            for new, old in OPEN_CLIP.items():
                named[f"{there}.{old}.{kind}"] = state[f"{here}.{new}.{kind}"]
    return {prefix + name: value for name, value in named.items()}


def save_single_file(pipeline: Any, path: Path) -> None:
    tensors = unet_tensors(pipeline.unet) | vae_tensors(pipeline.vae)
    if hasattr(pipeline, "text_encoder_2"):
        tensors |= clip_tensors(pipeline.text_encoder, "conditioner.embedders.0.transformer.")
        tensors |= open_clip_tensors(pipeline.text_encoder_2, "conditioner.embedders.1.model.")
    elif pipeline.text_encoder.config.hidden_act == "gelu":
        tensors |= open_clip_tensors(pipeline.text_encoder, "cond_stage_model.model.")
    else:
        tensors |= clip_tensors(pipeline.text_encoder, "cond_stage_model.transformer.")
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)
