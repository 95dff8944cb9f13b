"""The rule that makes speculation exact: keep a draft's token, or replace it, so that no reader can tell.

Legend: V vocabulary entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from llm_from_scratch.decoding.pipeline import Pipeline, run_pipeline
from llm_from_scratch.decoding.sampling import next_token_probabilities


@dataclass(frozen=True, kw_only=True)
class DrawingRule:
    """How scores become the probabilities that a token is drawn from, and the generator that draws.

    Target and draft share it, so that a penalty or a top-k which forbids a token to the target
    forbids it to the draft too: otherwise the draft would propose what is bound to be rejected.

    ``settings`` are those of `next_token_probabilities`; ``pipeline`` comes before them, and reads the
    whole text. Probabilities are in float64, so that differences of them are exact enough to draw from.

    >>> rule = DrawingRule(settings={"temperature": 0})
    >>> rule.probabilities(torch.tensor([1.0, 3.0]), [0]).tolist()
    [0.0, 1.0]
    """

    settings: dict[str, Any] = field(default_factory=dict)
    pipeline: Pipeline = ()
    generator: torch.Generator | None = None

    def probabilities(self, logits_V: Float[Tensor, "V"], history: Sequence[int]) -> Float[Tensor, "V"]:
        """The distribution of the token after ``history``, given its scores; float64, on the CPU."""
        logits_V = logits_V.float().cpu()
        if self.pipeline:
            logits_V = run_pipeline(self.pipeline, torch.tensor([list(history)]), logits_V[None])[0]
        probs_V = next_token_probabilities(logits_V, **self.settings).double()
        return probs_V / probs_V.sum()

    def draw(self, probs_V: Float[Tensor, "V"]) -> int:
        """Draw one token."""
        return int(torch.multinomial(probs_V, 1, generator=self.generator))


def keep_or_replace(
    token: int,
    target_V: Float[Tensor, "V"],
    draft_V: Float[Tensor, "V"] | None,
    *,
    generator: torch.Generator | None = None,
) -> tuple[int, bool]:
    """Turn a token drawn from the draft's distribution q into one drawn from the target's, p.

    Formula: keep token x with probability ``min(1, p(x) / q(x))``; otherwise draw from what p has
    beyond q, ``max(0, p - q)`` scaled to sum 1. Then the result is distributed as p, whatever q is:
    x is kept with probability ``min(p(x), q(x))``, and replaces another one with ``max(0, p(x) - q(x))``,
    which add up to p(x). How similar q is decides only how often tokens are kept: ``sum min(p, q)``.

    ``draft_V`` None stands for a draft that had no choice, q(token) = 1: the token is kept with
    probability p(token), and the replacement is drawn from the other tokens as p has them.

    Returns: the token, and whether it is the draft's.
    Raises: ValueError if the draft could not have drawn the token, since the rule holds for no other q.
    Source: Leviathan et al. 2023, section 2.3 and appendix A.1; Chen et al. 2023, algorithm 2.

    >>> keep_or_replace(1, torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5]))  # p > q: always kept
    (1, True)
    >>> keep_or_replace(0, torch.tensor([0.0, 1.0]), None)  # p = 0: never kept
    (1, False)
    """
    drawn_with = 1.0 if draft_V is None else float(draft_V[token])
    if not drawn_with > 0.0:
        raise ValueError(
            f"the draft proposed token {token} and says that its probability was {drawn_with}; a draft must "
            "return the probabilities that its tokens were drawn from"
        )
    chance = torch.rand(1, generator=generator, dtype=torch.float64).item()
    if chance * drawn_with < float(target_V[token]):
        return token, True
    if draft_V is None:
        beyond_V = target_V.clone()
        beyond_V[token] = 0.0
    else:
        beyond_V = (target_V - draft_V).clamp(min=0.0)
    if not float(beyond_V.sum()) > 0.0:  # p and q differ by rounding alone
        beyond_V = target_V
    return int(torch.multinomial(beyond_V, 1, generator=generator)), False
