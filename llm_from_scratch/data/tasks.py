"""Instruction tasks made by rule, with one right answer each: so an answer is marked without a judge.

Nine kinds in plain English, each in several phrasings. Whether the content of a question (its numbers, its
words) belongs to training or to testing is drawn by a hash of the content, so no test question occurs in
training, in any phrasing; where the order of the content does not matter (of the numbers to add, of the
words to sort), in any order. Each kind has one phrasing that training never shows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from llm_from_scratch.data.task_words import DAYS, EVENTS, PLACES, WORDS

Split = Literal["train", "test"]
TEST_SHARE = 0.2  # of the contents
_TRIES = 2_000  # draws of one kind without a new question, after which it counts as used up


@dataclass(frozen=True, kw_only=True)
class Task:
    """A question, its right answer and what kind it is of. ``new_phrasing``: training never shows it."""

    question: str
    answer: str
    kind: str
    new_phrasing: bool = False


@dataclass(frozen=True, kw_only=True)
class _Kind:
    draw: Callable[[np.random.Generator], tuple[dict[str, Any], str]]  # what a question is about, the answer
    wrong: Callable[[Task, np.random.Generator], str]  # an answer of the same form, perhaps the right one
    seen: tuple[str, ...]  # phrasings in training and in the test
    new: str  # one in the test alone
    ordered: bool = True  # whether the answer depends on the order of the content


def generated_tasks(count: int, seed: int, split: Split = "train") -> list[Task]:
    """Return ``count`` tasks with different questions, the kinds equally often as far as they reach.

    The first n of a larger number are the tasks of ``count`` n. In the test about one question in four
    has the kind's new phrasing.
    Raises: ValueError for a count below 1, another split, or more tasks than there are.

    >>> for task in generated_tasks(3, seed=0):
    ...     print(f"{task.kind}: {task.question} {task.answer}")
    count: Count the letter s in the word "grass". 2
    end: Which letter comes last in "ivory"? y
    sort: Sort these words by the alphabet: crane, horse, barrel. barrel, crane, horse
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    rng = np.random.default_rng((seed, ("train", "test").index(split)))
    kinds, tasks, asked = list(KINDS), [], set()
    while len(tasks) < count:
        if not kinds:
            raise ValueError(f"there are only {len(tasks)} different tasks for seed {seed}, not {count}")
        for kind in [kinds[i] for i in rng.permutation(len(kinds))]:
            task = _new_task(kind, rng, split, asked)
            if task is None:
                kinds.remove(kind)
            else:
                asked.add(task.question)
                tasks.append(task)
    return tasks[:count]


def _new_task(kind: str, rng: np.random.Generator, split: Split, asked: set[str]) -> Task | None:
    rules = KINDS[kind]
    for _ in range(_TRIES):
        content, answer = rules.draw(rng)
        new_phrasing = split == "test" and rng.random() < 0.25
        phrasing = rules.new if new_phrasing else rules.seen[rng.integers(len(rules.seen))]
        question = phrasing.format(**content)
        if _split_of(kind, content) == split and question not in asked:
            return Task(question=question, answer=answer, kind=kind, new_phrasing=new_phrasing)
    return None


def _split_of(kind: str, content: dict[str, Any]) -> Split:
    about = " ".join(str(content[name]) for name in sorted(content))
    if not KINDS[kind].ordered:
        about = " ".join(sorted(re.findall(r"\w+", about)))
    digest = hashlib.sha256(f"{kind}: {about}".encode()).digest()
    return "test" if int.from_bytes(digest[:4], "big") < TEST_SHARE * 2**32 else "train"


def corrupted(task: Task, rng: np.random.Generator) -> str:
    """Return a wrong answer of the same form: a number for a number, the same words in another order.

    Together with the right answer it is a pair for preference tuning whose better half is known.

    >>> task = Task(question="What is 20 plus 22?", answer="42", kind="add")
    >>> corrupted(task, np.random.default_rng(0)).isdigit()
    True
    """
    while True:
        answer = KINDS[task.kind].wrong(task, rng)
        if not is_right(task, answer):
            return answer


def is_right(task: Task, reply: str) -> bool:
    """Tell whether a reply is the right answer, up to white space around it, quotes and a full stop.

    Capitals count for the kind ``capitals`` alone.

    >>> is_right(Task(question="...", answer="Monday", kind="weekday"), ' "monday." ')
    True
    """
    said = " ".join(reply.split()).strip("\"'. ")
    return said == task.answer if task.kind == "capitals" else said.lower() == task.answer.lower()


def _choose(rng: np.random.Generator, among: tuple[str, ...], count: int) -> list[str]:
    return [among[i] for i in rng.choice(len(among), count, replace=False)]


def _add(rng):
    a, b = (int(x) for x in rng.integers(2, 100, 2))
    return {"a": a, "b": b}, str(a + b)


def _near_number(task, rng):
    return str(abs(int(task.answer) + int(rng.choice((-10, -2, -1, 1, 2, 10)))))


def _largest(rng):
    a, b, c = (int(x) for x in rng.choice(900, 3, replace=False) + 100)
    return {"a": a, "b": b, "c": c}, str(max(a, b, c))


