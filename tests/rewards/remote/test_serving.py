from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from seedpo.cli.main import app
from seedpo.errors import ConfigError, RewardServerError
from seedpo.rewards.named import CheckedReward, build_reward, forget
from seedpo.rewards.remote import offers as offers_module
from seedpo.rewards.remote import serving
from seedpo.rewards.remote.http_reward import HttpReward
from seedpo.rewards.remote.images import image_hash, png_bytes
from seedpo.rewards.remote.offers import Limits, Offer, build_offers
from seedpo.rewards.remote.serving import check_serving, serving_aside
from seedpo.rewards.settings import HttpSettings, RewardDefinition
from seedpo.rewards.versions import version_of
from tests.rewards.small_checkpoints import write_clip
from tests.scenes.drawings import some_drawings

PROMPTS = ["a large red circle on a gray background", "a small blue star on a white background"] * 3
SERVED = ["scenes-scorer", "scenes-plain", "jpeg-compressibility", "scenes-truth", "mix"]
MIX = {"mix": RewardDefinition.model_validate({"terms": {"scenes-plain": 2.0, "jpeg-incompressibility": -1.0}})}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    offers = build_offers(SERVED, definitions=MIX, device="cpu")
    with serving_aside(offers, limits=Limits(images=8, megabytes=1)) as address:
        yield address


@pytest.fixture(scope="module")
def drawings() -> Tensor:
    """Drawings whose values are those of 8 bits, as an image that travels has them."""
    return (some_drawings(PROMPTS) * 255.0).round() / 255.0


def at(url: str, reward: str, **settings: Any) -> HttpReward:
    return HttpReward("far", HttpSettings(url=url, reward=reward, retries=0, **settings))


def question(drawn: Tensor, **changes: Any) -> dict[str, Any]:
    files = [png_bytes((image * 255.0).round().to(torch.uint8)) for image in drawn]
    body = {"reward": "jpeg-compressibility", "images": [base64.b64encode(file).decode() for file in files]}
    return {**body, "prompts": PROMPTS[: len(files)], **changes}


