"""Parsed answers told apart at one point, before math-verify simplifies a difference or solves an equation."""

import cmath
from typing import Any

from math_verify.grader import is_assignment_relation, is_equation, take_first_relation, take_last_relation
from sympy import (
    Derivative,
    Dummy,
    E,
    Eq,
    Expr,
    FiniteSet,
    Float,
    Integral,
    Interval,
    Limit,
    Product,
    Sum,
    Symbol,
    Tuple,
    UnevaluatedExpr,
    cos,
    exp,
    sin,
)
from sympy.core.function import AppliedUndef

# At the point, no symbol is 0, 1 or a simple fraction, at which different expressions may coincide.
_FIRST, _STEP = 0.5734, 0.3137
_DIGITS = 15
_MARGIN = 1e-3
# Numbers below the first are compared by their digits; below the second, they may be what is left of an exact zero.
_SMALL, _NOISE = 1e-3, 1e-80
_MAX_MAGNITUDE = 1e9
# Solving an equation divides the difference by its coefficients, and math-verify accepts 15 equal digits as equal.
_MAX_IN_EQUATIONS = 1e4
# These are slow to evaluate, or math-verify compares them specially (a percentage may equal its number).
_LEFT_ALONE = (Integral, Sum, Product, Limit, Derivative, AppliedUndef, UnevaluatedExpr)


def surely_unequal(gold: Any, target: Any) -> bool:
    """Return whether two sympy objects differ at a point, as wholes or in one of their parts.

    What math-verify accepts as equal is equal everywhere. So where this returns True, math-verify would reject the
    answer too, only later.

    Returns:
        False where the point does not tell them apart.
    """
    gold, target = _as_compared(gold, target)
    if isinstance(gold, Eq) and isinstance(target, Eq):
        return _equations_differ(gold, target)
    if isinstance(gold, Interval) and isinstance(target, Interval):
        return surely_unequal(gold.start, target.start) or surely_unequal(gold.end, target.end)
    if isinstance(gold, Tuple) and isinstance(target, Tuple) and len(gold) == len(target):
        return any(map(surely_unequal, gold, target))
    if isinstance(gold, FiniteSet | Tuple) or isinstance(target, FiniteSet | Tuple):
        return _lists_differ(gold, target)
    if not (_is_comparable(gold) and _is_comparable(target)):
        return False
    symbols = gold.free_symbols | target.free_symbols
    point = _point(symbols)
    if not symbols and _differ_though_small(_value(gold, point), _value(target, point)):
        return True
    return _far(_value(gold, point), _value(target, point), _MAX_MAGNITUDE)


def _as_compared(gold: Any, target: Any) -> tuple[Any, Any]:
    """Return the sides that math-verify compares.

    For `x=13` against the ground truth 13, it compares the 13; for a chain of equations, it compares the two ends.
    """
    if is_equation(target) and not is_equation(gold):
        return gold, take_last_relation(target).rhs
    if is_assignment_relation(gold) and not is_equation(target):
        return take_last_relation(gold).rhs, target
    return _ends(gold), _ends(target)


def _ends(side: Any) -> Any:
    if isinstance(side, Eq) or not is_assignment_relation(side):
        return side
    return Eq(take_first_relation(side).lhs, take_last_relation(side).rhs, evaluate=False)


def _lists_differ(gold: Any, target: Any) -> bool:
    """Return whether a member of one list or set is missing from the other; a single expression is a set of one."""
    members = []
    for side in (gold, target):
        if not isinstance(side, FiniteSet | Tuple | Expr):
            return False
        members.append(side.args if isinstance(side, FiniteSet | Tuple) else (side,))
    golds, targets = members
    return any(all(surely_unequal(one, other) for other in targets) for one in golds) or any(
        all(surely_unequal(one, other) for one in golds) for other in targets
    )


