"""Search for a likely continuation instead of drawing one: greedy and beam search.

Greedy search takes the most likely token at each step. That need not be the most likely text: a
first token of lower probability may lead to a far better second one. Beam search keeps the
``num_beams`` best texts of each length and returns the best that ended.

The whole text is read anew for each token, without a cache.

Legend: B texts, T positions, V vocabulary entries, K beams.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from llm_from_scratch.decoding.pipeline import Pipeline, run_pipeline
from llm_from_scratch.decoding.prompts import check_prompt, next_token_logits, whole_numbers
from llm_from_scratch.decoding.sampling import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A continuation that beam search returns.

    ``ids`` are its new tokens, without the stop token; ``stop_id`` is the stop token that ended it,
    or None if its length ran out. ``log_probability`` is the sum over all its tokens, the stop token
    included, in nats; ``score`` is that sum after the length penalty.
    """

    ids: tuple[int, ...]
    stop_id: int | None
    log_probability: float
    score: float


@dataclass(frozen=True, kw_only=True)
class BeamResult:
    """What beam search found: the ``hypotheses``, best first, and the ``tree`` of all it looked at.

    ``tree`` is a list of dictionaries that JSON can hold, one a node; node i has ``id`` i:

    - ``parent``: the id of the node before it, None for the root (the prompt);
    - ``token``: its token id, None for the root; ``step``: how many new tokens lead to it;
    - ``log_probability``: of this token, in nats; ``total``: the sum from the root to here;
    - ``state``: "kept" (a beam of its step, and the root), "ended" (with a stop token or at the full
      length), or "dropped" (a candidate that no beam was left for).
    """

    hypotheses: tuple[Hypothesis, ...]
    tree: list[dict[str, Any]] = field(repr=False)


def greedy_search(
    model: LanguageModel,
    ids,
    *,
    max_new_tokens: int,
    stop_ids=(),
    pipeline: Pipeline = (),
    context_length: int | None = None,
) -> list[int]:
    """Take the most likely next token, the lowest id if several tie, until a stop token or the length.

    Returns the new tokens only, without the stop token. ``pipeline`` changes the scores of each step.
    The model reads the last ``context_length`` tokens, by default as many as it can.

    Raises: ValueError for a bad prompt or setting, for scores that are NaN, and if the pipeline
    leaves no token possible.

    >>> def counter(ids_BT):  # after token n comes token n + 1
    ...     return torch.nn.functional.one_hot((ids_BT + 1) % 10, 10)
    >>> greedy_search(counter, [3], max_new_tokens=9, stop_ids=[7])
    [4, 5, 6]
    """
    history, context_length = check_prompt(model, ids, max_new_tokens, context_length)
    stop_ids, start = whole_numbers(stop_ids, "stop_ids"), len(history)
    for _ in range(max_new_tokens):
        ids_BT = torch.tensor([history])
        logits_BV = run_pipeline(pipeline, ids_BT, next_token_logits(model, ids_BT, context_length))
        token = int(logits_BV[0].argmax())
        if not math.isfinite(logits_BV[0, token]):
            raise ValueError(_nothing_left(len(history) - start, logits_BV[0, token].item()))
        if token in stop_ids:
            break
        history.append(token)
    return history[start:]


