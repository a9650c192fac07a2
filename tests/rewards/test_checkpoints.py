from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from seedpo.errors import DataError
from seedpo.rewards.checkpoints import fill, located
from seedpo.weights import read_weights

WEIGHTS = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}


class Runs:
    """A pickle that would write a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


class TestLocated:
    """Folders first; the hub where there is no folder."""

    def test_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "model-00001.safetensors").touch()
        assert located("r", str(tmp_path), repository="a/b", files=["model*.safetensors"]) == tmp_path

    def test_files_that_are_missing(self, tmp_path: Path) -> None:
        (tmp_path / "one.pt").touch()
        with pytest.raises(DataError, match=r"reward r: .* lacks two\.pt, three\.json"):
            located("r", str(tmp_path), repository=None, files=["one.pt", "two.pt", "three.json"])

    def test_no_place(self) -> None:
        with pytest.raises(DataError, match="r@FOLDER"):
            located("r", None, repository=None, files=["one.pt"])

    def test_a_place_that_is_neither(self) -> None:
        for place in ["nowhere", "./a/b", "/a/b/c", "a/b/c"]:
            with pytest.raises(DataError, match=rf"reward r: .*{re.escape(place)}.*r@FOLDER"):
                located("r", place, repository="a/b", files=["one.pt"])

    def test_no_network(self) -> None:
        for place in [None, "a/b", "a/b@main"]:
            with pytest.raises(DataError, match=r"reward r: .*a/b") as caught:
                located("r", place, repository="a/b", files=["one.pt"])
            assert "\n" not in str(caught.value)

    def test_the_hub_is_asked_for_the_revision_and_these_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[str, str | None, list[str]]] = []

        def snapshot(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
            asked.append((repository, revision, allow_patterns))
            return str(tmp_path)

        monkeypatch.setattr("seedpo.rewards.checkpoints.snapshot_download", snapshot)
        with pytest.raises(DataError, match=r"a/b@v2 lacks one\.pt"):
            located("r", "a/b@v2", repository="c/d", files=["one.pt"], optional=["vocab.json"])
        (tmp_path / "one.pt").touch()
        assert located("r", None, repository="c/d", files=["one.pt"], optional=["vocab.json"]) == tmp_path
        assert asked == [("a/b", "v2", ["one.pt", "vocab.json"]), ("c/d", None, ["one.pt", "vocab.json"])]


class TestReadWeights:
    """Tensors, whatever the file; never code."""

    def test_all_layouts(self, tmp_path: Path) -> None:
        save_file(WEIGHTS, tmp_path / "w.safetensors")
        torch.save(WEIGHTS, tmp_path / "w.pt")
        torch.save({"epoch": 3, "state_dict": WEIGHTS}, tmp_path / "w.pth")
        torch.save(WEIGHTS, tmp_path / "w.bin", _use_new_zipfile_serialization=False)
        for name in ("w.safetensors", "w.pt", "w.pth", "w.bin"):
            found = read_weights(tmp_path / name)
            assert found.keys() == WEIGHTS.keys()
            assert all(found[key].equal(WEIGHTS[key]) for key in WEIGHTS)

    def test_code_is_not_run(self, tmp_path: Path) -> None:
        (tmp_path / "w.pt").write_bytes(pickle.dumps({"weight": Runs(tmp_path / "ran")}))
        torch.save({"weight": Runs(tmp_path / "ran")}, tmp_path / "w.bin")
        for name in ("w.pt", "w.bin"):
            with pytest.raises(DataError, match=rf"{name} cannot be read as weights .*download it again") as caught:
                read_weights(tmp_path / name)
            assert "\n" not in str(caught.value)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
    def test_files_that_are_cut_short(self, tmp_path: Path, name: str, share: float) -> None:
        path = tmp_path / name
        if name.endswith("pt"):
            torch.save(WEIGHTS, path)
        else:
            save_file(WEIGHTS, path)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(DataError, match=rf"{name} cannot be read as weights"):
            read_weights(path)

    def test_files_without_weights(self, tmp_path: Path) -> None:
        for content in [{}, [torch.ones(1)], {"weight": 3}, {"state_dict": [1]}, torch.ones(2)]:
            torch.save(content, tmp_path / "w.pt")
            with pytest.raises(DataError, match="holds no weights by name"):
                read_weights(tmp_path / "w.pt")

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="there are no weights at"):
            read_weights(tmp_path / "w.pt")

    def test_something_else_entirely(self, tmp_path: Path) -> None:
        (tmp_path / "w.pt").write_text("<html>404</html>", encoding="utf-8")
        with pytest.raises(DataError, match="cannot be read as weights"):
            read_weights(tmp_path / "w.pt")


class TestFill:
    """All of the weights, or none."""

    @pytest.mark.parametrize("device", ["cpu", "meta"])
    def test_weights_take_the_networks_type(self, device: str) -> None:
        with torch.device(device):
            module = nn.Linear(3, 2)
        fill(module, {name: value.half() for name, value in WEIGHTS.items()}, origin="w.pt")
        assert module.weight.dtype == torch.float32
        assert module.weight.equal(WEIGHTS["weight"])
        assert module(torch.ones(1, 3)).tolist() == [[4.0, 13.0]]

    def test_what_may_be_left_over(self) -> None:
        fill(nn.Linear(3, 2), WEIGHTS | {"a.position_ids": torch.ones(1)}, origin="w.pt", ignored=("*.position_ids",))

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ({"weight": WEIGHTS["weight"]}, "it lacks bias"),
            (WEIGHTS | {"bias": torch.ones(3)}, r"wrong shape for bias \(3,\) instead of \(2,\)"),
            (WEIGHTS | {f"more{i}": torch.ones(1) for i in range(5)}, "also holds more0, more1, more2 and 2 more"),
            ({"w": torch.ones(1)}, "it lacks weight, bias; it also holds w; is it the right checkpoint"),
        ],
    )
    def test_what_does_not_fit_is_named(self, weights: dict[str, torch.Tensor], message: str) -> None:
        module = nn.Linear(3, 2)
        before = module.weight.clone()
        with pytest.raises(DataError, match=r"w\.pt does not fit the network") as caught:
            fill(module, weights, origin="w.pt")
        caught.match(message)
        assert module.weight.equal(before)
