"""Random numbers that can be started again and continued exactly."""

import torch


def seed_everything(seed: int) -> None:
    """Seed torch on every device. The package draws random numbers from nowhere else.

    >>> seed_everything(7); first = torch.rand(1)
    >>> seed_everything(7); bool(first == torch.rand(1))
    True
    """
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed must be between 0 and 2**63 - 1, got {seed}")
    torch.manual_seed(seed)  # seeds CUDA and MPS as well


def random_state() -> dict[str, object]:
    """Return the state of torch's generators, tensors that `torch.load(weights_only=True)` opens."""
    state: dict[str, object] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, object]) -> None:
    """Continue where ``random_state`` stood. A device that is no longer there is passed over.

    >>> before = random_state(); first = torch.rand(1)
    >>> restore_random_state(before); bool(first == torch.rand(1))
    True
    """
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
