import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_from_scratch.grading.compare import first_difference, same_output

SAME = [
    ("loss 2.0794", "loss 2.0795"),
    ("[ 0.5 -0.  ]", "[0.5 0. ]"),
    ("[0.333 0.333 1.   ]", "[0.333 0.334 0.999]"),
    ("[0.8878 0.836 ]", "[0.8879 0.8359]"),
    ("1e-05", "1.0e-05"),
    ("1.234e-05", "1.235e-05"),
    ("0.0000", "-0.0000"),
    ("nan inf", "nan inf"),
    ("1234567.1", "1234567.2"),
    ("a\r\nb\n", "a\nb\n\n"),
    ("1,234.5678", "1,234.5679"),
    ("", ""),
]
DIFFERENT = [
    ("loss 2.0794", "loss 2.0796"),
    ("3 tokens", "4 tokens"),
    ("[1, 2, 3]", "[1, 2, 4]"),
    ("0.5", "0.4"),
    ("0.25", "0.26"),
    ("1.", "2."),
    ("1.234e-05", "1.234e-06"),
    ("1e5", "2e5"),
    ("nan", "0.0"),
    ("inf", "-inf"),
    ("q2 0.5", "q3 0.5"),
    ("True", "False"),
    ("(2, 3) 0.1234", "(3, 2) 0.1234"),
    ("a\nb", "a"),
    ("a", "a\nb"),
    ("a", ""),
    ("", "a"),
    ("0.1234 0.5678", "0.1234"),
    ("v1.2.3", "v1.2.4"),
]


@pytest.mark.parametrize(("expected", "got"), SAME)
def test_same(expected, got):
    assert same_output(expected, got)
    assert first_difference(expected, got) == (0, "", "")


@pytest.mark.parametrize(("expected", "got"), DIFFERENT)
def test_different(expected, got):
    assert not same_output(expected, got)
    assert first_difference(expected, got)[0] > 0


@given(st.floats(-1e6, 1e6), st.integers(3, 8))
def test_a_rounding_edge_never_fails_a_right_answer(value, decimals):
    nearly = value + 0.4 * 10.0**-decimals
    assert same_output(f"x = {value:.{decimals}f}", f"x = {nearly:.{decimals}f}")


@given(st.floats(-1e3, 1e3), st.integers(1, 6))
def test_three_units_away_is_wrong(value, decimals):
    far = value + 3 * 10.0**-decimals + 3e-6 * abs(value)
    assert not same_output(f"x = {value:.{decimals}f}", f"x = {far:.{decimals}f}")


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_compared_without_an_error(expected, got):
    assert same_output(expected, expected)
    if same_output(expected, got):
        assert first_difference(expected, got)[0] == 0
    else:
        first_difference(expected, got)


def test_a_long_line_of_numbers_takes_no_time():
    assert not same_output("1", "1,111" * 40_000)
