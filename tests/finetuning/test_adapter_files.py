"""Adapters as files: peft reads ours, we read peft's, and what does not belong together is refused."""

import json
import os

import pytest
import safetensors.torch
import torch
from torch import nn

from llm_from_scratch.finetuning import adapter_files
from llm_from_scratch.finetuning.adapter_files import TENSORS, load_adapter, save_adapter
from llm_from_scratch.finetuning.adapter_names import stored_updates
from llm_from_scratch.finetuning.lora import LoraConfig, add_lora, lora_parameters, merge_lora
from llm_from_scratch.interop import parity
from llm_from_scratch.interop.hugging_face import load_folder
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.models.encoder import Encoder, EncoderConfig

# Case of interop.parity, targets of ours, and peft's own for the way back.
CASES = [
    (0, ("qkv", "output", "up"), ["c_attn", "c_fc"]),
    (0, ("query", "value", "down"), ["attn.c_proj"]),
    (2, ("query", "value"), ["q_proj", "v_proj"]),
    (2, ("qkv", "gate", "head"), ["k_proj", "o_proj", "down_proj", "lm_head"]),
    (7, ("key", "down"), ["gate_proj", "up_proj"]),
    (8, ("query", "key", "value", "output", "gate", "up", "down"), "all-linear"),
    (10, ("query", "value", "output"), ["key", "output.dense"]),
    (12, ("key", "down"), ["query", "intermediate.dense"]),
    (13, ("query", "value", "up"), ["k", "o", "wo"]),
]


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@pytest.fixture(params=CASES, ids=lambda case: f"{parity.CASES[case[0]].family}-{'-'.join(case[1])}")
def trio(request, tmp_path):
    """A model of transformers, the same one here, and what to adapt in each."""
    number, ours, theirs = request.param
    model = parity.CASES[number].build()
    model.save_pretrained(tmp_path / "base")
    return model, load_folder(tmp_path / "base").model, ours, theirs


def randomise(parameters, std=0.1):
    """As if trained: B is no longer zero."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(std=std)


def assert_equal_results(ours, theirs, *, moved_from):
    pairs = parity.results(ours, theirs)
    for (mine, expected), (before, _) in zip(pairs, moved_from, strict=True):
        assert (mine - before).abs().max() > 1e-2  # the adapter does something
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stabilised", [False, True])
def test_peft_reads_ours(trio, tmp_path, stabilised):
    from peft import PeftModel

    theirs, ours, targets, _ = trio
    before = parity.results(ours, theirs)
    add_lora(ours, LoraConfig(rank=3, alpha=5.0, targets=targets, rank_stabilised=stabilised))
    randomise(lora_parameters(ours))
    save_adapter(ours, tmp_path / "adapter", base="somewhere")
    wrapped = PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    adapted = {n for n, p in wrapped.named_parameters() if ".lora_" in n}
    stored = safetensors.torch.load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert len(adapted) == len(stored)  # no layer more than there are tensors
    assert_equal_results(ours, theirs, moved_from=before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("patterns", [False, True])
def test_we_read_pefts(trio, tmp_path, patterns):
    import peft

    theirs, ours, _, targets = trio
    before = parity.results(ours, theirs)
    own = {}
    if patterns and isinstance(targets, list):
        own = {"rank_pattern": {targets[0]: 2}, "alpha_pattern": {targets[0]: 9}}
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=targets, lora_dropout=0.1, **own)
    wrapped = peft.get_peft_model(theirs, config).eval()
    randomise(p for n, p in wrapped.named_parameters() if ".lora_" in n)
    wrapped.save_pretrained(tmp_path / "adapter")
    load_adapter(ours, tmp_path / "adapter")
    ours.eval()
    assert_equal_results(ours, theirs, moved_from=before)
    merge_lora(ours)
    assert_equal_results(ours, theirs, moved_from=before)


def tiny_decoder(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 13, "context_length": 11, "d_model": 12, "num_layers": 2, "num_heads": 3}
    return Decoder(DecoderConfig.llama(**{**sizes, **changes}))


def saved(folder, model=None, *, seed=0, **config):
    model = tiny_decoder() if model is None else model
    add_lora(model, LoraConfig(**{"rank": 2, "targets": ("query", "down"), **config}))
    torch.manual_seed(seed)
    randomise(lora_parameters(model))
    save_adapter(model, folder)
    return model


IDS = torch.tensor([[1, 5, 2, 9], [3, 3, 7, 0]])


def test_ours_come_back_bit_for_bit_and_stay_trainable(tmp_path):
    model = saved(tmp_path, rank_stabilised=True, dropout=0.25, alpha=7.0)
    again = tiny_decoder()
    load_adapter(again, tmp_path)
    assert torch.equal(again.eval()(IDS), model.eval()(IDS))
    trained = [n for n, p in again.named_parameters() if p.requires_grad]
    assert trained == [n for n, p in model.named_parameters() if p.requires_grad]
    part, before = (m.blocks[1].feedforward.down.parts["whole"] for m in (again, model))
    assert part.config == LoraConfig(
        rank=2, alpha=7.0, targets=("blocks.1.feedforward.down",), dropout=0.25, rank_stabilised=True
    )
    assert part.scale == before.scale
    save_adapter(again, tmp_path / "again")
    texts = [(f / "adapter_config.json").read_text() for f in (tmp_path, tmp_path / "again")]
    assert texts[0] == texts[1]
    tensors = [safetensors.torch.load_file(f / TENSORS) for f in (tmp_path, tmp_path / "again")]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


class Classifier(nn.Module):
    """A head of one's own around an encoder."""

    def __init__(self):
        super().__init__()
        config = EncoderConfig.bert(
            vocab_size=13,
            context_length=11,
            d_model=12,
            num_layers=2,
            num_heads=3,
            pooler=False,
            next_sentence_head=False,
            masked_language_head=False,
        )
        self.encoder, self.head = Encoder(config), nn.Linear(12, 2)

    def forward(self, ids_BT):
        return self.head(self.encoder(ids_BT).mean(1))


