"""A server that answers as a test tells it: well, late, with lies, or not at all."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


def as_json(content: Any, status: int = 200, **headers: str) -> Answer:
    return status, {"content-type": "application/json", **headers}, json.dumps(content).encode()


@dataclass
class StandIn:
    """What a server is asked, and how it answers.

    Attributes:
        answer: of method, path and JSON body.
        asked: method, path, headers and body of each request.
        busiest: most requests that were under way at once.
    """

    answer: Callable[[str, str, Any], Answer | Callable[[Any], None]]
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    busiest: int = 0
    busy: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def posts(self) -> list[Any]:
        return [body for method, _, _, body in self.asked if method == "POST"]


@contextmanager
def served(answer: Callable[[str, str, Any], Answer | Callable[[Any], None]]) -> Iterator[StandIn]:
    """A server in a thread; an answer may also be a function, which writes to the socket what it likes."""
    stand_in = StandIn(answer)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # the client had enough
                self.close_connection = True

        def do_GET(self) -> None:
            self._answer("GET", None)

        def do_POST(self) -> None:
            self._answer("POST", json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _answer(self, method: str, body: Any) -> None:
            with stand_in.lock:
                stand_in.asked.append((method, self.path, dict(self.headers.items()), body))
                stand_in.busy += 1
                stand_in.busiest = max(stand_in.busiest, stand_in.busy)
            try:
                answer = stand_in.answer(method, self.path, body)
            finally:
                with stand_in.lock:
                    stand_in.busy -= 1
            if callable(answer):
                self.close_connection = True
                answer(self.connection)
                return
            status, headers, content = answer
            self.send_response(status)
            for name, value in {"content-length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def offers(name: str = "size", *, version: str = "v1", step_aware: bool = False, max_images: int = 64) -> Answer:
    offer = {"name": name, "version": version, "step_aware": step_aware, "max_images": max_images}
    return as_json({"protocol": 1, "rewards": [offer]})


def scored(body: Any, score: Callable[[bytes, str], Any], *, version: str = "v1") -> dict[str, Any]:
    """What an honest server answers."""
    times = body.get("timesteps") or [None] * len(body["images"])
    rows = []
    for image, prompt, timestep in zip(body["images"], body["prompts"], times, strict=True):
        file = base64.b64decode(image)
        echo = {"image": hashlib.sha256(file).hexdigest(), "prompt": prompt, "timestep": timestep}
        rows.append({**echo, "score": score(file, prompt)})
    return {"version": version, "scores": rows}


def slowly(parts: list[bytes], pause: float) -> Callable[[Any], None]:
    """Writes parts with pauses between them."""

    def write(connection: Any) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)

    return write
