"""Instruction tuning: conversations as token ids, with targets in the answers alone.

A base model continues text; an assistant answers. The difference is trained with the ordinary loss on
texts that a chat template makes of questions and answers, counting the answers' tokens only.

Legend: T tokens, L tokens of the whole text (T + 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from llm_from_scratch.interop.chat import Messages, encode_chat, render_chat
from llm_from_scratch.interop.loaded import Loaded

NO_TARGET = -100  # a position that the loss passes over
ANSWERS = "assistant"  # the role whose words are trained on

# For base models that came without a template. The line break after "Answer:" keeps the answer's first
# token the same whether the answer is there already or about to be written.
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}Answer:\n{{ message.content }}{{ eos_token }}\n"
    "{% elif message.role == 'user' %}Question:\n{{ message.content }}\n"
    "{% else %}{{ message.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Answer:\n{% endif %}"
)


def encode_conversation(
    loaded: Loaded,
    messages: Messages,
    *,
    context_length: int | None = None,
    train_on: str = "answers",
    **variables: Any,
) -> tuple[Int[Tensor, "T"], Int[Tensor, "T"]]:
    r"""Return the ids that the model reads and, one token further on, the targets.

    Formula: with the ids ``w_0 .. w_T`` of the rendered text, ``ids_T[t] = w_t``, and ``targets_T[t] =
    w_(t+1)`` if token t + 1 belongs to an answer, else -100. To an answer belong the tokens of its text
    and the special token that ends it, which is how the model learns to stop; every answer of the
    conversation counts. What the template writes after that token, such as a line break, does not.

    The mask is exact: the text is cut at the answers' borders, and the ids of the pieces must be the ids
    of the whole text, so that no token lies on both sides of a border.

    Arguments: ``loaded`` brings tokenizer and chat template; ``train_on="everything"`` gives every token a
    target, for comparison. ``context_length`` cuts the end off, tokens: a question is never cut off from
    its answer, and an answer that is cut is not taught to end there.
    Raises: ValueError as `encode_chat`; if there is no answer, or none is left within the
    context_length; if a template changes what it wrote before when a message is added; and if a token
    would merge across a border, which a space or line break at the beginning of an answer can do.

    >>> from llm_from_scratch.tokenizers import BytePairTokenizer
    >>> tokenizer = BytePairTokenizer([], special_tokens=["<end>"])
    >>> loaded = Loaded(model=None, tokenizer=tokenizer, config=None, chat_template=PLAIN_TEMPLATE,
    ...     special_tokens={"eos_token": "<end>"})
    >>> talk = [{"role": "user", "content": "3+4?"}, {"role": "assistant", "content": "7"}]
    >>> ids_T, targets_T = encode_conversation(loaded, talk)
    >>> tokenizer.decode(targets_T[targets_T != NO_TARGET].tolist())
    '7<end>'
    """
    if train_on not in ("answers", "everything"):
        raise ValueError(f'train_on must be "answers" or "everything", got {train_on!r}')
    whole_L = encode_chat(loaded, messages, add_generation_prompt=False, **variables)
    pieces = split_at_answers(loaded, messages, **variables)
    encode = loaded.tokenizer.encode
    parts = [encode(text, allowed_special="all") if text else [] for text, _ in pieces]
    if [token for part in parts for token in part] != list(whole_L):
        raise ValueError(
            "a token would lie across the border of an answer, so that the loss cannot count the answer "
            f"alone; strip the space at both ends of each message: {_last_answer(messages)!r:.60}"
        )
    counts_L = [answer for part, (_, answer) in zip(parts, pieces, strict=True) for _ in part]
    ids_L, mask_L = torch.tensor(whole_L), torch.tensor(counts_L)
    if train_on == "everything":
        mask_L = torch.ones_like(mask_L)
    ids_T, targets_T = ids_L[:-1], ids_L[1:].masked_fill(~mask_L[1:], NO_TARGET)
    ids_T, targets_T = ids_T[:context_length], targets_T[:context_length]
    if not (targets_T != NO_TARGET).any():
        raise ValueError(
            f"no token of an answer is left in the first {context_length} tokens of {len(whole_L)}; shorten "
            "the question, or use a larger context_length"
        )
    return ids_T, targets_T


def split_at_answers(loaded: Loaded, messages: Messages, **variables: Any) -> list[tuple[str, bool]]:
    r"""Cut the rendered conversation into pieces of text, and say of each whether it is an answer.

    Where an answer begins and ends is found by rendering: the text of the messages before it with the
    generation prompt, and the text with it. The whole must begin with both.
    Raises: ValueError if it does not, or if no message is the assistant's.

    >>> loaded = Loaded(model=None, tokenizer=None, config=None, chat_template=PLAIN_TEMPLATE,
    ...     special_tokens={"eos_token": "<end>"})
    >>> talk = [{"role": "user", "content": "3+4?"}, {"role": "assistant", "content": "7"}]
    >>> split_at_answers(loaded, talk)
    [('Question:\n3+4?\nAnswer:\n', False), ('7<end>', True), ('\n', False)]
    """
    named = {**loaded.special_tokens, **variables}
    text = render_chat(loaded.chat_template, messages, **named)
    pieces, done = [], 0
    for number, message in enumerate(messages):
        if message.get("role") != ANSWERS:
            continue
        before = render_chat(loaded.chat_template, messages[:number], add_generation_prompt=True, **named)
        after = render_chat(loaded.chat_template, messages[: number + 1], **named)
        if not (text.startswith(after) and after.startswith(before)):
            raise ValueError(
                "the chat template writes earlier messages differently once another follows, so an answer "
                "cannot be found in the text; train on each answer in a conversation of its own, or use "
                "another template"
            )
        start, end = len(before), len(before) + _end_of_answer(loaded, after[len(before) :])
        pieces += [(text[done:start], False), (text[start:end], True)]
        done = end
    if not pieces:
        raise ValueError(f"the conversation has no message of the role {ANSWERS!r}: nothing to train on")
    return [*pieces, (text[done:], False)] if done < len(text) else pieces


def greedy_matches(
    logits_BTV: Tensor, targets_BT: Int[Tensor, "B T"], *, ignore_index: int = NO_TARGET
) -> Tensor:
    """Say of each row whether greedy decoding would write exactly its targets, the end token included.

    If the most likely token is the right one at each target, given the right ones before, then greedy
    decoding, which feeds back its own choices, makes the same choices, and the other way round. So one
    pass over the text gives the exact-match accuracy that decoding token by token would give.

    >>> logits_BTV = torch.eye(4)[torch.tensor([[1, 2, 3], [1, 0, 3]])]
    >>> greedy_matches(logits_BTV, torch.tensor([[-100, 2, 3], [-100, 2, 3]])).tolist()
    [True, False]
    """
    right_BT = logits_BTV.argmax(dim=-1) == targets_BT
    return (right_BT | (targets_BT == ignore_index)).all(dim=-1)


def _end_of_answer(loaded: Loaded, text: str) -> int:
    """Where an answer ends in the text from its first character on: behind the first special token."""
    special = getattr(loaded.tokenizer, "special_tokens", {})
    named = {token for token in (*special, *loaded.special_tokens.values()) if token}
    ends = [text.index(token) + len(token) for token in named if token in text]
    return min(ends, default=len(text))


def _last_answer(messages: Sequence[Mapping[str, Any]]) -> Any:
    return next((m.get("content") for m in reversed(messages) if m.get("role") == ANSWERS), None)
