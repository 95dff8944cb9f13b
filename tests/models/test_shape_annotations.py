"""The shapes in the signatures are true: jaxtyping and beartype check them in another process."""

import subprocess
import sys

SETUP = """
from jaxtyping import install_import_hook

models = ("decoder", "encoder", "encoder_heads", "encoder_decoder", "loss", "attention_maps")
names = ("nn", "decoding", "evaluation", "inference", *(f"models.{name}" for name in models))
parts = [f"llm_from_scratch.{name}" for name in names]
install_import_hook(parts, "beartype.beartype")
import torch
from llm_from_scratch import decoding, evaluation, inference, nn
from llm_from_scratch.models.attention_maps import attention_maps
from llm_from_scratch.models.decoder import Decoder, DecoderConfig, next_token_loss
from llm_from_scratch.models.encoder import Encoder, EncoderConfig
from llm_from_scratch.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, shift_right

sizes = dict(vocab_size=31, context_length=13, d_model=84, num_layers=2, num_heads=6)
models = [Decoder(DecoderConfig.gpt2(**sizes)), Decoder(DecoderConfig.llama(**sizes, num_kv_heads=3))]
"""

RIGHT = """
ids = torch.randint(31, (3, 11))
mask = nn.padding_mask(torch.tensor([11, 7, 2]), 11)
for model in models:
    model(ids)
    model(ids, ids, mask=mask, return_attention=True)
    model.output_weight
    attention_maps(model, ids[0])
    attention_maps(model, [1, 2, 3])
    decoding.sample(model, [1, 2], max_new_tokens=3, temperature=0.7, top_k=9, top_p=0.9, min_p=0.01)
    evaluation.evaluate(model, ids.flatten(), num_bytes=50)
    inference.generate(model, [1, 2], max_new_tokens=3)
    inference.cached_forward(model.eval(), ids, inference.KVCache.for_model(model, batch_size=3))
q, k, v = torch.randn(2, 6, 5, 11), torch.randn(2, 3, 7, 11), torch.randn(2, 3, 7, 11)
nn.attention(q, k, v, mask=nn.causal_mask(5, 7))
nn.fused_attention(q, k, v, is_causal=True)
nn.layer_norm(torch.randn(3, 5), torch.ones(5), torch.ones(5))
nn.rms_norm(torch.randn(2, 3, 5), torch.ones(5))
nn.apply_rotary(torch.randn(2, 6, 5, 8), *nn.rotary_table(5, 8))
nn.attention(q, k, v, mask=nn.causal_mask(5, 7), bias=nn.RelativeBias(num_heads=6)(5, 7))
nn.fused_attention(q, k, v, is_causal=True, bias=torch.randn(2, 6, 5, 7))
nn.relative_position_bucket(torch.arange(-3, 4))
bert = Encoder(EncoderConfig.bert(**sizes))
hidden, weights = bert(ids, ids % 2, mask=mask, return_attention=True)
bert.masked_logits(hidden), bert.masked_logits(hidden[ids > 3]), bert.next_sentence_logits(hidden)
for config in (EncoderDecoderConfig.transformer(**sizes),
               EncoderDecoderConfig.t5(**sizes, feedforward="geglu", tie_embeddings=False)):
    model = EncoderDecoder(config)
    model(ids, shift_right(ids[:, :5], start_id=0), ids[:, :5], source_mask=mask)
    model.decode(ids[:, :5], model.encode(ids, mask), mask, return_attention=True)
"""

WRONG = {
    "keys of another width": "nn.attention(torch.randn(2, 6, 5, 11), *torch.randn(2, 2, 6, 7, 13))",
    "fewer values than keys": "nn.attention(*torch.randn(2, 1, 2, 5, 3), torch.randn(1, 2, 4, 3))",
    "ids without a batch": "models[0](torch.randint(31, (11,)))",
    "a weight of another width": "nn.rms_norm(torch.randn(2, 3, 5), torch.ones(3))",
    "targets of another length": "next_token_loss(torch.randn(2, 5, 7), torch.randint(7, (2, 4)))",
    "a batch of one axis": "Encoder(EncoderConfig.bert(**sizes))(torch.randint(31, (11,)))",
    "scores of whole numbers": "decoding.keep_top_k(torch.tensor([[1, 2]]), top_k=1)",
}


def run(code):
    return subprocess.run([sys.executable, "-c", SETUP + code], capture_output=True, text=True, timeout=120)


def test_every_public_function_keeps_its_own_annotations():
    result = run(RIGHT)
    assert result.returncode == 0, result.stderr[-3000:]


def test_the_annotations_are_checked():
    """A check that lets everything pass would pass the test above: each wrong shape is caught."""
    code = "from jaxtyping import TypeCheckError\n"
    for name, call in WRONG.items():
        code += f"try:\n    {call}\nexcept TypeCheckError:\n    print({name!r})\n"
    assert run(code).stdout.splitlines() == list(WRONG)
