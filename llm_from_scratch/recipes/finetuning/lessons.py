"""From a recipe's data to what the trainer is given; conversations have a file of their own.

Legend: B texts of a batch, T tokens.
"""

from difflib import get_close_matches
from pathlib import Path

import numpy as np

from llm_from_scratch.data.corpora import Corpus, Document, load
from llm_from_scratch.data.labelled import load_labelled
from llm_from_scratch.data.labelled_batches import LabelledBatches, labelled_validation
from llm_from_scratch.data.labelled_files import load_labelled_file
from llm_from_scratch.data.labelled_splits import LabelledTexts
from llm_from_scratch.data.loader import BatchLoader
from llm_from_scratch.data.packing import pack
from llm_from_scratch.recipes.finetuning.base import Base
from llm_from_scratch.recipes.finetuning.conversations import instruct_lesson, prefer_lesson
from llm_from_scratch.recipes.finetuning.lesson import Lesson
from llm_from_scratch.recipes.finetuning.own_data import read_text
from llm_from_scratch.recipes.finetuning.recipe import Classify, Continue, FinetuneRecipe
from llm_from_scratch.recipes.text import END_OF_TEXT
from llm_from_scratch.training.validation import validation_batches

LABELLED = ("film_sentiment", "sms_spam")
SOTU = "sotu"  # the corpus whose documents have years


def lesson(recipe: FinetuneRecipe, base: Base) -> Lesson:
    """Read the recipe's data and encode it for the base.

    Raises: FileNotFoundError and ValueError that name the file, the line and what is wrong with it.
    """
    makers = {
        "classify": classify_lesson,
        "continue": continue_lesson,
        "instruct": instruct_lesson,
        "prefer": prefer_lesson,
    }
    return makers[recipe.task](recipe, base)


def classify_lesson(recipe: Classify, base: Base) -> Lesson:
    """Labelled texts: a third part is kept for the report."""
    texts = _labelled(recipe)
    pad_id, training = base.pad_id, recipe.training
    ids = {
        name: [encode_text(base, text, recipe.context_length) for text in part.texts]
        for name, part in (("train", texts.train), ("validation", texts.validation), ("test", texts.test))
    }
    sizes = {"batch_size": training.batch_size, "pad_id": pad_id}
    return Lesson(
        batches=LabelledBatches(ids["train"], texts.train.labels, seed=training.seed, **sizes),
        validation=labelled_validation(ids["validation"], texts.validation.labels, **sizes),
        test=labelled_validation(ids["test"], texts.test.labels, by_length=True, **sizes),
        labels=texts.label_names,
        counts={
            "texts_to_train_on": len(texts.train),
            "to_validate_on": len(texts.validation),
            "to_test_on": len(texts.test),
        },
    )


def encode_text(base: Base, text: str, context_length: int) -> list[int]:
    """Return the ids of a text for a classifier, cut to ``context_length`` tokens.

    An encoder reads [CLS] text [SEP]. A decoder reads what comes before its texts, and the text.
    Raises: ValueError for a text without tokens.
    """
    if base.kind == "encoder":
        return base.tokenizer.encode_for_bert(text, max_tokens=context_length)[0]
    ids = [*base.start_ids, *base.tokenizer.encode(text)][:context_length]
    if not ids or set(ids) == {base.pad_id}:
        raise ValueError(f"the text {text!r:.60} has no tokens: leave it out")
    return ids


def continue_lesson(recipe: Continue, base: Base) -> Lesson:
    """A stream of tokens, as in pretraining; whole documents are kept back where there are several."""
    training = recipe.training
    parts = {name: _stream(base, corpus) for name, corpus in _corpora(recipe).items()}
    sizes = {"context_length": recipe.context_length, "batch_size": training.batch_size}
    return Lesson(
        batches=BatchLoader(parts["train"], seed=training.seed, **sizes),
        validation=validation_batches(parts["validation"], **sizes),
        counts={"tokens_to_train_on": len(parts["train"]), "to_validate_on": len(parts["validation"])},
    )


def _labelled(recipe: Classify) -> LabelledTexts:
    path = Path(recipe.data)
    if recipe.data in LABELLED and not path.exists():
        texts = load_labelled(recipe.data)
    elif not path.is_file():
        raise FileNotFoundError(
            f"--data: there is no file {recipe.data}; known by name are {', '.join(LABELLED)}"
        )
    else:
        texts = load_labelled_file(path)
    if recipe.labels is not None:
        _check_labels(texts, [name.strip() for name in recipe.labels.split(",")])
    return texts


def _check_labels(texts: LabelledTexts, expected: list[str]) -> None:
    for number, name in enumerate(texts.label_names):
        if name not in expected:
            near = get_close_matches(name, expected, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            parts = (texts.train, texts.validation, texts.test)
            first = next(
                t for part in parts for t, n in zip(part.texts, part.labels, strict=True) if n == number
            )
            raise ValueError(
                f"{texts.name}: the label {name!r:.60} of the text {first!r:.60} is none of "
                f"{', '.join(expected)}{hint}"
            )
    if missing := [name for name in expected if name not in texts.label_names]:
        raise ValueError(
            f"{texts.name} has no text of the label {missing[0]!r}: add some, or change --labels"
        )


def _corpora(recipe: Continue) -> dict[str, Corpus]:
    """The texts to train and to validate on.

    Documents of a corpus validate here if they did so when its models were trained: the whole is split
    before years are chosen. A file is one document, of which the last tenth validates.
    """
    path, years = Path(recipe.data), (recipe.first_year, recipe.last_year)
    if path.is_file():
        if years != (None, None) and recipe.data != SOTU:
            raise ValueError(f"{path} has no years: leave them out with --first-year none --last-year none")
        whole = Corpus(name=path.name, documents=(Document(text=read_text(path), title=path.name),))
        return dict(zip(("train", "validation"), whole.split(), strict=True))
    if recipe.data != SOTU:
        raise FileNotFoundError(f"--data: there is no file {recipe.data}; known by name is {SOTU}")
    first, last = (bound if year is None else year for year, bound in zip(years, (0, 9999), strict=True))
    parts = zip(("train", "validation"), load(SOTU).split(), strict=True)
    return {name: corpus.between(first, last) for name, corpus in parts}


def _stream(base: Base, corpus: Corpus) -> np.ndarray:
    """The documents' tokens, each document followed by the token that ends one, if there is such a token."""
    special = getattr(base.tokenizer, "special_ids", {})
    end = special.get(base.loaded.special_tokens.get("eos_token"), special.get(END_OF_TEXT))
    return pack((base.tokenizer.encode(document.text) for document in corpus.documents), end_of_text=end)