def _equations_differ(gold: Eq, target: Eq) -> bool:
    """Return whether one equation defines a symbol, as `y=2x+1` does, and the other fails on its graph.

    math-verify calls two equations equal if their differences or their solutions are equal. In both cases, the second
    equation holds on the whole graph of the first; that graph is connected if its functions are single-valued and
    continuous. A symbol of the first equation that the second lacks also makes them differ.
    """
    applied = sorted(gold.atoms(AppliedUndef) | target.atoms(AppliedUndef), key=str)
    functions = {function: Dummy(str(function)) for function in applied}
    one, other = (tuple(side.xreplace(functions) for side in equation.args) for equation in (gold, target))
    if any(not isinstance(side, Expr) or side.has(Float, *_LEFT_ALONE) for side in (*one, *other)):
        return False
    return _leaves(one, other) or _leaves(other, one)


def _leaves(graph: tuple[Expr, Expr], other: tuple[Expr, Expr]) -> bool:
    """Return whether the graph of a symbol leaves the solutions of another equation.

    Args:
        graph: the symbol and the expression that it equals.
        other: both sides of the other equation.
    """
    symbol, rest = graph
    if not symbol.is_Symbol or symbol in rest.free_symbols or not _is_smooth(rest):
        return False
    own, others = symbol.free_symbols | rest.free_symbols, other[0].free_symbols | other[1].free_symbols
    point = _point(own | others)
    height = _value(rest, point)
    for unknown in own - others:
        elsewhere = {**point, unknown: point[unknown] + _STEP}
        if unknown == symbol or _far(height, _value(rest, elsewhere), _MAX_IN_EQUATIONS):
            return True
    if height is None or not all(map(_is_smooth, other)):
        return False
    point[symbol] = height
    return _far(_value(other[0], point), _value(other[1], point), _MAX_IN_EQUATIONS)


def _is_smooth(side: Expr) -> bool:
    """Return whether an expression consists of functions that are single-valued and analytic except at poles."""
    if not side.free_symbols or side.is_Symbol:
        return True
    if side.is_Pow:
        base, exponent = side.args
        return (exponent.is_Integer and _is_smooth(base)) or (
            not base.free_symbols and bool(base.is_positive) and _is_smooth(exponent)
        )
    return (side.is_Add or side.is_Mul or isinstance(side, exp | sin | cos)) and all(map(_is_smooth, side.args))


def _point(symbols: set[Any]) -> dict[Any, Any]:
    ordered = sorted(symbols, key=lambda symbol: (str(symbol), symbol.sort_key()))
    return {symbol: Float(_FIRST + _STEP * index) for index, symbol in enumerate(ordered)}


def _value(side: Expr, point: dict[Any, Any]) -> Any:
    """Return the complex value of an expression at a point; None if it has none."""
    try:
        value = complex(side.subs(point).evalf(_DIGITS))
    except (TypeError, ValueError, ArithmeticError):
        return None
    return value if cmath.isfinite(value) else None


def _far(one: complex | None, other: complex | None, largest: float) -> bool:
    """Return whether rounding cannot explain the difference of two values; False if either is unknown or too large."""
    if one is None or other is None or max(abs(one), abs(other)) > largest:
        return False
    return abs(one - other) > _MARGIN * max(1.0, abs(one), abs(other))


def _differ_though_small(one: complex | None, other: complex | None) -> bool:
    """Return whether two numbers differ that math-verify would call equal because both round to 0 in its 6 places."""
    if one is None or other is None:
        return False
    size = max(abs(one), abs(other))
    return _NOISE < size < _SMALL and abs(one - other) > _MARGIN * size


def _is_comparable(side: Any) -> bool:
    """Return whether math-verify compares this only by value; it compares symbols and their products by letters too."""
    if not isinstance(side, Expr) or side.has(*_LEFT_ALONE):
        return False
    return not (
        isinstance(side, Symbol) or side == E or (side.is_Mul and all(x == E or x.is_Symbol for x in side.args))
    )
