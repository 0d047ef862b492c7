"""What a worker process changes upstream and forbids.

These tests use subprocesses, because both apply to a whole process and cannot be undone.
"""

import subprocess
import sys
import textwrap


def run(code):
    """Run code in a fresh interpreter and return what it printed."""
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_upstream_evaluates_the_numbers_of_an_answer():
    """Fails when latex2sympy2_extended no longer passes text to `eval`; `read_numbers_without_eval` can then go."""
    assert run("""
        import sympy.parsing.sympy_parser as sympy_parser
        seen, evaluate = [], sympy_parser.eval_expr
        def spy(code, *rest):
            seen.append(code)
            return evaluate(code, *rest)
        sympy_parser.eval_expr = spy
        from math_verify import parse
        parse(r"$12$", parsing_timeout=None)
        print(len(seen))
    """) == ["1"]


def test_upstream_evaluates_plain_expressions():
    """This is why only the LaTeX half of math-verify is used."""
    assert run("""
        import sympy.parsing.sympy_parser as sympy_parser
        seen, evaluate = [], sympy_parser.eval_expr
        def spy(code, *rest):
            seen.append(code)
            return evaluate(code, *rest)
        sympy_parser.eval_expr = spy
        import math_verify.parser
        math_verify.parser.parse_expr_cached("(12 + 5) - 4")
        print(bool(seen))
    """) == ["True"]


def test_upstream_accepts_any_equation_without_solutions():
    """Fails when math-verify tells them apart; `reject_equations_without_solutions` can then go."""
    assert run(r"""
        from math_verify import parse, verify
        print(verify(parse("$x^2+1=0$"), parse("$1=2$")))
        from verl_relift.rewards.judge import verdict
        from verl_relift.upstream.fixes import math_verify as upstream
        upstream.apply()
        print(verdict.judge([("1=2", "x^2+1=0")]), verdict.judge([("y=2x+1", "y-1=2x")]))
    """) == ["True", "wrong", "correct"]


def test_upstream_does_not_read_percentages():
    """Fails when the grammar for antlr 4.9 is complete; `read_percentages` can then go."""
    assert run(r"""
        from verl_relift.rewards.judge import verdict
        from verl_relift.upstream.fixes import math_verify as upstream
        print(verdict.parse(r"5\%"))
        upstream.apply()
        print(verdict.parse(r"7\%") is not None)
    """) == ["None", "True"]


def test_upstream_looks_ahead_in_full_context():
    """Fails when latex2sympy2_extended no longer does this; `parse_in_two_stages` can then go."""
    assert run(r"""
        from antlr4.atn.ParserATNSimulator import ParserATNSimulator
        from verl_relift.rewards.judge import verdict
        from verl_relift.upstream.speed.latex_parser import parse_in_two_stages
        slow, look = [], ParserATNSimulator.execATNWithFullContext
        def spy(*arguments):
            slow.append(1)
            return look(*arguments)
        ParserATNSimulator.execATNWithFullContext = spy
        verdict.parse(r"(2+\sqrt{2},1)")
        print(len(slow) > 0)
        parse_in_two_stages()
        slow.clear()
        verdict.parse(r"(3+\sqrt{3},1)")
        print(len(slow))
    """) == ["True", "0"]


def test_two_stages_parse_to_the_same_trees():
    """Texts that do not parse count too: a lexer that has failed must not continue after the failure."""
    assert (
        run(r"""
        import random
        from pathlib import Path
        from verl_relift.testing.corpora import equivalent_forms, read_olympiadbench
        from latex2sympy2_extended import latex2sympy2
        from latex2sympy2_extended.antlr_parser import PSParser
        from verl_relift.upstream.speed.latex_parser import TwoStageParser

        def tree(parser_class, latex):
            latex2sympy2.PSParser = parser_class
            try:
                parser = latex2sympy2._Latex2Sympy().create_parser(latex)
                return parser.math().toStringTree(recog=parser)
            except Exception:
                return None

        questions = read_olympiadbench(Path("tests/data/grading/olympiadbench.jsonl"))
        texts = [form for question in questions for form in equivalent_forms(question.truth)[:6]]
        pieces = ["x", "13", "^{2}", "_{1}", "+", "-", "=", ",", "(", ")", r"\frac{1}{2}", r"\sqrt{2}", r"\lor", r"\0"]
        rng = random.Random(1)
        texts += ["".join(rng.choices(pieces, k=rng.randint(1, 6))) for _ in range(300)]
        parsed = 0
        for latex in texts + [r"12\lor 13", r"n^{2}-n+1", r"2^{10^9} \bmod 7"]:
            plain = tree(PSParser, latex)
            parsed += plain is not None
            if tree(TwoStageParser, latex) != plain:
                print(latex)
        assert parsed > 200, parsed
    """)
        == []
    )


