"""What the configs of all models share: checks of their fields, and the way back from a dictionary."""

from dataclasses import MISSING, fields
from typing import Any, TypeVar

Config = TypeVar("Config")


def check_size(name: str, value: Any) -> None:
    """Raise ValueError unless ``value`` is a positive whole number.

    >>> check_size("num_layers", 0)
    Traceback (most recent call last):
    ...
    ValueError: num_layers=0 must be a positive whole number
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive whole number")


def check_pairs(d_model: int) -> None:
    """Raise ValueError unless the width fits sinusoidal positions."""
    if d_model % 2:
        raise ValueError(
            f"d_model={d_model} is odd, and sinusoidal positions are pairs of sine and cosine; "
            f"choose {d_model + 1}"
        )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {choices}")


def check_dropout(value: Any) -> None:
    """Raise ValueError unless ``value`` is a probability below 1."""
    if not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
        raise ValueError(f"dropout={value!r} must lie in [0, 1); 0.0 turns it off")


def check_positive(name: str, value: Any) -> None:
    """Raise ValueError unless ``value`` is a positive, finite number."""
    if not isinstance(value, (int, float)) or not 0.0 < value < float("inf"):
        raise ValueError(f"{name}={value!r} must be a positive number")


def check_heads_share(d_model: int, num_heads: int) -> None:
    """Raise ValueError unless the columns of the model can be shared evenly by the heads."""
    if d_model % num_heads:
        raise ValueError(
            f"d_model={d_model} is not divisible by num_heads={num_heads}; "
            f"for example d_model={-(-d_model // num_heads) * num_heads} is"
        )


def config_from_dict(cls: type[Config], values: dict[str, Any], what: str) -> Config:
    """Build the config ``cls`` from its fields; ``what`` names the model in errors, as in "a decoder".

    Raises: ValueError for unknown or missing fields.
    """
    known = [field.name for field in fields(cls)]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"unknown fields {unknown} for {what}; the fields are {known}")
    required = [f.name for f in fields(cls) if f.default is MISSING]
    if missing := [name for name in required if name not in values]:
        raise ValueError(f"{what}'s config lacks {missing}; it has {sorted(values)}")
    return cls(**values)
