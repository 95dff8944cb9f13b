"""Muon against torch's own, against a plain loop, and inside the Trainer."""

import copy

import pytest
import torch
from torch import nn

from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.muon import Muon, newton_schulz
from llm_from_scratch.training.optimizers import build_optimizer, muon_groups
from llm_from_scratch.training.strategy import Strategy
from llm_from_scratch.training.trainer import Trainer
from tests.training.conftest import T, V, tiny_model, tiny_trainer


@pytest.mark.parametrize("shape", [(17, 17), (13, 31), (31, 13), (5, 11, 7)])
def test_singular_values_come_near_1_and_singular_vectors_stay(shape):
    torch.manual_seed(0)
    matrix = torch.randn(*shape, dtype=torch.float64)
    result = newton_schulz(matrix)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    evened = left.mT @ result @ right.mT  # in the basis of the singular vectors: diagonal
    diagonal = torch.diagonal(evened, dim1=-2, dim2=-1)
    assert ((diagonal > 0.6) & (diagonal < 1.25)).all()
    torch.testing.assert_close(evened, torch.diag_embed(diagonal), rtol=0, atol=1e-9)
    assert values.amax() / values.amin() > 2  # they had not been near each other


def test_newton_schulz_is_the_polynomial_of_the_singular_values():
    torch.manual_seed(1)
    matrix = torch.randn(7, 5, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    for _ in range(3):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    torch.testing.assert_close(newton_schulz(matrix, 3), left @ torch.diag(values) @ right)


def test_newton_schulz_of_nothing():
    assert (newton_schulz(torch.zeros(3, 4)) == 0).all()
    with pytest.raises(ValueError, match="a vector has no singular values"):
        newton_schulz(torch.ones(3))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has its own Muon from 2.9 on")
def test_equal_to_torchs_own():
    """torch computes Newton-Schulz in bfloat16, 8 bits of fraction: hence the wide tolerance of a step."""
    torch.manual_seed(2)
    ours = [nn.Parameter(torch.randn(*shape)) for shape in ((11, 23), (23, 11), (13, 13))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    start = [p.detach().clone() for p in ours]
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}
    mine = Muon([{"params": ours, "orthogonal": True}], **settings)
    other = torch.optim.Muon(theirs, nesterov=True, **settings)
    for _ in range(4):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        mine.step()
        other.step()
    for p, q, before in zip(ours, theirs, start, strict=True):
        assert (p - q).norm() < 0.02 * (p - before).norm()


def plain_muon(weights, gradients, *, rate, momentum, decay, parts):
    """The formula by singular values, one matrix at a time, in float64."""
    average = torch.zeros_like(weights)
    for gradient in gradients:
        average = momentum * average + (1 - momentum) * gradient
        ahead = momentum * average + (1 - momentum) * gradient
        weights = weights * (1 - rate * decay)
        pieces = []
        for piece in ahead.split(parts):
            left, values, right = torch.linalg.svd(piece, full_matrices=False)
            values = values / values.norm()
            for _ in range(5):
                values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
            scale = max(1, piece.shape[0] / piece.shape[1]) ** 0.5
            pieces.append(scale * left @ torch.diag(values) @ right)
        weights = weights - rate * torch.cat(pieces)
    return weights


@pytest.mark.parametrize("parts", [(11,), (5, 3, 3), (9, 2)])
def test_equal_to_the_formula(parts):
    torch.manual_seed(3)
    weight = nn.Parameter(torch.randn(11, 3, dtype=torch.float64))
    gradients = torch.randn(5, 11, 3, dtype=torch.float64)
    settings = {"momentum": 0.8, "weight_decay": 0.3}
    optimizer = Muon([{"params": [weight], "orthogonal": True, "parts": parts}], lr=0.07, **settings)
    expected = plain_muon(weight.detach().clone(), gradients, rate=0.07, momentum=0.8, decay=0.3, parts=parts)
    for gradient in gradients:
        weight.grad = gradient
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected)


