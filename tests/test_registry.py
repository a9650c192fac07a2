from __future__ import annotations

import re
from pathlib import Path

import pytest

from seedpo.cli import main
from seedpo.cli.names import NARROW, model_facts, model_text, reward_facts, reward_table
from seedpo.errors import ConfigError
from seedpo.models.pipeline_classes import FAMILIES
from seedpo.registry import Entry, Registry, registries
from seedpo.rewards.catalogue import REWARDS

NAMES = Registry(
    "colour",
    (
        Entry(name="red", target="seedpo.errors:ConfigError", summary="like a rose"),
        Entry(name="green", target="nowhere.at_all:nothing", summary="like grass"),
    ),
)


def test_names_in_their_order() -> None:
    assert NAMES.names() == ["red", "green"]
    assert "red" in NAMES
    assert "blue" not in NAMES
    assert NAMES["green"].summary == "like grass"


def test_an_entry_is_imported_only_when_it_is_loaded() -> None:
    assert NAMES.load("red") is ConfigError
    with pytest.raises(ModuleNotFoundError):
        NAMES.load("green")


def test_an_unknown_name_lists_the_names_and_suggests() -> None:
    message = "unknown colour 'grean'; did you mean 'green'? there are: red, green"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        NAMES.load("grean")


def test_a_name_that_is_like_no_other_gets_no_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"^unknown colour 'xyz'; there are: red, green$"):
        NAMES["xyz"]


def test_names_are_unique_and_lead_somewhere() -> None:
    for kind, registry in registries().items():
        names = registry.names()
        assert len(set(names)) == len(names) > 0
        for entry in registry.entries:
            target = entry.load()
            assert callable(target) or (kind in ("methods", "recipes") and target is not None), entry.name
            assert entry.summary, entry.name
            assert "\n" not in entry.summary, entry.name


def test_prompt_sets_hold_the_prompts_that_they_announce() -> None:
    counts = {"scenes-training": 416, "scenes-evaluation": 64, "animals": 45, "general-evaluation": 24}
    for name, count in counts.items():
        prompts = registries()["prompts"].load(name)()
        assert len(set(prompts)) == len(prompts) == count
        assert str(count) in registries()["prompts"][name].summary


def test_the_oracle_is_said_to_read_what_it_reads() -> None:
    from seedpo.rewards.catalogue import DRAWING
    from seedpo.scenes.drawing import IMAGE_SIZE

    assert DRAWING == IMAGE_SIZE


def test_the_table_in_the_documents_says_what_the_catalogue_says() -> None:
    text = (Path(__file__).parents[1] / "docs" / "rewards.md").read_text(encoding="utf-8")
    rows = [f"| `{name}` | {' | '.join(rest)} |" for name, *rest in map(reward_facts, REWARDS.entries)]
    assert "\n".join(rows) in text


@pytest.mark.parametrize("width", [20, 40, 80, 110, 200])
def test_the_table_fits_the_terminal_and_says_all(width: int) -> None:
    table = reward_table(REWARDS.entries, width=width)
    assert max(map(len, table.splitlines())) <= max(width, 30)
    heads = [line.split()[0] for line in table.splitlines() if not line.startswith(" ")]
    assert [head for head in heads if head in registries()["rewards"]] == registries()["rewards"].names()
    if width < NARROW:
        for fact in (fact for entry in REWARDS.entries for fact in reward_facts(entry)):
            assert "".join(fact.split()) in "".join(table.split())


@pytest.mark.parametrize("width", [20, 40, 80, 110, 200])
def test_models_are_listed_with_every_pipeline_class_and_well_known_model(width: int) -> None:
    text = model_text(width=width)
    longest = max(len(checkpoint.name) for family in FAMILIES.entries for checkpoint in family.checkpoints)
    assert max(map(len, text.splitlines())) <= max(width, 30, longest + 2)
    words = text.split()
    for family in FAMILIES.entries:
        assert f"{family.name}:" in words
        assert family.checkpoints, "its size and licence are known"
        for checkpoint in family.checkpoints:
            assert checkpoint.name in words
            assert "".join(model_facts(checkpoint)[1].split()) in "".join(words) or width >= NARROW
            assert all(name in text for name in checkpoint.recipes)


def test_list_rewards(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit) as end:
        main(["list", "rewards"])
    assert not end.value.code
    said = capsys.readouterr().out
    assert "spm-sdxl\n  measures (higher is better): SPO's step-aware preference" in said
    assert "NAME@PLACE" in said
    with pytest.raises(SystemExit):
        main(["list", "models"])
    assert capsys.readouterr().out.startswith("models:\n  scenes  ")
