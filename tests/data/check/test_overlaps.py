from __future__ import annotations

from typing import Any

from PIL import Image

from seedpo.data.check.findings import Findings, Measured, check_pairs
from seedpo.data.pairs.selection import is_apart
from seedpo.data.pairs.sets import PairSet
from seedpo.data.pairs.streams import StreamedPairs
from seedpo.data.settings import PairsConfig
from tests.data.images.test_near_duplicates import photograph
from tests.data.pairs.test_streams import Rows
from tests.data.pictures import encoded, table

PHOTOGRAPHS = [photograph(seed, side=64) for seed in range(12)]
FILES = [encoded(image) for image in PHOTOGRAPHS]


def again(number: int) -> bytes:
    """A photograph, stored in another way."""
    return encoded(PHOTOGRAPHS[number].resize((96, 96), Image.Resampling.BICUBIC), "JPEG", quality=80)


def pairs(
    prompts: list[str], first: list[bytes], second: list[bytes], *, labels: list[Any] | None = None, name: str = "train"
) -> PairSet:
    columns: dict[str, Any] = {"caption": prompts, "jpg_0": first, "jpg_1": second}
    rows = table(*(labels or [(1, 0)] * len(prompts)), **columns)
    return PairSet.of_table(rows, origin=name, config=PairsConfig(resolution=64, ties="half"))


def check(*arguments: Any, rows: int | None = None, **options: Any) -> Findings:
    return check_pairs(pairs(*arguments, **options), rows=rows, progress=False)


class TestWithin:
    def test_one_image_under_two_prompts(self) -> None:
        found = check(["a", "b", "A."], [FILES[0], again(0), again(0)], FILES[1:4]).alike
        assert str(found.other_prompts[0]).startswith("train row 1 chosen ~ train row 0 chosen")
        assert {(entry.first.pair, entry.second.pair) for entry in found.other_prompts} <= {(0, 1), (1, 2)}
        assert (found.pairs, found.within_pairs, found.across) == ([], [], [])

    def test_two_images_of_a_pair_that_are_alike(self) -> None:
        findings = check(["a", "b"], [FILES[0], FILES[1]], [again(0), FILES[2]])
        assert [entry.first.place for entry in findings.alike.within_pairs] == ["train row 0"]
        assert findings.same_image == []

    def test_an_image_that_is_elsewhere_too_is_still_alike_within_its_pair(self) -> None:
        findings = check(["a", "a"], [FILES[0], FILES[0]], [FILES[1], again(0)])
        assert [entry.first.place for entry in findings.alike.within_pairs] == ["train row 1"]

    def test_pairs_alike(self) -> None:
        findings = check(
            ["a", "A", "a!", "other", "a"],
            [FILES[0], again(0), again(1), again(0), FILES[0]],
            [FILES[1], again(1), again(0), again(1), FILES[1]],
            labels=[(1, 0), (1, 0), (1, 0), (1, 0), (0.5, 0.5)],
        )
        told = [(entry.second.place, entry.first.place, entry.is_turned) for entry in findings.alike.pairs]
        assert told == [("train row 1", "train row 0", False), ("train row 2", "train row 0", True)]
        assert findings.contradictions == ["train row 4 != train row 0"], "an exact one is named only there"
        turned = findings.alike.pairs[1]
        assert (turned.first.side, turned.second.side) == (0, 1), "the two that are alike"

    def test_prompts_that_differ_in_form_alone(self) -> None:
        findings = check(["a cat", "A cat.", "a dog"], FILES[:3], FILES[3:6], rows=1)
        assert (findings.checked, findings.prompts, findings.distinct_prompts) == (1, 3, 2)


class TestAcross:
    TRAINING = (["a", "b", "c"], FILES[:3], FILES[3:6])

    def test_validation_and_evaluation(self) -> None:
        held_out = pairs(["x", "B!"], [again(4), FILES[6]], [FILES[7], FILES[8]], name="held out")
        measured = Measured(validation=held_out, prompts={"own": ["nothing", "C", "X"]})
        findings = check_pairs(pairs(*self.TRAINING), measured=measured, progress=False)
        told = {
            overlap.parts: (
                [(entry.prompt, entry.first, entry.second) for entry in overlap.prompts],
                [(str(entry.first), str(entry.second)) for entry in overlap.images],
            )
            for overlap in findings.overlaps
        }
        assert told == {
            ("training", "validation"): (
                [("B!", "train row 1", "held out row 1")],
                [("train row 1 rejected", "held out row 0 chosen")],
            ),
            ("training", "evaluation"): ([("C", "train row 2", "own prompt 2")], []),
            ("validation", "evaluation"): ([("X", "held out row 0", "own prompt 3")], []),
        }
        assert [overlap.parts[1] for overlap in findings.leaks] == ["validation", "evaluation"]
        assert findings.parts == {"training": 3, "validation": 2, "evaluation": 3}
        assert (findings.pairs, findings.stops) == (3, [])

    def test_sets_that_share_nothing(self) -> None:
        measured = Measured(validation=pairs(["x"], FILES[6:7], FILES[7:8]), prompts={"own": ["y", "z"]})
        findings = check_pairs(pairs(*self.TRAINING), measured=measured, progress=False)
        assert (findings.overlaps, findings.leaks, findings.compared) == ([], [], 8)

    def test_a_share_of_the_prompts(self) -> None:
        """Both sides of a division by prompts hold a prompt that is written in two ways, and an image."""
        prompts = [f"prompt {number}" for number in range(60)]
        apart = next(prompt for prompt in prompts if is_apart(prompt, 0.5) and not is_apart(prompt.upper(), 0.5))
        trained = next(prompt for prompt in prompts if not is_apart(prompt, 0.5))
        rows = pairs([apart, apart.upper(), trained], [FILES[0], FILES[1], again(0)], FILES[3:6])
        overlap, *others = check_pairs(rows, measured=Measured(validation=0.5), progress=False).overlaps
        assert (overlap.parts, others) == (("training", "validation"), [])
        assert [entry.prompt for entry in overlap.prompts] == [apart]
        assert [(entry.first.pair, entry.second.pair) for entry in overlap.images] == [(2, 0)]

    def test_all_prompts_are_compared_whatever_the_rows(self) -> None:
        measured = Measured(validation=pairs([*"xyza"], FILES[6:10], FILES[2:6]))
        findings = check_pairs(pairs(*self.TRAINING), rows=1, measured=measured, progress=False)
        assert [entry.prompt for entry in findings.overlaps[0].prompts] == ["a"]
        assert findings.compared == 4

    def test_a_stream(self) -> None:
        stream = StreamedPairs(Rows(jpg_0=FILES[:6], jpg_1=FILES[6:12]), PairsConfig(resolution=8))
        prompt = stream.prompt(2)
        measured = Measured(validation=pairs(["x"], [again(0)], FILES[1:2]), prompts={"own": [prompt]})
        assert check_pairs(stream, rows=5, progress=False).omitted, "what is not known of a stream is said"
        findings = check_pairs(stream, measured=measured, progress=False)
        assert [overlap.parts[1] for overlap in findings.overlaps] == ["validation", "evaluation"]
        assert len(findings.overlaps[0].images) == 2
        assert findings.omitted == []

    def test_validation_pairs_that_cannot_be_read(self) -> None:
        measured = Measured(validation=pairs(["x", "y"], [b"broken", FILES[6]], FILES[7:9]))
        findings = check_pairs(pairs(*self.TRAINING), measured=measured, progress=False)
        assert (findings.stops, findings.unreadable, findings.compared) == ([], [], 8)
        assert any("1 validation pairs" in line for line in findings.omitted)
