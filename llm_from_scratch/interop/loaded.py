"""What every loader of a published model returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from llm_from_scratch.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A published model in our code, with what belongs to it.

    >>> loaded = Loaded(model=nn.Identity(), tokenizer=None, config=None)
    >>> loaded.chat_template is None, dict(loaded.special_tokens)
    (True, {})
    """

    model: nn.Module  # in evaluation mode
    tokenizer: Tokenizer | None  # None if the files hold none
    config: Any  # the model's own, such as a DecoderConfig
    chat_template: str | None = None  # a Jinja2 template: messages to one text (`interop.chat`)
    special_tokens: Mapping[str, str] = field(default_factory=dict)  # such as {"eos_token": "<|im_end|>"}
