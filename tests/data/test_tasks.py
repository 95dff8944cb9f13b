"""Generated tasks: the answers marked by other means, the split, the phrasings, and the wrong answers."""

import datetime
import itertools
import re
from collections import Counter

import numpy as np
import pytest

from llm_from_scratch.data import tasks as module
from llm_from_scratch.data.task_words import EVENTS, WORDS
from llm_from_scratch.data.tasks import KINDS, Task, corrupted, generated_tasks, is_right

TRAIN, TEST = generated_tasks(3_000, seed=1), generated_tasks(1_500, seed=1, split="test")
ALL = TRAIN + TEST


def of_kind(kind):
    return [task for task in ALL if task.kind == kind]


def numbers(text):
    return [int(found) for found in re.findall(r"\d+", text)]


def listed(question):
    """The words of a list, which stands after the colon in every phrasing."""
    return re.fullmatch(r".*: ([\w, ]+)\.", question)[1].split(", ")


def quoted(question):
    return re.search(r'"(.+)"', question)[1]


def test_sums_and_largest_numbers():
    for task in of_kind("add"):
        assert int(task.answer) == sum(numbers(task.question))
    for task in of_kind("largest"):
        assert len(numbers(task.question)) == 3
        assert int(task.answer) == sorted(numbers(task.question))[-1]


def test_sorted_and_reversed_words():
    for task in of_kind("sort"):
        answer = task.answer.split(", ")
        assert Counter(answer) == Counter(listed(task.question))
        assert all(a < b for a, b in itertools.pairwise(answer))
    for task in of_kind("reverse"):
        assert task.answer.split(", ")[::-1] == listed(task.question)


def test_letters_and_capitals():
    for task in of_kind("count"):
        letter = re.search(r"(?:letters? |is )(\w)\b", task.question)[1]
        assert task.answer == str(sum(each == letter for each in quoted(task.question)))
        assert int(task.answer) >= 1
    for task in of_kind("end"):
        word = quoted(task.question)
        assert task.answer == (word[0] if "first" in task.question else word[-1])
        assert ("first" in task.question) != ("last" in task.question)
    for task in of_kind("capitals"):
        assert re.fullmatch("[A-Z]+ [A-Z]+", task.answer)
        assert task.answer.lower() in task.question


def test_years_and_weekdays():
    for task in of_kind("year"):
        assert [number for number in numbers(task.question) if number > 1000] == [int(task.answer)]
        assert len(numbers(task.question)) == 2
    for task in of_kind("weekday"):
        day = re.search(r"\w+day\b(?! of| lies| is)", task.question)[0]
        monday = datetime.date(2024, 1, 1)
        named = next(
            date for date in (monday + datetime.timedelta(n) for n in range(7)) if f"{date:%A}" == day
        )
        days = datetime.timedelta(numbers(task.question)[0])
        found = named + days if "after" in task.question else named - days
        assert f"{found:%A}" == task.answer


def test_kinds_are_equally_often_and_questions_are_never_repeated():
    for tasks in (TRAIN, TEST):
        found = Counter(task.kind for task in tasks)
        assert found.keys() == KINDS.keys()
        assert max(found.values()) - min(found.values()) <= 1
        assert len({task.question for task in tasks}) == len(tasks)


def content(task):
    """What a question is about, in whatever phrasing and, where it does not matter, in whatever order."""
    if task.kind in ("add", "largest"):
        return tuple(sorted(numbers(task.question)))
    if task.kind in ("sort", "reverse"):
        words = listed(task.question)
        return tuple(sorted(words) if task.kind == "sort" else words)
    if task.kind == "capitals":
        return task.answer
    if task.kind == "year":
        return (
            next(e for e in EVENTS if "{" in e and _fits(e, task.question)),
            *numbers(task.question),
            _place(task),
        )
    if task.kind == "weekday":
        return (
            numbers(task.question)[0],
            re.search(r"[A-Z]\w+day\b", task.question)[0],
            "after" in task.question,
        )
    return quoted(task.question), task.answer, "first" in task.question


def _fits(event, question):
    return re.search(re.sub(r"\{\w+\}", r"\\w+", event), question) is not None


def _place(task):
    return next(place for place in module.PLACES if place in task.question)


