"""Ground truths as tuples of alternatives, each a tidy string. An answer that equals any of them is correct."""

import json
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

from .extract import boxed_answer, hashes_answer
from .notation import approximated
from .options import option_letter
from .text import dollars, tidy

# All rollouts of a group share a ground truth, so the cache hits often.
_CACHED_STRINGS = 8_192


def alternatives(ground_truth: Any) -> tuple[str, ...]:
    """Read a ground truth.

    Args:
        ground_truth: a string, a number, or a list (tuple, set, numpy array) of them. A string may carry its answer in
            a box or after `####`, or be a JSON list of texts (`["1", "one"]`), the form that a column of texts gives to
            alternatives. None counts as empty.

    Returns:
        Tidy, distinct, non-empty alternatives. If there are none, the question cannot be graded.

    Raises:
        TypeError: the value is of another type, such as a mapping, a bool or bytes.
    """
    if isinstance(ground_truth, str):
        return _of_string(ground_truth)
    if ground_truth is None:
        return ()
    if isinstance(ground_truth, bool):
        raise TypeError("ground truth is a bool: write the answer as text, such as 'yes' or 'true'")
    if isinstance(ground_truth, Real | Decimal):
        return _of_number(ground_truth)
    if hasattr(ground_truth, "tolist"):  # numpy arrays and scalars, as parquet readers return them
        return alternatives(ground_truth.tolist())
    if isinstance(ground_truth, list | tuple | set | frozenset):
        return _of_items(ground_truth)
    raise TypeError(f"ground truth is a {type(ground_truth).__name__}: expected a string, a number, or a list of them")


def _of_items(items: Iterable[Any]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for item in items:
        found.update(dict.fromkeys(alternatives(item)))
    return tuple(found)


def _of_number(number: Real | Decimal) -> tuple[str, ...]:
    if isinstance(number, Integral):
        return (str(int(number)),)
    if isinstance(number, Fraction):
        return (f"{number.numerator}/{number.denominator}",)
    exact = number if isinstance(number, Decimal) else Decimal(repr(float(number)))
    return (format(exact, "f"),) if exact.is_finite() else ()


@lru_cache(maxsize=_CACHED_STRINGS)
def _of_string(text: str) -> tuple[str, ...]:
    if text.startswith('["'):
        listed = _listed(text)
        if listed is not None:
            return _of_items(listed)
    for read in (boxed_answer, hashes_answer):
        marked = read(text)
        if marked is not None:
            text = marked
            break
    text = option_letter(tidy(dollars(text)))
    return tuple(dict.fromkeys((text, *(approximated(text) or ())))) if text else ()


def _listed(text: str) -> list[str] | None:
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return listed if isinstance(listed, list) and all(isinstance(item, str) for item in listed) else None
