"""Fifty steps of a small model end at the loss that was recorded when this was known to work."""

import pytest

from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.seeding import seed_everything
from tests.training.conftest import T, V, tiny_trainer

# Recorded with torch 2.13 on an x86 CPU, one thread. With two threads, and with torch's kernels for CPUs
# without AVX (ATEN_CPU_CAPABILITY=default), the loss moved by less than 1e-7. The mistakes below it move
# it by 0.002 and more.
BAND = 1e-3
GOLDEN = {"gpt2": 1.34756, "llama": 1.09688}


def last_loss(folder, family, **changes):
    seed_everything(11)
    build = {"gpt2": DecoderConfig.gpt2, "llama": DecoderConfig.llama}[family]
    kv_heads = {"num_kv_heads": 1} if family == "llama" else {}
    model = Decoder(build(vocab_size=V, context_length=T, d_model=24, num_layers=2, num_heads=3, **kv_heads))
    settings = {"steps": 50, "eval_every": 50, "learning_rate": 5e-3, "weight_decay": 0.1, **changes}
    trainer = tiny_trainer(folder, model=model, **settings)
    trainer.fit()
    return trainer.log.read()[-1]["val_loss"]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_golden_loss(tmp_path, family):
    assert last_loss(tmp_path, family) == pytest.approx(GOLDEN[family], abs=BAND)


@pytest.mark.parametrize(
    "mistake",
    [
        {"learning_rate": 3e-3},
        {"warmup_fraction": 0.0},
        {"weight_decay": 0.0},
        {"accumulate": 2},
        {"final_fraction": 1.0},
        {"beta2": 0.5},
    ],
    ids=lambda mistake: next(iter(mistake)),
)
def test_the_band_notices_a_changed_recipe(tmp_path, mistake):
    assert abs(last_loss(tmp_path, "llama", **mistake) - GOLDEN["llama"]) > BAND
