"""How many of the votes that groups shall have are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seedpo.study.preferences import once
from seedpo.study.records import Group, Judgement
from seedpo.study.settings import StudySettings
from seedpo.study.tournament import all_pairs, finished, order


@dataclass(frozen=True)
class Count:
    """Votes.

    Attributes:
        done: that are there, at most as many as are wanted.
        wanted: in all.
    """

    done: int
    wanted: int


def counted_votes(
    settings: StudySettings, groups: Sequence[Group], judgements: Mapping[str, Sequence[Judgement]]
) -> Count:
    """Votes on groups, as the study wants them: ``raters_per_pair`` on each pair, or as many knockouts.

    A pair that a rater has skipped is done with: the same rater would not be asked again.

    Args:
        settings: of the study.
        groups: whose votes are counted.
        judgements: by the ids of groups.
    """
    counts = [_of_group(settings, group, judgements.get(group.id, ())) for group in groups]
    return Count(done=sum(count.done for count in counts), wanted=sum(count.wanted for count in counts))


def _of_group(settings: StudySettings, group: Group, judgements: Sequence[Judgement]) -> Count:
    raters = settings.raters_per_pair
    votes = Counter((vote.show.first, vote.show.second) for vote in once(judgements))
    if settings.compares_all(len(group.candidates)):
        pairs = all_pairs(group)
        return Count(done=sum(min(votes[pair], raters) for pair in pairs), wanted=raters * len(pairs))
    wanted = raters * (len(group.candidates) - 1)
    through = finished(order(group, settings.seed), group.id, {(group.id, *pair): n for pair, n in votes.items()})
    return Count(done=wanted if through >= raters else min(votes.total(), wanted - 1), wanted=wanted)
