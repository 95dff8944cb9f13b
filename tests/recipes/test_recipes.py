"""Recipes: their fields, their runs, their records, the committed results."""

import json
import math
from dataclasses import dataclass

import pytest
import torch

from llm_from_scratch.evaluation import evaluate_text
from llm_from_scratch.recipes import RECIPES, Recipe, flat_fields, get, with_changes
from llm_from_scratch.recipes.recipe import convert, num_parameters
from llm_from_scratch.recipes.run import score_split, train
from llm_from_scratch.recipes.text import as_text, encode, end_of_text_id, first_ids
from llm_from_scratch.tokenizers import BytePairTokenizer, CharacterTokenizer
from llm_from_scratch.training.checkpoint import load_run
from llm_from_scratch.training.config import TrainerConfig
from tests.recipes.conftest import TINY, small_corpus


def test_shakespeare_char_is_nanogpts_cpu_shape():
    recipe = get("shakespeare_char")
    config, training = recipe.model_config(65), recipe.training
    assert (config.num_layers, config.num_heads, config.d_model, config.context_length) == (4, 4, 128, 64)
    assert (config.bias, config.dropout, config.positions, config.tie_embeddings) == (
        False,
        0.0,
        "learned",
        True,
    )
    assert (training.batch_size, training.steps, training.learning_rate) == (12, 2000, 1e-3)
    assert training.learning_rate_at(1999) == pytest.approx(1e-4)
    assert training.learning_rate_at(99) == 1e-3
    assert num_parameters(recipe) == 804_096  # its README rounds it to 0.80 M


def test_the_dial_sets_the_sizes_and_each_can_be_set_alone():
    small, large = (with_changes(get("laptop"), {"depth": depth}).model_config(300) for depth in (2, 6))
    assert (small.num_layers, large.num_layers) == (2, 6)
    assert small.d_model < large.d_model
    assert small.num_heads < large.num_heads
    assert with_changes(get("laptop"), {"d_model": "64"}).model_config(300).d_model == 64


def test_every_field_can_be_read_back_from_its_own_text():
    for name in RECIPES:
        recipe = get(name)
        assert with_changes(recipe, {k: str(v) for k, v in flat_fields(recipe).items()}) == recipe
        assert with_changes(recipe, json.loads(json.dumps(flat_fields(recipe)))) == recipe


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lerning_rate": "1"}, "no field lerning_rate; did you mean learning_rate"),
        ({"zzz": "1"}, "no field zzz; `llm-scratch recipes laptop`"),
        ({"steps": "many"}, "steps takes a whole number, got 'many'"),
        ({"steps": "1e3"}, "steps takes a whole number, got '1e3'"),
        ({"steps": 2.5}, "steps takes a whole number, got 2.5"),
        ({"steps": True}, "steps takes a whole number, got True"),
        ({"learning_rate": "fast"}, "learning_rate takes a number, got 'fast'"),
        ({"decay_embeddings": "maybe"}, "decay_embeddings takes true or false, got 'maybe'"),
        ({"clip_norm": "off"}, "clip_norm takes a number or none, got 'off'"),
        ({"corpus": "wiki"}, "corpus takes one of sotu, tiny_shakespeare, got 'wiki'"),
        ({"steps": "0"}, "steps must be 1 or more, got 0"),
    ],
)
def test_mistakes_are_named(changes, says):
    with pytest.raises(ValueError, match=says):
        with_changes(get("laptop"), changes)


def test_types_are_read():
    assert convert("x", "-3", int) == -3
    assert convert("x", "none", int | None) is None
    assert convert("x", "2", int | None) == 2
    assert convert("x", "No", bool) is False
    assert convert("x", 3, float) == 3.0
    assert convert("x", "none", str) == "none"


def test_two_fields_of_one_name_are_refused():
    @dataclass(frozen=True, kw_only=True)
    class Ambiguous(Recipe):
        name = "ambiguous"
        seed: int = 3

    recipe = Ambiguous(corpus="sotu", tokenizer="character", context_length=3)
    with pytest.raises(TypeError, match="two fields named seed"):
        flat_fields(recipe)


def test_unknown_recipe_names_those_there_are():
    with pytest.raises(ValueError, match="no recipe 'gpt5'; the recipes are laptop, shakespeare_char"):
        get("gpt5")


