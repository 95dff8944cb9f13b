"""The live controls: callbacks called in this process, with a model and tokenizer small enough to read."""

import builtins
import json
import re

import pytest
import torch

from llm_from_scratch.widgets import AttentionExplorer, SamplingPlayground, live

V = 11


class Letters:
    """One id a letter."""

    def encode(self, text):
        return [ord(letter) % V for letter in text]

    def tokens_as_text(self, ids):
        return [f"<{i}>" for i in ids]


class WithMaps:
    """A model that offers attention_maps, as the package's decoder does."""

    def attention_maps(self, ids):
        scores = torch.zeros(2, 3, len(ids), len(ids))
        masked = scores.masked_fill(~torch.ones(len(ids), len(ids), dtype=torch.bool).tril(), -torch.inf)
        return masked.softmax(-1), scores


class Network(torch.nn.Module):
    """A model that is called: logits, and attention when asked for."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(V, V)
        self.frozen = torch.nn.Dropout(0.5).eval()  # one part stays in eval mode while the rest trains

    def forward(self, ids_BT, return_attention=False):
        assert not self.training
        assert not torch.is_grad_enabled()
        assert ids_BT.shape[0] == 1
        size = ids_BT.shape[1]
        weights = torch.ones(1, 3, size, size).tril()
        logits = self.embedding(ids_BT)
        return (logits, [weights / weights.sum(-1, keepdim=True)] * 2) if return_attention else logits


def shown(box):
    """The HTML that the output area received: outside a kernel, display prints the view's repr instead."""
    return json.loads(re.search(r'application/json">(.*?)</script>', box.view._repr_html_(), re.S)[1])


def test_attention_recomputes_on_click():
    box = AttentionExplorer.live(WithMaps(), Letters(), "abc", title="T", head=2)
    assert box.view.tokens == ["<9>", "<10>", "<0>"]
    assert (box.view.title, box.view.head) == ("T", 2)
    assert shown(box)["maskable"] is True
    first = box.view
    box.text.value = "hello"
    assert box.view is first  # typing alone computes nothing
    box.run.click()
    assert len(box.view.tokens) == 5
    assert box.status.value == ""
    assert box.run.disabled is False


def test_attention_of_a_called_model():
    model = Network().train()
    model.frozen.eval()
    box = AttentionExplorer.live(model, Letters(), "abcd")
    assert box.view.weights.shape == (2, 3, 4, 4)
    assert box.view.scores is None
    assert model.training
    assert model.embedding.training
    assert not model.frozen.training


def test_sampling_shows_the_last_position():
    model = Network()
    box = SamplingPlayground.live(model, Letters(), "ab", temperature=0.5)
    expected = model.embedding.weight[ord("b") % V]
    assert torch.allclose(torch.tensor(box.view.logits), expected.detach().double())
    assert box.view.prompt == "ab"
    assert box.view.settings["temperature"] == 0.5
    box.text.value = "abc"
    box.run.click()
    expected = model.embedding.weight[ord("c") % V]
    assert torch.allclose(torch.tensor(box.view.logits), expected.detach().double())


def test_faults_are_shown_and_the_old_view_stays():
    box = AttentionExplorer.live(WithMaps(), Letters(), "abc")
    first = box.view
    box.text.value = ""
    box.run.click()
    assert "the text is empty" in box.status.value
    assert box.view is first
    assert box.run.disabled is False

    class Broken:
        def attention_maps(self, ids):
            raise RuntimeError("<b>out of memory</b>")

    box = AttentionExplorer.live(Broken(), Letters())
    assert box.view is None
    assert "RuntimeError" in box.status.value
    assert "&lt;b&gt;" in box.status.value


def test_what_cannot_serve_is_refused():
    with pytest.raises(ValueError, match=r"needs model\.attention_maps"):
        AttentionExplorer.live("model", Letters())
    with pytest.raises(ValueError, match=r"needs model\(ids\)"):
        SamplingPlayground.live(3, Letters())
    with pytest.raises(ValueError, match="without tokens_as_text"):
        SamplingPlayground.live(Network(), type("T", (), {"encode": lambda self, text: []})())


def test_without_ipywidgets_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **options):
        if name == "ipywidgets":
            raise ModuleNotFoundError("No module named 'ipywidgets'", name="ipywidgets")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ModuleNotFoundError, match=r"llm-from-scratch\[book\]"):
        AttentionExplorer.live(WithMaps(), Letters())


def test_the_package_s_decoder_serves():
    from llm_from_scratch.models.decoder import Decoder, DecoderConfig

    torch.manual_seed(0)
    config = DecoderConfig.gpt2(vocab_size=V, context_length=7, d_model=6, num_layers=2, num_heads=3)
    model = Decoder(config)
    box = AttentionExplorer.live(model, Letters(), "abcde")
    assert box.view.weights.shape == (2, 3, 5, 5)
    assert box.view.scores is not None
    box = SamplingPlayground.live(model, Letters(), "abc")
    assert len(box.view.tokens) == V
    assert live.html.FORMAT == 1
