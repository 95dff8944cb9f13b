"""Generation at the speed of the memory: `CachedModel` with a compiled step for single tokens.

What a token of SmolLM2 costs is measured by ``python -m benchmarks.generation``.

Legend: B sequences, T positions, V vocabulary entries.
"""

import warnings

from jaxtyping import Float, Int
from torch import Tensor

from llm_from_scratch.inference.generate import CachedModel
from llm_from_scratch.inference.native_library import NoCompilerError
from llm_from_scratch.inference.native_step import NativeStep
from llm_from_scratch.inference.quantise import is_quantised, quantise_weights
from llm_from_scratch.models.decoder import Decoder

WEIGHTS = {"fp32": None, "int8": 8, "int4": 4}


class FastDecoder(CachedModel):
    """A `CachedModel` that reads single tokens by one compiled function, and may hold quantised weights.

    It is called as `CachedModel` is and gives the same scores, but for rounding; with ``weights`` of
    "int8" or "int4" those of ``quantise_weights(model, bits=...)``. A prompt is read by torch, which is
    as fast there; each token after it by `NativeStep`.

    Arguments: ``weights`` "fp32", "int8" or "int4"; of a model that is quantised already, leave it
    at None. ``group_size`` in columns, for int4. ``compile``: True compiles the step with the machine's
    C++ compiler at the first use (some 5 seconds, once), or warns and goes on without it where that is
    not possible; "auto" does the same without a warning; False reads every token by torch.
    ``room`` as in `CachedModel`.
    With "int8" and "int4" the weights are copied; call `reset` after the model's have changed.
    Raises: ValueError for settings out of range, and models that are not in float32 on the CPU.

    >>> import torch
    >>> from llm_from_scratch.models.decoder import DecoderConfig
    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> model, ids = Decoder(config).eval(), torch.tensor([[1, 2, 3, 4]])
    >>> fast = FastDecoder(model, compile=False)
    >>> torch.allclose(fast(ids), model(ids)[:, -1:], atol=1e-5)
    True
    """

    def __init__(
        self,
        model: Decoder,
        *,
        weights: str | None = None,
        group_size: int = 32,
        compile: bool | str = "auto",
        room: int | None = None,
    ):
        if weights is not None and weights not in WEIGHTS:
            raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}, got {weights!r}")
        if compile not in (True, False, "auto"):
            raise ValueError(f"compile must be True, False or 'auto', got {compile!r}")
        self.weights, self.group_size, self.compile = weights, group_size, compile
        self.original = model
        super().__init__(model, room=room)

    def reset(self) -> None:
        """Forget the last text, and take the weights anew."""
        bits = WEIGHTS.get(self.weights)
        if bits is not None:
            self.model = quantise_weights(self.original, bits=bits, group_size=self.group_size)
        self.step = self._compiled_step()
        super().reset()

    @property
    def compiled(self) -> bool:
        """Whether single tokens are read by compiled code."""
        return self.step is not None

    def read(self, new_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B 1 V"]:
        """Read what follows the text in the cache; score the token after it."""
        if new_BT.shape[1] > 1 or self.step is None:
            return super().read(new_BT)
        cache, B = self.cache, len(new_BT)
        cache.begin(1)
        logits_BV = self.step(
            new_BT[:, 0].tolist(),
            cache.keys_LBKSD,
            cache.values_LBKSD,
            slots=range(B),
            stored=[cache.stored] * B,
            positions=[cache.length] * B,
        )
        cache.commit(1)
        return logits_BV[:, None]

    def _compiled_step(self) -> NativeStep | None:
        if self.compile is False:
            return None
        try:
            return NativeStep(self.model)
        except NoCompilerError as error:
            if self.compile is True:
                quantised = (
                    " Quantised weights are slow so: take weights='fp32'." if is_quantised(self.model) else ""
                )
                warnings.warn(
                    f"single tokens are read by torch, not by compiled code: {error}.{quantised}",
                    stacklevel=4,
                )
            return None
