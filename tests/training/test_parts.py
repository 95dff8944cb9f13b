"""Schedule, parameter groups, log, validation, precision, interrupts, progress, picture."""

import io
import itertools
import math
import signal
import xml.etree.ElementTree as ET

import pytest
import torch
from torch import nn

from llm_from_scratch.evaluation import evaluate
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.curve import save_loss_curve
from llm_from_scratch.training.interrupts import stop_requests
from llm_from_scratch.training.log import RunLog
from llm_from_scratch.training.optimizers import build_adamw, parameter_groups
from llm_from_scratch.training.precision import autocast, choose_device, choose_dtype, loss_scaler
from llm_from_scratch.training.progress import Progress
from llm_from_scratch.training.schedules import warmup_cosine, warmup_stable_decay
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.validation import NO_TARGET, mean_loss, validation_batches
from tests.training.conftest import T, made_up_tokens, tiny_model


def test_schedule_matches_torchs_cosine_after_the_warmup():
    total, warmup, peak, floor = 103, 13, 3e-3, 1e-4
    ours = [
        warmup_cosine(s, peak=peak, floor=floor, warmup_steps=warmup, total_steps=total) for s in range(total)
    ]
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=peak)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - 1 - warmup, eta_min=floor)
    for step in range(warmup, total):
        assert ours[step] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()
    assert ours[:warmup] == pytest.approx([peak * (s + 1) / warmup for s in range(warmup)])
    assert max(ours) == peak
    assert ours[-1] == pytest.approx(floor)


@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (1, 1), (5, 5), (0, 2)])
def test_schedule_of_the_shortest_runs_stays_in_range(warmup, total):
    rates = [
        warmup_cosine(s, peak=1.0, floor=0.1, warmup_steps=warmup, total_steps=total)
        for s in range(total + 3)
    ]
    assert all(0.1 <= rate <= 1.0 for rate in rates)


def test_schedule_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="step must be 0 or more"):
        warmup_cosine(-1, peak=1, floor=0, warmup_steps=0, total_steps=5)
    with pytest.raises(ValueError, match="warmup_steps must lie between 0 and total_steps=5, got 6"):
        warmup_cosine(0, peak=1, floor=0, warmup_steps=6, total_steps=5)


def test_plateau_does_not_depend_on_the_length_of_the_run():
    shape = {"peak": 3e-3, "floor": 1e-4, "warmup_steps": 7, "decay_steps": 11}
    short = [warmup_stable_decay(s, total_steps=31, **shape) for s in range(33)]
    long = [warmup_stable_decay(s, total_steps=101, **shape) for s in range(101)]
    assert short[:20] == long[:20]
    assert set(long[6:90]) == {3e-3}
    assert short[20:32] == pytest.approx([*long[90:], 1e-4])
    assert short[30:] == pytest.approx([1e-4] * 3)
    assert all(a > b for a, b in itertools.pairwise(short[19:31]))


def test_a_run_may_choose_the_plateau():
    config = TrainerConfig(steps=50, schedule="wsd", learning_rate=1.0, warmup_fraction=0.1, final_fraction=0)
    rates = [config.learning_rate_at(step) for step in range(50)]
    assert rates[4:40] == [1.0] * 36
    assert rates[-1] == 0.0
    assert TrainerConfig(steps=1, schedule="wsd").learning_rate_at(0) == pytest.approx(1e-3)
    for steps in range(1, 30):  # rounded shares fit into any run
        edges = TrainerConfig(steps=steps, schedule="wsd", warmup_fraction=0.5, decay_fraction=0.5)
        assert all(0 < edges.learning_rate_at(step) <= 1e-3 for step in range(steps))
    with pytest.raises(ValueError, match="schedule must be cosine or wsd, got 'linear'"):
        TrainerConfig(schedule="linear")
    with pytest.raises(ValueError, match="more than 1 together"):
        TrainerConfig(schedule="wsd", warmup_fraction=0.9)
    with pytest.raises(ValueError, match="together at most total_steps=5"):
        warmup_stable_decay(0, peak=1, floor=0, warmup_steps=3, decay_steps=3, total_steps=5)


def test_groups_spare_gains_biases_and_embeddings():
    model = tiny_model()
    groups = {group["weight_decay"]: group["params"] for group in parameter_groups(model, weight_decay=0.1)}
    assert all(p.dim() == 2 for p in groups[0.1])
    spared = {id(p) for p in groups[0.0]}
    assert id(model.token_embedding.weight) in spared
    assert all(id(p) in spared for p in model.parameters() if p.dim() == 1)
    everything = sorted(id(p) for group in groups.values() for p in group)
    assert everything == sorted(id(p) for p in model.parameters())
    with_tables = parameter_groups(model, weight_decay=0.1, decay_embeddings=True)
    assert id(model.token_embedding.weight) in {id(p) for p in with_tables[0]["params"]}


