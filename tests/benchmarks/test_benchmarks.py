"""The benchmarks compare what they say they compare; times are not tested."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.__main__ import main
from benchmarks.agreement import group_agreement
from benchmarks.cases import CASES
from benchmarks.memory import peak_bytes
from benchmarks.networks import TINY
from benchmarks.shapes import MODELS, random_model
from benchmarks.timing import Comparison, compare, difference

pytestmark = pytest.mark.filterwarnings("ignore:Profiler clears events:UserWarning")

MIB = 2**20


class TestGradients:
    """Both structures give the same gradient; a call that costs less than it should would show in the rows."""

    @pytest.mark.parametrize(
        ("name", "rows"),
        [
            ("spo", (32, 16)),
            pytest.param("spo-2-passes", (64, 24), marks=pytest.mark.slow),
            ("diffusion-dpo", (8, 4)),
            ("flow-dpo", (8, 4)),
            ("flow-dpo-known-latents", (8, 4)),
            pytest.param("flow-dpo-known-prompts", (8, 4), marks=pytest.mark.slow),
            pytest.param("flow-dpo-first-run", (8, 8), marks=pytest.mark.slow),
            ("reward", (0, 0)),
            ("reward-known-prompts", (0, 0)),
            ("reward-reloaded", (0, 0)),
            pytest.param("diffusion-dpo-checkpointed", (8, 4), marks=pytest.mark.slow),
            pytest.param("d3po-pairs", (168, 98), marks=pytest.mark.slow),
            pytest.param("d3po-groups", (168, 28), marks=pytest.mark.slow),
        ],
    )
    def test_are_equal(self, name: str, rows: tuple[int, int]) -> None:
        case = CASES[name](TINY)
        found = compare(case, repetitions=1)
        assert found["difference"] < 1e-3
        assert (found["rows"]["published"], found["rows"]["ours"]) == rows
        if name in ("spo", "d3po-groups"):  # all of whose work is the UNet's
            assert found["flops"]["published"] == pytest.approx(rows[0] / rows[1] * found["flops"]["ours"])

    def test_of_another_loss_stop_the_benchmark(self) -> None:
        case = CASES["spo"](TINY)
        wrong = Comparison(
            name="wrong",
            work="",
            bar=None,
            published=case.published,
            ours=lambda: 1.01 * case.ours(),
            networks=case.networks,
        )
        with pytest.raises(AssertionError, match=r"wrong: the results differ by 1\.0.e-02 of their norm"):
            compare(wrong, repetitions=1)

    def test_without_gradient_nothing_is_equal(self) -> None:
        assert not difference(torch.zeros(3), torch.zeros(3)) <= 1e-3


class TestMemory:
    def test_is_the_most_that_lives_at_once(self) -> None:
        def work() -> None:
            first = torch.ones(MIB, dtype=torch.float32)
            del first
            second = torch.ones(2 * MIB, dtype=torch.float32)
            third = torch.ones(MIB, dtype=torch.uint8)
            del second, third
            torch.ones(3 * MIB, dtype=torch.uint8)

        assert peak_bytes(work, []) == 9 * MIB

    def test_weights_count(self) -> None:
        network = torch.nn.Linear(1024, 1024, bias=False)
        assert peak_bytes(lambda: None, [network]) == 4 * MIB

    def test_what_was_there_before_and_is_freed_does_not(self) -> None:
        held = [torch.ones(8 * MIB, dtype=torch.uint8)]

        def work() -> None:
            held.clear()
            torch.ones(MIB, dtype=torch.uint8)

        assert peak_bytes(work, []) == MIB


@pytest.mark.slow
def test_groups_agree_with_themselves_where_the_order_is_all_there_is() -> None:
    """One update takes all pairs, or all groups: the order cannot matter, and groups give the pairs' update."""
    found = group_agreement(images=3, prompts=1, steps_per_pair=1)
    assert found["updates"] == {"pairs": 1, "pairs in another order": 1, "groups": 1}
    assert found["agreement"] == {"pairs in another order": 1.0, "groups": 1.0}
    assert found["cosine"]["groups"] > 0.99


class TestCommand:
    def test_writes_what_it_prints(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "figures" / "out.json"
        assert main(["spo", "--tiny", "--repetitions", "1", "--out", str(out)]) == 0
        written = json.loads(out.read_text("utf-8"))
        [figure] = written["figures"]
        assert written["tiny"] is True
        assert figure["repetitions"] == 1
        printed = capsys.readouterr().out
        assert f"{figure['ratio']:.2f}" in printed
        assert f"{figure['memory_ratio']:.2f}" in printed
        assert ">= 1.9" in printed

    @pytest.mark.slow
    def test_several_cases_each_in_a_process_of_its_own(self, tmp_path: Path) -> None:
        out = tmp_path / "out.json"
        assert main(["spo", "diffusion-dpo", "--tiny", "--repetitions", "1", "--out", str(out)]) == 0
        names = [figure["name"] for figure in json.loads(out.read_text("utf-8"))["figures"]]
        assert names == ["SPO, 1 pass over a roll-out", "Diffusion-DPO, cached"]

    @pytest.mark.parametrize(
        ("command", "arguments", "message"),
        [
            (main, ["sop"], "no benchmark is called sop; there are spo,"),
            (main, ["--repetitions", "0"], "--repetitions must be 1 or more"),
            (gpu.main, ["sd3"], "no model is called sd3; there are sd15, sdxl, sd35, zimage"),
            (gpu.main, ["--tiny", "--batch-size", "0"], "must be 1 or more"),
        ],
    )
    def test_says_what_is_wrong(
        self,
        command: Callable[[list[str]], int],
        arguments: list[str],
        message: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        with pytest.raises(SystemExit):
            command(arguments)
        assert message in capsys.readouterr().err


def test_without_a_gpu_the_gpu_script_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["sd35"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "no CUDA device" in line


def test_frozen_weights_are_made_in_half_precision_and_trained_ones_are_not() -> None:
    model = random_model("sd35", torch.device("cpu"), precision="bf16", checkpointing=False, tiny=True)
    trained = model.policy.trainable_parameters()
    frozen = [value for value in model.policy.network.parameters() if not value.requires_grad]
    assert {value.dtype for value in trained.values()} == {torch.float32}
    # Norms of vectors stay wide: see seedpo.models.precision.
    assert {value.dtype for value in frozen if value.ndim > 1} == {torch.bfloat16}
    assert len(model.conditioning(3, seed=0)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_gpu_script_runs_without_one(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    assert (
        gpu.main([model, "--tiny", "--precision", "no", "--repetitions", "1", "--batch-size", "1", "--out", str(out)])
        == 0
    )
    figures = json.loads(out.read_text("utf-8"))["figures"]
    assert [figure["name"] for figure in figures] == [
        "sampling, 2 steps",
        "SPO, shared x_t",
        "Diffusion-DPO, reference asked",
        "Diffusion-DPO, reference cached",
    ]
    assert all(figure["flops_per_second"] > 0 for figure in figures)
    assert {figure["checkpointing"] for figure in figures} == {model != "sd15"}
    assert "matrix products reach" in capsys.readouterr().out
