"""What masking does to a distribution: token-by-token renormalisation is not conditioning on validity.

Legend: B texts, T tokens, V vocabulary entries.
"""

from __future__ import annotations

import torch

from llm_from_scratch.decoding.constrained import Constraint
from llm_from_scratch.decoding.sampling import LanguageModel


def text_probabilities(
    model: LanguageModel, step: Constraint, ids: list[int]
) -> dict[tuple[int, ...], tuple[float, float]]:
    """Return, for each whole text behind ``ids``, its probability when masked and when conditioned.

    Masked: the product of the renormalised probabilities that constrained sampling draws from.
    Conditioned: the model's own probability of the text and its end, divided by the sum of these over
    all whole texts. Texts are listed one by one, so the constraint must allow few. A text that fills
    ``max_new_tokens`` needs no end token.

    Here the model begins with "a" nine times in ten, but goes on to "c" behind it hardly ever. Of its own
    texts that the constraint allows, "b" is the more likely; masked, it keeps starting with "a":

    >>> from llm_from_scratch.decoding.regex_grammar import regex_grammar
    >>> from llm_from_scratch.decoding.token_automaton import TokenAutomaton, VocabularyTree
    >>> automaton = TokenAutomaton(regex_grammar("ac|bc"), VocabularyTree([b"a", b"b", b"c", b"d", None]))
    >>> step = Constraint(automaton, prompt_length=1, max_new_tokens=2, stop_ids=[4])
    >>> next_token = torch.full((5, 5), 0.2)  # row: the token before; column: the next one
    >>> next_token[4] = torch.tensor([0.9, 0.1, 0, 0, 0])
    >>> next_token[0] = torch.tensor([0, 0, 0.01, 0.99, 0])
    >>> next_token[1] = torch.tensor([0, 0, 0.99, 0.01, 0])
    >>> found = text_probabilities(lambda ids_BT: next_token.log()[ids_BT], step, [4])
    >>> {text: [round(p, 3) for p in both] for text, both in found.items()}
    {(0, 2): [0.9, 0.083], (1, 2): [0.1, 0.917]}
    """
    masked: dict[tuple[int, ...], float] = {}
    own: dict[tuple[int, ...], float] = {}
    open_texts = [((), 1.0, 1.0)]
    while open_texts:
        text, masked_p, own_p = open_texts.pop()
        if len(text) == step.max_new_tokens:
            masked[text], own[text] = masked_p, own_p
            continue
        ids_BT = torch.tensor([[*ids, *text]])
        logits_BV = model(ids_BT)[:, -1]
        probs_V = logits_BV.softmax(dim=-1)[0].tolist()
        masked_V = step(ids_BT, logits_BV).softmax(dim=-1)[0].tolist()
        for token in reversed(range(len(probs_V))):
            if not masked_V[token] > 0:  # not allowed, or impossible to the model
                continue
            p, q = masked_p * masked_V[token], own_p * probs_V[token]
            if token in step.stop_ids:
                masked[text], own[text] = masked.get(text, 0.0) + p, own.get(text, 0.0) + q
            else:
                open_texts.append(((*text, token), p, q))
    total = sum(own.values())
    return {text: (masked[text], own[text] / total) for text in masked}
