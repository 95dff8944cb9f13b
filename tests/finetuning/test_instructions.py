"""The mask of answers: against transformers' own, token by token, and on what could break it."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llm_from_scratch.decoding.sampling import sample
from llm_from_scratch.finetuning.conversations import load_conversations, question_and_answer
from llm_from_scratch.finetuning.example_batches import InstructionBatches, instruction_validation
from llm_from_scratch.finetuning.instructions import (
    PLAIN_TEMPLATE,
    encode_conversation,
    greedy_matches,
    split_at_answers,
)
from llm_from_scratch.interop.hugging_face.tokenizer_writing import write_tokenizer
from llm_from_scratch.interop.loaded import Loaded
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.tokenizers import BytePairTokenizer

SPECIAL = ("<|im_start|>", "<|im_end|>")
CHATML = (  # the answer and its end token are marked, as transformers wants it
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 3 + 4?\nAnd why?"},
    {"role": "assistant", "content": "Seven. Count on: 4, 5, 6, 7."},
    {"role": "user", "content": "Thank you, assistant\n"},
    {"role": "assistant", "content": "You are welcome — 好\n\nassistant\n"},
]


@pytest.fixture(scope="module")
def tokenizer():
    text = "user\nassistant\nsystem\nWhat is seven? You are welcome. Thank you.\n\n Count on: " * 9
    return BytePairTokenizer.train(text, vocab_size=320, special_tokens=SPECIAL)


@pytest.fixture(scope="module")
def loaded(tokenizer):
    return Loaded(
        model=None,
        tokenizer=tokenizer,
        config=None,
        chat_template=CHATML,
        special_tokens={"eos_token": "<|im_end|>"},
    )


@pytest.fixture(scope="module")
def theirs(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    for name, content in write_tokenizer(tokenizer, CHATML, {"eos_token": "<|im_end|>"}).items():
        (folder / name).write_text(content, encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder)


def expected(theirs, messages):
    """Ids and targets from the mask that transformers makes of the template's own marks."""
    found = theirs.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ids_L, mask_L = torch.tensor(found["input_ids"]), torch.tensor(found["assistant_masks"]).bool()
    return ids_L[:-1].tolist(), ids_L[1:].masked_fill(~mask_L[1:], -100).tolist()


@pytest.mark.parametrize("messages", [TALK, TALK[:3], TALK[1:3], TALK[1:]])
def test_ids_and_targets_are_those_of_transformers(loaded, theirs, messages):
    ids_T, targets_T = encode_conversation(loaded, messages)
    assert (ids_T.tolist(), targets_T.tolist()) == expected(theirs, messages)


TEXTS = st.text(alphabet="ab \n好7<|:", min_size=1, max_size=9).map(lambda text: "x" + text + "x")


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(TEXTS, min_size=2, max_size=6))
def test_any_conversation_has_the_mask_of_transformers(loaded, theirs, texts):
    roles = ["user", "assistant"] * 3
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    ids_T, targets_T = encode_conversation(loaded, messages)
    assert (ids_T.tolist(), targets_T.tolist()) == expected(theirs, messages)


def test_each_target_is_the_id_that_follows_and_each_answer_learns_to_end(loaded, tokenizer):
    ids_T, targets_T = encode_conversation(loaded, TALK)
    _, everything_T = encode_conversation(loaded, TALK, train_on="everything")
    assert torch.equal(everything_T[:-1], ids_T[1:])
    kept_T = targets_T != -100
    assert torch.equal(targets_T[kept_T], everything_T[kept_T])
    answers = "".join(m["content"] + "<|im_end|>" for m in TALK if m["role"] == "assistant")
    assert tokenizer.decode(targets_T[kept_T].tolist()) == answers


def test_a_token_across_the_border_is_refused(loaded, tokenizer):
    merged = BytePairTokenizer.train("assistant\n\n\n\n" * 9, vocab_size=275, special_tokens=SPECIAL)
    parts = merged.encode("assistant\n") + merged.encode("\n\nx")
    assert len(merged.encode("assistant\n\n\nx")) < len(parts)  # two line breaks are one token
    bad = Loaded(
        model=None, tokenizer=merged, config=None, chat_template=CHATML, special_tokens=loaded.special_tokens
    )
    with pytest.raises(ValueError, match=r"across the border.*strip"):
        encode_conversation(bad, question_and_answer("x", "\n\nx"))
    encode_conversation(bad, question_and_answer("x", "x"))


def test_what_cannot_be_trained_on_is_refused(loaded):
    with pytest.raises(ValueError, match="no message of the role"):
        encode_conversation(loaded, TALK[:2])
    with pytest.raises(ValueError, match="special token"):
        encode_conversation(loaded, question_and_answer("x", "7<|im_end|>"))
    with pytest.raises(ValueError, match="train_on"):
        encode_conversation(loaded, TALK, train_on="questions")
    forgetful = "{% for m in messages %}{{ m.content if loop.last else '.' }}{% endfor %}"
    other = Loaded(model=None, tokenizer=loaded.tokenizer, config=None, chat_template=forgetful)
    with pytest.raises(ValueError, match="differently once another follows"):
        encode_conversation(other, TALK)


def test_the_end_is_cut_off_and_a_cut_answer_is_not_taught_to_end(loaded, tokenizer):
    ids_T, targets_T = encode_conversation(loaded, TALK[:3])
    first = int((targets_T != -100).nonzero()[0])
    cut_T, cut_targets_T = encode_conversation(loaded, TALK[:3], context_length=first + 2)
    assert torch.equal(cut_T, ids_T[: first + 2])
    assert torch.equal(cut_targets_T, targets_T[: first + 2])
    assert tokenizer.special_ids["<|im_end|>"] not in cut_targets_T
    with pytest.raises(ValueError, match=f"first {first} tokens"):
        encode_conversation(loaded, TALK[:3], context_length=first)


