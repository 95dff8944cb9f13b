"""What the processes of test_sharded.py do."""

import os

import pytest
import torch

from llm_from_scratch.training import shard_files
from llm_from_scratch.training.boxes import whole_box
from llm_from_scratch.training.distributed import open_strategy
from tests.processes import DIED
from tests.training.distributed.processes_run import build, main

STEPS = ("fsync", "replace", "unlink", "rmdir", "mkdir")  # operations that change what lies on the disk


def train(out, strategy, *options):
    """Be one process of a run, to its end."""
    main([str(out), strategy, *map(str, options)])


def trained(out, name, family="llama"):
    """Open the run in ``out`` where it stands."""
    trainer = build(out, open_strategy(name, torch.device("cpu")), family=family)
    trainer.resume()
    return trainer


def save_again(out, name, dies, moment):
    """Save as step 7; process ``dies`` ends at its operation number ``moment`` on files, without cleanup."""
    trainer = trained(out, name)
    trainer.step += 1  # another folder, other files
    left = [moment]

    def guarded(function):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os._exit(DIED)
            return function(*args, **kwargs)

        return call

    if trainer.strategy.rank == dies:
        for step in STEPS:
            setattr(os, step, guarded(getattr(os, step)))
    trainer._save(best=True)
    os._exit(0 if left[0] > 0 else 1)


def save_on_a_full_disk(out, name, full):
    """Save, while the disk of one process refuses; all are told, and the old checkpoint is read."""
    trainer = trained(out, name)
    before, trainer.step = trainer.step, trainer.step + 1

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    if trainer.strategy.rank == full:
        shard_files.save_file = refuse
    with pytest.raises(OSError, match="the disk is full") as caught:
        trainer._save(best=False)
    assert caught.value.errno == 28
    trainer.resume()
    assert trainer.step == before
    trainer.strategy.finish()


def refuse_to_open(out, name, error, says):
    """Open a damaged checkpoint: every process is told which file it is."""
    with pytest.raises((ValueError, OSError), match=says) as caught:
        trained(out, name)
    assert caught.typename == error
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def compare_boxes(name, family):
    """Every number of every parameter lies in a box of its own place, as torch's own checkpoints see it."""
    trainer = build(os.devnull, open_strategy(name, torch.device("cpu")), family=family)
    strategy = trainer.strategy
    for label, parameter in trainer.model.named_parameters():
        whole = strategy.whole(parameter, parameter)
        wholes = [whole.detach() if strategy.main else None]
        torch.distributed.broadcast_object_list(wholes)
        held = torch.zeros(parameter.shape)
        for box, place in strategy.boxes(parameter, parameter):
            where = shard_files.slices(box)
            assert torch.equal(wholes[0][where], place), label
            held[where] += 1
        if not strategy.writes(parameter, 0) or (held == 1).all():
            held = torch.full_like(held, float(strategy.main))  # whole everywhere: one of them counts
        torch.distributed.all_reduce(held)
        assert (held == 1).all(), label
        if hasattr(parameter, "__create_chunk_list__") and not getattr(strategy, "orders", {}):
            chunks = [c for c in parameter.__create_chunk_list__() if c.sizes.numel()]
            boxes = [box for box, _ in strategy.boxes(parameter, parameter)]
            theirs = [tuple(range(o, o + s) for o, s in zip(c.offsets, c.sizes, strict=True)) for c in chunks]
            assert boxes == theirs, (label, boxes, theirs, whole_box(parameter.shape))
    strategy.finish()
