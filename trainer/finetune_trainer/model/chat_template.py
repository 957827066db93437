"""The chat template of a model: text of a conversation, rendered within bounds.

A template is a program of the model's makers. transformers runs it in Jinja's sandbox, which keeps it from the machine
but not from running for ever or filling the memory; here its loops, calls and texts are counted. What it raises on
purpose is about the conversation; whatever else happens in it is a fault of the model.
"""

import contextlib
import functools
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from finetune_api import wording
from finetune_api.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_SECONDS = 5.0
"""Longest rendering of a conversation (a choice): templates take less than a millisecond."""
MAX_CHARACTERS = 2**24
"""Most characters a rendering may write, and the longest text within it (a choice): a row has at most 2^20 bytes."""

_TICK, _OUT, _JOIN = "finetune_tick", "finetune_out", "finetune_join"
_MAX_POWER_BITS = 2**16
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_FAULTS = (
    *(TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError),
    *(AssertionError, NotImplementedError, OSError),
)
_PASSED = (jinja2.Environment, jinja2.runtime.Context, nodes.EvalContext)
_REMEDY = "use the tokenizer files and the chat template that the model's makers publish."


class RefusedError(Exception):
    """The template refuses the conversation; the message is the template's own."""


class _LimitError(Exception):
    """A bound was passed; the message says which."""


@dataclass(slots=True)
class _Budget:
    deadline: float
    characters: int = MAX_CHARACTERS

    def spend(self, count: int) -> None:
        self.characters -= count
        if self.characters < 0:
            raise _LimitError(f"write at most {MAX_CHARACTERS} characters")
        if time.monotonic() > self.deadline:
            raise _LimitError(f"take at most {MAX_SECONDS:g} seconds")


_running = threading.local()


def _tick(count: int) -> str:
    _running.budget.spend(count)
    return ""


def _out(value: Any) -> Any:
    if isinstance(value, str):
        _running.budget.spend(len(value))
    return value


def _join(*values: Any) -> str:
    texts = [str(value) for value in values]
    _check_size(sum(map(len, texts)))
    return "".join(texts)


def _check_size(size: int) -> None:
    if size > MAX_CHARACTERS:
        raise _LimitError(f"build texts of at most {MAX_CHARACTERS} characters")


def _check_arguments(name: str, own: object, arguments: Sequence[object]) -> None:
    """Refuse a call that could build a text without bound: by a width, or by repeating one text within another."""
    for argument in arguments:
        if isinstance(argument, int) and abs(argument) > MAX_CHARACTERS:
            raise _LimitError(f"call with numbers of at most {MAX_CHARACTERS}")
    texts = [argument for argument in arguments if isinstance(argument, str)]
    if name == "replace" and isinstance(own, str) and len(texts) > 1:
        _check_size(len(own) + own.count(texts[0]) * len(texts[1]))
    elif name == "join" and len(arguments) == 1 and isinstance(arguments[0], list | tuple):
        _check_size(sum(len(str(item)) + len(str(own)) for item in arguments[0]))


def _operate(plain: Callable[..., Any], context: Any, operator: str, left: Any, right: Any) -> Any:
    sized = next((item for item in (left, right) if isinstance(item, str | list | tuple)), None)
    if operator == "*" and sized is not None:
        _check_size(len(sized) * max(0, int(right if sized is left else left)))
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        if left.bit_length() * max(right, 0) > _MAX_POWER_BITS:
            raise _LimitError(f"compute with numbers of at most {_MAX_POWER_BITS} bits")
    elif operator == "%" and isinstance(left, str):
        _check_arguments("%", left, right if isinstance(right, tuple) else (right,))
        if any(len(digits) > 6 for digits in "".join(c if c.isdigit() else " " for c in left).split()):
            raise _LimitError("format texts of at most 999999 characters")
    elif operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        _check_size(len(left) + len(right))
    return plain(context, operator, left, right)


def _call(plain: Callable[..., Any], context: Any, target: Any, *arguments: Any, **options: Any) -> Any:
    own = getattr(target, "__self__", None)
    _check_arguments(getattr(target, "__name__", ""), own, [*arguments, *options.values()])
    return plain(context, target, *arguments, **options)


