"""Diversity against quality: SmolLM2 continues the same passages with every way of choosing the next token.

``python -m llm_from_scratch.recipes.publish diversity`` draws and scores the texts (it fetches SmolLM2
and MiniLM on first use); ``python -m llm_from_scratch.recipes.diversity --table`` prints the stored table.

The prompts come from held-out annual messages, whose true continuation is scored beside the model's.

Legend: B texts, P prompts, R texts a prompt, T positions, V vocabulary entries.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llm_from_scratch.data.corpora import load
from llm_from_scratch.decoding.bad_words import forbid_sequences
from llm_from_scratch.decoding.logits import keep_typical
from llm_from_scratch.decoding.pipeline import run_pipeline, scores_only
from llm_from_scratch.decoding.repetition import forbid_repeated_ngrams, penalise_repetition
from llm_from_scratch.decoding.sampling import next_token_probabilities
from llm_from_scratch.decoding.search import beam_search
from llm_from_scratch.evaluation.diversity import distinct, repeated_share, self_bleu, words
from llm_from_scratch.evaluation.perplexity import from_log_probabilities, token_log_probabilities
from llm_from_scratch.files import write_atomically
from llm_from_scratch.inference.cached_beams import CachedBeams
from llm_from_scratch.inference.generate import CachedModel
from llm_from_scratch.interop.minilm import load_minilm, sentence_embeddings
from llm_from_scratch.interop.smollm2 import load_smollm2
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.recipes.results import load_result
from llm_from_scratch.training.precision import choose_device

NAME = "diversity"
COMMAND = publish_command(NAME)
CORPUS = "sotu"
FIGURES = ("distinct_1", "distinct_2", "self_bleu", "repeated_4", "own_nats", "judge_bits", "likeness")

# Each way: its family, its setting, and what it is made of. Families are the lines of the picture.
WAYS: tuple[tuple[str, str, dict], ...] = (
    ("greedy", "", {"temperature": 0}),
    ("greedy, penalty", "1.2", {"temperature": 0, "penalty": 1.2}),
    ("greedy, no 3-gram twice", "", {"temperature": 0, "ngram": 3}),
    *(("temperature", f"{t}", {"temperature": t}) for t in (0.4, 0.7, 1.0, 1.3)),
    ("top-p", "0.9", {"top_p": 0.9}),
    ("min-p", "0.1", {"min_p": 0.1}),
    ("top-k", "50", {"top_k": 50}),
    ("top-p", "0.6", {"top_p": 0.6}),
    ("min-p", "0.03", {"min_p": 0.03}),
    ("top-k", "10", {"top_k": 10}),
    ("temperature 1.5", "top-p 0.9", {"temperature": 1.5, "top_p": 0.9}),
    ("temperature 1.5", "min-p 0.1", {"temperature": 1.5, "min_p": 0.1}),
    ("beam", "8", {"num_beams": 8}),
)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What all ways share."""

    num_prompts: int = 8  # held-out passages, from as many messages
    num_texts: int = 4  # drawn for each prompt; a search gives one text
    prompt_length: int = 32  # tokens of SmolLM2
    new_tokens: int = 64  # of each text; the tokens that end a text are forbidden, so that all are as long
    seed: int = 0


