from __future__ import annotations

import logging

import pytest

from seedpo.models.catalogue import MODELS, loading_keys, warn_of_unknown_words
from seedpo.models.settings import ModelSettings
from seedpo.scenes.prompts import EVALUATION_PROMPTS, TRAINING_PROMPTS


@pytest.mark.parametrize("model", MODELS.names())
def test_unknown_words_are_warned_of_by_prompt(model: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_unknown_words(model, [TRAINING_PROMPTS[0], "a red owl", "a cat, sitting"])
    assert [record.getMessage() for record in caplog.records] == [
        f"prompt 'a red owl': the embedded model {model} has never seen 'owl'",
        f"prompt 'a cat, sitting': the embedded model {model} has never seen 'cat', 'sitting'",
    ]


def test_known_words_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unknown_words("scenes", [*TRAINING_PROMPTS, *EVALUATION_PROMPTS])
    assert not caplog.records


def test_other_models_may_know_any_word(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unknown_words("some/folder", ["a red owl"])
    assert not caplog.records


def test_keys_of_loading_are_keys_of_a_model() -> None:
    for model in MODELS.names():
        assert set(loading_keys(model)) <= set(ModelSettings.model_fields)
    assert loading_keys("scenes-flow") == {"max_sequence_length": 1}
    assert not loading_keys("some/folder")


def test_keys_of_loading_are_keys_of_a_run() -> None:
    for row in MODELS.entries:
        keys, _ = row.layers("spo")
        assert {key: keys[key] for key in row.loading} == row.loading
