"""Constrained decoding: only tokens after which the text can still become what is asked for.

`constrain` makes a step of the pipeline from a regular expression or a JSON schema. Before each draw
the scores of all other tokens become minus infinity, so that every sample is valid by construction, at
any temperature and whatever the model; the model decides among what remains.

What this does not do: sample the model's own valid texts in their own proportions. Renormalising at
each token spreads the probability of the texts that were cut off over the texts that happen to share
their beginning. `decoding.constrained_bias` works the difference out exactly for a small case.

Legend: B sequences, T tokens so far, V vocabulary entries.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llm_from_scratch.decoding.byte_automaton import DEAD, MAX_STATES, START
from llm_from_scratch.decoding.json_schema import schema_grammar
from llm_from_scratch.decoding.pipeline import check_history
from llm_from_scratch.decoding.prompts import whole_numbers
from llm_from_scratch.decoding.regex_grammar import regex_grammar
from llm_from_scratch.decoding.sampling import LanguageModel, sample
from llm_from_scratch.decoding.token_automaton import TokenAutomaton, tree_of

# Names under which published vocabularies keep the token that ends a text or a turn.
ENDS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "</s>", "<|end|>")
ENDED = -1  # the state behind an end-of-text token
MAX_PREFIXES = 4096  # texts whose state is kept


class Constraint:
    """A step ``(ids_BT, logits_BV) -> logits_BV`` that lets through what a `TokenAutomaton` allows.

    It reads the tokens from ``prompt_length`` on, and gives the same result for the same ids, whatever
    was asked before: the states that it keeps only save work. After ``max_new_tokens`` tokens, and after
    an end-of-text token, nothing but end-of-text is allowed.

    ``stop_ids`` are the end-of-text tokens; pass them to the generation too. ``automaton`` holds the
    states. Use one for any number of sequences, one after the other or in a batch.
    """

    def __init__(
        self,
        automaton: TokenAutomaton,
        *,
        prompt_length: int,
        max_new_tokens: int,
        stop_ids: Iterable[int],
    ):
        self.automaton, self.stop_ids = automaton, whole_numbers(stop_ids, "stop_ids")
        for name, value, least in (
            ("prompt_length", prompt_length, 0),
            ("max_new_tokens", max_new_tokens, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        self.prompt_length, self.max_new_tokens = prompt_length, max_new_tokens
        if not self.stop_ids:
            raise ValueError("a constraint needs an end-of-text token: give stop_ids, at least one id")
        tokens = automaton.tree.tokens
        for i in self.stop_ids:
            if not 0 <= i < len(tokens) or tokens[i]:
                raise ValueError(
                    f"stop_ids must be special tokens of the vocabulary of {len(tokens)}, got {i}"
                )
        needed = automaton.fewest_tokens()
        if needed > max_new_tokens:
            raise ValueError(
                f"the shortest text that the constraint allows takes {needed} tokens, "
                f"more than max_new_tokens={max_new_tokens}; allow at least {needed}"
            )
        self._states: OrderedDict[tuple[int, ...], int] = OrderedDict()

    def __call__(self, ids_BT: Int[Tensor, "B T"], logits_BV: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        """Set the score of every token that is not allowed to minus infinity.

        Raises: ValueError if a text breaks the constraint already, or V is smaller than the vocabulary.
        """
        check_history(ids_BT, logits_BV)
        V = logits_BV.shape[-1]
        if len(self.automaton.tree) > V:
            raise ValueError(
                f"the tokenizer of the constraint has {len(self.automaton.tree)} tokens, the scores {V}; "
                "use the model's own tokenizer"
            )
        if ids_BT.shape[1] < self.prompt_length:
            raise ValueError(
                f"the text has {ids_BT.shape[1]} tokens, fewer than prompt_length={self.prompt_length}"
            )
        rows = [self.allowed(new_ids, V) for new_ids in ids_BT[:, self.prompt_length :].tolist()]
        allowed_BV = torch.from_numpy(np.stack(rows)).to(logits_BV.device)
        return logits_BV.masked_fill(~allowed_BV, -torch.inf)

    def allowed(self, new_ids: list[int], vocab_size: int) -> np.ndarray:
        """Return a bool for each token: may it follow the tokens ``new_ids`` behind the prompt."""
        allowed_V = np.zeros(vocab_size, dtype=bool)
        state = self._state(tuple(new_ids))
        if state != ENDED:
            left = self.max_new_tokens - len(new_ids)
            row = self.automaton.allowed(state, tokens_left=left)
            allowed_V[: len(row)] = row
        if state == ENDED or self.automaton.accepts(state):
            allowed_V[list(self.stop_ids)] = True
        return allowed_V

    def finished(self, new_ids: Iterable[int]) -> bool:
        """Whether the tokens behind the prompt are a whole text that the constraint allows."""
        state = self._state(tuple(new_ids))
        return state == ENDED or self.automaton.accepts(state)

    def _state(self, new_ids: tuple[int, ...]) -> int:
        """The state behind the tokens, from the longest beginning whose state is kept."""
        known = len(new_ids)
        while known and new_ids[:known] not in self._states:
            known -= 1
        state = self._states[new_ids[:known]] if known else START
        for place in range(known, len(new_ids)):
            state = self._after(state, new_ids[place], place)
        if known < len(new_ids):
            self._states[new_ids] = state
            if len(self._states) > MAX_PREFIXES:
                self._states.popitem(last=False)
        return state

    def _after(self, state: int, token: int, place: int) -> int:
        if state == ENDED:
            return ENDED  # padding behind the end, whatever it is
        if token in self.stop_ids and self.automaton.accepts(state):
            return ENDED
        following = self.automaton.next_state(state, token)
        if following == DEAD:
            raise ValueError(
                f"token {token} at place {place} behind the prompt breaks the constraint; "
                "is prompt_length right, and was the step part of the pipeline from the start?"
            )
        return following


def constrain(
    tokenizer,
    *,
    max_new_tokens: int,
    prompt_length: int,
    regex: str | None = None,
    json_schema: Any = None,
    stop_ids: Iterable[int] | None = None,
    max_states: int = MAX_STATES,
) -> Constraint:
    r"""Return the pipeline step that holds a text to a regular expression or to a JSON schema.

    Arguments: exactly one of ``regex`` (the whole text must match, as by ``re.fullmatch``) and
    ``json_schema`` (a dictionary, True, or JSON text; `decoding.json_schema` lists what is supported).
    ``prompt_length`` tokens of each text are not looked at. ``max_new_tokens`` is that of the generation:
    a text is always finished by then. ``stop_ids`` end a text; by default the tokenizer's special
    tokens that are called so (`ENDS`). Put the step last in the pipeline.

    Raises: ValueError for what is no regex or schema, uses what is not supported (named, with its
    place), allows no text, needs more than ``max_new_tokens`` tokens, or more than ``max_states`` states.

    >>> from llm_from_scratch.decoding.sampling import sample
    >>> from llm_from_scratch.tokenizers.byte_pair import BytePairTokenizer
    >>> tokenizer = BytePairTokenizer([], ["<|endoftext|>"])
    >>> uniform = lambda ids_BT: torch.zeros(*ids_BT.shape, tokenizer.vocab_size)
    >>> step = constrain(tokenizer, regex=r"\d{4}-\d\d", prompt_length=1, max_new_tokens=9)
    >>> ids = sample(uniform, [0], max_new_tokens=9, seed=1, stop_ids=step.stop_ids, pipeline=[step])
    >>> import re
    >>> bool(re.fullmatch(r"\d{4}-\d\d", tokenizer.decode(ids)))
    True
    """
    if (regex is None) == (json_schema is None):
        raise ValueError("give exactly one of regex and json_schema")
    tree = tree_of(tokenizer)
    grammar = regex_grammar(regex) if regex is not None else schema_grammar(json_schema)
    if stop_ids is None:
        stop_ids = [i for name, i in tokenizer.special_ids.items() if name in ENDS]
        if not stop_ids:
            raise ValueError(f"the tokenizer has no special token among {ENDS}; give stop_ids")
    return Constraint(
        TokenAutomaton(grammar, tree, max_states=max_states),
        prompt_length=prompt_length,
        max_new_tokens=max_new_tokens,
        stop_ids=stop_ids,
    )


def generate_json(
    model: LanguageModel,
    tokenizer,
    prompt: str | Iterable[int],
    schema: Any,
    *,
    max_new_tokens: int,
    generate=sample,
    pipeline=(),
    **settings: Any,
) -> Any:
    """Continue ``prompt`` (a text, or ids) with JSON that the schema allows, and return its value.

    ``generate`` draws the tokens: `decoding.sample`, or `inference.generate` for a Decoder with a cache.
    ``settings`` are its settings, such as ``temperature`` and ``seed``; the steps of ``pipeline`` come
    before the constraint.

    Raises: ValueError as `constrain` does.
    """
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    step = constrain(
        tokenizer, json_schema=schema, prompt_length=len(ids), max_new_tokens=max_new_tokens,
        stop_ids=settings.pop("stop_ids", None),
    )  # fmt: skip
    steps = [*pipeline, step]
    new_ids = generate(
        model, ids, max_new_tokens=max_new_tokens, stop_ids=step.stop_ids, pipeline=steps, **settings
    )
    return json.loads(tokenizer.decode(new_ids))
