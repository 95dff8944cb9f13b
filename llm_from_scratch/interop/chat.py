"""Chat templates: from a list of messages to the one text that the model was trained to continue.

A template is a small program in Jinja2 that comes with the model's file, so it may come from anywhere. It
runs in Jinja2's sandbox, which keeps it from Python, files and the network. ``chat_limits`` adds what the
sandbox lacks: limits on its steps and on the text it makes.

The environment is that of `transformers`, so that a template gives the same text there and here.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from llm_from_scratch.interop.loaded import Loaded

Messages = Sequence[Mapping[str, Any]]

MAX_TEMPLATE = 1 << 20  # characters


def render_chat(
    template: str,
    messages: Messages,
    *,
    add_generation_prompt: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    **variables: Any,
) -> str:
    r"""Return the text of ``messages``.

    Arguments: each message is a dict, mostly ``{"role": "user", "content": "..."}``. With
    ``add_generation_prompt`` the text ends where the assistant's answer begins. ``variables`` are what
    else the template reads, such as ``bos_token``; a variable that it reads and nobody gave is empty.

    Raises: ValueError if the template is no Jinja2, refuses the messages, tries what the sandbox forbids,
    or takes too many steps or makes too much text; it carries the template's own message.

    >>> template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    >>> render_chat(template, [{"role": "user", "content": "Hello"}])
    '<user>Hello\n'
    """
    import jinja2

    if not isinstance(template, str) or len(template) > MAX_TEMPLATE:
        what = f"has {len(template)} characters" if isinstance(template, str) else f"is {template!r:.60}"
        raise ValueError(f"the chat template {what}; expected text of {MAX_TEMPLATE} characters at most")
    data = {"messages": messages, "tools": tools, "documents": documents, **variables}
    data = _plain({"add_generation_prompt": add_generation_prompt, **data})
    if not isinstance(data["messages"], list) or not all(isinstance(m, dict) for m in data["messages"]):
        raise ValueError(f"messages must be a list of dicts with role and content, got {messages!r:.80}")
    try:
        return _compile(template).render(**data)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"the chat template, line {error.lineno}, is no Jinja2: {error.message}") from None
    except jinja2.TemplateError as error:
        raise ValueError(f"the chat template refuses: {error}") from None
    except (RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"the chat template asks for too much: {type(error).__name__}") from None
    except Exception as error:  # any fault of the template's code, which runs here
        raise ValueError(f"the chat template failed: {type(error).__name__}: {error!s:.200}") from None


def encode_chat(
    loaded: Loaded, messages: Messages, *, add_generation_prompt: bool = True, **variables: Any
) -> list[int]:
    """Return the ids of ``messages`` for a loaded model, ready to be continued.

    The special tokens in the template's text become special ids. In the messages they are refused:
    whoever writes "<|im_end|>" in a message would otherwise end it and speak as somebody else.

    Raises: ValueError as `render_chat`; if the model has no template or no tokenizer; for a special token
    in a message.
    """
    if loaded.chat_template is None:
        raise ValueError("this model came without a chat template; it continues text, so encode the text")
    if loaded.tokenizer is None:
        raise ValueError("this model came without a tokenizer; render_chat gives the text of the messages")
    special = loaded.tokenizer.special_tokens
    messages, variables = _plain(messages), _plain(variables)  # what is looked at is what is rendered
    for text in _texts([messages, variables]):
        if found := next((token for token in special if token in text), None):
            raise ValueError(
                f"a message holds the special token {found!r}, which would end or forge a message; remove it"
            )
    named = {**loaded.special_tokens, **variables}
    text = render_chat(loaded.chat_template, messages, add_generation_prompt=add_generation_prompt, **named)
    return loaded.tokenizer.encode(text, allowed_special="all")


def _compile(template: str):
    from llm_from_scratch.interop.chat_limits import limited_environment, watch

    functions = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    environment = limited_environment({"tojson": _to_json}, functions)
    return environment.from_string(watch(environment.parse(template)))


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _plain(value: Any, depth: int = 0) -> Any:
    """A copy that is made of plain dicts, lists, texts and numbers: nothing of the caller's to call."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if depth > 32:
        raise ValueError("the messages nest deeper than 32 levels")
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        return [_plain(entry, depth + 1) for entry in value]
    raise ValueError(
        f"a template is given text, numbers, lists and dicts; {type(value).__name__} is none of them"
    )


def _texts(value: Any) -> Iterator[str]:
    """All texts in what `_plain` made."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from _texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)
