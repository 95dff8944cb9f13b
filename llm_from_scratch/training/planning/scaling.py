"""Fit scaling laws: how the loss falls with parameters and tokens, and how to divide operations among them.

Two ways of Hoffmann et al. 2022: parabolas through runs of equal cost (their approach 2, `isoflop_fit`), and
one formula for all runs (approach 3, `fit_law`). `bootstrap` gives each an interval.

Legend: R runs, S fits side by side, P = 5 numbers of the formula.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

HUBER = 1e-3  # of a difference of log losses: up to here it counts squared, beyond it linearly


@dataclass(frozen=True, kw_only=True)
class ScalingLaw:
    """``L(N, D) = E + A / N^a + B / D^b``, in nats a token.

    >>> law = ScalingLaw(E=1.69, A=406.4, a=0.34, B=410.7, b=0.28)  # Hoffmann et al. 2022, section D.3
    >>> round(law.exponent, 2)  # of the best number of parameters in the operations
    0.45
    >>> round(float(law(70e9, 1.4e12)), 2)  # Chinchilla
    1.94
    """

    E: float  # what remains for an endless model on endless data
    A: float  # of the term that more parameters remove
    a: float  # its exponent
    B: float  # of the term that more tokens remove
    b: float  # its exponent

    def __call__(self, parameters: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return the loss that the law predicts."""
        return self.E + self.A / np.power(parameters, self.a) + self.B / np.power(tokens, self.b)

    @property
    def exponent(self) -> float:
        """That of ``N_best ~ C^exponent`` where the cost is ``C = k N D``: ``b / (a + b)``."""
        return self.b / (self.a + self.b)

    def best_parameters(self, flops: np.ndarray, *, flops_per_parameter: float = 6.0) -> np.ndarray:
        """Return the N of the lowest loss at ``C = k N D`` operations, k being ``flops_per_parameter``.

        Formula: ``N = G (C / k)^(b / (a + b))`` with ``G = (a A / (b B))^(1 / (a + b))``.
        """
        factor = (self.a * self.A / (self.b * self.B)) ** (1 / (self.a + self.b))
        return factor * np.power(np.asarray(flops) / flops_per_parameter, self.exponent)


def fit_law(
    parameters: np.ndarray, tokens: np.ndarray, losses: np.ndarray, *, start: ScalingLaw | None = None
) -> ScalingLaw:
    """Fit the law to runs, by the Huber loss between the logarithms of measured and predicted losses.

    The search starts at 27 places and keeps the best end, since the sum has several valleys; or at
    ``start`` alone, which is faster where an answer nearby is known.
    Raises: ValueError for fewer than six runs, unequal lengths, and numbers that are not above 0.
    Source: Hoffmann et al. 2022, section 3.3.
    Departure: Gauss-Newton steps with damping instead of L-BFGS.
    """
    runs = [np.asarray(values, dtype=float) for values in (parameters, tokens, losses)]
    if len({run.shape for run in runs}) != 1 or runs[0].ndim != 1 or len(runs[0]) < 6:
        raise ValueError(
            "a law has five numbers: give lists of equal length, of six runs or more, got "
            f"{', '.join(str(run.shape) for run in runs)}"
        )
    if not all((run > 0).all() and np.isfinite(run).all() for run in runs):
        raise ValueError("parameters, tokens and losses must be above 0 and finite")
    n_R, d_R, y_R = (np.log(run) for run in runs)
    starts_SP = _starts(n_R, d_R, y_R) if start is None else _place(start, n_R, d_R)
    theta_SP = _descend(starts_SP, n_R, d_R, y_R)
    e, log_a, a, log_b, b = theta_SP[np.argmin(_distance(theta_SP, n_R, d_R, y_R))]
    return ScalingLaw(
        E=float(np.exp(e)),
        A=float(np.exp(log_a + a * n_R.mean())),
        a=float(a),
        B=float(np.exp(log_b + b * d_R.mean())),
        b=float(b),
    )