def _bound_filter(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def bounded(*arguments: Any, **options: Any) -> Any:
        values = [
            item
            for item in arguments
            if not isinstance(item, jinja2.Environment | jinja2.runtime.Context | nodes.EvalContext)
        ]
        _check_arguments(name, values[0] if values else None, [*values[1:], *options.values()])
        return plain(*arguments, **options)

    return bounded


class _Counter(NodeTransformer):
    """Puts the counting into a template."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        return _build_call(_JOIN, node.nodes, node.lineno)

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [
            item if isinstance(item, nodes.TemplateData) else _build_call(_OUT, [item], node.lineno)
            for item in node.nodes
        ]
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        return self._count_body(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        return self._count_body(node)

    def _count_body(self, node: Any) -> nodes.Node:
        size = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        call = _build_call(_TICK, [nodes.Const(size + 1, lineno=node.lineno)], node.lineno)
        node.body.insert(0, nodes.ExprStmt(call, lineno=node.lineno))
        return node  # type: ignore[no-any-return] # a node of either kind


def _build_call(name: str, arguments: list[Any], line: int) -> nodes.Call:
    return nodes.Call(nodes.Name(name, "load", lineno=line), arguments, [], None, None, lineno=line)


class ChatTemplate:
    """The template of a tokenizer, ready to render.

    Raises:
        ModelError: it is no template.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        from transformers.utils import chat_template_utils

        self._special = dict(tokenizer.special_tokens_map)
        self._lock = threading.Lock()
        try:
            self.source: str = tokenizer.get_chat_template()
            # Not a cached one: what is changed below must not meet others. And not that of the template, which the
            # compiler would compute in part, without bounds.
            environment: Any = chat_template_utils._cached_compile_jinja_template("").environment
            environment.globals |= {_TICK: _tick, _OUT: _out, _JOIN: _join}
            environment.filters = {name: _bound_filter(name, item) for name, item in environment.filters.items()}
            environment.intercepted_binops = frozenset({"*", "**", "%", "+"})
            environment.call_binop = functools.partial(_operate, environment.call_binop)
            environment.call = functools.partial(_call, environment.call)
            parsed = _Counter().visit(environment.parse(self.source))
            parsed.set_environment(environment)
            self._template = environment.from_string(parsed)
        except (jinja2.TemplateError, *_FAULTS) as error:
            raise _build_fault("be a Jinja template", error) from error

    @property
    def has_marks(self) -> bool:
        """Whether the template itself marks what the assistant says, with `{% generation %}`."""
        return _MARKS.search(self.source) is not None

    def render(self, messages: Sequence[Mapping[str, str]], *, is_asking: bool = False) -> str:
        """Return the text of a conversation.

        Args:
            messages: each with role and content.
            is_asking: end it as where the model is to answer.

        Raises:
            RefusedError: the template refuses the conversation.
            ModelError: the template fails, or passes a bound.
        """
        with self._bounded():
            return "".join(self._generate(messages, is_asking=is_asking))

    def render_marked(self, messages: Sequence[Mapping[str, str]]) -> tuple[str, list[tuple[int, int]]]:
        """Return the text of a conversation and where in it the template marks what the assistant says.

        Raises:
            RefusedError, ModelError: as `render`.
        """
        blocks: list[str] = []
        marks: list[tuple[int, int]] = []
        environment: Any = self._template.environment
        # The tracker belongs to the environment, so to one rendering at a time.
        with self._lock, self._bounded(), environment.activate_tracker(blocks, marks):
            for block in self._generate(messages, is_asking=False):
                blocks.append(block)
        return "".join(blocks), marks

    def _generate(self, messages: Sequence[Mapping[str, str]], *, is_asking: bool) -> Iterator[str]:
        chat = [dict(message) for message in messages]
        arguments = {"messages": chat, "tools": None, "documents": None, "add_generation_prompt": is_asking}
        return iter(self._template.generate(**self._special, **arguments))

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        _running.budget = _Budget(time.monotonic() + MAX_SECONDS)
        try:
            yield
        except _LimitError as error:
            raise ModelError(f"spec.model.uri: the chat template must {error}", _REMEDY) from error
        except jinja2.exceptions.SecurityError as error:
            raise _build_fault("stay within Jinja's sandbox", error) from error
        except jinja2.TemplateError as error:
            raise RefusedError(wording.show_error(error)) from error
        except _FAULTS as error:
            raise _build_fault("render conversations", error) from error


def _build_fault(wanted: str, error: Exception) -> ModelError:
    return ModelError(
        f"spec.model.uri: the chat template must {wanted}; {type(error).__name__}: {wording.show_error(error)}", _REMEDY
    )
