"""How the policy draws images, and the pairs that online methods make of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from seedpo.core.losses import LossConstants
from seedpo.data.settings import DataSets
from seedpo.methods.weighting_settings import WeightingConfig
from seedpo.settings import ABOVE_0, Scope, Section

NOISE = Scope(fact="log_prob", values=("noise",), strict=True)
OF_MARGINS = Scope(fact="objective", values=("dpo",), strict=True)
OF_MAPO = Scope(fact="objective", values=("mapo",), strict=True)
OF_KTO = Scope(fact="objective", values=("kto",), strict=True)


def _of(*objectives: str) -> Scope:
    return Scope(fact="objective", values=objectives, strict=True)


def _gives(*batches: str) -> Scope:
    return Scope(fact="gives", values=batches, strict=True)


class SamplingConfig(Section):
    """How the policy draws images, in roll-outs and in training alike."""

    num_inference_steps: int = Field(20, ge=2)
    """Denoising steps of a trajectory."""
    guidance_scale: float = Field(5.0, ge=1.0)
    """Classifier-free guidance; 1 switches it off and halves the cost."""
    prompts_at_once: Annotated[int | None, Scope(fact="judged", values=("images",), strict=True)] = Field(None, ge=1)
    """Prompts of a roll-out that are drawn together, each with all its images. Fewer need less memory. A reward that is
    computed elsewhere (`http`, `vlm`) judges what was drawn while the next are drawn. None: all of a roll-out."""
    eta: Annotated[float | None, Scope(fact="log_prob", values=("steps",))] = Field(None, gt=0.0, le=1.0)
    """How random the steps of roll-outs are, where steps are trained; other methods draw without. DDIM's eta, where 1
    gives the ancestral sampler; for a flow-matching model the strength a of the rule `flow.sde`. 0 has no density and
    cannot be trained on. None: 1 for DDIM; for `dance` 0.3, for `flow-grpo` 0.7, for `cps` 0.8."""


class FlowConfig(Section):
    """Flow-matching models; for others these keys are refused."""

    density: Annotated[
        Literal["logit-normal", "logit-normal-shifted", "uniform", "uniform-shifted"],
        Scope(fact="log_prob", values=("noise",)),
    ] = "logit-normal"
    """How the noise levels in (0, 1] of pairs of images are drawn: uniform, or the logistic function of a standard
    normal number. `shifted`: they are then moved towards noise as the model's sampler moves its own steps; with Stable
    Diffusion 3's shift of 3 the median goes from 0.5 to 0.75."""
    sde: Annotated[Literal["dance", "flow-grpo", "cps"], Scope(fact="log_prob", values=("steps",))] = "dance"
    """How the steps of roll-outs are made random, with the strength `sampling.eta`: `dance`, a constant rate
    (DanceGRPO); `flow-grpo`, one that rises with the noise, of which some stays in the image (Flow-GRPO); `cps`, a
    fixed share of the noise is drawn anew at every step, which takes variance from the images (CPS). The step to the
    clean image is deterministic."""


