"""What beam search may ask of a model, written down once: then it can be run again without the model.

With a fixed prompt and length, beam search looks at few texts, whatever its settings: the number of
beams decides which ones, and the length penalty and the stopping rule only when it ends. So a table of
the likeliest next tokens behind each of these texts is enough to repeat the search exactly. The beam
tree of chapter 13 carries such a table into the page.

Legend: B texts, T positions, V vocabulary entries.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llm_from_scratch.decoding.prompts import check_prompt, next_token_logits, whole_numbers
from llm_from_scratch.decoding.sampling import LanguageModel
from llm_from_scratch.decoding.search import beam_search

Row = tuple[list[int], list[float]]  # next tokens, the likeliest first, and their log-probabilities in nats


def beam_table(
    model: LanguageModel,
    ids: Any,
    *,
    max_new_tokens: int,
    max_beams: int,
    stop_ids: Any = (),
    context_length: int | None = None,
) -> dict[tuple[int, ...], Row]:
    """Write down what beam search with 1 to ``max_beams`` beams sees of the model.

    Returns, for each text of new tokens that some search continues, the likeliest next tokens: as
    many as a search with ``max_beams`` can look at, ``max_beams * max(2, 1 + number of stop ids)``.
    Raises: ValueError as `beam_search`, and if the texts would outgrow what the model reads.

    >>> p = torch.tensor([[0.0, 0.6, 0.4, 0.0], [0.5, 0.0, 0.0, 0.5], [0.0, 0.1, 0.0, 0.9], [1.0, 0, 0, 0]])
    >>> table = beam_table(lambda ids_BT: p[ids_BT].log(), [0], max_new_tokens=2, max_beams=2)
    >>> sorted(table), table[(2,)][0]
    ([(), (1,), (2,)], [3, 1])
    """
    history, context_length = check_prompt(model, ids, max_new_tokens, context_length)
    if context_length is not None and len(history) + max_new_tokens > context_length:
        raise ValueError(
            f"{len(history)} tokens and {max_new_tokens} new ones outgrow context_length={context_length}; "
            "a beam table needs texts that are read whole: shorten the prompt or max_new_tokens"
        )
    width = max_beams * max(2, 1 + len(whole_numbers(stop_ids, "stop_ids")))
    recorder = _Recorder(model, len(history), width)
    for num_beams in range(1, max_beams + 1):
        beam_search(
            recorder,
            ids,
            max_new_tokens=max_new_tokens,
            num_beams=num_beams,
            stop_ids=stop_ids,
            early_stopping="never",
            length_penalty=50.0,  # the longest text could always still win: no search ends early
        )
    return recorder.table


class _Recorder:
    """The model, and a table of what it said about the token after each text."""

    def __init__(self, model: LanguageModel, start: int, width: int):
        self.model, self.start, self.width = model, start, width
        self.table: dict[tuple[int, ...], Row] = {}

    def __call__(self, ids_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B 1 V"]:
        logits_BV = next_token_logits(self.model, ids_BT)
        best = logits_BV.log_softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        for text, log_probs, tokens in zip(ids_BT.tolist(), best.values, best.indices, strict=True):
            known = int((log_probs[: self.width] > -torch.inf).sum())
            self.table[tuple(text[self.start :])] = tokens[:known].tolist(), log_probs[:known].tolist()
        return logits_BV[:, None]
