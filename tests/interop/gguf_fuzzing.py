"""Small GGUF files made by the `gguf` package, and ways to damage them.

Run as a program it is the process that a test watches: it loads every file of a folder under a limit on
memory, and prints one line a file.
"""

import struct
import sys
import time
from pathlib import Path

import numpy as np

SPECIAL = ["<|end|>", "<|user|>"]
LETTERS = [chr(c) for c in range(0x21, 0x7F)] + ["Ġ", "Ċ"]
MERGES = ["t h", "th e", "Ġ the", "a n", "Ġ an", "an d"]
V, C, H, K, D, F, L, CONTEXT = 128, 64, 4, 2, 16, 96, 3, 23


def vocabulary():
    tokens = SPECIAL + LETTERS + [merge.replace(" ", "") for merge in MERGES]
    return tokens + [f"ã{chr(0xAE + i)}" for i in range(V - len(tokens))]


def shapes(tied):
    found = {"token_embd.weight": (V, C), "output_norm.weight": (C,)}
    if not tied:
        found["output.weight"] = (V, C)
    for i in range(L):
        found |= {
            f"blk.{i}.attn_norm.weight": (C,),
            f"blk.{i}.attn_q.weight": (H * D, C),
            f"blk.{i}.attn_k.weight": (K * D, C),
            f"blk.{i}.attn_v.weight": (K * D, C),
            f"blk.{i}.attn_output.weight": (C, H * D),
            f"blk.{i}.ffn_norm.weight": (C,),
            f"blk.{i}.ffn_gate.weight": (F, C),
            f"blk.{i}.ffn_up.weight": (F, C),
            f"blk.{i}.ffn_down.weight": (C, F),
        }
    return found


def write_gguf(path, *, quantisation="Q4_1", tied=True, seed=0, metadata=True, extra=None, change=None):
    """Write a tiny Llama with its tokenizer. Returns what its tensors hold, dequantised by `gguf`."""
    import gguf
    from gguf import quants

    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    if metadata:
        writer.add_context_length(CONTEXT)
        writer.add_embedding_length(C)
        writer.add_block_count(L)
        writer.add_feed_forward_length(F)
        writer.add_head_count(H)
        writer.add_head_count_kv(K)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(5000.0)
        writer.add_rope_dimension_count(D)
        writer.add_vocab_size(V)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(vocabulary())
        writer.add_token_types([3] * len(SPECIAL) + [1] * (V - len(SPECIAL)))
        writer.add_token_merges(MERGES)
        writer.add_eos_token_id(0)
        writer.add_chat_template("{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}")
    for key, value in (extra or {}).items():
        value(writer, key)
    held = {}
    found = shapes(tied)
    if change:
        change(found)
    for name, shape in found.items():
        x = rng.normal(size=shape, scale=0.3).astype(np.float32)
        kind = getattr(gguf.GGMLQuantizationType, quantisation if len(shape) > 1 else "F32")
        data = quants.quantize(x, kind)
        held[name] = quants.dequantize(data, kind).reshape(shape)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def put(kind, value):
    """A function that adds an entry of that kind."""
    return lambda writer, key: getattr(writer, f"add_{kind}")(key, value)


def mutations(content, count, seed, header):
    """Damaged copies: bytes flipped, cut, doubled, overwritten; more of them in the ``header`` bytes."""
    rng = np.random.default_rng(seed)
    extremes = [0, 1, 2, 7, 8, 12, 13, 127, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]
    for i in range(count):
        damaged = bytearray(content)
        end = header if i % 4 else len(content)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(end))
            kind = i % 7
            if kind == 0:
                del damaged[int(rng.integers(len(content))) :]
            elif kind == 1:
                damaged[at : at + 1] = bytes([int(rng.integers(256))])
            elif kind == 2:
                damaged[at] ^= 1 << int(rng.integers(8))
            elif kind == 3:
                damaged[at : at + 8] = struct.pack("<Q", extremes[int(rng.integers(len(extremes)))])
            elif kind == 4:
                value = extremes[int(rng.integers(len(extremes)))] & 0xFFFFFFFF
                damaged[at : at + 4] = struct.pack("<I", value)
            elif kind == 5:
                size = int(rng.integers(1, 40))
                other = int(rng.integers(end))
                damaged[at : at + size] = content[other : other + size]
            else:
                del damaged[at : at + int(rng.integers(1, 30))]
            if not damaged:
                break
        yield bytes(damaged)


def load_all(folder, memory_bytes):
    """Load every file of ``folder``; print what came of each."""
    from llm_from_scratch.interop.gguf import load_gguf

    load_gguf(Path(folder) / "whole.gguf")  # whatever is imported or allocated once
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError):  # no such limit on this system
        pass
    for path in sorted(Path(folder).glob("*.damaged")):
        start = time.perf_counter()
        try:
            load_gguf(path)
            outcome = "loaded"
        except ValueError as error:
            outcome = "refused" if str(path) in str(error) else f"FAULT {path.name}: names no file: {error}"
        except BaseException as error:
            outcome = f"FAULT {path.name}: {type(error).__name__}: {error}"
        print(f"{time.perf_counter() - start:.3f} {outcome}".replace("\n", " "), flush=True)


if __name__ == "__main__":
    load_all(sys.argv[1], int(sys.argv[2]))
