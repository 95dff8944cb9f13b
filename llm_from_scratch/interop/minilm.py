"""all-MiniLM-L6-v2: a small BERT encoder that turns a sentence into a vector, ready to use.

Sentences that mean similar things get vectors in similar directions. The model is Wang et al. 2020's
MiniLM, a 6-layer BERT, trained further on pairs of sentences as in Reimers and Gurevych 2019.

Legend: N sentences, B sentences at a time, T tokens, C = 384 columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from llm_from_scratch.data.artifacts import fetch
from llm_from_scratch.interop.empty import build_empty
from llm_from_scratch.interop.hugging_face.bert import FAMILY
from llm_from_scratch.interop.hugging_face.tensor_files import read_header
from llm_from_scratch.interop.hugging_face.weights import check_entries, fill
from llm_from_scratch.interop.loaded import Loaded
from llm_from_scratch.models.encoder import Encoder, EncoderConfig
from llm_from_scratch.nn.masks import padding_mask
from llm_from_scratch.nn.modes import evaluation_mode
from llm_from_scratch.nn.pooling import mean_pool, unit_length
from llm_from_scratch.tokenizers.wordpiece import PADDING, WordPieceTokenizer

# The published sizes; the package that carries the weights has no config file.
CONFIG = EncoderConfig(
    vocab_size=30_522, context_length=512, d_model=384, num_layers=6, num_heads=12, d_ff=1536
)
MAX_TOKENS = 256  # of a sentence, as in the published model; what is longer is cut


def load_minilm(*, dtype: torch.dtype = torch.float32) -> Loaded:
    """Return all-MiniLM-L6-v2, fetched on first use (91 MB).

    Raises: as `data.artifacts.fetch` does; ValueError for weights of other shapes.
    """
    path = fetch("minilm")
    entries = read_header(path)
    model = build_empty(lambda: Encoder(CONFIG)).to(dtype).eval()
    mapping = FAMILY.mapping(CONFIG, entries)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    check_entries(entries, mapping, shapes, origin=str(path))
    fill(model, entries, mapping)
    return Loaded(model=model, tokenizer=WordPieceTokenizer.from_file(fetch("minilm_vocab")), config=CONFIG)


@torch.no_grad()
def sentence_embeddings(
    loaded: Loaded, sentences: Sequence[str], *, batch_size: int = 32, max_tokens: int = MAX_TOKENS
) -> Float[Tensor, "N C"]:
    """One vector of length 1 for each sentence; the inner product of two says how alike they are.

    Formula: the encoder reads ``[CLS] sentence [SEP]``; the mean of all its vectors, over its length.

    Arguments: ``batch_size`` sentences of similar length are read at once. Tokens past ``max_tokens``,
    [CLS] and [SEP] included, are left out.
    Raises: ValueError for one string in the place of a list, and sizes below 1.
    """
    if isinstance(sentences, str):
        raise ValueError(f"sentences must be a list of strings, got one string: [{sentences!r:.40}]?")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    model, tokenizer = loaded.model, loaded.tokenizer
    device = model.token_embedding.weight.device
    max_tokens = min(max_tokens, loaded.config.context_length)
    ids = [tokenizer.encode_for_bert(sentence, max_tokens=max_tokens)[0] for sentence in sentences]
    found_NC = torch.empty(len(ids), loaded.config.d_model)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    with evaluation_mode(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            lengths_B = torch.tensor([len(ids[i]) for i in chosen])
            T = int(lengths_B.max())
            ids_BT = torch.full((len(chosen), T), tokenizer.special_ids[PADDING])
            for row, i in enumerate(chosen):
                ids_BT[row, : len(ids[i])] = torch.tensor(ids[i])
            mask_B11T = padding_mask(lengths_B, T).to(device)
            x_BTC = model(ids_BT.to(device), mask=mask_B11T)
            found_NC[chosen] = unit_length(mean_pool(x_BTC.float(), mask_B11T[:, 0, 0])).cpu()
    return found_NC
