"""All keys of a run."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from seedpo.core.entropy import EntropyOffset, entropy_weights
from seedpo.data.settings import CacheConfig, PairsConfig
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.methods.settings import SamplingConfig, StepPoolConfig, TrajectoryConfig
from seedpo.rewards.settings import WeightedSum, refuse_cycles
from seedpo.settings import Section
from seedpo.training.alarm_settings import AlarmsConfig
from seedpo.training.feedback.settings import FeedbackConfig
from seedpo.training.loop_settings import Precision, TrainingConfig


class FidelityConfig(Section):
    """Faults of the reference code that change results, to reproduce it; docs/fidelity.md explains each. All off."""

    gradients_never_clipped: bool = False
    """SPO: its gradient clipping sees no parameters; `optimizer.max_grad_norm` has no effect."""
    ties_as_wins: bool = False
    """diffusers' Diffusion-DPO script for SD1.5: a tie is a preference for the first image; `pairs.ties` has no
    effect."""
    independent_flips: bool = False
    """The same script: the two images of a pair are mirrored independently, at half of their visits each."""
    beta_without_half: bool = False
    """The same script: beta multiplies the squared errors without the 1/2 of the official code, as if it were twice as
    large."""
    square_time_ids: bool = False
    """Official Diffusion-DPO for SDXL: every image is said to have been made in the training size and never cropped."""
    reference_moves_on_resume: bool = False
    """D3PO's human feedback script: a resumed run takes the weights of its checkpoint as the reference."""


class RunConfig(TrainingConfig):
    """One training run of a diffusion model."""

    method: str = "diffusion-dpo"
    """Preset: `diffusion-dpo`, `d3po` or `spo`."""
    model: str = "scenes"
    """Model of the Stable Diffusion 1, 2 or XL family: a registered name, a folder with a diffusers pipeline, a
    single-file `.safetensors` checkpoint, or `owner/name[@revision]` on the hub."""
    vae: str | None = None
    """Another autoencoder: a folder or `owner/name[@revision]`, for SDXL for example `madebyollin/sdxl-vae-fp16-fix`,
    which may run in half precision; none: the model's own."""
    single_file_config: str | None = None
    """Folder (or hub id) of a diffusers pipeline with the architecture, tokenizers and noise schedule of a single-file
    checkpoint; none: diffusers' choice, fetched from the hub. Without a single-file checkpoint it does nothing."""
    resolution: int | None = Field(None, ge=8)
    """Height and width of images in pixels, a multiple of 8 for Stable Diffusion; none: the model's own."""
    data: str = "scenes-pairs"
    """Preference pairs of offline methods: a registered name, a file, folder or glob of shards, or `hub:owner/name`;
    docs/data.md lists the formats."""
    prompts: str = "scenes-training"
    """Prompts of online methods: a registered name or a text file with one prompt per line."""
    reward: str = "scenes-scorer"
    """Reward that ranks the roll-outs of online methods: a registered name, `name@place` for its weights elsewhere, a
    CLIP preference model (a folder, or `owner/name` on the hub), `module:function` for code of your own, or a name
    defined in `rewards`; docs/rewards.md. SPO is made for step-aware ones."""
    reward_precision: Precision = "no"
    """Precision in which the networks of rewards compute; `no`: float32."""
    rewards: dict[str, WeightedSum] = Field(default_factory=dict)
    """Weighted sums of rewards, by names of your own, to be used wherever a reward is named."""
    preview_vae: str | None = None
    """Folder or hub id of a smaller autoencoder (an AutoencoderTiny or AutoencoderKL of the same latents) that decodes
    the previews for SPO's scorer, at a fraction of the cost; none: the model's own."""

    beta: float = 0.1
    """Weight of the KL term, above 0; its scale depends on `reduction`."""
    gamma: float = 0.0
    """Weight of the self-entropy term; 0 is the base method."""
    entropy_convention: Literal["relative", "absolute"] = "relative"
    """`relative`: a = beta (1 + gamma). `absolute`: a = beta + gamma."""
    entropy_offset: EntropyOffset = "full"
    """`full`: gamma adds (a - b) Delta log reference to the margin. `without_noise_norms`: of steps that the policy
    drew itself (D3PO, SPO), less what depends on nothing but the lengths of the noises drawn; docs/options.md."""
    reduction: Literal["sum", "mean"] = "mean"
    """How a log-probability is reduced over the latent dimensions; the published betas are for `mean`."""
    clip_range: float | None = Field(None, gt=0.0, lt=1.0)
    """The ratio policy/reference of one step is held in [1 - clip_range, 1 + clip_range]; none: no clipping."""

    adapter: Literal["lora", "full"] = "lora"
    """`lora` trains an adapter, whose absence is the reference; `full` trains the network beside a frozen copy."""
    lora_rank: int = Field(4, ge=1)
    """Rank of the adapter; its alpha equals its rank."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass: far less memory, about a third more time."""
    compile: bool = False
    """Whether `torch.compile` translates the network: minutes at the start, faster steps afterwards."""

    pairs: PairsConfig = PairsConfig()
    cache: CacheConfig = CacheConfig()
    sampling: SamplingConfig = SamplingConfig()
    trajectories: TrajectoryConfig = TrajectoryConfig()
    steps: StepPoolConfig = StepPoolConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    alarms: AlarmsConfig = AlarmsConfig()
    fidelity: FidelityConfig = FidelityConfig()

    @field_validator("rewards")
    @classmethod
    def _sums_end(cls, value: dict[str, WeightedSum]) -> dict[str, WeightedSum]:
        refuse_cycles(value)
        return value

    @property
    def largest_gradient_norm(self) -> float:
        """Gradients above it are scaled down."""
        return math.inf if self.fidelity.gradients_never_clipped else super().largest_gradient_norm

    @property
    def weights_folder(self) -> str:
        """Where the trained weights lie in the run folder at the end."""
        return {"lora": "adapter", "full": "unet"}[self.adapter]

    @model_validator(mode="after")
    def _weights_are_usable(self) -> Self:
        entropy_weights(self.beta, self.gamma, convention=self.entropy_convention)
        return self

    @model_validator(mode="after")
    def _cached_scalars_stay_true(self) -> Self:
        for switch in ("independent_flips", "reference_moves_on_resume"):
            if self.cache.reference and getattr(self.fidelity, switch):
                raise ValueError(
                    f"fidelity.{switch} needs cache.reference = false, which holds what the unmoved reference says of "
                    "pairs mirrored together"
                )
        return self
