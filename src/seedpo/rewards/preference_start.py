"""From a CLIP in a folder or on the hub to the preference model that training starts with."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPModel, CLIPTokenizer

from seedpo.errors import ConfigError, DataError
from seedpo.rewards.clip_tokens import TOKENIZER_FILES, has_tokenizer
from seedpo.rewards.preference_model import PreferenceModel
from seedpo.rewards.step_aware_clip import StepAwareCLIP
from seedpo.weights import align

_TOKENIZER_PARTS = ("*token*.json", "vocab.json", "merges.txt")
_PARTS = ("config.json", "model*.safetensors*", *_TOKENIZER_PARTS)


def load_start(place: str | Path, *, step_aware: bool, tokenizer: str | None = None, seed: int = 0) -> PreferenceModel:
    """A preference model that says what the CLIP says until it is trained.

    A step-aware one is made from a plain CLIP by modulations that are the identity at first; the two layers that embed
    the time step are drawn from a normal distribution of standard deviation 0.02, as in SPO's code.

    Args:
        place: folder, or ``owner/name`` on the hub, of a CLIP in transformers' format.
        step_aware: whether the model is to know the time step.
        tokenizer: folder or hub id of the tokenizer, if it is elsewhere.
        seed: seed of the layers that are new.

    Raises:
        ConfigError: if the CLIP is step-aware and a plain model is asked for.
        DataError: if there is no CLIP, or no tokenizer.
    """
    folder = _local(str(place), _PARTS)
    words = folder if tokenizer is None else _local(tokenizer, _TOKENIZER_PARTS)
    if not has_tokenizer(words):
        raise DataError(
            f"{words} has no tokenizer: none of {', '.join(TOKENIZER_FILES)}; set tokenizer to a folder or hub id, "
            "for example laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
        )
    knows_time = StepAwareCLIP.__name__ in _architectures(folder / "config.json")
    if knows_time and not step_aware:
        raise ConfigError(
            f"start = {place} is step-aware, but model = none trains a plain preference model; name the plain CLIP "
            "that it was made from, or a diffusion model"
        )
    try:
        kind = StepAwareCLIP if knows_time else CLIPModel
        clip, report = kind.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
        tokens = CLIPTokenizer.from_pretrained(words)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"start = {place} cannot be loaded as a CLIP: {said}") from error
    if report["missing_keys"]:
        raise DataError(f"start = {place} lacks weights, for example {min(report['missing_keys'])!r}; copy it again")
    clip = align(clip.float())
    return PreferenceModel(made_step_aware(clip, seed=seed) if step_aware and not knows_time else clip, tokens)


def made_step_aware(clip: CLIPModel, *, seed: int) -> StepAwareCLIP:
    """A step-aware CLIP that gives a plain one's embeddings at every time step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: StepAwareCLIP = StepAwareCLIP(clip.config).float()  # the configuration may say float16
        for layer in model.t_embedder.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
    missing, _ = model.load_state_dict(clip.state_dict(), strict=False)
    if left := [name for name in missing if "t_embedder" not in name and "adaLN_modulation" not in name]:
        raise DataError(f"the CLIP to start from lacks weights, for example {min(left)!r}; copy it again")
    model.reset_modulation()
    return model


def _local(name: str, parts: tuple[str, ...]) -> Path:
    """The folder itself, or a copy of the files of a place on the hub."""
    folder = Path(name)
    if folder.is_dir():
        if parts is _PARTS and not (folder / "config.json").is_file():
            raise DataError(f"start = {name} has no config.json; name the folder of a CLIP in transformers' format")
        return folder
    mend = "name a folder with a CLIP in transformers' format, owner/name on the hub, or one of `seedpo list starts`"
    if name.count("/") != 1 or folder.is_absolute() or name.startswith("."):
        raise DataError(f"start = {name} does not exist; {mend}")
    try:
        return Path(snapshot_download(name, allow_patterns=list(parts)))
    except (OSError, ValueError) as error:
        raise DataError(
            f"start = {name} does not exist as a folder, and the hub does not give it ({type(error).__name__}); {mend}"
        ) from error


def _architectures(config: Path) -> list[str]:
    try:
        found: list[str] = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{config} cannot be read as a CLIP's configuration ({error}); copy it again") from error
    return found