@pytest.mark.parametrize("name", ["laptop", "shakespeare_char", "shakespeare_speedrun"])
def test_a_run_leaves_what_the_book_reads(tmp_path, name):
    known = flat_fields(get(name))
    recipe = with_changes(get(name), {k: v for k, v in TINY.items() if k in known})
    record = train(recipe, out=tmp_path / "run")
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {
        "config.json",
        "tokenizer.json",
        "checkpoints.json",
        "log.jsonl",
        "loss.svg",
        "record.json",
    }
    assert record == json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    model, tokenizer, config = load_run(tmp_path / "run")
    assert not model.training
    assert config["recipe"]["name"] == name
    assert config["training"] == json.loads(json.dumps(recipe.training.__dict__))
    assert record["tokens_trained_on"] == 6 * 3 * 11
    score = score_split(model, tokenizer, recipe.corpus)
    assert round(score.nats_per_token, 4) == record["losses"]["validation_whole_split"]
    assert record["losses"]["perplexity"] == pytest.approx(math.exp(score.nats_per_token), rel=1e-4)
    assert train(recipe, out=tmp_path / "run", resume=True) == record  # finished: nothing is done again


def test_the_whole_split_is_scored_with_every_byte_counted_once():
    """Bits per byte agree with `evaluate_text`, which counts the bytes by itself."""
    corpus = small_corpus("tiny_shakespeare")
    _, validation = corpus.split()
    recipe = get("shakespeare_char")
    tokenizer = CharacterTokenizer.train(corpus.text)
    from llm_from_scratch.models.decoder import Decoder

    model = Decoder(recipe.model_config(tokenizer.vocab_size))
    ours = score_split(model, tokenizer, "tiny_shakespeare")
    theirs = evaluate_text(model, tokenizer, validation.text, stride=64)
    assert (ours.num_tokens, ours.num_bytes) == (theirs.num_tokens, theirs.num_bytes)
    assert ours.bits_per_byte == pytest.approx(theirs.bits_per_byte, rel=1e-6)


def test_documents_are_parted_by_the_end_of_text_token_and_all_bytes_counted():
    corpus = small_corpus("sotu")
    _, validation = corpus.split()
    tokenizer = BytePairTokenizer.train(corpus.text, vocab_size=280, special_tokens=["<|endoftext|>"])
    tokens, end = encode(tokenizer, validation), end_of_text_id(tokenizer)
    assert (tokens == end).sum() == len(validation) == 2
    assert tokens[-1] == end
    texts = "".join(document.text for document in validation.documents)
    assert tokenizer.decode(tokens.tolist()).replace("<|endoftext|>", "") == texts

    class Uniform(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = type("Config", (), {"context_length": 7})()

        def forward(self, ids_BT):
            return torch.zeros(*ids_BT.shape, tokenizer.vocab_size)

    score = score_split(Uniform(), tokenizer, "sotu")
    assert score.num_tokens == len(tokens)
    assert score.num_bytes == len(texts.encode("utf-8"))
    assert score.nats_per_token == pytest.approx(math.log(280), rel=1e-6)


def test_a_prompt_begins_a_text_and_characters_appear_whole():
    tokenizer = BytePairTokenizer.train("plain text", vocab_size=259, special_tokens=["<|endoftext|>"])
    first, stop = first_ids(tokenizer, "plain")
    assert stop == [first[0]] == [end_of_text_id(tokenizer)]
    ids = tokenizer.encode(" naïve 中文")
    pieces = list(as_text(tokenizer, first, iter(ids)))
    assert "".join(pieces) == " naïve 中文"
    assert all("\ufffd" not in piece for piece in pieces)
    cut = list(as_text(tokenizer, first, iter(ids[:-1])))  # the last character stays incomplete
    assert "".join(cut) == " naïve 中\ufffd"
    characters = CharacterTokenizer.train("ab\n")
    assert first_ids(characters, "") == (characters.encode("\n"), [])


def test_trainer_config_is_flat_in_every_recipe():
    names = set(TrainerConfig.__dataclass_fields__)
    assert all(names < set(flat_fields(get(name))) for name in RECIPES)
