"""What the votes on a group say: the preference between every two candidates, and how many votes are still missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seedpo.study.records import Answer, Group, Judgement, parts_of
from seedpo.study.settings import StudySettings
from seedpo.study.units import finished, is_knockout, knockout_order, units_of

Matrix = NDArray[np.float64]

VALUES: Mapping[Answer, float] = {"first": 1.0, "second": -1.0, "tie": 0.0, "bad": 0.0}
"""What an answer is worth to the first candidate. A skipped pair is not judged."""


def preferences(judgements: Iterable[Judgement], *, candidates: int) -> Matrix:
    """Share of raters who prefer the first of two candidates minus the share who prefer the second.

    Attention checks and repetitions do not count, and a rater counts once for a pair
    (:func:`seedpo.study.records.parts_of`); see :data:`VALUES` for the others. Pairs that nobody judged, as in a
    knockout or between those that are neither best nor worst, follow from the other pairs: a chain of preferences is as
    strong as its weakest link, and the strongest chain counts (widest path, M. Schulze, Social Choice and Welfare 36,
    2011) minus the strongest chain in the other direction.

    Args:
        judgements: on one group.
        candidates: K of the group.

    Returns:
        (K, K) in [-1, 1], antisymmetric; 0 where neither is preferred.
    """
    total, raters = np.zeros((candidates, candidates)), np.zeros((candidates, candidates))
    shown = np.eye(candidates, dtype=bool)
    for vote in parts_of(judgement for judgement in judgements if judgement.regular):
        first, second = vote.show.first, vote.show.second
        shown[first, second] = shown[second, first] = True
        if vote.answer in VALUES:
            total[first, second] += VALUES[vote.answer]
            raters[first, second] += 1
    share = total / np.maximum(raters, 1)
    direct = share - share.T
    chains = _strongest_chains(np.maximum(direct, 0.0))
    return np.where(shown, direct, chains - chains.T)


def _strongest_chains(links: Matrix) -> Matrix:
    """Weakest link of the strongest chain between every two (Floyd and Warshall)."""
    strength = links.copy()
    for middle in range(len(links)):
        strength = np.maximum(strength, np.minimum(strength[:, middle, None], strength[None, middle]))
    return strength


@dataclass(frozen=True)
class Count:
    """Votes on groups.

    Attributes:
        done: votes so far, at most as many as are wanted.
        wanted: in all.
    """

    done: int
    wanted: int


def counted_votes(
    settings: StudySettings, groups: Sequence[Group], judgements: Mapping[str, Sequence[Judgement]]
) -> Count:
    """Votes on groups: ``raters_per_pair`` on each pair, image or view, or as many knockouts.

    A skipped one counts as done, since the same rater would not be asked again.

    Args:
        settings: of the study.
        groups: whose votes are counted.
        judgements: by group id.
    """
    counts = [_of_group(settings, group, judgements.get(group.id, ())) for group in groups]
    return Count(done=sum(count.done for count in counts), wanted=sum(count.wanted for count in counts))


def _of_group(settings: StudySettings, group: Group, judgements: Sequence[Judgement]) -> Count:
    raters = settings.raters_per_pair
    question = next(question for question in settings.questions if question.key == group.question)
    votes = Counter(vote.show.unit for vote in judgements if vote.regular)
    if not is_knockout(group, question, settings):
        units = [(group.id, members) for members in units_of(group, question, seed=settings.seed)]
        return Count(done=sum(min(votes[unit], raters) for unit in units), wanted=raters * len(units))
    wanted = raters * (len(group.candidates) - 1)
    enough = finished(knockout_order(group, settings.seed), group.id, votes) >= raters
    return Count(done=wanted if enough else min(votes.total(), wanted - 1), wanted=wanted)