def test_decay_shrinks_matrices_only():
    model = nn.Sequential(nn.Embedding(5, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    nn.init.ones_(model[2].bias)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_adamw(model, learning_rate=0.1, weight_decay=0.5)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    after = dict(model.named_parameters())
    torch.testing.assert_close(after["2.weight"], before["2.weight"] * (1 - 0.1 * 0.5))
    for name in ("0.weight", "1.weight", "1.bias", "2.bias"):
        assert torch.equal(after[name], before[name])


def test_a_model_without_trainable_parameters_is_refused():
    model = nn.Linear(3, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        build_adamw(model, learning_rate=0.1, weight_decay=0.0)


def test_log_survives_a_cut_at_every_byte(tmp_path):
    log = RunLog(tmp_path / "log.jsonl")
    for step in range(4):
        log.append({"step": step, "loss": 1.5})
    whole = log.path.read_bytes()
    line = len(whole) // 4
    for length in range(len(whole) + 1):
        log.path.write_bytes(whole[:length])
        kept = log.read()
        assert [r["step"] for r in kept] == list(range(len(kept)))
        assert len(kept) in (length // line, (length + 1) // line)  # the line end itself may be missing
        log.drop_after(1)
        log.append({"step": 9})
        assert [r["step"] for r in log.read()] == [*range(min(len(kept), 2)), 9]
    with pytest.raises(ValueError, match="JSON"):
        log.append({"step": 1, "loss": math.nan})


def test_validation_loss_is_the_evaluations_own():
    model, tokens = tiny_model(dropout=0.0), made_up_tokens(1 + 23 * T)
    batches = validation_batches(tokens.numpy(), context_length=T, batch_size=5)
    theirs = evaluate(model, tokens, stride=T)
    assert mean_loss(model, batches) == pytest.approx(theirs.nats_per_token, rel=1e-6)
    assert sum(int((targets != NO_TARGET).sum()) for _, targets in batches) == theirs.num_tokens == 23 * T


def test_validation_weighs_tokens_and_leaves_the_mode(tmp_path):
    model, tokens = tiny_model(dropout=0.5), made_up_tokens(173)
    (ids, targets), other = validation_batches(tokens.numpy(), context_length=T, batch_size=3)[:2]
    few = targets.clone()
    few[:, 1:] = NO_TARGET
    model.train()
    a, b = mean_loss(model, [(ids, few)]), mean_loss(model, [other])
    both = mean_loss(model, [(ids, few), (ids, torch.full_like(few, NO_TARGET)), other])
    assert both == pytest.approx((3 * a + 3 * T * b) / (3 + 3 * T), rel=1e-6)
    assert model.training
    with pytest.raises(ValueError, match="no batch has a target"):
        mean_loss(model, [])


def test_device_and_precision_name_what_is_missing():
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match='"cpu", "cuda" or "mps", got "tpu"'):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA GPU"):
            choose_device("cuda:1")
    if not torch.backends.mps.is_available():
        with pytest.raises(ValueError, match="no Apple GPU"):
            choose_device("mps")
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu) == torch.float32
    with pytest.raises(ValueError, match="float16 needs a CUDA GPU"):
        choose_dtype("float16", cpu)
    with pytest.raises(ValueError, match="one of float32, bfloat16, float16"):
        choose_dtype("int8", cpu)
    assert loss_scaler(cpu, torch.float32).is_enabled() is False
    with autocast(cpu, torch.float32):
        assert (torch.ones(2, 3) @ torch.ones(3, 2)).dtype == torch.float32


@pytest.fixture
def default_interrupt():
    """A process started in the background of a shell ignores SIGINT; here it has Python's handler."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.mark.usefixtures("default_interrupt")
def test_the_second_interrupt_acts_at_once_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_requests() as stop:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        assert stop.made
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with stop_requests() as stop:
        assert not stop.made
        signal.raise_signal(signal.SIGTERM)
        assert stop.made
    assert signal.getsignal(signal.SIGINT) is before


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_bar_on_a_terminal_and_rare_lines_elsewhere():
    record = {"step": 1, "loss": 2.5, "tokens_per_second": 100.0}
    plain, terminal, hidden = io.StringIO(), Terminal(), io.StringIO()
    for stream, shown in ((plain, True), (terminal, True), (hidden, False)):
        with Progress(total=5, stream=stream, shown=shown) as progress:
            for step in range(1, 6):
                progress.step({**record, "step": step, **({"val_loss": 2.25} if step == 5 else {})})
    line = "step 5 of 5   training loss 2.500   validation loss 2.250   100 tokens/s\n"
    assert plain.getvalue() == line
    assert line in terminal.getvalue()
    assert "5/5" in terminal.getvalue()
    assert hidden.getvalue() == ""


def test_the_loss_curve_is_the_same_svg_each_time_and_needs_something_to_draw(tmp_path):
    records = [
        {"step": 0, "val_loss": 3.0},
        {"step": 1, "loss": 2.5},
        {"step": 2, "loss": 2.0, "val_loss": 2.1},
    ]
    for name in ("a.svg", "b.svg"):
        save_loss_curve(records, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert ET.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    save_loss_curve([], tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


def test_seeds_out_of_range_are_refused():
    with pytest.raises(ValueError, match="seed must be between 0"):
        seed_everything(-1)
