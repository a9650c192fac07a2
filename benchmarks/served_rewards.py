"""How many images a second a served reward scores on this machine, and the processor time that it takes.

    python -m benchmarks.served_rewards [--images N]

The server is a process of its own, as `seedpo reward serve jpeg-compressibility` starts it. Each picture is
smooth with a little noise, so that its PNG is about as large as that of a photograph. Processor time, of client and
server, is read from Linux's /proc; it says more than the clock where other work shares the cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from seedpo.rewards.named import build_reward
from seedpo.rewards.remote.http_reward import HttpReward
from seedpo.rewards.remote.images import png_bytes
from seedpo.rewards.settings import HttpSettings

REWARD = "jpeg-compressibility"


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-u", "-m", "seedpo", "reward", "serve", REWARD, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1].removesuffix(f"/{REWARD}"), process.pid
    finally:
        process.terminate()
        process.wait()


def drawn(side: int, count: int) -> Tensor:
    """Smooth pictures with a little noise, about as large in PNG as photographs are."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((count, 3, 8, 8), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return (smooth + 0.02 * torch.randn(smooth.shape, generator=generator)).clamp(0.0, 1.0)


def encoded(pixels: Tensor) -> list[bytes]:
    return [png_bytes(image) for image in pixels]


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(call: Callable[..., object], *arguments: object, processes: tuple[int, ...]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    start, busy = time.perf_counter(), sum(map(processor_seconds, processes))
    call(*arguments)
    return time.perf_counter() - start, sum(map(processor_seconds, processes)) - busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    count = parser.parse_args().images
    home, own = build_reward(REWARD), os.getpid()
    print("| side, bytes an image | way | images a second | processor ms an image |")
    print("| --- | --- | --- | --- |")
    with server() as (url, other):
        for side in (64, 512):
            images, prompts = drawn(side, count), [f"prompt {row}" for row in range(count)]
            pixels = (images * 255.0).round().to(torch.uint8)
            ways = {
                "at home": measured(home, images, prompts, processes=(own,)),
                "PNG alone": measured(encoded, pixels, processes=(own,)),
            }
            for concurrency in (1, 4):
                away = HttpReward("far", HttpSettings(url=url, reward=REWARD, concurrency=concurrency, batch_size=8))
                assert torch.equal(away(images[:8], prompts[:8]), home(images[:8], prompts[:8]))
                what = f"served, {concurrency} at once"
                ways[what] = measured(away, images, prompts, processes=(own, other))
            size = sum(map(len, encoded(pixels))) // count
            for way, (clock, processor) in ways.items():
                print(f"| {side} px, {size:,} | {way} | {count / clock:,.0f} | {1000.0 * processor / count:.1f} |")


if __name__ == "__main__":
    main()