def make(
    folder: Path,
    *,
    say: Callable[[str], None] = print,
    measurement: Measurement = Measurement(),
    ways: Sequence[tuple[str, str, dict]] = WAYS,
) -> dict[str, object]:
    """Draw the texts of each way, score them, write record.json into ``folder``.

    Each way that is done is kept in a file of its own until all are, so that a run that was interrupted
    goes on where it was.
    """
    where, parts = surroundings(choose_device("cpu")), folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    bench, entries = _Bench(measurement), []
    for family, setting, options in (("human", "", None), *ways):
        started, part = time.perf_counter(), parts / f"{family} {setting}.json".replace(" .", ".")
        wanted = {"measurement": asdict(measurement), "options": options}
        stored = json.loads(part.read_bytes()) if part.is_file() else {}
        if any(stored.get(name) != value for name, value in wanted.items()):
            stored = {**wanted, **bench.run(options)}
            write_atomically(part, json.dumps(stored) + "\n")
        figures, example = stored["figures"], stored["example"]
        entries.append({"family": family, "setting": setting, "figures": figures, "example": example})
        means = ", ".join(f"{name} {mean(values):.3f}" for name, values in figures.items() if values)
        say(f"{family} {setting}: {means}, {time.perf_counter() - started:.0f} s")
    record = {
        "comparison": NAME,
        "command": COMMAND,
        **where,
        "settings": asdict(measurement),
        "prompts": [bench.tokenizer.decode(prompt_T) for prompt_T in bench.prompts_PT.tolist()],
        "ways": entries,
    }
    write_atomically(folder / "record.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    for part in parts.glob("*.json"):
        part.unlink()
    parts.rmdir()
    return record


class _Bench:
    """The models, the prompts and their true continuations, which all ways share."""

    def __init__(self, measurement: Measurement) -> None:
        loaded = load_smollm2()
        self.measurement, self.model, self.tokenizer = measurement, loaded.model, loaded.tokenizer
        self.judge = Judge()
        self.prompts_PT, self.human_PT = passages(loaded.tokenizer, measurement)
        self.cached = CachedModel(loaded.model, room=measurement.new_tokens)  # reads the prompts once

    def run(self, options: dict | None) -> dict[str, object]:
        """The texts of one way, scored, with the first of them as an example; None: the true continuation."""
        given = (self.prompts_PT, end_tokens(self.tokenizer), self.measurement)
        if options is None:
            ids_PRT, nats_PR = self.human_PT[:, None], None
        elif "num_beams" in options:
            ids_PRT, nats_PR = search(self.model, *given, **options), None
        else:
            ids_PRT, nats_PR = draw(self.cached, *given, **options)
        nats_PR = own_nats(self.model, self.prompts_PT, ids_PRT) if nats_PR is None else nats_PR
        figures = score(self.tokenizer, self.judge, self.prompts_PT, ids_PRT, nats_PR)
        return {"figures": figures, "example": self.tokenizer.decode(ids_PRT[0, 0].tolist())}


def passages(tokenizer, measurement: Measurement) -> tuple[Int[Tensor, "P T"], Int[Tensor, "P T"]]:
    """Prompts from the midst of held-out messages, spread over the years, and how they really go on."""
    _, validation = load(CORPUS).split()
    whole = measurement.prompt_length + measurement.new_tokens
    step = len(validation.documents) / measurement.num_prompts
    rows = []
    for number in range(measurement.num_prompts):
        text = validation.documents[int(number * step)].text
        start = text.index("\n", len(text) // 3)  # a paragraph begins here
        rows.append(tokenizer.encode(text[start:].lstrip())[:whole])
    ids_PT = torch.tensor(rows)
    return ids_PT[:, : measurement.prompt_length], ids_PT[:, measurement.prompt_length :]


def end_tokens(tokenizer) -> list[int]:
    """The tokens that end a text or begin a message: no text of the measurement may contain them."""
    return sorted(tokenizer.special_ids.values())


@torch.no_grad()
def draw(
    model: Callable[[Tensor], Tensor],
    prompts_PT: Int[Tensor, "P T"],
    ends: Sequence[int],
    measurement: Measurement,
    *,
    typical_p: float | None = None,
    penalty: float | None = None,
    ngram: int | None = None,
    **settings,
) -> tuple[Int[Tensor, "P R T"], Float[Tensor, "P R"]]:
    """Draw ``num_texts`` texts for each prompt, all of them side by side; the rules are `sample`'s.

    Returns the new tokens, and what `own_nats` gives for them. Temperature 0 draws nothing: all texts
    of a prompt would be the same, so there is one.
    """
    pipeline = [partial(forbid_sequences, sequences=[[i] for i in ends])]
    if penalty is not None:
        pipeline.append(partial(penalise_repetition, penalty=penalty))
    if ngram is not None:
        pipeline.append(partial(forbid_repeated_ngrams, size=ngram))
    if typical_p is not None:
        pipeline.append(scores_only(keep_typical, typical_p=typical_p))
    each = 1 if settings.get("temperature") == 0 else measurement.num_texts
    ids_BT, nats_B1 = prompts_PT.repeat_interleave(each, dim=0), torch.zeros(len(prompts_PT) * each, 1)
    generator = torch.Generator().manual_seed(measurement.seed)
    for _ in range(measurement.new_tokens):
        logits_BV = model(ids_BT)[:, -1].float()
        probs_BV = next_token_probabilities(run_pipeline(pipeline, ids_BT, logits_BV), **settings)
        next_B1 = torch.multinomial(probs_BV, 1, generator=generator)
        nats_B1 -= logits_BV.log_softmax(dim=-1).gather(-1, next_B1) / measurement.new_tokens
        ids_BT = torch.cat((ids_BT, next_B1), dim=1)
    groups = (len(prompts_PT), each)
    return ids_BT[:, prompts_PT.shape[1] :].unflatten(0, groups), nats_B1[:, 0].unflatten(0, groups)


def search(
    model, prompts_PT: Int[Tensor, "P T"], ends: Sequence[int], measurement: Measurement, *, num_beams: int
) -> Int[Tensor, "P 1 T"]:
    """The one text that beam search finds for each prompt."""
    never, found = [partial(forbid_sequences, sequences=[[i] for i in ends])], []
    for prompt_T in prompts_PT:
        result = beam_search(
            CachedBeams(model),
            prompt_T,
            max_new_tokens=measurement.new_tokens,
            num_beams=num_beams,
            pipeline=never,
        )
        found.append([list(result.hypotheses[0].ids)])
    return torch.tensor(found)


class Judge:
    """Two models that did not write the texts: the laptop model, and MiniLM for what a text is about."""

    def __init__(self) -> None:
        self.model, self.tokenizer, _ = load_result("laptop")
        self.minilm = load_minilm()

    def bits_per_byte(self, prompt: str, text: str) -> float:
        """The laptop model's bits for each byte of the text, read behind the prompt."""
        before, ids = self.tokenizer.encode(prompt), self.tokenizer.encode(text)
        scores_N = token_log_probabilities(self.model, [*before, *ids], stride=32)[-len(ids) :]
        return from_log_probabilities(scores_N, num_bytes=len(text.encode())).bits_per_byte

    def likeness(self, prompt: str, texts: Sequence[str]) -> float:
        """The mean cosine between MiniLM's vector of the prompt and those of the texts."""
        vectors_NC = sentence_embeddings(self.minilm, [prompt, *texts])
        return (vectors_NC[1:] @ vectors_NC[0]).mean().item()


def score(
    tokenizer, judge: Judge, prompts_PT: Tensor, ids_PRT: Int[Tensor, "P R T"], nats_PR: Float[Tensor, "P R"]
) -> dict[str, list[float]]:
    """All figures, a number for each prompt; no diversity where a prompt has one text only."""
    figures: dict[str, list[float]] = {name: [] for name in FIGURES}
    for prompt_T, ids_RT, nats_R in zip(prompts_PT, ids_PRT, nats_PR, strict=True):
        prompt = tokenizer.decode(prompt_T.tolist())
        texts = [tokenizer.decode(ids_T) for ids_T in ids_RT.tolist()]
        cut = [words(text) for text in texts]
        found = {
            "repeated_4": mean([repeated_share(text, 4) for text in cut]),
            "own_nats": nats_R.mean().item(),
            "judge_bits": mean([judge.bits_per_byte(prompt, text) for text in texts]),
            "likeness": judge.likeness(prompt, texts),
        }
        if len(cut) > 1:
            found |= {
                "distinct_1": distinct(cut, 1),
                "distinct_2": distinct(cut, 2),
                "self_bleu": self_bleu(cut),
            }
        for name, value in found.items():
            figures[name].append(round(value, 4))
    return figures


@torch.no_grad()
def own_nats(model, prompts_PT: Tensor, ids_PRT: Int[Tensor, "P R T"]) -> Float[Tensor, "P R"]:
    """The mean surprise of each text's tokens under the model itself, at temperature 1, no token dropped."""
    nats = []
    for prompt_T, ids_RT in zip(prompts_PT, ids_PRT, strict=True):
        whole_RT = torch.cat((prompt_T.expand(len(ids_RT), -1), ids_RT), dim=1)
        log_probs_RTV = model(whole_RT[:, :-1])[:, -ids_RT.shape[1] :].log_softmax(dim=-1)
        nats.append(-log_probs_RTV.gather(-1, ids_RT[..., None])[..., 0].mean(dim=-1))
    return torch.stack(nats)


def mean(values: Sequence[float]) -> float:
    """The mean, NaN of nothing.

    >>> mean([1.0, 2.0])
    1.5
    """
    return math.fsum(values) / len(values) if values else math.nan


def load_record(folder: Path | None = None) -> dict[str, object]:
    """Return the stored record: where and when it was made, the prompts, and the figures of each way.

    Raises: FileNotFoundError if there is none; ValueError if it is damaged.

    >>> [way["family"] for way in load_record()["ways"]][:2]
    ['human', 'greedy']
    """
    return read_record(
        NAME,
        folder,
        entries="ways",
        needed=("family", "setting", "figures", "example"),
        also=lambda record: [way["figures"][name] for way in record["ways"] for name in FIGURES],
    )


def diversity_table(record: dict[str, object] | None = None) -> str:
    """Return the means over prompts of a record as lines of text.

    >>> diversity_table().splitlines()[0].split()[:3]
    ['way', 'distinct-2', 'self-BLEU']
    """
    record = load_record() if record is None else record
    columns = {"distinct-2": "distinct_2", "self-BLEU": "self_bleu", "repeated": "repeated_4",
               "nats": "own_nats", "judge": "judge_bits", "likeness": "likeness"}  # fmt: skip
    lines = [f"{'way':25}" + "".join(f"{name:>11}" for name in columns)]
    for way in record["ways"]:
        means = (mean(way["figures"][name]) for name in columns.values())
        cells = "".join(f"{'-':>11}" if math.isnan(value) else f"{value:11.2f}" for value in means)
        lines.append(f"{(way['family'] + ' ' + way['setting']).strip():25}{cells}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the stored table; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=diversity_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
