"""Plant small bugs in Python code, one at a time: those that people make when they write tensor code.

A mutant is the text of a file with one expression or statement changed between two lines; all else stays as it is.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

OPERATORS = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"), ast.Pow: ("**", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
}  # fmt: skip
COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
NEIGHBORS = (
    "sum mean", "max min", "amax amin", "argmax argmin", "maximum minimum", "sin cos", "exp log", "tanh sigmoid",
    "floor ceil", "zeros ones", "zeros_like ones_like", "softmax log_softmax", "triu tril", "any all", "sqrt square",
    "cat stack", "append clear",
)  # fmt: skip
OTHER_NAME = {a: b for pair in NEIGHBORS for a, b in (pair.split(), pair.split()[::-1])}
AXES = {"dim", "axis", "dims"}
# `strict` only checks what is given, and a forgotten `device` shows on a GPU alone.
NOT_PLANTED = {"strict", "device"}


@dataclass(frozen=True)
class Mutant:
    """One planted bug: of what kind, on which line (from 1), and the whole file with it."""

    kind: str
    line: int
    text: str

    @property
    def code(self) -> str:
        """The line as it stands now."""
        return self.text.splitlines()[self.line - 1].strip()


def mutants(text: str, first: int, last: int) -> list[Mutant]:
    """Every mutant of a file's lines [first, last), counted from 0. None of them equals another or the original."""
    found: dict[str, Mutant] = {}
    tree = ast.parse(text)
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    for parent in ast.walk(tree):
        for node in ast.iter_child_nodes(parent):
            if not hasattr(node, "lineno") or not (first < node.lineno and node.end_lineno <= last):
                continue
            for kind, after in _changes(node, parent, text):
                changed = _replaced(lines, node, after)
                if changed == text or changed in found:
                    continue
                try:
                    ast.parse(changed)
                except SyntaxError:
                    continue
                found[changed] = Mutant(kind, node.lineno, changed)
    return sorted(found.values(), key=lambda mutant: (mutant.line, mutant.kind, mutant.code))


def _replaced(lines: list[bytes], node: ast.AST, after: str) -> str:
    head, tail = lines[node.lineno - 1][: node.col_offset], lines[node.end_lineno - 1][node.end_col_offset :]
    return b"".join([*lines[: node.lineno - 1], head + after.encode() + tail, *lines[node.end_lineno :]]).decode()


def _changes(node: ast.AST, parent: ast.AST, text: str) -> Iterator[tuple[str, str]]:
    """(kind, what to write in the node's place)."""

    def code(part: ast.AST) -> str:
        return f"({ast.get_source_segment(text, part)})"

    match node:
        case ast.BinOp(left, ast.MatMult(), right):
            yield "swapped arguments", f"({code(right)} @ {code(left)})"
        case ast.BinOp(left, operator, right) if type(operator) in OPERATORS:
            kind = "flipped sign" if isinstance(operator, ast.Add | ast.Sub) else "wrong operator"
            yield kind, f"({code(left)} {OPERATORS[type(operator)][1]} {code(right)})"
            yield "dropped term" if kind == "flipped sign" else "dropped scale", code(left)
            if isinstance(operator, ast.Mult | ast.Add):
                yield "dropped term" if kind == "flipped sign" else "dropped scale", code(right)
        case ast.AugAssign(target, operator, value) if type(operator) in OPERATORS:
            yield "flipped sign", f"{ast.unparse(target)} {OPERATORS[type(operator)][1]}= {ast.unparse(value)}"
            yield "not added up", f"{ast.unparse(target)} = {ast.unparse(value)}"
            yield "dropped statement", "pass"
        case ast.UnaryOp(ast.USub(), ast.Constant(int(value))) if _is_axis(parent):
            yield "wrong axis", f"-{value + 1}"
            yield "wrong axis", f"({value})"
        case ast.UnaryOp(ast.USub(), operand):
            yield "flipped sign", code(operand)
        case ast.UnaryOp(ast.Not() | ast.Invert(), operand):
            yield "wrong condition", code(operand)
        case ast.Compare(left, [operator], [right]):
            yield "wrong condition", f"({code(left)} {COMPARISONS[type(operator)]} {code(right)})"
        case ast.BoolOp(operator, values):
            word = " or " if isinstance(operator, ast.And) else " and "
            yield "wrong condition", f"({word.join(map(code, values))})"
        case ast.IfExp(test, body, orelse):
            yield "wrong condition", f"({code(orelse)} if {code(test)} else {code(body)})"
        case ast.Constant(value):
            yield from _constants(value, node, parent)
        case ast.Call():
            yield from _calls(node, text)
        case ast.Slice(lower, upper, _) if lower is not None or upper is not None:
            yield from _slices(node, code)
        case ast.Return(value) if value is not None:
            yield from _detached(node, text)
        case ast.Expr(ast.Call()):
            yield "dropped statement", "pass"
        case ast.Attribute(value, name) if name in OTHER_NAME and not isinstance(parent, ast.Call):
            yield "wrong function", f"{ast.unparse(value)}.{OTHER_NAME[name]}"


