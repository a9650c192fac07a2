"""What a rater sees next: a pure function of the study, the rater's answers, counts by unit, and a token.

Units with the fewest raters come first; the seed, the rater and the number of the show decide among equals. Attention
checks and repetitions are mixed in at their shares. If the questions come in blocks, all this happens inside the
rater's current block; a check or repetition that is due and not available there is made up for in the next block.

The order on the screen is drawn from the token of the show, a secret until the page has it: nothing that a rater saw
before, knows of the seed or reads in this file foretells a side. One thing is balanced: if a pair was shown to other
raters one way round more often, the next rater gets it the other way round.

In a knockout of more than two candidates each rater plays whole knockouts, one group at a time, and
``raters_per_pair`` is the number of knockouts per group. A group that a rater abandoned is given again when nothing
else is left.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from seedpo.study.folder import Study
from seedpo.study.records import Answer, Judgement, Unit
from seedpo.study.unit_counts import Units, numbers_of
from seedpo.study.units import Counts, Members, finished, is_knockout, knockout_order, next_match, units_of

REPEAT_AFTER = 5
"""At least so many other shows lie between a show and its repetition."""

_PROBES = 24
"""Units that are drawn at random before all are examined: enough while many are untouched."""


# In which order the questions come, and when checks and repetitions do.


def block_order(questions: Sequence[str], turn: int, *, seed: int) -> list[str]:
    """The order of one rater's questions: a row of a Williams square or of its mirror image.

    Over n raters each of n questions has been at each place equally often. Over n raters (n even) or 2 n raters
    (n odd) each question has followed each other one equally often.

    Args:
        questions: their keys.
        turn: number of raters before this one.
        seed: of the square.
    """
    count = len(questions)
    names = random.Random(f"{seed}|blocks").sample(list(questions), count)
    zigzag = [(place + 1) // 2 if place % 2 else (count - place // 2) % count for place in range(count)]
    cycle, step = divmod(turn, count)
    # Rows are given out in a drawn order, so that consecutive raters are not shifts of each other.
    row = random.Random(f"{seed}|blocks|{cycle}").sample(range(count), count)[step]
    places = zigzag[::-1] if count % 2 and cycle % 2 else zigzag
    return [names[(place + row) % count] for place in places]


def scheduled(share: float, number: int, seed: str) -> int:
    """How many of a rater's shows 0 to ``number`` should be of a kind with this share.

    Each block of 1 / share shows contains one, at a drawn place: spread evenly, and not predictable.

    Args:
        share: of all shows, in [0, 0.5].
        number: of the show, from 0.
        seed: of the places.
    """
    if share <= 0.0:
        return 0
    block = int(number * share)
    start, end = math.ceil(block / share), math.ceil((block + 1) / share)
    return block + (_place(f"{seed}|{block}", start, end) <= number)


@lru_cache(maxsize=100_000)
def _place(seed: str, start: int, end: int) -> int:
    return random.Random(seed).randrange(start, end)


def _due(study: Study, kind: str, number: int, rater: str) -> int:
    """How many ``checks`` or ``repeats`` a rater should have seen by a show."""
    share = study.settings.checks if kind == "check" else study.settings.repeats
    return scheduled(share, number, f"{study.settings.seed}|{rater}|{kind}")


def _repeatable(own: Sequence[Judgement], number: int) -> list[Judgement]:
    """Answers whose shows may be repeated as show ``number``: regular, not skipped, not repeated yet, not recent."""
    repeated = {answer.show.repeat_of for answer in own}
    return sorted(
        (
            answer
            for answer in own
            if answer.regular
            and answer.answer != "skip"
            and answer.show.token not in repeated
            and number - answer.show.number > REPEAT_AFTER
        ),
        key=lambda answer: answer.show.number,
    )


def _shows_with(regular: int, due: Callable[[int], int]) -> int:
    """How many shows contain so many regular ones.

    Args:
        regular: shows that are neither checks nor repetitions; at least one.
        due: how many checks and repetitions are due among shows 0 to a number.
    """
    shows = regular
    while (longer := regular + due(shows - 1)) > shows:  # one more show makes at most one more due, so this ends
        shows = longer
    return shows


# The choice.


@dataclass(frozen=True)
class Proposal:
    """What to show.

    Attributes:
        group: id of the group.
        order: indices of its candidates in their order on the screen.
        repeat_of: token of the show that this repeats; `None` if it repeats none.
    """

    group: str
    order: tuple[int, ...]
    repeat_of: str | None = None


@dataclass(frozen=True)
class _Plan:
    """What of a study, or of one of its blocks, does not depend on votes.

    Attributes:
        units: all regular units outside knockouts.
        knockouts: by group, the order in which its candidates enter.
        checks: the unit of each attention check.
    """

    units: Sequence[Unit]
    knockouts: Mapping[str, Sequence[int]]
    checks: Sequence[Unit]

    @cached_property
    def begins(self) -> Units:
        """The units, and the first comparisons of the knockouts."""
        return Units([*self.units, *(_opening(name, entries) for name, entries in self.knockouts.items())])


@dataclass(frozen=True)
class _State:
    """The state in which a choice is made.

    Attributes:
        study, counts, flips: see :func:`next_show`.
        plan: of the current block.
        answers: of the rater, by group and members.
        draw: random numbers of this choice.
        coin: random numbers of the order on the screen.
    """

    study: Study
    plan: _Plan
    counts: Counts
    flips: Counts
    answers: Mapping[str, Mapping[Members, Answer]]
    draw: random.Random
    coin: random.Random

    def is_open(self, unit: Unit) -> bool:
        """Whether the rater has not answered a unit."""
        return unit[1] not in self.answers.get(unit[0], ())

    def wanted(self) -> NDArray[np.bool_]:
        """Which of ``plan.begins`` have too few raters and are not answered, (n,)."""
        wanted: NDArray[np.bool_] = numbers_of(self.counts, self.plan.begins) < self.study.settings.raters_per_pair
        places = self.plan.begins.places
        answered = (places.get((group, members)) for group, answers in self.answers.items() for members in answers)
        wanted[[place for place in answered if place is not None]] = False
        return wanted

    def is_free(self, group: str) -> bool:
        """Whether a knockout has not been played by enough raters."""
        return finished(self.plan.knockouts[group], group, self.counts) < self.study.settings.raters_per_pair

    def balanced(self, unit: Unit) -> Proposal:
        """A unit in a drawn order; a pair the way round that fewer raters saw, if there is one."""
        surplus = 2 * self.flips.get(unit, 0) - self.counts.get(unit, 0)
        if len(unit[1]) == 2 and surplus:
            return Proposal(unit[0], unit[1] if surplus > 0 else unit[1][::-1])
        return self.drawn(unit)

    def drawn(self, unit: Unit, *, repeat_of: str | None = None) -> Proposal:
        """A unit in a drawn order."""
        return Proposal(unit[0], tuple(self.coin.sample(unit[1], len(unit[1]))), repeat_of)


def next_show(
    study: Study, own: Sequence[Judgement], counts: Counts, flips: Counts, *, rater: str, token: str, turn: int = 0
) -> Proposal | None:
    """Chooses what a rater sees next.

    Args:
        study: the study. What is derived from it is cached: pass the same object while it does not change.
        own: all answers of the rater in any order, checks and repetitions included.
        counts: raters of each unit who have answered it or hold it open. Checks and repetitions do not matter here. If
            skips are not counted, somebody else gets the unit.
        flips: how many of ``counts`` see the second candidate of a pair on the left.
        rater: id of the rater.
        token: of the show that is proposed, unknown to the rater until then: it decides the order on the screen alone.
        turn: number of raters before this one; consecutive raters begin with different questions.

    Returns:
        The proposal; `None` if nothing is left for this rater or ``tasks_per_rater`` is reached.
    """
    settings, plans = study.settings, _plans(study)
    if settings.tasks_per_rater is not None and len(own) >= settings.tasks_per_rater:
        return None
    number = 1 + max((answer.show.number for answer in own), default=-1)
    draw = random.Random(f"{settings.seed}|{rater}|{number}")
    coin = random.Random(f"{settings.seed}|order|{token}")
    answers = _by_group(own)
    for find, block in product((_regular, _abandoned), _blocks(study, own, turn)):  # abandoned knockouts come last
        state = _State(study, plans[block], counts, flips, answers, draw, coin)
        regular = find(state)
        if regular is not None:  # checks or repetitions without it would add nothing
            in_block = own if block is None else [answer for answer in own if answer.question == block]
            return _check_or_repeat(state, own, _repeatable(in_block, number), number, rater) or regular
    return None


def total(study: Study, own: Sequence[Judgement], counts: Counts, *, rater: str) -> int:
    """Estimates how many shows a rater will have seen at the end if nobody else continues; for a progress bar.

    Args:
        study, own, counts, rater: see :func:`next_show`.
    """
    settings, plan = study.settings, _plans(study)[None]
    state = _State(study, plan, counts, {}, _by_group(own), random.Random(), random.Random())
    left = int(np.count_nonzero(state.wanted()[: len(plan.units)]))
    for name, entries in plan.knockouts.items():
        match = next_match(entries, state.answers.get(name, {}))
        if match and (match[0] or state.is_free(name)):
            left += len(entries) - 1 - match[0]
    if left == 0:
        return len(own)
    done = sum(answer.regular for answer in own)

    def due(number: int) -> int:
        checks = min(len(plan.checks), _due(study, "check", number, rater))
        return checks + _due(study, "repeat", number, rater)

    end = max(len(own) + left, _shows_with(done + left, due))
    return end if settings.tasks_per_rater is None else max(len(own), min(end, settings.tasks_per_rater))


def _blocks(study: Study, own: Sequence[Judgement], turn: int) -> Sequence[str | None]:
    """The blocks that may have something left, the current one first; `None` stands for all questions at once."""
    if study.settings.order == "mixed":
        return [None]
    blocks = block_order([question.key for question in study.settings.questions], turn, seed=study.settings.seed)
    last = max(own, key=lambda answer: answer.show.number, default=None)
    return blocks if last is None else sorted(blocks, key=lambda key: key != last.question)


@lru_cache(maxsize=4)
def _plans(study: Study) -> Mapping[str | None, _Plan]:
    """Plans of all groups (`None`) and of the groups of each question, made once for each opened study."""
    settings = study.settings
    questions = {question.key: question for question in settings.questions}
    knockouts = {
        group.id: knockout_order(group, settings.seed)
        for group in study.groups
        if is_knockout(group, questions[group.question], settings)
    }
    units: list[Unit] = []
    checks: list[Unit] = []
    for group in study.groups:
        if group.id not in knockouts:
            of_kind = units if group.expected is None else checks
            members = units_of(group, questions[group.question], seed=settings.seed)
            of_kind += [(group.id, indices) for indices in members]
    plans: dict[str | None, _Plan] = {None: _Plan(units, knockouts, checks)}
    for question in study.settings.questions:
        names = {group.id for group in study.groups if group.question == question.key}
        plans[question.key] = _Plan(
            units=[unit for unit in units if unit[0] in names],
            knockouts={name: entries for name, entries in knockouts.items() if name in names},
            checks=[unit for unit in checks if unit[0] in names],
        )
    return plans


def _by_group(own: Sequence[Judgement]) -> Mapping[str, Mapping[Members, Answer]]:
    answers: dict[str, dict[Members, Answer]] = {}
    for answer in own:
        of_group = answers.setdefault(answer.show.group, {})
        if answer.show.repeat_of is None:
            of_group[answer.show.members] = answer.answer
    return answers


def _check_or_repeat(
    state: _State, own: Sequence[Judgement], repeatable: Sequence[Judgement], number: int, rater: str
) -> Proposal | None:
    """An attention check or a repetition, if one is due and available."""
    checks = [unit for unit in state.plan.checks if unit[0] not in state.answers]
    checks_seen = sum(answer.expected is not None for answer in own)
    if checks and checks_seen < _due(state.study, "check", number, rater):
        return state.drawn(state.draw.choice(checks))
    repeats_seen = sum(answer.show.repeat_of is not None for answer in own)
    if repeatable and repeats_seen < _due(state.study, "repeat", number, rater):
        show = state.draw.choice(repeatable).show
        return state.drawn(show.unit, repeat_of=show.token)
    return None


def _regular(state: _State) -> Proposal | None:
    """The next show that is neither a check nor a repetition."""
    unit = _begun(state) or _untouched(state) or _rarest(state)
    return state.balanced(unit) if unit else None


def _abandoned(state: _State) -> Proposal | None:
    """The start of a knockout that somebody else has not finished."""
    knockouts = state.plan.knockouts
    pairs = [_opening(name, knockouts[name]) for name in knockouts if name not in state.answers and state.is_free(name)]
    pair = min(pairs, key=lambda pair: (state.counts.get(pair, 0), state.draw.random()), default=None)
    return state.balanced(pair) if pair else None


def _begun(state: _State) -> Unit | None:
    """The next comparison of a knockout that this rater has begun: a group is finished before the next one."""
    for name, answers in state.answers.items():
        if name in state.plan.knockouts:
            match = next_match(state.plan.knockouts[name], answers)
            if match:
                return name, match[1]
    return None


def _untouched(state: _State) -> Unit | None:
    """A unit that nobody has, if a few draws find one: no unit can be rarer."""
    plan = state.plan
    if not plan.units or plan.knockouts:
        return None
    for _ in range(_PROBES):
        unit = plan.units[state.draw.randrange(len(plan.units))]
        if not state.counts.get(unit, 0) and state.is_open(unit):
            return unit
    return None


def _rarest(state: _State) -> Unit | None:
    """A unit with the fewest raters."""
    wanted, numbers = state.wanted(), numbers_of(state.counts, state.plan.begins)
    if not wanted.any():
        return None
    rarest = np.flatnonzero(wanted & (numbers == numbers[wanted].min()))
    unit: Unit = state.plan.begins.units[state.draw.choice(rarest)]
    return unit


def _opening(group: str, entries: Sequence[int]) -> Unit:
    return group, (min(entries[:2]), max(entries[:2]))
