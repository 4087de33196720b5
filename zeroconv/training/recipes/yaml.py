"""YAML as recipes use it: text, numbers, lists and mappings. What else YAML can say is refused,
with its line.

Numbers are those of YAML 1.2: `1e-4` is one, `1:30` and dates are text. A leading zero, which YAML
1.1 reads as octal, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from zeroconv.errors import UserError

MOST_NODES = 20_000  # values and names, those that an alias repeats counted again
MOST_DEPTH = 32
MOST_DIGITS = 64

_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*\.[0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_OCTAL = re.compile(r"[-+]?0[0-9_]+")


class _Refused(yaml.MarkedYAMLError):
    """What is not read, though it is YAML."""


class _Loader(yaml.SafeLoader):
    """SafeLoader, bounded, with the numbers of YAML 1.2 and without tags of one's own, dates and
    double keys.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if not tag.endswith((":int", ":float", ":timestamp", ":value"))
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes, self.depth = 0, 0
        self.sizes: dict[int, int] = {}  # of finished nodes, by id

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        mark = self.peek_event().start_mark

        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            size = self.sizes.get(id(node))

            if size is None:
                raise _Refused(problem="a value that holds itself", problem_mark=mark)
            self._count(size, mark)
            return node

        self._check_tag(self.peek_event())
        self.depth += 1

        if self.depth > MOST_DEPTH:
            problem = f"more than {MOST_DEPTH} values within each other"
            raise _Refused(problem=problem, problem_mark=mark)

        before = self.nodes
        self._count(1, mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        self.sizes[id(node)] = self.nodes - before

        if isinstance(node, ScalarNode):
            _check_scalar(node)
        if isinstance(node, MappingNode):
            _check_names(node)
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
            raise _Refused(problem=f"no value ({error})", problem_mark=node.start_mark) from error

    def _count(self, more: int, mark: Any) -> None:
        self.nodes += more

        if self.nodes > MOST_NODES:
            problem = f"more than {MOST_NODES:,} values, those that aliases (*name) repeat included"
            raise _Refused(problem=problem, problem_mark=mark)

    def _check_tag(self, event: Any) -> None:
        tag = getattr(event, "tag", None)

        if tag not in (None, "!", _TEXT):
            name = tag.replace("tag:yaml.org,2002:", "!!")
            problem = f"the tag {_short(name)}, which is not read; write the value alone"
            raise _Refused(problem=problem, problem_mark=event.start_mark)


# the first letters only save time: a pattern is tried where the value begins with one of them
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(f"^(?:{_INT.pattern})$"), [*"-+0123456789"]
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), [*"-+0123456789."]
)


def parse_yaml(text: str, name: str) -> Any:
    """The value of a YAML text; `name` ("the recipe x.yaml") begins the sentence.

    Raises UserError, with the line, for what is no YAML and for what is not read: several
    documents, tags, names that are no text or stand twice, values that hold themselves, numbers
    with a leading zero or of more than 64 digits, NUL and half characters, and more than
    `MOST_NODES` values or `MOST_DEPTH` within each other.
    """
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f", line {mark.line + 1}"
        problem = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise UserError(f"{name}{where}: {_reason(error, problem)}.") from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise UserError(
            f"{name}, line {line}: it holds the character U+{_code(error.character):04X}, which is "
            "none of a text; is it the right file?"
        ) from error
    finally:
        if loader is not None:
            loader.dispose()


def _reason(error: yaml.MarkedYAMLError, problem: str) -> str:
    problem = " ".join(problem.split())

    if isinstance(error, _Refused):
        return f"it holds {problem}"
    if "'\\t'" in problem:
        return "a tab stands where spaces must; indent with spaces"
    return f"this is no YAML ({_short(problem, 160)})"


def _code(character: Any) -> int:
    return character if isinstance(character, int) else ord(character)


def _check_scalar(node: ScalarNode) -> None:
    value, plain = node.value, node.style is None

    if plain and _OCTAL.fullmatch(value) and node.tag == _TEXT:
        problem = (
            f"{_short(value)}, a number with a leading zero; leave the zero out, or quote it as "
            "text"
        )
        raise _Refused(problem=problem, problem_mark=node.start_mark)

    if node.tag.endswith((":int", ":float")) and len(value) > MOST_DIGITS:
        problem = f"a number of {len(value):,} digits; no setting needs more than {MOST_DIGITS}"
        raise _Refused(problem=problem, problem_mark=node.start_mark)

    if node.tag == _TEXT:
        try:
            # "\ud83d\ude00" is how JSON writes one character
            node.value = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError as error:
            raise _Refused(
                problem="half a character (a lone surrogate)", problem_mark=node.start_mark
            ) from error

        if "\0" in value:
            raise _Refused(problem="a NUL character in a text", problem_mark=node.start_mark)


def _check_names(node: MappingNode) -> None:
    seen: set[Hashable] = set()

    for key, _ in node.value:
        if key.tag == _MERGE:
            continue
        if isinstance(key, SequenceNode | MappingNode) or key.tag != _TEXT:
            shown = _short(key.value) if isinstance(key, ScalarNode) else "a list or a mapping"
            problem = f"the name {shown}, which is read as no text; put it into quotes"
            raise _Refused(problem=problem, problem_mark=key.start_mark)
        if key.value in seen:
            problem = f"the name {_short(key.value)} twice"
            raise _Refused(problem=problem, problem_mark=key.start_mark)
        seen.add(key.value)


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
