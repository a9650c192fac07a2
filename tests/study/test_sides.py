"""Nothing that a rater knows foretells which candidate comes on which side."""

from __future__ import annotations

import math
import random
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import pytest

from seedpo.study.assignment import next_show
from seedpo.study.folder import Study
from seedpo.study.records import Candidate, Group, Judgement, Show, Unit, judge
from seedpo.study.settings import Question, StudySettings
from seedpo.study.votes.store import Store
from tests.study.small_study import pairs_of, small_study

DESIGNS = {
    "one rater per pair": {"raters_per_pair": 1},
    "two raters per pair": {"raters_per_pair": 2},
    "three raters per pair": {"raters_per_pair": 3},
    "three models": {"raters_per_pair": 3, "models": 3},
    "three models, two raters, repetitions": {"raters_per_pair": 2, "models": 3, "repeats": 0.3},
    "repetitions and checks": {"raters_per_pair": 3, "repeats": 0.2, "checks": 0.2},
    "knockout": {"raters_per_pair": 3, "images": 4, "tournament": "knockout"},
    "questions in blocks": {"raters_per_pair": 3, "questions": 4, "order": "blocks", "repeats": 0.1},
    "questions mixed": {"raters_per_pair": 2, "models": 3, "questions": 2, "order": "mixed", "repeats": 0.1},
}


