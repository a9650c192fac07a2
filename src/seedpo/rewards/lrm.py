"""LPO's latent reward models (LRM, arXiv 2502.01051), read as published: for Stable Diffusion 1.5, 2.1 and XL.

A published model is a folder::

    unet/ text_encoder/ [text_encoder_2/]   as diffusers and transformers save them; the decoder half is not read
    state_dict.pt                           {visual_projection: {weight}, text_projection: {weight}, logit_scale}

SDXL has no ``text_projection``: its second text encoder has its own. Tokenizers, and the autoencoder for finished
images, are those of the base model; where folders ``tokenizer``, ``tokenizer_2`` and ``vae`` lie beside the weights,
those are read. So is ``scheduler``, which says what noise the model knows. Models that seedpo trains have the same
layout, with ``state.safetensors`` in place of the pickle.

The authors' code trains Stable Diffusion 2.1 with the model for 1.5, whose latents are the same. ``lrm-sd15`` therefore
reads the latents of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from seedpo.errors import DataError
from seedpo.files import require_regular
from seedpo.models.families import encode_pixels
from seedpo.models.pipelines.stable_diffusion import diffusion_process
from seedpo.rewards.checkpoints import fill, located
from seedpo.rewards.clip import clip_tokenizer, read_configuration, transformers_tokens
from seedpo.rewards.latent_reward_model import LatentRewardModel, PromptReading, without_decoder
from seedpo.rewards.latent_scorer import LatentScorer, LatentSpace
from seedpo.rewards.networks import RewardNetwork, on_meta
from seedpo.weights import align, read_nested_weights, read_weights

REPOSITORY = "casiatao/LRM"
"""Of the published models on the hub."""

STATE_FILES = ("state.safetensors", "state_dict.pt")
"""Projections and scale: as seedpo writes them, and as published."""

_DECODER = ("up_blocks.*", "conv_norm_out.*", "conv_out.*")
"""Weights of a UNet that no feature comes from."""

_TEXT_MODELS = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}

NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
"""Stable Diffusion's, where a folder has no scheduler."""

_BROKEN = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError)
"""What diffusers and transformers raise on files that they cannot use."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A published model, as far as its files do not say.

    Attributes:
        folder: its folder in the repository, as a pattern.
        base: repository of the model that it was trained from.
        scaling_factor: of the base model's autoencoder.
        unet: configuration of its UNet, where it differs from the default of the class.
        texts: configuration of each text encoder, the same.
        width: D, of the space in which features are compared.
    """

    folder: str
    base: str
    scaling_factor: float = 0.18215
    unet: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, Mapping[str, Any]]
    width: int = 768


CLIP_L_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}

