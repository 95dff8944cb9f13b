"""Muon: momentum whose matrix is made orthogonal before it is subtracted; AdamW for everything else.

Legend: M rows and N columns of a matrix, X any number of matrices side by side.
"""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.adamw import adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of one Newton-Schulz step: s -> a s + b s^3 + c s^5
NS_STEPS = 5


def newton_schulz(matrix_XMN: Float[Tensor, "*X M N"], steps: int = NS_STEPS) -> Float[Tensor, "*X M N"]:
    """Push all singular values of a matrix towards 1 and leave its singular vectors as they are.

    Formula: ``Y = G / |G|`` (Frobenius norm, so that no singular value exceeds 1), then ``steps`` times
    ``Y <- a Y + (b A + c A^2) Y`` with ``A = Y Y^T``. Since ``Y = U S V^T`` gives ``A = U S^2 U^T``, a
    step maps each singular value s to ``a s + b s^3 + c s^5`` and touches neither U nor V.

    The coefficients are chosen for the slope at 0, so that small values rise fast; they do not converge.
    After five steps values that began above about 0.005 lie between 0.68 and 1.14, which serves as
    well as 1 (Jordan et al.).
    The product ``Y Y^T`` is taken over the shorter side. A matrix of zeros stays one.
    Raises: ValueError for fewer than two axes, or fewer than one step.
    Source: Jordan et al. 2024 (Muon: An optimizer for hidden layers in neural networks).
    Departure: they compute in bfloat16; here in the format of the matrix, which is faster on a CPU.

    >>> torch.manual_seed(0) and torch.linalg.svdvals(newton_schulz(torch.randn(3, 5))).round(decimals=1)
    tensor([1.1..., 0.9..., 0.7...])
    """
    if matrix_XMN.dim() < 2 or steps < 1:
        raise ValueError(
            f"newton_schulz takes matrices and at least 1 step, got the shape {tuple(matrix_XMN.shape)} and "
            f"{steps} steps; a vector has no singular values to even out"
        )
    a, b, c = COEFFICIENTS
    tall = matrix_XMN.shape[-2] > matrix_XMN.shape[-1]
    y = matrix_XMN.mT if tall else matrix_XMN
    y = y / torch.linalg.matrix_norm(y, keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = y @ y.mT
        y = a * y + (b * gram + c * gram @ gram) @ y
    return y.mT if tall else y


class Muon(torch.optim.Optimizer):
    """Take orthogonal steps for hidden matrices, and AdamW's for embeddings, output layer and gains.

    Formula, for a matrix's gradient G, learning rate r, decay d, momentum u:
    ``m = u m + (1 - u) G``; ``O = newton_schulz((1 - u) G + u m)`` (Nesterov's look ahead);
    ``W = (1 - r d) W - r sqrt(max(1, M / N)) O``.
    A plain momentum step is dominated by the few directions in which the gradient is large. O has the
    same directions, each about equally long, so a step changes what the layer does to every input by
    about r, whatever the gradient's size. The root keeps the change of one output column alike in tall
    and wide matrices.

    Arguments: ``groups`` as for any optimizer. A group with ``"orthogonal": True`` holds matrices; its
    ``"parts"``, if given, are numbers of rows into which each is cut first, so that queries, keys and
    values, which share one matrix here, become orthogonal each by itself. The other groups take AdamW's
    steps (``betas``, ``eps``). ``momentum`` is u, the share of the old average kept at a step.
    Memory: one number for each number of a matrix, where AdamW keeps two.
    Raises: ValueError for a vector in an orthogonal group, parts that are not its rows, or matrices that
    lie divided over processes (orthogonality is a property of the whole matrix).
    Source: Jordan et al. 2024; which parameters: the same, section on empirical considerations.

    >>> weight = torch.nn.Parameter(torch.zeros(2, 2))
    >>> optimizer = Muon([{"params": [weight], "orthogonal": True}], lr=0.1)
    >>> weight.grad = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
    >>> optimizer.step()
    >>> bool(weight[0, 0] < -0.06) and weight[0, 1].item() == 0.0
    True
    """

    def __init__(
        self,
        groups: Iterable[dict[str, object]],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        ns_steps: int = NS_STEPS,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, got {momentum}")
        defaults = {
            "lr": lr, "momentum": momentum, "weight_decay": weight_decay, "betas": betas, "eps": eps,
            "ns_steps": ns_steps, "orthogonal": False, "parts": None,
        }  # fmt: skip
        super().__init__(groups, defaults)
        for group in self.param_groups:
            for parameter in group["params"] if group["orthogonal"] else ():
                _check_matrix(parameter, group["parts"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Take one step with the gradients that are there; parameters without one stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                (self._orthogonal_step if group["orthogonal"] else self._adamw_step)(parameters, group)
        return loss

    def _orthogonal_step(self, parameters: list[Tensor], group: dict) -> None:
        momentum, rate = group["momentum"], group["lr"]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        averages = [self.state[parameter]["momentum"] for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, averages, momentum)
        steps = _orthogonalised(ahead, group["parts"], group["ns_steps"])
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        torch._foreach_add_(parameters, steps, alpha=-rate)

    def _adamw_step(self, parameters: list[Tensor], group: dict) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        kept = {
            name: [self.state[parameter][name] for parameter in parameters]
            for name in ("exp_avg", "exp_avg_sq", "step")
        }
        adamw(
            parameters, [parameter.grad for parameter in parameters], kept["exp_avg"], kept["exp_avg_sq"],
            [], kept["step"], fused=parameters[0].device.type in ("cpu", "cuda"), amsgrad=False,
            beta1=group["betas"][0], beta2=group["betas"][1], lr=group["lr"],
            weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
        )  # fmt: skip


def _orthogonalised(matrices: list[Tensor], parts: tuple[int, ...] | None, ns_steps: int) -> list[Tensor]:
    """Return the scaled steps; pieces of one shape go through `newton_schulz` together."""
    pieces = [list(matrix.split(parts)) if parts else [matrix] for matrix in matrices]
    by_shape: dict[torch.Size, list[tuple[int, int]]] = {}
    for i, row in enumerate(pieces):
        for j, piece in enumerate(row):
            by_shape.setdefault(piece.shape, []).append((i, j))
    for (M, N), places in by_shape.items():
        done = newton_schulz(torch.stack([pieces[i][j] for i, j in places]), ns_steps)
        done *= max(1.0, M / N) ** 0.5
        for (i, j), piece in zip(places, done, strict=True):
            pieces[i][j] = piece
    return [torch.cat(row) if len(row) > 1 else row[0] for row in pieces]


def _check_matrix(parameter: Tensor, parts: tuple[int, ...] | None) -> None:
    shape = tuple(parameter.shape)
    if parameter.dim() != 2:
        raise ValueError(f"an orthogonal step needs a matrix, got the shape {shape}; leave it to AdamW")
    if parts and sum(parts) != shape[0]:
        raise ValueError(f"parts {tuple(parts)} have {sum(parts)} rows together, the matrix {shape[0]}")
    if hasattr(parameter, "placements"):  # a DTensor
        raise ValueError(
            f"Muon needs each matrix whole, and one of shape {shape} lies divided over processes; use "
            "optimizer adamw, or a strategy that keeps matrices whole (single, ddp)"
        )
