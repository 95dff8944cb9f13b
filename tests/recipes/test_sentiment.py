"""The recipes of text classification: the draws, scores, and nothing is computed twice."""

import json

import numpy as np
import pytest
import torch

from llm_from_scratch.data.labelled_splits import split_texts
from llm_from_scratch.finetuning.heads import DecoderClassifier, EncoderClassifier
from llm_from_scratch.finetuning.lora import LoraConfig
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.models.encoder import Encoder, EncoderConfig
from llm_from_scratch.recipes import classification, few_labels, sentiment
from llm_from_scratch.recipes.classification import Ledger, Method, encode_labelled, scores, tune
from llm_from_scratch.recipes.classification_extras import mixed
from llm_from_scratch.recipes.classification_view import select, spread

GOOD, BAD = ("fine", "warm", "funny"), ("dull", "cold", "slow")
NEUTRAL = ("the", "film", "is", "a", "story", "of", "two", "friends")
WORDS = [*GOOD, *BAD, *NEUTRAL]
LORA = LoraConfig(rank=1, targets=("query",), also_train=("head",))
TRIALS = (
    Method(name="full", learning_rate=1e-3),
    Method(name="full", learning_rate=1e-2),
    Method(name="layerwise", learning_rate=1e-2, decay=0.8),
    Method(name="gradual", learning_rate=1e-2, unfreeze=0.5),
    Method(name="lora", learning_rate=1e-2, lora=LORA, steps=3),
)
SIZES = {"labels": 16, "steps": 4, "trial_steps": 2, "seeds": (0, 1)}
FILM = sentiment.SentimentConfig(**SIZES, trials=TRIALS)
SPAM = sentiment.SpamConfig(**SIZES, trials=TRIALS[:2])
DECODER = sentiment.DecoderConfig(
    **SIZES, trials=(Method(name="decoder lora", learning_rate=1e-2, lora=LORA),), validation=9, test=11
)
FEW = few_labels.FewLabelsConfig(sizes=(4, 16), augmented=(4,), min_steps=3, seeds=(0, 1), trial_size=4)


def encode(text):
    return [1, *(2 + WORDS.index(word) for word in text.split())]


def tiny_encoder():
    shape = {"vocab_size": 20, "context_length": 16, "d_model": 6, "num_layers": 2, "num_heads": 2}
    config = EncoderConfig.bert(**shape, pooler=False, masked_language_head=False, next_sentence_head=False)
    torch.manual_seed(0)
    base = Encoder(config).state_dict()

    def build():
        state = torch.get_rng_state()  # the head is drawn by the run's seed
        encoder = Encoder(config)
        torch.set_rng_state(state)
        encoder.load_state_dict(base)
        return EncoderClassifier(encoder, num_classes=2, pad_id=0)

    return build, encode


def tiny_decoder():
    shape = {"vocab_size": 20, "context_length": 16, "d_model": 6, "num_layers": 2, "num_heads": 1}
    return (
        lambda: DecoderClassifier(Decoder(DecoderConfig.llama(**shape)), num_classes=2, pad_id=0),
        encode,
    )


@pytest.fixture(autouse=True)
def few_texts(monkeypatch):
    """Made-up sentences; the label is whether a good word is in it."""
    rng = np.random.default_rng(0)
    rows = {}
    for number in range(200):
        label = number % 2
        words = [*rng.choice(NEUTRAL, size=5), str(rng.choice((BAD, GOOD)[label]))]
        rows[" ".join(rng.permutation(words))] = label
    monkeypatch.setattr(
        classification,
        "load_labelled",
        lambda name: split_texts(name, ("bad", "good"), list(rows.items()), salt=name[:1]),
    )
    monkeypatch.setattr(sentiment, "encoder_builder", tiny_encoder)
    monkeypatch.setattr(sentiment, "decoder_builder", tiny_decoder)
    torch.set_num_threads(1)


def test_draws_are_balanced_and_nested_in_nothing_but_their_seed():
    data = encode_labelled("film_sentiment", encode)
    for count in (2, 8, 20):
        drawn = data.draw(count, seed=3)
        assert len(set(drawn.tolist())) == count
        assert data.labels["train"][drawn].sum() == count // 2
    assert data.draw(8, seed=1).tolist() == data.draw(8, seed=1).tolist() != data.draw(8, seed=2).tolist()
    assert sorted(data.draw(10**6, seed=1)) == list(range(len(data.labels["train"])))


