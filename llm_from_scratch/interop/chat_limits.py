"""Limits on a Jinja2 template, which its sandbox lacks: on the steps it takes and the text it makes.

The template's syntax tree is changed before it is compiled: each loop hands its items through a counter,
and each joined or written text through another. Calls, filters and operators are looked at before they
run, and counted after.

Not limited: the time and the memory of one single operation on data within the limits, such as one sort
of a list of a hundred thousand entries. A program that has to be sure renders in a process of its own,
with limits that the operating system sets.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_STEPS = 200_000  # items of loops, calls, operators, filters, texts written
MAX_CHARACTERS = 20_000_000  # made in all, also of what is thrown away
MAX_ENTRIES = 1_000_000  # of lists inside lists, looked at by one operation
MAX_SECONDS = 10.0
MAX_NUMBER = 100_000  # widths and counts
MAX_BITS = 4096  # of a product or power
_LONG_NUMBER = re.compile(r"\d{5,}|\*")  # in a format: a width of 10,000 and more, or one given apart


class Limits:
    """What one rendering may still do."""

    def __init__(self) -> None:
        self.steps, self.characters = MAX_STEPS, MAX_CHARACTERS
        self.deadline = time.monotonic() + MAX_SECONDS

    def step(self) -> None:
        """Count one step."""
        self.steps -= 1
        if self.steps < 0:
            raise SecurityError(f"it takes more than {MAX_STEPS} steps")
        if self.steps % 256 == 0 and time.monotonic() > self.deadline:
            raise SecurityError(f"it takes more than {MAX_SECONDS:.0f} seconds")

    def charge(self, value: Any) -> Any:
        """Count one step and the size of what it made."""
        self.step()
        if isinstance(value, (str, list, tuple, dict)):
            self._spend(len(value))
        return value

    def _spend(self, characters: int) -> None:
        self.characters -= characters
        if self.characters < 0:
            raise SecurityError(f"it makes more than {MAX_CHARACTERS} characters")

    def written(self, value: Any) -> Any:
        """A value that is about to be written out or joined to others."""
        self.check_size(value)
        return self.charge(value)

    def looked_at(self, value: Any) -> Any:
        """A value that is about to be compared: lists inside lists take for ever if they are a few deep."""
        self.check_size(value)
        self.step()
        return value

    def counted_items(self, items: Iterable[Any], literal: int = 0) -> Iterator[Any]:
        """The items of a loop: one step each, and the ``literal`` characters of the loop's own text."""
        for item in items:
            self.step()
            self._spend(literal)
            yield item

    def check_size(self, value: Any) -> int:
        """Refuse lists that hold, all told, more than the limit: one long text may stand in them often.

        Returns how many characters and entries they hold.
        """
        stack, size, entries = [value], 0, 0
        while stack:
            entry = stack.pop()
            entries += 1
            if isinstance(entry, str):
                size += len(entry)
            elif isinstance(entry, (list, tuple)):
                stack += entry
            elif isinstance(entry, dict):
                stack += [*entry, *entry.values()]
            if size > MAX_CHARACTERS or entries + len(stack) > MAX_ENTRIES:
                limits = f"{MAX_CHARACTERS} characters or {MAX_ENTRIES} entries"
                raise SecurityError(f"it handles more than {limits} at once")
        return size + entries

    def check_repeats(self, times: int, values: Any) -> None:
        """Refuse a format or a translation whose ``times`` places could each hold all of ``values``."""
        if times * self.check_size(values) > MAX_CHARACTERS:
            raise SecurityError(f"it could make more than {MAX_CHARACTERS} characters at once")

    def check_product(self, values: Iterable[Any]) -> None:
        """Refuse a count or width that is huge, by itself or beside a long text."""
        factors = []
        for value in values:
            if isinstance(value, (str, list, tuple)):
                factors.append(len(value))
            elif isinstance(value, int):
                factors.append(abs(value))
                if abs(value) > MAX_NUMBER:
                    raise SecurityError(f"the count {value:.3g} is over the limit of {MAX_NUMBER}")
        largest = sorted(factors)[-2:]
        if len(largest) == 2 and largest[0] * largest[1] > MAX_CHARACTERS:
            raise SecurityError(f"it could make more than {MAX_CHARACTERS} characters at once")

    def check_format(self, form: str) -> None:
        """Refuse a format such as "%999999999d", which makes a text of that width."""
        if ("{" in form or "%" in form) and _LONG_NUMBER.search(form):
            raise SecurityError("a format whose width is 10,000 or more, or is given apart, is not allowed")


