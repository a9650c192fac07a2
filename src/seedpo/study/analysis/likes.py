"""Likes of single images: how many images of each model people like, and whether they like more of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from seedpo.core.stats.two_way import two_way_rate
from seedpo.study.analysis.vote_statistics import Columns, Ends, Resampling, columns
from seedpo.study.records import Judgement


@dataclass(frozen=True, kw_only=True)
class Liked:
    """One model on a question of likes.

    Attributes:
        model: its name.
        likes: votes that like an image of it.
        votes: all votes on its images.
        share: of likes.
        interval: of the share over raters and prompts (:mod:`seedpo.core.stats.two_way`).
    """

    model: str
    likes: int
    votes: int
    share: float
    interval: Ends


def likes_of(votes: Sequence[Judgement]) -> list[Judgement]:
    """The votes that like or dislike a single image."""
    return [vote for vote in votes if len(vote.candidates) == 1]


def liked(votes: Sequence[Judgement], resampling: Resampling) -> tuple[Liked, ...]:
    """The models, most liked first; other votes than likes are left out."""
    by_model: dict[str, list[Judgement]] = {}
    for vote in likes_of(votes):
        by_model.setdefault(vote.first.source, []).append(vote)
    rows = []
    for model, own in by_model.items():
        table = columns(own)
        rate = two_way_rate(table.points, table.raters, table.prompts, level=resampling.level)
        likes = int(table.points.sum())
        rows.append(
            Liked(model=model, likes=likes, votes=len(own), share=rate.mean, interval=(rate.low, rate.high))
        )  # fmt: skip
    return tuple(sorted(rows, key=lambda row: (-row.share, row.model)))


@dataclass(frozen=True, eq=False)
class Contrast:
    """Whether people like more images of one model than of another.

    The rate is that of a pair of images whose likes are independent, a tie counting half: the probability that an image
    of the left model is liked and one of the right model is not, plus half of the rest. So it is 1/2 if both are liked
    equally, as for votes on pairs:

        rate = 1/2 + (share of likes of left - share of likes of right) / 2

    Attributes:
        votes: on the two models, as columns.
        of_left: which of them are on images of the left model (N,).
        rate: as above.
        influences: of each vote on the rate (N,).
    """

    votes: Columns
    of_left: NDArray[np.bool_]
    rate: float
    influences: NDArray[np.float64]


def contrasts(votes: Sequence[Judgement]) -> dict[tuple[str, str], Contrast]:
    """All pairs of models whose images were judged one by one, in alphabetical order."""
    models = sorted({vote.first.source for vote in likes_of(votes)})
    return {pair: _contrast(*pair, votes) for pair in combinations(models, 2)}


def _contrast(left: str, right: str, votes: Sequence[Judgement]) -> Contrast:
    own = [vote for vote in likes_of(votes) if vote.first.source in (left, right)]
    table, of_left = columns(own), np.array([vote.first.source == left for vote in own])
    here, there = float(table.points[of_left].mean()), float(table.points[~of_left].mean())
    influences = np.where(
        of_left, (table.points - here) / of_left.sum(), (there - table.points) / (~of_left).sum()
    )  # fmt: skip
    return Contrast(votes=table, of_left=of_left, rate=(1.0 + here - there) / 2.0, influences=influences / 2.0)
