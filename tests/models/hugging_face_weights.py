"""Move weights between a `Decoder` and the same model in `transformers`, for the parity tests.

Nothing here computes: each line says where one array goes. GPT-2's linear layers there store
[in, out] where torch's store [out, in], hence the transposes.
"""

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from llm_from_scratch.models.decoder import DecoderConfig


def gpt2_like(config: DecoderConfig) -> GPT2LMHeadModel:
    """A random GPT-2 of `transformers` with the sizes of ``config``."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.context_length,
            n_embd=config.d_model,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            n_inner=config.d_ff,
            activation_function="gelu" if config.feedforward == "gelu_exact" else "gelu_new",
            layer_norm_epsilon=config.norm_eps,
            tie_word_embeddings=config.tie_embeddings,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            attn_implementation="eager",
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def llama_like(config: DecoderConfig) -> LlamaForCausalLM:
    """A random Llama of `transformers` with the sizes of ``config``."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            max_position_embeddings=config.context_length,
            hidden_size=config.d_model,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            intermediate_size=config.d_ff,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
            tie_word_embeddings=config.tie_embeddings,
            attn_implementation="eager",
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=None,
        )
    )


def from_gpt2(arrays: dict[str, torch.Tensor], config: DecoderConfig) -> dict[str, torch.Tensor]:
    """A `Decoder`'s state from GPT-2's arrays: its weights, or the gradients of its weights."""
    state = {
        "token_embedding.weight": arrays["transformer.wte.weight"],
        "position_embedding.weight": arrays["transformer.wpe.weight"],
        "norm.weight": arrays["transformer.ln_f.weight"],
        "norm.bias": arrays["transformer.ln_f.bias"],
    }
    if not config.tie_embeddings:
        state["head.weight"] = arrays["lm_head.weight"]
    modules = {
        "norm_1": "ln_1",
        "norm_2": "ln_2",
        "attention.qkv": "attn.c_attn",
        "attention.output": "attn.c_proj",
        "feedforward.up": "mlp.c_fc",
        "feedforward.down": "mlp.c_proj",
    }
    for layer in range(config.num_layers):
        for ours, theirs in modules.items():
            for kind in ("weight", "bias"):
                array = arrays[f"transformer.h.{layer}.{theirs}.{kind}"]
                state[f"blocks.{layer}.{ours}.{kind}"] = array.T if array.dim() == 2 else array
    return state


def from_llama(arrays: dict[str, torch.Tensor], config: DecoderConfig) -> dict[str, torch.Tensor]:
    """A `Decoder`'s state from Llama's arrays: its weights, or the gradients of its weights."""
    state = {
        "token_embedding.weight": arrays["model.embed_tokens.weight"],
        "norm.weight": arrays["model.norm.weight"],
    }
    if not config.tie_embeddings:
        state["head.weight"] = arrays["lm_head.weight"]
    modules = {
        "norm_1": "input_layernorm",
        "norm_2": "post_attention_layernorm",
        "attention.output": "self_attn.o_proj",
        "feedforward.gate": "mlp.gate_proj",
        "feedforward.up": "mlp.up_proj",
        "feedforward.down": "mlp.down_proj",
    }
    for layer in range(config.num_layers):
        theirs = f"model.layers.{layer}"
        for ours, name in modules.items():
            state[f"blocks.{layer}.{ours}.weight"] = arrays[f"{theirs}.{name}.weight"]
        qkv = [arrays[f"{theirs}.self_attn.{part}_proj.weight"] for part in "qkv"]
        state[f"blocks.{layer}.attention.qkv.weight"] = torch.cat(qkv)
    return state
