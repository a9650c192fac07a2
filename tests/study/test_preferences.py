from __future__ import annotations

from dataclasses import replace

import numpy as np

from seedpo.study.preferences import Count, counted_votes, preferences
from seedpo.study.records import Answer, Candidate, Group, Judgement, Show
from seedpo.study.settings import Question, StudySettings

SIDE = Candidate(source="m", images=("0" * 32,))


def vote(first: int, second: int, answer: Answer, *, rater: str = "a", repeat_of: str | None = None) -> Judgement:
    show = Show(token="t", rater=rater, group="g", order=(first, second), number=0, repeat_of=repeat_of)
    return Judgement(show=show, question="q", prompt="p", category="", candidates=(SIDE, SIDE), answer=answer)


class TestPreferences:
    def test_one_rater_says_it_all(self) -> None:
        assert preferences([vote(0, 1, "second")], candidates=2).tolist() == [[0.0, -1.0], [1.0, 0.0]]

    def test_several_raters_give_shares_and_ties_weaken_them(self) -> None:
        votes = [vote(0, 1, "first", rater=rater) for rater in "ab"]
        votes += [vote(0, 1, "second", rater="c"), vote(0, 1, "tie", rater="d")]
        assert preferences(votes, candidates=2)[0, 1] == 0.25

    def test_ties_both_bad_and_skipped_pairs_are_no_preference_even_where_a_chain_says_otherwise(self) -> None:
        for answer in ("tie", "bad", "skip"):
            votes = [vote(0, 1, "first"), vote(1, 2, "first"), vote(0, 2, answer)]
            assert preferences(votes, candidates=3)[0, 2] == 0.0, answer

    def test_repetitions_do_not_count(self) -> None:
        votes = [vote(0, 1, "first"), vote(0, 1, "second", repeat_of="t")]
        assert preferences(votes, candidates=2)[0, 1] == 1.0

    def test_a_rater_who_sees_a_pair_in_two_views_counts_once(self) -> None:
        def view(*order: int, best: int, rater: str) -> Judgement:
            show = Show(token=f"{rater}{order}", rater=rater, group="g", order=order, number=0)
            worst = order[-1]
            return replace(
                vote(0, 1, "ranked"), show=show, candidates=(SIDE,) * len(order), best=best, worst=worst
            )  # fmt: skip

        views = [view(0, 1, 2, best=0, rater="a"), view(0, 1, 3, best=0, rater="a"), view(1, 0, 2, best=1, rater="b")]
        assert preferences(views, candidates=4)[0, 1] == 0.0

    def test_what_nobody_was_asked_follows_from_the_weakest_link_of_a_chain(self) -> None:
        votes = [vote(0, 1, "first"), *(vote(1, 2, "first", rater=rater) for rater in "ab")]
        votes.append(vote(1, 2, "tie", rater="c"))
        found = preferences(votes, candidates=4)
        assert np.isclose(found[0, 2], 2 / 3)
        assert np.isclose(found[2, 0], -2 / 3)
        assert not found[3].any(), "nothing is known of the last one"

    def test_no_chain_leads_over_a_tie(self) -> None:
        assert preferences([vote(0, 1, "first"), vote(1, 2, "tie")], candidates=3)[0, 2] == 0.0


class TestVotesWanted:
    def count(self, tournament: str, candidates: int, votes: list[Judgement], raters: int = 1) -> Count:
        settings = StudySettings(
            id="s", questions=(Question(key="q", text="?"),), tournament=tournament, raters_per_pair=raters
        )
        group = Group(id="g", question="q", prompt="p", candidates=(SIDE,) * candidates)
        return counted_votes(settings, [group], {"g": votes})

    def test_every_pair_gets_its_raters_and_more_do_not_count(self) -> None:
        votes = [vote(0, 1, "first"), vote(0, 1, "first", rater="b"), vote(0, 1, "first", rater="c")]
        assert self.count("full", 3, votes, raters=2) == Count(done=2, wanted=6)

    def test_a_knockout_is_over_when_its_last_candidate_was_met(self) -> None:
        assert self.count("knockout", 3, []) == Count(done=0, wanted=2)
        every = [vote(0, 1, "first"), vote(0, 2, "first"), vote(1, 2, "first")]
        counts = [self.count("knockout", 3, [row, other]).done for row in every for other in every if row != other]
        assert set(counts) <= {1, 2}
        assert 2 in counts
