"""Generate mutants: Python code with one small bug of the kinds that people make in tensor code.

A mutant is the text of a file with one expression or statement changed within a range of lines.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from shared.teaching.mutation.tensor_mutants import lines_of_scalar_functions, tensor_mutants

OPERATORS = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
COMPARISONS = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
SIMILAR_FUNCTIONS = (
    "sum mean",
    "max min",
    "amax amin",
    "argmax argmin",
    "maximum minimum",
    "sin cos",
    "exp log",
    "tanh sigmoid",
    "floor ceil",
    "zeros ones",
    "zeros_like ones_like",
    "softmax log_softmax",
    "triu tril",
    "any all",
    "sqrt square",
    "cat stack",
    "append clear",
)
SIMILAR_NAME = {a: b for pair in SIMILAR_FUNCTIONS for a, b in (pair.split(), pair.split()[::-1])}
IN_PLACE = {ast.Add: "add_", ast.Sub: "sub_", ast.Mult: "mul_", ast.Div: "div_"}
IN_PLACE_METHODS = {"masked_fill", "clamp", "clamp_min", "exp", "log", "sqrt", "relu", "tanh", "squeeze", "scatter"}
AXES = {"dim", "axis", "dims"}
# `strict` only checks the arguments, and a missing `device` fails on a GPU only.
UNCHANGED_KEYWORDS = {"strict", "device"}


@dataclass(frozen=True)
class Mutant:
    """One planted bug: its kind, its line (from 1), and the text of the file with it."""

    kind: str
    line: int
    text: str

    @property
    def code(self) -> str:
        """The changed line."""
        return self.text.splitlines()[self.line - 1].strip()


def generate_mutants(text: str, first: int, last: int) -> list[Mutant]:
    """Return all mutants of a file's lines [first, last), counted from 0; no two equal each other or the original."""
    mutants: dict[str, Mutant] = {}
    tree = ast.parse(text)
    inputs, names = _inputs(tree, first, last), _names(tree, first, last)
    scalars = lines_of_scalar_functions(tree)
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    for parent in ast.walk(tree):
        for node in ast.iter_child_nodes(parent):
            if not isinstance(node, ast.expr | ast.stmt) or not (
                first < node.lineno and (node.end_lineno or 0) <= last
            ):
                continue
            replacements = [*_replacements(node, parent, text), *_changed_inputs(node, inputs)]
            for kind, replacement in (*replacements, *tensor_mutants(node, parent, inputs, names, scalars)):
                mutated = _replace(lines, node, replacement)
                if mutated == text or mutated in mutants:
                    continue
                try:
                    ast.parse(mutated)
                except SyntaxError:
                    continue
                mutants[mutated] = Mutant(kind, node.lineno, mutated)
    return sorted(mutants.values(), key=lambda mutant: (mutant.line, mutant.kind, mutant.code))


def _inputs(tree: ast.AST, first: int, last: int) -> set[str]:
    """Return the arguments of the functions around or in some lines that are not assigned in these lines."""
    names: set[str] = set()
    assigned: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.lineno <= last and first < (node.end_lineno or 0):
            names |= {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and first < node.lineno <= last:
            assigned.add(node.id)
    return names - assigned


def _names(tree: ast.AST, first: int, last: int) -> set[str]:
    """Return the arguments of the functions around some lines, and the names in these lines."""
    in_lines = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and first < node.lineno <= last}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    around = [node for node in functions if node.lineno <= last and first < (node.end_lineno or 0)]
    return in_lines | {argument.arg for node in around for argument in (*node.args.args, *node.args.kwonlyargs)}


def _changed_inputs(node: ast.AST, inputs: set[str]) -> Iterator[tuple[str, str]]:
    """Yield replacements that compute the same value and write it into an argument, which the caller still needs."""
    match node:
        case ast.BinOp(ast.Name(name), operator, right) if name in inputs and type(operator) in IN_PLACE:
            yield "changed input", f"{name}.{IN_PLACE[type(operator)]}({ast.unparse(right)})"
        case ast.Call(ast.Attribute(ast.Name(name), method), _, _) if name in inputs and method in IN_PLACE_METHODS:
            call = ast.Call(ast.Attribute(ast.Name(name), f"{method}_", ast.Load()), node.args, node.keywords)
            yield "changed input", ast.unparse(call)