class TestScores:
    @pytest.mark.parametrize("name", SERVED)
    def test_they_are_those_of_this_process_to_the_last_bit(self, url: str, drawings: Tensor, name: str) -> None:
        local = build_reward(name, definitions=MIX)(drawings, PROMPTS)
        assert torch.equal(at(url, name)(drawings, PROMPTS), local)
        assert local.unique().numel() > 1

    def test_also_of_previews_at_their_time(self, url: str, drawings: Tensor) -> None:
        reward = at(url, "scenes-scorer")
        assert reward.step_aware
        times = torch.tensor([1, 101, 301, 501, 701, 901])
        local = build_reward("scenes-scorer")(drawings, PROMPTS, timestep=times)
        assert torch.equal(reward(drawings, PROMPTS, timestep=times), local)
        assert not torch.equal(local, build_reward("scenes-scorer")(drawings, PROMPTS))
        assert not at(url, "scenes-plain").step_aware

    def test_of_pictures_of_many_sizes(self, url: str) -> None:
        generator = np.random.default_rng(3)
        sizes = [(40, 30), (32, 32), (7, 9), (40, 30)]
        pictures = [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
        for name in ("jpeg-compressibility", "scenes-plain"):
            assert torch.equal(at(url, name)(pictures, PROMPTS[:4]), build_reward(name)(pictures, PROMPTS[:4]))

    def test_a_reward_that_cannot_read_an_image_says_so(self, url: str) -> None:
        with pytest.raises(RewardServerError, match=r"answered 422: .*32"):
            at(url, "scenes-truth")([Image.new("RGB", (40, 40))], PROMPTS[:1])

    def test_a_chain_of_servers(self, url: str, drawings: Tensor) -> None:
        name = f"{url}/jpeg-compressibility"
        offers = build_offers([name], device="cpu")
        with serving_aside(offers) as nearer:
            scores = at(nearer, name)(drawings, PROMPTS)
        assert torch.equal(scores, build_reward("jpeg-compressibility")(drawings, PROMPTS))
        forget(name)


class TestRequests:
    def test_what_is_there(self, url: str) -> None:
        assert httpx.get(f"{url}/health").json() == {"status": "ok", "waiting": 0}
        answer = httpx.get(f"{url}/rewards")
        assert answer.json()["protocol"] == 1
        assert [offer["name"] for offer in answer.json()["rewards"]] == SERVED
        assert {offer["max_images"] for offer in answer.json()["rewards"]} == {8}
        assert answer.headers["x-content-type-options"] == "nosniff"

    def test_the_answer(self, url: str, drawings: Tensor) -> None:
        body = question(drawings[:2])
        answer = httpx.post(f"{url}/score", json=body).json()
        hashes = [image_hash(base64.b64decode(image)) for image in body["images"]]
        assert [row["image"] for row in answer["scores"]] == hashes
        assert [row["prompt"] for row in answer["scores"]] == PROMPTS[:2]
        assert [row["timestep"] for row in answer["scores"]] == [None, None]
        assert set(answer) == {"version", "scores"}

    @pytest.mark.parametrize(
        ("changes", "status", "message"),
        [
            ({"reward": "pickscor"}, 404, "there is no reward 'pickscor' here; there are: scenes-scorer, "),
            ({"reward": 3}, 422, "reward: Input should be a valid string"),
            ({"images": []}, 422, "images: List should have at least 1 item"),
            ({"images": ["!"] * 2}, 422, "an image is not base64"),
            ({"images": ["aGVsbG8="] * 2}, 422, "image 0 is not an image that can be read"),
            ({"images": ["gASVAAAA"] * 2}, 422, "image 0 is not an image that can be read"),  # a pickle begins so
            ({"images": ["aGVsbG8="] * 9, "prompts": ["a"] * 9}, 413, "9 images are more than the 8 of a request"),
            ({"prompts": ["a"]}, 422, "there are 2 images; send one prompt"),
            ({"prompts": ["a", 3]}, 422, "prompts.1: Input should be a valid string"),
            ({"prompts": ["a", "a" * 100_001]}, 413, "a prompt has more than 100,000 characters"),
            ({"timesteps": [1, 2]}, 422, "takes no time step; leave timesteps out"),
            ({"timesteps": [1]}, 422, "there are 2 images; send one prompt, and one time step"),
            ({"reward": "scenes-scorer", "timesteps": [True, 2]}, 422, "timesteps.0"),
            ({"model": "x"}, 422, "model: Extra inputs are not permitted"),
        ],
    )
    def test_bad_ones_are_one_line(
        self, url: str, drawings: Tensor, changes: dict[str, Any], status: int, message: str
    ) -> None:
        answer = httpx.post(f"{url}/score", json=question(drawings[:2], **changes))
        assert answer.status_code == status
        assert message in answer.json()["error"]
        assert "\n" not in answer.json()["error"]
        assert set(answer.json()) == {"error"}

    @pytest.mark.parametrize(
        ("content", "headers", "status"),
        [
            (b"{half", {"content-type": "application/json"}, 422),
            (b"[" * 100_000, {"content-type": "application/json"}, 422),
            (b'{"reward": NaN}', {"content-type": "application/json"}, 422),
            (b'{"a": "\xff"}', {"content-type": "application/json"}, 422),
            (b"{}", {"content-type": "text/plain"}, 415),
            (b"\x80\x04\x95", {"content-type": "application/x-pickle"}, 415),
            (b" " * 1_100_000, {"content-type": "application/json"}, 413),
            (b"{}", {"content-type": "application/json", "host": "evil.example"}, 400),
            (b"{}", {"content-type": "application/json", "sec-fetch-site": "cross-site"}, 403),
        ],
    )
    def test_so_is_what_is_no_question(self, url: str, content: bytes, headers: dict[str, str], status: int) -> None:
        answer = httpx.post(f"{url}/score", content=content, headers=headers)
        assert answer.status_code == status
        assert set(answer.json()) == {"error"}
        assert httpx.get(f"{url}/health").status_code == 200

    def test_other_paths_and_methods(self, url: str) -> None:
        assert httpx.get(f"{url}/score").status_code == 405
        assert httpx.get(f"{url}/etc/passwd").json() == {"error": "there are GET /health, GET /rewards and POST /score"}

    def test_small_files_that_stand_for_many_pixels(
        self, url: str, drawings: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = io.BytesIO()
        Image.new("RGB", (9000, 9000)).save(file, format="PNG")
        image = base64.b64encode(file.getvalue()).decode()
        answer = httpx.post(f"{url}/score", json=question(drawings[:1], images=[image]))
        assert answer.status_code == 422
        assert "pixels are more than" in answer.json()["error"]
        monkeypatch.setattr(offers_module, "REQUEST_PIXELS", 2000)
        answer = httpx.post(f"{url}/score", json=question(drawings[:3]))
        assert (answer.status_code, "more than 2,000 pixels together" in answer.json()["error"]) == (413, True)


def offer_of(score: Any) -> dict[str, Offer]:
    return {"own": Offer(reward=CheckedReward("own", score), version="v1")}


def test_failures_of_a_reward_are_one_line_and_the_server_goes_on(
    drawings: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([RuntimeError("CUDA out of\nmemory"), torch.tensor([float("nan")]), torch.zeros(2), torch.ones(1)])

    def score(_images: Any, _prompts: Any) -> Tensor:
        value = next(answers)
        if isinstance(value, Exception):
            raise value
        return value

    with serving_aside(offer_of(score)) as url:
        body = question(drawings[:1], reward="own")
        first, second, third, fourth = (httpx.post(f"{url}/score", json=body) for _ in range(4))
    assert (first.status_code, first.json()) == (500, {"error": "reward own failed with RuntimeError; see the server"})
    assert "reward own failed with RuntimeError: CUDA out of memory" in caplog.text
    assert "Traceback" not in caplog.text
    assert (second.status_code, "returned nan for image 0" in second.json()["error"]) == (422, True)
    assert (third.status_code, "shape (2,) for 1 images" in third.json()["error"]) == (422, True)
    assert fourth.json()["scores"][0]["score"] == 1.0


def test_what_a_client_gave_up_is_not_scored(drawings: Tensor) -> None:
    """So that a client that asks again after a time-out does not wait behind its own requests."""
    scored, go = [], threading.Event()

    def score(_images: Any, prompts: Any) -> Tensor:
        scored.append(prompts[0])
        go.wait(20.0)
        return torch.zeros(len(prompts))

    with serving_aside(offer_of(score)) as url:

        def ask(prompt: str, patience: float) -> None:
            with suppress(httpx.TimeoutException):
                httpx.post(
                    f"{url}/score", json=question(drawings[:1], reward="own", prompts=[prompt]), timeout=patience
                )

        first = threading.Thread(target=ask, args=("first", 30.0))
        first.start()
        while not scored:
            time.sleep(0.02)
        impatient = [threading.Thread(target=ask, args=("impatient", 0.5)) for _ in range(4)]
        for thread in impatient:
            thread.start()
        for thread in impatient:
            thread.join()
        go.set()
        ask("last", 30.0)
        first.join()
        assert httpx.get(f"{url}/health").json()["waiting"] == 0
    assert scored == ["first", "last"]


def test_one_request_is_scored_at_a_time_and_what_waits_is_bounded(
    drawings: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "WAITING", 3)
    busy, most, go = 0, 0, threading.Event()

    def score(_images: Any, prompts: Any) -> Tensor:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        go.wait(20.0)
        busy -= 1
        return torch.zeros(len(prompts))

    with serving_aside(offer_of(score)) as url:
        statuses: list[httpx.Response] = []
        body = question(drawings[:1], reward="own")

        def ask() -> None:
            statuses.append(httpx.post(f"{url}/score", json=body, timeout=30.0))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        while httpx.get(f"{url}/health").json()["waiting"] < 3:
            time.sleep(0.02)
        refused = httpx.post(f"{url}/score", json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        assert httpx.get(f"{url}/rewards").status_code == 200
        go.set()
        for thread in threads:
            thread.join()
    assert [answer.status_code for answer in statuses] == [200] * 3
    assert most == 1


class TestToken:
    TOKEN = "a-token-of-more-than-24-characters"

    def test_it_is_asked_for_before_anything_is_read(self, drawings: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_TOKEN", self.TOKEN)
        with serving_aside(build_offers(["jpeg-compressibility"], device="cpu"), token=self.TOKEN) as url:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": self.TOKEN}):
                assert httpx.get(f"{url}/rewards", headers=headers).status_code == 401
                refused = httpx.post(f"{url}/score", content=b"x" * 500_000, headers=headers)
                assert refused.json() == {"error": "the token is missing or wrong"}
            assert httpx.get(f"{url}/health").status_code == 200
            with pytest.raises(RewardServerError, match="401: the token is missing or wrong; name the environment"):
                at(url, "jpeg-compressibility")
            reward = at(url, "jpeg-compressibility", key_env="MY_TOKEN")
            assert torch.equal(reward(drawings, PROMPTS), build_reward("jpeg-compressibility")(drawings, PROMPTS))

    def test_it_cannot_be_guessed(self) -> None:
        with pytest.raises(ConfigError, match="at least 24 visible characters"):
            check_serving("short", ())
        with pytest.raises(ConfigError, match="at least 24 visible characters"):
            check_serving("with a blank in it, and long enough", ())
        with pytest.raises(ConfigError, match=r"--name \*\.example: write each name in full"):
            check_serving(None, ["*.example"])
        check_serving(self.TOKEN, ["gpu.example"])


class TestVersions:
    def test_they_know_weights_names_settings_and_code(self, tmp_path: Path) -> None:
        def version(name: str, definitions: Any = None, precision: Any = "no") -> str:
            offers = build_offers([name], definitions=definitions, device="cpu", precision=precision)
            forget(name, definitions)
            return offers[name].version

        for seed in (0, 1):
            write_clip(tmp_path / f"clip{seed}", seed=seed)
        first, second = str(tmp_path / "clip0"), str(tmp_path / "clip1")
        assert version(first) == version(first)
        original = version(first)
        for file in Path(first).iterdir():
            file.write_bytes((Path(second) / file.name).read_bytes())
        changed = version(first)
        assert changed != original
        assert version("jpeg-compressibility") != version("jpeg-incompressibility")
        other = {
            "mix": RewardDefinition.model_validate({"terms": {"scenes-plain": 3.0, "jpeg-incompressibility": -1.0}})
        }
        mix = build_reward("mix", definitions=MIX)
        assert version_of(mix) == version_of(build_reward("mix", definitions=MIX))
        assert version_of(mix) != version_of(build_reward("mix", definitions=other))
        assert version_of(mix) != version_of(mix, "bf16")

    def test_the_file_of_own_code_counts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        code = "def score(images, prompts):\n    return images.mean((1, 2, 3))\n"
        (tmp_path / "my_served_code.py").write_text(code)
        reward = build_reward("my_served_code:score")
        before = version_of(reward)
        (tmp_path / "my_served_code.py").write_text(f"{code}# changed\n")
        assert version_of(reward) != before


def test_judges_of_latents_cannot_be_served() -> None:
    with pytest.raises(ConfigError, match="reward lrm-sd15: lrm-sd15 scores noisy latents, and images travel"):
        build_offers(["lrm-sd15"], device="cpu")


class TestCommand:
    def test_what_is_refused_before_anything_is_loaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NO_TOKEN", raising=False)
        for arguments, message in [
            (["pickscor"], "unknown reward 'pickscor'; did you mean 'pickscore'"),
            ([","], "name a reward"),
            (
                ["jpeg-compressibility", "--token-env", "NO_TOKEN"],
                "--token-env NO_TOKEN: this environment variable",
            ),
            (["jpeg-compressibility", "--precision", "int4"], "unknown precision"),
            (["jpeg-compressibility", "--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
        ]:
            result = CliRunner().invoke(app, ["reward", "serve", *arguments])
            assert result.exit_code != 0
            assert message in str(result.exception), arguments

    def test_it_serves_until_it_is_interrupted(self, tmp_path: Path, drawings: Tensor) -> None:
        recipe = tmp_path / "mine.yaml"
        recipe.write_text(json.dumps({"rewards": {"own": {"terms": {"jpeg-compressibility": 2.0}}}}))
        command = [sys.executable, "-m", "seedpo", "reward", "serve", "own", "--config", str(recipe), "--port", "0"]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("reward: http://127.0.0.1:"), line
            assert process.stdout.readline() == "stop:   Ctrl-C\n"
            url = line.split()[1].removesuffix("/own")
            reward = HttpReward("far", HttpSettings(url=url, reward="own"))
            scores = reward(drawings, PROMPTS)
            assert torch.equal(scores, 2.0 * build_reward("jpeg-compressibility")(drawings, PROMPTS))
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in errors
        assert process.returncode in (0, 130)


def test_the_server_of_the_documentation_speaks_the_protocol(drawings: Tensor) -> None:
    page = Path("docs/remote-rewards.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {"my_score": lambda image, prompt: image.width + len(prompt) / 4.0}
    exec(compile(code, "docs/remote-rewards.md", "exec"), names)
    with serving.app_aside(names["app"]) as url:
        scores = at(url, "mine")(drawings, PROMPTS)
    assert scores.tolist() == [32.0 + len(prompt) / 4.0 for prompt in PROMPTS]
