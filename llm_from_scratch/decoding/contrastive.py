"""Contrastive search: likely tokens, but none whose vector repeats one that was there before.

Greedy search and beam search fall into loops. Inside a loop the model's vectors repeat as well, so
a candidate whose vector resembles an earlier one is marked down.

Each step reads the whole text once, and once more with each candidate added, without a cache.

Legend: B texts, T positions, C vector width, V vocabulary entries, K candidates.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llm_from_scratch.decoding.prompts import check_prompt, next_token_logits, whole_numbers
from llm_from_scratch.nn.modes import evaluation_mode

# Turns ids_BT into one vector for each position, (B, T, C): what the output layer of the model reads.
VectorReader = Callable[[Tensor], Tensor]


def contrastive_search(
    model,
    ids,
    *,
    max_new_tokens: int,
    num_candidates: int = 4,
    alpha: float = 0.6,
    stop_ids=(),
    vectors: VectorReader | None = None,
    context_length: int | None = None,
) -> list[int]:
    """Weigh the probability of each of the likeliest tokens against its likeness to the text so far.

    Formula: among the ``num_candidates`` most likely tokens v, take the one with the highest

        ``(1 - alpha) * p(v | text) - alpha * max_j cos(h_v, h_j)``

    where ``h_v`` is the vector of v read at the end of the text, ``h_j`` those of the tokens before
    it, and cos(a, b) = a.b / (|a| |b|). The lower rank wins where several tie.

    ``vectors`` maps ids_BT to these vectors; None takes what enters the output layer of a Decoder
    of ours. Returns the new tokens only, without the stop token. The model and ``vectors`` read the
    last ``context_length`` tokens, by default as many as the model can, and likeness is measured
    within them.

    Units: ``alpha`` from 0 (greedy search) to 1 (likeness alone).
    Raises: ValueError for a bad prompt or setting, a model without vectors, and NaN scores.
    Source: Su et al. 2022 (A contrastive framework for neural text generation), section 3.2.

    >>> def model(ids_BT):  # token 0 is always the likeliest, then 1
    ...     return torch.tensor([0.55, 0.44, 0.01]).log().expand(*ids_BT.shape, 3)
    >>> one_hot = lambda ids_BT: nn.functional.one_hot(ids_BT, 3).float()
    >>> contrastive_search(model, [0], max_new_tokens=3, num_candidates=2, alpha=0.0, vectors=one_hot)
    [0, 0, 0]
    >>> contrastive_search(model, [0], max_new_tokens=3, num_candidates=2, alpha=0.5, vectors=one_hot)
    [1, 0, 0]
    """
    if type(num_candidates) is not int or num_candidates < 1:
        raise ValueError(f"num_candidates must be a whole number of at least 1, got {num_candidates!r}")
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}; 0 is greedy search")
    history, context_length = check_prompt(model, ids, max_new_tokens, context_length)
    stop_ids, start = whole_numbers(stop_ids, "stop_ids"), len(history)
    vectors = output_vectors(model) if vectors is None else vectors
    for _ in range(max_new_tokens):
        logits_1V = next_token_logits(model, torch.tensor([history]), context_length)
        probs_V = logits_1V[0].softmax(dim=-1)
        candidates_K = probs_V.argsort(descending=True, stable=True)[:num_candidates]
        extended_KT = torch.tensor([[*history, token] for token in candidates_K.tolist()])
        if context_length is not None:
            extended_KT = extended_KT[:, -context_length:]
        with torch.no_grad():
            likeness_K = highest_likeness(vectors(extended_KT))
        score_K = (1 - alpha) * probs_V[candidates_K] - alpha * likeness_K
        token = int(candidates_K[score_K.argmax()])
        if token in stop_ids:
            break
        history.append(token)
    return history[start:]


def highest_likeness(vectors_KTC: Float[Tensor, "K T C"]) -> Float[Tensor, "K"]:
    """The highest cosine between the last vector of each row and the ones before it; -1 if there are none.

    >>> highest_likeness(torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]]))
    tensor([1.])
    """
    unit_KTC = nn.functional.normalize(vectors_KTC.float().cpu(), dim=-1)
    cosine_KT = (unit_KTC[:, :-1] * unit_KTC[:, -1:]).sum(dim=-1)
    return cosine_KT.amax(dim=-1) if cosine_KT.shape[1] else -torch.ones(len(cosine_KT))


def output_vectors(model) -> VectorReader:
    """Return a function that gives the vectors that enter a Decoder's output layer, dropout off.

    Raises: ValueError for a model that has no ``norm`` before its output layer.
    """
    last = getattr(model, "norm", None)
    if not isinstance(model, nn.Module) or not isinstance(last, nn.Module):
        raise ValueError(
            f"the vectors of a {type(model).__name__} are not known: pass vectors=, a function from ids_BT "
            "to one vector a position"
        )

    def read(ids_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        kept = []
        hook = last.register_forward_hook(lambda module, inputs, output: kept.append(output))
        try:
            with evaluation_mode(model):
                model(ids_BT.to(next(model.parameters()).device))
        finally:
            hook.remove()
        return kept[-1]

    return read
