"""The views that the browser tests open: random attention and logits, ordinary and hostile tokens."""

import torch

from llm_from_scratch.widgets import AttentionExplorer, SamplingPlayground

SENTENCE = ["The", " cat", " sat", " on", " the", " mat", "."]
HOSTILE = [
    "</script><img src=x onerror=window.hacked=1>",
    "<!--<script>",
    "שלום עולם",
    "\U0001f469\u200d\U0001f4bb",
    'a,b\n"c"',
    "",
    "=SUM(A1:A9)",
    "x" * 300,
    "\u202eevil",
    "\ud800",
    "&lt;b&gt;",
]


def softmax(scores_LHTT, *, causal):
    if causal:
        allowed = torch.ones(scores_LHTT.shape[-2:], dtype=torch.bool).tril()
        scores_LHTT = scores_LHTT.masked_fill(~allowed, -torch.inf)
    return scores_LHTT.softmax(-1)


def attention_view(tokens=SENTENCE, *, layers=2, heads=3, seed=0, causal=True, scores=True, **options):
    """An explorer, and the scores it was made of."""
    generator = torch.Generator().manual_seed(seed)
    scores_LHTT = 2 * torch.randn(
        layers, heads, len(tokens), len(tokens), generator=generator, dtype=torch.float64
    )
    weights_LHTT = softmax(scores_LHTT, causal=causal)
    given = scores_LHTT if scores else None
    return AttentionExplorer(tokens, weights_LHTT, given, causal, **options), scores_LHTT


def sampling_view(size=5003, *, seed=0, tokens=None, **options):
    """A playground, and the logits it was made of; more tokens than travel as float32."""
    generator = torch.Generator().manual_seed(seed)
    tokens = [f" w{i}" for i in range(size)] if tokens is None else tokens
    logits_V = 2.5 * torch.randn(len(tokens), generator=generator, dtype=torch.float64)
    return SamplingPlayground(tokens, logits_V, "The cat sat on the", **options), logits_V


def wait_until(page, expression):
    """Wait until a JavaScript expression is true: on a busy machine any fixed pause is too short."""
    page.wait_for_function(expression, timeout=5000, polling=20)
