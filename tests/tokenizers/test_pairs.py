"""The definition of a merge."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llm_from_scratch.tokenizers.pairs import merge_pair, merges_by_recounting, pair_counts

IDS = st.lists(st.integers(0, 3), max_size=30)


def test_counts_weigh_words_and_count_overlaps():
    assert pair_counts({(1, 1, 1): 2, (1, 2): 5, (3,): 7, (): 1}) == {(1, 1): 4, (1, 2): 5}


@given(IDS, st.integers(0, 3), st.integers(0, 3))
def test_a_merge_can_be_undone(ids, left, right):
    merged = merge_pair(ids, (left, right), 9)
    assert (left, right) not in pairwise(merged) or left == right
    undone = [part for i in merged for part in ((left, right) if i == 9 else (i,))]
    assert undone == ids
    assert len(ids) - len(merged) == merged.count(9)


def test_runs_are_joined_from_the_left():
    assert merge_pair([1, 1, 1, 1, 1], (1, 1), 2) == [2, 2, 1]
    assert merge_pair([], (1, 1), 2) == []
    assert merge_pair([1], (1, 1), 2) == [1]


def test_merges_end_with_the_pairs():
    assert merges_by_recounting([b"ab"], 10, first_new_id=256) == [(97, 98)]
    assert merges_by_recounting([], 10, first_new_id=256) == []
    assert merges_by_recounting([b"ab"], 0, first_new_id=256) == []
