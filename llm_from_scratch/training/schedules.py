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


def warmup_stable_decay(
    step: int, *, peak: float, floor: float, warmup_steps: int, decay_steps: int, total_steps: int
) -> float:
    r"""Return the learning rate of optimizer step ``step``: a straight rise, a plateau, a short fall.

    Formula, with step s counted from 0, w = ``warmup_steps``, d = ``decay_steps``, n = ``total_steps``:
    peak (s + 1) / w while s < w; then ``peak`` while s < n - d; then floor + (peak - floor) (1 - sqrt(t))
    with t = (s + 1 - (n - d)) / d, so that the last step, s = n - 1, is taken at exactly ``floor``;
    ``floor`` ever after. The steps before the fall do not depend on n: a run can be prolonged, and one
    plateau serves runs of several lengths.
    Units: steps are optimizer steps; ``peak`` and ``floor`` are learning rates.
    Raises: ValueError if the step is negative, or warm-up and decay do not fit into the run.
    Source: Hu et al. 2024 (MiniCPM), section 4.1; the square root is Hägele et al. 2024, section 3.

    >>> settings = {"peak": 1.0, "floor": 0.0, "warmup_steps": 2, "decay_steps": 4, "total_steps": 8}
    >>> [round(warmup_stable_decay(s, **settings), 2) for s in range(9)]
    [0.5, 1.0, 1.0, 1.0, 0.5, 0.29, 0.13, 0.0, 0.0]
    """
    if step < 0:
        raise ValueError(f"step must be 0 or more, got {step}")
    if warmup_steps < 0 or decay_steps < 0 or warmup_steps + decay_steps > total_steps:
        raise ValueError(
            f"warmup_steps={warmup_steps} and decay_steps={decay_steps} must be 0 or more and together at "
            f"most total_steps={total_steps}; shorten them or lengthen the run"
        )
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if step < total_steps - decay_steps:
        return peak
    progress = min((step + 1 - (total_steps - decay_steps)) / max(decay_steps, 1), 1.0)
    return floor + (peak - floor) * (1.0 - math.sqrt(progress))