def classifier(seed):
    torch.manual_seed(seed)
    return Classifier().eval()


def test_a_head_goes_with_its_adapter(tmp_path):
    model = classifier(0)
    add_lora(model, LoraConfig(rank=2, also_train=("head",)))
    randomise([*lora_parameters(model), *model.head.parameters()])
    save_adapter(model, tmp_path)
    stored = safetensors.torch.load_file(tmp_path / "trained_modules.safetensors")
    assert sorted(stored) == ["head.bias", "head.weight"]
    other = classifier(0)
    randomise(other.head.parameters())  # a new head of other numbers: it is no part of the base
    load_adapter(other, tmp_path)
    assert torch.equal(other(IDS), model(IDS))
    assert all(p.requires_grad for p in other.head.parameters())
    wrong = classifier(0)
    wrong.head = nn.Linear(12, 3)
    with pytest.raises(ValueError, match=r"'head.bias' has the shape \[2\], the model \[3\]: build the head"):
        load_adapter(wrong, tmp_path)
    save_adapter(saved(tmp_path / "elsewhere"), tmp_path)  # an adapter without a head takes the place
    assert not (tmp_path / "trained_modules.safetensors").exists()


@pytest.mark.filterwarnings("ignore")
def test_peft_reads_what_stands_under_a_classifier(tmp_path):
    import peft
    import transformers

    theirs = transformers.BertForSequenceClassification(transformers.BertConfig(**parity._BERT)).eval()
    theirs.bert.save_pretrained(tmp_path / "base")
    model = Classifier()
    model.encoder = load_folder(tmp_path / "base").model
    add_lora(model, LoraConfig(rank=2, targets=("query", "up")))
    randomise(lora_parameters(model))
    save_adapter(model, tmp_path)
    peft.PeftModel.from_pretrained(theirs, tmp_path)
    hidden = theirs.bert(IDS).last_hidden_state
    torch.testing.assert_close(model.encoder(IDS), hidden, rtol=1e-5, atol=1e-5)
    assert (load_folder(tmp_path / "base").model(IDS) - hidden).abs().max() > 1e-2


def test_a_model_of_no_family_keeps_its_own_names(tmp_path):
    def build():
        torch.manual_seed(4)
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))

    model, x = build(), torch.ones(1, 5)
    add_lora(model, LoraConfig(rank=2, targets=("2",)))
    randomise(lora_parameters(model))
    save_adapter(model, tmp_path)
    names = list(safetensors.torch.load_file(tmp_path / "adapter_model.safetensors"))
    assert names == ["base_model.model.2.lora_A.weight", "base_model.model.2.lora_B.weight"]
    again = build()
    load_adapter(again, tmp_path)
    assert torch.equal(again(x), model(x))


