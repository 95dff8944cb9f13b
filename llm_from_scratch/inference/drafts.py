"""Drafts for speculative decoding: cheap guesses at the next tokens of a text.

A draft is anything with the method `propose`. How it guesses is its own affair: the target model checks
every guess, so a bad draft costs time and never changes what is written.

Legend: V vocabulary entries, N tokens proposed.
"""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from llm_from_scratch.inference.generate import CachedModel
from llm_from_scratch.inference.rejection import DrawingRule
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.models.ngram import NGramModel

LEAST = 1e-30  # probability that an n-gram draft gives at least to any token

# The tokens proposed, and of each the distribution that it was drawn from, in float64, over all
# tokens of the target; None if the draft had no choice.
Proposal = tuple[list[int], list[Float[Tensor, "V"]] | None]


@runtime_checkable
class Draft(Protocol):
    """What `speculative_stream` asks of a draft."""

    def propose(self, history: Sequence[int], count: int, rule: DrawingRule) -> Proposal:
        """Guess up to ``count`` tokens that follow ``history``; none at all is a valid answer.

        Tokens that are drawn must be drawn from the distributions returned. To draw by the settings of
        the target, take them from ``rule.probabilities`` and draw with ``rule.draw``.
        """
        ...


class PromptLookup:
    """Guess that the text repeats itself: copy what followed the last time that it read like now.

    The last ``longest`` tokens are looked for earlier in the text, then fewer, down to ``shortest``; of
    several places the latest counts. One token alone is a poor reason to copy, hence the 2. The copy may
    run into the tokens that it has just written, so a text that repeats a short phrase is continued for
    as long as asked. Costs no model, and pays where the answer quotes the question: summaries, edits, code.

    Raises: ValueError unless 1 <= shortest <= longest.
    Source: Saxena 2023 (prompt lookup decoding); Yang et al. 2023 (inference with reference).

    >>> PromptLookup().propose([5, 1, 2, 3, 4, 1, 2], 3, DrawingRule())
    ([3, 4, 1], None)
    >>> PromptLookup().propose([8, 9], 3, DrawingRule())  # nothing like it before
    ([], None)
    """

    def __init__(self, *, longest: int = 3, shortest: int = 2):
        if type(longest) is not int or type(shortest) is not int or not 1 <= shortest <= longest:
            raise ValueError(
                f"the tokens to look for must be whole numbers with 1 <= shortest <= longest, "
                f"got shortest={shortest!r} and longest={longest!r}"
            )
        self.longest, self.shortest = longest, shortest

    def propose(self, history: Sequence[int], count: int, rule: DrawingRule) -> Proposal:
        """Copy ``count`` tokens, or none if the end of the text has not occurred before."""
        start = self._continuation(list(history))
        if start is None:
            return [], None
        text = list(history)
        for place in range(start, start + count):
            text.append(text[place])
        return text[len(history) :], None

    def _continuation(self, text: list[int]) -> int | None:
        """Where the tokens begin that followed the last earlier occurrence of the end of the text."""
        for n in range(min(self.longest, len(text) - 1), self.shortest - 1, -1):
            ending = text[-n:]
            for start in range(len(text) - n - 1, -1, -1):
                if text[start] == ending[0] and text[start : start + n] == ending:
                    return start + n
        return None


class NGramDraft:
    """Guess with the n-gram model of chapter 1, whose words are the target's token ids.

    Looking up counts costs a small part of a pass of the target. The model sees the last ``order - 1``
    tokens; what it gives to ``</s>`` and ``<unk>``, which are no tokens, is shared among the others.

    Raises: ValueError if its words are not token ids of the target's vocabulary.

    >>> from llm_from_scratch.models.ngram import AddK, Vocabulary
    >>> counted = NGramModel(order=2, smoothing=AddK(k=0.01)).fit([[0, 1, 2, 0, 1, 2]])
    >>> NGramDraft(counted, vocab_size=3).propose([1], 4, DrawingRule(settings={"temperature": 0}))[0]
    [2, 0, 1, 2]
    """

    def __init__(self, model: NGramModel, *, vocab_size: int):
        self.model, self.vocab_size = model, vocab_size
        vocabulary = model.vocabulary
        rows, tokens = [], []
        for row, word in enumerate(vocabulary.words):
            if row in (vocabulary.end_id, vocabulary.unknown_id):
                continue
            if isinstance(word, bool) or not isinstance(word, int | np.integer) or not 0 <= word < vocab_size:
                raise ValueError(
                    f"the n-gram model knows the word {word!r}, which is no token id of the target's "
                    f"{vocab_size} tokens; count texts encoded with the target's tokenizer"
                )
            rows.append(row)
            tokens.append(int(word))
        if not tokens or (vocabulary.unknown_id is None and len(tokens) < vocab_size):
            raise ValueError(
                f"the n-gram model knows {len(tokens)} of the target's {vocab_size} tokens and has no word "
                f"for the others; fit it with vocabulary=Vocabulary(range({vocab_size}))"
            )
        self._rows, self._tokens = np.array(rows), torch.tensor(tokens)

    def propose(self, history: Sequence[int], count: int, rule: DrawingRule) -> Proposal:
        """Draw ``count`` tokens by counts; fewer where no word ever followed the context."""
        text, probs = list(history), []
        for _ in range(count):
            context = text[-(self.model.order - 1) :] if self.model.order > 1 else []
            probs_W = torch.from_numpy(np.asarray(self.model.distribution(context))[self._rows])
            if not probs_W.max() > 0.0:
                break
            # What never occurred stays possible, so that no pipeline can forbid all that is left.
            logits_V = torch.full((self.vocab_size,), math.log(LEAST))
            logits_V[self._tokens] = probs_W.clamp(min=LEAST).log().float()
            probs.append(rule.probabilities(logits_V, text))
            text.append(rule.draw(probs[-1]))
        return text[len(history) :], probs


class DecoderDraft:
    """Guess with a smaller decoder that has its own cache and the target's vocabulary.

    Its cache follows the text by itself: it is cut to what the text and the last guesses have in common.
    A text longer than its context_length is read from its last tokens, without help of the cache.

    Raises: ValueError if ``model`` is no `Decoder`.
    """

    def __init__(self, model: Decoder):
        self.cached = CachedModel(model)
        self.vocab_size = model.config.vocab_size

    def propose(self, history: Sequence[int], count: int, rule: DrawingRule) -> Proposal:
        """Draw ``count`` tokens, each from the draft's own scores."""
        text, probs = list(history), []
        for _ in range(count):
            window = text[-self.cached.config.context_length :]
            probs.append(rule.probabilities(self.cached(torch.tensor([window]))[0, -1], text))
            text.append(rule.draw(probs[-1]))
        return text[len(history) :], probs
