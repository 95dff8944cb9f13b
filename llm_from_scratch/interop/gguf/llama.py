"""From the tensors of a Llama GGUF file to our `Decoder`.

The two differ in three ways. Names: "blk.0.ffn_up.weight" is ``blocks.0.feedforward.up.weight``. One
matrix makes our queries, keys and values; the file has three. And a head's columns stand in another
order: GGUF turns neighbouring columns 2f and 2f + 1 together (as the paper on rotary positions does), we
turn column f with column f + D/2 (as `nn.positions` does). The same model results when the rows that make
queries and keys are moved to where their columns stand here.

Legend: H query heads, K key/value heads, D width of a head, C width of the model.
"""

from __future__ import annotations

import numpy as np
import torch

from llm_from_scratch.interop.empty import build_empty
from llm_from_scratch.interop.gguf.fields import Metadata
from llm_from_scratch.interop.gguf.reader import GGUFFile
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.models.decoder_config import DecoderConfig

MAX_TABLE_BYTES = 1 << 27  # of cosines and sines for all positions: 262,144 tokens at a head width of 128
_CHUNK = 1 << 20  # numbers widened at a time, so that no second copy of a large tensor is made

# Entries that change nothing at these values (None: at any), and would change the model at others.
_NEUTRAL = {
    "rope.scaling.type": "none",
    "rope.scaling.factor": 1.0,
    "rope.scale_linear": 1.0,
    "expert_count": 0,
    "expert_used_count": 0,
    "attention.causal": True,
    "tensor_data_layout": None,
}
_READ = (
    "vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length",
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base",
)  # fmt: skip


