"""All keys of a run: what the loop needs, what a policy's run adds, and what a preference model's run adds."""

from __future__ import annotations

import math
from dataclasses import replace
from inspect import get_annotations
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from seedpo.core.entropy import entropy_weights
from seedpo.core.losses import LOSSES
from seedpo.core.noise_weights import NOISE_WEIGHTS
from seedpo.data.settings import CacheConfig, DataSet, DataSets, PairsConfig
from seedpo.errors import ConfigError
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.methods.presets import METHODS
from seedpo.methods.settings import (
    NOISE,
    OF_MARGINS,
    AnchorConfig,
    FlowConfig,
    GroupConfig,
    ObjectiveConfig,
    ReferenceConfig,
    SamplingConfig,
    StepGroupConfig,
    StepPoolConfig,
    TrajectoryConfig,
)
from seedpo.methods.weighting_settings import WeightingConfig
from seedpo.models.settings import ModelSettings
from seedpo.rewards.catalogue import REWARDS
from seedpo.rewards.settings import RewardDefinition, refuse_cycles
from seedpo.settings import NO_EFFECT, NetworkSettings, Place, Precision, Scope, Section
from seedpo.training.alarm_settings import AlarmsConfig
from seedpo.training.feedback.settings import FeedbackConfig
from seedpo.training.optimizer_settings import OptimizerConfig
from seedpo.training.stopping_settings import EarlyStoppingConfig


