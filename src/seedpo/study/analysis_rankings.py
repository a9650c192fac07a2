"""The images of one prompt in the order in which raters prefer them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seedpo.core.stats.paired_comparisons import fit_strengths, is_connected
from seedpo.study.analysis_votes import POINTS
from seedpo.study.records import Candidate, Judgement


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One candidate.

    Attributes:
        source: what it comes from.
        image: id of its first image.
        votes: in which it stood.
        share: of these, the share for it, ties and "both bad" counting half.
        strength: its Bradley-Terry log-strength among the candidates of the prompt; none where that says nothing.
        rank: from 1, by strength, else by share; equal ones share the better rank.
    """

    source: str
    image: str
    votes: int
    share: float
    strength: float | None
    rank: int


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The candidates of one group that were compared, best first.

    Attributes:
        question, prompt, group: which.
        votes: in all.
        candidates: best first.
        connected: whether comparisons lead from each to each other; else they are ordered by their shares alone.
        penalised: whether strengths needed half a win in each direction to be finite.
    """

    question: str
    prompt: str
    group: str
    votes: int
    candidates: tuple[Ranked, ...]
    connected: bool
    penalised: bool

    @property
    def decided(self) -> bool:
        """Whether one candidate alone is first."""
        return sum(one.rank == 1 for one in self.candidates) == 1


def rankings(votes: Sequence[Judgement]) -> tuple[Ranking, ...]:
    """The rankings of all groups, in the order of the groups' ids."""
    found: dict[str, list[Judgement]] = defaultdict(list)
    for vote in votes:
        found[vote.show.group].append(vote)
    return tuple(_ranking(found[group]) for group in sorted(found))


def _ranking(votes: Sequence[Judgement]) -> Ranking:
    shown = {index: one for vote in votes for index, one in _candidates(vote)}
    place = {index: at for at, index in enumerate(sorted(shown))}
    won, tied = np.zeros((len(place), len(place))), np.zeros((len(place), len(place)))
    for vote in votes:
        first, second, points = place[vote.show.first], place[vote.show.second], POINTS[vote.answer]
        if points == 0.5:
            tied[first, second] += 1
            tied[second, first] += 1
        else:
            winner, loser = (first, second) if points else (second, first)
            won[winner, loser] += 1
    connected = is_connected(won, tied)
    fit = fit_strengths(won, tied) if connected else None
    amounts = (won + won.T + tied).sum(1)
    shares = (won + tied / 2.0).sum(1) / amounts
    # Rounded, so that candidates whose votes are the same are equal.
    worth = np.round(fit.values if fit else shares, 6)
    rows = [
        Ranked(
            source=shown[index].source,
            image=shown[index].images[0] if shown[index].images else "",
            votes=int(amounts[at]),
            share=float(shares[at]),
            strength=float(fit.values[at]) if fit else None,
            rank=1 + int((worth > worth[at]).sum()),
        )
        for index, at in place.items()
    ]
    return Ranking(
        question=votes[0].question,
        prompt=votes[0].prompt,
        group=votes[0].show.group,
        votes=len(votes),
        candidates=tuple(sorted(rows, key=lambda row: row.rank)),
        connected=connected,
        penalised=bool(fit and fit.penalised),
    )


def _candidates(vote: Judgement) -> tuple[tuple[int, Candidate], ...]:
    return (vote.show.first, vote.first), (vote.show.second, vote.second)
