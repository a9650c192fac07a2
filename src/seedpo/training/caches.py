"""Caches of a run: which stores its configuration asks for, and what their content depends on."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from seedpo.core.draws import KeyedDraws
from seedpo.data.cache.digests import digest, settings_digest
from seedpo.data.cache.pairs import MEMORY, EncodedPairs
from seedpo.data.cache.reference import ReferenceScalars
from seedpo.data.cache.store import Store
from seedpo.data.cache.tensor_digests import network_digest, tensors_digest
from seedpo.documents import parse_json
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.families import tokenizer_of
from seedpo.models.policy import PipelinePolicy
from seedpo.protocols import Denoiser, PreferencePairs
from seedpo.rewards.named import CheckedReward, SummedReward
from seedpo.rewards.user_code import UserReward
from seedpo.training.settings import RewardRunConfig, RunConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Caches:
    """What a run reads instead of computing it.

    Attributes:
        policy: encodes what is not stored.
        latents: store of latents; `None` if it is empty or switched off.
        prompts: store of embedded prompts; `None` likewise.
        scalars: store of the reference's log-probabilities; `None` likewise.
        draws: time steps, noise and mirroring that the log-probabilities belong to; `None`: those of the run's seed.
        identity: digest of the settings on which latents and prompts depend; `None` without ``scalars``.
        spread: whether latents come with their standard deviations.
    """

    policy: Denoiser
    latents: Store | None = None
    prompts: Store | None = None
    scalars: Store | None = None
    draws: KeyedDraws | None = None
    identity: str | None = None
    spread: bool = False

    def encoder(self, pairs: PreferencePairs, *, memory: int = MEMORY) -> EncodedPairs:
        """A pair set as latents and embedded prompts; see :class:`seedpo.data.cache.pairs.EncodedPairs`."""
        return EncodedPairs(
            pairs,
            self.policy,
            latents=self.latents,
            prompts=self.prompts,
            identity=self.identity,
            memory=memory,
            spread=self.spread,
        )

    @property
    def reference(self) -> ReferenceScalars | None:
        """The reference's log-probabilities."""
        return None if self.scalars is None else ReferenceScalars(self.scalars)

    @property
    def stores(self) -> list[Store]:
        """All stores."""
        return [store for store in (self.latents, self.prompts, self.scalars) if store is not None]


def open_caches(config: RunConfig | RewardRunConfig, policy: PipelineDenoiser, *, with_empty: bool = False) -> Caches:
    """The caches that a configuration names; nothing is written.

    Hashes the weights that they depend on, which takes seconds for a large model.

    Args:
        config: of the run.
        policy: its model, before training.
        with_empty: whether stores without entries are part of them, so that they can be filled.

    Raises:
        CacheError: if the folder cannot be read.
    """
    cache = config.cache
    spread = isinstance(config, RunConfig) and config.fidelity.sampled_latents
    if cache.folder is None:
        return Caches(policy=policy, spread=spread)
    root = Path(cache.folder).expanduser()
    images, prompts = image_settings(policy), prompt_settings(policy, config)
    images |= {"spread": True} if spread else {}
    settings = {"latents": images} if cache.latents else {}
    if cache.prompts and isinstance(policy, PipelinePolicy) and policy.trains_text:
        logger.info("cache.prompts has no effect, because lora_text_encoder = true changes embedded prompts")
    elif cache.prompts:
        settings["prompts"] = prompts
    if cache.reference and isinstance(config, RunConfig) and isinstance(policy, PipelinePolicy):
        settings["reference"] = reference_settings(policy, config)
    stores = {kind: Store(root, kind, values) for kind, values in settings.items()}
    counts = ", ".join(f"{len(store)} {kind}" for kind, store in stores.items())
    complete = with_empty or all(map(len, stores.values()))
    live = "" if complete else "; what is missing is computed live: see `seedpo cache build`"
    logger.info("cache %s: %s for this model and these settings%s", root, counts or "nothing", live)
    filled = {kind: store for kind, store in stores.items() if with_empty or len(store)}
    return Caches(
        policy=policy,
        latents=filled.get("latents"),
        prompts=filled.get("prompts"),
        scalars=filled.get("reference"),
        draws=KeyedDraws(seed=cache.draws_seed, visits=cache.visits) if cache.reference else None,
        identity=settings_digest({"images": images, "prompts": prompts}) if "reference" in filled else None,
        spread=spread,
    )


def image_settings(policy: PipelineDenoiser) -> dict[str, Any]:
    """What latents depend on besides the pair."""
    vae = policy.pipeline.vae
    return {
        "vae": network_digest(vae),
        "vae_config": _plain(vae.config),
        "latent_shape": list(policy.latent_shape),
    }


def prompt_settings(policy: PipelineDenoiser, config: RunConfig | RewardRunConfig) -> dict[str, Any]:
    """What embedded prompts depend on besides the text."""
    pipeline = policy.pipeline
    encoders = {}
    for name in policy.family.text_parts:
        encoder = getattr(pipeline, name)
        if encoder is None:
            continue
        encoders[name] = {
            "weights": network_digest(encoder),
            "config": _plain(encoder.config.to_diff_dict()),
            "tokenizer": _tokenizer_digest(getattr(pipeline, tokenizer_of(name))),
        }
    return {
        "pipeline": type(pipeline).__name__,
        "encoders": encoders,
        "zeros_for_empty": bool(pipeline.config.get("force_zeros_for_empty_prompt", False)),
        "mixed_precision": config.mixed_precision,
        # An embedded prompt of SDXL holds the model's image size until that of the pair takes its place.
        "latent_shape": list(policy.latent_shape),
        **{
            key: value
            for key, value in (("length", policy.prompt_form.length), ("guidance", policy.prompt_form.guidance))
            if value is not None
        },
    }


def reference_settings(policy: PipelinePolicy, config: RunConfig) -> dict[str, Any]:
    """What the reference's log-probabilities depend on besides pair, time step and noise."""
    unet: Any = policy.network if policy.adapter.frozen is None else policy.adapter.frozen
    added = policy.adapter.reference_weights()
    return {
        **({"adapter": tensors_digest(added, policy.adapter.form.encode()).hex()} if added else {}),
        "unet": network_digest(unet),
        "unet_config": _plain(unet.config),
        "process": policy.process.digest(),
        "reduction": config.reduction,
        "mixed_precision": config.mixed_precision,
    }


def reward_digests(reward: CheckedReward) -> list[str]:
    """What a reward's scores depend on besides its name and settings: SHA-256 of its networks, or of your own code."""
    scorer: Any = reward.reward
    if isinstance(scorer, SummedReward):
        return [value for part, _ in scorer.parts for value in reward_digests(part)]
    if isinstance(scorer, UserReward):
        return [digest(Path(scorer.file).read_bytes()).hex()]
    return [network_digest(value) for value in getattr(scorer, "__dict__", {}).values() if isinstance(value, nn.Module)]


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A network's configuration without what names its file or the library that wrote it."""
    leave_out = {"transformers_version", "dtype", "torch_dtype"}
    relevant = {key: value for key, value in config.items() if not key.startswith("_") and key not in leave_out}
    plain: dict[str, Any] = parse_json(json.dumps(relevant, default=str))
    return plain


def _tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 of what turns text into ids."""
    rules = parse_json(tokenizer.backend_tokenizer.to_str())
    # These two are left behind by whoever called the tokenizer last.
    content = {key: value for key, value in rules.items() if key not in ("truncation", "padding")}
    content["model_max_length"] = tokenizer.model_max_length
    return digest(json.dumps(content, sort_keys=True).encode()).hex()