def test_numbers_are_read_as_sympy_reads_them():
    assert (
        run("""
        from sympy.parsing.sympy_parser import parse_expr
        from verl_relift.upstream.fixes.math_verify import number_from_text
        long = "123456789012345678901234567890"
        for text in ("0", "12", "1.5", ".5", "5.", "1.50", "2E3", "1.5e-3", long, "0." + long):
            mine, theirs = number_from_text(text), parse_expr(text)
            assert mine == theirs and type(mine) is type(theirs) and str(mine) == str(theirs), (text, mine, theirs)
    """)
        == []
    )


def test_text_that_is_not_a_number_is_refused():
    assert run("""
        from sympy import sympify, Number, S, nsimplify
        from verl_relift.upstream.fixes import math_verify as upstream
        upstream.apply()
        refused = 0
        for make in (sympify, Number, S, nsimplify):
            for text in ("exit(3)", "x", "1+1", "__import__('os')._exit(3)", "1_0", "0x10", "1j", "12 "):
                try:
                    make(text)
                except Exception:
                    refused += 1
        print(refused)
    """) == ["32"]


def test_a_worker_process_cannot_run_code_or_touch_files(tmp_path):
    canary = tmp_path / "canary"
    assert (
        run(f"""
        import os, socket, subprocess
        from verl_relift.rewards.judge import sandbox, verdict
        verdict.prepare()
        sandbox.limit_resources(2**30)
        sandbox.forbid_code()
        attempts = [
            lambda: eval("1"),
            lambda: exec("1"),
            lambda: compile("1", "x", "eval"),
            lambda: open({str(canary)!r}, "w"),
            lambda: os.open({str(canary)!r}, os.O_CREAT | os.O_WRONLY),
            lambda: os.system("true"),
            lambda: subprocess.run(["true"]),
            lambda: os.fork(),
            lambda: os.execv("/bin/true", ["true"]),
            lambda: os.mkdir({str(canary)!r}),
            lambda: socket.socket(),
            lambda: os.kill(os.getppid(), 0),
        ]
        for number, attempt in enumerate(attempts):
            try:
                attempt()
                print(number)
            except sandbox.ForbiddenError:
                pass
        assert verdict.judge([("x^2+2x+1", "(x+1)^2")]) == "correct"
    """)
        == []
    )
    assert not canary.exists()


def test_judging_imports_nothing_once_it_is_prepared():
    """A module that sympy imports late could call the closed `eval`."""
    assert (
        run(r"""
        import sys
        from pathlib import Path
        from verl_relift.testing.corpora import equivalent_forms, read_olympiadbench
        from verl_relift.rewards.judge import verdict
        verdict.prepare()
        before = set(sys.modules)
        for question in read_olympiadbench(Path("tests/data/grading/olympiadbench.jsonl")):
            for form in equivalent_forms(question.truth)[:4]:
                verdict.judge([(form, question.truth.replace("$", ""))])
        for answer, truth in (
            (r"\int_0^1 x dx", "x"),
            (r"\sum_{k=1}^n k", "n(n+1)/2"),
            ("x^2>4", r"(-\infty,-2)\cup(2,\infty)"),
            (r"\lim_{x\to0}\frac{\sin x}{x}", "1"),
            ("n!", r"\Gamma(n+1)"),
            (r"\binom{n}{2}", "n(n-1)/2"),
        ):
            verdict.judge([(answer, truth)])
        print(*sorted(name for name in set(sys.modules) - before if not name.startswith("encodings")))
    """)
        == []
    )
