"""What each head of a trained decoder looks at: attention weights and scores, ready to be drawn.

Legend: L layers, H heads, T positions, B = 1 sequence.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.nn.attention import attention_scores
from llm_from_scratch.nn.masks import causal_mask
from llm_from_scratch.nn.modes import evaluation_mode


@torch.no_grad()
def attention_maps(
    model: Decoder, ids_T: Int[Tensor, "T"] | list[int]
) -> tuple[Float[Tensor, "L H T T"], Float[Tensor, "L H T T"]]:
    """Weights and scores of every head of every layer on one sequence, on the CPU in float32.

    The scores are the scaled products of queries and keys, with the bias by distance of models that
    have one, before mask and softmax. Those of later
    tokens are included, although the model hides them, so that a reader may see what the mask
    removes: ``softmax(scores)`` without the mask, or ``weights`` with it.

    Units: weights are probabilities, row = the token that looks, column = the token looked at.
    Raises: ValueError as `Decoder.forward` does, for ids the model cannot read.

    >>> from llm_from_scratch.models.decoder import DecoderConfig
    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> weights, scores = attention_maps(Decoder(config), [1, 2, 3, 4, 5])
    >>> weights.shape, scores.shape
    (torch.Size([2, 3, 5, 5]), torch.Size([2, 3, 5, 5]))
    """
    ids_BT = torch.as_tensor(ids_T, device=model.output_weight.device)[None]
    scores = []
    with evaluation_mode(model):
        model.check_ids(ids_BT)
        x_BTC, rope = model.embed(ids_BT)
        bias = model.score_bias(ids_BT.shape[1])
        for block in model.blocks:
            q_BHTD, k_BKTD, _ = block.attention.project(block.norm_1(x_BTC), rope)
            scores_BHTT = attention_scores(q_BHTD, k_BKTD, scale=block.attention.scale)
            scores_BHTT = scores_BHTT if bias is None else scores_BHTT + bias
            scores.append(scores_BHTT[0].float().cpu())
            x_BTC = block(x_BTC, rope=rope, bias=bias)
    scores_LHTT = torch.stack(scores)
    hidden_TT = ~causal_mask(ids_BT.shape[1], window=model.config.sliding_window)
    return scores_LHTT.masked_fill(hidden_TT, -torch.inf).softmax(dim=-1), scores_LHTT
