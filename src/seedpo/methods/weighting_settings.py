"""How much what the policy draws teaches: novelty of winners, outliers, and second opinions on the reward."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from seedpo.settings import ABOVE_0, Place, Scope, Section

LEAST_IMAGES = 3
"""Images of a group from which on one can be rarer than another: two are equally far from each other."""

NOVELTY = "weighting.novelty"
"""The fact that novelty weighs winners, as a :class:`seedpo.settings.Scope` names it."""


class WeightingConfig(Section):
    """Which images of a roll-out teach more, and which less; the reward alone says who wins. By default all alike."""

    novelty: float = Field(0.0, ge=0.0)
    """Power p of a winner's weight (d / mean d)^p, with d the distance to its nearest neighbour among the images of the
    prompt, and the mean over these. A pair's loss is multiplied by it; of images in groups, the advantages above 0.
    Images whose reward is not above the mean of their prompt weigh 1. GARDO writes 1. 0: no weights, no features."""
    features: Annotated[str | None, Place(names="features"), Scope(fact=NOVELTY, values=(ABOVE_0,))] = None
    """Features in which `novelty` measures cosine distances: pixels, clip, dino or scenes-clip, or `name@place` for
    their weights elsewhere. None: `scenes-clip` for the embedded models; for other models they must be named."""
    outliers: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the winners of a roll-out that are left out: those whose reward exceeds the mean of their prompt by
    most, since that is where a reward errs upwards (after DRIFT). Pairs with them on either side are not trained on; in
    groups their advantage is 0. 0: none."""
    second_opinion: Annotated[tuple[str, ...], Place(names="rewards")] = ()
    """Rewards that are not optimised and judge the images of roll-outs, too: named as `reward` is. U is the share of
    the prompt's other images that an image beats by `reward`, less the mean of its shares by these (GARDO). Without
    `suspect_anchor`, `drop_suspects`, `agreement` or `gate_anchor` it is observed, and changes nothing."""
    suspect_share: float = Field(0.1, gt=0.0, lt=1.0)
    """Share of the winners of a roll-out that are suspect: those with the highest U, as far as it is above 0."""
    suspect_anchor: Annotated[float, Scope(fact="objective", values=("dpo", "dgpo", "grpo"), strict=True)] = Field(
        0.0, ge=0.0
    )
    """kappa: pairs of suspect winners have beta (1 + kappa) in place of beta, and gamma keeps its meaning. Their losses
    are divided by 1 + kappa, so that they push no more than others at first, and stop sooner. With `dgpo` beta of a
    group grows by the suspect share of its advantages above 0; with `flow-grpo` it is the weight of the KL term. 0: no
    difference."""
    drop_suspects: bool = False
    """Whether suspect winners are left out, like `outliers`."""
    agreement: Annotated[bool, Scope(fact="gives", values=("pairs", "steps"), strict=True)] = False
    """Whether pairs are made only of two images that every second opinion ranks as the reward does. Of the best and the
    worst image of a prompt, it is the two with the widest such gap. A group without any gives no pair."""
    gate_anchor: bool = False
    """Whether `anchor.kl` acts on suspects alone (GARDO): on both images of their pairs, or on the images of groups. It
    stays a mean over all rows, those without it counting 0."""

    @property
    def asks_features(self) -> bool:
        """Whether images are looked at."""
        return self.novelty > 0

    @property
    def is_active(self) -> bool:
        """Whether anything is weighed or observed."""
        return self.asks_features or self.outliers > 0 or bool(self.second_opinion)

    @model_validator(mode="after")
    def _suspects_need_an_opinion(self) -> Self:
        idle = {
            "suspect_share": self.suspect_share != 0.1,
            "suspect_anchor": self.suspect_anchor > 0,
            "drop_suspects": self.drop_suspects,
            "agreement": self.agreement,
            "gate_anchor": self.gate_anchor,
        }
        for key, is_set in idle.items():
            if is_set and not self.second_opinion:
                raise ValueError(
                    f"{key} = {getattr(self, key)} needs weighting.second_opinion; set it to a reward that is not "
                    "optimised, for example to aesthetic"
                )
        if len(set(self.second_opinion)) < len(self.second_opinion):
            raise ValueError("second_opinion names a reward twice; leave one out")
        if self.drop_suspects and self.suspect_anchor:
            raise ValueError(
                f"suspect_anchor = {self.suspect_anchor:g} has no effect with drop_suspects, which leaves suspects "
                "out; set one of them"
            )
        if self.drop_suspects and self.gate_anchor:
            raise ValueError("gate_anchor has no effect with drop_suspects, which leaves suspects out; set one of them")
        return self
