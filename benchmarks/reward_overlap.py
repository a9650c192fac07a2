"""What it saves to ask a slow server about one part of a roll-out while the next is drawn.

    python -m benchmarks.reward_overlap

A server on this machine takes 200 ms for an image, and answers several requests at a time. D3PO's roll-outs of the
embedded model are timed as a whole (``prompts_at_once: none``), in which the model waits for the server, and in parts.
The pairs of parts that are waited for one by one are the same, bit for bit; this is checked.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from seedpo.methods.settings import SamplingConfig, TrajectoryConfig
from seedpo.methods.sources.trajectories import TrajectoryRollout
from seedpo.models.policy import build_policy
from seedpo.models.settings import ModelSettings
from seedpo.rewards.named import CheckedReward
from seedpo.rewards.remote.http_reward import PROTOCOL, HttpReward
from seedpo.rewards.settings import HttpSettings
from seedpo.scenes.prompts import EVALUATION_PROMPTS

SECONDS = 0.2
"""That the server takes for an image."""


class _Slow(BaseHTTPRequestHandler):
    """Scores images by their mean, slowly."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        offer = {"name": "slow", "version": "1", "step_aware": False, "max_images": 64}
        self._answer({"protocol": PROTOCOL, "rewards": [offer]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        files = [base64.b64decode(image) for image in body["images"]]
        time.sleep(SECONDS * len(files))
        scores = [
            {
                "image": hashlib.sha256(file).hexdigest(),
                "prompt": prompt,
                "timestep": None,
                "score": float(np.asarray(Image.open(io.BytesIO(file))).mean()),
            }
            for file, prompt in zip(files, body["prompts"], strict=True)
        ]
        self._answer({"version": "1", "scores": scores})

    def _answer(self, answer: Any) -> None:
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Nothing is written."""


def _serve(told: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    told.send(server.server_port)
    server.serve_forever()


@contextmanager
def slow_server() -> Iterator[str]:
    """The address of a server that takes :data:`SECONDS` for an image, in a process of its own.

    In this one it would wait for the interpreter while the model draws.
    """
    spawned = get_context("spawn")
    here, there = spawned.Pipe()
    process = spawned.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


def timed(policy: Any, reward: Any, *, at_once: int | None, prompts: Sequence[str], steps: int) -> tuple[float, Any]:
    """Seconds of a roll-out, and its pairs."""
    sampling = SamplingConfig(num_inference_steps=steps, guidance_scale=3.0, prompts_at_once=at_once)
    rollout = TrajectoryRollout(policy, reward, sampling=sampling, config=TrajectoryConfig(images_per_prompt=4))
    begun = time.perf_counter()
    pairs, _ = rollout(prompts, generator=torch.Generator().manual_seed(0))
    return time.perf_counter() - begun, pairs


def _same(one: Any, other: Any) -> bool:
    return all(
        torch.equal(value, getattr(other, name)) for name, value in vars(one).items() if isinstance(value, torch.Tensor)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reward_overlap",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=3, help="of every measurement; the median counts")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps")
    parser.add_argument("--parts", type=int, default=2, help="prompts that are drawn at once")
    options = parser.parse_args(arguments)
    policy, prompts = build_policy(ModelSettings(model="scenes")), EVALUATION_PROMPTS[:16]
    print(f"{len(prompts)} prompts of 4 images, {options.steps} steps, {SECONDS * 1000:.0f} ms an image; seconds:")
    with slow_server() as url:
        for concurrency in (1, 4, 16):
            http = HttpReward("slow", HttpSettings(url=url, reward="slow", concurrency=concurrency, batch_size=2))
            rewards = {
                kind: CheckedReward("slow", http, elsewhere=kind == "meanwhile") for kind in ("wait", "meanwhile")
            }
            rows = {
                ("as a whole", "wait"): None,
                ("in parts", "wait"): options.parts,
                ("in parts", "meanwhile"): options.parts,
            }
            seconds, pairs = {}, {}
            for key, at_once in rows.items():
                runs = [
                    timed(policy, rewards[key[1]], at_once=at_once, prompts=prompts, steps=options.steps)
                    for _ in range(options.repeats)
                ]
                seconds[key], pairs[key] = median(one for one, _ in runs), runs[0][1]
            if not _same(pairs["in parts", "wait"], pairs["in parts", "meanwhile"]):
                print("the pairs differ")
                return 1
            whole, parts, meanwhile = seconds.values()
            print(
                f"{concurrency:2d} requests at a time: as a whole {whole:.2f}, in parts {parts:.2f}, judged meanwhile "
                f"{meanwhile:.2f} ({whole / meanwhile:.2f} times as fast)"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