def read_config(file: GGUFFile, context_length: int | None = None) -> DecoderConfig:
    """Return the sizes and choices of the model in ``file``.

    ``context_length``: fewer tokens than the file allows; the tables of positions are made for them.
    Raises: ValueError naming the entry that is missing, wrong, or describes what our decoder cannot do.
    """
    metadata = Metadata(file)
    architecture = metadata.text("general.architecture")
    if architecture != "llama":
        raise metadata.wrong(
            "general.architecture",
            f"is {architecture!r:.60}; 'llama' is read here. interop.hugging_face reads more families",
        )
    if metadata.file.metadata.get("split.count", 1) != 1:
        raise metadata.wrong(
            "split.count", "says that the model lies in several files: join them to one first"
        )
    _check_entries(metadata)
    longest = metadata.size("llama.context_length")
    if context_length is not None and not 1 <= context_length <= longest:
        raise ValueError(
            f"context_length={context_length} must lie between 1 and the model's {longest} tokens"
        )
    d_model, num_heads = metadata.size("llama.embedding_length"), metadata.size("llama.attention.head_count")
    d_head = metadata.size("llama.attention.key_length", max(1, d_model // num_heads))
    for key in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if metadata.size(key, d_head) != d_head:
            raise metadata.wrong(key, f"is {metadata.size(key)}; {d_head}, the width of a head, is read here")
    tokens = context_length or longest
    if tokens * d_head * 4 > MAX_TABLE_BYTES:
        limit = MAX_TABLE_BYTES // (4 * d_head)
        raise metadata.wrong(
            "llama.context_length",
            f"is {longest}; at heads {d_head} wide the limit is {limit} tokens. Pass context_length={limit} "
            "or less to load the model for shorter texts",
        )
    try:
        return DecoderConfig.llama(
            vocab_size=_vocab_size(file, metadata),
            context_length=tokens,
            d_model=d_model,
            num_layers=metadata.size("llama.block_count"),
            num_heads=num_heads,
            num_kv_heads=metadata.size("llama.attention.head_count_kv", num_heads),
            d_head=d_head,
            d_ff=metadata.size("llama.feed_forward_length"),
            rope_base=metadata.number("llama.rope.freq_base", 10000.0),
            norm_eps=metadata.number("llama.attention.layer_norm_rms_epsilon"),
            tie_embeddings="output.weight" not in file.tensors,
        )
    except ValueError as error:
        raise ValueError(error if str(file.path) in str(error) else f"{file.path}: {error}") from None


def _check_entries(metadata: Metadata) -> None:
    """Raise ValueError for an entry about the architecture that would go unread."""
    for key, value in metadata.file.metadata.items():
        name = key.removeprefix("llama.")
        if name == key or name in _READ:
            continue
        if name not in _NEUTRAL or _NEUTRAL[name] not in (None, value):
            raise metadata.wrong(key, f"is {value!r:.60}, which our decoder has nothing for")


def _vocab_size(file: GGUFFile, metadata: Metadata) -> int:
    embedding = file.tensors.get("token_embd.weight")
    rows = embedding.shape[0] if embedding is not None else None
    size = metadata.size("llama.vocab_size", rows or 1)
    if rows is not None and size != rows:
        raise metadata.wrong("llama.vocab_size", f"is {size}, and token_embd.weight has {rows} rows")
    return size


def expected_tensors(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and the shape of every tensor that the file of such a model holds."""
    C, F, V, D = config.d_model, config.d_ff, config.vocab_size, config.d_head
    q, kv = config.num_heads * D, config.num_kv_heads * D
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (V, C), "output_norm.weight": (C,)}
    if not config.tie_embeddings:
        shapes["output.weight"] = (V, C)
    block = {
        "attn_norm": (C,), "attn_q": (q, C), "attn_k": (kv, C), "attn_v": (kv, C), "attn_output": (C, q),
        "ffn_norm": (C,), "ffn_gate": (F, C), "ffn_up": (F, C), "ffn_down": (C, F),
    }  # fmt: skip
    for i in range(config.num_layers):
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in block.items()}
    return shapes


def check_tensors(file: GGUFFile, config: DecoderConfig) -> None:
    """Raise ValueError for a tensor that is missing, unknown, or of another shape."""
    if config.num_layers > len(file.tensors):
        raise file.wrong(
            "metadata 'llama.block_count'",
            f"is {config.num_layers}, and there are {len(file.tensors)} tensors",
        )
    expected = expected_tensors(config)
    for name, shape in expected.items():
        if name not in file.tensors:
            raise file.wrong(f"tensor {name!r}", "is missing")
        if file.tensors[name].shape != shape:
            raise file.wrong(
                f"tensor {name!r}", f"has the shape {file.tensors[name].shape}, expected {shape}"
            )
    if unknown := [name for name in file.tensors if name not in expected]:
        raise file.wrong(f"tensor {unknown[0]!r:.80}", "is none that our decoder has a place for")


def read_model(
    file: GGUFFile, *, dtype: torch.dtype = torch.float32, context_length: int | None = None
) -> Decoder:
    """Build the decoder empty, then fill it tensor by tensor.

    Raises: ValueError as `read_config` and `check_tensors` do, and for a number that is not finite.
    """
    config = read_config(file, context_length)
    check_tensors(file, config)
    model = build_empty(lambda: Decoder(config)).to(dtype).eval()
    model.register_tables()  # in float32, whatever the weights are
    _fill(file, "token_embd", model.token_embedding.weight)
    _fill(file, "output_norm", model.norm.weight)
    if model.head is not None:
        _fill(file, "output", model.head.weight)
    q, kv = config.num_heads * config.d_head, config.num_kv_heads * config.d_head
    for i, block in enumerate(model.blocks):
        q_QC, k_KC, v_KC = block.attention.qkv.weight.detach().split([q, kv, kv])
        _fill(file, f"blk.{i}.attn_q", q_QC, halves=config.d_head)
        _fill(file, f"blk.{i}.attn_k", k_KC, halves=config.d_head)
        _fill(file, f"blk.{i}.attn_v", v_KC)
        _fill(file, f"blk.{i}.attn_norm", block.norm_1.weight)
        _fill(file, f"blk.{i}.attn_output", block.attention.output.weight)
        _fill(file, f"blk.{i}.ffn_norm", block.norm_2.weight)
        _fill(file, f"blk.{i}.ffn_gate", block.feedforward.gate.weight)
        _fill(file, f"blk.{i}.ffn_up", block.feedforward.up.weight)
        _fill(file, f"blk.{i}.ffn_down", block.feedforward.down.weight)
    return model


@torch.no_grad()
def _fill(file: GGUFFile, stem: str, target: torch.Tensor, halves: int | None = None) -> None:
    """Copy a tensor of the file into ``target``, some rows at a time; ``halves``: the width of the heads."""
    name = f"{stem}.weight"
    target_RC = target.detach().view(-1, target.shape[-1])
    unit = halves or 1
    step = max(1, _CHUNK // (unit * target_RC.shape[1])) * unit
    for start in range(0, target_RC.shape[0], step):
        rows_RC = file.read(name, start, start + step).reshape(-1, target_RC.shape[1])
        if not np.isfinite(rows_RC).all():
            raise file.wrong(f"tensor {name!r}", "holds a number that is not finite: the file is damaged")
        if halves:  # what `nn.positions.interleaved_to_half` does, without torch's threads
            pairs = rows_RC.reshape(-1, halves // 2, 2, rows_RC.shape[1])
            rows_RC = pairs.swapaxes(1, 2).reshape(rows_RC.shape)
        if target_RC.dtype == torch.float32:
            np.copyto(target_RC[start : start + step].numpy(), rows_RC)
        else:
            target_RC[start : start + step].copy_(torch.from_numpy(rows_RC))