def _number_of_question(task, rng):
    return str(rng.choice(re.findall(r"\d+", task.question)))


def _sort(rng):
    words = _choose(rng, WORDS, int(rng.integers(3, 5)))
    return {"words": ", ".join(words)}, ", ".join(sorted(words))


def _reverse(rng):
    words = _choose(rng, WORDS, int(rng.integers(3, 5)))
    return {"words": ", ".join(words)}, ", ".join(reversed(words))


def _other_order(task, rng):
    return ", ".join(rng.permutation(task.answer.split(", ")))


def _count(rng):
    word = WORDS[rng.integers(len(WORDS))]
    repeated = [letter for letter in word if word.count(letter) > 1]
    among = repeated if repeated and rng.random() < 0.7 else word  # else nearly every answer is 1
    letter = among[rng.integers(len(among))]
    return {"word": word, "letter": letter}, str(word.count(letter))


def _other_count(task, rng):
    return str(max(1, int(task.answer) + int(rng.choice((-1, 1)))))


def _end(rng):
    word = WORDS[rng.integers(len(WORDS))]
    end = ("first", "last")[rng.integers(2)]
    return {"word": word, "end": end}, word[0 if end == "first" else -1]


def _letter_of_word(task, rng):
    word = re.search(r'"(\w+)"', task.question)[1]
    return word[rng.integers(len(word))]


def _capitals(rng):
    text = " ".join(_choose(rng, WORDS, 2))
    return {"text": text}, text.upper()


def _letters_swapped(task, rng):
    letters = list(task.answer)
    i = rng.integers(len(letters) - 1)
    if " " not in letters[i : i + 2]:
        letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


def _year(rng):
    year, number = int(rng.integers(1801, 2000)), int(rng.integers(3, 90))
    event = EVENTS[rng.integers(len(EVENTS))].format(
        year=year, number=number, place=PLACES[rng.integers(len(PLACES))]
    )
    return {"event": event}, str(year)


def _other_year(task, rng):
    return str(int(rng.integers(1801, 2000)))


def _weekday(rng):
    day, days = int(rng.integers(7)), int(rng.integers(2, 31))
    side = ("after", "before")[rng.integers(2)]
    answer = DAYS[(day + (days if side == "after" else -days)) % 7]
    return {"day": DAYS[day], "days": days, "side": side}, answer


def _other_day(task, rng):
    return DAYS[rng.integers(7)]


KINDS: dict[str, _Kind] = {
    "add": _Kind(
        draw=_add,
        wrong=_near_number,
        ordered=False,
        seen=("What is {a} plus {b}?", "Add {a} and {b}.", "Compute {a} + {b}.", "How much is {a} and {b}?"),
        new="What is the sum of {a} and {b}?",
    ),
    "largest": _Kind(
        draw=_largest,
        wrong=_number_of_question,
        ordered=False,
        seen=("Which is the largest of {a}, {b} and {c}?", "Give the largest number: {a}, {b}, {c}."),
        new="Of the numbers {a}, {b} and {c}, which one is greater than the others?",
    ),
    "sort": _Kind(
        draw=_sort,
        wrong=_other_order,
        ordered=False,
        seen=("Sort these words by the alphabet: {words}.", "Put in alphabetical order: {words}."),
        new="Write these words in the order of a dictionary: {words}.",
    ),
    "reverse": _Kind(
        draw=_reverse,
        wrong=_other_order,
        seen=("Reverse this list: {words}.", "Write this list from its end to its beginning: {words}."),
        new="List these words backwards: {words}.",
    ),
    "count": _Kind(
        draw=_count,
        wrong=_other_count,
        seen=(
            'How many times does the letter {letter} occur in "{word}"?',
            'Count the letter {letter} in the word "{word}".',
            'How often is {letter} in "{word}"?',
        ),
        new='What is the number of letters {letter} in "{word}"?',
    ),
    "end": _Kind(
        draw=_end,
        wrong=_letter_of_word,
        seen=(
            'What is the {end} letter of "{word}"?',
            'Name the {end} letter of the word "{word}".',
            'Which letter comes {end} in "{word}"?',
        ),
        new='Take the word "{word}" and give its {end} letter.',
    ),
    "capitals": _Kind(
        draw=_capitals,
        wrong=_letters_swapped,
        seen=('Write "{text}" in capital letters.', 'Put "{text}" into upper case.', "In capitals: {text}"),
        new='Turn every letter of "{text}" into a capital.',
    ),
    "year": _Kind(
        draw=_year,
        wrong=_other_year,
        seen=(
            "{event} In which year was that?",
            "Which year does this name? {event}",
            "Find the year: {event}",
        ),
        new="When did this happen? {event}",
    ),
    "weekday": _Kind(
        draw=_weekday,
        wrong=_other_day,
        seen=(
            "Which day is {days} days {side} {day}?",
            "Name the day of the week {days} days {side} {day}.",
            "What day of the week lies {days} days {side} a {day}?",
        ),
        new="Begin at {day} and count {days} days: which day lies so far {side} it?",
    ),
}
