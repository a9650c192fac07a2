"""Studies and votes made from a seed, without a store: what analyses are tested on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from seedpo.study.folder import Study
from seedpo.study.records import Answer, Candidate, Judgement, Show
from seedpo.study.settings import Question, StudySettings

QUESTIONS = (
    Question(key="preference", text="Which image do you prefer?"),
    Question(key="alignment", text="Which image fits the prompt better?"),
)


def made_study(
    kind: str = "study", questions: Sequence[Question] = QUESTIONS, title: str = "Pilot", **others: object
) -> Study:
    settings = StudySettings(id="a" * 32, title=title, kind=kind, questions=tuple(questions), **others)
    return Study(folder=Path("pilot"), settings=settings, groups=())


def judgement(
    answer: Answer,
    *,
    rater: str = "r1",
    prompt: str = "a red star",
    sources: tuple[str, str] = ("base", "see"),
    question: str = "preference",
    number: int = 0,
    **changes: object,
) -> Judgement:
    order = (int(changes.pop("first_index", 0)), int(changes.pop("second_index", 1)))
    show = Show(
        token=str(changes.pop("token", f"{rater}-{question}-{number}")),
        rater=rater,
        group=str(changes.pop("group", f"{question}:{prompt}:{'/'.join(sources)}")),
        order=order[::-1] if changes.pop("flipped", False) else order,
        number=number,
        repeat_of=changes.pop("repeat_of", None),
    )
    candidates = tuple(Candidate(source=source, images=(f"{source}-{prompt}",)) for source in sources)
    values = {"category": "", "seconds": 4.0, **changes}
    return Judgement(show=show, question=question, prompt=prompt, candidates=candidates, answer=answer, **values)


def simulated(
    strengths: Mapping[str, float],
    *,
    seed: int = 0,
    raters: int = 12,
    prompts: int = 40,
    per_pair: int = 3,
    lean: float = 0.6,
    questions: Sequence[str] = ("preference", "alignment"),
) -> list[Judgement]:
    """Votes of honest raters by Davidson's model, with prompts that lean to one side; checks and repetitions too."""
    generator = np.random.default_rng(seed)
    models, found, numbers = sorted(strengths), [], dict.fromkeys(range(raters), 0)
    pairs = [(a, b) for index, a in enumerate(models) for b in models[index + 1 :]]
    for question in questions:
        for at in range(prompts):
            for a, b in pairs:
                worth = strengths[a] - strengths[b] + generator.normal(0, lean)
                for rater in generator.permutation(raters)[:per_pair]:
                    odds = np.array([math.exp(worth / 2), 0.4, 0.1, math.exp(-worth / 2)])
                    answer = ("first", "tie", "bad", "second")[int(generator.choice(4, p=odds / odds.sum()))]
                    found.append(
                        judgement(
                            answer,
                            rater=f"r{rater + 1:02d}",
                            prompt=f"prompt {at}",
                            sources=(a, b),
                            question=question,
                            number=numbers[int(rater)],
                            flipped=bool(generator.random() < 0.5),
                            category=("people", "animals", "places")[at % 3],
                            seconds=float(generator.lognormal(1.3, 0.4)),
                        )
                    )
                    numbers[int(rater)] += 1
    return found


def check(passed: bool, *, rater: str, number: int) -> Judgement:
    return judgement(
        "first" if passed else "second",
        rater=rater,
        number=number,
        prompt="a check",
        sources=("good", "poor"),
        expected="first",
        token=f"check-{rater}-{number}",
    )


def repetition(original: Judgement, answer: Answer, *, number: int) -> Judgement:
    return judgement(
        answer,
        rater=original.show.rater,
        prompt=original.prompt,
        sources=(original.first.source, original.second.source),
        question=original.question,
        number=number,
        flipped=not original.show.flipped,
        repeat_of=original.show.token,
        token=f"again-{original.show.token}",
    )
