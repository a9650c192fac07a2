"""Every preference set and prompt set that has a name. Nothing heavy is imported before one is used."""

from __future__ import annotations

from dataclasses import dataclass

from seedpo.registry import Entry, Registry


@dataclass(frozen=True, kw_only=True)
class PromptSet(Entry):
    """A registered prompt set; its target is a function that gives the prompts.

    Attributes:
        published: whether the target takes ``place``, the user's own copy of the files (``NAME@PLACE``).
        drawn: whether the target takes ``seed``.
    """

    published: bool = False
    drawn: bool = False


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
        ),
        PromptSet(
            name="parti",
            target="seedpo.data.prompts.prompt_sets:PARTI",
            summary="PartiPrompts; from the hub, or parti@PartiPrompts.tsv",
            published=True,
        ),
        PromptSet(
            name="hpsv2",
            target="seedpo.data.prompts.prompt_sets:HPSV2",
            summary="the benchmark prompts of HPSv2, four styles; from the hub, or hpsv2@FOLDER",
            published=True,
        ),
        PromptSet(
            name="study-300",
            target="seedpo.data.prompts.prompt_sets:study_300",
            summary="100 of parti and 200 of hpsv2, drawn by seed; from the hub, or study-300@FOLDER with both",
            published=True,
            drawn=True,
        ),
    ),
)
