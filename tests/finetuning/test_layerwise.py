"""Rates by depth, layers that wait, and both under the trainer: accumulation, resume, two processes."""

import pytest
import torch

from llm_from_scratch.finetuning.heads import DecoderClassifier
from llm_from_scratch.finetuning.layerwise import layerwise_groups, parameter_depths
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from tests.finetuning import classifier_run
from tests.finetuning.conftest import LAYERS, Labelled, labelled_batch, tiny_classifier, tiny_trainer
from tests.processes import check_in_processes


def losses(trainer_or_log):
    return {
        (r["step"], key): r[key]
        for r in trainer_or_log
        for key in ("loss", "val_loss", "grad_norm")
        if key in r
    }


def named(model, groups):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group for group in groups for parameter in group["params"]}


def test_every_parameter_of_an_encoder_has_the_rate_of_its_depth():
    model = tiny_classifier()
    found = named(model, layerwise_groups(model, weight_decay=0.1, decay=0.5, unfreeze_every=7))
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, group in found.items():
        if name.startswith("head."):
            depth = 0
        elif ".blocks." in name:
            depth = LAYERS - int(name.split(".blocks.")[1].split(".")[0])
        else:
            assert "embedding" in name
            depth = LAYERS + 1
        assert (group["rate"], group["from_step"]) == (0.5**depth, 7 * depth), name
        matrix = name.endswith("weight") and "norm" not in name and "embedding" not in name
        assert group["weight_decay"] == (0.1 if matrix else 0.0), name


def test_a_decoders_last_norm_is_at_the_top_and_its_tied_matrix_at_the_bottom():
    config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    model = DecoderClassifier(Decoder(config), num_classes=2, pad_id=0)
    depths = parameter_depths(model)
    assert depths[id(model.decoder.norm.weight)] == depths[id(model.head.weight)] == 0
    assert model.decoder.head is None
    assert depths[id(model.decoder.output_weight)] == depths[id(model.decoder.position_embedding.weight)] == 3
    assert depths[id(model.decoder.blocks[1].attention.qkv.weight)] == 1


def test_frozen_parameters_are_in_no_group():
    model = tiny_classifier()
    model.encoder.requires_grad_(False)
    assert named(model, layerwise_groups(model, weight_decay=0.1)).keys() == {"head.weight", "head.bias"}


