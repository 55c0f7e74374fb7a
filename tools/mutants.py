"""Every way to break one formula: the mutants of a module's source.

A mutant replaces one node of the syntax tree by a wrong one and leaves the rest of the text.
Left alone are texts, types, decorators and `raise` statements: they are no formulas.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass

_OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
# Negations only: moving the boundary, `<` to `<=`, changes nothing a float sees.
_COMPARISONS: dict[type, type] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_BOTH_WAYS = [
    ("max", "min"),
    ("maximum", "minimum"),
    ("argmax", "argmin"),
    ("amax", "amin"),
    ("any", "all"),
    ("sum", "mean"),
    ("exp", "expm1"),
    ("log", "log1p"),
    ("floor", "ceil"),
    ("softplus", "sigmoid"),
    ("cumsum", "cumprod"),
]
_FUNCTIONS = {
    **dict(_BOTH_WAYS),
    **{b: a for a, b in _BOTH_WAYS},
    "tanh": "sin",
    "sin": "tanh",
    "cosh": "cos",
    "sinh": "sin",
    "arctanh": "arctan",
    "sqrt": "abs",
    "sign": "abs",
    "logaddexp": "maximum",
    "logsumexp": "max",
}


@dataclass(frozen=True)
class Mutant:
    """One replacement in one module; `mutation` says it, `text` is the line it stands in."""

    module: str
    line: int
    text: str
    mutation: str
    start: int  # bytes of the source
    end: int
    replacement: str

    def apply(self, source: bytes) -> bytes:
        """The module's broken source."""
        return source[: self.start] + self.replacement.encode() + source[self.end :]


def mutants(module: str, source: bytes) -> list[Mutant]:
    """All mutants of a module in the order of its text; each of them compiles."""
    lines = source.splitlines(keepends=True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    tree = ast.parse(source)
    known = _names(tree)
    found = []
    for node, new in _replacements(tree, known):
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        text = lines[node.lineno - 1].decode().strip()
        old = " ".join(source[start:end].decode().split())
        mutant = Mutant(module, node.lineno, text, f"{old} -> {new}", start, end, f"({new})")
        try:
            compile(mutant.apply(source), module, "exec")
        except SyntaxError:  # e.g. a number that is a match pattern
            continue
        found.append(mutant)
    return sorted(found, key=lambda m: (m.start, m.end, m.mutation))


def _names(tree: ast.AST) -> set[str]:
    """Names that can be called plainly in a module."""
    found = set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.alias):
            found.add(node.asname or node.name)
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return found


def _formulas(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes under a node but those that are no formulas."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "ops", "op", "ctx"):
            continue
        for child in value if isinstance(value, list) else [value]:
            no_formula = ast.JoinedStr | ast.Raise | ast.Import | ast.ImportFrom
            if not isinstance(child, ast.AST) or isinstance(child, no_formula):
                continue
            yield child
            yield from _formulas(child)


def _replacements(tree: ast.AST, known: set[str]) -> Iterator[tuple[ast.expr, str]]:
    for node in _formulas(tree):
        match node:
            case ast.BinOp(left, op, right) if type(op) in _OPERATORS and not _is_text(left, right):
                yield node, ast.unparse(ast.BinOp(left, _OPERATORS[type(op)](), right))
            case ast.AugAssign(_, op, value) if type(op) in _OPERATORS:
                # x += y -> x += -(y), x *= y -> x *= 1 / (y)
                wrong = "1 / ({})" if isinstance(op, ast.Mult | ast.Div) else "-({})"
                yield value, wrong.format(ast.unparse(value))
            case ast.Compare(left, ops, comparators):
                for i, was in enumerate(ops):
                    changed = [*ops[:i], _COMPARISONS[type(was)](), *ops[i + 1 :]]
                    yield node, ast.unparse(ast.Compare(left, changed, comparators))
            case ast.BoolOp(op, values):
                other: ast.boolop = ast.Or() if isinstance(op, ast.And) else ast.And()
                yield node, ast.unparse(ast.BoolOp(other, values))
            case ast.UnaryOp(ast.USub() | ast.Not() | ast.Invert(), operand):
                yield node, ast.unparse(operand)
            case ast.Constant(int() | float() as number) if not isinstance(number, bool):
                yield node, repr(number + 1)
            case ast.Call(ast.Attribute(value, name), args, keywords) if name in _FUNCTIONS:
                new = ast.Attribute(value, _FUNCTIONS[name], ast.Load())
                yield node, ast.unparse(ast.Call(new, args, keywords))
            case ast.Call(ast.Name(name), args, keywords) if _FUNCTIONS.get(name) in known:
                new_name = ast.Name(_FUNCTIONS[name], ast.Load())
                yield node, ast.unparse(ast.Call(new_name, args, keywords))
            case ast.Return(ast.BinOp() | ast.Call() as value) if _is_numeric(value):
                yield value, f"-({ast.unparse(value)})"
            case ast.Lambda(_, ast.BinOp() | ast.Call() as value) if _is_numeric(value):
                yield value, f"-({ast.unparse(value)})"


def _is_text(*nodes: ast.expr) -> bool:
    return any(
        isinstance(n, ast.JoinedStr) or (isinstance(n, ast.Constant) and isinstance(n.value, str))
        for n in nodes
    )


def _is_numeric(node: ast.expr) -> bool:
    """Whether a returned value is surely a number or an array of numbers."""
    if isinstance(node, ast.BinOp):
        return type(node.op) in _OPERATORS and not _is_text(node.left, node.right)
    name = getattr(
        getattr(node, "func", None), "attr", getattr(getattr(node, "func", None), "id", "")
    )
    return name in _FUNCTIONS and name not in ("any", "all")
