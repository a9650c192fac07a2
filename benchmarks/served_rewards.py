"""How many images a second a served reward scores on this machine, and where the time goes.

    python -m benchmarks.served_rewards [--images N]

The server is a process of its own, as `seedpo reward serve jpeg-compressibility` starts it. Each picture is
smooth with a little noise, so that its PNG is about as large as that of a photograph.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from seedpo.rewards.named import build_reward
from seedpo.rewards.remote.http_reward import HttpReward
from seedpo.rewards.remote.images import png_bytes
from seedpo.rewards.settings import HttpSettings

REWARD = "jpeg-compressibility"


@contextmanager
def server() -> Iterator[str]:
    command = [sys.executable, "-u", "-m", "seedpo", "reward", "serve", REWARD, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1].removesuffix(f"/{REWARD}")
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


def seconds(call: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    count = parser.parse_args().images
    home = build_reward(REWARD)
    print("| side | at home | PNG alone | served, 1 request at once | served, 4 at once | bytes an image |")
    print("| --- | --- | --- | --- | --- | --- |")
    with server() as url:
        for side in (64, 512):
            images, prompts = drawn(side, count), [f"prompt {row}" for row in range(count)]
            pixels = (images * 255.0).round().to(torch.uint8)
            rates = [count / seconds(home, images, prompts)]
            rates.append(count / seconds(encoded, pixels))
            for concurrency in (1, 4):
                away = HttpReward("far", HttpSettings(url=url, reward=REWARD, concurrency=concurrency, batch_size=8))
                assert torch.equal(away(images[:8], prompts[:8]), home(images[:8], prompts[:8]))
                rates.append(count / min(seconds(away, images, prompts) for _ in range(3)))
            size = sum(map(len, encoded(pixels))) // count
            print(f"| {side} px | {' | '.join(f'{rate:,.0f}' for rate in rates)} | {size:,} |")


if __name__ == "__main__":
    main()
