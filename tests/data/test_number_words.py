"""Against num2words (English) and cn2an (Chinese)."""

import cn2an
import pytest
from hypothesis import given
from hypothesis import strategies as st
from num2words import num2words

from llm_from_scratch.data.number_words import LIMIT, chinese, english

NUMBERS = st.one_of(
    st.integers(0, LIMIT - 1),
    st.integers(0, 20_000),
    # many zeros: the places where Chinese says 零
    st.lists(st.sampled_from("0001259"), min_size=1, max_size=12).map(lambda digits: int("".join(digits))),
)


@given(NUMBERS)
def test_english(number):
    expected = num2words(number).replace(" and ", " ").replace(",", "").replace("-", " ")
    assert english(number) == expected


@given(NUMBERS)
def test_chinese_reads_back(number):
    assert cn2an.cn2an(chinese(number), "smart") == number


@given(NUMBERS)
def test_chinese_equals_the_library_but_for_gaps_between_groups(number):
    assert chinese(number).replace("零", "") == cn2an.an2cn(str(number), "low").replace("零", "")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "零"),
        (10, "十"),
        (101, "一百零一"),
        (110, "一百一十"),
        (1_001, "一千零一"),
        (1_010, "一千零一十"),
        (10_010, "一万零一十"),
        (100_000, "十万"),
        (11_000, "一万一千"),
        (20_304_050, "二千零三十万四千零五十"),
        (100_000_001, "一亿零一"),
        (100_001_234, "一亿零一千二百三十四"),
        (100_010_000, "一亿零一万"),
        (1_000_010_000, "十亿零一万"),
        (112_345_678, "一亿一千二百三十四万五千六百七十八"),
    ],
)
def test_chinese_by_hand(number, text):
    assert chinese(number) == text


@pytest.mark.parametrize("spell", [english, chinese])
@pytest.mark.parametrize("number", [-1, LIMIT])
def test_outside_the_range(spell, number):
    with pytest.raises(ValueError, match=r"1,000,000,000,000"):
        spell(number)