def test_nothing_that_the_test_asks_occurs_in_training():
    for kind in KINDS:
        shown, asked = ({content(t) for t in tasks if t.kind == kind} for tasks in (TRAIN, TEST))
        if kind == "count":  # here the answer does not name the letter
            shown, asked = ({t.question for t in tasks if t.kind == kind} for tasks in (TRAIN, TEST))
        assert asked
        assert not shown & asked, kind


def test_the_same_content_is_on_one_side_in_any_order():
    for a, b in [(2, 3), (17, 80), (45, 46)]:
        assert module._split_of("add", {"a": a, "b": b}) == module._split_of("add", {"a": b, "b": a})
    sides = Counter(module._split_of("add", {"a": a, "b": b}) for a in range(2, 100) for b in range(2, a + 1))
    assert 0.17 < sides["test"] / sides.total() < 0.23
    one, other = ({"words": words} for words in ("apple, pear, fig", "fig, pear, apple"))
    assert module._split_of("sort", one) == module._split_of("sort", other)
    turned = [({"words": f"{a}, {b}"}, {"words": f"{b}, {a}"}) for a, b in itertools.pairwise(WORDS)]
    assert any(module._split_of("reverse", a) != module._split_of("reverse", b) for a, b in turned)


def test_one_phrasing_of_each_kind_is_new_in_the_test():
    assert not any(task.new_phrasing for task in TRAIN)
    for kind, rules in KINDS.items():
        start = rules.new.partition("{")[0] or rules.new.partition("}")[2]
        marked = {task.question for task in TEST if task.kind == kind and task.new_phrasing}
        assert marked == {t.question for t in TEST if t.kind == kind and t.question.startswith(start)}
        assert not any(t.question.startswith(start) for t in TRAIN if t.kind == kind)
        assert 0.1 < len(marked) / sum(task.kind == kind for task in TEST) < 0.45


def test_it_depends_on_the_seed_alone_and_a_larger_number_goes_on():
    assert generated_tasks(100, seed=1) == TRAIN[:100]
    assert generated_tasks(100, seed=1, split="test") == TEST[:100]
    assert generated_tasks(100, seed=2) != TRAIN[:100]


def test_marking():
    task = Task(question="...", answer="a, b", kind="sort")
    for right in ("a, b", " a,  b.\n", '"a, b"', "A, B"):
        assert is_right(task, right)
    for wrong in ("b, a", "a b", "", "the answer is a, b"):
        assert not is_right(task, wrong)
    assert not is_right(Task(question="...", answer="AB CD", kind="capitals"), "ab cd")
    assert all(is_right(task, task.answer) for task in ALL)


FORMS = {
    "add": r"\d{1,3}",
    "largest": r"\d{3}",
    "sort": r"\w+(, \w+){2,3}",
    "reverse": r"\w+(, \w+){2,3}",
    "count": r"[1-9]",
    "end": r"[a-z]",
    "capitals": r"[A-Z]+ [A-Z]+",
    "year": r"1[89]\d\d",
    "weekday": r"(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day",
}


def test_wrong_answers_are_wrong_and_of_the_same_form():
    rng = np.random.default_rng(0)
    for task in ALL:
        wrong = corrupted(task, rng)
        assert re.fullmatch(FORMS[task.kind], task.answer)
        assert re.fullmatch(FORMS[task.kind], wrong)
        assert not is_right(task, wrong)
        if task.kind in ("sort", "reverse", "capitals"):
            assert sorted(wrong) == sorted(task.answer)
    again = [corrupted(task, rng) for rng in [np.random.default_rng(5)] for task in ALL[:50]]
    assert again == [corrupted(task, rng) for rng in [np.random.default_rng(5)] for task in ALL[:50]]
    assert len({corrupted(of_kind("weekday")[0], rng) for _ in range(100)}) == 6


def test_every_word_has_a_wrong_letter():
    """Else `corrupted` would look for one for ever."""
    assert len(set(WORDS)) == len(WORDS)
    assert all(len(set(word)) > 1 for word in WORDS)


def test_what_cannot_be_generated_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        generated_tasks(0, seed=0)
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'validation'"):
        generated_tasks(1, seed=0, split="validation")
    few = {name: KINDS[name] for name in ("weekday", "end")}
    monkeypatch.setattr(module, "KINDS", few)
    with pytest.raises(ValueError, match=r"only \d+ different tasks for seed 0, not 100000"):
        generated_tasks(100_000, seed=0)
