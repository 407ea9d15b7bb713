"""Split Python code into logical lines of tokens, and find lines in other code, whatever its names."""

import io
import keyword
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}
MAX_GAP = 2
"""Lines of other code that may stand between two lines of a copy."""


@dataclass(frozen=True)
class LogicalLine:
    """One logical line without comments and layout.

    value  the tokens after `return` or after `name =`; all tokens of another line; strings have double quotes
    names  per token, whether it is a name that the author chose: no keyword, no attribute, no argument name
    """

    value: tuple[str, ...]
    names: tuple[bool, ...]


@lru_cache(4096)
def logical_lines(code: str) -> tuple[LogicalLine, ...]:
    """Return the logical lines of Python code. Code that is not Python ends at its first error."""
    lines: list[LogicalLine] = []
    tokens: list[str] = []
    for token in _tokens(dedent(code)):
        if token.type == tokenize.NEWLINE:
            if tokens:
                lines.append(_logical_line(tokens))
            tokens = []
        elif token.type not in _LAYOUT:
            tokens.append(_plain(token.string))
    return tuple(lines)


def contains(code: Sequence[LogicalLine], solution: Sequence[LogicalLine]) -> bool:
    """Return whether the values of all lines of `solution` occur in `code`, in order and close to each other.

    Names may differ, as long as each name of the solution is one name of the code.
    """
    return bool(solution) and any(_continues(code, start, solution, {}) for start in range(len(code)))


def _continues(
    code: Sequence[LogicalLine], start: int, solution: Sequence[LogicalLine], renamed: dict[str, str]
) -> bool:
    """Return whether `solution` begins at line `start` of `code`, with at most MAX_GAP other lines between its own."""
    mapping = _match(solution[0], code[start], renamed)
    if mapping is None:
        return False
    rest = solution[1:]
    following = range(start + 1, min(start + 2 + MAX_GAP, len(code)))
    return not rest or any(_continues(code, line, rest, mapping) for line in following)


def _match(line: LogicalLine, other: LogicalLine, renamed: dict[str, str]) -> dict[str, str] | None:
    """Return the names of `line` in `other` together with `renamed`; None when the values differ."""
    if line.names != other.names:
        return None
    mapping = dict(renamed)
    for token, other_token, is_name in zip(line.value, other.value, line.names, strict=True):
        if not is_name and token != other_token:
            return None
        if is_name and mapping.setdefault(token, other_token) != other_token:
            return None
    return mapping if len(set(mapping.values())) == len(mapping) else None


def _logical_line(tokens: Sequence[str]) -> LogicalLine:
    value = tuple(tokens)
    if value[0] == "return":
        value = value[1:]
    elif len(value) > 2 and value[0].isidentifier() and value[1] == "=":
        value = value[2:]
    return LogicalLine(value, tuple(_chosen(value, index) for index in range(len(value))))


def _chosen(value: Sequence[str], index: int) -> bool:
    token, before = value[index], value[index - 1] if index else ""
    after = value[index + 1] if index + 1 < len(value) else ""
    argument = after == "=" and before in ("(", ",")
    return token.isidentifier() and not keyword.iskeyword(token) and before != "." and not argument


def _tokens(code: str) -> Iterator[tokenize.TokenInfo]:
    try:
        yield from tokenize.generate_tokens(io.StringIO(code).readline)
    except (tokenize.TokenError, SyntaxError):
        return


def _plain(token: str) -> str:
    """Return a string token with double quotes, another token as it is."""
    return token.replace("'", '"') if token[-1:] == "'" else token


def dedent(code: str) -> str:
    """Remove the common indentation; comment lines, which may be indented otherwise, become empty."""
    lines = code.splitlines()
    is_code = [bool(line.strip()) and not line.strip().startswith("#") for line in lines]
    edges = [len(line) - len(line.lstrip()) for line, keep in zip(lines, is_code, strict=True) if keep]
    edge = min(edges, default=0)
    return "".join(f"{line[edge:] if keep else ''}\n" for line, keep in zip(lines, is_code, strict=True))