class ObjectiveConfig(Section):
    """Settings of single objectives; each is refused where another one is trained (docs/objectives.md)."""

    linear_floor: Annotated[float, Scope(fact="loss", values=("linear",), strict=True)] = Field(0.001, ge=0.0, lt=0.5)
    """Least weight of a pair with `loss: linear`, eta of Linear-DPO; its greatest is 1 less this. Published: 0.001 for
    SD1.5 and 0 for SDXL, with which pairs of a margin above 5/4 have no gradient."""
    dmpo_smoothing: Annotated[float, Scope(fact="loss", values=("dmpo",), strict=True)] = Field(0.01, gt=0.0, lt=0.5)
    """Probability that a label is wrong, alpha of DMPO, with `loss: dmpo`: the margin of a pair is drawn to
    log((1 - alpha) / alpha), 4.6 at 0.01."""
    advantage_limit: Annotated[float | None, _of("grpo", "dgpo", "nft")] = Field(5.0, gt=0.0)
    """Advantages are held in [-advantage_limit, advantage_limit]. For DiffusionNFT it also is the advantage from which
    on an image counts as wholly good or bad. None: they are not held, which DiffusionNFT cannot do without."""
    error_clip: Annotated[float | None, _of("dgpo")] = Field(None, gt=0.0, lt=1.0)
    """DGPO: an image has no gradient any more where exp(reference's error - policy's error) is above 1 + error_clip,
    or for a negative advantage below 1 - error_clip. It is made for `reference.kind: ema`; published are 1e-5 with it,
    and 1e-3 to 5e-2 against another average. None: all images have one."""
    prior_noise: Annotated[bool, Scope(fact="section", values=("groups",), strict=True), _gives("pairs")] = False
    """Whether the images of a pair are noised with the noise that each was drawn from, as in DDIM-InPO and PNAPO, in
    place of a fresh noise that both share."""
    loser_scale: Annotated[Literal["pair", "batch"] | None, NOISE, OF_MARGINS] = None
    """How the gradient through the loser is scaled down, so that the winner's error does not rise (Diffusion-SDPO).
    `pair`: each pair by itself. `batch`: one scale for a micro-batch, as in the published code. None: not at all."""
    loser_scale_mu: Annotated[float | None, NOISE, OF_MARGINS] = Field(None, ge=0.0, le=1.0)
    """Share of the winner's fall that `loser_scale` keeps at least. None: 0.9, as published for SD1.5; 0.6 is published
    for SDXL."""
    error_scale: Annotated[float, OF_MAPO] = Field(0.5, gt=0.0)
    """MaPO: s, what squared errors are multiplied by before they are bounded; `snr_value` of its code. Larger ones make
    f(e) = s e / (exp(s e) - 1) tell small errors apart better, and large ones worse."""
    margin_steps: Annotated[float, OF_MAPO] = Field(1000.0, gt=0.0)
    """MaPO: T, what the difference of f(e) of both images is multiplied by; the number of the process's time steps, as
    published."""
    liked_weight: Annotated[float, OF_KTO] = Field(1.0, ge=0.0)
    """Diffusion-KTO: weight of the losses of liked images; 0 leaves them out. 1.6, with 0.4 for the others, stands for
    the published draw of 80 % liked images where half of them are liked."""
    disliked_weight: Annotated[float, OF_KTO] = Field(1.0, ge=0.0)
    """Diffusion-KTO: weight of the losses of images that are not liked; 0 leaves them out."""

    gap_scale: Annotated[float | None, NOISE, OF_MARGINS] = Field(None, gt=0.0)
    """Factor c of a pair's margin, c (2 p - 1), with p the probability that a reward prefers its winner; a pair that
    the reward sees the other way round is trained on the other way round. Published: 10 (SmPO), 1 (PNAPO). The reward
    is that of the roll-outs, and `pairs.gap_reward` for a set of pairs. None: 1 for every pair."""
    gap_temperature: Annotated[float | None, NOISE, OF_MARGINS] = Field(None, gt=0.0)
    """Unit T of the gap of two rewards in p = sigma(gap / T) of `gap_scale`. Published: 16.7 for PickScore in log-odds
    (SmPO: the range of the scores of Pick-a-Pic v2). None: 1, right for rewards in log-odds."""
    beta_decay: Annotated[tuple[int, int] | None, NOISE, OF_MARGINS] = None
    """Updates [n1, n2] between which `beta` falls to its half along a cosine (PNAPO). None: it stays."""
    gradient_factor: Annotated[
        float | None, NOISE, OF_MARGINS, Scope(fact="loss", values=("sigmoid",), strict=True)
    ] = Field(None, gt=0.0, lt=0.5)
    """Weight sigma(-|m|) in the gradient at which `beta` holds the mean pair (SimpleTuner's Flow-DPO: 0.2): it falls
    as the margins grow. The key `beta` is its greatest value, with which a run begins. None: `beta` stays."""
    gradient_factor_memory: Annotated[float, NOISE, OF_MARGINS] = Field(0.99, ge=0.0, lt=1.0)
    """Decay of the moving average of |m| that `gradient_factor` reads, for each update. 0: the last update alone."""
    least_beta: Annotated[float, NOISE, OF_MARGINS] = Field(1e-3, gt=0.0, le=1.0)
    """Least `beta` that `gradient_factor` sets, as a share of the key `beta`."""

    @model_validator(mode="after")
    def _settings_have_what_they_set(self) -> Self:
        needs = (
            ("loser_scale_mu", "loser_scale", self.loser_scale_mu is not None and self.loser_scale is None, "pair"),
            ("gap_temperature", "gap_scale", self.gap_temperature is not None and self.gap_scale is None, "10"),
            (
                "gradient_factor_memory",
                "gradient_factor",
                self.gradient_factor is None and self.gradient_factor_memory != 0.99,
                "0.2",
            ),
            ("least_beta", "gradient_factor", self.gradient_factor is None and self.least_beta != 1e-3, "0.2"),
        )
        for key, other, is_idle, example in needs:
            if is_idle:
                raise ValueError(
                    f"{key} = {getattr(self, key)} has no effect without {other}; leave it out, or set "
                    f"objective.{other}, for example to {example}"
                )
        if self.liked_weight == self.disliked_weight == 0:
            raise ValueError("liked_weight = disliked_weight = 0 leave nothing to train on; set one above 0")
        if self.beta_decay is not None and not 0 <= self.beta_decay[0] < self.beta_decay[1]:
            raise ValueError(
                f"beta_decay = {list(self.beta_decay)} must be two numbers of updates, the second above the first; "
                "[200, 400], for example"
            )
        return self

    @property
    def loss_constants(self) -> LossConstants:
        """The numbers of the losses of a margin."""
        return LossConstants(linear_floor=self.linear_floor, dmpo_smoothing=self.dmpo_smoothing)


