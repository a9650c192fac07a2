"""A server of the rating page alone, which shows tasks that a test made and notes the answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from seedpo.study.app import STATIC
from seedpo.study.security import HEADERS
from seedpo.study.site import templates
from tests.study.browser.site import picture

ADDRESS = "/r/somebody"
CHOICES = {
    "pair": ["left", "right", "tie", "bad", "skip"],
    "single": ["like", "dislike", "skip"],
    "best-worst": ["ranked", "bad", "skip"],
}


def task(number: int, form: str, images: int, *, in_set: int = 1, ratio: float = 1.0, **more: Any) -> dict[str, Any]:
    """What the page gets of one task."""
    names = [[f"{ADDRESS}/image/{number}{place}{index}" for index in range(in_set)] for place in range(images)]
    text = {"pair": "Which is better?", "single": "Do you like it?", "best-worst": "Which is best, which worst?"}
    return {
        "show": f"show-{number}",
        "form": form,
        "question": text[form],
        "prompt": f"prompt number {number}",
        "layout": "image" if in_set == 1 else "set",
        "items": names,
        "choices": CHOICES[form],
        "ratio": ratio,
    } | more


@dataclass
class StandIn:
    """What is shown and what was answered.

    Attributes:
        tasks: shown one after the other.
        answers: bodies of votes by show; the last one counts.
        url: of the server.
    """

    tasks: Sequence[dict[str, Any]]
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    url: str = ""

    @property
    def link(self) -> str:
        """The page."""
        return f"{self.url}{ADDRESS}"

    def state(self) -> dict[str, Any]:
        """The answer to a task or vote."""
        left = [task for task in self.tasks if task["show"] not in self.answers]
        preload = [image for task in left[1:2] for item in task["items"] for image in item]
        progress = {"done": len(self.answers), "total": len(self.tasks)}
        return {"task": left[0] if left else None, "progress": progress, "preload": sorted(preload), "csrf": "token"}

    async def page(self, _: Request) -> Response:
        values = {"title": "A study", "version": "0", "address": ADDRESS, "kind": "study", "instructions": "Look."}
        return HTMLResponse(templates().get_template("task.html.j2").render(**values), headers=HEADERS)

    async def task(self, _: Request) -> Response:
        return JSONResponse(self.state())

    async def vote(self, request: Request) -> Response:
        body = await request.json()
        self.answers[body["show"]] = body
        return JSONResponse({"saved": True} | self.state())

    async def previous(self, request: Request) -> Response:
        shows = [task["show"] for task in self.tasks]
        before = request.query_params.get("before")
        row = shows.index(before) if before else len(shows)
        return JSONResponse({"task": self.tasks[row - 1] if row else None})

    async def image(self, request: Request) -> Response:
        return Response(picture(int(request.path_params["name"])), media_type="image/png")

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        content = files("seedpo.study").joinpath("static", name).read_bytes()
        return Response(content, media_type=STATIC[name])


@contextmanager
def standing_in(tasks: Sequence[dict[str, Any]]) -> Iterator[StandIn]:
    """The page with these tasks, served in a thread of this process."""
    stand_in = StandIn(tasks)
    routes = [
        Route(ADDRESS, stand_in.page),
        Route(f"{ADDRESS}/task", stand_in.task),
        Route(f"{ADDRESS}/vote", stand_in.vote, methods=["POST"]),
        Route(f"{ADDRESS}/previous", stand_in.previous),
        Route(f"{ADDRESS}/image/{{name}}", stand_in.image),
        Route("/static/{name}", stand_in.static),
    ]
    config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=0, log_level="error", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended at once"
            time.sleep(0.01)
        stand_in.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield stand_in
    finally:
        server.should_exit = True
        thread.join(10.0)
