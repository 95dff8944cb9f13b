"""Small random models of two tokens' memory, and their beam tables: what several tests search on."""

import torch

from llm_from_scratch.decoding.beam_table import beam_table

LETTERS = "abcdefghijk"


def random_model(seed, *, vocab=11, spread=1.5):
    """Scores that depend on the last two tokens."""
    generator = torch.Generator().manual_seed(seed)
    scores_VVV = spread * torch.randn(vocab, vocab, vocab, generator=generator)

    def model(ids_BT):
        before_BT = torch.cat((ids_BT[:, :1], ids_BT[:, :-1]), dim=1)
        return scores_VVV[before_BT, ids_BT]

    return model


def random_table(seed, *, steps=5, max_beams=4, stop_ids=(0,), texts=LETTERS):
    """The model, its table, and the arguments of a `BeamTree` on it."""
    model = random_model(seed, vocab=len(texts))
    table = beam_table(model, [3, 1], max_new_tokens=steps, max_beams=max_beams, stop_ids=stop_ids)
    arguments = {"max_new_tokens": steps, "max_beams": max_beams, "stop_ids": stop_ids, "prompt": "db"}
    return model, dict(enumerate(texts)), table, arguments
