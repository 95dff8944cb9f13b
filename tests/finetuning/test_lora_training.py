"""LoRA under the trainer: accumulation, resume, several processes; checkpoints hold what is trained."""

import json

import pytest
import safetensors
import torch

from llm_from_scratch.training.log import RunLog
from llm_from_scratch.training.shard_files import parse_label
from tests.finetuning.lora_run import lora_trainer, refuse_tensor_parallel, train
from tests.processes import check_in_processes


def records(folder):
    kept = ("step", "loss", "val_loss", "grad_norm", "lr")
    return [{k: r[k] for k in kept if k in r} for r in RunLog(folder / "log.jsonl").read()]


def losses(folder):
    return {(r["step"], k): r[k] for r in records(folder) for k in ("loss", "val_loss") if k in r}


def stored_names(folder):
    last = json.loads((folder / "checkpoints.json").read_text())["last"]
    found = []
    for path in sorted((folder / "checkpoints" / last).glob("model*.safetensors")):
        with safetensors.safe_open(path, framework="pt") as file:
            found += file.keys()
    return found


def test_it_learns_with_the_base_as_it_was(tmp_path):
    trainer = lora_trainer(tmp_path, steps=40, eval_every=40, learning_rate=3e-2)
    base = {n: p.clone() for n, p in trainer.model.named_parameters() if not p.requires_grad}
    trainer.fit()
    first, last = records(tmp_path)[0]["val_loss"], records(tmp_path)[-1]["val_loss"]
    assert last < first - 0.04
    assert all(torch.equal(p, base[n]) for n, p in trainer.model.named_parameters() if n in base)
    assert len(base) > len(stored_names(tmp_path)) == 2 * 3 * 2
    assert all(".parts." in name for name in stored_names(tmp_path))


def test_accumulation_takes_the_step_of_one_large_batch(tmp_path):
    one = lora_trainer(tmp_path / "one", batch_size=8)
    parts = lora_trainer(tmp_path / "parts", batch_size=2, accumulate=4)
    for _ in range(5):
        assert one.train_step()["loss"] == pytest.approx(parts.train_step()["loss"], abs=1e-5)
    own = dict(parts.model.named_parameters())
    for name, parameter in one.model.named_parameters():
        torch.testing.assert_close(own[name], parameter, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sharded", [False, True])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, sharded):
    """With dropout on the adapters' inputs: the random numbers go on too."""
    options = {"dropout": 0.3, "sharded": sharded}
    whole = lora_trainer(tmp_path / "whole", **options)
    whole.fit()
    first = lora_trainer(tmp_path / "cut", **options)
    step = first.train_step

    def stopped():
        if first.step == 6:
            raise KeyboardInterrupt
        return step()

    first.train_step = stopped
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    torch.rand(17)  # a new process is somewhere else
    second = lora_trainer(tmp_path / "cut", **options)
    second.resume()
    assert second.step == 4
    second.fit()
    assert records(tmp_path / "cut") == records(tmp_path / "whole")
    own = second.model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in whole.model.state_dict().items())


@pytest.mark.parametrize("sharded", [False, True])
def test_another_base_is_not_continued(tmp_path, sharded):
    lora_trainer(tmp_path, steps=2, sharded=sharded).fit()
    other = lora_trainer(tmp_path, steps=2, seed=8)
    before = {name: tensor.clone() for name, tensor in other.model.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"was trained beside another base \(fingerprint .*the run began with"
    ):
        other.resume()
    assert all(torch.equal(before[name], tensor) for name, tensor in other.model.state_dict().items())
    with pytest.raises(ValueError, match="without their base: use trained_only=True"):
        lora_trainer(tmp_path, steps=2, trained_only=False).resume()
    lora_trainer(tmp_path / "whole", steps=2, trained_only=False).fit()
    with pytest.raises(ValueError, match="holds a whole model: continue it with trained_only=False"):
        lora_trainer(tmp_path / "whole", steps=2).resume()


def test_a_checkpoint_without_a_tensor_is_refused(tmp_path):
    lora_trainer(tmp_path, steps=1).fit()
    trainer = lora_trainer(tmp_path, steps=1)
    trainer.only = [*trainer.only, "norm.weight"]
    with pytest.raises(ValueError, match=r"it lacks norm\.weight"):
        trainer.resume()


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_take_the_steps_of_one(tmp_path, name):
    changes = {"steps": 5, "eval_every": 5, "accumulate": 2}
    check_in_processes(2, train, tmp_path / "two", name, changes)
    lora_trainer(tmp_path / "one", **changes).fit()
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    names = stored_names(tmp_path / "two")
    if name == "fsdp":
        names = [parse_label(stored)[0] for stored in names]
    assert {*names} == {*stored_names(tmp_path / "one")}
    again = lora_trainer(tmp_path / "two", **changes)  # by one process alone
    again.resume()
    own = lora_trainer(tmp_path / "one", **changes)
    own.resume()
    for left, right in zip(again.model.parameters(), own.model.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_tensor_parallelism_is_refused(tmp_path):
    check_in_processes(2, refuse_tensor_parallel, tmp_path)
