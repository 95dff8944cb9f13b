"""Longer contexts for rotary positions: the frequencies of a trained model, changed so that it reads further.

A model has seen angles up to its training length times each frequency. Beyond it the slow pairs reach
angles that were never seen. Each kind of scaling slows pairs down so that longer texts stay inside.

Legend: F frequencies (pairs of columns), D columns that turn.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

KINDS = ("linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are changed, once the table of positions is made.

    Kinds, each with ``factor``, about how many times longer the texts become:

    - "linear": every frequency is divided by the factor.
    - "llama3": a pair that turns more than ``high_freq_factor`` times within ``original_length`` tokens
      stays, one that turns less than ``low_freq_factor`` times is divided, between them the two are mixed.
    - "yarn": the same idea, by place of the pair: those that turn ``beta_fast`` times stay, those that
      turn ``beta_slow`` times are divided, with a straight ramp between. Cosines and sines are multiplied
      by ``attention_factor``, so that scores are sharper in longer texts.
    - "dynamic": nothing changes within the context_length; beyond it the frequencies would depend on the
      length of the text. They never do here, since stored keys would not fit them, so such a model is
      read up to its context_length and no further.

    Raises: ValueError for an unknown kind and numbers out of range.
    Sources: Chen et al. 2023 (linear), Dubey et al. 2024, section 3.2, and the released code (llama3),
    Peng et al. 2023, section 3 (yarn). Where the texts leave room, the choices are those of
    `transformers`, whose configs this describes.

    >>> RopeScaling(kind="linear", factor=4.0).frequencies(torch.tensor([1.0, 0.1]), base=100.0).tolist()
    [0.25, 0.02500000...]
    """

    kind: str
    factor: float
    original_length: int | None = None  # tokens of the training texts; "llama3" and "yarn" need it
    low_freq_factor: float = 1.0  # turns within original_length
    high_freq_factor: float = 4.0  # turns within original_length
    beta_fast: float = 32.0  # turns within original_length
    beta_slow: float = 1.0  # turns within original_length
    attention_factor: float | None = None  # None: 0.1 ln(factor) + 1
    truncate: bool = True  # the ramp of "yarn" begins and ends at a whole pair

    def __post_init__(self):
        """Check; fill in what follows from the factor."""
        if self.kind not in KINDS:
            raise ValueError(f"the kind of rope scaling {self.kind!r} is unknown; choose one of {KINDS}")
        for name in ("factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"):
            _check_positive(name, getattr(self, name))
        if self.attention_factor is None:
            longer = self.kind == "yarn" and self.factor > 1.0
            object.__setattr__(self, "attention_factor", 0.1 * math.log(self.factor) + 1.0 if longer else 1.0)
        _check_positive("attention_factor", self.attention_factor)
        if self.kind != "yarn" and self.attention_factor != 1.0:
            raise ValueError(f"attention_factor={self.attention_factor} belongs to 'yarn' alone")
        if self.kind in ("llama3", "yarn") and (
            type(self.original_length) is not int or self.original_length < 1
        ):
            raise ValueError(
                f"{self.kind!r} needs original_length, the tokens that the model was trained on, "
                f"got {self.original_length!r}"
            )
        if not self.low_freq_factor < self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor={self.low_freq_factor} must be below "
                f"high_freq_factor={self.high_freq_factor}"
            )
        if not self.beta_slow <= self.beta_fast:
            raise ValueError(f"beta_slow={self.beta_slow} must not exceed beta_fast={self.beta_fast}")

    def frequencies(self, freqs_F: Float[Tensor, "F"], *, base: float) -> Float[Tensor, "F"]:
        """The changed frequencies, in radians a token, from the plain ones of the given base."""
        if self.kind == "linear":
            return freqs_F / self.factor
        if self.kind == "llama3":
            turns_F = self.original_length * freqs_F / (2 * math.pi)
            span = self.high_freq_factor - self.low_freq_factor
            keep_F = ((turns_F - self.low_freq_factor) / span).clamp(0, 1)
        elif self.kind == "yarn":
            keep_F = 1 - self._ramp(len(freqs_F), base).to(freqs_F.device)
        else:
            return freqs_F
        return keep_F * freqs_F + (1 - keep_F) * freqs_F / self.factor

    def _ramp(self, F: int, base: float) -> Float[Tensor, "F"]:
        """How far each pair is from staying (0) towards being divided (1)."""
        if not base > 1.0:
            raise ValueError(f"'yarn' needs a rotary base above 1, got {base}")

        def place(turns: float) -> float:  # of the pair that turns so often within original_length
            return 2 * F * math.log(self.original_length / (turns * 2 * math.pi)) / (2 * math.log(base))

        start, end = place(self.beta_fast), place(self.beta_slow)
        if self.truncate:
            start, end = math.floor(start), math.ceil(end)
        start, end = max(start, 0), min(end, 2 * F - 1)
        width = end - start if end != start else 0.001
        return ((torch.arange(F, dtype=torch.float32) - start) / width).clamp(0, 1)


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < math.inf:
        raise ValueError(f"{name} of rope scaling must be a positive number, got {value!r}")
