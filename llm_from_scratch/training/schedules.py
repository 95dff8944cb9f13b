"""The learning rate as a function of the optimizer step."""

import math


def warmup_cosine(step: int, *, peak: float, floor: float, warmup_steps: int, total_steps: int) -> float:
    r"""Return the learning rate of optimizer step ``step``: a straight rise, then half a cosine down.

    Formula, with step s counted from 0, w = ``warmup_steps`` and n = ``total_steps``:
    peak (s + 1) / w while s < w, so that no step is wasted at rate 0; then
    floor + (peak - floor) (1 + cos(pi t)) / 2 with t = (s - w) / (n - 1 - w), so that the last
    step of the run, s = n - 1, is taken at exactly ``floor``; ``floor`` ever after.
    Units: steps are optimizer steps; ``peak`` and ``floor`` are learning rates.
    Raises: ValueError if the step is negative, or the warm-up does not fit into the run.
    Source: Loshchilov and Hutter 2017 (SGDR), equation 5, one cycle; the linear warm-up is
    Goyal et al. 2017, section 2.2.
    Departure: the usual cosine reaches its floor one step after the run has ended.

    >>> [round(warmup_cosine(s, peak=1.0, floor=0.0, warmup_steps=2, total_steps=5), 3) for s in range(6)]
    [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    if step < 0:
        raise ValueError(f"step must be 0 or more, got {step}")
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"warmup_steps must lie between 0 and total_steps={total_steps}, got {warmup_steps}; "
            "shorten the warm-up or lengthen the run"
        )
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    decay_steps = max(total_steps - 1 - warmup_steps, 1)
    progress = min((step - warmup_steps) / decay_steps, 1.0)
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
