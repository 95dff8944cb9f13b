"""A server in a thread of this process, with a tiny random model that has a chat template."""

import threading
from contextlib import contextmanager

import pytest
import torch

from llm_from_scratch.interop import Loaded
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.serving import Limits, ServedModel, Service, open_socket
from llm_from_scratch.tokenizers import BytePairTokenizer

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>"]
PROSE = "Fellow citizens of the Senate and of the House, the state of the Union is 語 é strong. " * 30


def tiny_loaded(seed=0, context_length=160, special_tokens=SPECIAL):
    """A model of random weights, large enough for its texts to depend on all of the prompt."""
    torch.manual_seed(seed)
    tokenizer = BytePairTokenizer.train([PROSE], vocab_size=300, special_tokens=special_tokens)
    config = DecoderConfig.llama(
        vocab_size=tokenizer.vocab_size,
        context_length=context_length,
        d_model=36,
        num_layers=2,
        num_heads=6,
        num_kv_heads=2,
        tie_embeddings=True,
    )
    model = Decoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        config=config,
        chat_template=TEMPLATE,
        special_tokens={"eos_token": "<|im_end|>"},
    )


@contextmanager
def running(served, **limits):
    """Serve at a free port; gives the `Service`, and ends it afterwards."""
    limits = {"max_concurrent": 4, "max_queue": 40, "grace": 10.0, "timeout": 60.0, **limits}
    service, ready = Service(served, Limits(**limits), open_socket("127.0.0.1", 0)), threading.Event()
    thread = threading.Thread(target=service.run, args=(ready.set,))
    thread.start()
    try:
        assert ready.wait(30)
        yield service
    finally:
        service.stop()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def served():
    return ServedModel.from_loaded("tiny", tiny_loaded())


@pytest.fixture(scope="module")
def service(served):
    with running(served) as running_service:
        yield running_service


@pytest.fixture
def client(service):
    import openai

    with openai.OpenAI(base_url=f"{service.address}/v1", api_key="none", max_retries=0) as opened:
        yield opened