def beam_search(
    model: LanguageModel,
    ids,
    *,
    max_new_tokens: int,
    num_beams: int,
    num_return: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    stop_ids=(),
    pipeline: Pipeline = (),
    context_length: int | None = None,
) -> BeamResult:
    """Keep the ``num_beams`` most likely texts of each length; return the best ``num_return`` that ended.

    One step: score every continuation of every beam by its total log-probability; look at the best
    ``num_beams * max(2, 1 + number of stop ids)``, enough for ``num_beams`` of them not to end in a
    stop token. Those that end, if among the best ``num_beams``, join the finished texts; the best
    ``num_beams`` of the others are the new beams. At the full length all of them end.

    A finished text of n new tokens has the score ``log_probability / n ** length_penalty``. Every
    token lowers the sum, so 0 favours short texts; 1, the mean over its tokens, does so less; above
    1 long texts gain.

    ``early_stopping`` says when ``num_beams`` finished texts are enough:

    - True: at once.
    - False: when the best beam, scored as if it ended now, is no better than the worst of them.
    - "never": when no beam can become better than the worst of them. A total only falls, so with a
      positive penalty the bound is the best beam's total at the full length, and else at this one.

    ``pipeline`` changes the log-probabilities, and what it returns is not normalised again.

    Units: log-probabilities in nats; ``length_penalty`` is a bare exponent from -50 to 50.
    Returns fewer than ``num_return`` texts if the model and pipeline allow no more.
    Raises: ValueError for a bad prompt or setting, NaN scores, or no possible continuation at all.
    Source: Wu et al. 2016, section 7, for the search; the stopping rules and the exponent are those
    of transformers 5. Departures: ties keep the beam, then the token, of lower number; beams that
    do not exist yet (fewer than ``num_beams`` texts of a length) are absent, where transformers
    fills them with copies of score -1e9.

    >>> p = torch.tensor([[0.0, 0.6, 0.4, 0.0], [0.5, 0.0, 0.0, 0.5], [0.0, 0.1, 0.0, 0.9], [1.0, 0, 0, 0]])
    >>> greedy_search(lambda ids_BT: p[ids_BT].log(), [0], max_new_tokens=2)  # 0.6 * 0.5
    [1, 0]
    >>> found = beam_search(lambda ids_BT: p[ids_BT].log(), [0], max_new_tokens=2, num_beams=2)
    >>> [(text.ids, round(math.exp(text.log_probability), 2)) for text in found.hypotheses]  # 0.4 * 0.9
    [((2, 3), 0.36)]
    """
    _check_settings(num_beams, num_return, length_penalty, early_stopping)
    history, context_length = check_prompt(model, ids, max_new_tokens, context_length)
    stop_ids = whole_numbers(stop_ids, "stop_ids")
    tree = [_node(0, None, None, 0, 0.0, 0.0, "kept")]
    beams, finished = [_Text((), 0.0, 0)], []
    for step in range(1, max_new_tokens + 1):
        ids_BT = torch.tensor([history + list(beam.ids) for beam in beams])
        log_probs_KV = next_token_logits(model, ids_BT, context_length).log_softmax(dim=-1)
        log_probs_KV = run_pipeline(pipeline, ids_BT, log_probs_KV)
        totals_KV = log_probs_KV + torch.tensor([[beam.total] for beam in beams])
        candidates = _best(totals_KV, num_beams * max(2, 1 + len(stop_ids)))
        if not candidates and not finished:
            raise ValueError(_nothing_left(step - 1, -math.inf))
        parents, beams = beams, []
        for rank, (k, token) in enumerate(candidates):
            total, state = totals_KV[k, token].item(), "dropped"
            text = _Text((*parents[k].ids, token), total, len(tree))
            if token in stop_ids or step == max_new_tokens:
                if rank < num_beams:
                    state = "ended"
                    finished.append((total / step**length_penalty, text))
            elif len(beams) < num_beams:
                state = "kept"
                beams.append(text)
            tree.append(
                _node(text.node, parents[k].node, token, step, log_probs_KV[k, token].item(), total, state)
            )
        finished = sorted(finished, key=lambda pair: -pair[0])[:num_beams]  # stable: the earlier stays
        length = max_new_tokens if early_stopping == "never" and length_penalty > 0 else step
        if not beams or _enough(finished, beams[0].total / length**length_penalty, num_beams, early_stopping):
            break
    if max_new_tokens == 0:
        finished = [(0.0, beams[0])]
    hypotheses = tuple(_hypothesis(score, text, stop_ids) for score, text in finished[:num_return])
    return BeamResult(hypotheses=hypotheses, tree=tree)


@dataclass(frozen=True)
class _Text:
    """New tokens so far, the sum of their log-probabilities, and the tree's node of the last one."""

    ids: tuple[int, ...]
    total: float
    node: int


def _best(totals_KV: Float[Tensor, "K V"], count: int) -> list[tuple[int, int]]:
    """The (beam, token) pairs of the ``count`` highest totals, best first; impossible ones left out."""
    flat_N = totals_KV.flatten()
    least = flat_N.topk(min(count, len(flat_N))).values[-1]
    places_N = ((flat_N >= least) & (flat_N > -torch.inf)).nonzero().flatten()  # with all that tie
    order_N = places_N[flat_N[places_N].argsort(descending=True, stable=True)][:count]
    return [divmod(place, totals_KV.shape[1]) for place in order_N.tolist()]


def _enough(finished, bound: float, num_beams: int, early_stopping: bool | str) -> bool:
    """Whether the search may end: ``bound`` is what the best beam is held to be able to reach."""
    if len(finished) < num_beams:
        return False
    return early_stopping is True or bound <= finished[-1][0]


def _hypothesis(score: float, text: _Text, stop_ids: frozenset[int]) -> Hypothesis:
    stopped = bool(text.ids) and text.ids[-1] in stop_ids
    return Hypothesis(
        ids=text.ids[:-1] if stopped else text.ids,
        stop_id=text.ids[-1] if stopped else None,
        log_probability=text.total,
        score=score,
    )


def _node(node, parent, token, step, log_probability, total, state) -> dict[str, Any]:
    return {
        "id": node,
        "parent": parent,
        "token": token,
        "step": step,
        "log_probability": log_probability,
        "total": total,
        "state": state,
    }


def _nothing_left(new_tokens: int, highest: float) -> str:
    return (
        f"no token is possible after {new_tokens} new tokens: the highest score is {highest}; "
        "the pipeline forbids every token, or the weights diverged in training"
    )


def _check_settings(num_beams, num_return, length_penalty, early_stopping) -> None:
    for name, value in (("num_beams", num_beams), ("num_return", num_return)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if num_return > num_beams:
        raise ValueError(
            f"num_return must be at most num_beams, got {num_return} of {num_beams}; take more beams"
        )
    if not -50.0 <= length_penalty <= 50.0:  # beyond, n ** length_penalty leaves the range of a float
        raise ValueError(f"length_penalty must lie between -50 and 50, got {length_penalty}; 0 turns it off")
    if not isinstance(early_stopping, bool) and early_stopping != "never":
        raise ValueError(f'early_stopping must be True, False or "never", got {early_stopping!r}')
