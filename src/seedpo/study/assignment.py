"""What a rater sees next: a pure function of the study, of the rater's answers, and of how often each pair was given.

Pairs that fewest raters have come first, drawn among equals by (seed, rater, number of the show). Attention checks and
repetitions are mixed in at their shares (:mod:`seedpo.study.schedule`).

Where the questions come in blocks (:mod:`seedpo.study.blocks`), all this happens within the block that the rater is in;
a check or repetition that is due and cannot be had in it is made up for in the next one.

Sides are balanced twice. A pair that was shown one way round more often is shown the other way round, always. Of the
pairs that may come next, one is taken that makes the rater's own left and right even, as long as there is one.

In a knockout of more than two candidates each rater plays a whole one, a group at a time, and ``raters_per_pair`` says
how many of them each group gets. A group that someone left in the middle is given again when nothing else is left.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from seedpo.study.blocks import block_order
from seedpo.study.folder import Study
from seedpo.study.records import Answer, Group, Judgement
from seedpo.study.schedule import length, repeatable, scheduled, wanted_flip
from seedpo.study.tournament import Pair, all_pairs, finished, next_match, order

Key = tuple[str, int, int]
"""Id of a group and the indices of two of its candidates, the lower one first."""

Counts = Mapping[Key, int]

_PROBES = 24
"""Pairs drawn at random before all of them are looked at: enough while many are untouched."""


@dataclass(frozen=True)
class Proposal:
    """What to show.

    Attributes:
        group: id of the group.
        first, second: indices of its candidates, first < second.
        flipped: whether the second one is on the left.
        repeat_of: token of the show that it repeats, or none.
    """

    group: str
    first: int
    second: int
    flipped: bool
    repeat_of: str | None = None


@dataclass(frozen=True)
class _Plan:
    """What of a study, or of a block of it, does not change while it is voted on.

    Attributes:
        pairs: all regular ones, but those of knockouts.
        turns: 0 or 1 for each of them, as many of the one as of the other.
        knockouts: by group, the order in which its candidates enter.
        checks: of each attention check the pair that is shown.
    """

    pairs: Sequence[Key]
    turns: Mapping[Key, int]
    knockouts: Mapping[str, Sequence[int]]
    checks: Sequence[Key]


@dataclass(frozen=True)
class _Now:
    """The state in which a choice is made.

    Attributes:
        study, counts, flips: as for :func:`next_show`.
        plan: of the block that is looked at.
        answers: of the rater, by group and pair.
        want: which way round would make the rater's sides even; none: any.
        draw: what is random in the choice.
    """

    study: Study
    plan: _Plan
    counts: Counts
    flips: Counts | None
    answers: Mapping[str, Mapping[Pair, Answer]]
    want: bool | None
    draw: random.Random


def next_show(
    study: Study, own: Sequence[Judgement], counts: Counts, *, rater: str, turn: int = 0, flips: Counts | None = None
) -> Proposal | None:
    """Chooses what a rater sees next.

    Args:
        study: the study; what is derived from it is kept, so hand in the same object while it does not change.
        own: all that the rater has answered, checks and repetitions included, in any order.
        counts: by group and pair, how many distinct raters have answered it or hold it open; checks and repetitions do
            not matter here. A pair whose skips are not counted goes to someone else in place of who skipped it.
        rater: id of the rater.
        turn: how many raters were made before this one: raters in turn begin with different questions.
        flips: how many of those in ``counts`` were shown with the second candidate on the left; none: it is told from
            the counts, which balances pairs as well and leaves less freedom to balance each rater's sides.

    Returns:
        The proposal; none if nothing is left to do for this rater, or ``tasks_per_rater`` are done.
    """
    settings, plans = study.settings, _plans(study)
    if settings.tasks_per_rater is not None and len(own) >= settings.tasks_per_rater:
        return None
    number = 1 + max((answer.show.number for answer in own), default=-1)
    draw = random.Random(f"{settings.seed}|{rater}|{number}")
    want, answers = wanted_flip(own), _by_group(own)
    blocks = _blocks(study, own, turn)
    for find, block in product((_regular, _left), blocks):  # what others may yet finish comes after all blocks
        now = _Now(study=study, plan=plans[block], counts=counts, flips=flips, answers=answers, want=want, draw=draw)
        regular = find(now)
        if regular is not None:  # checks or repetitions alone would tell nothing more
            here = own if block is None else [answer for answer in own if answer.question == block]
            return _due(now, own, repeatable(here, number), number, rater) or regular
    return None


def _blocks(study: Study, own: Sequence[Judgement], turn: int) -> Sequence[str | None]:
    """The blocks in which something may be left, in the order in which they are looked at: the present one first."""
    if study.settings.order == "mixed":
        return [None]
    ordered = block_order([question.key for question in study.settings.questions], turn, seed=study.settings.seed)
    last = max(own, key=lambda answer: answer.show.number, default=None)
    return ordered if last is None else sorted(ordered, key=lambda key: key != last.question)


def _due(now: _Now, own: Sequence[Judgement], again: Sequence[Judgement], number: int, rater: str) -> Proposal | None:
    """An attention check or a repetition, if one is due and can be had."""
    settings, want, draw = now.study.settings, now.want, now.draw
    checks = [key for key in now.plan.checks if key[0] not in now.answers]
    checked = sum(answer.expected is not None for answer in own)
    if checks and checked < scheduled(settings.checks, number, f"{settings.seed}|{rater}|check"):
        return Proposal(*draw.choice(checks), flipped=_flip(now, None))
    repeated = sum(answer.show.repeat_of is not None for answer in own)
    if again and repeated < scheduled(settings.repeats, number, f"{settings.seed}|{rater}|repeat"):
        fitting = [answer for answer in again if want is None or answer.show.flipped is not want]
        show = draw.choice(fitting or again).show
        return Proposal(show.group, show.first, show.second, flipped=not show.flipped, repeat_of=show.token)
    return None


def total(study: Study, own: Sequence[Judgement], counts: Counts, *, rater: str) -> int:
    """About how many shows a rater will have seen at the end if nobody else went on: for a progress bar.

    Args:
        study, own, counts, rater: as for :func:`next_show`.
    """
    settings, plan = study.settings, _plans(study)[None]
    answers = _by_group(own)
    left = sum(
        1
        for key in plan.pairs
        if counts.get(key, 0) < settings.raters_per_pair and key[1:] not in answers.get(key[0], {})
    )
    for name, entries in plan.knockouts.items():
        match = next_match(entries, answers.get(name, {}))
        if match and (match[0] or finished(entries, name, counts) < settings.raters_per_pair):
            left += len(entries) - 1 - match[0]
    if left == 0:
        return len(own)
    done = sum(answer.expected is None and answer.show.repeat_of is None for answer in own)

    def due(number: int) -> int:
        checks = min(len(plan.checks), scheduled(settings.checks, number, f"{settings.seed}|{rater}|check"))
        return checks + scheduled(settings.repeats, number, f"{settings.seed}|{rater}|repeat")

    end = max(len(own) + left, length(done + left, due))
    return end if settings.tasks_per_rater is None else max(len(own), min(end, settings.tasks_per_rater))


@lru_cache(maxsize=4)
def _plans(study: Study) -> Mapping[str | None, _Plan]:
    """Of all (none) and of the groups of each question.

    Made once for each opened study, which is its own key: two of them are never equal.
    """
    seed = study.settings.seed
    tasks = [group for group in study.groups if group.expected is None]
    ranked = [group for group in tasks if not study.settings.compares_all(len(group.candidates))]
    knockouts = {group.id: order(group, seed) for group in ranked}
    pairs = [(group.id, *pair) for group in tasks if group.id not in knockouts for pair in all_pairs(group)]
    places = list(range(len(pairs)))
    random.Random(f"{seed}|sides").shuffle(places)
    turns = {pairs[place]: rank % 2 for rank, place in enumerate(places)}
    checks = [_check(group, group.expected) for group in study.groups if group.expected is not None]
    everything = _Plan(pairs=pairs, turns=turns, knockouts=knockouts, checks=checks)
    keys = [question.key for question in study.settings.questions]
    return {None: everything} | {key: _part(everything, study, key) for key in keys}


def _part(plan: _Plan, study: Study, question: str) -> _Plan:
    def here(name: str) -> bool:
        return study.group(name).question == question

    return _Plan(
        pairs=[key for key in plan.pairs if here(key[0])],
        turns=plan.turns,
        knockouts={name: entries for name, entries in plan.knockouts.items() if here(name)},
        checks=[key for key in plan.checks if here(key[0])],
    )


def _check(group: Group, expected: int) -> Key:
    other = 1 if expected == 0 else 0
    return group.id, min(expected, other), max(expected, other)


def _by_group(own: Sequence[Judgement]) -> Mapping[str, Mapping[Pair, Answer]]:
    answers: dict[str, dict[Pair, Answer]] = {}
    for answer in own:
        pairs = answers.setdefault(answer.show.group, {})
        if answer.show.repeat_of is None:
            pairs[answer.show.first, answer.show.second] = answer.answer
    return answers


def _regular(now: _Now) -> Proposal | None:
    """The next show that is neither a check nor a repetition; none if there is none."""
    key = _begun(now) or _untouched(now) or _rarest(now)
    return Proposal(*key, flipped=_flip(now, _turn(now, key))) if key else None


def _left(now: _Now) -> Proposal | None:
    """A knockout that someone has left in the middle; none if there is none."""
    left = [
        _opening(name, entries)
        for name, entries in now.plan.knockouts.items()
        if name not in now.answers and finished(entries, name, now.counts) < now.study.settings.raters_per_pair
    ]
    key = min(left, key=lambda key: (now.counts.get(key, 0), now.draw.random()), default=None)
    return Proposal(*key, flipped=_flip(now, _turn(now, key))) if key else None


def _begun(now: _Now) -> Key | None:
    """The next comparison of a knockout that this rater is in: a group is finished before another one begins."""
    knockouts = now.plan.knockouts
    for name, answers in now.answers.items():
        if name in knockouts:
            match = next_match(knockouts[name], answers)
            if match:
                return name, *match[1]
    return None


def _untouched(now: _Now) -> Key | None:
    """A pair that nobody has, if a few draws find one: nothing can be rarer."""
    plan = now.plan
    if not plan.pairs or plan.knockouts:
        return None
    for _ in range(_PROBES):
        key = plan.pairs[now.draw.randrange(len(plan.pairs))]
        if not now.counts.get(key, 0) and key[1:] not in now.answers.get(key[0], {}) and _fits(now, key):
            return key
    return None


def _rarest(now: _Now) -> Key | None:
    """Of the pairs that fewest raters have, one that fits the rater's sides; else such a one of those with one more."""
    plan, limit = now.plan, now.study.settings.raters_per_pair
    by_count: dict[int, list[Key]] = {}
    for key in [*plan.pairs, *(_opening(name, entries) for name, entries in plan.knockouts.items())]:
        count = now.counts.get(key, 0)
        if count < limit and key[1:] not in now.answers.get(key[0], ()):
            by_count.setdefault(count, []).append(key)
    if by_count:
        lowest = min(by_count)
        for count in (lowest, lowest + 1):
            fitting = _fitting(now, by_count.get(count, []))
            if fitting:
                return fitting
        return now.draw.choice(by_count[lowest])
    return None