def test_the_plain_template_serves_a_base_model(tokenizer):
    loaded = Loaded(
        model=None,
        tokenizer=tokenizer,
        config=None,
        chat_template=PLAIN_TEMPLATE,
        special_tokens={"eos_token": "<|im_end|>"},
    )
    pieces = split_at_answers(loaded, TALK)
    assert [text for text, answer in pieces if answer] == [
        m["content"] + "<|im_end|>" for m in TALK if m["role"] == "assistant"
    ]
    encode_conversation(loaded, TALK)


def conversations(loaded, count=7):
    return [
        encode_conversation(loaded, question_and_answer("x" * n, "a" * (n % 3 + 1)))
        for n in range(1, count + 1)
    ]


def test_batches_are_padded_at_the_end_and_every_example_comes_once_an_epoch(loaded):
    examples = conversations(loaded)
    batches = InstructionBatches(examples, batch_size=7, pad_id=0, seed=3)
    orders = []
    for _ in range(2):
        ids_BT, targets_BT = next(batches)
        lengths = [int((ids_T != 0).nonzero().max()) + 1 for ids_T in ids_BT]
        orders.append(lengths)
        assert sorted(lengths) == sorted(len(ids_T) for ids_T, _ in examples)
        for ids_T, targets_T, length in zip(ids_BT, targets_BT, lengths, strict=True):
            (match,) = [e for e in examples if torch.equal(e[0], ids_T[:length])]
            assert torch.equal(match[1], targets_T[:length])
            assert (targets_T[length:] == -100).all()
    assert orders[0] != orders[1]


def test_batches_go_on_where_they_stood_and_parts_make_the_whole(loaded):
    examples = conversations(loaded)
    settings_ = {"batch_size": 4, "pad_id": 0, "seed": 5}
    batches = InstructionBatches(examples, **settings_)
    next(batches)
    state = json.loads(json.dumps(batches.state_dict()))
    later = [next(batches) for _ in range(4)]
    again = InstructionBatches(examples, **settings_)
    again.load_state_dict(state)
    for expected_, found in zip(later, again, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(expected_, found, strict=True))
    whole_BT, _ = next(InstructionBatches(examples, **settings_))
    parts = []
    for share in range(2):
        part = InstructionBatches(examples, **settings_)
        part.read_rows(share, 2)
        parts += list(next(part)[0])
    for whole_T, part_T in zip(whole_BT, parts, strict=True):
        assert torch.equal(whole_T[: len(part_T)], part_T)
    with pytest.raises(ValueError, match="seed 5"):
        InstructionBatches(examples, **settings_ | {"seed": 6}).load_state_dict(state)
    with pytest.raises(ValueError, match="digest"):
        InstructionBatches(examples[::-1], **settings_).load_state_dict(state)
    with pytest.raises(ValueError, match="no examples"):
        InstructionBatches([], **settings_)


def test_padding_changes_no_loss(loaded):
    torch.manual_seed(0)
    config = DecoderConfig.llama(
        vocab_size=loaded.tokenizer.vocab_size, context_length=64, d_model=12, num_layers=2, num_heads=3
    )
    model, examples = Decoder(config).eval(), conversations(loaded)
    (batch,) = instruction_validation(examples, batch_size=7, pad_id=0)
    _, loss = model(*batch)
    counts = torch.tensor([int((t != -100).sum()) for _, t in examples])
    single = torch.stack([model(i[None], t[None])[1] for i, t in examples])
    torch.testing.assert_close(loss, (single * counts).sum() / counts.sum())


def test_one_pass_tells_what_greedy_decoding_would_write(loaded):
    torch.manual_seed(1)
    config = DecoderConfig.llama(vocab_size=9, context_length=16, d_model=12, num_layers=1, num_heads=3)
    model = Decoder(config).eval()
    for seed in range(12):
        prompt = torch.randint(0, 9, (3,), generator=torch.Generator().manual_seed(seed)).tolist()
        written = sample(model, prompt, max_new_tokens=3, temperature=0)
        for answer in (written, [*written[:2], (written[2] + 1) % 9], [(written[0] + 1) % 9, *written[1:]]):
            ids_BT = torch.tensor([prompt + answer])
            targets_BT = ids_BT[:, 1:].clone()
            targets_BT[:, :2] = -100
            assert greedy_matches(model(ids_BT[:, :-1]), targets_BT).item() == (answer == written)


def test_own_conversations_are_read_and_faults_name_the_line(tmp_path):
    path = tmp_path / "talks.jsonl"
    good = json.dumps({"messages": TALK}, ensure_ascii=False)
    path.write_text(f'{good}\n\n{{"prompt": "3+4?", "answer": "7"}}\r\n', encoding="utf-8")
    assert load_conversations(path) == [TALK, question_and_answer("3+4?", "7")]
    for line, message in (
        ("{", "line 3"),
        ("[1]", r"line 3: expected .*messages"),
        ('{"messages": [{"role": "bot", "content": "x"}]}', "'bot'"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "no message has the role assistant"),
        ('{"messages": ["x"]}', "message 1 must have"),
        ('{"prompt": "x", "answer": " "}', "message 2 has no text"),
        ("[" * 100_000, "line 3"),
    ):
        path.write_text(f"{good}\n{good}\n{line}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            load_conversations(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="no conversation"):
        load_conversations(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="UTF-8"):
        load_conversations(path)
