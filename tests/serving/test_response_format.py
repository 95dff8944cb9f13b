"""Answers in a format: whatever the model, the temperature and the seed, the text is what was asked for."""

import json
import re

import openai
import pytest

MESSAGES = [{"role": "user", "content": "Describe the Union."}]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "strong": {"type": "boolean"}},
    "required": ["name", "strong"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("stream", [False, True])
def test_json_of_a_schema(client, stream):
    for seed in range(6):
        settings = {
            "model": "tiny", "messages": MESSAGES, "max_tokens": 80, "temperature": 1.5, "seed": seed,
            "response_format": {"type": "json_schema", "json_schema": {"name": "union", "schema": SCHEMA}},
        }  # fmt: skip
        if stream:
            chunks = client.chat.completions.create(**settings, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        else:
            text = client.chat.completions.create(**settings).choices[0].message.content
        found = json.loads(text)
        assert set(found) == {"name", "strong"}
        assert isinstance(found["strong"], bool)
        assert len(found["name"]) <= 8


def test_a_json_object_and_several_answers(client):
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=60, n=3, seed=1, temperature=1.2,
        response_format={"type": "json_object"},
    )  # fmt: skip
    assert all(isinstance(json.loads(choice.message.content), dict) for choice in answer.choices)


def test_a_pattern(client):
    answer = client.completions.create(
        model="tiny", prompt="The date: ", max_tokens=20, seed=3, temperature=1.5,
        extra_body={"response_format": {"type": "regex", "regex": r"\d{4}-\d\d-\d\d"}},
    )  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", answer.choices[0].text)
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "asked",
    [
        {"type": "xml"},
        {"type": "regex"},
        {"type": "regex", "regex": "("},
        {"type": "regex", "regex": "a{9}"},  # more than max_tokens
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}},
    ],
    ids=str,
)
def test_formats_that_cannot_be(client, asked):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=4, extra_body={"response_format": asked}
        )
    assert caught.value.body["param"].startswith("response_format")


def test_free_text(client):
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=4, response_format={"type": "text"}
    )
    assert answer.choices[0].message.content
