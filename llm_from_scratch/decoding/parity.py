"""How far each step of decoding lies from the one in `transformers`, on random scores and tiny models.

``python -m llm_from_scratch.decoding.parity`` prints three tables: the steps that change scores, beam
search on small random models, and the frequencies of drawn tokens with the p-value of a chi-square test.
It needs the extra ``interop``.

Legend: B sequences, T tokens so far, V vocabulary entries.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llm_from_scratch.decoding.bad_words import forbid_sequences
from llm_from_scratch.decoding.logits import (
    apply_temperature,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
)
from llm_from_scratch.decoding.pipeline import LogitFunction, run_pipeline, scores_only
from llm_from_scratch.decoding.repetition import (
    forbid_repeated_ngrams,
    penalise_presence_and_frequency,
    penalise_repetition,
)
from llm_from_scratch.decoding.sampling import draw_token
from llm_from_scratch.decoding.search import beam_search

BOUND = 1e-6  # largest difference of a score that passes; a token that only one side drops is infinite
BEAM_BOUND = 1e-5  # of the score of a whole text, relative where the score is above 1
LEAST_P = 0.001  # smallest p-value that passes: one right sampler in a thousand falls below it
B, T, V = 7, 41, 1009
SEEDS = range(10)
DRAWS = 5_000
FORBIDDEN = [[3], [5, 17], [17, 5, 29], [101, 102]]


@dataclass(frozen=True)
class Row:
    """One line of a table: what was compared, with what, how many cases, and the figure."""

    what: str
    theirs: str
    cases: int
    figure: float  # a largest difference, or a p-value


def steps() -> Iterator[tuple[str, str, LogitFunction, Any]]:
    """Each step of ours beside their class, with several settings."""
    import transformers as hf

    for t in (0.05, 0.7, 1.0, 1.9, 30.0):
        ours = scores_only(apply_temperature, temperature=t)
        yield "temperature", "TemperatureLogitsWarper", ours, hf.TemperatureLogitsWarper(t)
    for k in (1, 2, 50, V, 5 * V):
        yield "top-k", "TopKLogitsWarper", scores_only(keep_top_k, top_k=k), hf.TopKLogitsWarper(k)
    for p in (0.01, 0.5, 0.9, 0.999):
        yield "top-p", "TopPLogitsWarper", scores_only(keep_top_p, top_p=p), hf.TopPLogitsWarper(p)
        yield "min-p", "MinPLogitsWarper", scores_only(keep_min_p, min_p=p), hf.MinPLogitsWarper(p)
        ours = scores_only(keep_typical, typical_p=p)
        yield "typical", "TypicalLogitsWarper", ours, hf.TypicalLogitsWarper(p)
    for penalty in (0.8, 1.2, 3.0):
        ours = partial(penalise_repetition, penalty=penalty)
        theirs = hf.RepetitionPenaltyLogitsProcessor(penalty)
        yield "repetition penalty", "RepetitionPenaltyLogitsProcessor", ours, theirs
    for size in (1, 2, 3, 4):
        ours, theirs = partial(forbid_repeated_ngrams, size=size), hf.NoRepeatNGramLogitsProcessor(size)
        yield "no n-gram twice", "NoRepeatNGramLogitsProcessor", ours, theirs
    ours = partial(forbid_sequences, sequences=FORBIDDEN)
    yield "bad words", "NoBadWordsLogitsProcessor", ours, hf.NoBadWordsLogitsProcessor(FORBIDDEN)
    for presence, frequency in ((0.7, 0.0), (0.0, 0.3), (1.5, -0.2)):
        ours = partial(penalise_presence_and_frequency, presence=presence, frequency=frequency)
        theirs = partial(_presence_and_frequency, presence=presence, frequency=frequency)
        yield "presence, frequency", "none: their formula in a loop", ours, theirs
    chain = [
        partial(penalise_repetition, penalty=1.3),
        partial(forbid_repeated_ngrams, size=3),
        scores_only(apply_temperature, temperature=0.8),
        scores_only(keep_top_k, top_k=60),
        scores_only(keep_top_p, top_p=0.95),
    ]
    theirs = hf.LogitsProcessorList([
        hf.RepetitionPenaltyLogitsProcessor(1.3), hf.NoRepeatNGramLogitsProcessor(3),
        hf.TemperatureLogitsWarper(0.8), hf.TopKLogitsWarper(60), hf.TopPLogitsWarper(0.95),
    ])  # fmt: skip
    yield "five of them in a row", "LogitsProcessorList", partial(run_pipeline, chain), theirs


def compare_steps() -> list[Row]:
    """The largest difference of each step over all settings and seeds."""
    rows: dict[str, Row] = {}
    for what, theirs_name, ours, theirs in steps():
        for seed in SEEDS:
            ids_BT, logits_BV = _inputs(seed)
            found = difference(ours(ids_BT, logits_BV), theirs(ids_BT, logits_BV.clone()))
            last = rows.get(what, Row(what, theirs_name, 0, 0.0))
            rows[what] = Row(what, theirs_name, last.cases + B, max(last.figure, found))
    return list(rows.values())


def difference(ours_BV: Tensor, theirs_BV: Tensor) -> float:
    """The largest difference between scores; infinite where only one of the two drops a token.

    >>> difference(torch.tensor([[1.0, -torch.inf]]), torch.tensor([[1.5, -torch.inf]]))
    0.5
    >>> difference(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, -torch.inf]]))
    inf
    """
    return torch.where(ours_BV == theirs_BV, 0.0, (ours_BV - theirs_BV).abs()).max().item()


def border_tokens(top_p: float = 0.999) -> tuple[int, int, float]:
    """In 32 bits: in how many rows, of how many, top-p of ours and theirs differ, and by what probability."""
    import transformers as hf

    differing, most = 0, 0.0
    for seed in SEEDS:
        ids_BT, logits_BV = _inputs(seed)
        logits_BV = logits_BV.float()
        ours_BV, theirs_BV = keep_top_p(logits_BV, top_p=top_p), hf.TopPLogitsWarper(top_p)(ids_BT, logits_BV)
        doubt_BV = ours_BV.isfinite() != theirs_BV.isfinite()
        differing += int(doubt_BV.any(-1).sum())
        most = max(most, (logits_BV.softmax(-1) * doubt_BV).max().item())
    return differing, B * len(SEEDS), most


def compare_beams() -> list[Row]:
    """Beam search of ours and theirs over the same small models: the texts, and the scores of texts."""
    import transformers as hf
    from transformers.utils import logging

    logging.set_verbosity_error()
    small = {"vocab_size": 23, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    gpt2 = hf.GPT2Config(n_positions=19, n_embd=12, n_layer=2, n_head=3, **small)
    llama = hf.LlamaConfig(max_position_embeddings=19, hidden_size=12, num_hidden_layers=2,
                           num_attention_heads=3, intermediate_size=29, **small)  # fmt: skip
    rows = []
    for name, config, model_class in (
        ("GPT-2", gpt2, hf.GPT2LMHeadModel),
        ("Llama", llama, hf.LlamaForCausalLM),
    ):
        cases, largest = 0, 0.0
        for seed in range(3):
            theirs = _random_model(model_class, config, seed)
            for beams, penalty, early in (
                (2, 1.0, False), (4, 0.0, "never"), (4, 2.0, True), (7, -1.0, False), (5, 0.6, "never"),
            ):  # fmt: skip
                found = _beam_difference(theirs, beams=beams, penalty=penalty, early=early)
                cases, largest = cases + 1, max(largest, found)
        rows.append(Row(f"beam search, {name}", "generate(num_beams=...)", cases, largest))
    return rows


def _beam_difference(theirs: nn.Module, *, beams: int, penalty: float, early: bool | str) -> float:
    """The largest difference of a score over all texts found; infinite if a text differs."""
    prompt, stops, new = [1, 2, 3, 4], [5, 17], 11
    shared = {"max_new_tokens": new, "num_beams": beams, "length_penalty": penalty, "early_stopping": early}
    ours = beam_search(
        lambda ids_BT: theirs(ids_BT).logits,
        prompt,
        stop_ids=stops,
        num_return=beams,
        context_length=19,
        **shared,
    )
    expected = theirs.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
        num_return_sequences=beams, eos_token_id=stops, pad_token_id=0, return_dict_in_generate=True,
        output_scores=True, **shared,
    )  # fmt: skip
    largest = 0.0
    for text, row, score in zip(ours.hypotheses, expected.sequences, expected.sequences_scores, strict=True):
        whole = [*text.ids, *([] if text.stop_id is None else [text.stop_id])]
        if row[len(prompt) :].tolist()[: len(whole)] != whole:
            return math.inf
        largest = max(largest, abs(text.score - score.item()) / max(1.0, abs(text.score)))
    return largest


def compare_frequencies() -> list[Row]:
    """Draw tokens and test their counts against the probabilities that their steps leave."""
    import transformers as hf

    logits_V = torch.randn(13, generator=torch.Generator().manual_seed(5)) * 0.8
    history = [2, 0, 5, 0]
    typical = [scores_only(keep_typical, typical_p=0.7)]
    penalty = [partial(penalise_repetition, penalty=1.5)]
    cases = (
        ("as they are", {}, []),
        ("temperature 1.7", {"temperature": 1.7}, [hf.TemperatureLogitsWarper(1.7)]),
        ("top-k 5", {"top_k": 5}, [hf.TopKLogitsWarper(5)]),
        ("top-p 0.7", {"top_p": 0.7}, [hf.TopPLogitsWarper(0.7)]),
        ("min-p 0.3", {"min_p": 0.3}, [hf.MinPLogitsWarper(0.3)]),
        ("typical 0.7", {"pipeline": typical}, [hf.TypicalLogitsWarper(0.7)]),
        ("repetition penalty 1.5", {"pipeline": penalty}, [hf.RepetitionPenaltyLogitsProcessor(1.5)]),
    )
    rows = []
    for number, (what, settings, theirs) in enumerate(cases):
        expected_1V = hf.LogitsProcessorList(theirs)(torch.tensor([history]), logits_V[None].clone())
        probs = expected_1V[0].double().softmax(-1)
        generator = torch.Generator().manual_seed(number)
        drawn = [draw_token(logits_V, history, generator=generator, **settings) for _ in range(DRAWS)]
        counts = torch.bincount(torch.tensor(drawn), minlength=len(probs))
        possible = f"{int((probs > 0).sum())} of {len(probs)} tokens possible"
        rows.append(Row(what, possible, DRAWS, p_value(counts, probs)))
    return rows


def p_value(counts_V: Tensor, probs_V: Tensor) -> float:
    """How often draws from the probabilities would lie at least as far off as these counts do.

    Formula: with N draws, the statistic ``sum_i (c_i - N p_i)**2 / (N p_i)`` over the k possible tokens
    follows a chi-square distribution of k - 1 degrees of freedom. 0 if an impossible token was drawn.

    >>> round(p_value(torch.tensor([30, 70, 0]), torch.tensor([0.4, 0.6, 0.0])), 3)  # (10 / 4.9)**2 = 4.17
    0.041
    """
    kept_V = probs_V > 0
    if counts_V[~kept_V].any():
        return 0.0
    expected = counts_V.sum() * probs_V[kept_V].double()
    statistic = ((counts_V[kept_V] - expected) ** 2 / expected).sum()
    half_degrees = torch.tensor((len(expected) - 1) / 2, dtype=torch.float64)
    return torch.special.gammaincc(half_degrees, statistic / 2).item()


def _presence_and_frequency(
    ids_BT: Tensor, logits_BV: Tensor, *, presence: float, frequency: float
) -> Tensor:
    """The formula of OpenAI's reference, token by token."""
    for row, ids_T in enumerate(ids_BT.tolist()):
        for token in set(ids_T):
            logits_BV[row, token] -= ids_T.count(token) * frequency + float(ids_T.count(token) > 0) * presence
    return logits_BV


