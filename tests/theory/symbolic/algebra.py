"""The formulas of theory/ read by sympy: what numpy computes there is here an expression.

A namespace that answers like numpy, but with sympy's elementary functions, is put in the place of
numpy in `theory.xp`, `theory.laws` and the conic forms; cvxpy is replaced by its few atoms. The
proofs then run over the very lines that the package runs, with parameters that are symbols.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from typing import Any

import numpy as np
import sympy as sp

from theory import laws, objectives, xp
from theory.objectives import conic, pointwise
from theory.rounds import two_step

# --- exact expressions --------------------------------------------------------------------------


def exact(e: Any) -> sp.Expr:
    """The expression with its floats, all dyadic as written (0.5, 2.0), turned into rationals."""
    e = sp.sympify(e.item() if isinstance(e, np.ndarray) else e)
    return e.xreplace({f: sp.Rational(f) for f in e.atoms(sp.Float)})


def vanishes(e: Any) -> bool:
    """Whether the expression is identically zero; decided by algebra, never by a number.

    A number only says no, and quickly: where the expression is not zero at a random point.
    """
    e = exact(e)
    if e == 0:
        return True
    rng = np.random.default_rng(0)
    symbols = sorted(e.free_symbols, key=str)
    at = {s: sp.Rational(int(rng.integers(20, 80)), 101) for s in symbols}
    if not abs(sp.N(e.subs(at), 30)) < 1e-20:
        return False
    e = e.replace(sp.log, lambda x: sp.log(sp.factor(x)))
    e = sp.expand_log(e, force=all(s.is_positive for s in symbols))
    rational = sp.cancel(sp.together(sp.powsimp(e)))
    return bool(rational == 0 or sp.simplify(rational) == 0)


def equal(left: Any, right: Any) -> bool:
    """Whether two expressions, or two arrays of them, are identical."""
    pairs = np.broadcast(np.asarray(left, dtype=object), np.asarray(right, dtype=object))
    return all(vanishes(exact(a) - exact(b)) for a, b in pairs)


def constant(e: Any, *symbols: sp.Symbol) -> bool:
    """Whether the expression does not depend on the symbols."""
    return all(vanishes(sp.diff(exact(e), s)) for s in symbols)


def sign(e: Any) -> int | None:
    """1, 0 or -1 for a sign that holds for all positive symbols; None if sympy cannot tell.

    A factorised rational function of positive symbols with coefficients of one sign has a sign.
    """
    e = sp.factor(sp.together(exact(e)))
    if e == 0 or e.is_zero:
        return 0
    if e.is_positive or e.is_negative:
        return 1 if e.is_positive else -1
    numerator, denominator = (sp.Poly(part, *e.free_symbols) for part in sp.fraction(e))
    signs = {sp.sign(c) for c in [*numerator.coeffs(), *denominator.coeffs()]}
    if signs <= {1}:
        return 1
    one_sign = len({sp.sign(c) for c in numerator.coeffs()}) == 1
    if one_sign and len({sp.sign(c) for c in denominator.coeffs()}) == 1:
        return int(sp.sign(numerator.coeffs()[0]) * sp.sign(denominator.coeffs()[0]))
    return None


def array(*entries: Any) -> np.ndarray:
    """Entries as a numpy array of sympy expressions."""
    made = np.empty(len(entries), dtype=object)
    made[:] = [sp.sympify(e) for e in entries]
    return made


def law(name: str, n: int) -> np.ndarray:
    """A law of n outcomes: n - 1 positive symbols and the rest."""
    free = sp.symbols(f"{name}1:{n}", positive=True)
    return array(*free, 1 - sum(free))


def weights(name: str, n: int) -> np.ndarray:
    """n positive symbols, a law up to normalisation."""
    return array(*sp.symbols(f"{name}1:{n + 1}", positive=True))


def fraction_law(rng: np.random.Generator, n: int) -> np.ndarray:
    """A random law of rational probabilities."""
    parts = [int(k) for k in rng.integers(1, 30, n)]
    return array(*(sp.Rational(k, sum(parts)) for k in parts))


def triangular(p: np.ndarray, q: np.ndarray) -> sp.Expr:
    """Delta(p, q), written out here once more."""
    return sum((a - b) ** 2 / (a + b) for a, b in zip(p, q, strict=True))


# --- numpy and cvxpy as sympy sees them ---------------------------------------------------------


def _elementwise(function: Any) -> Any:
    def apply(*args: Any) -> Any:
        if any(isinstance(a, np.ndarray) for a in args):
            made = np.frompyfunc(lambda *xs: function(*map(exact, xs)), len(args), 1)(*args)
            return np.asarray(made, dtype=object)
        return function(*map(exact, args))

    return apply


def _where(condition: Any, yes: Any, no: Any) -> Any:
    if isinstance(condition, sp.Basic):
        return sp.Piecewise((exact(yes), condition), (exact(no), True))
    return np.where(np.asarray(condition, dtype=bool), yes, no)


SHIFT = sp.Symbol("largest_entry", real=True)
"""What `max` returns: log-sum-exp must not depend on what it subtracts."""

_SAME = ("abs", "asarray", "broadcast_to", "errstate", "expand_dims", "full_like", "mean")
_SAME += ("ones_like", "prod", "square", "squeeze", "sum")
NAMESPACE = types.SimpleNamespace(
    **{name: getattr(np, name) for name in _SAME},
    exp=_elementwise(sp.exp),
    expm1=_elementwise(lambda x: sp.exp(x) - 1),
    log=_elementwise(sp.log),
    log1p=_elementwise(lambda x: sp.log(1 + x)),
    # rational in e^(2x), so that the logarithm of a ratio disappears
    tanh=_elementwise(lambda x: (sp.exp(2 * x) - 1) / (sp.exp(2 * x) + 1)),
    logaddexp=_elementwise(lambda x, y: sp.log(sp.exp(x) + sp.exp(y))),
    sqrt=_elementwise(sp.sqrt),
    sign=_elementwise(sp.sign),
    isneginf=lambda x: np.zeros(np.shape(x), dtype=bool),
    inf=np.inf,
    isfinite=lambda x: np.ones(np.shape(x), dtype=bool),
    max=lambda x, axis, keepdims: array(SHIFT),
    where=_where,
    zeros_like=lambda x: sp.S.Zero if isinstance(x, sp.Basic) else np.zeros_like(x),
)


class _Cones:
    """The atoms of cvxpy that the conic forms use; a second-order cone is kept to be solved."""

    rel_entr = staticmethod(_elementwise(lambda x, y: x * sp.log(x / y)))
    sum = staticmethod(np.sum)
    sqrt = staticmethod(NAMESPACE.sqrt)
    multiply = staticmethod(np.multiply)
    vstack = staticmethod(np.stack)
    sum_squares = staticmethod(lambda x: np.sum(np.square(x)))
    norm1 = staticmethod(lambda x: np.sum(np.abs(x)))
    reshape = staticmethod(lambda x, shape, order: np.reshape(x, shape))
    Variable = staticmethod(lambda n: array(*(sp.Dummy("bound") for _ in range(n))))
    SOC = staticmethod(lambda t, x, axis: [(a, *b) for a, b in zip(t, x.T, strict=True)])


def minimum(form: tuple[Any, list[Any]]) -> sp.Expr:
    """Value of a conic form: each bound at the boundary of its cone t = |x|, t >= 0."""
    value, cones = exact(form[0]), [cone for group in form[1] for cone in group]
    for t, *x in cones:
        (bound,) = exact(t).atoms(sp.Dummy)
        (solution,) = sp.solve(exact(t**2 - sum(part**2 for part in x)), bound)
        value = value.subs(bound, solution)
    return value


def read_by_sympy(patch: Any) -> None:
    """Put the symbolic namespace in numpy's place, with pytest's monkeypatch."""
    patch.setattr(xp, "namespace", lambda *arrays: NAMESPACE)
    patch.setattr(xp, "as_array", lambda x: x)
    patch.setattr(xp, "relu", _elementwise(lambda x: sp.Piecewise((x, x > 0), (0, True))))
    for module in (laws, conic, pointwise, two_step):
        patch.setattr(module, "np", NAMESPACE)
    patch.setattr(laws, "log_quotient", _elementwise(lambda q, p: sp.log(q / p)))
    patch.setattr(laws, "without_subnormals", lambda p: p)
    patch.setattr(laws, "rel_entr", _Cones.rel_entr)
    patch.setattr(laws, "xlogy", _elementwise(lambda x, y: x * sp.log(y)))
    patch.setattr(pointwise, "math", types.SimpleNamespace(log=NAMESPACE.log))
    patch.setitem(sys.modules, "cvxpy", _Cones)


# --- objectives with symbols for parameters -----------------------------------------------------

ODDS = sp.Symbol("odds", positive=True)  # a parameter in (0, 1) is odds/(1 + odds)


def symbolic(name: str, **values: Any) -> Any:
    """The registered objective with a symbol for each parameter that is not given."""
    definition = type(objectives.get(name))
    made = object.__new__(definition)
    for field in dataclasses.fields(definition):
        share = ODDS / (1 + ODDS)
        free = share if field.name in definition.unit else sp.Symbol(field.name, positive=True)
        object.__setattr__(made, field.name, sp.sympify(values.get(field.name, free)))
    return made


_RATIO, _DELTA = sp.symbols("ratio delta", positive=True)


def link(obj: Any, ratio: Any, delta: Any = None) -> sp.Expr:
    """R(log ratio) of the code, for a density ratio p/q > 0.

    Computed for symbols, then filled in: a float times a rational number would be rounded.
    """
    formula = exact(obj.link_formula(sp.log(_RATIO), None if delta is None else _DELTA))
    return formula.subs({_RATIO: ratio} if delta is None else {_RATIO: ratio, _DELTA: delta})


def risk(obj: Any, rewards: Any, p: Any, q: Any, **extras: Any) -> sp.Expr:
    """Risk of the reward on both laws; the checks of the caller's input are left out."""
    return exact(obj.reward_risk(rewards, rewards, p, q, **extras))
