"""The keys that name a model and say how it is loaded and what of it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from seedpo.settings import NetworkSettings, Place, Scope


@dataclass(frozen=True, kw_only=True)
class LoraForm:
    """What a LoRA adapter looks like; the keys ``lora_*`` of :class:`ModelSettings`.

    Attributes:
        rank: of each pair of factors.
        alpha: the product of two factors is multiplied by ``alpha / rank``; ``None``: the rank, so by 1.
        targets: groups of layers that carry a pair; names in ``Family.adapter_layers``, or ``all``.
        dropout: share of the inputs of the factors that is left out in the passes that have a gradient.
        dora: whether each row's norm is a weight of its own (DoRA, arXiv 2402.09353).
        text_encoder: whether the text encoders carry pairs too, in their attention projections.
    """

    rank: int = 4
    alpha: float | None = None
    targets: tuple[str, ...] = ("attention",)
    dropout: float = 0.0
    dora: bool = False
    text_encoder: bool = False

    @property
    def words(self) -> str:
        """The form in a few words, for people."""
        parts = [
            f"rank {self.rank}",
            "" if self.alpha in (None, self.rank) else f"alpha {self.alpha:g}",
            "" if self.targets == ("attention",) else f"layers {', '.join(self.targets)}",
            "DoRA" if self.dora else "",
            f"dropout {self.dropout:g}" if self.dropout else "",
            "text encoders too" if self.text_encoder else "",
        ]
        return ", ".join(part for part in parts if part)


ATTENTION_OF_RANK_4 = LoraForm()
"""The form where nothing is set."""


LORA = Scope(fact="adapter", values=("lora",))


class ModelSettings(NetworkSettings):
    """A diffusion model, and what of it is trained."""

    model: Annotated[str, Place(names="models")] = "scenes"
    """Diffusion model of a known pipeline class (`seedpo list models`): a registered name, a folder with a diffusers
    pipeline, `owner/name[@revision]` on the hub, or, of Stable Diffusion 1, 2 and XL, a single-file `.safetensors`
    checkpoint."""
    vae: Annotated[str | None, Place()] = None
    """Another autoencoder: a folder or `owner/name[@revision]`, for SDXL for example `madebyollin/sdxl-vae-fp16-fix`,
    which may run in half precision; none: the model's own."""
    single_file_config: Annotated[str | None, Place()] = None
    """Folder (or hub id) of a diffusers pipeline with the architecture, tokenizers and noise schedule of a single-file
    checkpoint; none: diffusers' choice, fetched from the hub. Without a single-file checkpoint it does nothing."""
    resolution: int | None = Field(None, ge=8)
    """Height and width of images in pixels: a multiple of 8 for Stable Diffusion 1, 2 and XL, of 16 for most
    flow-matching models, of 32 for SANA; none: the model's own."""
    max_sequence_length: int | None = Field(None, ge=1, le=4096)
    """Tokens of the longest text encoder, for models that leave the choice (256 of Stable Diffusion 3, 512 of FLUX);
    fewer cost less; none: the model's usual."""
    embedded_guidance: float | None = Field(None, ge=1.0)
    """Guidance that a guidance-distilled model (FLUX.1-dev, FLUX.2-dev) takes as an input, in training and drawing
    alike; none: the model's usual, for example 3.5."""
    adapter: Literal["lora", "full"] = "lora"
    """`lora` trains an adapter, whose absence is the reference; `full` trains the network beside a frozen copy."""
    lora_rank: Annotated[int, LORA] = Field(4, ge=1)
    """Rank of the adapter, at most the width of the layers that carry it."""
    lora_alpha: Annotated[float | None, LORA] = Field(None, gt=0.0)
    """The adapter's product is multiplied by `lora_alpha / lora_rank`; None: alpha is the rank, so by 1."""
    lora_targets: Annotated[tuple[str, ...], LORA] = Field(("attention",), min_length=1)
    """Groups of layers that carry the adapter, of the denoising network: `attention`, `mlp` (feed-forward layers and,
    of a UNet, the projections around the transformer blocks), `convolution` (UNets alone), or `all`."""
    lora_dropout: Annotated[float, LORA] = Field(0.0, ge=0.0, lt=1.0)
    """Share of the inputs of the adapter that is set to 0 at random in the passes of the loss that have a gradient;
    roll-outs, evaluations and the reference are whole. 0: none. For methods on a fixed set of pairs."""
    lora_dora: Annotated[bool, LORA] = False
    """Whether the norm of each row of a layer is trained beside the adapter (DoRA, arXiv 2402.09353): more memory and
    time, a rank that counts for more."""
    lora_text_encoder: bool = False
    """Whether the attention projections of the text encoders carry the adapter as well, with the same rank, alpha,
    dropout and DoRA. Prompts are then embedded in every pass: slower, and `cache.prompts` has no effect."""
    initial_lora: Annotated[str | None, Place()] = None
    """LoRA that training continues: a file, a folder or `owner/name[@revision]`, in the layout of any trainer; the
    reference is the model with it. It says rank, alpha, layers and DoRA. None: a new one, which changes nothing."""
    base_precision: Literal["full", "int8", "nf4"] = "full"
    """Number format of the frozen linear layers of the denoising network under a LoRA: `int8` and `nf4` (4 bits) need
    bitsandbytes (`seedpo[quantised]`) and take a half and a quarter of bf16's memory; `full`: `mixed_precision`."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass: far less memory, about a third more time."""
    compile: bool = False
    """Whether `torch.compile` translates the network: minutes at the start, faster steps afterwards."""

    @property
    def lora(self) -> LoraForm:
        """What the adapter looks like."""
        return LoraForm(
            rank=self.lora_rank,
            alpha=self.lora_alpha,
            targets=self.lora_targets,
            dropout=self.lora_dropout,
            dora=self.lora_dora,
            text_encoder=self.lora_text_encoder,
        )

    @property
    def trained_words(self) -> str:
        """What is trained, in a few words, for people."""
        if self.adapter == "full":
            return "the whole network"
        start = self.initial_lora
        what = f"LoRA of {self.lora.words}" if start is None else f"LoRA continued from {Path(start).name}"
        return what if self.base_precision == "full" else f"{what}, base in {self.base_precision}"

    @model_validator(mode="after")
    def _what_needs_a_lora_has_one(self) -> Self:
        if self.initial_lora is not None and self.adapter == "full":
            raise ValueError("initial_lora needs adapter = lora: all weights have no adapter to continue")
        if self.base_precision != "full" and self.adapter == "full":
            raise ValueError(f"base_precision = {self.base_precision} needs adapter = lora, whose base is frozen")
        if self.lora_text_encoder and self.adapter == "full":
            raise ValueError("lora_text_encoder = true needs adapter = lora; adapter = full trains the network alone")
        if self.base_precision == "int8" and self.lora_dora:
            raise ValueError("lora_dora needs base_precision nf4 or full: peft cannot measure the norms of 8-bit rows")
        return self

    @model_validator(mode="after")
    def _dropout_has_a_place(self) -> Self:
        if self.lora_dropout and self.lora_dora:
            raise ValueError(
                "lora_dropout must be 0 with lora_dora: a row's norm is that of its whole weights; leave one out"
            )
        return self

    @property
    def weights_folder(self) -> str:
        """Where the trained weights lie in the run folder at the end."""
        return {"lora": "adapter", "full": "network"}[self.adapter]
