"""What the loop promises: exact accumulation, exact resume, best and last, clear failure."""

import copy
import math

import pytest
import torch
from torch import nn

from llm_from_scratch.training.checkpoint import load_checkpoint
from llm_from_scratch.training.strategy import Strategy
from llm_from_scratch.training.trainer import TrainerConfig, TrainingDivergedError
from llm_from_scratch.training.validation import NO_TARGET
from tests.training.conftest import B, T, V, random_windows, tiny_model, tiny_trainer


class Fixed:
    """Batches that are given."""

    def __init__(self, batches):
        self.batches, self.place = batches, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.place += 1
        return self.batches[(self.place - 1) % len(self.batches)]

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def losses(trainer):
    return {r["step"]: r["loss"] for r in trainer.log.read() if "loss" in r}


def parameters(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


def test_loss_falls_towards_its_limit(tmp_path):
    trainer = tiny_trainer(tmp_path, steps=150, eval_every=50, dropout=0.0)
    assert trainer.fit()
    first, last = trainer.log.read()[0], trainer.log.read()[-1]
    assert first["step"] == 0
    assert first["val_loss"] == pytest.approx(math.log(V), abs=0.1)
    assert math.log(2) - 0.02 < last["val_loss"] < 0.85  # no model of this language goes below ln 2
    assert (tmp_path / "loss.svg").read_text(encoding="utf-8").startswith("<svg")


def test_one_batch_is_learned_by_heart(tmp_path):
    batch = next(random_windows())
    trainer = tiny_trainer(
        tmp_path, dropout=0.0, batches=Fixed([batch]), steps=300, weight_decay=0.0, eval_every=300
    )
    for _ in range(300):
        record = trainer.train_step()
    # Two windows that begin with the same token differ later: the first positions cannot reach 0.
    assert record["loss"] < 0.35


def uneven_batches():
    """Two micro-batches with 5 * 7 and 9 targets, and the one large batch that holds both."""
    first, second = next(random_windows(seed=1)), next(random_windows(seed=2))
    targets = second[1].clone()
    targets[1:] = NO_TARGET
    targets[2, :2] = second[1][2, :2]
    small = [first, (second[0], targets)]
    large = (torch.cat([first[0], second[0]]), torch.cat([first[1], targets]))
    return small, large


def test_accumulated_gradient_is_the_large_batchs_also_with_uneven_tokens(tmp_path):
    small, large = uneven_batches()
    accumulated = tiny_trainer(tmp_path / "a", dropout=0.0, batches=Fixed(small), accumulate=2)
    at_once = tiny_trainer(tmp_path / "b", dropout=0.0, batches=Fixed([large]))
    for _ in range(3):
        one, other = accumulated.train_step(), at_once.train_step()
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
    for p, q in zip(parameters(accumulated), parameters(at_once), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
    assert accumulated.tokens == at_once.tokens == 3 * (B * T + T + 2)


def test_a_micro_batch_without_targets_changes_nothing(tmp_path):
    batch = next(random_windows())
    empty = (batch[0], torch.full_like(batch[1], NO_TARGET))
    with_empty = tiny_trainer(tmp_path / "a", dropout=0.0, batches=Fixed([batch, empty]), accumulate=2)
    without = tiny_trainer(tmp_path / "b", dropout=0.0, batches=Fixed([batch]))
    assert with_empty.train_step()["loss"] == pytest.approx(without.train_step()["loss"], rel=1e-6)


def test_clipping_bounds_the_gradient_that_the_optimizer_sees(tmp_path):
    trainer = tiny_trainer(tmp_path, clip_norm=0.01)
    seen = []
    step = trainer.optimizer.step

    def spy(*args, **kwargs):
        gradients = [p.grad for p in trainer.model.parameters()]
        seen.append(float(torch.stack([g.norm() for g in gradients]).norm()))
        return step(*args, **kwargs)

    trainer.optimizer.step = spy
    record = trainer.train_step()
    assert record["grad_norm"] > 0.1  # logged before clipping
    assert seen[0] == pytest.approx(0.01, rel=1e-3)


def test_without_a_limit_the_gradient_is_measured_and_stays():
    model = tiny_model(dropout=0.0)
    ids = torch.randint(V, (2, T), generator=torch.Generator().manual_seed(0))
    model(ids, ids)[1].backward()
    before = [p.grad.clone() for p in model.parameters()]
    norm = Strategy().clip_gradients(model, math.inf)
    assert norm == pytest.approx(float(torch.cat([g.flatten() for g in before]).norm()), rel=1e-6)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


def test_two_runs_are_identical(tmp_path):
    one, other = tiny_trainer(tmp_path / "a"), tiny_trainer(tmp_path / "b")
    one.fit()
    # The global generator is where the first run left it: a run must not depend on that.
    other = tiny_trainer(tmp_path / "b")
    other.fit()
    assert losses(one) == losses(other)
    assert all(torch.equal(p, q) for p, q in zip(parameters(one), parameters(other), strict=True))


@pytest.mark.parametrize(("stop_at", "accumulate"), [(0, 1), (1, 3), (4, 1), (6, 3), (11, 1)])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, stop_at, accumulate):
    settings = {"dropout": 0.3, "accumulate": accumulate}
    whole = tiny_trainer(tmp_path / "whole", **settings)
    whole.fit()
    first = tiny_trainer(tmp_path / "parts", **settings)
    first._evaluate_and_save({"step": 0})
    for _ in range(stop_at):
        first.log.append(first.train_step())
    first._save(best=False)
    first.log.append(first.train_step())  # a step that the checkpoint does not know of
    torch.rand(17)  # whatever happens between the two processes
    second = tiny_trainer(tmp_path / "parts", **settings)
    second.resume()
    assert second.step == stop_at
    assert second.fit()
    assert losses(second) == losses(whole)
    assert [r["step"] for r in second.log.read()] == list(range(13))
    assert all(torch.equal(p, q) for p, q in zip(parameters(whole), parameters(second), strict=True))
    assert second.tokens == whole.tokens


def test_without_dropouts_random_state_the_resumed_run_would_differ(tmp_path):
    """Guards the test above: its dropout does depend on the restored generator."""
    whole = tiny_trainer(tmp_path / "whole", dropout=0.3)
    whole.fit()
    checkpoint = load_checkpoint(tmp_path / "whole")
    assert checkpoint.tensors["random"]["cpu"].dtype == torch.uint8
    assert not torch.equal(
        checkpoint.tensors["random"]["cpu"], (torch.manual_seed(7), torch.get_rng_state())[1]
    )


def test_best_is_the_step_with_the_lowest_validation_loss(tmp_path):
    trainer = tiny_trainer(tmp_path, steps=12, eval_every=3)
    values = iter([9.0, 5.0, 2.0, 3.0, 4.0])
    trainer.evaluate = lambda: next(values)
    trainer.fit()
    assert load_checkpoint(tmp_path, "best").step == 6
    assert load_checkpoint(tmp_path, "last").step == 12
    folders = sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir())
    assert folders == ["step-000006", "step-000012"]
    assert not (tmp_path / "checkpoints" / "step-000006" / "optimizer.pt").exists()


