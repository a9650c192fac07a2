from __future__ import annotations

from collections.abc import Iterator

import pytest

from seedpo.scenes.shipped import few_labels_scorer, plain_scorer, scenes_scorer


@pytest.fixture
def loaded_anew_afterwards() -> Iterator[None]:
    """Embedded scorers are loaded once per process: other tests must not see weights that were rounded to 16 bits."""
    yield
    for loader in (scenes_scorer, plain_scorer, few_labels_scorer):
        loader.cache_clear()