def _fitting(now: _Now, keys: Sequence[Key]) -> Key | None:
    for _ in range(min(_PROBES, len(keys))):
        key = now.draw.choice(keys)
        if _fits(now, key):
            return key
    fitting = [key for key in keys if _fits(now, key)]
    return now.draw.choice(fitting) if fitting else None


def _opening(name: str, entries: Sequence[int]) -> Key:
    return name, min(entries[:2]), max(entries[:2])


def _turn(now: _Now, key: Key) -> bool | None:
    """Which way round makes the sides of a pair even; none: either."""
    count = now.counts.get(key, 0)
    if now.flips is not None:
        surplus = 2 * now.flips.get(key, 0) - count
        return None if surplus == 0 else surplus < 0
    plan = now.plan
    if now.study.settings.raters_per_pair == 1 and not plan.knockouts:
        return None
    drawn = plan.turns.get(key)
    if drawn is None:
        drawn = random.Random(f"{now.study.settings.seed}|turn|{key}").randrange(2)
    return (drawn + count) % 2 == 1


def _fits(now: _Now, key: Key) -> bool:
    turn = _turn(now, key)
    return now.want is None or turn is None or turn is now.want


def _flip(now: _Now, turn: bool | None) -> bool:
    """What the pair needs, else what the rater needs, else a draw."""
    return next((way for way in (turn, now.want) if way is not None), now.draw.random() < 0.5)
