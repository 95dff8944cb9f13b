"""`ragged_forward`, with compiled code for the texts that read a single token: nearly all of them.

Legend: P texts, V vocabulary entries.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from llm_from_scratch.inference.native_library import NoCompilerError
from llm_from_scratch.inference.native_step import NativeStep
from llm_from_scratch.inference.ragged_pass import Pieces, check_pieces, ragged_forward
from llm_from_scratch.inference.slot_cache import SlotCache
from llm_from_scratch.models.decoder import Decoder


class FastRaggedPass:
    """Gives the scores of `ragged_forward`, but for rounding; prompts are read by torch as there.

    Build it once for a model: it holds the places of its weights. Quantised models are read as they are.
    Raises: ValueError if the model is not in float32 on the CPU; `NoCompilerError` where the machine has
    no C++ compiler.
    """

    def __init__(self, model: Decoder):
        self.model, self.step = model, NativeStep(model)

    def __call__(self, model: Decoder, pieces: Pieces, cache: SlotCache) -> Float[Tensor, "P V"]:
        """Read some tokens of each text; score the token that follows each. See `ragged_forward`."""
        if model is not self.model:
            raise ValueError("this pass was built for another model; build one for this model")
        check_pieces(model, pieces, cache)
        short = [number for number, (_, ids) in enumerate(pieces) if len(ids) == 1]
        long = [number for number, (_, ids) in enumerate(pieces) if len(ids) > 1]
        logits_PV = torch.empty(len(pieces), model.config.vocab_size)
        if long:
            logits_PV[long] = ragged_forward(model, [pieces[number] for number in long], cache)
        if short:
            logits_PV[short] = self._read_single([pieces[number] for number in short], cache)
        return logits_PV

    @torch.no_grad()
    def _read_single(self, pieces: Pieces, cache: SlotCache) -> Float[Tensor, "P V"]:
        slots, ids = [slot for slot, _ in pieces], [ids[0] for _, ids in pieces]
        self.model.check_ids(torch.tensor(ids)[:, None])
        stored = [cache.lengths[slot] for slot in slots]
        for slot in slots:
            cache.begin(slot, 1)
        logits_PV = self.step(
            ids, cache.keys_LBKSD, cache.values_LBKSD, slots=slots, stored=stored, positions=stored
        )
        for slot in slots:
            cache.lengths[slot] += 1
        return logits_PV


def fastest_pass(model: Decoder) -> Callable[[Decoder, Pieces, SlotCache], Tensor]:
    """A `FastRaggedPass` where the model and the machine allow it, else `ragged_forward`."""
    try:
        return FastRaggedPass(model)
    except (NoCompilerError, ValueError):
        return ragged_forward
