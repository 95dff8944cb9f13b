"""A pretrained model and a new layer on top that names the class of a whole text.

Legend: B texts, T positions, C width of the model, K classes.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.models.encoder import Encoder
from llm_from_scratch.models.ids import check_range
from llm_from_scratch.nn.masks import padding_mask
from llm_from_scratch.nn.pooling import mean_pool
from llm_from_scratch.training.validation import NO_TARGET


class TextClassifier(nn.Module):
    """What both classifiers share: one vector a text, a linear layer, and the loss.

    Formula: ``logits = W dropout(features(ids)) + b``; loss ``-mean(log softmax(logits)[label])`` in
    nats a text, over the labels other than -100, and 0 if there is none.

    Arguments: ``d_model``, the width of the features; ``pad_id``, the token that fills a batch behind the
    shorter texts. W begins normal with standard deviation 0.02, b at 0: at first all classes are about
    equally likely.
    Raises: ValueError for fewer than 2 classes, and a dropout outside [0, 1).
    """

    def __init__(self, *, d_model: int, num_classes: int, pad_id: int, dropout: float = 0.0):
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes must be 2 or more, got {num_classes}: one class needs no model")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        self.num_classes, self.pad_id = num_classes, pad_id
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(d_model, num_classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def features(self, ids_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B C"]:
        """One vector a text."""
        raise NotImplementedError

    def forward(
        self, ids_BT: Int[Tensor, "B T"], labels_B: Int[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B K"] | tuple[Float[Tensor, "B K"], Float[Tensor, ""]]:
        """Return ``logits_BK``; with labels ``(logits_BK, loss)``.

        Raises: ValueError for ids or labels out of range, and a text that is all padding.
        """
        if labels_B is not None:
            check_range("labels", labels_B, self.num_classes, NO_TARGET, kinds="classes")
        logits_BK = self.head(self.dropout(self.features(ids_BT)))
        if labels_B is None:
            return logits_BK
        total = F.cross_entropy(logits_BK.float(), labels_B, ignore_index=NO_TARGET, reduction="sum")
        return logits_BK, total / (labels_B != NO_TARGET).sum().clamp(min=1)


class EncoderClassifier(TextClassifier):
    """An encoder, the mean of its vectors over the text, and a linear layer.

    Source: Devlin et al. 2019, section 4.1, for a new linear layer that is trained together with all of
    the encoder. Departure: there the layer reads the vector of [CLS]; here the mean of all vectors, on
    which all-MiniLM-L6-v2 was trained (Reimers and Gurevych 2019, section 3).

    >>> from llm_from_scratch.models.encoder import EncoderConfig
    >>> config = EncoderConfig.bert(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> model = EncoderClassifier(Encoder(config), num_classes=2, pad_id=0)
    >>> ids_BT = torch.tensor([[5, 6, 7], [5, 6, 0]])
    >>> model(ids_BT).shape, model(ids_BT, torch.tensor([1, 0]))[1].shape
    (torch.Size([2, 2]), torch.Size([]))
    """

    def __init__(self, encoder: Encoder, *, num_classes: int, pad_id: int, dropout: float = 0.0):
        super().__init__(
            d_model=encoder.config.d_model, num_classes=num_classes, pad_id=pad_id, dropout=dropout
        )
        self.encoder = encoder

    def features(self, ids_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B C"]:
        """The mean of the encoder's vectors over a text's own tokens."""
        mask_B11T = padding_mask(text_lengths(ids_BT, self.pad_id), ids_BT.shape[1])
        return mean_pool(self.encoder(ids_BT, mask=mask_B11T), mask_B11T[:, 0, 0])


class DecoderClassifier(TextClassifier):
    """A decoder, its vector at a text's last token, and a linear layer.

    Only the last token has seen the whole text. Since no token sees what comes after it, padding at the
    end changes nothing, and no mask is needed.

    Source: Radford et al. 2018, section 3.2.

    >>> from llm_from_scratch.models.decoder import DecoderConfig
    >>> config = DecoderConfig.llama(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> DecoderClassifier(Decoder(config), num_classes=3, pad_id=0)(torch.tensor([[5, 6, 0]])).shape
    torch.Size([1, 3])
    """

    def __init__(self, decoder: Decoder, *, num_classes: int, pad_id: int, dropout: float = 0.0):
        super().__init__(
            d_model=decoder.config.d_model, num_classes=num_classes, pad_id=pad_id, dropout=dropout
        )
        self.decoder = decoder

    def features(self, ids_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B C"]:
        """The decoder's normalised vector at each text's last token: what its output layer would read."""
        lengths_B = text_lengths(ids_BT, self.pad_id)
        self.decoder.check_ids(ids_BT)
        x_BTC, rope = self.decoder.embed(ids_BT)
        bias = self.decoder.score_bias(ids_BT.shape[1])
        for block in self.decoder.blocks:
            x_BTC = block(x_BTC, rope=rope, bias=bias)
        rows_B = torch.arange(len(ids_BT), device=ids_BT.device)
        return self.decoder.norm(x_BTC[rows_B, lengths_B - 1])


def text_lengths(ids_BT: Int[Tensor, "B T"], pad_id: int) -> Int[Tensor, "B"]:
    """The number of tokens of each text: all up to the last one that is not ``pad_id``.

    Raises: ValueError for a text that is all padding.

    >>> text_lengths(torch.tensor([[5, 6, 7], [5, 0, 0], [0, 5, 0]]), pad_id=0).tolist()
    [3, 1, 2]
    """
    places_T = torch.arange(1, ids_BT.shape[1] + 1, device=ids_BT.device)
    lengths_B = ((ids_BT != pad_id) * places_T).amax(dim=1)
    if ids_BT.device.type == "cpu" and not lengths_B.all():
        row = int((lengths_B == 0).nonzero()[0])
        raise ValueError(f"text {row} of the batch is all padding (pad_id {pad_id}): leave empty texts out")
    return lengths_B
