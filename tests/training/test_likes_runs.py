"""Runs on single likes: from their rows to a trained model, exactly resumed, cached, mirrored, and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from seedpo.cli.cache_builds import build_cache
from seedpo.data.cache.pairs import EncodedPairs
from seedpo.errors import ConfigError, DataError
from seedpo.models.policy import PipelinePolicy
from seedpo.scenes.pairs import preference_table
from seedpo.settings import build_config
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_pairs, build_source, train
from seedpo.training.settings import RewardRunConfig
from tests.models.tiny import tiny_policy
from tests.small_runs import metrics, small
from tests.training.toys import cpu_accelerator

EVALUATION = {"num_prompts": 1, "images_per_prompt": 1, "num_inference_steps": 1, "metrics": []}


def likes_table(*, count: int = 4, seed: int = 1) -> pa.Table:
    """The images of some pairs of the embedded world, as rows of likes of several raters."""
    rows = preference_table(count=count, seed=seed).to_pylist()
    liked = [{"prompt": row["caption"], "image": row["jpg_0"], "liked": row["label_0"] == 1} for row in rows]
    others = [{"prompt": row["caption"], "image": row["jpg_1"], "liked": row["label_1"] == 1} for row in rows]
    likes = [like | {"rater": f"r{place % 3}"} for place, like in enumerate([*liked, *others])]
    return pa.Table.from_pylist(likes)


def keys(folder: Path, **changes: Any) -> dict[str, Any]:
    path = folder / "likes.parquet"
    if not path.exists():
        pq.write_table(likes_table(), path)
    own = {
        "data": str(path),
        "pairs": {"from_scores": "likes"},
        "evaluation": EVALUATION,
        "checkpoint_every": 1,
        "evaluate_every": 1,
    }
    pairs = own["pairs"] | changes.pop("pairs", {})  # type: ignore[operator]
    return small(folder, **(own | {"pairs": pairs} | changes))


def run(path: Path, *, resume: Any = None, **changes: Any) -> list[dict[str, Any]]:
    config = resolve_config("kto", keys(path.parent, **changes))
    train(config, path, resume=resume, accelerator=cpu_accelerator(config), progress=False)
    return metrics(path)


def test_a_run_is_resumed_exactly_and_mirrors(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"pairs": {"flip": True, "empty_prompts": 0.5}, "batch_size": 3}
    lines = run(tmp_path / "whole", max_steps=4, **changes)
    run(tmp_path / "parts", max_steps=2, **changes)
    assert run(tmp_path / "parts", max_steps=4, resume="latest", **changes) == lines
    training = [line for line in lines if line["kind"] == "train"]
    assert training[0]["loss"] == pytest.approx(0.5)
    assert training[0]["rewards/margins"] == 0.0 != training[1]["rewards/margins"]
    assert all(0 <= line["liked"] <= 1 for line in training)
    assert {"distance", "baseline", "error/policy", "error/reference"} <= training[0].keys()


def test_a_cache_serves_likes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = run(tmp_path / "live")
    cached = {"cache": {"folder": str(tmp_path / "cache")}}
    build_cache(resolve_config("kto", keys(tmp_path, **cached)), progress=False)
    monkeypatch.setattr(PipelinePolicy, "encode_images", lambda policy, images: pytest.fail("encoded live"))
    assert run(tmp_path / "cached", **cached) == live


def test_readers_change_nothing(tmp_path: Path) -> None:
    assert run(tmp_path / "alone") == run(tmp_path / "ahead", pairs={"readers": 1})


def test_pairs_are_read_as_likes(tmp_path: Path) -> None:
    config = resolve_config("kto", small(tmp_path, pairs={"from_scores": "likes-of-pairs"}))
    likes = build_pairs(config)
    pairs = build_pairs(resolve_config("diffusion-dpo", small(tmp_path)))
    assert len(likes) == 2 * len(pairs)
    for row in range(len(pairs)):
        first, second = likes[2 * row], likes[2 * row + 1]
        pair = pairs[row]
        by_label = {like.chosen_probability: like for like in (first, second)}
        assert torch.equal(by_label[1.0].chosen, pair.chosen)
        assert torch.equal(by_label[0.0].chosen, pair.images[1])


def test_two_processes_share_the_likes_and_know_their_visits(tmp_path: Path) -> None:
    config = resolve_config("kto", keys(tmp_path, batch_size=3))
    policy = tiny_policy()
    parts = [build_source(config, policy, rank=rank, world=2) for rank in range(2)]
    whole = build_source(config.model_copy(update={"batch_size": 6}), policy)
    count = len(build_pairs(config))
    for _ in range(3):
        batches = [part.next_batch() for part in parts]
        together = whole.next_batch()
        for rank, batch in enumerate(batches):
            for name in ("pair", "visit", "liked", "latents"):
                assert torch.equal(getattr(batch, name), getattr(together, name)[rank::2])
    assert sorted(together.pair.tolist() + together.visit.tolist())
    assert whole.metrics()["visits"] == pytest.approx(18 / count)


def test_latents_can_be_drawn_at_every_visit(tmp_path: Path) -> None:
    policy, config = tiny_policy(), resolve_config("kto", keys(tmp_path, fidelity={"sampled_latents": True}))
    source = build_source(config, policy)
    batch = source.next_batch()
    plain = EncodedPairs(build_pairs(config), policy, spread=True).encode_likes(
        batch.pair.tolist(), [False] * len(batch)
    )
    assert plain.stds is not None
    offsets = (batch.latents - plain.latents) / plain.stds
    assert 0.5 < offsets.std() < 1.5
    assert batch.stds is None


class TestRefusals:
    @pytest.mark.parametrize(
        ("method", "changes", "message"),
        [
            (
                "kto",
                {"pairs": {"from_scores": "all"}},
                "from_scores = all makes pairs, and kto trains on single images",
            ),
            ("diffusion-dpo", {"pairs": {"from_scores": "likes"}}, "makes single images, and diffusion-dpo trains on"),
            ("d3po", {"pairs": {"from_scores": "likes"}}, "makes single images, and d3po trains on pairs"),
            ("kto", {"pairs": {"validation": 0.1}}, "validation = 0.1: kto trains on single images"),
            ("kto", {"pairs": {"ties": "half"}}, "pairs.ties = half: .* liked or it is not"),
            ("kto", {"gamma": 0.5}, "gamma = 0.5 must be 0 for kto: of a single image"),
            ("kto", {"loss": "ipo"}, "loss = ipo has no effect on kto"),
            ("kto", {"fidelity": {"ties_as_wins": True}}, "ties_as_wins = true has no effect on kto"),
            ("kto", {"fidelity": {"independent_flips": True}}, "independent_flips = true has no effect on kto"),
            (
                "kto",
                {"cache": {"folder": "c", "reference": True, "visits": 2}},
                "cache.reference = true has no effect on kto",
            ),
            ("mapo", {"objective": {"liked_weight": 2.0}}, "liked_weight = 2 has no effect on mapo: it acts with kto"),
        ],
    )
    def test_keys(self, tmp_path: Path, method: str, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message) as refusal:
            resolve_config(method, small(tmp_path, **changes))
        assert "\n" not in str(refusal.value)

    def test_preference_models_learn_from_pairs(self) -> None:
        with pytest.raises(ConfigError, match=r"pairs\.from_scores must make pairs"):
            build_config(RewardRunConfig, {"pairs": {"from_scores": "likes"}})

    @pytest.mark.parametrize(
        ("liked", "message"), [(True, "8 liked images and none"), (False, "8 images that are not")]
    )
    def test_labels_of_one_kind(self, tmp_path: Path, liked: bool, message: str) -> None:
        table = likes_table()
        table = table.set_column(table.column_names.index("liked"), "liked", pa.array([liked] * len(table)))
        pq.write_table(table, tmp_path / "likes.parquet")
        with pytest.raises(DataError, match=rf"data = .*likes\.parquet holds {message}") as refusal:
            build_pairs(resolve_config("kto", keys(tmp_path)))
        assert "\n" not in str(refusal.value)

    def test_sets_of_one_kind_each_are_enough_together(self, tmp_path: Path) -> None:
        table = likes_table()
        for name, liked in (("good", True), ("bad", False)):
            rows = [row for row in table.to_pylist() if row["liked"] == liked]
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
        sets = [{"name": str(tmp_path / f"{name}.parquet")} for name in ("good", "bad")]
        assert len(build_pairs(resolve_config("kto", keys(tmp_path, data=sets)))) == len(table)

    def test_pairs_where_likes_are_due(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no likes of single images; set pairs\.from_scores=likes-of-pairs"):
            build_pairs(resolve_config("kto", small(tmp_path, pairs={"from_scores": "likes"})))
