"""How far results of `transformers` and of our code lie apart when both have the same weights.

``python -m llm_from_scratch.interop.parity`` builds a small random model of each family with
`transformers`, saves it as a folder, loads the folder with `load_folder`, runs both models on the same
tokens, and prints a table. It needs the extra ``interop``.

Sizes are odd or prime, and differ, wherever the architecture leaves them free, so that no two of them
can be mistaken for each other.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llm_from_scratch.interop.hugging_face import load_folder
from llm_from_scratch.interop.hugging_face.folder import FAMILIES
from llm_from_scratch.interop.hugging_face.weights import Mapping

BOUND = 1e-5  # largest difference of a logit that passes, absolute, in float32
GRADIENT_BOUND = 1e-4  # of a gradient, relative to the largest of its tensor

_NO_IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
_GPT2 = {
    "vocab_size": 101, "n_positions": 23, "n_embd": 35, "n_layer": 3, "n_head": 5, "n_inner": 53, **_NO_IDS,
}  # fmt: skip
_LLAMA = {
    "vocab_size": 103, "max_position_embeddings": 29, "hidden_size": 84, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 59, **_NO_IDS,
}  # fmt: skip
_BERT = {
    "vocab_size": 107, "max_position_embeddings": 31, "hidden_size": 35, "num_hidden_layers": 3,
    "num_attention_heads": 5, "intermediate_size": 43, "type_vocab_size": 3,
}  # fmt: skip
_T5 = {
    "vocab_size": 109, "d_model": 26, "d_kv": 7, "d_ff": 37, "num_layers": 2, "num_decoder_layers": 3,
    "num_heads": 5, "relative_attention_num_buckets": 14, "relative_attention_max_distance": 17,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model of `transformers`: its class, its config, and what is special about it."""

    family: str
    what: str
    model_class: str
    fields: dict[str, Any]

    def build(self, seed: int = 7) -> nn.Module:
        """Build it with random weights, larger than at the start of training, so that errors show."""
        import transformers

        model_class = getattr(transformers, self.model_class)
        torch.manual_seed(seed)
        config = model_class.config_class(**self.fields, attn_implementation="eager")
        model = model_class(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model


CASES = (
    Case("GPT-2", "tied output layer", "GPT2LMHeadModel", _GPT2),
    Case("GPT-2", "untied, exact GELU", "GPT2LMHeadModel",
         {**_GPT2, "tie_word_embeddings": False, "activation_function": "gelu"}),
    Case("Llama", "grouped queries", "LlamaForCausalLM", _LLAMA),
    Case("Llama", "one key head, tied", "LlamaForCausalLM",
         {**_LLAMA, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    Case("Llama", "wide heads, biases, other base", "LlamaForCausalLM",
         {**_LLAMA, "head_dim": 22, "attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-5,
          "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    Case("Llama", "positions scaled (llama3)", "LlamaForCausalLM",
         {**_LLAMA, "rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0,
          "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 7}}),
    Case("Llama", "positions scaled (yarn)", "LlamaForCausalLM",
         {**_LLAMA, "rope_parameters": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0,
          "original_max_position_embeddings": 7}}),
    Case("Mistral", "window of 7 tokens", "MistralForCausalLM", {**_LLAMA, "sliding_window": 7}),
    Case("Qwen2", "biases of q, k, v", "Qwen2ForCausalLM", {**_LLAMA, "tie_word_embeddings": True}),
    Case("Qwen3", "norms of q and k", "Qwen3ForCausalLM", {**_LLAMA, "head_dim": 10}),
    Case("BERT", "both heads, padded pairs", "BertForPreTraining", _BERT),
    Case("BERT", "masked-language head, untied", "BertForMaskedLM",
         {**_BERT, "tie_word_embeddings": False, "hidden_act": "gelu_new"}),
    Case("BERT", "no head", "BertModel", _BERT),
    Case("T5", "ReLU, tied", "T5ForConditionalGeneration", _T5),
    Case("T5", "gated GELU, unscaled logits", "T5ForConditionalGeneration",
         {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
          "initializer_factor": 0.4}),
)  # fmt: skip


def inputs(vocab_size: int, num_segments: int = 1, seed: int = 3) -> dict[str, Tensor]:
    """Random ids, segments, and a mask that hides the end of some sequences.

    Id 0 is left out: it is padding to BERT in `transformers`, which gives its embedding no gradient.
    """
    generator = torch.Generator().manual_seed(seed)
    B, T, S = 3, 19, 13
    return {
        "ids_BT": torch.randint(1, vocab_size, (B, T), generator=generator),
        "segments_BT": torch.randint(num_segments, (B, T), generator=generator),
        "source_BS": torch.randint(1, vocab_size, (B, S), generator=generator),
        "keep_BT": torch.arange(T) < torch.tensor([[T], [11], [2]]),
        "keep_BS": torch.arange(S) < torch.tensor([[S], [7], [1]]),
    }


def results(ours: nn.Module, theirs: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Run both models on the same tokens: pairs of what ours and theirs give, padding left out."""
    segments = getattr(ours.config, "num_segments", 1)
    given = inputs(ours.config.vocab_size, segments)
    kind = theirs.config.model_type
    if kind == "t5":
        ids_BT, source_BS, keep_BS = given["ids_BT"], given["source_BS"], given["keep_BS"]
        expected = theirs(input_ids=source_BS, attention_mask=keep_BS.long(), decoder_input_ids=ids_BT)
        return [(ours(source_BS, ids_BT, source_mask=keep_BS[:, None, None]), expected.logits)]
    if kind != "bert":
        return [(ours(given["ids_BT"]), theirs(given["ids_BT"]).logits)]
    ids_BT, segments_BT, keep_BT = given["ids_BT"], given["segments_BT"], given["keep_BT"]
    expected = theirs(ids_BT, attention_mask=keep_BT.long(), token_type_ids=segments_BT)
    hidden_BTC = ours(ids_BT, segments_BT, mask=keep_BT[:, None, None])
    pairs = []
    if "last_hidden_state" in expected:
        pairs.append((hidden_BTC[keep_BT], expected.last_hidden_state[keep_BT]))
    if expected.get("pooler_output") is not None:
        pairs.append((ours.pool(hidden_BTC), expected.pooler_output))
    for name in ("logits", "prediction_logits"):
        if name in expected:
            pairs.append((ours.masked_logits(hidden_BTC)[keep_BT], expected[name][keep_BT]))
    if "seq_relationship_logits" in expected:
        pairs.append((ours.next_sentence_logits(hidden_BTC), expected.seq_relationship_logits))
    return pairs


def gradient_difference(ours: nn.Module, theirs: nn.Module, pairs: list[tuple[Tensor, Tensor]]) -> float:
    """The largest difference of a gradient, relative to the largest gradient of its tensor.

    The function that is differentiated is the mean square of all results.
    """
    for index, model in enumerate((ours, theirs)):
        model.zero_grad(set_to_none=True)
        sum(pair[index].square().mean() for pair in pairs).backward()
    own = dict(ours.named_parameters())
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    largest = 0.0
    for move in _mapping(ours, theirs).moves:
        for name, gradient in zip(move.theirs, move.places(own[move.ours].grad), strict=True):
            scale = expected[name].abs().max().item()
            # A gradient that is zero by symmetry (the biases of keys) is rounding noise in both models.
            largest = max(largest, (gradient - expected[name]).abs().max().item() / max(scale, 1e-4))
    return largest


def _mapping(ours: nn.Module, theirs: nn.Module) -> Mapping:
    kind = theirs.config.model_type
    family = next(family for family in FAMILIES if kind in family.model_types)
    return family.mapping(ours.config, list(theirs.state_dict()))


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    family: str
    what: str
    sizes: str  # layers, width, heads
    logits: float  # largest difference, absolute
    gradients: float  # largest difference, relative


def compare(case: Case) -> Row:
    """Build, save, load and run one case."""
    theirs = case.build()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load_folder(Path(folder)).model
    pairs = results(ours, theirs)
    return Row(
        family=case.family,
        what=case.what,
        sizes=_sizes(ours.config),
        logits=max((mine - expected).abs().max().item() for mine, expected in pairs),
        gradients=gradient_difference(ours, theirs, pairs),
    )


def _sizes(config: Any) -> str:
    """Layers, width and heads, such as "2 x 84, 6, 3 of keys"; encoder + decoder layers of two stacks."""
    layers = f"{config.num_layers}"
    if hasattr(config, "num_decoder_layers"):
        layers += f"+{config.num_decoder_layers}"
    kv_heads = getattr(config, "num_kv_heads", config.num_heads)
    shared = f", {kv_heads} of keys" if kv_heads != config.num_heads else ""
    return f"{layers} x {config.d_model}, {config.num_heads}{shared}"


def table(cases: tuple[Case, ...] = CASES) -> list[Row]:
    """Compare all cases, without the progress bars and notes of `transformers`."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return [compare(case) for case in cases]


def main(write: Callable[[str], Any] = print) -> int:
    """Print the table; return 1 if a difference is above its bound."""
    rows = table()
    write(f"{'family':8} {'variant':31} {'layers x width, heads':24} {'logits':>7} {'gradients':>9}")
    for row in rows:
        write(f"{row.family:8} {row.what:31} {row.sizes:24} {row.logits:7.0e} {row.gradients:9.0e}")
    write(f"logits: largest difference in float32, at most {BOUND:.0e}")
    write(f"gradients: relative to the largest of the same tensor, at most {GRADIENT_BOUND:.0e}")
    return int(any(row.logits > BOUND or row.gradients > GRADIENT_BOUND for row in rows))


if __name__ == "__main__":
    sys.exit(main())
