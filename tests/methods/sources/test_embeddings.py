from __future__ import annotations

import torch

from seedpo.methods.sources.embeddings import PromptEmbeddings
from tests.methods.sources.toys import NumberEmbedder
from tests.models.tiny import PROMPTS, tiny_policy


def test_each_prompt_is_embedded_once_and_by_itself() -> None:
    embedder = NumberEmbedder()
    embeddings = PromptEmbeddings(embedder)  # type: ignore[arg-type]
    for _ in range(2):
        rows = embeddings.of(["3", "1", "3"])
        assert rows.prompt_embeds.flatten().tolist() == [3.0, 1.0, 3.0]
    assert embeddings.negative(4).prompt_embeds.flatten().tolist() == [-1.0] * 4
    embeddings.negative(2)
    assert embedder.embedded == [["3"], ["1"], [""]]


def test_forgets_all_but_what_is_in_use_and_the_negative_prompt() -> None:
    embedder = NumberEmbedder()
    embeddings = PromptEmbeddings(embedder)  # type: ignore[arg-type]
    embeddings.of(["1", "2"])
    embeddings.negative(1)
    embeddings.forget_all_but(["2"])
    embeddings.of(["1", "2"])
    embeddings.negative(1)
    assert embedder.embedded == [["1"], ["2"], [""], ["1"]]


def test_numbers_do_not_depend_on_the_prompts_beside_it() -> None:
    """With a real text encoder: a resumed run embeds other prompts together."""
    policy = tiny_policy()
    together, alone = PromptEmbeddings(policy), PromptEmbeddings(policy)
    rows = together.of(PROMPTS)
    for index, prompt in enumerate(PROMPTS):
        assert torch.equal(alone.of([prompt]).prompt_embeds[0], rows.prompt_embeds[index])
        alone.forget_all_but([])