def _inputs(seed: int) -> tuple[Tensor, Tensor]:
    """Texts of few different tokens, so that n-grams repeat, and scores as wide as those of a model.

    The scores are of 64 bits. In 32, the sums of probabilities that top-p and typical compare with their
    bound depend on the order of the addends, and theirs is another: now and then one token at the border
    is kept by one side only (see `border_tokens`).
    """
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(3, 31, (B, T), generator=generator)
    ids_BT[:, -3:] = ids_BT[:, 5:8]  # the text ends as it has begun: the next n-gram may be a repeated one
    ids_BT[0, -2:] = torch.tensor(FORBIDDEN[2][:2])
    return ids_BT, 3 * torch.randn(B, V, generator=generator, dtype=torch.float64)


def _random_model(model_class: Any, config: Any, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = model_class(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.35 * torch.randn_like(parameter))
    return model


def main(write: Callable[[str], Any] = print) -> int:
    """Print the tables; return 1 if a figure is out of bounds."""
    scores, beams, frequencies = compare_steps(), compare_beams(), compare_frequencies()
    tables = (
        (f"largest difference of a score, at most {BOUND:.0e}", scores, "{:.0e}"),
        (f"the same texts, and their scores within {BEAM_BOUND:.0e}", beams, "{:.0e}"),
        (f"p-value of the chi-square test, at least {LEAST_P}", frequencies, "{:.2f}"),
    )
    for title, rows, style in tables:
        write(title)
        for row in rows:
            write(f"  {row.what:22} {row.theirs:32} {row.cases:5}  {style.format(row.figure)}")
    differing, rows, probability = border_tokens()
    write("scores are of 64 bits; in 32, top-p 0.999 keeps one token more or less at its border in")
    write(f"{differing} of {rows} rows, of probability {probability:.0e} at most")
    return int(
        any(row.figure > BOUND for row in scores)
        or any(row.figure > BEAM_BOUND for row in beams)
        or any(row.figure < LEAST_P for row in frequencies)
    )


if __name__ == "__main__":
    sys.exit(main())