class TrainingConfig(NetworkSettings):
    """How a network is trained, and what is written meanwhile."""

    max_steps: int = Field(200, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(4, ge=1)
    """Pairs per process and micro-step; with `kto` single images, with `dgpo` and `nft` groups, with `flow-grpo` steps
    of single images."""
    gradient_accumulation_steps: int = Field(4, ge=1)
    """Micro-steps per optimiser step."""
    learning_rate: float = Field(1e-4, gt=0.0)
    """Peak learning rate."""
    log_every: Annotated[int, NO_EFFECT] = Field(1, ge=1)
    """Steps between lines of training metrics."""
    checkpoint_every: Annotated[int, NO_EFFECT] = Field(100, ge=0)
    """Steps between checkpoints; 0 writes none but the last."""
    checkpoints_limit: Annotated[int, NO_EFFECT] = Field(2, ge=1)
    """Checkpoints that are kept."""
    evaluate_every: int = Field(50, ge=0)
    """Steps between evaluations; 0 evaluates before the first and after the last step only."""
    trackers: Annotated[tuple[Literal["tensorboard", "trackio", "wandb"], ...], NO_EFFECT] = ()
    """Where the metrics go in addition to `metrics.jsonl`; the packages come with `seedpo[track]`."""
    tracker_project: Annotated[str, NO_EFFECT] = "seedpo"
    """Project under which trackio and wandb show the run; tensorboard, whose files lie in the run folder, has none."""
    ema_decay: float | None = Field(None, gt=0.0, lt=1.0)
    """Decay of an exponential moving average (EMA) of the trained weights, for example 0.999; evaluations and the saved
    weights are then those of the average, while roll-outs and checkpoints' `policy/` stay those of the last step. At
    step t it is at most t / (t + 9). It holds one more copy of the trained weights. None: no average."""
    optimizer: OptimizerConfig = OptimizerConfig()

    def tree(self) -> dict[str, Any]:
        """All keys with JSON values: first those of the run itself, then those of its model and of the loop."""
        content = self.model_dump(mode="json")
        keys = [key for kind in type(self).__mro__ for key in get_annotations(kind) if key in content]
        return {key: content[key] for key in keys}

    @property
    def largest_gradient_norm(self) -> float:
        """Gradients above it are scaled down."""
        return self.optimizer.max_grad_norm

    @property
    def weights_folder(self) -> str:
        """Where the trained weights lie in the run folder at the end."""
        return "weights"


FIXED_PAIRS = Scope(fact="judged", values=(None,))
DRAWN_PAIRS = Scope(fact="judged", values=("images", "previews"))
DRAWN_IMAGES = Scope(fact="judged", values=("images",))
STEPS = Scope(fact="log_prob", values=("steps",))
OF_PAIRS = Scope(fact="gives", values=("pairs",), strict=True)
WEIGHED = Scope(fact="objective", values=("dpo", "dgpo"), strict=True)
OF_TRAJECTORIES = Scope(fact="section", values=("trajectories",))
OF_STEPS = Scope(fact="section", values=("steps",))
OF_GROUPS = Scope(fact="section", values=("groups",))
OF_STEP_GROUPS = Scope(fact="gives", values=("step-groups",))


def _strict(scope: Scope) -> Scope:
    return replace(scope, strict=True)


class FidelityConfig(Section):
    """Faults of the reference code that change results, to reproduce it; docs/fidelity.md explains each. All off."""

    gradients_never_clipped: bool = False
    """SPO and LPO: their gradient clipping sees no parameters; `optimizer.max_grad_norm` has no effect."""
    ties_as_wins: Annotated[bool, _strict(FIXED_PAIRS), OF_PAIRS] = False
    """diffusers' Diffusion-DPO scripts for SD1.5 and SDXL: a tie is a preference for the first image; `pairs.ties` has
    no effect."""
    independent_flips: Annotated[bool, _strict(FIXED_PAIRS), OF_PAIRS] = False
    """Official Diffusion-DPO, by default, and diffusers' script for SD1.5: the two images of a pair are mirrored
    independently, at half of their visits each."""
    beta_without_half: Annotated[bool, NOISE, OF_MARGINS] = False
    """diffusers' Diffusion-DPO script for SD1.5: beta multiplies the squared errors without the 1/2 of the official
    code, as if it were twice as large."""
    sampled_latents: Annotated[bool, _strict(FIXED_PAIRS)] = False
    """Official Diffusion-DPO and diffusers' scripts: the latents of a pair are drawn from the autoencoder's
    distribution at every visit, here by seed, pair and visit. Caches of latents then hold its mean and its width."""
    square_time_ids: Annotated[bool, _strict(FIXED_PAIRS)] = False
    """Official Diffusion-DPO for SDXL: every image is said to have been made in the training size and never cropped."""
    reference_moves_on_resume: bool = False
    """D3PO's human feedback script: a resumed run takes the weights of its checkpoint as the reference."""
    empty_updates: Annotated[bool, _strict(OF_TRAJECTORIES)] = False
    """D3PO's reward script: a pair with equal rewards is trained on with no gradient, so that it takes its place in an
    update, in which AdamW's momentum and weight decay still act."""
    last_step_clamped: Annotated[bool, _strict(STEPS)] = False
    """D3PO, SPO and trl: a step to the clean image leads to the noise of time step 0 instead, so that it has a density
    and is trained on. It changes models with `set_alpha_to_one: true`; SD1.5, 2 and XL have false."""
    cps_square: Annotated[bool, _strict(STEPS)] = False
    """CPS in flow_grpo, Flow-Factory and verl-omni: -|x' - mean|^2 stands for a step's log-probability. So beta and
    `clip_range` count 2 std^2 times as much at each step, with the standard deviation std of its noise."""
    previews_clamped_late: Annotated[bool, _strict(OF_STEPS)] = False
    """SPO: the decoder's output is resized for the scorer before it is clamped to [0, 1], not after it."""
    judged_at_start: Annotated[bool, _strict(OF_STEPS)] = False
    """LPO: a latent reward is told the time of x_t, from which the candidates were drawn, in place of their own."""


class RunConfig(ModelSettings, TrainingConfig):
    """One training run of a diffusion model."""

    method: str = "diffusion-dpo"
    """Preset; `seedpo list methods` names them all."""
    data: Annotated[DataSets | None, FIXED_PAIRS] = None
    """Preference pairs of offline methods: a registered name, a file, folder or glob of shards, or `hub:owner/name`;
    docs/data.md lists the formats. Several sets are a list of names, or of names with weights,
    `[a/, {name: b/, weight: 2}]`: each pair of b/ then comes twice in an epoch. None: `scenes-pairs` for the
    embedded model; for other models they must be named."""
    prompts: Annotated[str, Place(names="prompts"), DRAWN_PAIRS] = "animals"
    """Prompts of online methods: a registered name or a text file with one prompt per line."""
    reward: Annotated[str | None, Place(names="rewards"), DRAWN_PAIRS] = None
    """Reward that ranks the roll-outs of online methods: a registered name, `name@place` for its weights elsewhere, a
    CLIP preference model (a folder, or `owner/name` on the hub), `module:function` for code of your own, or a name
    defined in `rewards`; docs/rewards.md. SPO is made for step-aware ones. None: `scenes-scorer` for the embedded
    model; for other models it must be named."""
    reward_precision: Precision = "no"
    """Precision in which the networks of rewards compute; `no`: float32."""
    rewards: Annotated[dict[str, RewardDefinition], AfterValidator(refuse_cycles)] = Field(default_factory=dict)
    """Weighted sums of rewards, and rewards on servers, by names of your own, to be used wherever a reward is named."""
    preview_vae: Annotated[str | None, Place(), OF_STEPS] = None
    """Folder or hub id of a smaller autoencoder (an AutoencoderTiny or AutoencoderKL of the same latents) that decodes
    the previews for SPO's scorer, at a fraction of the cost; None: the model's own."""

    beta: float = 0.1
    """Weight of the KL term, above 0; with `flow-grpo` 0 leaves it out, and the reference with it. With `nft` it is how
    far the good and the bad policy are from the old one. Its unit depends on `reduction`. With `mean`, as in presets
    and recipes, squared errors and log-probabilities are means over the entries of the latents. A beta for sums, such
    as SimpleTuner's for Flow-DPO, times their number (65,536 for Stable Diffusion 3.5 at 512 px) is the same for
    means."""
    gamma: float = 0.0
    """Weight of the self-entropy term; 0 is the base method."""
    entropy_convention: Literal["relative", "absolute"] = "relative"
    """`relative`: a = beta (1 + gamma). `absolute`: a = beta + gamma."""
    loss: Annotated[str, OF_MARGINS] = "sigmoid"
    """Loss of a pair, of the margin m of implicit rewards: `sigmoid`, -log sigma(m), as published; `ipo`, a squared
    distance of m from 1/2; `hinge`, max(0, 1 - m); `linear`, whose slope rises linearly to 0 (Linear-DPO); `dmpo`, the
    reverse KL from a smoothed label (DMPO)."""
    objective: ObjectiveConfig = ObjectiveConfig()
    reference: ReferenceConfig = ReferenceConfig()
    anchor: AnchorConfig = AnchorConfig()
    reduction: Literal["sum", "mean"] = "mean"
    """How a log-probability is reduced over the latent dimensions; the published betas are for `mean`."""
    noise_weight: Annotated[str, NOISE, WEIGHED] = "constant"
    """Weight of a pair by its noising level, in Diffusion-DPO's margin. `constant`, as published: of the error of what
    the network predicts, for flow matching the velocity. `noise` and `clean`: of the error of the predicted noise or
    clean image. `min-snr`: min(SNR, `min_snr_gamma`) on the latter (arXiv 2303.09556)."""
    min_snr_gamma: float | None = Field(None, gt=0.0)
    """Limit of `noise_weight: min-snr`, a signal-to-noise ratio; None: 5, as published. It is not SEE's `gamma`."""
    clip_range: Annotated[float | None, STEPS] = Field(None, gt=0.0, lt=1.0)
    """The ratio policy/reference of one step is held in [1 - clip_range, 1 + clip_range]; with `flow-grpo` that of the
    policy to the one that drew the step. None: no clipping."""

    keep_best: str | None = None
    """Figure by which the result is chosen, named like `early_stopping.metric`: at the end the weights folder holds
    those of the best evaluation, step 0 included, and the last checkpoint those of the last step. It also chooses what
    the alarms' action `keep_best` keeps. None: the weights of the last step."""

    pairs: Annotated[PairsConfig, FIXED_PAIRS] = PairsConfig()
    cache: Annotated[CacheConfig, FIXED_PAIRS] = CacheConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    sampling: Annotated[SamplingConfig, DRAWN_PAIRS] = SamplingConfig()
    flow: FlowConfig = FlowConfig()
    trajectories: Annotated[TrajectoryConfig, OF_TRAJECTORIES] = TrajectoryConfig()
    steps: Annotated[StepPoolConfig, OF_STEPS] = StepPoolConfig()
    groups: Annotated[GroupConfig, OF_GROUPS] = GroupConfig()
    step_groups: Annotated[StepGroupConfig, OF_STEP_GROUPS] = StepGroupConfig()
    weighting: Annotated[WeightingConfig, _strict(DRAWN_PAIRS)] = WeightingConfig()
    feedback: Annotated[FeedbackConfig, DRAWN_IMAGES] = FeedbackConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    alarms: Annotated[AlarmsConfig, NO_EFFECT] = AlarmsConfig()
    fidelity: FidelityConfig = FidelityConfig()

    @property
    def largest_gradient_norm(self) -> float:
        """Gradients above it are scaled down."""
        return math.inf if self.fidelity.gradients_never_clipped else super().largest_gradient_norm

    @property
    def weights(self) -> tuple[float, float]:
        """The weights (a, b) of the policy's and the reference's log-probability."""
        optional = self.method in METHODS and METHODS[self.method].kl_is_optional
        return entropy_weights(self.beta, self.gamma, convention=self.entropy_convention, kl_is_optional=optional)

    @field_validator("loss")
    @classmethod
    def _loss_is_known(cls, value: str) -> str:
        if value not in LOSSES:
            raise ValueError(f"there is no such loss; write one of {', '.join(LOSSES)}")
        return value

    @field_validator("noise_weight")
    @classmethod
    def _noise_weight_is_known(cls, value: str) -> str:
        if value not in NOISE_WEIGHTS:
            raise ValueError(f"there is no such weight; write one of {', '.join(NOISE_WEIGHTS)}")
        return value

    @model_validator(mode="after")
    def _a_limit_needs_its_weight(self) -> Self:
        if self.min_snr_gamma is not None and self.noise_weight != "min-snr":
            raise ValueError(
                f"min_snr_gamma = {self.min_snr_gamma} has no effect with noise_weight = {self.noise_weight}; leave it "
                "out, or set noise_weight to min-snr"
            )
        return self

    @model_validator(mode="after")
    def _the_square_is_of_cps(self) -> Self:
        if self.fidelity.cps_square and self.flow.sde != "cps":
            raise ValueError(
                f"fidelity.cps_square = true has no effect with flow.sde = {self.flow.sde}; leave it out, or set "
                "flow.sde to cps"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_usable(self) -> Self:
        _ = self.weights  # raises if beta and gamma give none
        return self

    @model_validator(mode="after")
    def _evaluations_can_be_drawn(self) -> Self:
        evaluation = self.evaluation
        if evaluation.best_of > 1 and not evaluation.rewards:
            raise ValueError(
                f"evaluation.best_of = {evaluation.best_of} needs a reward that picks; name one in evaluation.rewards"
            )
        if evaluation.strength == 0 and evaluation.mixing is not None:
            raise ValueError(
                f"evaluation.mixing = {evaluation.mixing:g} has nothing to mix at evaluation.strength = 0, the model "
                "before training; leave one of both out"
            )
        return self

    @model_validator(mode="after")
    def _the_frozen_reference_stays(self) -> Self:
        if self.reference.kind == "frozen":
            return self
        if self.cache.reference:
            raise ValueError(
                f"reference.kind = {self.reference.kind} needs cache.reference = false, which holds what the frozen "
                "reference says"
            )
        if self.fidelity.reference_moves_on_resume:
            raise ValueError(
                f"fidelity.reference_moves_on_resume needs reference.kind = frozen, not {self.reference.kind}; leave "
                "one out"
            )
        return self

    @model_validator(mode="after")
    def _a_cache_has_no_means(self) -> Self:
        if self.cache.reference and self.anchor.kl:
            raise ValueError(
                f"anchor.kl = {self.anchor.kl:g} needs cache.reference = false, which holds log-probabilities of the "
                "reference and not what it predicts"
            )
        return self

    @model_validator(mode="after")
    def _cached_scalars_stay_true(self) -> Self:
        if self.cache.reference and self.pairs.buckets:
            raise ValueError("pairs.buckets needs cache.reference = false, which is filled in batches of one size")
        for switch in ("independent_flips", "reference_moves_on_resume", "sampled_latents"):
            if self.cache.reference and getattr(self.fidelity, switch):
                raise ValueError(
                    f"fidelity.{switch} needs cache.reference = false, which holds what the unmoved reference says of "
                    "mean latents of pairs mirrored together"
                )
        return self


def data_of(config: RunConfig) -> str | tuple[DataSet, ...]:
    """What an offline method is trained on.

    Raises:
        ConfigError: if nothing is named.
    """
    if config.data is None:
        what, files = ("likes of single images", "likes") if config.pairs.reads_likes else ("labelled pairs", "pairs")
        raise ConfigError(
            f"{config.method} trains {config.model} on {what}, and none are named; set data to a file or a folder of "
            f"{files}, or to hub:owner/name (docs/data.md)"
        )
    return config.data


def reward_of(config: RunConfig) -> str:
    """What ranks the images that an online method draws.

    Raises:
        ConfigError: if nothing is named.
    """
    if config.reward is None:
        raise ConfigError(
            f"{config.method} needs a reward that ranks what {config.model} draws, and none is named; set reward to "
            f"one of {', '.join(REWARDS.names())}, or to one of your own (docs/rewards.md)"
        )
    return config.reward


class RewardRunConfig(TrainingConfig):
    """One training run of a preference model: step-aware (SPO) with a diffusion model, plain (PickScore) without."""

    start: Annotated[str, Place(names="starts")] = "scenes-clip"
    """CLIP to start from: a registered name, a folder, or `owner/name` on the hub, for example
    `yuvalkirstain/PickScore_v1`; a step-aware one is trained on."""
    tokenizer: Annotated[str | None, Place()] = None
    """Folder or hub id of the tokenizer where `start` brings none; None: it lies beside the weights."""
    model: Annotated[str | None, Place(names="models")] = "scenes"
    """Diffusion model that predicts the previews which the preference model sees: a registered name, a folder, a
    `.safetensors` file, or `owner/name[@revision]`; None: a plain preference model of finished images is trained."""
    latent: bool = False
    """Train a latent reward model (LPO) in place of a CLIP: the encoder half of `model` and its text encoder learn to
    judge noisy latents, of which no preview is made. `start`, `tokenizer`, `guidance_scale`, `clean_share` and
    `preview_batch_size` then have no effect."""
    vae: Annotated[str | None, Place()] = None
    """Another autoencoder for `model`; None: its own."""
    single_file_config: Annotated[str | None, Place()] = None
    """Pipeline with the architecture of a single-file `model`; None: diffusers' choice."""
    resolution: int | None = Field(None, ge=8)
    """Height and width in pixels of the images of `model`; None: its own. `pairs.resolution` must give the same."""
    max_sequence_length: int | None = Field(None, ge=1, le=4096)
    """Tokens of the longest text encoder of `model`, where it leaves the choice; None: the model's usual."""
    embedded_guidance: float | None = Field(None, ge=1.0)
    """Guidance that a guidance-distilled `model` takes as an input; None: the model's usual."""
    data: DataSets = "scenes-scorer-pairs"
    """Labelled pairs: a registered name, a file, folder or glob of shards, or `hub:owner/name`, or several sets with
    weights; see docs/data.md."""
    held_out: Annotated[str | None, Place(names="data")] = None
    """Pairs on which the accuracy is measured, named like `data`; None: some prompts of `data` are kept out of the
    training, with all their pairs."""
    held_out_split: str | None = None
    """Split of `held_out`, where it has several; None: `pairs.split`, or else the one for validation or testing."""
    held_out_share: float = Field(0.1, gt=0.0, lt=1.0)
    """Share of the prompts that is kept out where `held_out` is none; which ones, the prompts themselves decide."""
    held_out_limit: int | None = Field(None, ge=1)
    """Most pairs on which the accuracy is measured, the first ones of the set; None: all."""
    timesteps: tuple[int, ...] = Field((0, 251, 501, 701, 951), min_length=1)
    """Time steps at which the accuracy is measured, SPO's; 0: finished images. Without `model` it has no effect."""
    guidance_scale: float = Field(5.0, ge=1.0)
    """Classifier-free guidance of the previews; as when policies are sampled later on, 5 as published."""
    clean_share: float = Field(0.0, ge=0.0, le=1.0)
    """Share of the pairs, drawn anew at every visit, that are shown finished (time step 0) beside those that the
    uniform time steps give; 0 as published."""
    preview_batch_size: int = Field(32, ge=1)
    """Images whose previews are predicted at a time; it changes memory, not what is learnt."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass: far less memory, about a third more time."""
    in_batch_negatives: bool = False
    """Whether the other pairs of a batch, on all processes, serve as further images and prompts (an option of
    PickScore's code). With gradient accumulation the batch is one micro-step of all processes."""
    pair_weights: Literal["prompt"] | None = None
    """What the loss of each pair counts in the mean of an update. `prompt`: 1 / pairs of its prompt in the data, as
    published: of a stream as its column `num_example_per_prompt` says, else counted. None: all count alike."""
    relabel: Annotated[str | None, Place(names="rewards")] = None
    """Reward that labels the pairs anew, as published for SDXL; None: the labels of the data."""
    relabel_gap: float = Field(0.1, ge=0.0, lt=1.0)
    """With `relabel`: a pair is a tie unless its preference probabilities differ by more than this."""

    pairs: PairsConfig = PairsConfig()
    cache: CacheConfig = CacheConfig()

    @property
    def trained_words(self) -> str:
        """What is trained, in a few words, for people."""
        if self.latent:
            return "a latent reward model"
        return "a plain preference model" if self.model is None else "a step-aware preference model"

    @property
    def weights_folder(self) -> str:
        """Where the trained preference model lies in the run folder at the end."""
        return "model"

    @model_validator(mode="after")
    def _keys_that_make_sense_here(self) -> Self:
        if self.cache.reference or self.cache.visits is not None:
            raise ValueError("cache.reference must be false: a preference model has no reference")
        if self.pairs.validation is not None:
            raise ValueError("pairs.validation must be null: a preference model has held_out and held_out_share")
        if self.pairs.reads_likes:
            raise ValueError(
                "pairs.from_scores must make pairs: a preference model learns from two images; set it to all"
            )
        if self.pairs.buckets:
            raise ValueError("pairs.buckets must be false: a preference model sees images of one size")
        if self.pairs.empty_prompts:
            raise ValueError("pairs.empty_prompts must be 0: a preference model is to read the prompt")
        if self.latent and self.model is None:
            raise ValueError("latent = true needs model, a Stable Diffusion whose latents are judged")
        if min(self.timesteps) < 0 or len(set(self.timesteps)) < len(self.timesteps):
            raise ValueError("timesteps must be 0 or more, each once")
        return self


SCENES: dict[str, Any] = {
    "held_out": "scenes-held-out-pairs",
    "guidance_scale": 3.0,
    "clean_share": 0.25,
    "max_steps": 900,
    "batch_size": 32,
    "gradient_accumulation_steps": 1,
    "evaluate_every": 0,
    "learning_rate": 5e-4,
    "checkpoint_every": 300,
    "optimizer": {"schedule": "cosine", "warmup_steps": 45, "beta2": 0.98, "weight_decay": 1e-2},
}
"""Settings that make the embedded scorer: where no other `data` are named. The diffusion model's figures, too, are
stated at a guidance of 3."""