def test_another_split_is_other_data():
    one, two = (encode_labelled("film_sentiment", encode) for _ in range(2))
    assert one.digest == two.digest
    two.labels["test"][0] = 1 - two.labels["test"][0]
    assert one.digest != two.digest
    assert one.digest != encode_labelled("sms_spam", encode).digest


def test_margins_do_not_depend_on_the_batch_they_were_in():
    build, _ = tiny_encoder()
    model = build()
    data = encode_labelled("film_sentiment", encode)
    ids = [each[: 7 - i % 5] for i, each in enumerate(data.ids["test"])]
    found = classification.margins(model, ids, pad_id=0, precision="float32")
    for i in range(5):
        logits_K = model.eval()(torch.tensor([ids[i]]))[0].detach()
        assert found[i] == pytest.approx(float(logits_K[1] - logits_K[0]), abs=1e-5)


def test_scores_are_those_of_the_evaluation_package():
    from llm_from_scratch.evaluation.calibration import softmax_at
    from llm_from_scratch.evaluation.classification import accuracy, negative_log_likelihood

    rng = np.random.default_rng(1)
    margins_N, labels_N = rng.normal(size=50) * 3, rng.integers(0, 2, 50)
    probs_N2 = softmax_at(np.stack([0 * margins_N, margins_N], axis=1), 1.0)
    assert scores(margins_N, labels_N) == {
        "accuracy": round(accuracy(labels_N, probs_N2.argmax(axis=1)), 4),
        "nll": round(negative_log_likelihood(labels_N, probs_N2), 4),
    }


def test_a_method_trains_what_it_says():
    build, _ = tiny_encoder()
    data = encode_labelled("film_sentiment", encode)
    runs = {}
    for method in (TRIALS[1], TRIALS[4]):
        done = tune(build, data, method, count=16, steps=2, seed=0)
        runs[method.name] = done.figures
        assert set(done.margins) == {"validation", "test"}
    assert runs["full"]["trained"] == runs["full"]["parameters"]
    assert runs["lora"]["trained"] == 2 * (6 + 6) + 2 * 6 + 2
    assert list(runs["full"]["validation_loss"]) == [0, 1, 2]


def test_the_ledger_survives_a_cut_line_and_tells_settings_apart(tmp_path):
    computed = []

    def compute():
        computed.append(1)
        return {"x": len(computed)}, {"test": np.array([0.12345, -2.0])}

    ledger = Ledger(tmp_path)
    assert ledger.run("a", {"seed": 1}, compute)["margins"] == {"test": [123, -2000]}
    ledger.run("a", {"seed": 2}, compute)
    with ledger.path.open("a") as file:
        file.write('\n{"id": "a cut li')
    again = Ledger(tmp_path)
    assert again.run("a", {"seed": 1}, compute)["figures"] == {"x": 1}
    assert len(computed) == 2
    again.run("b", {"seed": 1}, compute)
    assert Ledger(tmp_path).run("b", {"seed": 1}, compute)["figures"] == {"x": 3}


def test_wise_keeps_the_head_and_mixes_the_rest():
    base = {"encoder.w": torch.zeros(1), "head.weight": torch.zeros(1)}
    tuned = {"encoder.w": torch.ones(1).half(), "head.weight": torch.ones(1).half()}
    assert {n: float(v) for n, v in mixed(base, tuned, 0.25).items()} == {
        "encoder.w": 0.25,
        "head.weight": 1.0,
    }


