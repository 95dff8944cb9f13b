"""Damaged and hostile GGUF files: a clear error at once, and nothing allocated that they claim.

The slow tests take other cases each day (`tests.rotation`).
"""

import struct
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf_fuzzing import V, mutations, put, vocabulary, write_gguf

from llm_from_scratch.interop.gguf import GGUFFile, load_gguf
from tests.rotation import seed_of_the_day

GIGABYTE = 10**9


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    write_gguf(path)
    return path


def header_end(path):
    """Where the data begin."""
    with GGUFFile(path) as file:
        return min(tensor.offset for tensor in file.tensors.values())


def run_fuzzer(folder, count, seconds):
    command = [sys.executable, str(Path(__file__).with_name("gguf_fuzzing.py")), str(folder), str(GIGABYTE)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=seconds)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in lines if "FAULT" in line] == [], f"seed {seed_of_the_day()}"
    assert len(lines) == count
    outcomes = [line.split()[1] for line in lines]
    assert set(outcomes) == {"loaded", "refused"}
    return outcomes, [float(line.split()[0]) for line in lines]


@pytest.mark.parametrize(("count", "seconds"), [(200, 120), pytest.param(1000, 900, marks=pytest.mark.slow)])
def test_a_damaged_file_loads_or_is_refused(whole, tmp_path, count, seconds):
    seed = count if count == 200 else seed_of_the_day()
    content = whole.read_bytes()
    (tmp_path / "whole.gguf").write_bytes(content)
    for i, damaged in enumerate(mutations(content, count, seed=seed, header=header_end(whole))):
        (tmp_path / f"{i:05d}.damaged").write_bytes(damaged)
    outcomes, _ = run_fuzzer(tmp_path, count, seconds)
    assert outcomes.count("refused") > count / 2


@pytest.mark.slow
def test_every_place_of_the_header_with_extreme_values(whole, tmp_path):
    """The start and the tensors' entries, overwritten by the largest and odd numbers: a third each day."""
    content = whole.read_bytes()
    (tmp_path / "whole.gguf").write_bytes(content)
    end = header_end(whole)
    places = [*range(0, 900), *range(end - 700, end, 3)][seed_of_the_day() % 3 :: 3]
    number = 0
    for at in places:
        for value in (b"\xff" * 8, b"\x00" * 8, struct.pack("<Q", 1 << 40)):
            damaged = content[:at] + value + content[at + 8 :]
            (tmp_path / f"{number:05d}.damaged").write_bytes(damaged)
            number += 1
    run_fuzzer(tmp_path, number, 900)


# Files written field by field


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def tensor(name, dimensions, kind=0, offset=0):
    return (
        text(name)
        + struct.pack("<I", len(dimensions))
        + b"".join(struct.pack("<Q", d) for d in dimensions)
        + struct.pack("<IQ", kind, offset)
    )


def file_of(entries=(), tensors=(), *, version=3, counts=None, data=b"\0" * 256, magic=b"GGUF"):
    num_tensors, num_entries = counts or (len(tensors), len(entries))
    header = magic + struct.pack("<IQQ", version, num_tensors, num_entries)
    header += b"".join(entries) + b"".join(tensors)
    return header + b"\0" * (-len(header) % 32) + data


def nested(depth):
    return b"".join(struct.pack("<IQ", 9, 1) for _ in range(depth)) + struct.pack("<IQ", 4, 0)


