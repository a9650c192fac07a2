"""When the reference of a run moves, what it takes along into checkpoints, and what cannot be asked of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from seedpo.errors import ConfigError
from seedpo.methods.presets import METHODS
from seedpo.methods.settings import ReferenceConfig
from seedpo.settings import build_config
from seedpo.training.configuration import resolve_config
from seedpo.training.reference import ReferenceRule, decay_at, has_weights
from seedpo.training.run import refuse_shards, train
from seedpo.training.settings import RunConfig
from tests.small_runs import metrics, small
from tests.training.real_processes import published_lora
from tests.training.toys import (
    WEIGHTS,
    ComparingMethod,
    ToyMethod,
    ToyPolicy,
    ToySource,
    cpu_accelerator,
    metrics_lines,
    toy_config,
    toy_trainer,
    trace,
)

ROWS: dict[str, Any] = {"model": "owner/name", "data": "pairs/", "reward": "pickscore"}
MOVING: dict[str, dict[str, Any]] = {
    "rollout": {"kind": "rollout"},
    "ema": {"kind": "ema", "decay": 0.9},
    "rising": {"kind": "ema", "decay": 0.5, "decay_rise": 0.1},
    "every": {"kind": "reset", "every": 3},
    "distance": {"kind": "reset", "distance": 0.1},
    "either": {"kind": "reset", "distance": 0.5, "every": 2},
}


class Crash(Exception):
    pass


def rule_of(config: RunConfig, policy: Any, source: Any) -> ReferenceRule:
    return ReferenceRule(policy, config.reference, source, batches=config.gradient_accumulation_steps)


def run(
    path: Path, reference: dict[str, Any], *, resume: bool = False, source: Any = None, **changes: Any
) -> ToyPolicy:
    method = changes.pop("method", ComparingMethod())
    config = toy_config(**{"max_steps": 8, "checkpoints_limit": 9, "reference": reference} | changes)
    policy, source = ToyPolicy(), source or ToySource(config.batch_size)
    parts = {"policy": policy, "source": source, "method": method, "rule": rule_of(config, policy, source)}
    toy_trainer(path, config, **parts).train(resume="latest" if resume else None)
    return policy


def checkpoint(path: Path, step: int, part: str) -> dict[str, Tensor]:
    return load_file(path / "checkpoints" / f"checkpoint-{step:06d}" / part / WEIGHTS)


class TestRuns:
    def test_an_average_is_the_closed_form(self, tmp_path: Path) -> None:
        """From the weights of every step, in float64; the decay of update t is min(0.5, 0.1 t)."""
        run(tmp_path, {"kind": "ema", "decay": 0.5, "decay_rise": 0.1}, checkpoint_every=1)
        start = dict(ToyPolicy().trainable_parameters())
        expected = {name: value.detach().double() for name, value in start.items()}
        for step in range(1, 9):
            decay, weights = min(0.5, 0.1 * step), checkpoint(tmp_path, step, "policy")
            for name, value in checkpoint(tmp_path, step, "reference").items():
                expected[name] = decay * expected[name] + (1 - decay) * weights[name].double()
                torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-7)

    def test_a_reset_is_the_policy_of_that_update(self, tmp_path: Path) -> None:
        run(tmp_path, {"kind": "reset", "every": 3}, checkpoint_every=1)
        for step in range(1, 9):
            moved, reference = step - step % 3, checkpoint(tmp_path, step, "reference")
            then = checkpoint(tmp_path, moved, "policy") if moved else dict(ToyPolicy().trainable_parameters())
            assert all(torch.equal(reference[name], value) for name, value in then.items())
        assert [line["reference/age"] for line in lines(tmp_path)] == [1, 2, 3, 1, 2, 3, 1, 2]

    def test_a_distance_resets_after_the_update_that_is_beyond_it(self, tmp_path: Path) -> None:
        limit = 0.4
        run(tmp_path, {"kind": "reset", "distance": limit})
        found, age = lines(tmp_path), 0
        for line in found:
            age += 1
            assert line["reference/age"] == age
            age = 0 if line["distance"] > limit else age
        assert 1 < sum(line["distance"] > limit for line in found) < len(found)

    def test_a_roll_out_moves_it_before_the_update(self, tmp_path: Path) -> None:
        """Batches 0, 3 and 6 are the first of a roll-out; before update 4 the policy is that of step 3."""
        run(tmp_path, {"kind": "rollout"}, checkpoint_every=1)
        for step, moved in {4: 3, 5: 3, 6: 3, 7: 6, 8: 6}.items():
            reference, then = checkpoint(tmp_path, step, "reference"), checkpoint(tmp_path, moved, "policy")
            assert all(torch.equal(reference[name], value) for name, value in then.items())

    def test_one_that_never_moves_is_the_frozen_one(self, tmp_path: Path) -> None:
        policies = [run(tmp_path / str(every), {"kind": "reset", "every": every}) for every in (8, 1000)]
        assert torch.equal(policies[0].weights(), policies[1].weights()), "it moved after the last update"
        assert not torch.equal(run(tmp_path / "moved", {"kind": "reset", "every": 1}).weights(), policies[0].weights())

    @pytest.mark.parametrize("kind", MOVING)
    @pytest.mark.parametrize("changes", [{}, {"gradient_accumulation_steps": 2, "ema_decay": 0.9}], ids=["", "more"])
    def test_crashed_twice_and_resumed(self, tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
        run(tmp_path / "whole", MOVING[kind], **changes)
        batches = changes.get("gradient_accumulation_steps", 1)
        for crash, resume in ((3 * batches, False), (6 * batches, True)):
            with pytest.raises(Crash):
                run(tmp_path / "parts", MOVING[kind], resume=resume, source=crashing(crash), **changes)
        run(tmp_path / "parts", MOVING[kind], resume=True, **changes)
        assert trace(tmp_path / "parts") == trace(tmp_path / "whole")
        moved = checkpoint(tmp_path / "whole", 8, "reference")
        assert any(not torch.equal(moved[name], value) for name, value in ToyPolicy().trainable_parameters().items())

    def test_a_rule_that_forgets_its_last_move_would_be_noticed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(tmp_path / "whole", MOVING["every"])
        with pytest.raises(Crash):
            run(tmp_path / "parts", MOVING["every"], source=crashing(5))
        monkeypatch.setattr(ReferenceRule, "restore", lambda rule, state: None)
        run(tmp_path / "parts", MOVING["every"], resume=True)
        assert trace(tmp_path / "parts") != trace(tmp_path / "whole")

    def test_an_objective_that_measures_no_distance_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"^reference\.distance = 0\.1: .*; .*set reference\.every"):
            run(tmp_path, {"kind": "reset", "distance": 0.1}, method=ToyMethod())


def crashing(number: int) -> ToySource:
    def before_batch(drawn: int) -> None:
        if drawn == number:
            raise Crash

    return ToySource(4, before_batch=before_batch)


def lines(path: Path) -> list[dict[str, Any]]:
    return [line for line in metrics_lines(path) if line["kind"] == "train"]


@dataclass
class Rolling:
    """A source that rolls out when it is told to."""

    due: bool = False
    asked: list[int] = field(default_factory=list)

    def rolls_out_within(self, batches: int) -> bool:
        self.asked.append(batches)
        return self.due


class TestRule:
    def test_a_roll_out_of_any_micro_batch_counts(self) -> None:
        policy, source = ToyPolicy(), Rolling()
        rule = ReferenceRule(policy, ReferenceConfig(kind="rollout"), source, batches=5)
        rule.before_update()
        assert policy.copy is None
        source.due = True
        rule.before_update()
        assert policy.copy is not None
        assert source.asked == [5, 5]

    @pytest.mark.parametrize("kind", ["ema", "every", "distance"])
    def test_the_others_ask_no_source(self, kind: str) -> None:
        source = Rolling(due=True)
        policy = ToyPolicy()
        ReferenceRule(policy, ReferenceConfig(**MOVING[kind]), source, batches=1).before_update()
        assert (policy.copy, source.asked) == (None, [])

    def test_decays(self) -> None:
        published = ReferenceConfig(kind="ema", decay=0.5, decay_rise=0.001)
        assert [decay_at(step, published) for step in (1, 100, 500, 1000)] == pytest.approx([0.001, 0.1, 0.5, 0.5])
        assert decay_at(1, ReferenceConfig(kind="ema", decay=0.995)) == 0.995

    @pytest.mark.parametrize("method", METHODS.names())
    def test_only_pairs_of_steps_need_no_weights_for_roll_outs(self, method: str) -> None:
        def weights(**keys: Any) -> bool:
            return has_weights(build_config(RunConfig, {"method": method, "reference": keys}))

        assert not weights()
        assert weights(kind="ema", decay=0.9)
        assert weights(kind="reset", every=5)
        assert weights(kind="rollout") == (METHODS[method].source.gives != "steps")
        anchored = {"method": method, "reference": {"kind": "rollout"}, "anchor": {"kl": 1.0}}
        assert has_weights(build_config(RunConfig, anchored))


class TestSettings:
    @pytest.mark.parametrize(
        ("keys", "named"),
        [
            ({"kind": "ema"}, r"reference\.decay"),
            ({"kind": "reset"}, r"reference\.distance or reference\.every"),
            ({"kind": "ema", "decay": 1.0}, r"reference\.decay"),
            ({"kind": "ema", "decay": 0.9, "decay_rise": 0.0}, r"reference\.decay_rise"),
            ({"kind": "reset", "every": 0}, r"reference\.every"),
            ({"kind": "reset", "distance": -1.0}, r"reference\.distance"),
            ({"kind": "refreshed"}, r"reference\.kind"),
        ],
    )
    def test_keys_that_make_no_sense(self, keys: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigError, match=named) as failure:
            build_config(RunConfig, {"reference": keys})
        assert "\n" not in str(failure.value)

    @pytest.mark.parametrize(
        ("keys", "named"),
        [
            ({"decay": 0.9}, r"^reference\.decay = 0\.9 .* reference\.kind = ema; leave it out$"),
            ({"kind": "reset", "every": 3, "decay": 0.9}, r"^reference\.decay = 0\.9 .* ema; leave it out$"),
            ({"kind": "reset", "every": 3, "decay_rise": 0.1}, r"^reference\.decay_rise = 0\.1 .* ema; leave it out$"),
            ({"kind": "rollout", "every": 3}, r"^reference\.every = 3 .* reference\.kind = reset; leave it out$"),
            ({"kind": "ema", "decay": 0.9, "distance": 0.1}, r"^reference\.distance = 0\.1 .* reset; leave it out$"),
            ({"kind": "ema", "decay": 0.9, "every": 2}, r"^reference\.every = 2 .* reset; leave it out$"),
        ],
    )
    def test_keys_that_do_nothing(self, keys: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigError, match=named):
            resolve_config("spo", {**ROWS, "reference": keys})

    @pytest.mark.parametrize("method", METHODS.names())
    def test_another_kind_leaves_the_keys_of_the_usual_one(self, method: str) -> None:
        assert resolve_config(method, {**ROWS, "reference": {"kind": "frozen"}}).reference.kind == "frozen"

    @pytest.mark.parametrize("kind", MOVING)
    def test_cached_values_are_of_the_frozen_one(self, kind: str) -> None:
        cache = {"folder": "cache", "reference": True, "visits": 2}
        with pytest.raises(ConfigError, match=rf"reference\.kind = {MOVING[kind]['kind']} needs cache\.reference"):
            build_config(RunConfig, {"cache": cache, "reference": MOVING[kind]})

    def test_a_published_fault_moves_only_the_frozen_one(self) -> None:
        with pytest.raises(ConfigError, match=r"fidelity\.reference_moves_on_resume needs reference\.kind = frozen"):
            build_config(
                RunConfig, {"fidelity": {"reference_moves_on_resume": True}, "reference": {"kind": "ema", "decay": 0.9}}
            )

    @pytest.mark.parametrize("method", METHODS.names())
    def test_a_data_set_rolls_nothing_out(self, method: str) -> None:
        preset = METHODS[method]
        keys = {**ROWS, "reference": {"kind": "rollout"}}
        if not preset.source.fixed_pairs:
            assert resolve_config(method, keys).reference.kind == "rollout"
        else:
            with pytest.raises(ConfigError, match=r"^reference\.kind = rollout has no effect on "):
                resolve_config(method, keys)

    @pytest.mark.parametrize(
        ("method", "keys"), [("mapo", {}), ("flow-grpo", {"beta": 0.0, "model": "scenes-flow"})], ids=["mapo", "grpo"]
    )
    def test_nothing_asks_it(self, method: str, keys: dict[str, Any]) -> None:
        moving = {**ROWS, **keys, "reference": {"kind": "ema", "decay": 0.9}}
        with pytest.raises(ConfigError, match=rf"^reference\.kind = ema has no effect: {method} has no reference.*;"):
            resolve_config(method, moving)
        anchored = resolve_config(method, {**moving, "anchor": {"kl": 1.0}})
        assert anchored.reference.kind == "ema"

    @pytest.mark.parametrize("method", ["diffusion-dpo", "d3po", "spo"])
    @pytest.mark.parametrize("kind", MOVING)
    def test_shards_have_no_place_for_its_weights(self, method: str, kind: str) -> None:
        config = build_config(RunConfig, {"method": method, "reference": MOVING[kind]})
        if kind == "rollout" and method != "diffusion-dpo":
            refuse_shards(config)
            return
        with pytest.raises(ConfigError, match=rf"^reference\.kind = {MOVING[kind]['kind']} cannot .* --shard"):
            refuse_shards(config)


def small_run(folder: Path, out: Path, method: str, *, steps: int, resume: bool = False, **changes: Any) -> Path:
    keys = small(folder, max_steps=steps, checkpoint_every=1, learning_rate=0.01, **changes)
    keys["evaluation"] = {**keys["evaluation"], "metrics": [], "rewards": []}
    config = resolve_config(method, keys)
    train(config, out, resume="latest" if resume else None, accelerator=cpu_accelerator(config), progress=False)
    return out


class TestSmallRuns:
    """Real models: what ran on is what never stopped, and the reference is where the figures say."""

    @pytest.mark.parametrize(
        ("method", "changes"),
        [
            ("diffusion-dpo", {"reference": {"kind": "ema", "decay": 0.8}}),
            ("diffusion-dpo", {"reference": {"kind": "reset", "every": 2}, "adapter": "full"}),
            pytest.param(
                "diffusion-dpo",
                {"reference": {"kind": "ema", "decay": 0.8}, "adapter": "full", "mixed_precision": "bf16"},
                marks=pytest.mark.slow,
            ),
            pytest.param(
                "diffusion-dpo",
                {"reference": {"kind": "ema", "decay": 0.8}, "model": "scenes-flow"},
                marks=pytest.mark.slow,
            ),
            pytest.param(
                "diffusion-dpo",
                {"reference": {"kind": "ema", "decay": 0.8}, "base_precision": "nf4", "lora_dora": True},
                marks=pytest.mark.slow,
            ),
            ("spo", {"reference": {"kind": "ema", "decay": 0.8, "decay_rise": 0.3}}),
            pytest.param("spo", {"reference": {"kind": "rollout"}}, marks=pytest.mark.slow),
            pytest.param("d3po", {"reference": {"kind": "reset", "distance": 1e-9}}, marks=pytest.mark.slow),
            pytest.param("d3po", {"reference": {"kind": "rollout"}, "adapter": "full"}, marks=pytest.mark.slow),
            pytest.param("d3po", {"reference": {"kind": "rollout"}, "anchor": {"kl": 10.0}}, marks=pytest.mark.slow),
            pytest.param("online-dpo", {"reference": {"kind": "rollout"}}, marks=pytest.mark.slow),
            pytest.param(
                "diffusion-dpo",
                {"reference": {"kind": "ema", "decay": 0.8}, "anchor": {"kl": 10.0, "toward": "initial"}},
                marks=pytest.mark.slow,
            ),
        ],
    )
    def test_a_resumed_run_is_the_one_that_never_stopped(
        self, tmp_path: Path, method: str, changes: dict[str, Any]
    ) -> None:
        whole = small_run(tmp_path, tmp_path / "whole", method, steps=4, **changes)
        small_run(tmp_path, tmp_path / "parts", method, steps=2, **changes)
        parts = small_run(tmp_path, tmp_path / "parts", method, steps=4, resume=True, **changes)
        last = Path("checkpoints/checkpoint-000004")
        names = {str(file.relative_to(whole / last)) for file in (whole / last).rglob("*.safetensors")}
        config = resolve_config(method, small(tmp_path, **changes))
        assert any("reference/" in name for name in names) == has_weights(config)
        for name in names:
            assert (parts / last / name).read_bytes() == (whole / last / name).read_bytes(), name
        figures = [[line for line in metrics(folder) if line["kind"] == "train"] for folder in (whole, parts)]
        assert figures[0] == figures[1]

    @pytest.mark.slow
    def test_a_continued_adapter_keeps_where_it_began(self, tmp_path: Path) -> None:
        """The model before training is the one with the adapter, also for the run that is resumed."""
        published_lora(tmp_path / "theirs")
        changes: dict[str, Any] = {
            "initial_lora": str(tmp_path / "theirs"),
            "reference": {"kind": "ema", "decay": 0.8},
            "anchor": {"kl": 10.0, "toward": "initial"},
        }
        whole = small_run(tmp_path, tmp_path / "whole", "diffusion-dpo", steps=4, **changes)
        small_run(tmp_path, tmp_path / "parts", "diffusion-dpo", steps=2, **changes)
        parts = small_run(tmp_path, tmp_path / "parts", "diffusion-dpo", steps=4, resume=True, **changes)
        figures = [[line for line in metrics(out) if line["kind"] == "train"] for out in (whole, parts)]
        assert figures[0] == figures[1]
        assert figures[0][0]["anchor/kl"] == pytest.approx(0.0, abs=1e-10)
        assert figures[0][3]["anchor/kl"] > 1e-8

    @pytest.mark.parametrize("method", ["diffusion-dpo", pytest.param("spo", marks=pytest.mark.slow)])
    def test_margins_begin_anew_after_a_reset(self, tmp_path: Path, method: str) -> None:
        out = small_run(tmp_path, tmp_path / "run", method, steps=4, reference={"kind": "reset", "every": 2})
        lines = [line for line in metrics(out) if line["kind"] == "train"]
        far = [line["distance"] for line in lines]
        assert far[0] == pytest.approx(0.0, abs=1e-10)
        assert far[2] == pytest.approx(0.0, abs=1e-10)
        assert min(far[1], far[3]) > 1e-8
        state = json.loads((out / "checkpoints/checkpoint-000004/rank-0.json").read_text())
        assert state["reference"] == {"moved_at": 4}