def study_of(*, models: int = 2, images: int = 2, questions: int = 1, prompts: int = 80, **keys: object) -> Study:
    """Pairs of models in groups of their own, as in a study of models, or groups of several images; checks too."""
    asked = tuple(Question(key=f"q{number}", text="?") for number in range(questions))
    groups = []
    for prompt in range(prompts // questions):
        for question in asked:
            for number, pair in enumerate(combinations(range(models), 2)):
                members = pair if images == 2 else range(images)
                candidates = tuple(Candidate(source=f"m{at}", images=(f"{at:032x}",)) for at in members)
                name = f"{prompt}-{question.key}-{number}"
                groups.append(Group(id=name, question=question.key, prompt=f"p{prompt}", candidates=candidates))
                if keys.get("checks"):
                    check = replace(groups[-1], id=f"check-{name}", candidates=candidates[:2], expected=prompt % 2)
                    groups.append(check)
    return Study(Path("study"), StudySettings(id="s", questions=asked, seed=7, **keys), tuple(groups))


def histories(study: Study, *, raters: int, seed: int) -> list[list[Judgement]]:
    """Everything that raters saw who answer in a drawn order until nothing is left."""
    draw, active = random.Random(seed), list(range(raters))
    own: list[list[Judgement]] = [[] for _ in range(raters)]
    counts: Counter[Unit] = Counter()
    flips: Counter[Unit] = Counter()
    while active:
        at = draw.choice(active)
        token = f"{draw.getrandbits(144):x}"
        proposal = next_show(study, own[at], counts, flips, rater=f"r{at}", turn=at, token=token)
        if proposal is None:
            active.remove(at)
            continue
        show = Show(token=token, rater=f"r{at}", number=len(own[at]), **vars(proposal))
        own[at].append(judge(show, study.group(show.group), draw.choice(("first", "second", "tie"))))
        if show.repeat_of is None:
            counts[show.unit] += 1
            flips[show.unit] += show.flipped
    return own


@dataclass(frozen=True)
class Seen:
    """A show as a rater sees it who recognises every model: what is compared, and which of it is on the left."""

    models: tuple[str, ...]
    unit: Unit
    flipped: bool


Guess = Callable[[Sequence[Seen], Seen], bool | None]
"""From all earlier shows, and what is compared now, which way round it is; ``None``: no idea."""


def mirror(past: Sequence[Seen], now: Seen) -> bool | None:
    return next((not seen.flipped for seen in reversed(past) if seen.models == now.models), None)


def mirror_of_any(past: Sequence[Seen], now: Seen) -> bool | None:
    return not past[-1].flipped if past else None


def minority(past: Sequence[Seen], now: Seen) -> bool | None:
    lead = sum(1 if seen.flipped else -1 for seen in past)
    return lead < 0 if lead else None


def minority_of_models(past: Sequence[Seen], now: Seen) -> bool | None:
    return minority([seen for seen in past if seen.models == now.models], now)


def mirror_of_the_pair(past: Sequence[Seen], now: Seen) -> bool | None:
    return next((not seen.flipped for seen in reversed(past) if seen.unit == now.unit), None)


def markov(order: int) -> Guess:
    """What came most often after the last ``order`` sides of the same models."""

    def guess(past: Sequence[Seen], now: Seen) -> bool | None:
        sides = [seen.flipped for seen in past if seen.models == now.models]
        after: defaultdict[tuple[bool, ...], Counter[bool]] = defaultdict(Counter)
        for end in range(order, len(sides)):
            after[tuple(sides[end - order : end])][sides[end]] += 1
        common = after[tuple(sides[-order:])].most_common(1)
        return common[0][0] if common else None

    return guess


PREDICTORS: dict[str, Guess] = {
    "mirror": mirror,
    "mirror of any": mirror_of_any,
    "minority": minority,
    "minority of the models": minority_of_models,
    "the same pair": mirror_of_the_pair,
    **{f"Markov {order}": markov(order) for order in (1, 2, 3)},
}


def rights(guess: Guess, own: Sequence[Judgement]) -> Iterator[bool]:
    """Whether each guess was right."""
    past: list[Seen] = []
    for answer in own:
        sources = tuple(candidate.source for candidate in answer.candidates)
        now = Seen(models=sources, unit=answer.show.unit, flipped=answer.show.flipped)
        guessed = guess(past, now)
        if guessed is not None:
            yield guessed is now.flipped
        past.append(now)


@pytest.mark.parametrize("design", DESIGNS)
def test_the_best_guess_from_ones_own_history_is_right_half_the_time(design: str) -> None:
    study = study_of(**DESIGNS[design])
    runs = [own for seed in range(3) for own in histories(study, raters=4, seed=seed)]
    assert sum(map(len, runs)) > 200
    for name, guess in PREDICTORS.items():
        guesses = [right for own in runs for right in rights(guess, own)]
        if name != "the same pair" or study.settings.repeats:
            assert len(guesses) > 30
        # Four standard errors of a fair coin: a rule that is right in 98 % is 20 away with 450 guesses.
        assert abs(sum(guesses) - len(guesses) / 2) <= 2.0 * math.sqrt(len(guesses)), (name, len(guesses), sum(guesses))


def test_the_second_rater_of_a_pair_gets_it_the_other_way_round() -> None:
    study = study_of(raters_per_pair=2, models=3)
    ways: defaultdict[Unit, list[bool]] = defaultdict(list)
    for own in histories(study, raters=3, seed=1):
        for answer in own:
            ways[answer.show.unit].append(answer.show.flipped)
    assert all(sorted(way) == [False, True] for way in ways.values())


def test_whoever_knows_seed_code_and_history_still_sees_a_coin() -> None:
    study = study_of()
    shown = [next_show(study, [], {}, {}, rater="r", token=f"token {number}") for number in range(2000)]
    proposals = [proposal for proposal in shown if proposal is not None]
    assert len({proposal.group for proposal in proposals}) == 1, "only the order on the screen depends on the token"
    assert abs(sum(proposal.order == (1, 0) for proposal in proposals) - 1000) <= 4 * math.sqrt(500)


def test_the_coin_of_a_store_is_the_secret_token_of_the_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study(tmp_path / "study", pairs_of(30), seed=3)
    with Store.open(study) as store:
        rater, _ = store.add_rater()
        tokens = iter([f"token-{number}" for number in range(100)])
        monkeypatch.setattr(secrets, "token_urlsafe", lambda size: next(tokens))
        for number in range(30):
            own = store.judgements()
            show = store.turn(rater).show
            assert show is not None
            answered = {judgement.show.unit: 1 for judgement in own}
            proposal = next_show(study, own, answered, {}, rater=rater, token=f"token-{number}")
            assert proposal is not None
            assert (proposal.group, proposal.order) == (show.group, show.order)
            store.vote(rater, show.token, "left", key=f"{number}")
    assert next(tokens) == "token-31"  # one more was drawn for a show that there was not
