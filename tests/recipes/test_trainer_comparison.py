"""Our Trainer and that of transformers: equal losses, and a difference in the settings shows."""

import os

import pytest

from llm_from_scratch.recipes.trainer_comparison import compare_trainers
from llm_from_scratch.training.trainer import TrainerConfig

SMALL = TrainerConfig(
    steps=4, batch_size=2, accumulate=2, learning_rate=1e-3, warmup_fraction=0.5, weight_decay=0.1,
    decay_embeddings=True, eval_every=4, precision="float32", device="cpu", seed=3,
)  # fmt: skip
YEARS = (1999, 2000)


@pytest.mark.parametrize(("theirs", "equal"), [({}, True), ({"adam_beta2": 0.999}, False)])
def test_losses_agree_unless_a_setting_differs(theirs, equal, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = compare_trainers(years=YEARS, config=SMALL, theirs=theirs)
    assert len(found.ours) == len(found.theirs) == 4
    assert 3.5 < found.ours[0] < 5.5  # a trained model: a uniform guess costs 8.3
    if equal:
        assert found.largest_difference <= 1e-5
        # AdamW divides by the size of the gradient: where that is nearly 0, rounding is magnified.
        assert found.largest_weight_difference <= 0.05 * found.largest_weight_change
    else:
        assert found.largest_difference > 3e-5
        assert found.largest_weight_difference > 0.08 * found.largest_weight_change
    assert found.largest_weight_change > 1e-3
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == []
