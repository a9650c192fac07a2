"""Every preference set and prompt set that has a name. Nothing heavy is imported before one is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seedpo.registry import Entry, Registry


@dataclass(frozen=True, kw_only=True)
class PromptSet(Entry):
    """A registered prompt set; its target is a function that gives the prompts: texts, or records where more is known.

    Attributes:
        published: whether the target takes ``place``, the user's own copy of the files (``NAME@PLACE``).
        drawn: whether the target takes ``seed``.
        facts: licence, as far as the publisher states it, and size of the files where it is known.
    """

    published: bool = False
    drawn: bool = False
    facts: Sequence[str] = ()


DATA = Registry(
    "preference set",
    (
        Entry(
            name="scenes-pairs",
            target="seedpo.scenes.shipped:scenes_pairs",
            summary="3000 pairs of drawings with the choices of a simulated annotator, made on first use",
        ),
        Entry(
            name="scenes-scorer-pairs",
            target="seedpo.scenes.shipped:scorer_pairs",
            summary="2500 pairs more, of which the embedded scorer is made",
        ),
        Entry(
            name="scenes-held-out-pairs",
            target="seedpo.scenes.shipped:held_out_pairs",
            summary="1000 pairs more, that nothing is trained on",
        ),
    ),
)

PROMPTS = Registry(
    "prompt set",
    (
        PromptSet(
            name="scenes-training",
            target="seedpo.scenes.shipped:training_prompts",
            summary="416 prompts of the embedded world",
        ),
        PromptSet(
            name="scenes-evaluation",
            target="seedpo.scenes.shipped:evaluation_prompts",
            summary="64 held-out prompts of the embedded world",
        ),
        PromptSet(
            name="animals",
            target="seedpo.data.prompts.prompt_files:animals",
            summary="45 animals, one word each, on which DDPO and D3PO were trained",
        ),
        PromptSet(
            name="general-evaluation",
            target="seedpo.data.prompts.prompt_files:general_evaluation",
            summary="24 prompts of everyday scenes, for evaluations of any model",
        ),
        PromptSet(
            name="pickapic-validation",
            target="seedpo.data.prompts.prompt_sets:PICKAPIC",
            summary="Pick-a-Pic v1, split validation_unique; from the hub, or pickapic-validation@FOLDER",
            published=True,
            facts=("no licence stated",),
        ),
        PromptSet(
            name="parti",
            target="seedpo.data.prompts.prompt_sets:PARTI",
            summary="PartiPrompts; from the hub, or parti@PartiPrompts.tsv",
            published=True,
            facts=("Apache-2.0", "0.1 MB"),
        ),
        PromptSet(
            name="hpsv2",
            target="seedpo.data.prompts.prompt_sets:HPSV2",
            summary="the benchmark prompts of HPSv2, four styles; from the hub, or hpsv2@FOLDER",
            published=True,
            facts=("Apache-2.0",),
        ),
        PromptSet(
            name="hpdv3",
            target="seedpo.data.prompts.prompt_sets:HPDV3",
            summary="the benchmark prompts of HPSv3, twelve categories; from the hub, or hpdv3@FOLDER",
            published=True,
            facts=("MIT",),
        ),
        PromptSet(
            name="study-300",
            target="seedpo.data.prompts.prompt_sets:study_300",
            summary="100 of parti and 200 of hpsv2, drawn by seed; from the hub, or study-300@FOLDER with both",
            published=True,
            drawn=True,
        ),
        PromptSet(
            name="geneval2",
            target="seedpo.data.prompts.prompt_sets:GENEVAL2",
            summary="GenEval 2: 800 prompts of 3 to 10 atoms, with questions; geneval2@geneval2_data.jsonl",
            published=True,
            facts=("CC BY-NC 4.0", "0.4 MB"),
        ),
        PromptSet(
            name="dpg",
            target="seedpo.data.prompts.prompt_sets:DPG",
            summary="DPG-Bench: 1065 long prompts, with questions; dpg@dpg_bench.csv",
            published=True,
            facts=("Apache-2.0",),
        ),
        PromptSet(
            name="ocr-training",
            target="seedpo.data.prompts.prompt_sets:OCR_TRAINING",
            summary='Flow-GRPO\'s prompts with a text to be drawn in "quotes"; ocr-training@train.txt',
            published=True,
            facts=("MIT",),
        ),
        PromptSet(
            name="ocr-test",
            target="seedpo.data.prompts.prompt_sets:OCR_TEST",
            summary="1018 prompts like them, for evaluations; ocr-test@test.txt",
            published=True,
            facts=("MIT", "0.2 MB"),
        ),
    ),
)
