"""BERT's joint loss: against transformers, part by part, and learned on one batch."""

import pytest
import torch
import torch.nn.functional as F

from llm_from_scratch.interop.hugging_face import load_folder
from llm_from_scratch.models.encoder import Encoder, EncoderConfig
from llm_from_scratch.models.encoder_pretraining import PretrainingEncoder

V, T, PAD, CLS, SEP, MASK = 31, 13, 0, 2, 3, 4


def model(seed=0):
    torch.manual_seed(seed)
    config = EncoderConfig.bert(vocab_size=V, context_length=T, d_model=12, num_layers=2, num_heads=3)
    return PretrainingEncoder(Encoder(config), sep_id=SEP, pad_id=PAD, cls_id=CLS, mask_id=MASK)


def batch():
    ids_BT = torch.tensor([[2, 5, 4, 7, 3, 8, 4, 3, 0, 0, 0], [2, 9, 3, 4, 11, 12, 13, 14, 15, 16, 3]])
    targets_BT = torch.full_like(ids_BT, -100)
    targets_BT[0, 2], targets_BT[0, 6], targets_BT[1, 3] = 6, 9, 10
    targets_BT[:, 0] = torch.tensor([0, 1])
    return ids_BT, targets_BT


def test_the_loss_is_the_sum_of_both():
    m, (ids_BT, targets_BT) = model(), batch()
    segments_BT = torch.tensor([[0] * 5 + [1] * 3 + [1] * 3, [0] * 3 + [1] * 8])
    x_BTC = m.encoder(ids_BT, segments_BT, mask=(ids_BT != PAD)[:, None, None, :])
    logits_BTV = m.encoder.masked_logits(x_BTC)
    words = F.cross_entropy(logits_BTV[[0, 0, 1], [2, 6, 3]], torch.tensor([6, 9, 10]))
    follows = F.cross_entropy(m.encoder.next_sentence_logits(x_BTC), torch.tensor([0, 1]))
    logits_NV, loss = m(ids_BT, targets_BT)
    torch.testing.assert_close(loss, words + follows, rtol=0, atol=1e-6)
    torch.testing.assert_close(logits_NV, logits_BTV[[0, 0, 1], [2, 6, 3]], rtol=0, atol=1e-6)
    targets_BT[:, 0] = -100
    torch.testing.assert_close(m(ids_BT, targets_BT)[1], words, rtol=0, atol=1e-6)
    targets_BT[:] = -100
    assert m(ids_BT, targets_BT)[1].item() == 0.0


def test_padding_changes_nothing():
    m, (ids_BT, targets_BT) = model(), batch()
    alone = m(ids_BT[:1, :8], targets_BT[:1, :8])[0]
    torch.testing.assert_close(m(ids_BT[:1], targets_BT[:1])[0], alone, rtol=0, atol=1e-6)


def test_the_loss_is_that_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=29,
        max_position_embeddings=T, pad_token_id=PAD,
    )  # fmt: skip
    theirs = transformers.BertForPreTraining(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    theirs.save_pretrained(tmp_path)
    ours = PretrainingEncoder(load_folder(tmp_path, tokenizer=False).model.eval(), sep_id=SEP, pad_id=PAD)
    ids_BT, targets_BT = batch()
    segments_BT = torch.tensor([[0] * 5 + [1] * 3 + [0] * 3, [0] * 3 + [1] * 8])
    labels_BT = targets_BT.clone()
    labels_BT[:, 0] = -100
    expected = theirs(
        ids_BT, attention_mask=(ids_BT != PAD).long(), token_type_ids=segments_BT, labels=labels_BT,
        next_sentence_label=targets_BT[:, 0],
    ).loss  # fmt: skip
    torch.testing.assert_close(ours(ids_BT, targets_BT)[1], expected, rtol=0, atol=1e-5)


def test_overfits_one_batch():
    m, (ids_BT, targets_BT) = model(), batch()
    optimizer = torch.optim.Adam(m.parameters(), lr=1e-2)
    for _ in range(80):
        _, loss = m(ids_BT, targets_BT)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_blanks_hide_one_place_each():
    m, ids = model().eval(), [7, 8, 9, 10]
    rows_TV = m.blank_probabilities(ids)
    assert rows_TV.shape == (4, V)
    torch.testing.assert_close(rows_TV.sum(dim=1), torch.ones(4))
    with torch.no_grad():
        x_BTC = m.encoder(torch.tensor([[CLS, 7, 8, MASK, 10, SEP]]))
        expected_V = m.encoder.masked_logits(x_BTC)[0, 3].softmax(-1)
    torch.testing.assert_close(rows_TV[2], expected_V, rtol=0, atol=1e-6)
    changed_TV = m.blank_probabilities([7, 8, 20, 10])
    torch.testing.assert_close(changed_TV[2], rows_TV[2])  # the hidden token is not seen
    assert not torch.allclose(changed_TV[1], rows_TV[1], atol=1e-6)


def test_mistakes_are_named():
    for ids in ([], [5] * (T - 1)):
        with pytest.raises(ValueError, match="fills blanks in 1 to 11"):
            model().blank_probabilities(ids)
    with pytest.raises(ValueError, match="cls_id and mask_id"):
        PretrainingEncoder(model().encoder, sep_id=SEP, pad_id=PAD).blank_probabilities([5])
