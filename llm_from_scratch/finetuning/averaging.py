"""One model out of several: the mean of their weights.

Three uses, one sum. Several checkpoints of one run: stochastic weight averaging (Izmailov et al. 2018).
Several runs from one pretrained model: a model soup (Wortsman et al. 2022a). The pretrained and the tuned
model: WiSE-FT (Wortsman et al. 2022b). All suppose that the models lie in one valley of the loss, which
models with a common beginning often do and models trained from different random weights do not.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from llm_from_scratch.training.weights import read_weights


def average_weights(
    states: Sequence[Mapping[str, Tensor]], *, shares: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """Return the mean of several states of one model, name by name.

    Formula: ``sum_i shares_i theta_i / sum_i shares_i``; without ``shares`` each counts the same. The sum
    is taken in float64, and the result has the number format of the first state. Whole numbers (a step
    counter) are taken from the first state. Two states with the shares ``(1 - a, a)`` are WiSE-FT's
    interpolation with the coefficient a.
    Raises: ValueError for no state, states of other names or shapes, shares of another number, negative or
    all zero.

    >>> average_weights([{"w": torch.tensor([0.0, 4.0])}, {"w": torch.tensor([2.0, 0.0])}])
    {'w': tensor([1., 2.])}
    >>> average_weights([{"w": torch.zeros(1)}, {"w": torch.ones(1)}], shares=(3, 1))
    {'w': tensor([0.2500])}
    """
    if not states:
        raise ValueError("there is no state to average: give at least one")
    shares = [1.0] * len(states) if shares is None else [float(share) for share in shares]
    if len(shares) != len(states) or min(shares) < 0 or sum(shares) <= 0:
        raise ValueError(
            f"shares must be {len(states)} numbers, one a state, none negative and not all 0, got {shares}"
        )
    first = states[0]
    for number, state in enumerate(states[1:], start=1):
        different = first.keys() ^ state.keys()
        different |= {name for name in first.keys() & state.keys() if first[name].shape != state[name].shape}
        if different:
            raise ValueError(
                f"state {number} is of another model than state 0: {sorted(different)[0]} is missing or has "
                "another shape; only the weights of one architecture have a mean"
            )
    return {name: _mean([state[name] for state in states], shares) for name in first}


def average_files(contents: Sequence[bytes], **settings: Sequence[float] | None) -> dict[str, Tensor]:
    """The same, of safetensors files, such as the checkpoints of a run.

    Raises: as `average_weights` does; ValueError for bytes that are no safetensors.

    >>> from llm_from_scratch.training.weights import weights_as_bytes
    >>> one, two = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    >>> mean = average_files([weights_as_bytes(one), weights_as_bytes(two)])
    >>> torch.allclose(mean["bias"], (one.bias + two.bias) / 2)
    True
    """
    sources = [read_weights(content, origin=f"file {i}") for i, content in enumerate(contents)]
    return average_weights([source.tensors for source in sources], **settings)


def _mean(tensors: list[Tensor], shares: list[float]) -> Tensor:
    if not tensors[0].is_floating_point():
        return tensors[0].clone()
    total = sum(share * tensor.to(torch.float64) for share, tensor in zip(shares, tensors, strict=True))
    return (total / sum(shares)).to(tensors[0].dtype)
