"""Documents and a tokenizer for the tests of shards, and a preparation for test_prepare.py to kill."""

import json
import sys
import time
from pathlib import Path

from llm_from_scratch.data import shard_writer
from llm_from_scratch.data.prepare import Preparation, prepare
from llm_from_scratch.tokenizers import BytePairTokenizer, load_tokenizer

END = "<|endoftext|>"
TEXTS = [f"document {i} " + "naïve 中文 peace and union " * (i * i % 17) + str(i) for i in range(60)]
SETTINGS = Preparation(shard_tokens=500, validation=0.1)


def tiny_tokenizer():
    return BytePairTokenizer.train(TEXTS[:5], vocab_size=300, special_tokens=[END])


def write_jsonl(path, texts=TEXTS):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def content(folder):
    """Every file that matters, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


if __name__ == "__main__":  # slowly, so that it can be killed in the middle
    real = shard_writer.write_atomically

    def slow(path, data):
        real(path, data)
        print(Path(path).name, flush=True)
        time.sleep(0.1)

    shard_writer.write_atomically = slow
    source, tokenizer, out, workers = sys.argv[1:]
    prepare(
        [source], tokenizer=load_tokenizer(tokenizer), out=Path(out), settings=SETTINGS, workers=int(workers)
    )
