"""Plans say what is predicted and what is assumed, and the comparison with published figures can fail."""

from dataclasses import replace

import pytest

from llm_from_scratch.models.decoder_config import DecoderConfig
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.planning import DEVICES, device_named, make_plan, report, with_price
from llm_from_scratch.training.planning.check import MISSES, compare, deviation, main
from llm_from_scratch.training.planning.published import PUBLISHED
from llm_from_scratch.training.planning.speed import tokens_per_second, training_flops_per_token

GPT2 = DecoderConfig.gpt2(
    vocab_size=50257, context_length=1024, d_model=768, num_layers=12, num_heads=12, bias=False
)
TRAINING = TrainerConfig(steps=1000, batch_size=64, accumulate=5)


def plan_of(**changes):
    settings = {"devices": 8, "strategy": "ddp", **changes}
    return make_plan("gpt2", GPT2, TRAINING, settings.pop("device", device_named("h100")), **settings)


def test_operations_are_six_a_number_and_twelve_for_attention():
    C, L, V, T = 768, 12, 50257, 1024
    assert training_flops_per_token(GPT2) == 6 * (12 * L * C * C + V * C) + 12 * L * C * T


def test_speed_duration_and_cost_follow_from_each_other():
    plan = plan_of(mfu=0.5)
    tokens = 1000 * 64 * 5 * 1024
    rate = 0.5 * 8 * 989.5e12 / training_flops_per_token(GPT2)
    assert plan.speed.tokens_per_second == pytest.approx(rate)
    assert plan.speed.seconds == pytest.approx(tokens / rate)
    assert plan.speed.cost == pytest.approx(8 * 3.99 * tokens / rate / 3600)
    assert plan_of(mfu=0.5, recompute=True).speed == plan.speed
    assert plan_of(recompute=True).mfu == pytest.approx(0.3)


def test_ddp_counts_one_processs_rows():
    alone = make_plan("gpt2", GPT2, replace(TRAINING, batch_size=8), device_named("h100"))
    assert plan_of().footprint.activations == alone.footprint.activations


def test_the_report_labels_predictions_and_lists_every_assumption():
    text = report(plan_of(device=with_price(device_named("a100"), 1.25), mfu=0.35))
    predicted, assumed = text.split("\nAssumed\n")
    assert predicted.count("Predicted ") == 2
    for word in (
        "parameters",
        "gradients",
        "optimizer",
        "buckets",
        "activations",
        "logits",
        "tokens a second",
    ):
        assert word in predicted
    for word in ("35%", "3.12e+14", "data sheet (2021)", "$1.25", "--price", "80 GB", "90%", "not counted"):
        assert word in assumed
    assert "GB usable: fits" in predicted
    large = make_plan("gpt2", GPT2, replace(TRAINING, batch_size=512), device_named("l4"))
    assert "DOES NOT FIT" in report(large)
    assert "no price known" in report(plan_of(device=device_named("l4")))


def test_each_device_has_a_source():
    for device in DEVICES.values():
        assert device.source
        assert device.price is None or "read 20" in device.price_source
    names = {"a100-40gb", "a100", "h100", "h200", "b200", "l4", "rtx4090", "cpu"}
    assert set(DEVICES) == names


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: device_named("tpu"), "no device is called 'tpu'; there are a100-40gb, a100"),
        (lambda: with_price(device_named("h100"), -1.0), "price must be 0 or more"),
        (lambda: plan_of(mfu=1.2), "mfu is a share of the peak"),
        (lambda: plan_of(devices=7), "batch_size 64 does not divide among 7 processes"),
        (lambda: tokens_per_second(GPT2, device_named("h100"), mfu=0.4, devices=0), "devices must be 1"),
    ],
)
def test_mistakes_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_published_figures_lie_where_they_are_said_to(capsys):
    assert main([]) == 0
    assert f"{len(PUBLISHED) - len(MISSES)} of {len(PUBLISHED)} within 15%" in capsys.readouterr().out
    assert all(abs(deviation(entry)) > 0.15 for entry in PUBLISHED if entry.what in MISSES)


def test_the_comparison_can_fail():
    entry = next(entry for entry in PUBLISHED if entry.what.startswith("Llama 3 8B"))
    assert compare((entry,), misses={})[1]
    for factor in (0.8, 1.25):
        table, expected = compare((replace(entry, published=entry.published * factor),), misses={})
        assert not expected
        assert "OUTSIDE" in table
    assert not compare((entry,), misses={entry.what: "a miss that is none"})[1]
    assert main(["--tolerance", "0.01"]) == 1
