"""DiNa-LRM written down a second time, in plain torch on the published tensors, in float64.

After ``sd3_rm.py``, ``reward_head.py`` and ``inference.py`` of the authors' repository, and the paper of Stable
Diffusion 3. Of diffusers and transformers only the classes that write a checkpoint, the tokenizers, and the T5 are
used; peft writes the LoRA. It is not merged here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, layer_norm, pad, silu
from transformers import CLIPTokenizer, T5EncoderModel

from tests.models.flow_pipelines import flow_pipeline, sd3_transformer
from tests.rewards.plain_lrm import affine, clip_text, heads_of, mlp, softmax_attention, waves

SIZE, CHANNELS, HEADS, QUERIES, DEPTH, KEPT = 8, 4, 2, 3, 4, 2
"""Side and channels of latents; heads of all attentions; queries; blocks of the base model, and those that are read."""

RANK, ALPHA = 4, 6.0
DUAL = (0,)
"""Numbers of blocks with a second attention."""

READ = {"visual_head_idx": [0, 1, 2], "text_head_idx": [1, 2]}


def settings(base: str, **changes: Any) -> dict[str, Any]:
    """The configuration of a checkpoint, with the keys of the published one."""
    model = {
        "model_type": "thurstone",
        "backbone_model_id": base,
        "num_transformer_layers": KEPT,
        "freeze_backbone": False,
        "use_lora": True,
        "use_text_features": True,
        "lora_config": {"r": RANK, "lora_alpha": ALPHA, "init_lora_weights": "gaussian"},
        "use_logistic": False,
        "use_t_embed": True,
        **READ,
        "reward_head": {
            "use_proj_in": False,
            "width": -1,
            "out_dim": 1,
            "num_queries": QUERIES,
            "num_attn_heads": HEADS,
            "dropout": 0.0,
        },
    }
    return {"model": model | changes, "training": {"add_noise": True}}


def head_shapes(width: int, *, projected: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published head's tensors."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, into: int) -> None:
        shapes.update({f"{name}.weight": (out, into), f"{name}.bias": (out,)})

    for kind, blocks in (("visual", READ["visual_head_idx"]), ("text", READ["text_head_idx"])):
        for number in range(len(blocks)):
            at = f"layer_adapters_{kind}.{number}"
            shapes[f"{at}.layer_embed"] = (1, 1, width)
            if projected:
                linear(f"{at}.proj_in", width, width)
            linear(f"{at}.cond_mlp.0", 2 * width, width)
            linear(f"{at}.cond_mlp.2", 2 * width, 2 * width)
            linear(f"{at}.proj", width // 4, width)
        linear(f"agg_{kind}", width, len(blocks) * (width // 4))
    shapes["query_tokens"] = (1, QUERIES, width)
    for name, reads_text in (("attn1", True), ("attn2", False)):
        norms, layers = ["norm_q", "norm_v"], ["to_q", "to_k_vis", "to_v_vis", "to_out.0"]
        if reads_text:
            norms, layers = [*norms, "norm_t"], [*layers, "to_k_text", "to_v_text", "gate_vis.0", "gate_text.0"]
            linear(f"{name}.gate_vis.2", 1, width)
            linear(f"{name}.gate_text.2", 1, width)
        shapes.update({f"{name}.{norm}.weight": (width,) for norm in norms})
        for layer in layers:
            linear(f"{name}.{layer}", width, width)
    shapes["norm_ff.weight"] = (width,)
    linear("ff.0", 4 * width, width)
    linear("ff.2", width, 4 * width)
    linear("head", 1, width)
    return shapes


class _Backbone(nn.Module):
    """The parts that the authors give a LoRA, under their names."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.pos_embed, self.time_text_embed = transformer.pos_embed, transformer.time_text_embed
        self.context_embedder = transformer.context_embedder
        self.transformer_blocks = nn.ModuleList(transformer.transformer_blocks[:KEPT])


_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]