def test_a_resumed_run_remembers_the_best_loss(tmp_path):
    first = tiny_trainer(tmp_path, steps=12, eval_every=3)
    first.evaluate = lambda: 2.0 if first.step == 3 else 5.0
    while first.step < 3:
        record = first.train_step()
    first._evaluate_and_save(record)
    second = tiny_trainer(tmp_path, steps=12, eval_every=3)
    second.resume()
    second.evaluate = lambda: 3.0
    second.fit()
    assert load_checkpoint(tmp_path, "best").step == 3
    assert load_checkpoint(tmp_path, "last").step == 12


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    trainer = tiny_trainer(tmp_path, steps=12)

    class Poisoned(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, ids, targets):
            logits, loss = self.model(ids, targets)
            return logits, loss * (math.nan if trainer.step == 5 and self.training else 1.0)

    trainer.forward = Poisoned(trainer.model)
    with pytest.raises(
        TrainingDivergedError, match=r"nan at step 6 \(learning rate .*\)\. The checkpoint of step 4"
    ):
        trainer.fit()
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.step == 4
    assert all(p.isfinite().all() for p in parameters(trainer))  # the bad gradient was never applied


def test_an_infinite_gradient_stops_the_run(tmp_path):
    trainer = tiny_trainer(tmp_path)
    next(trainer.model.parameters()).register_hook(lambda gradient: gradient * math.inf)
    before = parameters(trainer)
    with pytest.raises(TrainingDivergedError, match="gradient's norm became"):
        trainer.train_step()
    assert all(torch.equal(p, q) for p, q in zip(before, parameters(trainer), strict=True))