LAYOUTS = {
    "lrm-sd15": Layout(
        folder="lrm_sd15",
        base="stable-diffusion-v1-5/stable-diffusion-v1-5",
        unet={"sample_size": 64, "cross_attention_dim": 768},
        texts={"text_encoder": {**CLIP_L_TEXT, "hidden_act": "quick_gelu"}},
    ),
    "lrm-sd21": Layout(
        folder="lrm_sd2*1*",
        base="stabilityai/stable-diffusion-2-1-base",
        unet={
            "sample_size": 64,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
        texts={
            "text_encoder": {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 23,
                "num_attention_heads": 16,
                "hidden_act": "gelu",
            }
        },
    ),
    "lrm-sdxl": Layout(
        folder="lrm_sdxl",
        base="stabilityai/stable-diffusion-xl-base-1.0",
        scaling_factor=0.13025,
        unet={
            "sample_size": 128,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (320, 640, 1280),
            "transformer_layers_per_block": (1, 2, 10),
            "cross_attention_dim": 2048,
            "attention_head_dim": (5, 10, 20),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        texts={
            "text_encoder": {**CLIP_L_TEXT, "hidden_act": "quick_gelu"},
            "text_encoder_2": {
                "hidden_size": 1280,
                "intermediate_size": 5120,
                "num_hidden_layers": 32,
                "num_attention_heads": 20,
                "hidden_act": "gelu",
                "projection_dim": 1280,
            },
        },
        width=1280,
    ),
}
"""By the names of the rewards."""

_SD_AUTOENCODER = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}
"""Of all three base models; no cost of it depends on its scale."""


@cache
def lrm_sd15(place: str | None = None) -> LatentScorer:
    """The latent reward model for Stable Diffusion 1.5, loaded once per process; it reads the latents of 2.1, too.

    Args:
        place: folder with the files of the published model, or with its folder ``lrm_sd15``; a folder as seedpo writes
            it; or ``owner/name[@revision]`` on the hub with the published folder.

    Raises:
        DataError: if it cannot be loaded; the message names files or tensors.
    """
    return _load("lrm-sd15", place)


@cache
def lrm_sd21(place: str | None = None) -> LatentScorer:
    """The latent reward model for Stable Diffusion 2.1; see :func:`lrm_sd15`.

    Args:
        place: as there; within a repository, the first folder ``lrm_sd2*1*``.

    Raises:
        DataError: if it cannot be loaded; the message names files or tensors.
    """
    return _load("lrm-sd21", place)


@cache
def lrm_sdxl(place: str | None = None) -> LatentScorer:
    """The latent reward model for Stable Diffusion XL; see :func:`lrm_sd15`.

    Args:
        place: as there, with ``lrm_sdxl``.

    Raises:
        DataError: if it cannot be loaded; the message names files or tensors.
    """
    return _load("lrm-sdxl", place)


@lru_cache(maxsize=4)
def load_latent_scorer(folder: str | Path) -> LatentScorer:
    """A latent reward model from a folder that has its tokenizers, too; loaded once per process.

    Raises:
        DataError: if it cannot be loaded; the message names files or tensors.
    """
    return read_scorer(str(folder), Path(folder))


def _load(name: str, place: str | None) -> LatentScorer:
    layout = LAYOUTS[name]
    if place is not None and (Path(place) / "unet").is_dir():
        return read_scorer(name, Path(place), base=layout)
    files = [f"{layout.folder}/unet/config.json", f"{layout.folder}/unet/*.safetensors"]
    files += [f"{layout.folder}/{part}/{file}" for part in layout.texts for file in ("config.json", "*.safetensors")]
    files += [f"{layout.folder}/{STATE_FILES[1]}"]
    parts = ("vae", "scheduler", "tokenizer", "tokenizer_2")
    own = [f"{layout.folder}/{part}/*.{suffix}" for part in parts for suffix in ("json", "txt", "safetensors")]
    root = located(name, place, repository=REPOSITORY, files=files, optional=own)
    return read_scorer(name, sorted(root.glob(layout.folder))[0], base=layout)


def read_scorer(name: str, folder: Path, *, base: Layout | None = None, vae: Path | None = None) -> LatentScorer:
    """A latent reward model from its folder.

    Args:
        name: what the user named, for errors.
        folder: with ``unet`` and the other parts.
        base: where parts come from that lie elsewhere; ``None``: all but the autoencoder must be in the folder.
        vae: folder of the autoencoder; ``None``: ``vae`` in the folder.

    Raises:
        DataError: if it cannot be loaded; the message names files or tensors.
    """
    model, own = read_network(folder), _configuration(folder / "vae")
    scheduler = _configuration(folder / "scheduler")
    space = LatentSpace(
        channels=model.unet.config.in_channels,
        scaling_factor=own["scaling_factor"] if own else base.scaling_factor if base else 0.18215,
        alphas_cumprod=diffusion_process(DDIMScheduler.from_config(scheduler or NOISE)).alphas_cumprod,
    )
    parts = [part for part in _TEXT_MODELS if (folder / part).is_dir()]
    readers = [_tokenizer(name, folder, part.replace("text_encoder", "tokenizer"), base) for part in parts]
    return LatentScorer(
        model,
        lambda prompt: [
            transformers_tokens(tokenizer, prompt, tokenizer.model_max_length)["input_ids"] for tokenizer in readers
        ],
        space=space,
        autoencoder=lambda: _autoencoder(name, vae or folder / "vae", base),
    )


def read_network(folder: Path) -> LatentRewardModel:
    """The network of a folder, in float32.

    Raises:
        DataError: if it cannot be loaded; the message names files or tensors.
    """
    state, weights = _state(folder)
    texts = {part: _text_model(folder / part, kind) for part, kind in _TEXT_MODELS.items() if (folder / part).is_dir()}
    if "text_encoder" not in texts:
        raise DataError(f"{folder} lacks the folder text_encoder; copy it there")
    unet = _unet(folder / "unet")
    vae = _configuration(folder / "vae")
    with torch.device("meta"):  # no time is spent on random weights
        model = LatentRewardModel(
            unet,
            **texts,
            width=len(weights["visual_projection.weight"]),
            pixels_per_latent=8 if vae is None else 2 ** (len(vae["block_out_channels"]) - 1),
        )
    own = {key: value for key, value in model.state_dict().items() if not value.is_meta}
    fill(model, {**own, **weights}, origin=state)
    return model


def _state(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The file of projections and scale, and its tensors by dotted names."""
    file = next((folder / file for file in STATE_FILES if (folder / file).is_file()), folder / STATE_FILES[-1])
    weights = read_nested_weights(file)
    if "visual_projection.weight" not in weights:
        raise DataError(f"{file} lacks visual_projection.weight; is it the file of a latent reward model?")
    return file, weights


def _configuration(folder: Path) -> dict[str, Any] | None:
    """The configuration of a part, if it is there."""
    for file in ("config.json", "scheduler_config.json"):
        if (folder / file).is_file():
            return read_configuration(folder / file)
    return None


def _unet(folder: Path) -> Any:
    """The UNet of a folder, without its decoder half, in float32."""
    configuration = _configuration(folder)
    if configuration is None:
        raise DataError(f"{folder} has no config.json; copy it there")
    try:
        with torch.device("meta"):
            unet = without_decoder(UNet2DConditionModel.from_config(configuration))
    except _BROKEN as error:
        raise DataError(f"{folder / 'config.json'} is not that of a UNet ({error}); copy it again") from error
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not files:
        raise DataError(f"{folder} has no weights; copy diffusion_pytorch_model.safetensors there")
    weights = {key: value for file in files for key, value in read_weights(file).items()}
    fill(unet, weights, origin=folder, ignored=_DECODER)
    return unet.float()


def _text_model(folder: Path, kind: Any) -> Any:
    """A text encoder in float32, as transformers reads it."""
    try:
        require_regular(folder)
        model, report = kind.from_pretrained(folder, output_loading_info=True)
    except _BROKEN as error:
        raise DataError(f"{folder} cannot be loaded as a {kind.__name__}: {' '.join(str(error).split())}") from error
    if report["missing_keys"]:
        raise DataError(f"{folder} lacks weights, for example {min(report['missing_keys'])!r}; copy it again")
    return align(model.float())


def _tokenizer(name: str, folder: Path, part: str, base: Layout | None) -> CLIPTokenizer:
    if not (folder / part).is_dir() and base is not None:
        patterns = [f"{part}/*.json", f"{part}/*.txt"]
        folder = located(name, None, repository=base.base, files=patterns[:1], optional=patterns, kind="tokenizer of")
    return clip_tokenizer(name, folder / part, repository=None)


def _autoencoder(name: str, own: Path, base: Layout | None) -> Any:
    """The autoencoder of a folder, or else the base model's, in float32."""
    if not own.is_dir():
        if base is None:
            raise DataError(
                f"reward {name} scores latents, and finished images need the autoencoder of its base model; copy it to "
                f"{own}"
            )
        patterns = ["vae/config.json", "vae/*.safetensors"]
        own = located(name, None, repository=base.base, files=patterns, kind="autoencoder of", usage=str(own)) / "vae"
    try:
        require_regular(own)
        vae = AutoencoderKL.from_pretrained(own, use_safetensors=True)
    except _BROKEN as error:
        raise DataError(f"{own} cannot be loaded as an autoencoder: {' '.join(str(error).split())}") from error
    return align(vae.float().eval().requires_grad_(False))


def published_network(name: str, place: str | None = None) -> RewardNetwork:
    """A model without weights: with the configurations of a folder, or the published ones."""
    layout = LAYOUTS[name]
    folder = None if place is None else Path(place)
    if folder is not None and not (folder / "unet").is_dir():
        folder = next(iter(sorted(folder.glob(layout.folder))), None)
    return latent_network(folder, layout)


sd15_network, sd21_network, sdxl_network = (partial(published_network, name) for name in LAYOUTS)


def latent_network(folder: Path | None, layout: Layout) -> RewardNetwork:
    """A latent reward model without weights, with the autoencoder that finished images need.

    Args:
        folder: whose configurations are read; ``None``: the published ones.
        layout: configurations and width of a published model.
    """

    def given(part: str, default: Mapping[str, Any]) -> dict[str, Any]:
        own = None if folder is None else _configuration(folder / part)
        return dict(default if own is None else own)

    texts = {
        part: CLIPTextConfig(**given(part, layout.texts.get(part, {})))
        for part in _TEXT_MODELS
        if (part in layout.texts if folder is None else (folder / part).is_dir())
    }
    width = layout.width if folder is None else len(_state(folder)[1]["visual_projection.weight"])

    def build() -> nn.Module:
        parts = {part: _TEXT_MODELS[part](configuration) for part, configuration in texts.items()}
        for encoder in parts.values():
            encoder.set_attn_implementation("eager")  # with other attention, masks are looked at
        unet = UNet2DConditionModel.from_config(given("unet", layout.unet))
        vae = AutoencoderKL.from_config(given("vae", _SD_AUTOENCODER))
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        reward = LatentRewardModel(unet, **parts, width=width, pixels_per_latent=factor)
        return nn.ModuleDict({"reward": reward, "autoencoder": vae})

    network = on_meta(build)
    model, vae = network["reward"], network["autoencoder"]

    def images(count: int) -> Tensor:
        pixels = torch.empty(count, 3, model.image_size, model.image_size, device="meta", dtype=vae.dtype)
        return _scored(model, encode_pixels(vae, pixels)[0])

    return RewardNetwork(
        network=network,
        images=images,
        prompts=lambda count: model.read(*(_no_tokens(encoder, count) for encoder in model.text_encoders)),
        latents=lambda latents: _scored(model, latents),
    )


def _scored(model: LatentRewardModel, latents: Tensor) -> Tensor:
    """Features of latents on the device ``meta``, under prompts that are read already."""
    unet, count = model.unet.config, len(latents)
    length = model.text_encoder.config.max_position_embeddings
    pooled = None if model.text_encoder_2 is None else model.text_encoder_2.config.projection_dim
    asked = PromptReading(
        states=latents.new_empty(count, length, unet.cross_attention_dim, dtype=model.dtype),
        features=latents.new_empty(count, len(model.visual_projection.weight)),
        pooled=None if pooled is None else latents.new_empty(count, pooled, dtype=model.dtype),
    )
    return model.features(latents, torch.zeros(len(latents), device="meta"), asked, asked)


def _no_tokens(encoder: Any, count: int) -> Tensor:
    return torch.zeros(count, encoder.config.max_position_embeddings, dtype=torch.int64, device="meta")