HUGE = 2**64 - 1
HOSTILE = {
    "empty": (b"", "header is cut off: the file has 0 bytes"),
    "short": (b"GGUF" + bytes(12), "header is cut off"),
    "other magic": (file_of(magic=b"GGML"), "magic is b'GGML'"),
    "version 1": (file_of(version=1), "version is 1"),
    "version 4": (file_of(version=4), "of version 4"),
    "big-endian": (file_of(version=3 << 24), "big-endian"),
    "tensor count": (file_of(counts=(HUGE, 0)), f"tensor count is {HUGE}, and the .* hold"),
    "metadata count": (file_of(counts=(0, 2**63)), "metadata count is 9223372036854775808"),
    "one entry too many": (
        file_of([entry("a", 4, b"1234")], counts=(0, 2)),
        "key 1 of the metadata is empty",
    ),
    "key length": (file_of([struct.pack("<Q", HUGE) + b"abc"] * 2), f"key 0 .* takes {HUGE} bytes"),
    "empty key": (file_of([entry("", 4, b"1234")]), "key 0 of the metadata is empty"),
    "key is no UTF-8": (file_of([entry(b"\xff\xfe", 4, b"1234")]), "key 0 .* no UTF-8"),
    "text is no UTF-8": (file_of([entry("name", 8, text(b"a\xff"))]), "metadata 'name' .* no UTF-8"),
    "text length": (
        file_of([entry("name", 8, struct.pack("<Q", 2**40))]),
        "metadata 'name' .* takes 1099511",
    ),
    "twice": (file_of([entry("a", 4, b"1234")] * 2), "metadata 'a' is there twice"),
    "type 13": (file_of([entry("a", 13, b"1234")]), "metadata 'a' has the type 13"),
    "truth value": (file_of([entry("a", 7, b"\x02")]), "metadata 'a' is the truth value 2"),
    "array of type 99": (file_of([entry("a", 9, struct.pack("<IQ", 99, 1))]), "elements of the type 99"),
    "array length": (file_of([entry("a", 9, struct.pack("<IQ", 4, 2**61))]), "metadata 'a': length is"),
    "array of texts": (file_of([entry("a", 9, struct.pack("<IQ", 8, 2**33))]), "metadata 'a': length is"),
    "array of truths": (file_of([entry("a", 9, struct.pack("<IQ", 7, 2**33))]), "metadata 'a': length is"),
    "array of arrays": (file_of([entry("a", 9, struct.pack("<IQ", 9, 2**33))]), "metadata 'a': length is"),
    "deep arrays": (file_of([entry("a", 9, nested(5000))]), "nests arrays deeper than 4"),
    "alignment 0": (file_of([entry("general.alignment", 4, struct.pack("<I", 0))]), "alignment' is 0"),
    "alignment 3": (file_of([entry("general.alignment", 4, struct.pack("<I", 48))]), "alignment' is 48"),
    "alignment huge": (file_of([entry("general.alignment", 4, b"\0\0\0\x80")]), "alignment' is 2147483648"),
    "alignment text": (file_of([entry("general.alignment", 8, text("32"))]), "alignment' is '32'"),
    "no name": (file_of((), [tensor("", [4])]), "has no name"),
    "name twice": (file_of((), [tensor("a", [4]), tensor("a", [4], offset=32)]), "tensor 'a' is there twice"),
    "no dimensions": (file_of((), [tensor("a", [])] * 1), "tensor 'a' has 0 dimensions"),
    "many dimensions": (file_of((), [tensor("a", [1] * 9)]), "tensor 'a' has 9 dimensions"),
    "dimension 0": (file_of((), [tensor("a", [4, 0])]), "tensor 'a' has a dimension of 0"),
    "product overflows": (file_of((), [tensor("a", [2**32, 2**32, 2**3])]), "tensor 'a' takes"),
    "product wraps to 0": (
        file_of((), [tensor("a", [2**32, 2**32])]),
        "tensor 'a' takes 73786976294838206464",
    ),
    "unknown type": (file_of((), [tensor("a", [4], kind=77)]), "tensor 'a' has the type 77"),
    "type of old": (file_of((), [tensor("a", [4], kind=4)]), "tensor 'a' has the type 4"),
    "half a block": (file_of((), [tensor("a", [31], kind=8)]), "tensor 'a' has rows of 31 numbers; Q8_0"),
    "offset past the end": (file_of((), [tensor("a", [4], offset=2**40)]), "'a' takes 16 bytes .* file ends"),
    "offset wraps": (file_of((), [tensor("a", [4], offset=2**64 - 32)]), "'a' takes 16 bytes"),
    "cut data": (file_of((), [tensor("a", [4, 20])]), "'a' takes 320 bytes .* may have been cut off"),
    "crooked offset": (file_of((), [tensor("a", [4], offset=4)]), "no multiple of the alignment 32"),
    "overlap": (
        file_of((), [tensor("a", [12]), tensor("b", [4], offset=32)]),
        "'b' begins inside tensor 'a'",
    ),
    "same place": (file_of((), [tensor("a", [4]), tensor("b", [4])]), "begins inside"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_field_is_named(case, tmp_path):
    content, message = HOSTILE[case]
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        GGUFFile(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600
    path.unlink()  # on Windows only a closed file can go


def test_many_small_values_do_not_fill_the_memory(tmp_path):
    path = tmp_path / "many.gguf"
    path.write_bytes(file_of([entry("a", 9, struct.pack("<IQ", 7, 5_000_000) + bytes(5_000_000))]))
    with pytest.raises(ValueError, match="metadata 'a' has 5000000 elements; the limit is 4194304"):
        GGUFFile(path)
    path.write_bytes(file_of((), counts=(70_000, 0), data=bytes(70_000 * 40)))
    with pytest.raises(ValueError, match="tensor count is 70000; the limit is 65536"):
        GGUFFile(path)


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "missing.gguf"):
        with pytest.raises(FileNotFoundError, match="there is no GGUF file"):
            load_gguf(path)


# Whole files that say the wrong thing


WRONG = {
    "llama.rope.scaling.type": (put("string", "yarn"), "is 'yarn', which our decoder has nothing for"),
    "llama.expert_count": (put("uint32", 8), "is 8, which our decoder has nothing for"),
    "llama.attention.sliding_window": (put("uint32", 8), "nothing for"),
    "llama.attention.key_length": (put("uint32", 8), "dimension_count' is 16; 8, the width"),
    "llama.attention.value_length": (put("uint32", 24), "value_length' is 24; 16, the width"),
    "split.count": (put("uint16", 3), "lies in several files"),
    "tokenizer.ggml.bos_token_id": (put("uint32", V), f"is {V}; the tokens are 0 to {V - 1}"),
}


@pytest.mark.parametrize("key", WRONG)
def test_an_entry_that_does_not_fit_is_named(key, tmp_path):
    value, message = WRONG[key]
    path = tmp_path / "wrong.gguf"
    write_gguf(path, extra={key: value})
    with pytest.raises(ValueError, match=message) as caught:
        load_gguf(path)
    assert str(path) in str(caught.value)


def rewritten(whole, path, key, value):
    """A copy in which the entry ``key`` (of 4 bytes) has another value."""
    field = gguf.GGUFReader(whole).fields[key]
    at = field.offset + sum(part.nbytes for part in field.parts[:-1])
    content = bytearray(whole.read_bytes())
    content[at : at + 4] = struct.pack("<f" if isinstance(value, float) else "<I", value)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("llama.block_count", 2**32 - 1, "block_count' is 4294967295, and there are 29 tensors"),
        ("llama.block_count", 4, "tensor 'blk.3.attn_norm.weight' is missing"),
        ("llama.block_count", 2, "tensor 'blk.2.attn_norm.weight' is none"),
        ("llama.block_count", 0, "block_count' is 0, expected a positive"),
        ("llama.context_length", 2**32 - 1, "context_length' is 4294967295; .* limit is 2097152 tokens"),
        ("llama.embedding_length", 128, "dimension_count' is 16; 32"),
        ("llama.embedding_length", 0, "embedding_length' is 0"),
        (
            "llama.feed_forward_length",
            2**31,
            "'blk.0.ffn_gate.weight' has the shape .96, 64., expected .2147483648",
        ),
        ("llama.attention.head_count", 3, "dimension_count' is 16; 21"),
        ("llama.attention.head_count", 2**32 - 1, "dimension_count' is 16; 1,"),
        ("llama.attention.head_count_kv", 3, "num_heads=4 is not a multiple of num_kv_heads=3"),
        ("llama.attention.head_count_kv", 1, "'blk.0.attn_k.weight' has the shape"),
        ("llama.rope.freq_base", float("nan"), "freq_base' is nan, expected a positive number"),
        ("llama.rope.freq_base", -1.0, "freq_base' is -1.0"),
        ("llama.attention.layer_norm_rms_epsilon", float("inf"), "epsilon' is inf"),
        ("llama.vocab_size", 127, f"vocab_size' is 127, and token_embd.weight has {V} rows"),
        ("tokenizer.ggml.eos_token_id", 2**32 - 1, "eos_token_id' is 4294967295; the tokens"),
    ],
)
def test_a_size_that_does_not_fit_is_named(whole, tmp_path, key, value, message):
    path = rewritten(whole, tmp_path / "wrong.gguf", key, value)
    with pytest.raises(ValueError, match=message) as caught:
        load_gguf(path)
    assert str(path) in str(caught.value)


