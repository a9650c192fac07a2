"""The methods as data: which objective meets which source of pairs, and the published settings.

A method is one row of :data:`METHODS`, a source of pairs one :class:`SourceKind`; nothing else asks for their names.
SEE is a value of ``gamma``, not a method of its own. The settings are those of the papers for SD1.5; betas are for
means over the entries of the latents. What depends on
the size of the latent space or of the run (learning rate, steps, batch) is the recipe's to say. Nothing here imports
torch: builders are named and imported when they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from seedpo.registry import Entry, Registry, load_target


@dataclass(frozen=True, kw_only=True)
class SourceKind:
    """Where pairs come from.

    Attributes:
        target: ``module:function`` that builds the source from the run's settings and
            :class:`seedpo.methods.sources.supplies.Supplies`.
        judged: what a reward judges to make the pairs; ``None``: the pairs are a fixed set, labelled already and seen
            again and again.
        section: key of the configuration's section for this source; ``None`` if it has none.
        why_no_people: why people cannot judge in place of a reward, and what to do instead; ``None`` if they can.
        gives: kind of its batches: ``pairs`` of images, single ``likes``, ``groups`` of images, pairs of ``steps``, or
            ``step-groups``.
    """

    target: str
    judged: Literal["images", "previews"] | None
    section: str | None = None
    why_no_people: str | None = None
    gives: Literal["pairs", "likes", "groups", "steps", "step-groups"]

    @property
    def fixed_pairs(self) -> bool:
        """Whether the pairs are a fixed set, from which things can be computed once and stored."""
        return self.judged is None

    @property
    def noun(self) -> str:
        """What one loss is of, in the singular."""
        return {"likes": "like", "groups": "group", "step-groups": "step"}.get(self.gives, "pair")

    def settings(self, config: Any) -> Any:
        """The source's section of a run's settings."""
        return getattr(config, str(self.section))

    def build(self, config: Any, supplies: Any) -> Any:
        """The source of pairs of a run."""
        return load_target(self.target)(config, supplies)


DATA_SET = SourceKind(
    target="seedpo.methods.sources.offline:build_source",
    judged=None,
    gives="pairs",
    why_no_people="draws no images; `seedpo study export` makes data for it from votes",
)

LIKES = SourceKind(
    target="seedpo.methods.sources.offline:build_likes",
    judged=None,
    gives="likes",
    why_no_people="draws no images; `seedpo study export` makes data for it from likes",
)

TRAJECTORIES = SourceKind(
    target="seedpo.methods.sources.trajectories:build_source", judged="images", gives="steps", section="trajectories"
)

STEPS = SourceKind(
    target="seedpo.methods.sources.steps:build_source",
    judged="previews",
    gives="steps",
    section="steps",
    why_no_people="judges previews of every step; use method d3po with people",
)

ONLINE_PAIRS = SourceKind(
    target="seedpo.methods.sources.online:build_pairs", judged="images", gives="pairs", section="groups"
)

IMAGE_GROUPS = SourceKind(
    target="seedpo.methods.sources.online:build_groups", judged="images", gives="groups", section="groups"
)

READS: Mapping[str, tuple[str, ...]] = {
    "dpo": ("pairs", "steps"),
    "dspo": ("pairs",),
    "mapo": ("pairs",),
    "kto": ("likes",),
    "dgpo": ("groups",),
    "nft": ("groups",),
    "grpo": ("step-groups",),
}
"""Kinds of batches, as sources give them, that each objective can be trained on."""


STEP_GROUPS = SourceKind(
    target="seedpo.methods.sources.step_groups:build_source",
    judged="images",
    gives="step-groups",
    section="groups",
)


@dataclass(frozen=True, kw_only=True)
class Preset(Entry):
    """One method; its ``target`` builds the objective from the run's settings.

    Attributes:
        title: its name in reports and cards.
        paper: where it was published.
        log_prob: which log-probability is compared: of predicted ``noise`` or of denoising ``steps``.
        objective: what is made of it: ``dpo``, a loss of the margin of a pair, or one of its own.
        source: where the pairs come from.
        defaults: configuration keys that differ from the general defaults.
        why_no_gamma: why the entropy term has no meaning in its objective; ``None`` if it has one.
        has_reference: whether its objective compares the policy with a reference.
        kl_is_optional: whether beta may be 0, which leaves out the KL term and the reference.
        ranks_latents: whether a reward of noisy latents ranks its candidates, as published.
    """

    title: str
    paper: str
    log_prob: Literal["noise", "steps"]
    objective: Literal["dpo", "dspo", "mapo", "kto", "dgpo", "nft", "grpo"] = "dpo"
    source: SourceKind
    defaults: Mapping[str, Any]
    why_no_gamma: str | None = None
    has_reference: bool = True
    kl_is_optional: bool = False
    ranks_latents: bool = False

    def __post_init__(self) -> None:
        """Refuses an objective that cannot read what the source gives."""
        if self.source.gives not in (readable := READS[self.objective]):
            raise ValueError(
                f"{self.name}: objective {self.objective} reads {' or '.join(readable)}, and its source gives "
                f"{self.source.gives}; name another source"
            )

    def build_objective(self, config: Any, **parts: Any) -> Any:
        """The objective of a run; see the builder for its parts."""
        return self.load()(config, **parts)


METHODS = Registry(
    "method",
    (
        Preset(
            name="diffusion-dpo",
            title="Diffusion-DPO",
            paper="arXiv 2311.12908",
            summary="noise-prediction DPO on a fixed set of image pairs (arXiv 2311.12908)",
            target="seedpo.methods.noise_dpo:noise_objective",
            log_prob="noise",
            source=DATA_SET,
            defaults={"beta": 2000.0, "learning_rate": 1e-5},
        ),
        Preset(
            name="linear-dpo",
            title="Linear-DPO",
            paper="arXiv 2605.21123",
            summary="DPO whose weight of a pair falls linearly with its margin (arXiv 2605.21123)",
            target="seedpo.methods.noise_dpo:noise_objective",
            log_prob="noise",
            source=DATA_SET,
            defaults={
                "beta": 100.0,
                "learning_rate": 1e-5,
                "loss": "linear",
                "reference": {"kind": "ema", "decay": 0.99},
            },
        ),
        Preset(
            name="dmpo",
            title="DMPO",
            paper="arXiv 2507.07510",
            summary="the reverse KL from the smoothed label in place of its likelihood (arXiv 2507.07510)",
            target="seedpo.methods.noise_dpo:noise_objective",
            log_prob="noise",
            source=DATA_SET,
            defaults={"beta": 2000.0, "learning_rate": 1e-5, "loss": "dmpo"},
        ),
        Preset(
            name="sdpo",
            title="Diffusion-SDPO",
            paper="arXiv 2511.03317",
            summary="Diffusion-DPO whose loser may not make the winner worse (arXiv 2511.03317)",
            target="seedpo.methods.noise_dpo:noise_objective",
            log_prob="noise",
            source=DATA_SET,
            defaults={"beta": 5000.0, "learning_rate": 1e-5, "objective": {"loser_scale": "pair"}},
        ),
        Preset(
            name="dspo",
            title="DSPO",
            paper="ICLR 2025, openreview.net xyfb9HHvMe",
            summary="diffusion loss on preferred images with the preference's score in it (ICLR 2025, "
            "openreview.net xyfb9HHvMe)",
            target="seedpo.methods.dspo:dspo_objective",
            log_prob="noise",
            objective="dspo",
            source=DATA_SET,
            defaults={"beta": 0.001, "learning_rate": 2e-5},
            why_no_gamma="its second term is the difference of the policy's and the reference's prediction, which have "
            "one weight; raise beta, or use diffusion-dpo",
        ),
        Preset(
            name="mapo",
            title="MaPO",
            paper="arXiv 2406.06424",
            summary="diffusion loss and a margin of the policy's own errors, without a reference (arXiv 2406.06424)",
            target="seedpo.methods.mapo:mapo_objective",
            log_prob="noise",
            objective="mapo",
            source=DATA_SET,
            defaults={"beta": 0.1, "learning_rate": 1e-5},
            has_reference=False,
            why_no_gamma="it has no reference, from whose weight gamma would set the policy's apart; use diffusion-dpo",
        ),
        Preset(
            name="smpo",
            title="SmPO-Diffusion",
            paper="arXiv 2506.02698",
            summary="Diffusion-DPO whose margin a reward scales by how sure it is (arXiv 2506.02698)",
            target="seedpo.methods.noise_dpo:noise_objective",
            log_prob="noise",
            source=DATA_SET,
            defaults={
                "beta": 2000.0,
                "learning_rate": 1e-5,
                "pairs": {"gap_reward": "pickscore"},
                "objective": {"gap_scale": 10.0, "gap_temperature": 16.7},
            },
        ),
        Preset(
            name="kto",
            title="Diffusion-KTO",
            paper="arXiv 2404.04465",
            summary="the expected utility of single images that people like or not (arXiv 2404.04465)",
            target="seedpo.methods.kto:kto_objective",
            log_prob="noise",
            objective="kto",
            source=LIKES,
            defaults={"beta": 5000.0, "learning_rate": 1e-5, "batch_size": 8, "pairs": {"from_scores": "likes"}},
            why_no_gamma="of a single image the log-probability is known but for a constant, which only equal weights "
            "of policy and reference cancel; raise beta, or use diffusion-dpo",
        ),
        Preset(
            name="d3po",
            title="D3PO",
            paper="arXiv 2311.13231",
            summary="DPO on whole trajectories that share x_T, ranked by their final images (arXiv 2311.13231)",
            target="seedpo.methods.transition_dpo:transition_objective",
            log_prob="steps",
            source=TRAJECTORIES,
            defaults={"beta": 0.1, "clip_range": 0.1, "learning_rate": 3e-5, "evaluation": {"guidance_scale": 5.0}},
        ),
        Preset(
            name="spo",
            title="SPO",
            paper="arXiv 2406.04314",
            summary="DPO on single steps from a shared x_t, ranked by a step-aware scorer (arXiv 2406.04314)",
            target="seedpo.methods.transition_dpo:transition_objective",
            log_prob="steps",
            source=STEPS,
            defaults={"beta": 10.0, "clip_range": 0.1, "learning_rate": 6e-5, "evaluation": {"guidance_scale": 5.0}},
        ),
        Preset(
            name="lpo",
            title="LPO",
            paper="arXiv 2502.01051",
            summary="SPO whose candidates a latent reward model ranks, without decoding them (arXiv 2502.01051)",
            target="seedpo.methods.transition_dpo:transition_objective",
            log_prob="steps",
            source=STEPS,
            defaults={
                "beta": 500.0,
                "clip_range": 0.1,
                "learning_rate": 6e-5,
                "steps": {"plain_steps": 0, "min_gap": 0.35, "min_gap_noisiest": 0.5},
                "evaluation": {"guidance_scale": 5.0},
            },
            ranks_latents=True,
        ),
        Preset(
            name="flow-grpo",
            title="Flow-GRPO",
            paper="arXiv 2505.05470",
            summary="clipped policy gradient on random steps of groups of images (arXiv 2505.05470)",
            target="seedpo.methods.grpo:group_policy_objective",
            log_prob="steps",
            objective="grpo",
            source=STEP_GROUPS,
            defaults={
                "beta": 0.004,
                "clip_range": 1e-4,
                "learning_rate": 3e-4,
                "sampling": {"num_inference_steps": 10, "guidance_scale": 4.5},
                "flow": {"sde": "flow-grpo"},
                "groups": {"images_per_prompt": 24, "prompts_per_rollout": 2, "normalise": "pooled"},
                "evaluation": {"guidance_scale": 4.5},
            },
            why_no_gamma="the entropy of a step does not depend on the parameters, so that the term has no gradient",
            kl_is_optional=True,
        ),
        Preset(
            name="online-dpo",
            title="Online DPO",
            paper="arXiv 2505.05470",
            summary="Diffusion-DPO on pairs that the policy has just drawn and a reward judged (arXiv 2505.05470)",
            target="seedpo.methods.noise_dpo:noise_objective",
            log_prob="noise",
            source=ONLINE_PAIRS,
            defaults={
                "beta": 100.0,
                "learning_rate": 3e-4,
                "sampling": {"num_inference_steps": 40, "guidance_scale": 4.5},
                "groups": {"images_per_prompt": 24, "prompts_per_rollout": 2},
                "reference": {"kind": "reset", "every": 40},
                "evaluation": {"guidance_scale": 4.5},
            },
        ),
        Preset(
            name="pnapo",
            title="PNAPO",
            paper="arXiv 2605.09433",
            summary="DPO on pairs of the untrained model, with the noise that they were drawn from (arXiv 2605.09433)",
            target="seedpo.methods.noise_dpo:noise_objective",
            log_prob="noise",
            source=ONLINE_PAIRS,
            defaults={
                "beta": 5000.0,
                "learning_rate": 1e-5,
                "sampling": {"num_inference_steps": 50, "guidance_scale": 1.0},
                "groups": {"images_per_prompt": 2, "drawn_by": "reference"},
                "objective": {"gap_scale": 1.0, "prior_noise": True},
            },
        ),
        Preset(
            name="dgpo",
            title="DGPO",
            paper="arXiv 2510.08425",
            summary="DPO among all images of a group, weighed by their advantages (arXiv 2510.08425)",
            target="seedpo.methods.dgpo:group_objective",
            log_prob="noise",
            objective="dgpo",
            source=IMAGE_GROUPS,
            defaults={
                "beta": 100.0,
                "learning_rate": 3e-4,
                "sampling": {"num_inference_steps": 10, "guidance_scale": 4.5},
                "groups": {"images_per_prompt": 24, "prompts_per_rollout": 2},
                "anchor": {"kl": 0.02},
                "evaluation": {"guidance_scale": 4.5},
            },
        ),
        Preset(
            name="nft",
            title="DiffusionNFT",
            paper="arXiv 2509.16117",
            summary="towards good images and away from bad ones, as seen from an average policy (arXiv 2509.16117)",
            target="seedpo.methods.nft:nft_objective",
            log_prob="noise",
            objective="nft",
            source=IMAGE_GROUPS,
            defaults={
                "beta": 1.0,
                "learning_rate": 3e-4,
                "sampling": {"num_inference_steps": 10, "guidance_scale": 1.0},
                "groups": {
                    "images_per_prompt": 24,
                    "prompts_per_rollout": 2,
                    "normalise": "pooled",
                    "drawn_by": "reference",
                },
                "reference": {"kind": "ema", "decay": 0.5, "decay_rise": 0.001},
                "anchor": {"kl": 1e-4, "toward": "initial"},
                "evaluation": {"guidance_scale": 1.0},
            },
            why_no_gamma="it follows a guided velocity, not a density whose entropy a term could weigh",
        ),
    ),
)


def method_title(name: str) -> str:
    """The title of a method; of one that is not registered, its name."""
    return METHODS[name].title if name in METHODS else name
