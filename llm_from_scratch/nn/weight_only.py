"""Weight-only quantisation: matrices of 8- or 4-bit whole numbers, widened when they are used.

Generating one token reads every weight once, and waits for the memory more than for the arithmetic.
Weights of fewer bits are fewer bytes to wait for. The vectors that they multiply stay as they are.

Legend: N rows (outputs), C columns (inputs), G groups of columns, V vocabulary entries.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float16, Int, Int8, UInt8
from torch import Tensor, nn

STEP = 32  # columns that are packed together: 16 bytes of two 4-bit numbers each


def quantise_int8(weight_NC: Float[Tensor, "N C"]) -> tuple[Int8[Tensor, "N C"], Float[Tensor, "N"]]:
    """Round each row to whole numbers from -127 to 127, and give the factor that undoes it.

    Formula: ``scale[n] = max_c |w[n, c]| / 127``, ``q = round(w / scale)``, so ``w ~ q * scale`` with an
    error of at most half a scale. A row of zeros has the scale 0.

    >>> quantise_int8(torch.tensor([[1.27, -0.02, 0.004]]))
    (tensor([[127,  -2,   0]], dtype=torch.int8), tensor([0.0100]))
    """
    _check_matrix(weight_NC)
    weight_NC = weight_NC.float()
    scale_N = weight_NC.abs().amax(dim=1) / 127
    safe_N1 = scale_N.masked_fill(scale_N == 0, 1.0)[:, None]
    return (weight_NC / safe_N1).round().clamp(-127, 127).to(torch.int8), scale_N


def quantise_int4(
    weight_NC: Float[Tensor, "N C"], *, group_size: int = 32
) -> tuple[UInt8[Tensor, "N bytes"], Float16[Tensor, "N G"], Float16[Tensor, "N G"]]:
    """Round each group of columns of a row to 16 evenly spaced values, and pack two numbers a byte.

    Formula: ``minimum[g] = min w``, ``scale[g] = (max w - min w) / 15``, ``q = round((w - minimum) /
    scale)``, so ``w ~ q * scale + minimum`` with q from 0 to 15. Minimum and scale are rounded to
    float16 first, so that q is chosen for the values that will be used.

    Packing: of each 32 columns, byte j holds column j in its lower four bits and column j + 16 in its
    upper ones. Columns are padded to whole groups. A group costs 4 bytes beside its numbers: 5 bits a
    weight in groups of 32, 4.5 in groups of 64.

    Raises: ValueError if group_size is no power of 2 from 32 on, and for weights that float16 cannot hold.
    Source: the format is that of Q4_1 in GGUF files, but for the order of the rows' parts.

    >>> packed, scale, minimum = quantise_int4(torch.arange(32.0)[None])
    >>> packed.shape, scale.item(), minimum.item()
    (torch.Size([1, 16]), 2.06..., 0.0)
    """
    _check_matrix(weight_NC)
    _check_group(group_size)
    N, C = weight_NC.shape
    padded_NC = F.pad(weight_NC.float(), (0, -C % group_size), mode="constant", value=0.0)
    if C % group_size:  # repeat the last column, which changes neither the least nor the largest value
        padded_NC[:, C:] = padded_NC[:, C - 1 : C]
    groups_NGS = padded_NC.view(N, -1, group_size)
    minimum_NG = groups_NGS.amin(dim=2).half()
    scale_NG = ((groups_NGS.amax(dim=2) - minimum_NG.float()) / 15).half()
    if not (minimum_NG.isfinite().all() and scale_NG.isfinite().all()):
        raise ValueError("a weight is beyond the 65504 that float16 holds; quantise with 8 bits")
    safe_NG1 = scale_NG.float().masked_fill(scale_NG == 0, 1.0)[..., None]
    q_NGS = ((groups_NGS - minimum_NG.float()[..., None]) / safe_NG1).round().clamp(0, 15).to(torch.uint8)
    low, high = q_NGS.view(N, -1, 2, STEP // 2).unbind(dim=2)
    return (low | high << 4).flatten(1), scale_NG, minimum_NG


def dequantise_int4(packed, scale_NG, minimum_NG, *, columns: int) -> Float[Tensor, "N C"]:
    """Undo `quantise_int4`: ``q * scale + minimum``, without the padding.

    >>> dequantise_int4(*quantise_int4(torch.tensor([[0.0, 15.0, 7.2]])), columns=3).tolist()
    [[0.0, 15.0, 7.0]]
    """
    halves = packed.view(len(packed), -1, 1, STEP // 2)
    q_NGS = torch.cat((halves & 15, halves >> 4), dim=2).view(*scale_NG.shape, -1).float()
    return q_NGS.mul_(scale_NG.float()[..., None]).add_(minimum_NG.float()[..., None]).flatten(1)[:, :columns]


class WeightOnly(nn.Module):
    """A quantised matrix: what a linear layer or an embedding holds in place of its ``weight``.

    Arguments: ``bits`` 8 or 4; ``group_size`` in columns, for 4 bits.
    Raises: ValueError for other bits, and as `quantise_int8` and `quantise_int4`.
    """

    def __init__(self, weight_NC: Float[Tensor, "N C"], *, bits: int, group_size: int = 32):
        super().__init__()
        if bits not in (8, 4):
            raise ValueError(f"bits must be 8 or 4, got {bits!r}")
        self.bits, self.group_size, self.shape = bits, group_size, tuple(weight_NC.shape)
        if bits == 8:
            packed, scale, minimum = *quantise_int8(weight_NC.detach()), None
        else:
            packed, scale, minimum = quantise_int4(weight_NC.detach(), group_size=group_size)
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)
        self.register_buffer("minimum", minimum)

    @property
    def num_bytes(self) -> int:
        """Bytes of the numbers and of their scales."""
        return sum(part.numel() * part.element_size() for part in self.buffers())

    def rows(self, which=slice(None)) -> Float[Tensor, "N C"]:
        """The matrix, or some of its rows, as float32."""
        if self.bits == 8:
            return self.packed[which].float().mul_(self.scale[which][..., None])  # in place: half the memory
        parts = self.packed[which], self.scale[which], self.minimum[which]
        return dequantise_int4(*parts, columns=self.shape[1])


class WeightOnlyLinear(nn.Module):
    """A linear layer with a quantised matrix: ``F.linear(x, q * scale + minimum, bias)``.

    This is the definition, in plain torch: it widens the whole matrix at each call. `FastDecoder` reads
    the quantised numbers themselves. A gradient flows to x, and so to what is trained before the layer;
    the backward pass widens the matrix a second time, so that none is kept. The whole numbers get none.

    >>> layer = nn.Linear(64, 3)
    >>> small, x = WeightOnlyLinear(layer, bits=8), torch.ones(2, 64)
    >>> bool((small(x) - layer(x)).abs().max() < 0.03), small.num_bytes
    (True, 216)
    """

    def __init__(self, layer: nn.Linear, *, bits: int, group_size: int = 32):
        super().__init__()
        self.matrix = WeightOnly(layer.weight, bits=bits, group_size=group_size)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
        self.train(layer.training)

    @property
    def weight(self) -> Float[Tensor, "N C"]:
        """The matrix that the layer multiplies with, widened anew at each look."""
        return self.matrix.rows()

    @property
    def num_bytes(self) -> int:
        """Bytes of the matrix and the bias."""
        return self.matrix.num_bytes + (0 if self.bias is None else 4 * self.bias.numel())

    def forward(self, x_C: Float[Tensor, "*B C"]) -> Float[Tensor, "*B N"]:
        """Multiply the last axis."""
        if torch.is_grad_enabled() and x_C.requires_grad:
            y_N = _Widened.apply(x_C, self.matrix)
            return y_N if self.bias is None else y_N + self.bias.to(y_N.dtype)
        return F.linear(x_C, self.weight, self.bias)


class _Widened(torch.autograd.Function):
    """``x W^T`` whose backward pass makes W anew: ``grad_x = grad_y W``."""

    @staticmethod
    def forward(ctx, x_C, matrix):
        ctx.matrix, ctx.dtype = matrix, x_C.dtype
        return F.linear(x_C, matrix.rows().to(x_C.dtype))

    @staticmethod
    def backward(ctx, grad_N):
        return (grad_N @ ctx.matrix.rows().to(grad_N.dtype)).to(ctx.dtype), None


class WeightOnlyEmbedding(nn.Module):
    """A table of vectors with quantised rows; widens those that are looked up."""

    def __init__(self, table: nn.Embedding, *, bits: int, group_size: int = 32):
        super().__init__()
        self.matrix = WeightOnly(table.weight, bits=bits, group_size=group_size)
        self.train(table.training)

    weight = WeightOnlyLinear.weight

    def forward(self, ids: Int[Tensor, "*B"]) -> Float[Tensor, "*B C"]:
        """The vector of each id."""
        return self.matrix.rows(ids.flatten()).unflatten(0, ids.shape)


def _check_matrix(weight_NC: Tensor) -> None:
    if weight_NC.dim() != 2 or not weight_NC.is_floating_point() or 0 in weight_NC.shape:
        raise ValueError(f"a matrix of floats is quantised, got {weight_NC.dtype} {tuple(weight_NC.shape)}")
    if not weight_NC.isfinite().all():
        raise ValueError("the matrix holds NaN or infinite numbers; load weights that have not diverged")


def _check_group(group_size: int) -> None:
    if type(group_size) is not int or group_size < STEP or group_size & (group_size - 1):
        raise ValueError(f"group_size must be 32, 64, 128 .. columns, a power of 2, got {group_size!r}")
