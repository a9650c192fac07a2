"""What a run would refuse, a rehearsal and a plan refuse too; a rehearsal writes nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from seedpo.errors import ConfigError, DataError, SeedpoError
from seedpo.planning.gpus import find_gpu
from seedpo.planning.plan import plan_run
from seedpo.settings import merge
from seedpo.training.checks import absent_data, check_images
from seedpo.training.configuration import resolve_config
from seedpo.training.run import rehearse, train
from tests.small_runs import small
from tests.training.toys import cpu_accelerator

WRONG: list[tuple[dict[str, Any], type[SeedpoError], str]] = [
    ({"pairs": {"resolution": 64}}, ConfigError, "pairs.resolution = 64"),
    ({"resolution": 63, "evaluation": {"metrics": []}}, ConfigError, "resolution = 63"),
    ({"evaluation": {"prompts": "a dog"}}, ConfigError, "'a dog'"),
    ({"evaluation": {"prompts": "absent.txt"}}, DataError, "absent.txt"),
    ({"evaluation": {"num_inference_steps": 5000}}, ConfigError, "evaluation.num_inference_steps"),
    ({"resolution": 64}, ConfigError, "scenes"),
    ({"lora_rank": 1000}, ConfigError, "lora_rank = 1000"),
]


@pytest.mark.parametrize(("changes", "kind", "named"), WRONG)
def test_train_rehearsal_and_plan_refuse_the_same(
    tmp_path: Path, changes: dict[str, Any], kind: type[SeedpoError], named: str
) -> None:
    config = resolve_config("diffusion-dpo", merge(small(tmp_path, model="scenes"), changes))
    accelerator = cpu_accelerator(config)
    with pytest.raises(kind, match=named):
        train(config, tmp_path / "run", accelerator=accelerator, progress=False)
    with pytest.raises(kind, match=named):
        rehearse(config, progress=False)
    with pytest.raises(kind, match=named):
        plan_run(config, gpu=find_gpu("H100"))
    assert not (tmp_path / "run").exists()


def test_spo_refuses_to_have_no_step_for_pairs(tmp_path: Path) -> None:
    changes = {"sampling": {"num_inference_steps": 4}, "steps": {"plain_steps": 4}}
    config = resolve_config("spo", merge(small(tmp_path, model="scenes"), changes))
    with pytest.raises(ConfigError, match=r"steps\.plain_steps = 4"):
        rehearse(config, progress=False)
    with pytest.raises(ConfigError, match=r"steps\.plain_steps = 4"):
        plan_run(config, gpu=find_gpu("H100"))


@pytest.mark.parametrize("method", ["diffusion-dpo", "spo", "d3po"])
def test_a_rehearsal_takes_one_batch_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    config = resolve_config(method, small(tmp_path, model="scenes"))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        rehearse(config, progress=False)
    assert "first batch: loss 0.69" in caplog.text
    assert sorted(tmp_path.rglob("*")) == before


def test_a_plan_names_pairs_that_are_not_here(tmp_path: Path) -> None:
    config = resolve_config("diffusion-dpo", small(tmp_path, model="scenes"))
    assert absent_data(config) == []
    gone = config.model_copy(update={"data": f"{tmp_path}/gone/"})
    assert len(absent_data(gone)) == 1
    assert not absent_data(config.model_copy(update={"data": "hub:owner/name"}))
    anchored = resolve_config("dgpo", {"anchor": {"data": 1.0, "data_set": "gone/pairs.parquet"}})
    assert absent_data(anchored) == ["anchor.data_set = gone/pairs.parquet does not exist here"]


def test_an_anchor_s_data_have_the_size_of_the_model() -> None:
    changes = {"pairs": {"resolution": 64}, "anchor": {"data": 1.0, "data_set": "scenes-pairs"}}
    with pytest.raises(ConfigError, match=r"pairs\.resolution = 64"):
        check_images(resolve_config("dgpo", changes), (32, 32))


def test_likes_are_asked_for_where_likes_are_read() -> None:
    with pytest.raises(ConfigError, match="likes of single images"):
        resolve_config("kto", {"model": "owner/name"})