def test_another_base_is_refused_unless_asked_for(tmp_path):
    saved(tmp_path)
    other = tiny_decoder(seed=1)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ValueError, match="trained beside another base: open that one, or pass any_base=True"):
        load_adapter(other, tmp_path)
    assert before.keys() == other.state_dict().keys()  # unchanged
    assert load_adapter(other, tmp_path, any_base=True)
    almost = tiny_decoder()
    with torch.no_grad():
        almost.norm.weight[3] += 1e-3
    with pytest.raises(ValueError, match="another base"):
        load_adapter(almost, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 18}, "as a matrix of 12 x 32, and this model's is 18 x 48: it belongs to another model"),
        ({"num_layers": 1}, "has no such layer; it has down_proj, gate_proj, k_proj"),
    ],
)
def test_another_shape_is_refused(tmp_path, changes, message):
    saved(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_adapter(tiny_decoder(**changes), tmp_path, any_base=True)


def edit(folder, **fields):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_settings_that_do_not_fit_are_refused(tmp_path):
    saved(tmp_path)
    edit(tmp_path, r=5)
    with pytest.raises(ValueError, match="makes its rank 5; the two files do not belong together"):
        load_adapter(tiny_decoder(), tmp_path)
    for fields, message in [
        ({"r": "8"}, "r is '8', expected a number above 0"),
        ({"r": 2, "lora_alpha": -1}, "lora_alpha is -1"),
        ({"lora_alpha": 16, "use_dora": True}, "use_dora is True; plain LoRA is read here"),
        ({"use_dora": False, "peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"peft_type": "LORA", "bias": "all"}, "plain LoRA"),
        ({"bias": "none", "init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
        ({"init_lora_weights": True, "modules_to_save": ["classifier"]}, "modules_to_save"),
        ({"modules_to_save": None, "rank_pattern": 3}, "rank_pattern is 3"),
    ]:
        edit(tmp_path, **fields)
        with pytest.raises(ValueError, match=message):
            load_adapter(tiny_decoder(), tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no adapter_config.json in .*; save_adapter"):
        load_adapter(tiny_decoder(), tmp_path)
    saved(tmp_path)
    tensors = tmp_path / "adapter_model.safetensors"
    content = tensors.read_bytes()
    for cut in (0, 7, 90, len(content) - 1):
        tensors.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"adapter_model.safetensors"):
            load_adapter(tiny_decoder(), tmp_path)
    tensors.unlink()
    with pytest.raises(FileNotFoundError, match="there is no adapter_model"):
        load_adapter(tiny_decoder(), tmp_path)
    safetensors.torch.save_file({"base_model.model.x.lora_magnitude_vector": torch.ones(3)}, tensors)
    with pytest.raises(ValueError, match="is no part of plain LoRA"):
        load_adapter(tiny_decoder(), tmp_path)
    tensors.write_bytes(content)
    (tmp_path / "adapter_config.json").write_text('{"r": 2,')
    with pytest.raises(ValueError, match=r"adapter_config\.json is damaged"):
        load_adapter(tiny_decoder(), tmp_path)


def test_a_write_that_fails_leaves_the_adapter_of_before(tmp_path, monkeypatch):
    first = saved(tmp_path)
    names = sorted(os.listdir(tmp_path))
    write = adapter_files.write_atomically

    def full_disk(path, content):
        if path.name == "adapter_config.json":
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(adapter_files, "write_atomically", full_disk)
    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path, seed=1)
    assert sorted(os.listdir(tmp_path)) == names
    again = tiny_decoder()
    load_adapter(again, tmp_path)
    assert torch.equal(again(IDS), first(IDS))


def test_merged_adapters_and_none_are_not_saved(tmp_path):
    model = tiny_decoder()
    with pytest.raises(ValueError, match="carries no adapter"):
        save_adapter(model, tmp_path)
    add_lora(model, LoraConfig(rank=2))
    merge_lora(model, keep=True)
    with pytest.raises(ValueError, match="unmerge_lora"):
        save_adapter(model, tmp_path)
    assert not os.listdir(tmp_path)


def test_pieces_of_a_joint_matrix_become_one_product():
    """GPT-2 has one layer where ours adapts two parts, with scales of their own."""
    torch.manual_seed(0)
    model = Decoder(
        DecoderConfig.gpt2(vocab_size=13, context_length=11, d_model=12, num_layers=1, num_heads=3)
    )
    add_lora(model, LoraConfig(rank=2, targets=("query", "value")))
    model.blocks[0].attention.qkv.parts["value"].scale = 0.5
    randomise(lora_parameters(model))
    (name, one), layer = *stored_updates(model).items(), model.blocks[0].attention.qkv
    assert (name, one.rank) == ("transformer.h.0.attn.c_attn", 4)
    torch.testing.assert_close(one.B @ one.A * one.scale, layer.weight - layer.base.weight)
