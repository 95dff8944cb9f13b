"""What can be checked of the strategies without starting a second process."""

import pytest
import torch
from torch import nn

from llm_from_scratch.data.loader import BatchLoader, share_of
from llm_from_scratch.training.distributed import open_strategy
from llm_from_scratch.training.distributed.processes import Processes, RowsOf
from llm_from_scratch.training.distributed.tensor_plan import head_order
from llm_from_scratch.training.optimizer_state import gathered_optimizer, restore_optimizer
from llm_from_scratch.training.strategy import Strategy
from llm_from_scratch.training.validation import NO_TARGET, mean_loss
from tests.training.conftest import T, made_up_tokens, tiny_model


def loader(batch_size=6):
    return BatchLoader(made_up_tokens(), context_length=T, batch_size=batch_size, seed=3)


def share(number, shares):
    """A strategy as process ``number`` of ``shares`` would see it, without the other processes."""
    strategy = Processes.__new__(Processes)
    strategy.share, strategy.shares = number, shares
    return strategy


@pytest.mark.parametrize("shares", [1, 2, 3, 6])
def test_the_shares_of_a_batch_are_the_batch(shares):
    whole, parts = loader(), [loader() for _ in range(shares)]
    for number, part in enumerate(parts):
        part.read_rows(number, shares)
    for _ in range(4):
        ids, targets = next(whole)
        mine = [next(part) for part in parts]
        assert torch.equal(torch.cat([m[0] for m in mine]), ids)
        assert torch.equal(torch.cat([m[1] for m in mine]), targets)
    assert all(part.state_dict() == whole.state_dict() for part in parts)


def test_a_run_goes_on_with_other_shares():
    first = loader()
    first.read_rows(1, 2)
    next(first)
    second, whole = loader(), loader()
    second.load_state_dict(first.state_dict())
    second.read_rows(2, 3)
    next(whole)
    assert torch.equal(next(second)[0], next(whole)[0][4:])


def test_any_other_source_is_cut_too():
    source = [(torch.arange(12).view(4, 3), torch.arange(12).view(4, 3) + 1)]
    cut = RowsOf(iter(source), 1, 2)
    assert next(cut)[0].tolist() == [[6, 7, 8], [9, 10, 11]]


@pytest.mark.parametrize("B", [1, 2, 3, 4, 5, 7])
def test_validation_rows_are_scored_once_and_by_as_many_calls(B):
    ids = torch.randint(0, 13, (B, T), generator=torch.Generator().manual_seed(B))
    batch = (ids, ids.roll(-1, dims=1))
    rows = [share(number, 4).rows(batch) for number in range(4)]
    assert all(len(part[0]) for part in rows)  # everyone calls the model
    scored = [part[0][(part[1] != NO_TARGET).any(dim=1)] for part in rows]
    assert torch.equal(torch.cat(scored), ids)


def test_the_mean_over_shares_is_the_mean():
    model, ids = tiny_model(dropout=0.0), torch.randint(0, 13, (5, T))
    batch = (ids, ids.roll(-1, dims=1))
    sums = []
    for number in range(4):
        mean_loss(model, [share(number, 4).rows(batch), batch], total=lambda v: sums.append(v) or 1)
    nats = sum(sums[0::2]) / sum(sums[1::2])
    assert nats == pytest.approx(mean_loss(model, [batch]), rel=1e-6)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="batch_size 6 does not divide among 4 processes; choose a mul"):
        share(0, 4).batches(loader(), 6)
    assert share_of(6, 2, 3) == slice(4, 6)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "tensor"])
def test_without_torchrun_the_error_says_how_to_start(monkeypatch, name):
    for variable in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ValueError, match=f"torchrun --nproc-per-node 2 .* --strategy {name}"):
        open_strategy(name, torch.device("cpu"))


def test_single_under_torchrun_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="started 2 processes, but the strategy is single"):
        open_strategy("single", torch.device("cpu"))


def test_parts_of_the_joint_matrix_hold_whole_heads():
    order = head_order(6, 3, 2, 3)
    assert sorted(order.tolist()) == list(range(24))
    # part 1 of 3: query heads 2 and 3, key head 1, value head 1, two rows each
    assert order.chunk(3)[1].tolist() == [4, 5, 6, 7, 14, 15, 20, 21]


def test_an_optimizer_comes_back():
    def stepped():
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters())

    model, optimizer = stepped()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = gathered_optimizer(optimizer, Strategy())
    other = stepped()[1]
    restore_optimizer(other, state, Strategy())
    for index, kept in optimizer.state_dict()["state"].items():
        for name, value in kept.items():
            assert torch.equal(value, other.state_dict()["state"][index][name])
