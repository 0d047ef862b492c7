"""The verdict on one answer: math-verify's comparison of parsed LaTeX. Runs only in the judge's worker processes.

Only the LaTeX half of math-verify is used. Its other half passes plain expressions to sympy's `parse_expr`, which calls
Python's `eval`. Both halves also search the text for something that parses, so they find an answer in a box with
several candidates or with a candidate among words. Here, either the whole answer parses or none of it does.
"""

import importlib
import logging
import pkgutil
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, verify
from math_verify.parser import extract_match
from sympy import Basic, I, MatrixBase, Product, Sum, Symbol
from sympy.core.relational import Relational

from ...upstream.fixes import math_verify as upstream
from ...upstream.speed.latex_parser import parse_in_two_stages
from ..text import without_unit
from .separate import surely_unequal

_WHOLE_BOX = re.compile(r"(?P<first_latexBoxed>.+)", re.DOTALL)
# math-verify takes a closing m, t, ab and 50 more for units and drops them, so `2t` would be 2. Here units are in text.
_LATEX = LatexExtractionConfig()
_LATEX = replace(_LATEX, normalization_config=replace(_LATEX.normalization_config, units=False))
_CACHED_TRUTHS = 8_192

_SYMPY_PACKAGES = tuple(
    f"sympy.{name}"
    for name in (
        *("assumptions", "calculus", "combinatorics", "concrete", "core", "discrete", "functions", "geometry"),
        *("integrals", "logic", "matrices", "ntheory", "physics.units", "polys", "series", "sets", "simplify"),
        *("solvers", "stats", "tensor", "utilities"),
    )
)
_UNUSED_MODULE = re.compile(
    r"\.(?:tests|benchmarks|sampling|mathml|_compilation|testutil|runtests|compatibility|trace|pytest|randtest|tmpfiles)\b"
)
# The parser caches its decisions, so the first answer of each kind costs tens of milliseconds. There is one pair for
# each kind of notation. None of them is an answer in a data set that this project measures.
_WARM_UP = (
    (r"\sin^2 x+\cos^2 x", "1"),
    (r"[0,1)\cup(2,3)", r"(2,3)\cup[0,1)"),
    (r"y=2x+1", r"2x-y=-1"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"),
    (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"),
    (r"\frac{2}{7}m(m+3)", r"\frac{2m^2+6m}{7}"),
    (r"\frac{5-q^{2}}{8}", r"m^{2}+3m-1"),
    (r"(7,\log_{3}5)", r"(7,-\log_{3}4)"),
    (r"(3-\sqrt{5},2+\sqrt{7}),(-6,\frac{2}{9})", r"(6,0),(-\frac{3}{7},-2),(\frac{1}{30},4)"),
    (r"(1,2,3),(-2,\frac{1}{\sqrt{5}},0)", r"(8,-9)"),
    (r"g(t)=t,g(t)=6-t", r"g(t)=6-t,g(t)=t"),
    (r"\left\lfloor\frac{3m}{4}\right\rfloor-2", r"P(m)=\lfloor\frac{3m}{4}\rfloor-2"),
    (r"3^{a+b}", r"\frac{3^{a}}{3^{-b}}"),
    (r"m(6m^{2}-m+4)/7", r"(m-5)3^{m}+2"),
    (r"\{2,-2,\pm\sqrt[4]{5}\}", r"2,-2,\sqrt[4]{5},-\sqrt[4]{5}"),
    (r"x\in(-\infty,0]", r"x\le 0"),
    (r"3\le x<5\text{ or }x>7", r"[3,5)\cup(7,\infty)"),
    (r"\binom{n}{2}+n!-e^{i\pi}", r"\frac{n(n-1)}{2}+n!+1"),
    (r"\frac{5\pi}{8}\text{ cm}^2", r"0.625\cdot\pi"),
    (r"b_{k}=5\cdot4^{k-1}-\ln|x|", r"5\cdot 4^{k-1}-\ln|x|"),
    (r"\angle P=45^{\circ},\angle Q R S_{2}=30", r"45"),
    (r"(30^{\circ}, 45^{\circ})", r"\frac{\pi}{7}+2\pi k,-\frac{\pi}{5}+2\pi k"),
    (r"0.125,\frac{a}{b},\tan\theta", r"\overrightarrow{CD}\cdot\vec{w}"),
    (r"1\cdot(\frac{b+1}{6})+0", r"(10^{5},10^{-3})"),
)


class Verdict(StrEnum):
    """What a worker reports about one answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"  # none of the ground truths is mathematics
    EXHAUSTED = "exhausted"  # the worker ran out of memory


def judge(pairs: Sequence[Sequence[str]]) -> Verdict:
    """Compare (answer, ground truth) pairs of LaTeX texts; the answer is correct if any pair is equal."""
    try:
        readable = [(parse(answer), gold) for answer, gold in _with_golds(pairs)]
        if not readable:
            return Verdict.UNPARSABLE
        return Verdict.CORRECT if any(equal(gold, target) for target, gold in readable) else Verdict.WRONG
    except MemoryError:
        return Verdict.EXHAUSTED


def equal(gold: Any, target: Any) -> bool:
    """Return math-verify's verdict on two parsed answers; False if either is None."""
    if gold is None or target is None:
        return False
    if _is_told_apart(gold, target):
        return False
    try:
        # math-verify enforces its time limit with a signal; here the pool kills the process instead.
        return verify(gold, target, timeout_seconds=None, raise_on_error=True)
    except MemoryError:
        raise
    except Exception:
        # math-verify counts answers that cannot be compared as unequal.
        return False


def _is_told_apart(gold: Any, target: Any) -> bool:
    try:
        return surely_unequal(gold, target)
    except MemoryError:
        raise
    except Exception:
        # sympy fails on odd input; math-verify then decides.
        return False


def parse(latex: str) -> Any:
    """Parse a whole answer into a sympy object.

    Returns:
        None if the text is not mathematics as a whole.

    Raises:
        MemoryError: the worker's memory limit is reached.
    """
    if not _is_balanced(latex):
        return None
    match = _WHOLE_BOX.fullmatch("\\boxed{" + (without_unit(latex).strip() or latex) + "}")
    try:
        return _with_one_kind_of_symbols(extract_match(match, _LATEX)[0])
    except MemoryError:
        raise
    except Exception:
        # Whatever the normalizer raises on hostile text, the text is not an answer.
        return None


def _with_one_kind_of_symbols(parsed: Any) -> Any:
    """Make every symbol real, and the letter i the imaginary unit.

    math-verify decides from the look of each text whether its symbols are real, so `2i` and `2\\cdot i` have different
    ones. Inside a sum or product i is an index.
    """
    if not isinstance(parsed, Basic | MatrixBase):
        return parsed
    symbols = {symbol: Symbol(symbol.name, real=True) for symbol in parsed.atoms(Symbol) if not symbol.is_Dummy}
    if not parsed.has(Sum, Product):
        symbols = {symbol: I if same.name == "i" else same for symbol, same in symbols.items()}
    changed = {symbol: same for symbol, same in symbols.items() if symbol != same}
    if isinstance(parsed, Relational):  # evaluated, `z=3+4i` would be false, as z is real
        return parsed.func(*(side.xreplace(changed) for side in parsed.args), evaluate=False)
    return parsed.xreplace(changed) if changed else parsed


def _with_golds(pairs: Sequence[Sequence[str]]) -> Iterator[tuple[str, Any]]:
    for answer, truth in pairs:
        gold = _parse_truth(truth)
        if gold is not None:
            yield answer, gold


@lru_cache(maxsize=_CACHED_TRUTHS)
def _parse_truth(latex: str) -> Any:
    return parse(latex)


def _is_balanced(latex: str) -> bool:
    depth = 0
    for brace in re.findall(r"[{}]", latex):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def prepare() -> None:
    """Load everything that judging needs, warm up the parser, and close `eval`.

    Processes that are forked from this one need no further import.
    """
    logging.disable(logging.CRITICAL)
    for name in _modules_of_sympy():
        importlib.import_module(name)
    parse_in_two_stages()  # before the warm-up, which fills this parser's caches
    for answer, truth in _WARM_UP:
        judge([(answer, truth)])
    upstream.apply()


def _modules_of_sympy() -> Iterator[str]:
    """Yield the modules to import in advance.

    sympy imports inside functions, and some of its modules evaluate text of their own when they are loaded.
    """
    for package in _SYMPY_PACKAGES:
        yield package
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
            if not _UNUSED_MODULE.search(module.name):
                yield module.name
