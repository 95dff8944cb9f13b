"""A corpus of a few pages, so that whole runs take a second."""

import pytest
import torch

from llm_from_scratch.data.corpora import Corpus, Document
from llm_from_scratch.recipes import run, text

WORDS = (
    "the state of our union is strong and we the people thank congress for peace naïve 中".split()  # noqa: SIM905
)


def small_corpus(name):
    """Twenty documents (or one) of words in an order that a model can learn a little of."""
    documents = tuple(
        Document(
            text=" ".join(WORDS[(i * j + j // 3) % len(WORDS)] for j in range(120)) + ".\n",
            title=f"message {i}",
            year=1800 + i,
        )
        for i in range(1, 21)
    )
    return Corpus(name=name, documents=documents[:1] if name == "tiny_shakespeare" else documents)


TINY = {
    "vocab_size": 300,
    "context_length": 11,
    "depth": 1,
    "d_model": 12,
    "num_heads": 3,
    "steps": 6,
    "batch_size": 3,
    "eval_every": 2,
    "eval_batches": 2,
    "device": "cpu",
}
TINY_ARGUMENTS = [
    part for name, value in TINY.items() for part in (f"--{name.replace('_', '-')}", str(value))
]


@pytest.fixture(autouse=True)
def _small_corpora(monkeypatch):
    monkeypatch.setattr(run, "load", small_corpus)
    monkeypatch.setattr(text, "load", small_corpus)
    torch.set_num_threads(1)
