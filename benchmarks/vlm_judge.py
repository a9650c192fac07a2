"""Trains the embedded model by a judge behind OpenAI's chat completions: ``python -m benchmarks.vlm_judge``.

The judge stands in for a vision-language model. It decodes the PNG files of a request, reads the caption in the words
of the question, and answers by the oracle of the embedded world: a rating in half points, which image is better, or
the probability of yes. So the true utility must rise if the whole way from image to score is right.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import math
import re
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.table import aligned
from seedpo.scenes.taste import true_utility
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train

_CAPTION = re.compile(r'caption[^"]*"([^"]+)"', re.IGNORECASE)

TIE = 0.1
"""Utility below which the judge finds two images equal."""


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """The chat completion for a request."""
    parts = body["messages"][-1]["content"]
    caption = _CAPTION.search("".join(part.get("text", "") for part in parts))
    if caption is None:
        raise ValueError("the question has no caption")
    files = [part["image_url"]["url"].partition(",")[2] for part in parts if part["type"] == "image_url"]
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(file)))) for file in files]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255.0
    utility = true_utility(images, [caption[1]] * len(images)).tolist()
    if len(utility) == 2:
        first, second = utility
        better = "neither" if abs(first - second) < TIE else "Image 1" if first > second else "Image 2"
        return completion(f"Better: {better}")
    if body.get("logprobs"):
        return completion("Yes", 1.0 / (1.0 + math.exp(-utility[0])))
    return completion(f"Score: {min(max(round(2 * (4 + 2 * utility[0])) / 2, 1), 10):g}")


def completion(text: str, yes: float | None = None) -> dict[str, Any]:
    """A chat completion; ``yes`` is the probability of the first token Yes."""
    row: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if yes is not None:
        top = [{"token": word, "logprob": math.log(value)} for word, value in (("Yes", yes), ("No", 1.0 - yes))]
        row["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    return {"object": "chat.completion", "choices": [row]}


@contextmanager
def judge() -> Iterator[str]:
    """The judge as a server on this machine; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = json.dumps(answer(json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def truth_of_run(method: str, template: str, *, seed: int, folder: Path, **changes: Any) -> list[float]:
    """True utility before and after a run that is trained by the judge.

    Args:
        method: of the run.
        template: what the judge is asked.
        seed: of the run.
        folder: of the run.
        changes: other keys of the run.
    """
    with judge() as url:
        settings = {
            "model": "scenes",
            "reward": "judge",
            "rewards": {"judge": {"vlm": {"url": url, "model": "oracle", "template": template}}},
            "seed": seed,
            "evaluate_every": 0,
            "evaluation": {"rewards": [], "metrics": ["truth"]},
            **changes,
        }
        train(resolve_config(method, settings), folder, progress=False)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [line["truth"] for line in lines if line["kind"] == "evaluation"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vlm_judge", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", default="flow-grpo", help="flow-grpo (default), d3po, dgpo or another that draws")
    parser.add_argument("--templates", default="score-1-10", help="score-1-10 (default), pair, yes-no; commas between")
    parser.add_argument("--seeds", default="0,1", help="commas between (default: 0,1)")
    parser.add_argument("--steps", type=int, default=24, help="optimiser steps of each run (default: 24)")
    options = parser.parse_args(arguments)
    cases = [(name, int(seed)) for name in options.templates.split(",") for seed in options.seeds.split(",")]
    table = [("template", "seed", "truth before", "truth after")]
    with tempfile.TemporaryDirectory() as folder:
        for name, seed in tqdm(cases, unit="run"):
            place = Path(folder) / f"{name}-{seed}"
            figures = truth_of_run(options.method, name, seed=seed, folder=place, max_steps=options.steps)
            table.append((name, str(seed), f"{figures[0]:.2f}", f"{figures[-1]:.2f}"))
    print(aligned(table))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