def test_equal_rates_are_the_trainers_own_training(tmp_path):
    plain = tiny_trainer(tmp_path / "plain")
    grouped = tiny_trainer(tmp_path / "grouped", groups=lambda m: layerwise_groups(m, weight_decay=0.01))
    plain.fit()
    grouped.fit()
    for a, b in zip(plain.model.parameters(), grouped.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_group_moves_by_its_rate(tmp_path):
    """AdamW's first step has the size of the learning rate, whatever the gradient."""
    groups = lambda model: layerwise_groups(model, weight_decay=0.0, decay=0.5)  # noqa: E731
    trainer = tiny_trainer(tmp_path, groups=groups, weight_decay=0.0, warmup_fraction=0.0)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    found = named(trainer.model, trainer.optimizer.param_groups)
    trainer.train_step()
    for name, parameter in trainer.model.named_parameters():
        if "qkv.weight" in name or name == "head.weight":
            moved = (parameter.detach() - before[name]).abs().max()
            assert float(moved) == pytest.approx(3e-3 * found[name]["rate"], rel=1e-2), name


def test_a_layer_that_waits_does_not_move_and_gets_no_gradient(tmp_path):
    trainer = tiny_trainer(tmp_path, groups=classifier_run.groups)
    model = trainer.model
    reached = []  # whether a gradient came down to the first block's input
    model.encoder.blocks[0].register_forward_hook(lambda m, i, out: reached.append(out.requires_grad))
    for step in range(10):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        trainer.train_step()
        moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        begun = {
            name
            for name, group in named(model, trainer.optimizer.param_groups).items()
            if step >= group["from_step"]
        }
        assert moved <= begun
        assert {n.split(".")[2] for n in moved if ".blocks." in n} == {
            n.split(".")[2] for n in begun if ".blocks." in n
        }
        assert ("encoder.token_embedding.weight" in moved) == (step >= 2 * (LAYERS + 1))
    assert reached == [step >= 2 * LAYERS for step in range(10)]
    assert all(p.requires_grad for p in model.parameters())


class Halves(Labelled):
    """The same texts in two micro-batches of three, which hold different numbers of labels."""

    def __next__(self):
        whole, part = divmod(self.drawn, 2)
        self.drawn += 1
        ids_BT, labels_B = labelled_batch(whole + 1)
        return ids_BT[3 * part : 3 * part + 3], labels_B[3 * part : 3 * part + 3]


def test_accumulation_equals_the_large_batch(tmp_path):
    large = tiny_trainer(tmp_path / "large", groups=classifier_run.groups)
    small = tiny_trainer(
        tmp_path / "small", groups=classifier_run.groups, batches=Halves(3), batch_size=3, accumulate=2
    )
    large.fit()
    small.fit()
    assert losses(small.log.read()) == pytest.approx(losses(large.log.read()), abs=1e-5)


@pytest.mark.parametrize("stop", [3, 4, 7])
def test_resume_equals_the_uninterrupted_run_bit_for_bit(tmp_path, stop):
    model = tiny_classifier(dropout=0.2)
    whole = tiny_trainer(tmp_path / "whole", groups=classifier_run.groups, model=model)
    whole.fit()
    first = tiny_trainer(tmp_path / "parts", groups=classifier_run.groups, model=tiny_classifier(dropout=0.2))
    first._evaluate_and_save({"step": 0})
    for _ in range(stop):
        first._append(first.train_step())
    first._save(best=False)
    second = tiny_trainer(tmp_path / "parts", groups=classifier_run.groups, model=tiny_classifier(seed=9))
    second.model.dropout.p = second.model.encoder.dropout.p = 0.2
    for block in second.model.encoder.blocks:
        block.dropout.p = block.attention.dropout = 0.2
    second.resume()
    second.fit()
    for (name, a), b in zip(whole.model.named_parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_two_processes_take_the_steps_of_one(tmp_path):
    changes = {"batch_size": 6, "accumulate": 2, "steps": 10}
    check_in_processes(2, classifier_run.train, tmp_path / "two", "ddp", changes)
    one = tiny_trainer(tmp_path / "one", groups=classifier_run.groups, **changes)
    one.fit()
    two = tiny_trainer(tmp_path / "two", groups=classifier_run.groups, **changes)
    assert losses(two.log.read()) == pytest.approx(losses(one.log.read()), abs=1e-5)
    two.resume()
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_patience_ends_the_run_and_the_best_weights_stay(tmp_path):
    """A learning rate that ruins the model: the loss never improves on that of the beginning."""
    changes = {"steps": 40, "eval_every": 2, "learning_rate": 3.0, "clip_norm": None}
    trainer = tiny_trainer(tmp_path, patience=3, **changes)
    assert trainer.fit()
    assert trainer.finished
    seen = [r["val_loss"] for r in trainer.log.read() if "val_loss" in r]
    best = seen.index(min(seen))
    assert len(seen) == best + 4 < 21
    again = tiny_trainer(tmp_path, patience=3, **changes)
    again.resume()
    assert again.waited == 3
    assert again.fit()
    assert again.step == trainer.step  # a finished run is not continued


def test_without_patience_the_same_run_goes_to_its_end(tmp_path):
    trainer = tiny_trainer(tmp_path, steps=10, eval_every=2, learning_rate=3.0, clip_norm=None)
    assert trainer.fit()
    assert trainer.step == 10


def test_mistakes_are_named(tmp_path):
    model = tiny_classifier()
    for settings, message in (
        ({"decay": 0.0}, "decay must be above 0"),
        ({"decay": 1.5}, "decay must be above 0 and at most 1, got 1.5"),
        ({"unfreeze_every": -1}, "unfreeze_every must be 0"),
    ):
        with pytest.raises(ValueError, match=message):
            layerwise_groups(model, weight_decay=0.1, **settings)
    with pytest.raises(ValueError, match="no blocks"):
        layerwise_groups(torch.nn.Linear(2, 2), weight_decay=0.1)
    every = list(model.parameters())
    for groups, message in (
        ([{"params": every[1:]}], "head.weight and 0 more trainable parameters are in no group"),
        ([{"params": every}, {"params": every[:1]}], "weight a second time"),
        ([{"params": [*every, torch.nn.Parameter(torch.ones(1))]}], "frozen or not the model's"),
        ([{"params": every, "from_step": 3}], "no group begins at step 0"),
        ([{"params": every, "rate": -1.0}], "rate must be 0 or more"),
        ([{"params": every, "lr": 1.0}], "unknown field 'lr'"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny_trainer(tmp_path, model=model, groups=groups)
    with pytest.raises(ValueError, match="need optimizer adamw"):
        tiny_trainer(tmp_path, model=model, groups=[{"params": every}], optimizer="muon")
    with pytest.raises(ValueError, match="patience must be 1"):
        tiny_trainer(tmp_path, model=model, patience=0)
