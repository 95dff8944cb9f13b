"""The mean of weights: against torch's own averaged model, and where it ends on the line between two."""

import pytest
import torch

from llm_from_scratch.finetuning.averaging import average_files, average_weights
from llm_from_scratch.training.weights import load_weights, weights_as_bytes
from tests.finetuning.conftest import tiny_classifier


def test_parity_with_torchs_averaged_model():
    models = [tiny_classifier(seed=seed) for seed in range(3)]
    theirs = torch.optim.swa_utils.AveragedModel(models[0])
    for model in models:
        theirs.update_parameters(model)
    ours = average_weights([model.state_dict() for model in models])
    for name, value in theirs.module.state_dict().items():
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=1e-6)


def test_the_mean_of_files_opens_in_the_model():
    models = [tiny_classifier(seed=seed) for seed in range(2)]
    mean = average_files([weights_as_bytes(model) for model in models])
    models[0].load_state_dict(mean)
    copy = tiny_classifier(seed=5)
    load_weights(copy, weights_as_bytes(models[0]))
    torch.testing.assert_close(copy.head.weight, mean["head.weight"])


def test_shares_lead_from_one_model_to_the_other():
    one, two = {"w": torch.tensor([1.0, 5.0])}, {"w": torch.tensor([3.0, -3.0])}
    for a in (0.0, 0.25, 1.0):
        mean = average_weights([one, two], shares=(1 - a, a))
        torch.testing.assert_close(mean["w"], torch.lerp(one["w"], two["w"], a))
    assert torch.equal(average_weights([one, two], shares=(5, 5))["w"], average_weights([one, two])["w"])


def test_half_precision_is_summed_in_double_and_whole_numbers_are_kept():
    states = [{"w": torch.tensor([60000.0]).half(), "n": torch.tensor(7)} for _ in range(3)]
    mean = average_weights(states)
    assert (mean["w"].dtype, float(mean["w"]), mean["n"].item()) == (torch.float16, 60000.0, 7)


def test_mistakes_are_named():
    w = {"w": torch.ones(2)}
    with pytest.raises(ValueError, match="no state"):
        average_weights([])
    with pytest.raises(ValueError, match="state 1 is of another model than state 0: v is missing"):
        average_weights([w, {"v": torch.ones(2)}])
    with pytest.raises(ValueError, match="w is missing or has another shape"):
        average_weights([w, {"w": torch.ones(1)}])
    for shares in ((1,), (1, -1), (0, 0)):
        with pytest.raises(ValueError, match="shares must be 2 numbers"):
            average_weights([w, w], shares=shares)
    with pytest.raises(ValueError, match="file 0 is damaged"):
        average_files([b"nothing"])
