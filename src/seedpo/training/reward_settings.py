"""All keys of the training of a preference model."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from seedpo.data.settings import CacheConfig, PairsConfig
from seedpo.training.loop_settings import TrainingConfig


class RewardRunConfig(TrainingConfig):
    """One training run of a preference model: step-aware (SPO) with a diffusion model, plain (PickScore) without."""

    start: str = "scenes-clip"
    """CLIP to start from: a registered name, a folder, or `owner/name` on the hub, for example
    `yuvalkirstain/PickScore_v1`; a step-aware one is trained on."""
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer where `start` brings none; none: it lies beside the weights."""
    model: str | None = "scenes"
    """Diffusion model that predicts the previews which the preference model sees: a registered name, a folder, a
    `.safetensors` file, or `owner/name[@revision]`; none: a plain preference model of finished images is trained."""
    vae: str | None = None
    """Another autoencoder for `model`; none: its own."""
    single_file_config: str | None = None
    """Pipeline with the architecture of a single-file `model`; none: diffusers' choice."""
    resolution: int | None = Field(None, ge=8)
    """Height and width in pixels of the images of `model`; none: its own. `pairs.resolution` must give the same."""
    data: str = "scenes-scorer-pairs"
    """Labelled pairs: a registered name, a file, folder or glob of shards, or `hub:owner/name`; see docs/data.md."""
    held_out: str | None = None
    """Pairs on which the accuracy is measured, named like `data`; none: some prompts of `data` are kept out of the
    training, with all their pairs."""
    held_out_split: str | None = None
    """Split of `held_out`, where it has several; none: `pairs.split`."""
    held_out_share: float = Field(0.1, gt=0.0, lt=1.0)
    """Share of the prompts that is kept out where `held_out` is none; which ones, the prompts themselves decide."""
    held_out_limit: int | None = Field(None, ge=1)
    """Most pairs on which the accuracy is measured, the first ones of the set; none: all."""
    timesteps: tuple[int, ...] = Field((0, 251, 501, 701, 951), min_length=1)
    """Time steps at which the accuracy is measured, SPO's; 0: finished images. Without `model` it has no effect."""
    guidance_scale: float = Field(5.0, ge=1.0)
    """Classifier-free guidance of the previews; as when policies are sampled later on, 5 as published."""
    clean_share: float = Field(0.0, ge=0.0, le=1.0)
    """Share of the pairs, drawn anew at every visit, that are shown finished (time step 0) beside those that the
    uniform time steps give; 0 as published."""
    preview_batch_size: int = Field(32, ge=1)
    """Images whose previews are predicted at a time; it changes memory, not what is learnt."""
    in_batch_negatives: bool = False
    """Whether the other pairs of a batch serve as further images and prompts (an option of PickScore's code)."""
    relabel: str | None = None
    """Reward that labels the pairs anew, as published for SDXL; none: the labels of the data."""
    relabel_gap: float = Field(0.1, ge=0.0, lt=1.0)
    """With `relabel`: a pair is a tie unless its preference probabilities differ by more than this."""

    pairs: PairsConfig = PairsConfig()
    cache: CacheConfig = CacheConfig()

    @property
    def weights_folder(self) -> str:
        """Where the trained preference model lies in the run folder at the end."""
        return "model"

    @model_validator(mode="after")
    def _keys_that_make_sense_here(self) -> Self:
        if self.cache.reference or self.cache.visits is not None:
            raise ValueError("cache.reference is of Diffusion-DPO: here is no reference; leave it out")
        if self.pairs.empty_prompts:
            raise ValueError("pairs.empty_prompts must be 0: a preference model is to read the prompt")
        if min(self.timesteps) < 0 or len(set(self.timesteps)) < len(self.timesteps):
            raise ValueError("timesteps must be 0 or more, each once")
        return self


SCENES: dict[str, Any] = {
    "held_out": "scenes-held-out-pairs",
    "guidance_scale": 3.0,
    "clean_share": 0.25,
    "max_steps": 900,
    "batch_size": 32,
    "learning_rate": 5e-4,
    "checkpoint_every": 300,
    "optimizer": {"schedule": "cosine", "warmup_steps": 45, "beta2": 0.98, "weight_decay": 1e-2},
}
"""Settings that make the embedded scorer: where no other `data` are named. The diffusion model's figures, too, are
stated at a guidance of 3."""
