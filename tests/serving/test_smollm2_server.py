"""A published model behind the server: what a reader sees who follows the README."""

import json

import openai
import pytest

from llm_from_scratch.inference import generate
from llm_from_scratch.interop import encode_chat, load_smollm2
from llm_from_scratch.serving import ServedModel
from tests.serving.conftest import running

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
SCHEMA = {
    "type": "object",
    "properties": {"capital": {"type": "string"}, "inhabitants": {"type": "integer"}},
    "required": ["capital", "inhabitants"],
}


@pytest.mark.slow
def test_smollm2_answers():
    loaded = load_smollm2()
    served = ServedModel.from_loaded("smollm2", loaded)
    with running(served, context_length=256, max_concurrent=2, timeout=300.0) as service:
        client = openai.OpenAI(base_url=f"{service.address}/v1", api_key="x", max_retries=0, timeout=300)
        settings = {"model": "smollm2", "messages": MESSAGES, "temperature": 0, "max_tokens": 30}
        answer = client.chat.completions.create(**settings).choices[0]
        ids = encode_chat(loaded, MESSAGES)
        expected = generate(loaded.model, ids, max_new_tokens=30, temperature=0, stop_ids=served.stop_ids)
        assert answer.message.content == loaded.tokenizer.decode(expected)
        assert "Paris" in answer.message.content
        assert answer.finish_reason == "stop"
        chunks = client.chat.completions.create(**settings, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == answer.message.content
        asked = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
        settings |= {"temperature": 1.5, "seed": 1, "max_tokens": 60, "response_format": asked}
        found = json.loads(client.chat.completions.create(**settings).choices[0].message.content)
        assert isinstance(found["capital"], str)
        assert isinstance(found["inhabitants"], int)
        client.close()
