"""Documents to one stream."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_from_scratch.data.packing import pack

DOCUMENTS = st.lists(st.lists(st.integers(0, 70_000), max_size=9), max_size=6)


@given(DOCUMENTS, st.none() | st.integers(0, 70_000))
def test_nothing_is_lost_or_padded(documents, end):
    expected = [i for document in documents for i in [*document, *([] if end is None else [end])]]
    if not expected:
        with pytest.raises(ValueError, match="no token to pack"):
            pack(documents, end_of_text=end)
        return
    stream = pack(documents, end_of_text=end)
    assert stream.tolist() == expected
    assert stream.dtype == (np.uint16 if max(expected) <= 65_535 else np.uint32)


@pytest.mark.parametrize(
    ("most", "dtype"), [(65_535, np.uint16), (65_536, np.uint32), (2**32 - 1, np.uint32)]
)
def test_the_smallest_type_that_fits(most, dtype):
    stream = pack([[0, most]])
    assert stream.dtype == dtype
    assert stream.tolist() == [0, most]


@pytest.mark.parametrize("document", [[-1], [2**32], [5, -7]])
def test_ids_that_do_not_fit_are_refused(document):
    with pytest.raises(ValueError, match=f"got {min(document)} to {max(document)}"):
        pack([document])
    with pytest.raises(ValueError, match="more than 64 bits"):
        pack([[1 << 70]])


def test_any_sequence_of_documents():
    assert (
        pack((np.array([1, 2], dtype=np.uint16) for _ in range(2)), end_of_text=0).tolist() == [1, 2, 0] * 2
    )
    with pytest.raises(ValueError, match="no token"):
        pack([])


@pytest.mark.parametrize(
    "document",
    [[1, 2.7], [1.0], np.array([1.5]), ["1"], [None], [np.float32(2)], [[1, 2]], [np.array([1, 2])]],
)
def test_what_is_no_whole_number_is_refused(document):
    for end in (None, 0):
        with pytest.raises(ValueError, match="whole numbers in one row: "):
            pack([[1], document], end_of_text=end)


def test_ids_of_other_integer_types():
    documents = [[np.int32(3), np.uint8(4)], np.array([5], dtype=np.int8), torch.tensor([6])]
    assert pack(documents, end_of_text=np.int64(9)).tolist() == [3, 4, 9, 5, 9, 6, 9]
