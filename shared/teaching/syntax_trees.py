"""Compare Python code by its syntax trees, whatever the names of variables, the layout and the comments."""

import ast
import textwrap
from collections.abc import Iterator, Mapping
from functools import lru_cache

from shared.teaching.logical_lines import dedent

MIN_NODES = 18
"""Nodes of an expression from which on it can be told from a common one."""
_IGNORED = {"ctx", "kind", "type_comment"}


def large_expressions(code: str) -> Mapping[int, str]:
    """Return the expressions of at least MIN_NODES nodes: a hash that ignores names → the code.

    Attributes, argument names and constants count; variables are all the same. {} for code that is not Python.
    """
    return _large_expressions(dedent(code))


@lru_cache(8192)
def _large_expressions(code: str) -> Mapping[int, str]:
    # The lines of an exercise may contain `return`, which only stands in a function.
    for text in (code, f"def function():\n{textwrap.indent(code, ' ')}"):
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue
        return {value: ast.unparse(node) for node, value, size in _hashes(tree) if size >= MIN_NODES}
    return {}


def _hashes(tree: ast.AST) -> list[tuple[ast.expr, int, int]]:
    """Return each expression with its hash and its number of nodes."""
    expressions: list[tuple[ast.expr, int, int]] = []

    def visit(node: ast.AST) -> tuple[int, int]:
        parts: list[object] = [type(node).__name__]
        size = 1
        for value in _fields(node):
            if isinstance(value, ast.AST):
                part, nodes = visit(value)
                parts.append(part)
                size += nodes
            else:
                parts.append(repr(value))
        result = hash(tuple(parts))
        if isinstance(node, ast.expr):
            expressions.append((node, result, size))
        return result, size

    visit(tree)
    return expressions


def _fields(node: ast.AST) -> Iterator[object]:
    """Yield the values of a node's fields, without the name of a variable; lists are yielded item by item."""
    for name, value in ast.iter_fields(node):
        if name not in _IGNORED and not (isinstance(node, ast.Name) and name == "id"):
            yield from value if isinstance(value, list) else [value]
