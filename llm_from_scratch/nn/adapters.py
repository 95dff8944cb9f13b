"""Layers that carry something trained beside a frozen base, and who has to know of them.

Most code calls a layer and need not care. Code that reads a layer's weights by itself (compiled steps,
quantisation, files of whole models) would leave out what was trained: it asks here first.
"""

from torch import nn


class AdapterLayer(nn.Module):
    """A layer in place of another one, its ``base``; see `llm_from_scratch.finetuning.lora`."""

    mergeable = True  # whether the base's weights can take it in


def check_no_adapters(model: nn.Module, *, who: str, way_out: str = "call merge_lora(model) first") -> None:
    """Raise ValueError if a layer of the model is an `AdapterLayer`.

    Arguments: ``who`` reads weights and knows no adapters, in words; ``way_out`` ends the message.

    >>> check_no_adapters(nn.Linear(3, 2), who="the compiled step")
    """
    found = {name: part for name, part in model.named_modules() if isinstance(part, AdapterLayer)}
    if found:
        if not all(part.mergeable for part in found.values()):
            way_out = "they cannot be merged into weights; call the model itself"
        raise ValueError(
            f"{who} reads the weights themselves, and {len(found)} layers carry adapters beside them "
            f"({next(iter(found)) or 'the model itself'} is the first): {way_out}"
        )
