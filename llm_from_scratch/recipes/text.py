"""From a recipe's corpus to tokens: the same for training, for evaluation and for a resumed run."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llm_from_scratch.data.corpora import Corpus, load
from llm_from_scratch.data.packing import pack
from llm_from_scratch.recipes.recipe import Recipe
from llm_from_scratch.tokenizers import BytePairTokenizer, CharacterTokenizer, load_tokenizer

END_OF_TEXT = "<|endoftext|>"  # stands after each document


@dataclass(frozen=True, kw_only=True)
class ScoredSplit:
    """The validation split, ready for `evaluation.evaluate`."""

    tokens: np.ndarray
    start_id: int | None  # what precedes the first token; None: nothing does, and it is not scored
    num_bytes: int  # bytes of UTF-8 that the scored tokens spell


def open_tokenizer(recipe: Recipe, corpus: Corpus, path: Path) -> BytePairTokenizer | CharacterTokenizer:
    """Open the tokenizer at ``path``, or train it and save it there.

    Byte pairs are learned from the training split only. Characters come from the whole corpus: there
    is nothing to learn about them, and a character that has no id could not be scored.
    """
    if path.is_file():
        return load_tokenizer(path)
    if recipe.tokenizer == "character":
        tokenizer = CharacterTokenizer.train(corpus.text)
    else:
        train, _ = corpus.split()
        tokenizer = BytePairTokenizer.train(
            (document.text for document in train.documents),
            vocab_size=recipe.vocab_size,
            special_tokens=[END_OF_TEXT],
        )
    tokenizer.save(path)
    return tokenizer


def end_of_text_id(tokenizer: object) -> int | None:
    """Return the id of the token that ends a document, or None: characters have none."""
    return getattr(tokenizer, "special_ids", {}).get(END_OF_TEXT)


def encode(tokenizer: object, corpus: Corpus) -> np.ndarray:
    """Encode a corpus as one stream of ids.

    With an end-of-text token the documents are encoded one by one and each is followed by it.
    Without one, the blank lines between documents are all that parts them.
    """
    end = end_of_text_id(tokenizer)
    texts = [corpus.text] if end is None else [document.text for document in corpus.documents]
    return pack((tokenizer.encode(text) for text in texts), end_of_text=end)


def scored_split(tokenizer: object, name: str) -> ScoredSplit:
    """Encode the validation split of the corpus called ``name`` and count the bytes it spells.

    Each token is scored once. With an end-of-text token, that is all of them: it stands before the
    first document too, as it does in training. Its own probability counts as a cost of the text.
    """
    _, validation = load(name).split()
    tokens = encode(tokenizer, validation)
    start_id = end_of_text_id(tokenizer)
    if start_id is not None:
        num_bytes = sum(len(document.text.encode("utf-8")) for document in validation.documents)
    else:
        num_bytes = len(tokenizer.decode(tokens[1:].tolist()).encode("utf-8"))
    return ScoredSplit(tokens=tokens, start_id=start_id, num_bytes=num_bytes)


def first_ids(tokenizer: object, prompt: str) -> tuple[list[int], list[int]]:
    """Return the ids that a sample begins with, and those at which it ends.

    A text begins after the end of another, so the end-of-text token comes first. Where there is none,
    an empty prompt is a line end.
    Raises: ValueError for a character that the vocabulary lacks.
    """
    end = end_of_text_id(tokenizer)
    if end is None:
        return tokenizer.encode(prompt or "\n"), []
    return [end, *tokenizer.encode(prompt)], [end]


def as_text(tokenizer: object, first: list[int], ids: Iterable[int]) -> Iterator[str]:
    """Turn ids into pieces of text as they come, each character once it is complete."""
    history = list(first)
    shown = len(tokenizer.decode(history))
    for i in ids:
        history.append(i)
        text = tokenizer.decode(history)
        complete = text.rstrip("\ufffd")  # a token can end inside a character
        if len(complete) > shown:
            yield complete[shown:]
            shown = len(complete)
    rest = tokenizer.decode(history)[shown:]
    if rest:
        yield rest
