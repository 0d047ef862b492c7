"""SVAMP (arkilpatel/SVAMP): short word problems of one or two operations; files train and test.

Each record has `Body`, `Question`, `Equation` and `Answer`. The equation, such as `( ( 13.0 * 17.0 ) + 8.0 )`, becomes
the demonstration: one line per operation. SVAMP has no training split; `examples/data/svamp` divides it into two files.

    python -m data_preprocess.svamp --input examples/data/svamp --output DIR
"""

import ast
import operator
import sys
from fractions import Fraction
from typing import Any

from verl_relift.data.errors import DataError, Reason
from verl_relift.data.fields import scalar, text
from verl_relift.data.schema import Row

from .answers import demonstration
from .cli import DataSet, Flags, main
from .pipeline import MapRow
from .template import Template, chat

_OPERATIONS = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}


def join(body: str, question: str) -> str:
    """Return a problem as one text. Many bodies end without a period: the question is the rest of their sentence."""
    body, question = body.strip(), question.strip()
    return f"{body} {question}" if body.endswith(".") else f"{body}, {question[0].lower()}{question[1:]}"


def steps(equation: str) -> list[str]:
    """Return an equation's operations in the order in which they are computed: `13 * 17 = 221`, `221 + 8 = 229`.

    Raises:
        DataError: the equation is not made of numbers and the four operations, or divides by zero.
    """
    lines: list[str] = []

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return Fraction(str(node.value))
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            symbol, compute = _OPERATIONS[type(node.op)]
            left, right = value(node.left), value(node.right)
            result = compute(left, right)
            lines.append(f"{_spell(left)} {symbol} {_spell(right)} = {_spell(result)}")
            return result
        raise ValueError("something other than numbers and + - * /")

    try:
        last = value(ast.parse(equation.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError) as error:
        raise DataError(
            Reason.WRONG_TYPE, f"not an equation ({error}): {equation[:40]!r}", column="Equation", remedy="drop the row"
        ) from None
    return lines or [_spell(last)]


def mapping(flags: Flags) -> MapRow:
    """Return the function from record to row."""
    template: Template = flags.template

    def to_row(record: dict[str, Any], index: int, split: str) -> Row:
        question = join(text(record, "Body"), text(record, "Question"))
        answer = scalar(record, "Answer")
        target = demonstration("\n".join(steps(text(record, "Equation"))), answer, think=template == Template.THINK)
        return Row("svamp", chat(question, template), target, answer, index, split, id=scalar(record, "ID"))

    return to_row


def _spell(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):g}"


SVAMP = DataSet("svamp", __doc__, ("train", "test"), mapping, ("ID", "Body", "Question", "Equation", "Answer"))

if __name__ == "__main__":
    sys.exit(main(SVAMP))
