"""Numbers as English and as Chinese words: a translation task with an exact right answer.

English groups digits by thousands, Chinese by ten thousands, so the two orders of words differ
where the numbers are long: 120,000 is "one hundred twenty thousand" and 十二万 (twelve ten-thousands).
That makes the task small enough for a laptop and still a translation.
"""

from __future__ import annotations

_ONES = tuple(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "  # noqa: SIM905
    "sixteen seventeen eighteen nineteen".split()
)
_TENS = ["-", "-", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_THOUSANDS = ("", "thousand", "million", "billion")
_DIGITS = "零一二三四五六七八九"
_PLACES = ("", "十", "百", "千")
_MYRIADS = ("", "万", "亿")

LIMIT = 10**12  # the first number that neither function spells


def english(number: int) -> str:
    """Spell a number in American English, without "and", commas or hyphens.

    Raises: ValueError outside 0 <= number < 10**12.

    >>> english(120_045)
    'one hundred twenty thousand forty five'
    """
    _check(number)
    if number == 0:
        return "zero"
    words: list[str] = []
    for power in (3, 2, 1, 0):
        group = number // 1000**power % 1000
        if group:
            words += [*_english_group(group), _THOUSANDS[power]]
    return " ".join(word for word in words if word)


def chinese(number: int) -> str:
    """Spell a number in Chinese, with 零 for skipped places and 十 alone for a leading 一十.

    Raises: ValueError outside 0 <= number < 10**12.

    >>> chinese(120_045), chinese(100_005), chinese(17)
    ('十二万零四十五', '十万零五', '十七')
    """
    _check(number)
    if number == 0:
        return "零"
    text = ""
    for power in (2, 1, 0):
        group = number // 10_000**power % 10_000
        if group:
            whole_group_skipped = number // 10_000 ** (power + 1) % 10_000 == 0
            gap = text and (group < 1000 or whole_group_skipped)
            text += ("零" if gap else "") + _chinese_group(group) + _MYRIADS[power]
    return text.removeprefix("一") if text.startswith("一十") else text


def _english_group(number: int) -> list[str]:
    words = [_ONES[number // 100], "hundred"] if number >= 100 else []
    rest = number % 100
    if rest >= 20:
        words.append(_TENS[rest // 10])
        rest %= 10
    return words + ([_ONES[rest]] if rest else [])


def _chinese_group(number: int) -> str:
    text, skipped = "", False
    for place in (3, 2, 1, 0):
        digit = number // 10**place % 10
        if digit:
            text += ("零" if skipped and text else "") + _DIGITS[digit] + _PLACES[place]
        skipped = digit == 0
    return text


def _check(number: int) -> None:
    if not 0 <= number < LIMIT:
        raise ValueError(f"number must be in [0, {LIMIT:,}), got {number:,}")