def replaced(whole, path, old, new):
    content = whole.read_bytes()
    assert len(old) == len(new)
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            text("llama") + text("llama.context_length"),
            text("bloom") + text("llama.context_length"),
            "is 'bloom'",
        ),
        (text("gpt2"), text("bert"), "tokenizer.ggml.model' is 'bert'"),
        (text("smollm"), text("viking"), "tokenizer.ggml.pre' is 'viking'; 'gpt-2', 'smollm' are read"),
        (text("th e"), text("thee"), "holds 'thee' at position 1, no pair"),
        (text("th e"), text("th \x01"), r"is damaged: merge 1 names '\\x01'"),
        (text("th e"), text("th d"), "is damaged: merge 1 joins b'th' and b'd' to what is no token"),
        (text("ã®"), text("ã¯"), r"is damaged: tokens \d+ and \d+ are both b'\\xe3\\xaf'"),
        (text("the"), text("a n"), "is damaged: token 'a n' is not in GPT-2's spelling"),
        (text("llama.block_count"), text("llama.block_couns"), "block_couns' is 3, which our decoder"),
        (text("tokenizer.ggml.merges"), text("tokenizer.ggml.margis"), "merges' is missing"),
    ],
)
def test_a_name_that_does_not_fit_is_named(whole, tmp_path, old, new, message):
    path = replaced(whole, tmp_path / "wrong.gguf", old, new)
    with pytest.raises(ValueError, match=message):
        load_gguf(path)