def isoflop_fit(
    budgets: np.ndarray, parameters: np.ndarray, losses: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a parabola in ``log N`` to the runs of each budget.

    Returns the budgets that have a lowest point, ascending; the N there; and the parabolas' coefficients.
    A budget is left out if its parabola opens downwards, or its lowest point lies outside the sizes tried.
    Raises: ValueError if no budget has three sizes or more.
    Source: Hoffmann et al. 2022, section 3.2.
    """
    budgets, log_n = np.asarray(budgets), np.log(np.asarray(parameters, dtype=float))
    losses, found, tried = np.asarray(losses), [], False
    for budget in np.unique(budgets):
        own = budgets == budget
        if len(np.unique(log_n[own])) < 3:
            continue
        tried = True
        square, slope, constant = np.polyfit(log_n[own], losses[own], 2)
        lowest = -slope / (2 * square)
        if square > 0 and log_n[own].min() <= lowest <= log_n[own].max():
            found.append((budget, np.exp(lowest), (square, slope, constant)))
    if not tried:
        raise ValueError("no budget has runs of three sizes: a parabola needs three points")
    return (
        np.array([budget for budget, _, _ in found]),
        np.array([best for _, best, _ in found]),
        np.array([curve for _, _, curve in found]).reshape(-1, 3),
    )


def power_law(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return factor and exponent of ``y = factor x^exponent``, by least squares of the logarithms.

    >>> factor, exponent = power_law(np.array([1.0, 10.0, 100.0]), np.array([2.0, 20.0, 200.0]))
    >>> round(factor, 6), round(exponent, 6)
    (2.0, 1.0)
    """
    exponent, constant = np.polyfit(np.log(x), np.log(y), 1)
    return float(np.exp(constant)), float(exponent)


def bootstrap(
    statistic: Callable[[np.ndarray], float], num_runs: int, *, draws: int = 200, seed: int = 0
) -> np.ndarray:
    """Return ``statistic(indices)`` for ``draws`` sets of runs drawn with replacement, sorted.

    A draw for which the statistic cannot be computed (a ValueError, or not finite) is drawn anew.
    Raises: ValueError if nine of ten draws fail.
    """
    rng, values = np.random.default_rng(seed), []
    for _ in range(10 * draws):
        try:
            value = statistic(rng.integers(num_runs, size=num_runs))
        except (ValueError, np.linalg.LinAlgError):
            continue
        if np.isfinite(value):
            values.append(value)
        if len(values) == draws:
            return np.sort(values)
    raise ValueError(f"only {len(values)} of {10 * draws} draws could be computed: there are too few runs")


def _starts(n_R: np.ndarray, d_R: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    """Return starting places: both exponents and E on a grid, A and B so that the middle run fits."""
    lowest, middle = np.exp(y_R.min()), np.exp(np.median(y_R))
    return np.array(
        [
            (np.log(share * lowest), half := np.log((middle - share * lowest) / 2), a, half, b)
            for share in (0.3, 0.6, 0.9)
            for a in (0.2, 0.5, 0.9)
            for b in (0.2, 0.5, 0.9)
        ]
    )


def _place(law: ScalingLaw, n_R: np.ndarray, d_R: np.ndarray) -> np.ndarray:
    """Return a law's numbers as the search moves them."""
    log_a, log_b = np.log(law.A) - law.a * n_R.mean(), np.log(law.B) - law.b * d_R.mean()
    return np.array([(np.log(law.E), log_a, law.a, log_b, law.b)])


def _terms(theta_SP: np.ndarray, n_R: np.ndarray, d_R: np.ndarray) -> np.ndarray:
    """Return the logarithms of the law's three terms; N and D are measured from their geometric means."""
    e, log_a, a, log_b, b = (column[:, None] for column in theta_SP.T)
    rows = (e + 0 * n_R, log_a - a * (n_R - n_R.mean()), log_b - b * (d_R - d_R.mean()))
    return np.stack(rows)


def _distance(theta_SP: np.ndarray, n_R: np.ndarray, d_R: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    """Return each fit's Huber loss."""
    size_SR = np.abs(np.logaddexp.reduce(_terms(theta_SP, n_R, d_R)) - y_R)
    huber_SR = np.where(size_SR <= HUBER, size_SR**2 / 2, HUBER * (size_SR - HUBER / 2))
    return huber_SR.sum(1)


def _descend(theta_SP: np.ndarray, n_R: np.ndarray, d_R: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    """Take damped Gauss-Newton steps, all fits side by side, until the best one hardly improves."""
    damping_S = np.full(len(theta_SP), 1e-2)
    distance_S = _distance(theta_SP, n_R, d_R, y_R)
    lowest = np.inf
    for turn in range(300):
        terms = _terms(theta_SP, n_R, d_R)
        total_SR = np.logaddexp.reduce(terms)
        share_e, share_a, share_b = np.exp(terms - total_SR)
        jacobian_SRP = np.stack(
            [share_e, share_a, -share_a * (n_R - n_R.mean()), share_b, -share_b * (d_R - d_R.mean())], axis=-1
        )
        error_SR = total_SR - y_R
        weight_SR = HUBER / np.maximum(np.abs(error_SR), HUBER)
        weighted = jacobian_SRP * weight_SR[..., None]
        hessian_SPP = np.swapaxes(weighted, 1, 2) @ jacobian_SRP
        gradient_SP = (weighted * error_SR[..., None]).sum(1)
        ridge = damping_S[:, None, None] * (np.eye(5) * hessian_SPP + 1e-9 * np.eye(5))
        step_SP = np.linalg.solve(hessian_SPP + ridge, gradient_SP[..., None])[..., 0]
        tried_SP = theta_SP - np.clip(step_SP, -1.0, 1.0)
        tried_S = _distance(tried_SP, n_R, d_R, y_R)
        better_S = tried_S < distance_S
        theta_SP = np.where(better_S[:, None], tried_SP, theta_SP)
        distance_S = np.where(better_S, tried_S, distance_S)
        damping_S = np.clip(np.where(better_S, damping_S / 3, damping_S * 4), 1e-9, 1e6)
        if turn % 20 == 0:
            if distance_S.min() > 0.9999 * lowest:
                break
            lowest = distance_S.min()
    return theta_SP