def _replace(lines: list[bytes], node: ast.expr | ast.stmt, replacement: str) -> str:
    """Return the text with a node replaced. Columns are counted in UTF-8 bytes, as `ast` does."""
    end_line = node.end_lineno or node.lineno
    head, tail = lines[node.lineno - 1][: node.col_offset], lines[end_line - 1][node.end_col_offset :]
    return b"".join([*lines[: node.lineno - 1], head + replacement.encode() + tail, *lines[end_line:]]).decode()


def _replacements(node: ast.AST, parent: ast.AST, text: str) -> Iterator[tuple[str, str]]:
    """Yield (kind of bug, replacement for the node)."""

    def code(part: ast.expr) -> str:
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
            yield from _calls(node)
        case ast.Slice(lower, upper, _) if lower is not None or upper is not None:
            yield from _slices(node, code)
        case ast.Return(value) if value is not None:
            yield from _detached(value)
        case ast.Expr(ast.Call()):
            yield "dropped statement", "pass"
        case ast.Attribute(value, name) if name in SIMILAR_NAME and not isinstance(parent, ast.Call):
            yield "wrong function", f"{ast.unparse(value)}.{SIMILAR_NAME[name]}"


def _is_axis(parent: ast.AST) -> bool:
    return isinstance(parent, ast.keyword) and parent.arg in AXES


def _constants(value: object, node: ast.Constant, parent: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(parent, ast.keyword) and parent.arg in UNCHANGED_KEYWORDS:
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
    """Yield einops and einsum patterns ("b (h p) -> b h p", "bij,bjk->bik") with two adjacent result axes swapped."""
    head, _, tail = pattern.partition("->")
    word = r"\w+" if " " in tail.strip() else r"\w"
    for first, second in pairwise(re.findall(word, tail)):
        swapped = re.sub(word, partial(_swap, first, second), tail)
        yield f"{head}->{swapped}"


def _swap(first: str, second: str, match: re.Match[str]) -> str:
    return {first: second, second: first}.get(match[0], match[0])


def _calls(node: ast.Call) -> Iterator[tuple[str, str]]:
    def call(function: ast.expr, arguments: list[ast.expr], keywords: list[ast.keyword]) -> str:
        return ast.unparse(ast.Call(function, arguments, keywords))

    plain = not any(isinstance(argument, ast.Starred) for argument in node.args)
    if len(node.args) > 1 and plain and ast.dump(node.args[0]) != ast.dump(node.args[1]):
        yield "swapped arguments", call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    for place, keyword in enumerate(node.keywords):
        if keyword.arg not in UNCHANGED_KEYWORDS:
            yield "dropped argument", call(node.func, node.args, node.keywords[:place] + node.keywords[place + 1 :])
    match node.func:
        case ast.Attribute(value, name) if name in SIMILAR_NAME:
            yield "wrong function", call(ast.Attribute(value, SIMILAR_NAME[name], ast.Load()), node.args, node.keywords)
        case ast.Attribute(value, "contiguous" | "float" | "double" | "detach" | "clone"):
            pass
        case ast.Attribute(value, _) if not isinstance(value, ast.Name) or not node.args:
            yield "dropped call", f"({ast.unparse(value)})"
        case ast.Name(name) if name in SIMILAR_NAME:
            yield "wrong function", call(ast.Name(SIMILAR_NAME[name], ast.Load()), node.args, node.keywords)


def _slices(node: ast.Slice, code: Callable[[ast.expr], str]) -> Iterator[tuple[str, str]]:
    def slice_of(lower: str, upper: str) -> str:
        return f"{lower}:{upper}" + (f":{code(node.step)}" if node.step else "")

    lower, upper = (code(end) if end else "" for end in (node.lower, node.upper))
    if lower:
        yield "off by one", slice_of(f"{lower} + 1", upper)
        yield "dropped bound", slice_of("", upper)
    if upper:
        yield "off by one", slice_of(lower, f"{upper} - 1")
        yield "dropped bound", slice_of(lower, "")


def _detached(value: ast.expr) -> Iterator[tuple[str, str]]:
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    for place, part in enumerate(parts):
        if isinstance(part, ast.Constant):
            continue
        detached_parts = [f"({ast.unparse(each)}){'.detach()' if each is part else ''}" for each in parts]
        yield "detached gradient", f"return {', '.join(detached_parts)}{',' if isinstance(value, ast.Tuple) else ''}"
        if isinstance(value, ast.Tuple) and place:
            swapped = [*parts[: place - 1], part, parts[place - 1], *parts[place + 1 :]]
            yield "swapped results", f"return {', '.join(map(ast.unparse, swapped))}"
