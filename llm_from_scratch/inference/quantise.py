"""A decoder with quantised weights: made from another one, stored and opened again."""

import copy
import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from llm_from_scratch.files import atomic_path
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.nn.adapters import check_no_adapters
from llm_from_scratch.nn.weight_only import WeightOnlyEmbedding, WeightOnlyLinear

FORMAT = "llm_from_scratch weight-only 1"


def quantise_weights(
    model: Decoder, *, bits: int = 8, group_size: int = 32, embedding_bits: int = 8
) -> Decoder:
    """Return a copy of the model whose matrices hold whole numbers of 8 or 4 bits.

    All matrices of the blocks get ``bits`` (in groups of ``group_size`` columns if they are 4), the token
    embedding and the output matrix ``embedding_bits``: they decide about every token, and are more
    sensitive. A tied output matrix is the embedding here too. Norms, biases and tables of positions
    stay as they are. The copy works wherever a `Decoder` does, except that it cannot be trained further;
    `FastDecoder` is what makes it fast.

    Raises: ValueError if the model is no `Decoder` in float32, is quantised already or carries adapters, or
    for bits and groups out of range.
    Source: per-row scales: Dettmers et al. 2022 (LLM.int8()), section 2.1; groups: Dettmers and
    Zettlemoyer 2023, section 3.

    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> small = quantise_weights(Decoder(config).eval(), bits=8)
    >>> small(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 11])
    """
    if not isinstance(model, Decoder):
        raise ValueError(f"weights of a Decoder are quantised, got {type(model).__name__}")
    check_no_adapters(model, who="quantisation")
    if is_quantised(model):
        raise ValueError("the model's weights are quantised already; quantise the original")
    dtypes = {p.dtype for p in model.parameters()}
    if dtypes != {torch.float32}:
        raise ValueError(f"quantisation starts from float32, got {dtypes}; call model.float() first")
    replaced = [part for part in model.modules() if isinstance(part, nn.Linear)] + [model.token_embedding]
    shared = {id(part.weight): part.weight for part in replaced}  # not copied, since it is replaced
    result = copy.deepcopy(model, memo=shared)
    return _replace(result, bits, group_size, embedding_bits).requires_grad_(False)


def is_quantised(model: Decoder) -> bool:
    """Whether `quantise_weights` has made the model."""
    return isinstance(model.token_embedding, WeightOnlyEmbedding)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of everything the model keeps: parameters, quantised numbers and their scales, each once.

    >>> weight_bytes(nn.Linear(3, 2))
    32
    """
    tensors = {id(t): t for t in [*model.parameters(), *model.state_dict(keep_vars=True).values()]}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def save_quantised(model: Decoder, path: str | Path) -> None:
    """Write a quantised model to one safetensors file, its config in the file's metadata.

    Raises: ValueError if the model is not quantised.
    """
    if not is_quantised(model):
        raise ValueError("the model is not quantised; quantise_weights makes a quantised copy of it")
    block, table = model.blocks[0].attention.qkv.matrix, model.token_embedding.matrix
    settings = {"bits": block.bits, "group_size": block.group_size, "embedding_bits": table.bits}
    metadata = {
        "format": FORMAT,
        "config": json.dumps(model.config.to_dict()),
        "quantisation": json.dumps(settings),
    }
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(
            {name: t.contiguous() for name, t in model.state_dict().items()}, temporary, metadata=metadata
        )


def load_quantised(path: str | Path) -> Decoder:
    """Open what `save_quantised` has written, in evaluation mode.

    Raises: FileNotFoundError; ValueError if the file is damaged or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; save_quantised writes such a file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its format is {metadata.get('format')!r} and not {FORMAT!r}")
        config = DecoderConfig.from_dict(json.loads(metadata["config"]))
        model = Decoder(config)
        model = _replace(model, **json.loads(metadata["quantisation"]))
        model.load_state_dict(tensors)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} is no intact file of save_quantised: {error}") from error
    return model.requires_grad_(False).eval()


def _replace(model: Decoder, bits: int, group_size: int, embedding_bits: int) -> Decoder:
    """Put quantised layers in the place of all linear ones and of the embedding."""
    for block in model.blocks:
        for parent in (block.attention, block.feedforward):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(parent, name, WeightOnlyLinear(layer, bits=bits, group_size=group_size))
    edge = {"bits": embedding_bits, "group_size": group_size}
    model.token_embedding = WeightOnlyEmbedding(model.token_embedding, **edge)
    if model.head is not None:
        model.head = WeightOnlyLinear(model.head, **edge)
    return model