def _is_axis(parent: ast.AST) -> bool:
    return isinstance(parent, ast.keyword) and parent.arg in AXES


def _constants(value, node: ast.Constant, parent: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(parent, ast.keyword) and parent.arg in NOT_PLANTED:
        return
    if isinstance(value, bool):
        yield "changed constant", str(not value)
    elif isinstance(value, int):
        yield "wrong axis" if _is_axis(parent) else "off by one", str(value + 1)
        if _is_axis(parent) and value:
            yield "wrong axis", str(value - 1)
    elif isinstance(value, float):
        yield "changed constant", repr(value * 2 if value else 1.0)
    elif isinstance(value, str) and "->" in value:
        yield from (("wrong axis", repr(swapped)) for swapped in _swapped_axes(value))


def _swapped_axes(pattern: str) -> Iterator[str]:
    """Patterns such as "b c (h p) -> b (h p c)" or "bij,bjk->bik" with two neighbors of the result exchanged."""
    head, _, tail = pattern.partition("->")
    word = r"\w+" if " " in tail.strip() else r"\w"
    for one, other in pairwise(re.findall(word, tail)):
        swap = {one: other, other: one}
        yield f"{head}->{re.sub(word, lambda found, swap=swap: swap.get(found[0], found[0]), tail)}"


def _calls(node: ast.Call, text: str) -> Iterator[tuple[str, str]]:
    def call(function: ast.AST, arguments: list[ast.AST], keywords: list[ast.keyword]) -> str:
        return ast.unparse(ast.Call(function, arguments, keywords))

    plain = not any(isinstance(argument, ast.Starred) for argument in node.args)
    if len(node.args) > 1 and plain and ast.dump(node.args[0]) != ast.dump(node.args[1]):
        yield "swapped arguments", call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    for place, keyword in enumerate(node.keywords):
        if keyword.arg not in NOT_PLANTED:
            yield "dropped argument", call(node.func, node.args, node.keywords[:place] + node.keywords[place + 1 :])
    match node.func:
        case ast.Attribute(value, name) if name in OTHER_NAME:
            yield "wrong function", call(ast.Attribute(value, OTHER_NAME[name], ast.Load()), node.args, node.keywords)
        case ast.Attribute(value, "contiguous" | "float" | "double" | "detach" | "clone"):
            pass
        case ast.Attribute(value, _) if not isinstance(value, ast.Name) or not node.args:
            yield "dropped call", f"({ast.unparse(value)})"
        case ast.Name(name) if name in OTHER_NAME:
            yield "wrong function", call(ast.Name(OTHER_NAME[name], ast.Load()), node.args, node.keywords)


def _slices(node: ast.Slice, code) -> Iterator[tuple[str, str]]:
    def slice_of(lower: str, upper: str) -> str:
        return f"{lower}:{upper}" + (f":{code(node.step)}" if node.step else "")

    lower, upper = (code(end) if end else "" for end in (node.lower, node.upper))
    if lower:
        yield "off by one", slice_of(f"{lower} + 1", upper)
        yield "dropped bound", slice_of("", upper)
    if upper:
        yield "off by one", slice_of(lower, f"{upper} - 1")
        yield "dropped bound", slice_of(lower, "")


def _detached(node: ast.Return, text: str) -> Iterator[tuple[str, str]]:
    parts = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
    for place, part in enumerate(parts):
        if isinstance(part, ast.Constant):
            continue
        shown = [f"({ast.unparse(each)}){'.detach()' if each is part else ''}" for each in parts]
        yield "detached gradient", f"return {', '.join(shown)}{',' if isinstance(node.value, ast.Tuple) else ''}"
        if isinstance(node.value, ast.Tuple) and place:
            swapped = [*parts[: place - 1], part, parts[place - 1], *parts[place + 1 :]]
            yield "swapped results", f"return {', '.join(map(ast.unparse, swapped))}"
