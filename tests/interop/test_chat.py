"""Chat templates: the text that transformers makes of them, and none of what a hostile one wants."""

import dataclasses
import time

import pytest
from torch import nn
from transformers.utils.chat_template_utils import render_jinja_template

from llm_from_scratch.interop.chat import encode_chat, render_chat
from llm_from_scratch.interop.loaded import Loaded
from llm_from_scratch.tokenizers import BytePairTokenizer

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INSTRUCT = """{{ bos_token }}
{%- if messages[0].role == "system" %}
    {%- set system = messages[0].content | trim %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set system = "" %}
    {%- set rest = messages %}
{%- endif %}
{%- set ns = namespace(last=-1, found=false) %}
{%- for m in rest %}
    {%- if (m.role == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("roles must alternate") }}
    {%- endif %}
    {%- if m.role == "user" %}{% set ns.last = loop.index0 %}{% set ns.found = true %}{% endif %}
{%- endfor %}
{%- if tools %}
    {%- for tool in tools %}
{{ tool | tojson(indent=2) }}
    {%- endfor %}
{% endif %}
{%- for m in rest -%}
    {% if loop.index0 == ns.last and system %}[{{ system ~ "|" ~ ns.found }}]{% endif %}
    {% if m.role == "user" %}
[INST] {{ m.content | replace("é", "e") | upper }} [/INST]
    {% else %}
{% generation %}{{ m.content.strip() + eos_token }}{% endgeneration %}
    {% endif %}
    {%- if loop.index > 50 %}{% break %}{% endif %}
{%- endfor %}
{%- macro tail(n) %}{% if n %}{{ n }}{{ tail(n - 1) }}{% endif %}{% endmacro %}
{{- tail(3) }} {{ undefined_name }} {{ messages | map(attribute="role") | join(",") }} {{ 7 // 2 * 3 ** 2 }}
"""
RECURSIVE = "{% for m in tree recursive %}{{ m.name }}({{ loop(m.inside) }}){{ loop.last }}{% endfor %}"
MESSAGES = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "What is «2 < 3»?\n{{ messages }} é"},
    {"role": "assistant", "content": " True. "},
    {"role": "user", "content": ""},
]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"a": ["int", "ü"]}}}]


@pytest.mark.parametrize("template", [CHATML, INSTRUCT])
@pytest.mark.parametrize("messages", [MESSAGES, MESSAGES[1:2], MESSAGES[1:4]])
@pytest.mark.parametrize("prompt", [False, True])
def test_the_text_is_that_of_transformers(template, messages, prompt):
    variables = {"bos_token": "<s>", "eos_token": "</s>", "tools": TOOLS}
    expected, _ = render_jinja_template(
        [messages], chat_template=template, add_generation_prompt=prompt, **variables
    )
    assert render_chat(template, messages, add_generation_prompt=prompt, **variables) == expected[0]


def test_a_loop_over_a_tree_is_rendered_as_by_transformers():
    tree = [{"name": "a", "inside": [{"name": "b", "inside": []}]}, {"name": "c", "inside": []}]
    expected, _ = render_jinja_template([[]], chat_template=RECURSIVE, tree=tree)
    assert render_chat(RECURSIVE, [], tree=tree) == expected[0] == "a(b()True)Falsec()True"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system role here') }}", "no system role here"),
        ("{{ messages[0].content.nothing.here }}", "refuses: .*no attribute 'nothing'"),
        ("{% for %}", "line 1, is no Jinja2"),
        ("line\n{{ }", "line 2, is no Jinja2"),
        ("{% include 'secret' %}", "failed: TypeError: no loader"),
        ("{{ 1 // 0 }}", "failed: ZeroDivisionError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.__init__.__globals__ }}", "unsafe"),
        ("{{ '{0.__class__.__mro__}'.format(1) }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe|not safely callable"),
        ("{{ namespace(__class__=1) }}", "underscore"),
        ("{{ namespace([('__init__', 1)]) }}", "underscore"),
        ("{% set n = namespace() %}{% set n.__init__ = 1 %}", "underscore"),
        ("{{ cycler(1) }}", "undefined"),
        ("{{ open('x') }}", "undefined"),
    ],
)
def test_what_a_template_may_not_do_is_a_value_error_with_its_reason(template, message):
    with pytest.raises(ValueError, match=message):
        render_chat(template, [{"role": "user", "content": "x"}])


@pytest.mark.parametrize("inside", ["''.__class__", "''|attr('__class__')", "raise_exception.__globals__"])
def test_python_behind_a_value_is_as_if_it_were_not_there(inside):
    assert render_chat("<{{ " + inside + " }}>", []) == "<>"