def test_numbers_that_are_not_finite_are_named(whole, tmp_path):
    with GGUFFile(whole) as file:
        at = file.tensors["blk.2.ffn_norm.weight"].offset
    content = bytearray(whole.read_bytes())
    content[at + 8 : at + 12] = struct.pack("<f", np.nan)
    path = tmp_path / "nan.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"tensor 'blk.2.ffn_norm.weight' holds a number that is not finite"):
        load_gguf(path)


def test_a_type_that_is_not_read_is_named_with_the_way_out(tmp_path):
    path = tmp_path / "q5.gguf"
    write_gguf(path, quantisation="Q5_0")
    with pytest.raises(ValueError, match=r"token_embd.weight is stored as Q5_0, .*llama-quantize"):
        load_gguf(path)
    with GGUFFile(path) as file:  # what can be read can be read
        assert file.read("output_norm.weight").shape == (64,)


def test_context_length_has_a_range(whole):
    assert load_gguf(whole, context_length=5).config.context_length == 5
    for wrong in (0, 24):
        with pytest.raises(ValueError, match=f"context_length={wrong} must lie between 1 and the model's 23"):
            load_gguf(whole, context_length=wrong)


def test_the_vocabulary_has_the_size_of_the_model():
    assert len(vocabulary()) == V == len(set(vocabulary()))