def test_the_rest_takes_the_steps_of_adamw():
    torch.manual_seed(4)
    ours = [nn.Parameter(torch.randn(7, 5)), nn.Parameter(torch.randn(3))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    settings = {"lr": 0.03, "weight_decay": 0.2, "betas": (0.8, 0.9)}
    mine, other = Muon([{"params": ours}], **settings), torch.optim.AdamW(theirs, **settings)
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        mine.step()
        other.step()
    torch.testing.assert_close(ours, theirs)


def test_state_dict_round_trip():
    torch.manual_seed(5)
    model = tiny_model(dropout=0.0)
    config = TrainerConfig(optimizer="muon", learning_rate=1e-2)
    twin = copy.deepcopy(model)
    first, second = build_optimizer(model, config), build_optimizer(twin, config)

    def step(model, optimizer, seed):
        ids = torch.randint(V, (2, T), generator=torch.Generator().manual_seed(seed))
        model(ids, ids.roll(-1, 1))[1].backward()
        optimizer.step()
        optimizer.zero_grad()

    step(model, first, 0)
    twin.load_state_dict(model.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    step(model, first, 1)
    step(twin, second, 1)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("ngram_rows", [(), (17, 19)])
def test_which_parameters_become_orthogonal(ngram_rows):
    config = DecoderConfig.llama(
        vocab_size=V, context_length=T, d_model=12, num_layers=2, num_heads=3, ngram_rows=ngram_rows
    )
    model = Decoder(config)
    groups = muon_groups(model, weight_decay=0.1, matrix_rate=5.0)
    names = {id(p): name for name, p in model.named_parameters()}
    chosen = {names[id(p)] for group in groups if group["orthogonal"] for p in group["params"]}
    inside = ("attention.qkv", "attention.output", "feedforward.gate", "feedforward.up", "feedforward.down")
    assert chosen == {f"blocks.{i}.{part}.weight" for i in (0, 1) for part in inside}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    joint = next(group for group in groups if group.get("parts"))
    assert joint["parts"] == (12, 12, 12)
    assert {names[id(p)] for p in joint["params"]} == {f"blocks.{i}.attention.qkv.weight" for i in (0, 1)}
    assert all(group["rate"] == (5.0 if group["orthogonal"] else 1.0) for group in groups)


def test_the_schedule_keeps_the_ratio_of_the_rates(tmp_path):
    trainer = tiny_trainer(tmp_path, optimizer="muon", learning_rate=4e-3, muon_learning_rate=2e-2)
    for _ in range(5):
        record = trainer.train_step()
        for group in trainer.optimizer.param_groups:
            assert group["lr"] == pytest.approx(record["lr"] * (5 if group["orthogonal"] else 1))


def test_loss_falls_towards_its_limit(tmp_path):
    trainer = tiny_trainer(tmp_path, steps=150, eval_every=150, dropout=0.0, optimizer="muon")
    assert trainer.fit()
    assert 0.67 < trainer.log.read()[-1]["val_loss"] < 0.85  # no model of this language goes below ln 2


def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path):
    whole = tiny_trainer(tmp_path / "whole", steps=12, optimizer="muon")
    whole.fit()
    begun = tiny_trainer(tmp_path / "parts", steps=12, optimizer="muon")
    begun._evaluate_and_save({"step": 0})
    for _ in range(5):
        begun._append(begun.train_step())
    begun._save(best=False)
    resumed = tiny_trainer(tmp_path / "parts", steps=12, optimizer="muon")
    resumed.resume()
    resumed.fit()
    for p, q in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(p, q)
    mine, theirs = (trainer.optimizer.state_dict()["state"] for trainer in (whole, resumed))
    assert all(torch.equal(mine[i][name], theirs[i][name]) for i in mine for name in mine[i])


class Dividing(Strategy):
    name = "fsdp"
    whole_matrices = False


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="strategy fsdp divides them: use strategy ddp"):
        Trainer(
            tiny_model(), TrainerConfig(optimizer="muon"), batches=iter(()), validation=[], folder=tmp_path,
            strategy=Dividing(),
        )  # fmt: skip
    with pytest.raises(ValueError, match="optimizer must be adamw or muon, got 'sgd'"):
        TrainerConfig(optimizer="sgd")
    with pytest.raises(ValueError, match="muon_learning_rate must be above 0"):
        TrainerConfig(muon_learning_rate=0.0)
    with pytest.raises(ValueError, match="needs a matrix"):
        Muon([{"params": [nn.Parameter(torch.ones(3))], "orthogonal": True}])
    weight = nn.Parameter(torch.ones(3, 2))
    with pytest.raises(ValueError, match="have 4 rows together, the matrix 3"):
        Muon([{"params": [weight], "orthogonal": True, "parts": (2, 2)}])
    with pytest.raises(ValueError, match="momentum must be at least 0"):
        Muon([{"params": [weight]}], momentum=1.0)
    with pytest.raises(ValueError, match="found no block"):
        build_optimizer(nn.Linear(2, 2), TrainerConfig(optimizer="muon"))


def test_a_divided_matrix_is_refused(tmp_path):
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        weight = nn.Parameter(distribute_tensor(torch.ones(4, 2), mesh, [Shard(0)]))
        with pytest.raises(ValueError, match="lies divided over processes"):
            Muon([{"params": [weight], "orthogonal": True}])
    finally:
        dist.destroy_process_group()


def test_planned_bytes_are_those_that_the_optimizer_keeps():
    from llm_from_scratch.training.planning.footprint import predict_footprint

    config = DecoderConfig.llama(vocab_size=V, context_length=T, d_model=12, num_layers=2, num_heads=3)
    model = Decoder(config)
    optimizer = build_optimizer(model, TrainerConfig(optimizer="muon"))
    ids = torch.randint(V, (2, T))
    model(ids, ids)[1].backward()
    optimizer.step()
    kept = sum(
        tensor.numel() * 4 for state in optimizer.state.values() for tensor in state.values() if tensor.dim()
    )
    assert predict_footprint(config, batch_size=2, optimizer="muon").optimizer == kept
    assert predict_footprint(config, batch_size=2).optimizer > kept
    with pytest.raises(ValueError, match="strategy fsdp divides them"):
        predict_footprint(config, batch_size=2, strategy="fsdp", processes=2, optimizer="muon")
