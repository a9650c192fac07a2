"""What raters read in a new study, until someone edits ``study.yaml``."""

from __future__ import annotations

from collections.abc import Mapping

from seedpo.study.settings import Kind, Question

QUESTIONS: Mapping[str, Question] = {
    question.key: question
    for question in (
        Question(key="preference", text="Which image do you prefer overall, given the prompt?"),
        Question(key="appeal", text="Which image looks better, whatever the prompt says?"),
        Question(key="alignment", text="Which image shows better what the prompt describes?"),
        Question(
            key="diversity",
            text="Which side has more variety: whose three images differ more from the first one and from each other?",
            shows="set",
            choices=("left", "right", "tie", "skip"),
        ),
    )
}
"""The questions of SEE-DPO's user study (arXiv 2411.04712, Fig. 3), by key."""

TITLES: Mapping[Kind, str] = {"collect": "Which image is better?", "study": "Comparing images"}

CONSENT = """\
You will be shown pairs of computer-made images and asked which one you find better.

We store your answers, how long each took, and when you gave it, under a random number. We store no name, no address and
nothing about your device. The answers are used for research and to train image models, and may be published in this
anonymous form.

Taking part is voluntary. You can stop at any time, and come back later by your personal link.
Some images may be unpleasant: you can skip any of them.
"""

INSTRUCTIONS = """\
Read the prompt, look at both sides, and answer the question above them. There is no right answer: we want to know what
you think. Where both sides are equally good, choose "tie"; where both are too poor to choose, "both bad", if it is
offered; where you would rather not answer, "skip".

Keys: left arrow or 1 for the left side, right arrow or 2 for the right side, down arrow or 3 for a tie, B for both bad,
S to skip, Backspace to go back. Some pairs come twice, and a few are there to see that nobody clicks blindly.
"""
