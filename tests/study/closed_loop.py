"""A study served over HTTP, and simulated people who judge the embedded world's images by its truth."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from seedpo.scenes.taste import TIE, true_utility
from seedpo.study.folder import open_study
from seedpo.study.simulated import Choice, Judge, SimulatedRater, Task
from seedpo.study.votes.store import Store
from seedpo.study.web.security import Limits
from seedpo.study.web.serving import serving_aside

BUSY = Limits(requests=1e6, requests_burst=1e6, images=1e6, images_burst=1e6)


LIKED = 1.0
"""Utility above which a single image is liked: about half of careless drawings."""


def by_the_truth(task: Task, items: Sequence[Sequence[Image.Image]]) -> Choice:
    """The annotator without noise: whichever image has the higher true utility, a tie if two are close."""
    pixels = np.stack([np.asarray(image, dtype=np.float32) / 255.0 for image, *_ in items])
    truth = true_utility(torch.from_numpy(pixels).permute(0, 3, 1, 2), [task.prompt] * len(items)).tolist()
    if task.form == "single":
        return "like" if truth[0] > LIKED else "dislike"
    if task.form == "best-worst":
        return truth.index(max(truth)), truth.index(min(truth))
    if abs(truth[0] - truth[1]) < TIE:
        return "tie"
    return "left" if truth[0] > truth[1] else "right"


@contextmanager
def people(folder: Path, judge: Judge = by_the_truth, *, raters: int = 1) -> Iterator[None]:
    """Raters who vote over HTTP on whatever the study asks, until the end."""
    store = Store.open(open_study(folder))
    tokens = [token for _, token in store.add_raters([""] * raters)]
    store.close()
    over = threading.Event()

    def vote(address: str) -> None:
        with ExitStack() as stack:
            voting = [stack.enter_context(SimulatedRater(address, token)) for token in tokens]
            for rater in voting:
                rater.begin()
            while not over.wait(0.1):  # long enough to leave the processor to the training
                for rater in voting:
                    task = rater.task()
                    while task is not None and not over.is_set():
                        _, task = rater.vote(task, judge(task, [rater.images(item) for item in task.items]))

    with serving_aside(folder, limits=BUSY) as address:
        thread = threading.Thread(target=vote, args=(address,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