def test_both_records_are_made_from_one_ledger(tmp_path):
    lines = []
    record = sentiment.make(
        tmp_path / "a", say=lines.append, film=FILM, spam=SPAM, decoder=DECODER, work=tmp_path / "work"
    )
    assert sentiment.load_record(tmp_path / "a")["runs"] == json.loads(json.dumps(record["runs"]))
    kept = sentiment.load_margins(tmp_path / "a")
    for run in record["runs"]:
        labels_N = kept[f"{'decoder' if run['method'].startswith('decoder') else run['data']}/test"]
        margins_N = kept[f"{run['data']}/{run['method']}/{run['labels']}/{run['seed']}/test"]
        assert scores(margins_N, labels_N)["accuracy"] == pytest.approx(run["test_accuracy"], abs=0.06)
    judge = sentiment.load_classifier(tmp_path / "a")
    test_N = classification.margins(
        judge, encode_labelled("film_sentiment", encode).ids["test"], pad_id=0, precision="bfloat16"
    )
    np.testing.assert_allclose(test_N, kept["film_sentiment/lora/16/0/test"], atol=0.02)
    computed = len(lines)
    sentiment.make(
        tmp_path / "b", say=lines.append, film=FILM, spam=SPAM, decoder=DECODER, work=tmp_path / "work"
    )
    assert len(lines) == computed + 1  # the table alone: every run was in the ledger
    few = few_labels.make(tmp_path / "few", say=lines.append, config=FEW, film=FILM, work=tmp_path / "work")
    shared = [r for r in few["runs"] if (r["method"], r["labels"]) == ("full", 16)]
    same = [r for r in record["runs"] if (r["data"], r["method"]) == ("film_sentiment", "full")]
    assert all(a.items() <= b.items() for a, b in zip(shared, same, strict=True))
    assert {r["method"] for r in few["runs"]} == {*few_labels.METHODS, "augmented"}
    assert all(r["added"] > 4 for r in few["runs"] if r["method"] == "augmented")
    assert "    16" in few_labels.figures_table(few_labels.load_record(tmp_path / "few"))


@pytest.mark.parametrize("recipe", [sentiment, few_labels])
def test_a_missing_or_damaged_record_is_named(tmp_path, recipe):
    with pytest.raises(FileNotFoundError, match=f"publish {recipe.NAME}"):
        recipe.load_record(tmp_path)
    (tmp_path / "record.json").write_text(json.dumps({"runs": [{"seed": 1}]}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"record\.json is damaged"):
        recipe.load_record(tmp_path)


def test_select_and_spread():
    runs = [{"data": "film_sentiment", "method": "full", "labels": 16, "seed": s} for s in (0, 1)]
    record = {"runs": [*runs, {**runs[0], "labels": 4}], "config": {"film": {"labels": 16}}}
    assert select(record, "full") == runs
    with pytest.raises(ValueError, match="no run of 'lora' on film_sentiment with 16 labels"):
        select(record, "lora")
    assert spread([0.5, 0.25], percent=False) == "0.375 (0.250 to 0.500)"


def test_the_committed_record_holds_what_the_book_says():
    record, kept = sentiment.load_record(), sentiment.load_margins()
    assert record["command"].endswith("publish sentiment")
    assert record["commit"]
    full, lora, bag = (
        [run["test_accuracy"] for run in select(record, method)]
        for method in ("full", "lora", "bag of words")
    )
    assert [len(each) for each in (full, lora, bag)] == [3, 3, 3]
    spreads = (max(full) - min(full)) + (max(bag) - min(bag))
    assert min(full) - max(bag) > 2 * spreads
    assert min(full) > select(record, "bag of words", labels=7019)[0]["test_accuracy"]
    assert np.mean(full) - np.mean(lora) < 0.01
    assert all(run["trained"] < 0.02 * run["parameters"] for run in select(record, "lora"))
    for run in record["runs"]:
        part = "decoder" if run["method"].startswith("decoder") else run["data"]
        found = kept[f"{run['data']}/{run['method']}/{run['labels']}/{run['seed']}/test"]
        labels_N = kept[f"{part}/test"]
        one_text = 1.01 / len(labels_N)  # a margin may be stored as 0, which counts as negative
        assert scores(found, labels_N)["accuracy"] == pytest.approx(run["test_accuracy"], abs=one_text)
    assert sum(path.stat().st_size for path in (sentiment.RESULTS / sentiment.NAME).iterdir()) < 2_000_000


def test_the_committed_curve_holds_what_the_book_says():
    record = few_labels.load_record()
    means = {
        (method, size): np.mean(few_labels.accuracies(record, method, size))
        for method in few_labels.METHODS
        for size in (8, 32, 128, 512, 2048)
    }
    assert all(len(few_labels.accuracies(record, *key)) == 3 for key in means)
    for size in (128, 512, 2048):
        assert means["bag of words", size] < means["frozen vectors", size]
    assert means["frozen vectors", 2048] < means["full", 2048]