ReferenceKind = Literal["frozen", "rollout", "ema", "reset"]
"""When the reference moves."""


_OF_KL = Scope(fact="anchor.kl", values=(ABOVE_0,), strict=True)


class AnchorConfig(Section):
    """Terms beside the objective that hold the policy near something. The weights are 0: no term, and no cost."""

    kl: float = Field(0.0, ge=0.0)
    """Weight of the mean squared distance of the policy's means from those of `toward` (DiverseGRPO): of what the
    network predicts, or of the means of denoising steps, without 1 / std^2. It is a mean over the latent entries, 1e-4
    to 1e-1 as the figure `anchor/kl` tells, so that weights of 1 to 1000 are felt. It needs a forward pass of `toward`
    where the objective makes none, or has its log-probabilities only."""
    steps: Annotated[Literal["all", "early"], _OF_KL] = "all"
    """Where `kl` acts. `early`: at the noisiest third of the times, or in the first third of the sampler's steps."""
    toward: Annotated[Literal["reference", "initial"], _OF_KL] = "reference"
    """What `kl` holds the policy near: the present reference, or the model as it was before the run."""
    winner: Annotated[float, Scope(fact="gives", values=("pairs", "likes", "steps"), strict=True)] = Field(0.0, ge=0.0)
    """Weight of the squared error of what is preferred (a supervised term): of the prediction for preferred images, or
    of preferred next latents from the mean of their step. It costs no forward pass."""
    data: float = Field(0.0, ge=0.0)
    """Weight of the diffusion loss on images of `data_set` (DDRL's forward KL), which does not depend on what the
    policy draws. It costs a forward and a backward pass of `batch_size` images in every micro-batch."""
    data_set: Annotated[DataSets | None, Scope(fact="anchor.data", values=(ABOVE_0,), strict=True)] = None
    """Labelled pairs whose preferred images are the data of `data`, named like the key `data` of a run and read as
    `pairs` says."""

    @property
    def asks_reference(self) -> bool:
        """Whether an anchor holds the policy near the present reference."""
        return self.kl > 0 and self.toward == "reference"

    @property
    def weights(self) -> dict[str, float]:
        """The anchors that act, by name."""
        weights = {"kl": self.kl, "winner": self.winner, "data": self.data}
        return {name: weight for name, weight in weights.items() if weight}

    @model_validator(mode="after")
    def _data_are_named(self) -> Self:
        if self.data and self.data_set is None:
            raise ValueError(f"data = {self.data:g} needs images; set anchor.data_set to a set of pairs")
        return self


OF_EMA = Scope(fact="reference.kind", values=("ema",), strict=True)
OF_RESET = Scope(fact="reference.kind", values=("reset",), strict=True)


