"""Tiny published models and files of data, so that whole fine-tunings take a moment."""

import json

import torch

from llm_from_scratch.interop import save_folder
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.models.encoder import Encoder, EncoderConfig
from llm_from_scratch.recipes.finetuning import chosen
from llm_from_scratch.recipes.finetuning.run import finetune
from llm_from_scratch.tokenizers import BytePairTokenizer, WordPieceTokenizer
from llm_from_scratch.training.distributed import open_strategy

GOOD, BAD = ("fine", "great", "lovely"), ("dull", "poor", "awful")
NOUNS = "film plot cast scene music story ending hero song script joke villain".split()  # noqa: SIM905
TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)
TINY = {
    "steps": 6,
    "batch_size": 4,
    "eval_every": 2,
    "eval_batches": 2,
    "device": "cpu",
    "context_length": 24,
}
SMALL_ADAPTERS = {"method": "lora", "rank": 2}


def write_bases(folder):
    """An encoder with word pieces and a decoder with byte pairs, random, as Hugging Face folders."""
    torch.manual_seed(3)
    words = [*"[PAD] [UNK] [CLS] [SEP] [MASK] a the is and".split(), *GOOD, *BAD, *NOUNS]  # noqa: SIM905
    encoder = Encoder(
        EncoderConfig(
            vocab_size=len(words), context_length=31, d_model=10, num_layers=2, num_heads=2, d_ff=14
        )
    )
    save_folder(encoder, folder / "encoder", WordPieceTokenizer(words))
    tokenizer = BytePairTokenizer.train(
        " ".join([*GOOD, *BAD, *NOUNS]), vocab_size=290, special_tokens=["<|endoftext|>"]
    )
    decoder = Decoder(
        DecoderConfig.llama(
            vocab_size=tokenizer.vocab_size, context_length=150, d_model=12, num_layers=2, num_heads=3
        )
    )
    settings = {"special_tokens": {"eos_token": "<|endoftext|>"}, "chat_template": TEMPLATE}
    save_folder(decoder, folder / "decoder", tokenizer, **settings)


def write_data(folder):
    """Files of each kind that a recipe reads."""
    rows = [
        (f"the {noun} is {word} and the {other} is {word}", label)
        for label, words in (("good", GOOD), ("bad", BAD))
        for word in words
        for noun in NOUNS
        for other in NOUNS[:3]
    ]
    lines = "".join(f"{text},{label}\n" for text, label in rows)
    (folder / "films.csv").write_text("text,label\n" + lines, encoding="utf-8")
    asked = [(f"is the {noun} {word}?", word) for noun in NOUNS for word in GOOD]
    talks = [{"prompt": question, "answer": f"it is {word}"} for question, word in asked]
    pairs = [{"prompt": q, "chosen": f"it is {w}", "rejected": "it is dull"} for q, w in asked]
    for name, objects in (("talks", talks), ("pairs", pairs)):
        content = "".join(json.dumps(entry) + "\n" for entry in objects)
        (folder / f"{name}.jsonl").write_text(content, encoding="utf-8")
    (folder / "text.txt").write_text(" ".join(text for text, _ in rows[::2]), encoding="utf-8")


RECIPES = {  # the recipe, its tiny base, its file
    "classify": ("sms_spam", "encoder", "films.csv"),
    "classify_by_decoder": ("sms_spam", "decoder", "films.csv"),
    "continue": ("sotu_century", "decoder", "text.txt"),
    "instruct": ("smollm2_tasks", "decoder", "talks.jsonl"),
    "prefer": ("smollm2_preferences", "decoder", "pairs.jsonl"),
}


def fields_of(folder, task, **changes):
    """A recipe's name, and the fields that make it tiny."""
    name, base, data = RECIPES[task]
    fields = {**TINY, "base": str(folder / base), "data": str(folder / data)}
    if task == "continue":
        fields |= {"first_year": None}
    return name, {**fields, **changes}


def run(folder, task, out, *, resume=False, strategy="single", **changes):
    """Fine-tune; return the record."""
    name, fields = fields_of(folder, task, **changes)
    recipe = chosen(name, {} if resume else fields, out if resume else None)
    sharing = open_strategy(strategy, torch.device("cpu"))
    record = finetune(recipe, out=out, resume=resume, strategy=sharing)
    sharing.finish()
    return record


def run_process(folder, task, out, strategy, changes):
    """Be one process of a run."""
    run(folder, task, out, strategy=strategy, **changes)
