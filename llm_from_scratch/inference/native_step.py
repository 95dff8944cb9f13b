"""One token of each of several texts through a decoder, by the compiled code of `native/`.

Legend: B texts, L layers, K key/value heads, S positions of a cache, D width of a head, V vocabulary
entries, H query heads, N rows and C columns of a matrix.
"""

import ctypes
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llm_from_scratch.inference import native_library as native
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.nn.adapters import check_no_adapters

FEEDFORWARD = {"gelu": 0, "gelu_exact": 1, "swiglu": 2}


class NativeStep:
    """The weights of a decoder as the compiled code reads them, and the step itself.

    Weights of float32 are read where the model keeps them, so changes in place count at once; after a
    weight has been replaced by another tensor, build a new `NativeStep`.

    Raises: ValueError if the model is not in float32 on the CPU, or carries adapters;
    `native_library.NoCompilerError`.
    """

    def __init__(self, model: Decoder):
        check_no_adapters(
            model,
            who="the compiled step",
            way_out="merge_lora(model) first, or read by torch (compile=False)",
        )
        if model.config.feedforward not in FEEDFORWARD or model.config.ngram_rows:
            raise ValueError(
                f"the compiled step knows the feed-forward layers {', '.join(FEEDFORWARD)} and no tables of "
                f"n-grams, got feedforward={model.config.feedforward!r}, "
                f"ngram_rows={model.config.ngram_rows}; read by torch (compile=False)"
            )
        self.library, self.model = native.native_library(), model
        self._kept: list[Tensor] = []  # what the pointers point to
        config = model.config
        self._layers = (native.Layer * config.num_layers)(*(self._layer(block) for block in model.blocks))
        self._struct = native.Model(
            layers=config.num_layers,
            d_model=config.d_model,
            heads=config.num_heads,
            kv_heads=config.num_kv_heads,
            d_head=config.d_head,
            d_ff=config.d_ff,
            rotary_width=config.rotary_width if config.positions == "rope" else 0,
            window=config.sliding_window or 0,
            rms=config.norm == "rms",
            feedforward=FEEDFORWARD[config.feedforward],
            norm_eps=config.norm_eps,
            scale=1 / math.sqrt(config.d_head),
            layer=self._layers,
            norm=_norm_of(model.norm, self._kept),
            head=matrix_of(model.token_embedding if model.head is None else model.head, self._kept),
        )
        by_distance = model.score_bias(1, config.context_length)
        self._bias_HS = None if by_distance is None else by_distance[:, 0].flip(-1).float().contiguous()

    def __call__(
        self,
        ids: Sequence[int],
        keys_LBKSD: Float[Tensor, "L B K S D"],
        values_LBKSD: Float[Tensor, "L B K S D"],
        *,
        slots: Sequence[int],
        stored: Sequence[int],
        positions: Sequence[int],
    ) -> Float[Tensor, "B V"]:
        """Read one token of each text, store its keys and values, score the token after it.

        Of each text: its row ``slots[b]`` in the cache, the number ``stored[b]`` of positions that are
        there already, and the token's place ``positions[b]`` in the text (more than ``stored`` where a
        window has given up the first ones). The texts may differ in all three.
        Raises: ValueError for what the cache has no room for.
        """
        L, rows, K, S, D = keys_LBKSD.shape
        config, B = self.model.config, len(ids)
        if (config.num_layers, config.num_kv_heads, config.d_head) != (L, K, D):
            raise ValueError(f"a cache of shape {tuple(keys_LBKSD.shape)} was built for another model")
        if not all(0 <= slot < rows for slot in slots) or not all(0 <= n < S for n in stored):
            raise ValueError(f"slots {slots} with {stored} positions do not fit a cache of {rows} x {S}")
        if not all(0 <= n < config.context_length for n in positions) or len(set(slots)) < B:
            raise ValueError(f"positions {positions} exceed the context, or slots {slots} repeat")
        for buffer in (keys_LBKSD, values_LBKSD):
            _check_memory(buffer, "the cache")
        x_1BC, rope = self.model.embed(torch.tensor([ids]), positions_T=torch.tensor(positions))
        x_BC, logits_BV = x_1BC[0].contiguous(), torch.empty(B, config.vocab_size)
        cosines, sines = (None, None) if rope is None else (table.float().contiguous() for table in rope)
        places = torch.tensor([list(slots), list(stored)])
        batch = native.Batch(
            size=B,
            capacity=S,
            slots=rows,
            slot=places[0].data_ptr(),
            stored=places[1].data_ptr(),
            keys=keys_LBKSD.data_ptr(),
            values=values_LBKSD.data_ptr(),
            cosines=_pointer(cosines),
            sines=_pointer(sines),
            bias=_pointer(self._bias_HS),
            bias_length=0 if self._bias_HS is None else self._bias_HS.shape[1],
            x=x_BC.data_ptr(),
            logits=logits_BV.data_ptr(),
        )
        self.library.decode_step(ctypes.byref(self._struct), ctypes.byref(batch), torch.get_num_threads())
        return logits_BV

    def _layer(self, block: nn.Module) -> native.Layer:
        attention, feedforward, kept = block.attention, block.feedforward, self._kept
        gate = getattr(feedforward, "gate", None)
        query_norm, key_norm = attention.query_norm, attention.key_norm
        return native.Layer(
            norm_1=_norm_of(block.norm_1, kept),
            norm_2=_norm_of(block.norm_2, kept),
            query_norm=None if query_norm is None else _address(query_norm.weight, kept),
            key_norm=None if key_norm is None else _address(key_norm.weight, kept),
            qkv=matrix_of(attention.qkv, kept),
            output=matrix_of(attention.output, kept),
            gate=native.Matrix() if gate is None else matrix_of(gate, kept),
            up=matrix_of(feedforward.up, kept),
            down=matrix_of(feedforward.down, kept),
        )


def matrix_of(layer: nn.Module, kept: list[Tensor]) -> native.Matrix:
    """A linear layer or a table of embeddings, quantised or not, as the compiled code reads it.

    The tensors that it points to are added to ``kept``: it is good for as long as that list lives.
    """
    bias, matrix = _address(getattr(layer, "bias", None), kept), getattr(layer, "matrix", None)
    if matrix is None:
        N, C = layer.weight.shape
        return native.Matrix(weights=_address(layer.weight, kept), bias=bias, rows=N, columns=C)
    N, C = matrix.shape
    return native.Matrix(
        weights=_address(matrix.packed, kept, None),
        scale=_address(matrix.scale, kept, None),
        minimum=_address(matrix.minimum, kept, None),
        bias=bias,
        rows=N,
        columns=C,
        format=matrix.bits,
        group=matrix.group_size,
    )


def _norm_of(norm: nn.Module, kept: list[Tensor]) -> native.Norm:
    return native.Norm(_address(norm.weight, kept), _address(getattr(norm, "bias", None), kept))


def _address(
    tensor: Tensor | None, kept: list[Tensor], dtype: torch.dtype | None = torch.float32
) -> int | None:
    """The address of a tensor, which is added to ``kept`` so that it lives on; None for none."""
    if tensor is None:
        return None
    _check_memory(tensor, "a weight", dtype)
    kept.append(tensor)
    return tensor.data_ptr()


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check_memory(tensor: Tensor, name: str, dtype: torch.dtype | None = torch.float32) -> None:
    if tensor.device.type != "cpu" or not tensor.is_contiguous() or dtype not in (None, tensor.dtype):
        raise ValueError(
            f"the fast step reads float32 on the CPU, and {name} is {tensor.dtype} on {tensor.device}; "
            "call model.float().cpu(), or use CachedModel"
        )