class ReferenceConfig(Section):
    """What the policy is compared with, and what holds it there: docs/running.md."""

    kind: ReferenceKind = "frozen"
    """`frozen`: the model before training. `rollout`: the policy as it was at each roll-out, as D3PO's code does with
    human feedback; each roll-out then starts with all margins at 0. `ema`: an exponential moving average of the policy.
    `reset`: the policy of some update, which it becomes anew when `distance` or `every` says so. Nothing but the anchor
    holds the policy near the model before training unless it is `frozen`."""
    decay: Annotated[float | None, OF_EMA] = Field(None, gt=0.0, lt=1.0)
    """Of `ema`: after each update the average becomes `decay` times itself plus the rest of the policy; Linear-DPO
    writes 0.95 to 0.995. An average of N updates has a decay of about 1 - 1 / N."""
    decay_rise: Annotated[float | None, OF_EMA] = Field(None, gt=0.0)
    """Of `ema`: after update t the decay is at most `decay_rise` t; DiffusionNFT writes 0.001, with a `decay` of 0.5.
    None: `decay` from the first update on."""
    distance: Annotated[float | None, OF_RESET] = Field(None, gt=0.0)
    """Of `reset`: the reference becomes the policy after an update whose pairs were further apart than this: the figure
    `distance`, the mean squared difference of both predictions, or of the means of both steps. None: never for that
    reason."""
    every: Annotated[int | None, OF_RESET] = Field(None, ge=1)
    """Of `reset`: the reference becomes the policy at the latest after so many updates; GARDO writes 100. None: never
    for that reason."""

    @property
    def words(self) -> str:
        """What becomes of the model before training, in a few words that follow its name."""
        reasons = [
            "" if self.every is None else f"every {self.every} updates",
            "" if self.distance is None else f"beyond a distance of {self.distance:g}",
        ]
        rise = "" if self.decay_rise is None else f", reached in rises of {self.decay_rise:g} an update"
        return {
            "frozen": "",
            "rollout": ", then the policy at each roll-out",
            "ema": f", then an average of the policy, decay {self.decay}{rise}",
            "reset": f", then the policy anew {' or '.join(filter(None, reasons))}",
        }[self.kind]

    @model_validator(mode="after")
    def _kinds_have_what_they_need(self) -> Self:
        if self.kind == "ema" and self.decay is None:
            raise ValueError("reference.kind = ema needs reference.decay; set it, for example to 0.99")
        if self.kind == "reset" and self.distance is None and self.every is None:
            raise ValueError(
                "reference.kind = reset needs reference.distance or reference.every; set one, for example every to 100"
            )
        return self


class TrajectoryConfig(Section):
    """Pairs of whole trajectories (D3PO)."""

    images_per_prompt: int = Field(2, ge=2)
    """Trajectories per prompt that share x_T; their final images are ranked."""
    prompts_per_rollout: int = Field(16, ge=1)
    """Prompts sampled together by one process."""
    updates_per_rollout: int = Field(1, ge=1)
    """Passes over the pairs of one roll-out."""
    min_gap: float = Field(0.0, ge=0.0, lt=1.0)
    """A pair is kept if the preference probability of its winner exceeds that of its loser by more than this."""
    steps_per_pair: int | None = Field(None, ge=1)
    """Denoising steps that are trained on from each pair, drawn at random (with `update_per` group, one draw for all
    pairs of a prompt); `None`: all of them, as published."""
    update_per: Literal["pair", "group"] = "pair"
    """What `batch_size` counts. `pair`: single pairs of steps, as published. `group`: all pairs of a prompt at one
    denoising step, whose images run through the network once for all their pairs; with k images per prompt an update
    at the same `batch_size` sees up to k (k - 1) / 2 times as many pairs, and there are as many times fewer updates."""


class StepPoolConfig(Section):
    """Pairs of single steps from a shared x_t (SPO)."""

    candidates: int = Field(4, ge=2)
    """Candidates x_{t-1} drawn from every shared x_t."""
    plain_steps: int = Field(4, ge=0)
    """First steps that are sampled without making pairs."""
    inner_steps: int = Field(0, ge=0)
    """Steps that each candidate walks on by itself before it is judged; all its steps are trained on, and only the
    first shares x_t. 0: judged at once, as for SD1.5; 3 is published for SDXL."""
    min_gap: float = Field(0.3, ge=0.0, lt=1.0)
    """A pair is kept if the preference probability of its winner exceeds that of its loser by more than this."""
    min_gap_noisiest: float | None = Field(None, ge=0.0, lt=1.0)
    """`min_gap` at the step that draws the most noise; `min_gap` itself is that of the step that draws the least, and
    between them it grows linearly with the noise's standard deviation (LPO). None: `min_gap` at all steps."""
    prompts_per_rollout: int = Field(16, ge=1)
    """Prompts sampled together by one process."""
    updates_per_rollout: int = Field(1, ge=1)
    """Passes over the pairs of one roll-out."""
    preview_checks: int = Field(4, ge=0)
    """First roll-outs whose previews are decoded by the model's own autoencoder too, to measure how often `preview_vae`
    ranks a pair the same way; without `preview_vae` it does nothing. 0 measures nothing."""


