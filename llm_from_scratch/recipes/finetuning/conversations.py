"""Conversations and pairs of answers, generated or of one's own, as lessons."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from llm_from_scratch.data.tasks import corrupted, generated_tasks
from llm_from_scratch.finetuning.conversations import load_conversations, question_and_answer
from llm_from_scratch.finetuning.example_batches import InstructionBatches, instruction_validation
from llm_from_scratch.finetuning.instructions import encode_conversation
from llm_from_scratch.finetuning.preference import PreferenceBatches, stack_pairs
from llm_from_scratch.recipes.finetuning.base import Base
from llm_from_scratch.recipes.finetuning.lesson import Lesson
from llm_from_scratch.recipes.finetuning.own_data import kept_back, read_preferences
from llm_from_scratch.recipes.finetuning.recipe import Instruct, Prefer

TASKS, PREFERENCES = "tasks", "preferences"  # what is generated
Messages = list[dict[str, str]]


def instruct_lesson(recipe: Instruct, base: Base) -> Lesson:
    """Conversations, of which the answers have targets."""
    path = Path(recipe.data)
    if recipe.data == TASKS and not path.exists():
        train, validation = generated_conversations(recipe)
    else:
        _check_file(path, TASKS)
        talks = load_conversations(path)
        train, validation = kept_back(talks, _first_question, origin=str(path))
    ids = [
        _encoded(base, talks, recipe.context_length, train_on=recipe.train_on)
        for talks in (train, validation)
    ]
    training = recipe.training
    sizes = {"batch_size": training.batch_size, "pad_id": base.pad_id}
    return Lesson(
        batches=InstructionBatches(ids[0], seed=training.seed, **sizes),
        validation=instruction_validation(ids[1], **sizes),
        counts={"conversations_to_train_on": len(train), "to_validate_on": len(validation)},
    )


def prefer_lesson(recipe: Prefer, base: Base) -> Lesson:
    """Pairs of answers to one question."""
    path = Path(recipe.data)
    if recipe.data == PREFERENCES and not path.exists():
        train, validation = generated_pairs(recipe)
    else:
        _check_file(path, PREFERENCES)
        train, validation = kept_back(read_preferences(path), lambda pair: pair[0], origin=str(path))
    pairs = [_encoded_pairs(base, part, recipe.context_length) for part in (train, validation)]
    training = recipe.training
    B, pad_id = training.batch_size, base.pad_id
    return Lesson(
        batches=PreferenceBatches(pairs[0], batch_size=B, pad_id=pad_id, seed=training.seed),
        validation=[stack_pairs(pairs[1][i : i + B], pad_id=pad_id) for i in range(0, len(pairs[1]), B)],
        counts={"pairs_to_train_on": len(train), "to_validate_on": len(validation)},
    )


def generated_conversations(recipe: Instruct) -> tuple[list[Messages], list[Messages]]:
    """Return tasks with their answers, with dialogue among those to train on; tasks of the test validate."""
    seed = recipe.training.seed
    tasks = generated_tasks(recipe.examples, seed)
    held_out = generated_tasks(max(1, recipe.examples // 10), seed, split="test")
    train, validation = (
        [question_and_answer(task.question, task.answer) for task in part] for part in (tasks, held_out)
    )
    if recipe.dialogue:
        from llm_from_scratch.data.dialogue import load_dialogue  # late: it reads YAML

        pairs = load_dialogue()
        chosen = np.random.default_rng(seed).permutation(len(pairs))[: recipe.dialogue]
        train += [question_and_answer(*pairs[i]) for i in chosen]
    return train, validation


def generated_pairs(recipe: Prefer) -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    """Return tasks with the right answer, which is preferred, and a wrong one of the same form."""
    seed = recipe.training.seed
    rng = np.random.default_rng(seed)
    sizes = (("train", recipe.examples), ("test", max(1, recipe.examples // 10)))
    train, validation = (
        [
            (task.question, task.answer, corrupted(task, rng))
            for task in generated_tasks(count, seed, split=split)
        ]
        for split, count in sizes
    )
    return train, validation


def _check_file(path: Path, known: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"--data: there is no file {path}; known by name is {known}")


def _first_question(messages: Messages) -> str:
    return next((message["content"] for message in messages if message["role"] == "user"), "")


def _encoded(
    base: Base, talks: Sequence[Messages], context_length: int, **settings: str
) -> list[tuple[Tensor, Tensor]]:
    """Ids and targets of each conversation. Raises: ValueError that says which one cannot be encoded."""
    found = []
    for number, messages in enumerate(talks, start=1):
        try:
            found.append(
                encode_conversation(base.loaded, messages, context_length=context_length, **settings)
            )
        except ValueError as error:
            question = _first_question(messages)
            raise ValueError(f"conversation {number}, {question!r:.60}: {error}") from None
    return found


def _encoded_pairs(
    base: Base, pairs: Sequence[tuple[str, str, str]], context_length: int
) -> list[tuple[Tensor, ...]]:
    def both(prompt: str, *answers: str) -> Iterator[Tensor]:
        talks = [question_and_answer(prompt, answer) for answer in answers]
        for ids_T, targets_T in _encoded(base, talks, context_length):
            yield from (ids_T, targets_T)

    return [tuple(both(*pair)) for pair in pairs]
