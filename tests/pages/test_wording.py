from __future__ import annotations

import math

from seedpo.pages.wording import compact, count, duration, interval, listing, number, sentence, signed, written


def test_numbers_have_three_digits_and_a_real_minus() -> None:
    texts = {
        0.0: "0",
        0.69314: "0.693",
        -19.46: "−19.5",
        -0.0098: "−0.010",
        0.00016: "1.6e−4",
        1234.5: "1234",
        3.2e7: "3.2e7",
        -math.inf: "–",
    }
    assert {value: number(value) for value in texts} == texts
    assert number(math.nan) == "–"


def test_small_words() -> None:
    assert signed(0.25) == "+0.250"
    assert signed(-0.25) == "−0.250"
    assert compact(1e-5) == "1e−05"
    assert compact(250.0) == "250"
    assert interval(-1.0, 1.0) == "[−1.00, 1.00]"
    assert interval(math.nan, 1.0) == ""
    assert [duration(s) for s in (12.4, 754, 7260)] == ["12 s", "12 min 34 s", "2 h 1 min"]
    assert [count(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert [listing(items) for items in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert sentence("truth falls") == "Truth falls"
    assert [written(value) for value in (None, True, 0.5, ["a"], "a b")] == ["null", "true", "0.5", '["a"]', "a b"]
