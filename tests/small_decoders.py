"""Small decoders whose scores depend on every token, and ids to read: what the tests of inference share."""

import torch

from llm_from_scratch.inference import cached_forward
from llm_from_scratch.models.decoder import Decoder


def build(config, seed=0, noise=0.2):
    """A model with weights far enough from 0 for its scores to depend on every token."""
    torch.manual_seed(seed)
    model = Decoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return model


def ids_like(B, T, seed=0):
    """Random ids of a vocabulary of 31."""
    return torch.randint(31, (B, T), generator=torch.Generator().manual_seed(seed))


def in_pieces(model, ids_BT, sizes, cache):
    """The scores of a text that is read in pieces of these sizes."""
    return torch.cat([cached_forward(model, piece, cache) for piece in ids_BT.split(sizes, dim=1)], dim=1)