def publish(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A small random checkpoint in the published layout, with its base model in ``base``.

    Args:
        folder: to write it in.
        seed: of all weights.
        changes: keys of the part ``model`` of its configuration that differ.
    """
    pipeline = flow_pipeline("sd35")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = sd3_transformer(num_layers=DEPTH, dual_attention_layers=DUAL, qk_norm="rms_norm")
        for parameter in transformer.parameters():
            parameter.data += 0.15 * torch.randn_like(parameter)
        pipeline.transformer = transformer
        pipeline.save_pretrained(folder / "base")
        content = settings("nobody/nothing", **changes)
        (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
        if content["model"]["use_lora"]:
            lora = LoraConfig(
                r=RANK, lora_alpha=ALPHA, target_modules=_TARGETS, exclude_modules=None, init_lora_weights="gaussian"
            )
            adapted = get_peft_model(_Backbone(transformer), lora)
            for name, parameter in adapted.named_parameters():
                if ".lora_" in name:
                    parameter.data = 0.3 * torch.randn_like(parameter)
            adapted.save_pretrained(folder / "checkpoint" / "backbone_lora")
        (folder / "checkpoint").mkdir(exist_ok=True)
        projected = content["model"]["reward_head"]["use_proj_in"]
        shapes = head_shapes(transformer.inner_dim, projected=projected)
        head = {name: torch.randn(shape) / math.sqrt(shape[-1]) for name, shape in shapes.items()}
        torch.save(head, folder / "checkpoint" / "rm_head.pt")
    return folder


class Plain:
    """The computation on the tensors of a folder.

    Args:
        folder: of the model.
    """

    def __init__(self, folder: Path) -> None:
        base = folder / "base"
        self.w = _double(load_file(base / "transformer" / "diffusion_pytorch_model.safetensors"))
        lora = folder / "checkpoint" / "backbone_lora" / "adapter_model.safetensors"
        self.lora = _double(load_file(lora)) if lora.is_file() else {}
        self.head = _double(torch.load(folder / "checkpoint" / "rm_head.pt", weights_only=True))
        self.texts = [
            _double(load_file(base / part / "model.safetensors")) for part in ("text_encoder", "text_encoder_2")
        ]
        self.t5 = T5EncoderModel.from_pretrained(base / "text_encoder_3").double().eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
        self.t5_tokenizer = flow_pipeline("sd35").tokenizer_3

    def score(self, latents: Tensor, prompts: Sequence[str], sigma: Tensor) -> Tensor:
        """Scores (B,) float64 of noisy latents (B, 4, S, S) at levels (B,)."""
        text, pooled = self.text(prompts)
        time = mlp(self.w, "time_text_embed.timestep_embedder", waves(1000 * sigma.double(), 256))
        time = time + mlp(self.w, "time_text_embed.text_embedder", pooled)
        image, text = self.patches(latents.double()), affine(self.w, "context_embedder", text)
        images, texts = [image], [text]
        for number in range(KEPT):
            image, text = self.block(f"transformer_blocks.{number}", image, text, time, dual=number in DUAL)
            images.append(image)
            texts.append(text)
        seen = self.tokens("visual", [images[number] for number in READ["visual_head_idx"]], time)
        read = self.tokens("text", [texts[number] for number in READ["text_head_idx"]], time)
        return self.queries(seen, read)

    def text(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States (B, 77 + 256, 32), and the pooled embedding of both CLIPs."""
        options: dict[str, Any] = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        ids = self.tokenizer(list(prompts), max_length=self.tokenizer.model_max_length, **options).input_ids
        states, pooled = [], []
        for weights, quick in zip(self.texts, (True, False), strict=True):
            _, end, before = clip_text(weights, ids, quick=quick)
            states.append(before)
            pooled.append(end @ weights["text_projection.weight"].T)
        clip = torch.cat(states, -1)
        long = self.t5_tokenizer(list(prompts), max_length=256, **options).input_ids
        with torch.no_grad():
            t5 = self.t5(long)[0]
        return torch.cat([pad(clip, (0, t5.shape[-1] - clip.shape[-1])), t5], 1), torch.cat(pooled, -1)

    def patches(self, latents: Tensor) -> Tensor:
        """Tokens of 2 x 2 cells, and the middle of the table of positions."""
        w = self.w
        tokens = conv2d(latents, w["pos_embed.proj.weight"], w["pos_embed.proj.bias"], stride=2)
        most = math.isqrt(w["pos_embed.pos_embed"].shape[1])
        table = w["pos_embed.pos_embed"].view(most, most, -1)
        top, left = (most - tokens.shape[2]) // 2, (most - tokens.shape[3]) // 2
        places = table[top : top + tokens.shape[2], left : left + tokens.shape[3]]
        return tokens.flatten(2).transpose(1, 2) + places.flatten(0, 1)

    def layer(self, name: str, rows: Tensor) -> Tensor:
        """A linear layer and its LoRA, if it has one."""
        out, at = affine(self.w, name, rows), f"base_model.model.{name}.lora_"
        if f"{at}A.weight" in self.lora:
            out = out + ALPHA / RANK * (rows @ self.lora[f"{at}A.weight"].T @ self.lora[f"{at}B.weight"].T)
        return out

    def block(self, name: str, image: Tensor, text: Tensor, time: Tensor, *, dual: bool) -> tuple[Tensor, Tensor]:
        """A block of two streams."""
        own = affine(self.w, f"{name}.norm1.linear", silu(time))[:, None].chunk(9 if dual else 6, -1)
        other = affine(self.w, f"{name}.norm1_context.linear", silu(time))[:, None].chunk(6, -1)
        seen, read = _modulated(image, own[0], own[1]), _modulated(text, other[0], other[1])
        attended = self.joint(f"{name}.attn", seen, read)
        if dual:
            second = self.joint(f"{name}.attn2", _modulated(image, own[6], own[7]), None)[0]
            image = image + own[2] * attended[0] + own[8] * second
        else:
            image = image + own[2] * attended[0]
        text = text + other[2] * attended[1]
        image = image + own[5] * self.forward(f"{name}.ff", _modulated(image, own[3], own[4]))
        text = text + other[5] * self.forward(f"{name}.ff_context", _modulated(text, other[3], other[4]))
        return image, text

    def forward(self, name: str, rows: Tensor) -> Tensor:
        return affine(self.w, f"{name}.net.2", gelu(affine(self.w, f"{name}.net.0.proj", rows), approximate="tanh"))

    def joint(self, name: str, image: Tensor, text: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attention of all tokens to all, each stream with projections of its own."""
        query, key, value = (heads_of(self.layer(f"{name}.to_{part}", image), HEADS) for part in "qkv")
        query, key = (rms(part, self.w[f"{name}.norm_{kind}.weight"]) for part, kind in ((query, "q"), (key, "k")))
        count = image.shape[1]
        if text is not None:
            more = [heads_of(self.layer(f"{name}.add_{part}_proj", text), HEADS) for part in "qkv"]
            more[:2] = [rms(more[i], self.w[f"{name}.norm_added_{kind}.weight"]) for i, kind in enumerate("qk")]
            query, key, value = (torch.cat(both, 2) for both in zip((query, key, value), more, strict=True))
        mixed = softmax_attention(query, key, value)
        out = self.layer(f"{name}.to_out.0", mixed[:, :count])
        return out, out if text is None else self.layer(f"{name}.to_add_out", mixed[:, count:])

    def tokens(self, kind: str, states: Sequence[Tensor], time: Tensor) -> Tensor:
        """Tokens of several blocks side by side, each modulated."""
        parts = []
        for number, rows in enumerate(states):
            at = f"layer_adapters_{kind}.{number}"
            if f"{at}.proj_in.weight" in self.head:
                rows = affine(self.head, f"{at}.proj_in", rows)
            hidden = silu(affine(self.head, f"{at}.cond_mlp.0", time))
            gamma, beta = affine(self.head, f"{at}.cond_mlp.2", hidden)[:, None].chunk(2, -1)
            parts.append(affine(self.head, f"{at}.proj", rows * (1 + gamma) + beta + self.head[f"{at}.layer_embed"]))
        return affine(self.head, f"agg_{kind}", torch.cat(parts, -1))

    def queries(self, seen: Tensor, read: Tensor) -> Tensor:
        h = self.head
        rows = h["query_tokens"].expand(len(seen), -1, -1)
        eps = torch.finfo(torch.float32).eps  # of the number format in which the model computes
        for name, text in (("attn1", read), ("attn2", None)):
            query = affine(h, f"{name}.to_q", rms(rows, h[f"{name}.norm_q.weight"], eps))
            mixed = torch.zeros_like(query)
            for kind, norm, context in (("vis", "v", seen), ("text", "t", text)):
                if context is None:
                    continue
                context = rms(context, h[f"{name}.norm_{norm}.weight"], eps)
                value = affine(h, f"{name}.to_v_{kind}", context)
                if text is not None:
                    gate = affine(h, f"{name}.gate_{kind}.2", silu(affine(h, f"{name}.gate_{kind}.0", context)))
                    value = value * gate.sigmoid()
                parts = (query, affine(h, f"{name}.to_k_{kind}", context), value)
                mixed = mixed + softmax_attention(*(heads_of(part, HEADS) for part in parts))
            rows = rows + affine(h, f"{name}.to_out.0", mixed)
        rows = rows + affine(h, "ff.2", gelu(affine(h, "ff.0", rms(rows, h["norm_ff.weight"], eps))))
        return affine(h, "head", rows).mean((1, 2))


def _double(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("text_model."): value.double() for name, value in weights.items()}


def _modulated(rows: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return layer_norm(rows, rows.shape[-1:], eps=1e-6) * (1 + scale) + shift


def rms(rows: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    return rows * (rows.square().mean(-1, keepdim=True) + eps).rsqrt() * weight
