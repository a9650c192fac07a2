"""People in the place of a reward."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from seedpo.settings import NO_EFFECT, Place, Section


class FeedbackConfig(Section):
    """Images that the policy draws, judged by people through a study (`seedpo study serve`); docs/human-feedback.md."""

    study: Annotated[str | None, Place(output=True)] = None
    """Folder of the study in which people judge the images of roll-outs, in place of `reward`; it is made if there is
    none. None: `reward` judges."""
    question: str | None = None
    """Key of the question that is asked; None: the only one of the study."""
    form: Literal["pair", "best-worst"] | None = None
    """How people are asked: `pair` (which of every two images of a prompt) or `best-worst` (the best and the worst of
    up to 6 in one view; of more, views of 4 are drawn). A study that is made asks so, and one that is there must ask
    so. None: `pair`, or as the study that is there asks."""
    poll_seconds: Annotated[float, NO_EFFECT] = Field(2.0, gt=0.0, le=3600.0)
    """Seconds between two looks at the votes."""
    timeout_hours: Annotated[float | None, NO_EFFECT] = Field(None, gt=0.0)
    """Hours without a new vote after which the run ends, to be resumed later; None: it waits forever."""