def test_bfloat16_trains_with_float32_parameters(tmp_path):
    trainer = tiny_trainer(tmp_path, steps=60, eval_every=60, precision="bfloat16", dropout=0.0)
    trainer.fit()
    assert trainer.log.read()[-1]["val_loss"] < 1.6
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


def test_the_loss_scaler_changes_nothing_but_skips_what_overflows(tmp_path):
    """float16's scaler, run on a CPU in float32, where its scaling and unscaling must cancel."""
    plain, scaled = (tiny_trainer(tmp_path / name, dropout=0.0) for name in ("a", "b"))
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=True)
    for _ in range(3):
        one, other = plain.train_step(), scaled.train_step()
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
    hook = next(scaled.model.parameters()).register_hook(lambda gradient: gradient * math.inf)
    before = parameters(scaled)
    assert "grad_norm" not in scaled.train_step()
    assert all(torch.equal(p, q) for p, q in zip(before, parameters(scaled), strict=True))
    assert scaled.scaler.get_scale() == 2.0**9
    hook.remove()
    scaled._save(best=True)
    resumed = tiny_trainer(tmp_path / "b", dropout=0.0)
    resumed.scaler = torch.amp.GradScaler("cpu", enabled=True)
    resumed.resume()
    assert resumed.scaler.get_scale() == 2.0**9
    assert resumed.train_step()["loss"] == scaled.train_step()["loss"]


def test_a_model_handed_over_in_evaluation_mode_still_trains_with_dropout(tmp_path):
    trainer = tiny_trainer(tmp_path, model=tiny_model(dropout=0.5).eval())
    reference = tiny_trainer(tmp_path, model=tiny_model(dropout=0.0))
    assert trainer.train_step()["loss"] != reference.train_step()["loss"]
    assert trainer.model.training


def test_frozen_parameters_stay(tmp_path):
    model = tiny_model()
    model.token_embedding.weight.requires_grad_(False)
    before = copy.deepcopy(model.token_embedding.weight)
    trainer = tiny_trainer(tmp_path, model=model)
    trainer.fit()
    assert torch.equal(before, model.token_embedding.weight)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("steps", 0, "steps must be 1 or more, got 0"),
        ("learning_rate", 0.0, "learning_rate must be above 0"),
        ("learning_rate", math.nan, "learning_rate must be above 0"),
        ("clip_norm", math.nan, "clip_norm must be above 0"),
        ("weight_decay", math.nan, "weight_decay must be 0 or more"),
        ("final_fraction", 1.5, "final_fraction must be between 0 and 1, got 1.5"),
        ("warmup_fraction", -0.1, "warmup_fraction must be between 0 and 1"),
        ("seed", -1, "seed must be between 0"),
        ("beta2", 1.0, "beta2 must be at least 0 and below 1"),
    ],
)
def test_impossible_settings_are_named(field, value, says):
    with pytest.raises(ValueError, match=says):
        TrainerConfig(**{field: value})


def test_a_second_trainer_on_a_run_must_resume_it(tmp_path):
    assert tiny_trainer(tmp_path).fit()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    second = tiny_trainer(tmp_path)
    with pytest.raises(ValueError, match=r"holds the checkpoint of another trainer: call resume\(\)"):
        second.fit()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    second.resume()
    assert second.fit()
    assert [record["step"] for record in second.log.read()] == list(range(13))


def test_what_was_logged_before_the_first_checkpoint_is_logged_once(tmp_path, monkeypatch):
    first = tiny_trainer(tmp_path)
    monkeypatch.setattr(first, "_save", lambda *, best: 1 / 0)  # killed between the log and the checkpoint
    with pytest.raises(ZeroDivisionError):
        first.fit()
    assert [record["step"] for record in first.log.read()] == [0]
    second = tiny_trainer(tmp_path)
    assert second.fit()
    assert [record["step"] for record in second.log.read()] == list(range(13))
