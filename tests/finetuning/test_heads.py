"""Classifiers: parity with Hugging Face's and with the definition, padding, the loss."""

import pytest
import torch
import torch.nn.functional as F

from llm_from_scratch.finetuning.heads import DecoderClassifier, text_lengths
from llm_from_scratch.interop import load_folder
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from tests.finetuning.conftest import C, V, labelled_batch, tiny_classifier


def tiny_decoder_classifier(**changes):
    torch.manual_seed(5)
    config = DecoderConfig.llama(
        vocab_size=V, context_length=11, d_model=C, num_layers=2, num_heads=3, **changes
    )
    return DecoderClassifier(Decoder(config), num_classes=3, pad_id=0).eval()


def test_the_encoders_logits_are_those_of_each_text_alone():
    model = tiny_classifier().eval()
    ids_BT, _ = labelled_batch(1)
    with torch.no_grad():
        together_BK = model(ids_BT)
        for row, n in enumerate((ids_BT != 0).sum(dim=1).tolist()):
            mean_C = model.encoder(ids_BT[row : row + 1, :n])[0].mean(dim=0)
            alone_K = mean_C @ model.head.weight.T + model.head.bias
            torch.testing.assert_close(together_BK[row], alone_K, atol=1e-6, rtol=1e-5)


def test_the_decoder_reads_the_last_real_token():
    model = tiny_decoder_classifier()
    ids_BT, _ = labelled_batch(2)
    with torch.no_grad():
        together_BK = model(ids_BT)
        for row, n in enumerate((ids_BT != 0).sum(dim=1).tolist()):
            torch.testing.assert_close(together_BK[row : row + 1], model(ids_BT[row : row + 1, :n]))
        # the features are what the output layer reads: through it they give the decoder's own logits
        short_BT = ids_BT[:, :2]
        logits_BV = model.features(short_BT) @ model.decoder.output_weight.T
        torch.testing.assert_close(logits_BV, model.decoder(short_BT)[:, -1])


@pytest.mark.parametrize("positions", ["alibi", "learned", "relative"])
def test_the_decoders_positions_are_used(positions):
    model = tiny_decoder_classifier(positions=positions)
    ids_BT = torch.tensor([[5, 6, 7, 8]])
    logits_BV = model.features(ids_BT) @ model.decoder.output_weight.T
    torch.testing.assert_close(logits_BV, model.decoder(ids_BT)[:, -1])


def test_parity_with_llama_for_sequence_classification(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=V, hidden_size=C, intermediate_size=29, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=3, max_position_embeddings=11, num_labels=3, pad_token_id=0,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(11)
    theirs = LlamaForSequenceClassification(config).eval()
    base = LlamaForCausalLM(config)
    base.model = theirs.model
    base.tie_weights()
    base.save_pretrained(tmp_path)
    ours = DecoderClassifier(load_folder(tmp_path).model, num_classes=3, pad_id=0).eval()
    ids_BT, _ = labelled_batch(3)
    with torch.no_grad():
        ours.head.weight.copy_(theirs.score.weight)
        expected_BK = theirs(input_ids=ids_BT).logits
        torch.testing.assert_close(ours(ids_BT), expected_BK, atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_mean_over_the_labels_that_are_there():
    model = tiny_classifier().eval()
    ids_BT, labels_B = labelled_batch(4)
    assert (labels_B == -100).any()
    logits_BK, loss = model(ids_BT, labels_B)
    torch.testing.assert_close(loss, F.cross_entropy(logits_BK, labels_B))
    none_B = torch.full_like(labels_B, -100)
    loss = model(ids_BT, none_B)[1]
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_it_overfits_one_batch():
    model = tiny_classifier().train()
    batch = labelled_batch(5)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(*batch)[1]
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.02


def test_a_pad_id_inside_a_text_is_part_of_it():
    assert text_lengths(torch.tensor([[3, 0, 3, 0], [3, 3, 3, 3]]), pad_id=0).tolist() == [3, 4]


def test_mistakes_are_named():
    model = tiny_classifier()
    with pytest.raises(ValueError, match="text 1 of the batch is all padding"):
        model(torch.tensor([[1, 2], [0, 0]]))
    with pytest.raises(ValueError, match="labels hold 2"):
        model(torch.tensor([[1, 2]]), torch.tensor([2]))
    with pytest.raises(ValueError, match="num_classes must be 2 or more, got 1"):
        type(model)(model.encoder, num_classes=1, pad_id=0)
    with pytest.raises(ValueError, match="dropout must be"):
        type(model)(model.encoder, num_classes=2, pad_id=0, dropout=1.0)
