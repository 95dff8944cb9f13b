"""Damaged folders: each loads, or is refused with a ValueError or a FileNotFoundError, within bounds.

The slow test draws other damage each day (`tests.rotation`); a failure names the seed.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llm_from_scratch.interop.hugging_face import save_folder
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.models.encoder import Encoder, EncoderConfig
from llm_from_scratch.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llm_from_scratch.tokenizers import BytePairTokenizer
from tests.rotation import seed_of_the_day

SIZES = {"vocab_size": 263, "d_model": 12, "num_layers": 2, "num_heads": 3}
MODELS = {
    "gpt2": lambda: Decoder(DecoderConfig.gpt2(context_length=17, **SIZES)),
    "llama": lambda: Decoder(DecoderConfig.llama(context_length=17, num_kv_heads=1, **SIZES)),
    "bert": lambda: Encoder(EncoderConfig.bert(context_length=17, **SIZES)),
    "t5": lambda: EncoderDecoder(EncoderDecoderConfig.t5(**SIZES)),
}


def damage(folder, family, count, seed):
    """Damage a folder ``count`` times, in a process with little more memory than it needs."""
    torch.manual_seed(1)
    tokenizer = BytePairTokenizer.train("low lower lowest", vocab_size=263, special_tokens=["<|endoftext|>"])
    options = {"max_shard_bytes": 9000} if family == "llama" else {}  # several files and an index
    save_folder(MODELS[family](), folder, tokenizer, chat_template="{{ messages }}", **options)
    code = [
        sys.executable,
        str(Path(__file__).with_name("folder_fuzzing.py")),
        str(folder),
        str(count),
        str(seed),
    ]
    run = subprocess.run(code, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


def check(result, count):
    assert result["wrong"] == []
    assert result["loaded"] + result["refused"] == count
    assert result["loaded"] > 0.02 * count  # a flipped bit of a weight, for one, cannot be noticed
    assert result["refused"] > 0.3 * count


def test_two_hundred_damaged_folders(tmp_path):
    check(damage(tmp_path, "llama", 200, seed=1), 200)


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
def test_two_thousand_damaged_folders_in_four_families(tmp_path, family):
    seed = seed_of_the_day()
    result = damage(tmp_path, family, 500, seed=seed)
    assert result["wrong"] == [], f"seed {seed}"
    check(result, 500)