_WATCHED = (nodes.For, nodes.Concat, nodes.Output, nodes.NSRef, nodes.Compare, nodes.Test)


def watch(tree: nodes.Template) -> nodes.Template:
    """Hand the items of loops, joined, compared and written values through the filters that count."""
    for node in tree.find_all(_WATCHED):
        if isinstance(node, nodes.For):
            literal = sum(len(part.data) for part in node.find_all(nodes.TemplateData))
            node.iter = _through("counted_items", node.iter, nodes.Const(literal))
        elif isinstance(node, nodes.NSRef):
            _check_names([node.attr])
        elif isinstance(node, nodes.Compare):
            node.expr = _through("looked_at", node.expr)
            for operand in node.ops:
                operand.expr = _through("looked_at", operand.expr)
        elif isinstance(node, nodes.Test):
            node.node = _through("looked_at", node.node)
            node.args = [_through("looked_at", part) for part in node.args]
        else:
            node.nodes = [_written(part) for part in node.nodes]
    return tree


def _written(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.TemplateData) else _through("written", node)


def _through(filter_name: str, node: nodes.Expr, *args: nodes.Expr) -> nodes.Expr:
    places = {"lineno": node.lineno, "environment": node.environment}
    return nodes.Filter(node, filter_name, list(args), [], None, None, **places)


class _GenerationBlock(Extension):
    """The tag ``{% generation %}``, which marks the assistant's words; here they are only written."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with every call, operator and filter looked at and counted."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])
    limits: Limits

    def call(self, context, function, *args, **kwargs):
        """Call what the template calls."""
        method = getattr(function, "__wrapped__", function)  # the sandbox wraps str.format
        owner = getattr(method, "__self__", None)  # "a" in "a".ljust(9)
        if isinstance(owner, str):
            self.limits.check_format(owner)
            places = len(owner) if method.__name__ == "translate" else owner.count("{")
            self.limits.check_repeats(places, [args, kwargs])
        if isinstance(owner, (str, list)):
            self.limits.check_product([owner, *args, *kwargs.values()])
        if isinstance(function, LoopContext):  # a loop over what lies inside an item
            args = [self.limits.counted_items(items) for items in args]
        self.limits.check_size(args)
        return self.limits.charge(super().call(context, function, *args, **kwargs))

    def call_binop(self, context, operator, left, right):
        """Apply an operator."""
        if operator == "%" and isinstance(left, str):
            self.limits.check_format(left)
            self.limits.check_repeats(left.count("%"), right)
        elif operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            bits = (
                left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
            )
            if bits > MAX_BITS:
                raise SecurityError(f"a number of more than {MAX_BITS} bits")
        elif operator == "*":
            self.limits.check_product([left, right])
        return self.limits.charge(super().call_binop(context, operator, left, right))

    def counted_filter(self, name: str, function):
        """The filter, with what it is given looked at, and what it makes counted."""
        first = 1 if hasattr(function, "jinja_pass_arg") else 0  # the place of the value that is filtered

        def counted(*args, **kwargs):
            value, others = args[first], [*args[first + 1 :], *kwargs.values()]
            if name == "format":
                self.limits.check_format(str(value))
                self.limits.check_repeats(str(value).count("%"), others)
            self.limits.check_size([value, others])
            self.limits.check_product([value, *others] if isinstance(value, (str, list)) else others)
            return self.limits.charge(function(*args, **kwargs))

        for mark in ("jinja_pass_arg", "jinja_async_variant"):
            if hasattr(function, mark):
                setattr(counted, mark, getattr(function, mark))
        return counted


def limited_environment(filters: Mapping[str, Any], functions: Mapping[str, Any]) -> _Environment:
    """Return a sandbox with its limits, for one rendering. White space is handled as in `transformers`."""
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock]
    )
    environment.limits = Limits()
    for name, function in [*environment.filters.items(), *filters.items()]:
        environment.filters[name] = environment.counted_filter(name, function)
    environment.filters |= {
        "written": environment.limits.written,
        "counted_items": environment.limits.counted_items,
        "looked_at": environment.limits.looked_at,
    }
    environment.globals = {
        "range": environment.globals["range"],
        "dict": lambda *args, **kwargs: dict(*args, **kwargs),
        "namespace": _namespace,
        **functions,
    }
    return environment


def _namespace(*args: Any, **kwargs: Any) -> Namespace:
    attributes = dict(*args, **kwargs)
    _check_names(attributes)
    return Namespace(attributes)


def _check_names(names: Iterable[Any]) -> None:
    for name in names:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace holds no name that begins with an underscore: {name!r:.40}")