BOMBS = {
    "loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loop over a loop": "{% for i in range(9999) recursive %}{{ loop(range(9999)) }}{% endfor %}",
    "calls": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(50) }}",
    "endless call": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "times": "{{ 'a' * 10 ** 10 }}",
    "list times": "{{ ([0] * 99999 * 99999) | length }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "squares": "{% set n = namespace(x=7) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "joined": "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "added": "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "list added": "{% set n = namespace(x=[1]) %}"
    "{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "blocks": "{% set x %}abcdefgh{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "nested lists": "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
    "nested as JSON": "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ (x | tojson) | length }}",
    "one text often": "{{ (['a' * 99999] * 99999) | join('') | length }}",
    "joined by a method": "{{ ''.join(['a' * 99999] * 99999) | length }}",
    "centred": "{{ 'a' | center(10 ** 9) | length }}",
    "justified": "{{ 'a'.ljust(10 ** 9) | length }}",
    "format": "{{ '%0999999999d' | format(1) | length }}",
    "percent": "{{ ('%999999999d' % 1) | length }}",
    "percent star": "{{ ('%*d' % (999999999, 1)) | length }}",
    "braces": "{{ '{:999999999}'.format(1) | length }}",
    "replaced": "{{ ('a' * 99999) | replace('a', 'b' * 99999) | length }}",
    "replaced by a method": "{{ ('a' * 99999).replace('a', 'b' * 99999) | length }}",
    "indented": "{{ ('\n' * 99999) | indent(99999) | length }}",
    "long text kept": "{% set x %}{% for i in range(99999) %}" + "long " * 99 + "{% endfor %}{% endset %}",
    "long text": "{% for i in range(99999) %}" + "long " * 99 + "{% endfor %}",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_template_that_would_never_end_or_fill_the_memory_is_stopped(bomb):
    start = time.monotonic()
    with pytest.raises(ValueError, match="chat template"):
        render_chat(BOMBS[bomb], [])
    assert time.monotonic() - start < 60


def test_long_conversations_are_within_the_limits():
    messages = [{"role": "user", "content": "word " * 200} for _ in range(1000)]
    assert render_chat(CHATML, messages).count("<|im_start|>") == 1001


@pytest.mark.parametrize(
    ("template", "messages", "message"),
    [
        (None, [], "the chat template is None"),
        ("x" * (1 << 21), [], "has 2097152 characters"),
        ("x", "hello", "list of dicts"),
        ("x", ["hello"], "list of dicts"),
        ("x", [{"role": "user", "content": object()}], "object is none of them"),
        ("x", [{"role": "user", "content": b"bytes"}], "bytes is none of them"),
    ],
)
def test_what_is_no_template_or_no_message(template, messages, message):
    with pytest.raises(ValueError, match=message):
        render_chat(template, messages)


def test_messages_that_contain_themselves_are_refused():
    message = {"role": "user"}
    message["content"] = [message]
    with pytest.raises(ValueError, match="deeper than 32"):
        render_chat("{{ messages }}", [message])


@pytest.mark.parametrize(
    "template",
    [
        "{{ ('x' * 90000).translate({120: 'y' * 90000}) }}",
        "{{ ('x' * 90000).translate(['y' * 90000] * 121) }}",
        "{{ ('%(a)s' * 15000) % {'a': 'y' * 90000} }}",
        "{{ ('%(a)s' * 15000) % {'a': ['y' * 90000]} }}",
        "{{ ('%(a)s' * 15000) | format(a=['y' * 90000]) }}",
        "{{ ('{a}' * 15000).format_map({'a': 'y' * 90000}) }}",
        "{{ ('{a[0]}' * 15000).format(a=['y' * 90000]) }}",
    ],
)
def test_one_text_in_many_places_of_another(template):
    with pytest.raises(ValueError, match="it could make more than 20000000 characters at once"):
        render_chat(template, [])
    assert render_chat("{{ 'x{a}'.format(a=m[0]) }}{{ '%s' % m }}", [], m=["y" * 9000]).count("y") == 18_000


@pytest.mark.parametrize("compared", ["a.x == b.x", "a.x in [b.x]", "a.x is eq b.x", "a.x is in [b.x]"])
def test_lists_that_are_doubled_many_times_are_not_compared(compared):
    grown = (
        "{% set a = namespace(x=['y']) %}{% set b = namespace(x=['y']) %}{% for i in range(30) %}"
        "{% set a.x = [a.x, a.x] %}{% set b.x = [b.x, b.x] %}{% endfor %}"
    )
    with pytest.raises(ValueError, match="it handles more than"):
        render_chat(grown + "{{ " + compared + " }}", [])
    small = grown.replace("30", "5") + "{{ " + compared + " }} {{ u is defined }} {{ 1 < 2 < 3 != 4 }}"
    assert render_chat(small, []) == "True False True"


@pytest.fixture
def loaded():
    tokens = ["<|im_start|>", "<|im_end|>"]
    tokenizer = BytePairTokenizer.train("low lower", vocab_size=260, special_tokens=tokens)
    return Loaded(model=nn.Identity(), tokenizer=tokenizer, config=None, chat_template=CHATML)


class Name:
    def __str__(self):
        return "<|im_end|>"


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "<|im_end|>"}],
        ({"role": role, "content": ""} for role in ["user<|im_end|>"]),
        [{"role": "user", "content": (text for text in ["<|im_end|>"])}],
        [{"role": "user", "content": {"<|im_end|>"}}],
        [{"role": "user", "content": {"a": "<|im_end|>"}.values()}],
        [{"role": "user", "content": {Name(): ""}}],
    ],
)
def test_special_tokens_in_messages_of_any_shape(loaded, messages):
    with pytest.raises(ValueError, match=r"a message holds the special token '<\|im_end\|>'"):
        encode_chat(loaded, messages)


def test_messages_may_be_read_only_once(loaded):
    messages = [{"role": "user", "content": "low"}]
    assert encode_chat(loaded, iter(messages)) == encode_chat(loaded, messages)


def test_without_a_tokenizer_or_a_template(loaded):
    with pytest.raises(ValueError, match="without a tokenizer; render_chat gives the text"):
        encode_chat(dataclasses.replace(loaded, tokenizer=None), [])
    with pytest.raises(ValueError, match="without a chat template"):
        encode_chat(dataclasses.replace(loaded, chat_template=None), [])
