"""What mutmut breaks here: formulas, one node of the syntax tree at a time.

Replaces mutmut's operators, which also change texts, drop arguments and set values to None. Left
alone are texts, types, decorators, `raise` statements: they are no formulas. Unlike mutmut's own,
comparisons are negated (moving a boundary from `<` to `<=` changes nothing a float sees), functions
are exchanged for near ones, values are negated, and properties and cached functions take part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import libcst as cst
import libcst.matchers as m
from mutmut.mutation import file_mutation

_PARENTHESES = {"lpar": [cst.LeftParen()], "rpar": [cst.RightParen()]}
_BOTH_WAYS: dict[type, type] = {
    cst.Add: cst.Subtract,
    cst.Multiply: cst.Divide,
    cst.BitAnd: cst.BitOr,
    cst.And: cst.Or,
    cst.AddAssign: cst.SubtractAssign,
    cst.MultiplyAssign: cst.DivideAssign,
    cst.LessThan: cst.GreaterThanEqual,
    cst.GreaterThan: cst.LessThanEqual,
    cst.Equal: cst.NotEqual,
    cst.Is: cst.IsNot,
    cst.In: cst.NotIn,
}
_OPERATORS = {
    **_BOTH_WAYS,
    **{b: a for a, b in _BOTH_WAYS.items()},
    cst.Power: cst.Multiply,
    cst.FloorDivide: cst.Multiply,
    cst.Modulo: cst.Multiply,
}
_PAIRS = "max min, maximum minimum, argmax argmin, amax amin, any all, exp expm1, log log1p, "
_PAIRS += "sum mean, floor ceil, softplus sigmoid, cumsum cumprod"
_FUNCTIONS = {a: b for pair in _PAIRS.split(", ") for a, b in [pair.split(), pair.split()[::-1]]}
_FUNCTIONS |= {"tanh": "sin", "sin": "tanh", "cosh": "cos", "sinh": "sin", "arctanh": "arctan"}
_FUNCTIONS |= {"sqrt": "abs", "sign": "abs", "logaddexp": "maximum", "logsumexp": "max"}
_BUILTIN = {"max", "min", "any", "all"}
_KEPT = {"property", "cached_property", "cache", "lru_cache", "no_grad"}  # decorators


def _operator(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Another operator; of a chain of comparisons each in turn."""
    if isinstance(node, cst.Comparison):
        for i, target in enumerate(node.comparisons):
            new = target.with_changes(operator=_OPERATORS[type(target.operator)]())
            yield node.with_changes(
                comparisons=[*node.comparisons[:i], new, *node.comparisons[i + 1 :]]
            )
    elif type(node.operator) in _OPERATORS and not _is_text(node):  # type: ignore[attr-defined]
        new = _OPERATORS[type(node.operator)]()  # type: ignore[attr-defined]
        brackets = {} if isinstance(node, cst.AugAssign) else _PARENTHESES
        yield node.with_changes(operator=new, **brackets)


def _sign(node: cst.UnaryOperation) -> Iterator[cst.CSTNode]:
    if not isinstance(node.operator, cst.Plus):
        yield node.expression


def _number(node: cst.Integer | cst.Float) -> Iterator[cst.CSTNode]:
    yield node.with_changes(value=repr(node.evaluated_value + 1))


def _function(node: cst.Call) -> Iterator[cst.CSTNode]:
    name = _called(node)
    if name in _FUNCTIONS and (isinstance(node.func, cst.Attribute) or name in _BUILTIN):
        new = cst.Name(_FUNCTIONS[name])
        is_method = isinstance(node.func, cst.Attribute)
        yield node.with_changes(func=node.func.with_changes(attr=new) if is_method else new)


def _negated(node: cst.Return | cst.Lambda) -> Iterator[cst.CSTNode]:
    """The negative of a value that is surely a number or an array of numbers."""
    field = "value" if isinstance(node, cst.Return) else "body"
    value = getattr(node, field)
    call = isinstance(value, cst.Call) and _called(value) in _FUNCTIONS.keys() - {"any", "all"}
    if call or (
        isinstance(value, cst.BinaryOperation)
        and type(value.operator) in _OPERATORS
        and not _is_text(value)
    ):
        inner = value.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        space = {"whitespace_after_return": cst.SimpleWhitespace(" ")} if field == "value" else {}
        yield node.with_changes(**{field: cst.UnaryOperation(cst.Minus(), inner)}, **space)


OPERATORS: list[tuple[type, Callable[[Any], Iterable[cst.CSTNode]]]] = [
    (cst.BinaryOperation, _operator),
    (cst.BooleanOperation, _operator),
    (cst.Comparison, _operator),
    (cst.AugAssign, _operator),
    (cst.UnaryOperation, _sign),
    (cst.Integer, _number),
    (cst.Float, _number),
    (cst.Call, _function),
    (cst.Return, _negated),
    (cst.Lambda, _negated),
]


def _called(node: cst.Call) -> str:
    name = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
    return name.value if isinstance(name, cst.Name) else ""


def _is_text(node: cst.CSTNode) -> bool:
    text = m.SimpleString() | m.FormattedString() | m.ConcatenatedString()
    return m.matches(node, m.BinaryOperation(left=text) | m.BinaryOperation(right=text))


def _is_kept(decorator: cst.Decorator) -> bool:
    node: cst.BaseExpression = decorator.decorator
    node = node.func if isinstance(node, cst.Call) else node
    return isinstance(node, cst.Name | cst.Attribute) and (
        (node.attr if isinstance(node, cst.Attribute) else node).value in _KEPT
    )


def install() -> None:
    """Make mutmut use these operators in this process."""
    visitor = file_mutation.MutationVisitor
    skip = visitor._skip_node_and_children
    arrange = file_mutation.function_trampoline_arrangement

    def skip_also(self, node):  # type: ignore[no-untyped-def]
        if isinstance(node, cst.Raise | cst.FormattedString):
            return True
        if isinstance(node, cst.FunctionDef) and len(node.decorators) == 1:
            return not _is_kept(node.decorators[0]) and skip(self, node)
        return skip(self, node)

    def arrange_also(function, mutants, class_name):  # type: ignore[no-untyped-def]
        # The decorator stays on the dispatcher; the copies it dispatches to are plain functions.
        if not any(map(_is_kept, function.decorators)):
            return arrange(function, mutants, class_name)
        plain = function.with_changes(decorators=[])
        before, (first, *copies), after, names = arrange(plain, mutants, class_name)
        dispatcher = [*function.decorators, *first.decorators]  # type: ignore[union-attr]
        return before, [first.with_changes(decorators=dispatcher), *copies], after, names

    file_mutation.mutation_operators = OPERATORS
    visitor._skip_node_and_children = skip_also  # type: ignore[method-assign]
    file_mutation.function_trampoline_arrangement = arrange_also
