"""The road to vLLM and SGLang: an exported folder is what transformers, and so they, read."""

import pytest
import torch
import typer.testing

from llm_from_scratch import cli
from llm_from_scratch.inference import generate
from llm_from_scratch.interop import encode_chat, load_folder, save_folder
from tests.serving.conftest import TEMPLATE, tiny_loaded

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How is the Union? é語"}]


@pytest.fixture(scope="module")
def transformers():
    import transformers
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return transformers


def export(*arguments):
    return typer.testing.CliRunner().invoke(cli.app, ["export", *map(str, arguments)])


def same_logits(ours, theirs, ids):
    with torch.no_grad():
        torch.testing.assert_close(ours(torch.tensor([ids])), theirs(torch.tensor([ids])).logits,
                                   rtol=1e-4, atol=1e-5)  # fmt: skip


def test_a_chat_model_with_template_and_end(tmp_path, transformers):
    """Logits, token ids, the text of a chat, and the greedy answer up to its end."""
    loaded = tiny_loaded()
    save_folder(loaded.model, tmp_path / "from", loaded.tokenizer, chat_template=TEMPLATE,
                special_tokens=loaded.special_tokens)  # fmt: skip
    assert export(tmp_path / "from", tmp_path / "to").exit_code == 0
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "to").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "to")
    ids = encode_chat(loaded, MESSAGES)
    assert tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False) == ids
    same_logits(loaded.model, theirs, ids)
    end = loaded.tokenizer.special_ids["<|im_end|>"]
    assert theirs.config.eos_token_id == end == tokenizer.eos_token_id
    with torch.no_grad():  # so that this random model does end
        for model in (loaded.model.token_embedding, theirs.get_input_embeddings()):
            model.weight[end] *= 3
    expected = generate(loaded.model, ids, max_new_tokens=60, temperature=0, stop_ids=[end])
    answer = theirs.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=60, do_sample=False,
        pad_token_id=0,
    )[0, len(ids) :].tolist()  # fmt: skip
    assert answer[: len(expected)] == expected
    assert answer[len(expected) :] in ([], [end])
    assert tokenizer.decode(expected) == loaded.tokenizer.decode(expected)


def test_a_committed_result(tmp_path, transformers):
    result = export("laptop", tmp_path / "laptop")
    assert result.exit_code == 0, result.output
    assert f"llm-scratch serve {tmp_path / 'laptop'}" in result.output
    ours = load_folder(tmp_path / "laptop")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "laptop").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "laptop")
    text = "Fellow citizens of the Senate and of the House"
    ids = ours.tokenizer.encode(text)
    assert tokenizer(text)["input_ids"] == ids
    same_logits(ours.model, theirs, ids)
    assert theirs.config.eos_token_id == ours.tokenizer.special_ids["<|endoftext|>"]
    expected = generate(ours.model, ids, max_new_tokens=30, temperature=0)
    answer = theirs.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=30,
                             do_sample=False, pad_token_id=0, eos_token_id=None)  # fmt: skip
    assert tokenizer.decode(answer[0, len(ids) :]) == ours.tokenizer.decode(expected)


def test_what_cannot_be_exported(tmp_path):
    result = export("nowhere", tmp_path / "x")
    assert result.exit_code == 2
    assert "no run folder 'nowhere'" in result.stderr
    assert not (tmp_path / "x").exists()
