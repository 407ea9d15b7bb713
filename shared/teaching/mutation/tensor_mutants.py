"""Generate mutants that only certain inputs reveal: large numbers, axes of size 1, other orders, types and shapes.

Each works for the inputs that a student tries first: moderate logits, several rows, layers in order, float32, squares.
"""

import ast
from collections.abc import Collection, Iterator

CONVERSIONS = {"float", "double", "long", "int", "to"}
# Two sides that only a square has in common. Both names occur in the function.
SIDES = (
    ("rows", "columns"),
    ("row", "column"),
    ("height", "width"),
    ("top", "left"),
    ("vertical", "horizontal"),
    ("down", "across"),
    ("y", "x"),
)
OTHER_SIDE = {a: b for pair in SIDES for a, b in (pair, pair[::-1])}
SIZES = {"image", "size", "grid", "old_grid", "new_grid"}
# A mutant that fails with one of these messages is none: the value is a number or a list, or has no order.
NOT_APPLICABLE = (
    "has no attribute 'detach'",
    "has no attribute 'squeeze'",
    "has no attribute 'exp'",
    "'<' not supported between instances",
)


def tensor_mutants(
    node: ast.AST, parent: ast.AST, inputs: Collection[str], names: Collection[str], scalars: Collection[int]
) -> Iterator[tuple[str, str]]:
    """Yield (kind of bug, replacement for the node).

    inputs   arguments of the function that its code does not assign
    names    all names that occur in the function
    scalars  lines of the functions that return a number, whose results have no axes
    """
    match node:
        case ast.Call():
            yield from (("unstable function", text) for text in _unstable(node))
            yield from _fewer_axes_or_types(node)
        case ast.Return(value) if value is not None and node.lineno not in scalars:
            yield from _squeezed(value)
        case ast.Compare(left, [ast.Eq()], [right]):
            yield "wrong condition", f"(({ast.unparse(left)}) >= ({ast.unparse(right)}))"
        case ast.Name(name, ast.Load()) if OTHER_SIDE.get(name) in names:
            yield "square only", OTHER_SIDE[name]
        case ast.Subscript(ast.Name(name), ast.Constant(int(side))) if name in SIZES and side in (0, 1):
            yield "square only", f"{name}[{1 - side}]"
    loop = isinstance(parent, ast.comprehension | ast.For) and parent.iter is node
    if loop and isinstance(node, ast.Name) and node.id in inputs:
        yield "sorted input", f"sorted({node.id})"


def lines_of_scalar_functions(tree: ast.AST) -> set[int]:
    """Return all lines of functions whose annotation says that they return a number, or a tensor without axes."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.returns:
            match node.returns:
                case ast.Name("float" | "int" | "bool"):
                    scalar = True
                case ast.Subscript(_, ast.Tuple([_, ast.Constant(str(axes))])):
                    scalar = not axes.strip()
                case _:
                    scalar = False
            if scalar:
                lines |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return lines


def _unstable(call: ast.Call) -> Iterator[str]:
    """Yield the definition of a function without the shift by the maximum that keeps its exponentials finite."""
    text = [f"({ast.unparse(argument)})" for argument in call.args]
    options = ", ".join(ast.unparse(keyword) for keyword in call.keywords if keyword.arg in ("dim", "axis"))
    match call.func:
        case ast.Attribute(ast.Name("F" | "torch"), "softmax" | "log_softmax" as name) if text:
            yield _softmax(text[0], ", ".join([*text[1:], options]).strip(", "), name)
        case ast.Attribute(value, "softmax" | "log_softmax" as name):
            yield _softmax(f"({ast.unparse(value)})", ", ".join([*text, options]).strip(", "), name)
        case ast.Attribute(value, "logsumexp"):
            yield f"({ast.unparse(value)}).exp().sum({', '.join([*text, options]).strip(', ')}).log()"
        case ast.Attribute(_, "logsigmoid") if text:
            yield f"{text[0]}.sigmoid().log()"
        case ast.Attribute(_, "softplus") if text:
            yield f"(1 + {text[0]}.exp()).log()"
        case ast.Attribute(ast.Name("F"), "cross_entropy") if len(text) == 2:
            yield f"F.nll_loss({_softmax(text[0], 'dim=1', 'log_softmax')}, {text[1]})"
        case ast.Name("softmax") if text:
            yield f"({text[0]}.exp() / {text[0]}.exp().sum(-1, keepdims=True))"
        case ast.Name("log_sum_exp") if text:
            yield f"math.log(sum(map(math.exp, {text[0]})))"


def _softmax(x: str, axis: str, name: str) -> str:
    return f"({x}.exp() / {x}.exp().sum({axis}, keepdim=True)){'.log()' if name == 'log_softmax' else ''}"


def _fewer_axes_or_types(call: ast.Call) -> Iterator[tuple[str, str]]:
    match call.func:
        case ast.Attribute(value, "squeeze") if call.args or call.keywords:
            yield "axes of size 1", f"({ast.unparse(value)}).squeeze()"
        case ast.Attribute(value, name) if name in CONVERSIONS:
            yield "dropped conversion", f"({ast.unparse(value)})"


def _squeezed(value: ast.expr) -> Iterator[tuple[str, str]]:
    """Yield a result without its axes of size 1, as after a `squeeze()` that was meant for one of them."""
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    for part in parts:
        if not isinstance(part, ast.Constant):
            text = [f"({ast.unparse(each)}){'.squeeze()' if each is part else ''}" for each in parts]
            yield "axes of size 1", f"return {', '.join(text)}{',' if isinstance(value, ast.Tuple) else ''}"