class GroupConfig(Section):
    """Images of one prompt that the policy draws, and a reward or people judge: their pairs, or groups of all."""

    images_per_prompt: int = Field(8, ge=2)
    """Images drawn for each prompt: those of a group, or those that pairs are made of."""
    prompts_per_rollout: int = Field(16, ge=1)
    """Prompts sampled together by one process."""
    updates_per_rollout: int = Field(1, ge=1)
    """Passes over what one roll-out gave."""
    min_gap: float = Field(0.0, ge=0.0, lt=1.0)
    """A pair is kept if the preference probability of its winner exceeds that of its loser by more than this; a group,
    if that of its best image exceeds that of its worst. 0: all but ties."""
    pairs: Annotated[Literal["best-worst", "all"], _gives("pairs")] = "best-worst"
    """Which images of a prompt make pairs: the one with the highest reward and the one with the lowest, or every
    two."""
    drawn_by: Annotated[Literal["policy", "reference"], _gives("pairs", "groups")] = "policy"
    """Who draws the images: the policy as it is, or the reference, as in DiffusionNFT, whose reference is an average of
    the policy. A frozen reference always draws the same."""
    normalise: Annotated[Literal["std", "pooled", "mean", "raw"], _gives("groups", "step-groups")] = "std"
    """What an image's advantage is. `std`: its reward less the mean of its group, in the group's standard deviations;
    `pooled`: in those of all rewards of the roll-out; `mean`: its reward less the mean; `raw`: its reward."""
    shared_noise: Annotated[bool, _gives("step-groups")] = False
    """Whether the images of a group start from one x_T; without random steps they would be one image."""


class StepGroupConfig(Section):
    """Which denoising steps of grouped images are random, and so trained (Flow-GRPO, MixGRPO)."""

    trained_steps: int | None = Field(None, ge=1)
    """Steps of a roll-out that are random, one after another; the others follow the ODE (DDIM without noise), and have
    no density. None: all of them, as in Flow-GRPO; 1 or 2 in its fast form, 4 in MixGRPO."""
    window: Literal["first", "random"] = "first"
    """Where the `trained_steps` lie: `first`, at the noisiest steps; `random`, drawn anew for each roll-out."""
    window_range: int | None = Field(None, ge=1)
    """With `window` random: they lie among so many first steps; None: in the first half, as in the fast form."""
    update_per: Literal["step", "group"] = "step"
    """What `batch_size` counts. `step`: single steps of single images, as published. `group`: a step of all images of a
    group. Where they start from one x_t (the first random step with `groups.shared_noise`), it runs through the network
    once for all of them."""

    @model_validator(mode="after")
    def _windows_have_a_place(self) -> Self:
        if self.window == "random" and self.trained_steps is None:
            raise ValueError(
                "step_groups.window = random needs step_groups.trained_steps; set it, for example to 2, or leave the "
                "window out"
            )
        if self.window_range is not None and self.window != "random":
            raise ValueError(
                f"step_groups.window_range = {self.window_range} has no effect with step_groups.window = "
                f"{self.window}; leave it out, or set step_groups.window to random"
            )
        if self.window_range is not None and self.window_range < (self.trained_steps or 1):
            raise ValueError(
                f"step_groups.window_range = {self.window_range} is less than step_groups.trained_steps = "
                f"{self.trained_steps}; raise it, or lower trained_steps"
            )
        return self


class MethodConfig(Protocol):
    """The settings of a run that objectives and sources read; see :class:`seedpo.training.settings.RunConfig`."""

    @property
    def beta(self) -> float:
        """Weight of the KL term, or what the objective has in its place."""

    @property
    def weights(self) -> tuple[float, float]:
        """The weights a and b of the policy's and the reference's log-probability."""

    @property
    def reduction(self) -> Literal["sum", "mean"]:
        """Over the latent dimensions."""

    @property
    def loss(self) -> str:
        """Name of the loss of a pair."""

    @property
    def objective(self) -> ObjectiveConfig:
        """Settings of single objectives."""

    @property
    def anchor(self) -> AnchorConfig:
        """Terms beside the objective."""

    @property
    def weighting(self) -> WeightingConfig:
        """How much what the policy draws teaches."""

    @property
    def noise_weight(self) -> str:
        """Name of the weight of a noising level."""

    @property
    def min_snr_gamma(self) -> float | None:
        """Limit of the weight `min-snr`."""

    @property
    def clip_range(self) -> float | None:
        """Range of the ratio policy/reference; ``None``: no clipping."""

    @property
    def fidelity(self) -> Any:
        """Switches that reproduce published code."""

    @property
    def batch_size(self) -> int:
        """Units per batch."""

    @property
    def seed(self) -> int:
        """Of all draws."""

    @property
    def pairs(self) -> Any:
        """How labelled pairs are read."""

    @property
    def sampling(self) -> SamplingConfig:
        """How images are drawn."""

    @property
    def reference(self) -> ReferenceConfig:
        """What the policy is compared with."""

    @property
    def trajectories(self) -> TrajectoryConfig:
        """Pairs of whole trajectories."""

    @property
    def steps(self) -> StepPoolConfig:
        """Pairs of single steps."""

    @property
    def groups(self) -> GroupConfig:
        """Groups of images."""

    @property
    def step_groups(self) -> StepGroupConfig:
        """Random steps of grouped images."""
