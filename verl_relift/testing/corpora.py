"""Responses to grade: real solutions, equivalent and wrong answers, and hostile texts.

The generators are pure functions of fixed seeds. `benchmarks.grading` and the tests share them.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

CHARS_PER_TOKEN = 4
SHORTEST_TOKENS, LONGEST_TOKENS = 300, 8_000
ROLLOUTS = 8
_SOME = 40  # number of problems from which another answer is drawn


@dataclass(frozen=True, slots=True)
class SolvedProblem:
    """A problem's ground truth and a worked solution of it, which is empty if the data set has none."""

    truth: str
    solution: str


def read_gsm8k(path: Path) -> list[SolvedProblem]:
    """Read GSM8K's JSON lines: `answer` is a solution that ends in `#### <integer>`."""
    problems = []
    for line in path.read_text(encoding="utf-8").splitlines():
        solution, _, truth = json.loads(line)["answer"].rpartition("####")
        problems.append(SolvedProblem(truth.strip(), solution.strip()))
    return problems


def read_olympiadbench(path: Path) -> list[SolvedProblem]:
    """Read OlympiadBench's JSON lines: `final_answer` is a list of one LaTeX string, `solution` a list of texts."""
    problems = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        problems.append(SolvedProblem(row["final_answer"][0], (row["solution"] or [""])[0]))
    return problems


def boxed(answer: str) -> str:
    """Return a closing sentence with the answer in a box, without a pair of dollar signs around the answer."""
    bare = answer[1:-1] if answer.count("$") == 2 and answer[0] == answer[-1] == "$" else answer
    return f"The answer is \\boxed{{{bare}}}."


def last_digit_changed(number: str) -> str:
    """Return the number with its last digit raised by one; 9 becomes 0."""
    index = max(i for i, c in enumerate(number) if c.isdigit())
    return number[:index] + str((int(number[index]) + 1) % 10) + number[index + 1 :]


def equivalent_forms(truth: str) -> list[str]:
    """Return other spellings of the same answer, made by text replacement."""
    bare = truth.replace("$", "").strip()
    forms = [f"  {bare} ", f"\\displaystyle {bare}", bare.replace("\\frac", "\\dfrac"), bare.replace(" ", "")]
    unsized = re.sub(r"\\(?:left|right)(?=[()\[\]])", "", bare)
    forms.append(re.sub(r"([(\[])", r"\\left\1", re.sub(r"([)\]])", r"\\right\1", unsized)))
    if re.fullmatch(r"-?\d+", bare):
        forms += [
            f"{bare}.0",
            f"{bare}.",
            f"{int(bare):,}",
            f"x={bare}",
            f"{bare}\\text{{ cm}}",
            f"+{bare}".replace("+-", "-"),
        ]
    elif "=" not in bare and "," not in bare and "[" not in bare and not bare.startswith("("):
        forms += [f"x={bare}", f"{bare}+0", f"1\\cdot({bare})", f"\\left({bare}\\right)"]
    if match := re.fullmatch(r"-?\\frac\{(\d+)\}\{(\d+)\}", bare):
        sign, p, q = bare[: bare.startswith("-")], int(match[1]), int(match[2])
        forms += [f"{sign}{p}/{q}", f"{sign}\\frac{{{3 * p}}}{{{3 * q}}}", f"{sign}{p / q:.12f}"]
    return list(dict.fromkeys(forms))


def long_responses(problems: list[SolvedProblem], seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield eight responses a problem, 300 to 8,000 tokens long, as training produces them.

    The text consists of other problems' solutions, in a closed thought for three responses in four. Half of the answers
    are correct, some of them in another spelling. The others are near misses, other answers, or truncated responses.

    Args:
        problems: the source of texts and answers.
        seed: equal arguments give equal responses.

    Yields:
        (kind, response, ground truth); kind is "same", "form", "near", "other" or "cut".
    """
    rng = random.Random(seed)
    texts = [problem.solution for problem in problems if problem.solution]
    for problem in problems:
        for _ in range(ROLLOUTS):
            # Lengths are log-uniform, so short responses are more frequent.
            tokens = SHORTEST_TOKENS * (LONGEST_TOKENS / SHORTEST_TOKENS) ** rng.random()
            work = _prose(texts, int(tokens * CHARS_PER_TOKEN), rng)
            kind = rng.choices(("same", "form", "near", "other", "cut"), (35, 15, 20, 20, 10))[0]
            if kind == "cut":
                yield kind, "<think>\n" + work, problem.truth
                continue
            answer = _answer(kind, problem.truth, problems, rng)
            opening, closing = ("<think>\n", "\n</think>\n") if rng.random() < 0.75 else ("", "\n")
            yield kind, f"{opening}{work}{closing}{boxed(answer)}", problem.truth


def _prose(texts: list[str], chars: int, rng: random.Random) -> str:
    parts: list[str] = []
    size = 0
    while size < chars:
        parts.append(rng.choice(texts).replace("\\boxed", "\\mathbf"))
        size += len(parts[-1])
    return "\n\n".join(parts)[:chars]


def _answer(kind: str, truth: str, problems: list[SolvedProblem], rng: random.Random) -> str:
    if kind == "form":
        return rng.choice(equivalent_forms(truth))
    if kind == "near" and any(c.isdigit() for c in truth):
        return last_digit_changed(truth)
    if kind == "same":
        return truth
    # A wrong model still answers in the right form.
    others = (problem.truth for problem in rng.sample(problems, min(len(problems), _SOME)))
    return rng.choice([other for other in others if _shape(other) == _shape(truth)] or [truth])


def _shape(truth: str) -> tuple[bool, bool, bool]:
    bare = re.sub(r"\\[a-zA-Z]+", "", truth)
    return bool(re.search("[a-zA-Z]", bare)), "," in bare, "=" in bare


def hostile(canary: Path) -> list[tuple[str, str, str]]:
    """Return texts that hang, crash, fill the memory of, or run code in a careless grader.

    Args:
        canary: a file that the payloads try to create.

    Returns:
        (name, response, ground truth) triples.
    """
    return [
        (f"{name}-{index}", response, truth)
        for name, responses in (
            ("power", _powers()),
            ("digits", _digits()),
            ("nesting", _nesting()),
            ("size", _sizes()),
            ("regex", _regex_bombs()),
            ("unicode", _unicode()),
            ("payload", _payloads(canary)),
            ("algebra", _algebra()),
            ("structure", _structure()),
            ("hedge", _hedges()),
        )
        for index, (response, truth) in enumerate(product(responses, ("13", r"\frac{\sqrt{3}}{2}")))
    ]


def _box(*answers: str) -> list[str]:
    return [f"\\boxed{{{answer}}}" for answer in answers]


def _powers() -> list[str]:
    towers = [
        "^{".join([base] * height) + "}" * (height - 1)
        for base in ("9", "2", "x", "1.5", "-7")
        for height in (3, 5, 50)
    ]
    large = [f"{base}^{{{exponent}}}" for base in (2, 10, 13) for exponent in (10**6, 10**9, 10**18)]
    others = [
        "10^{10^{10}}!",
        "(10^6)!",
        "100000!!",
        "2^{10^9} \\bmod 7",
        "10^{-10^9}",
        "\\sqrt[10^9]{2}",
        "e^{e^{e^{e^{10}}}}",
    ]
    binomials = [
        r"\binom{10^9}{10^8}",
        r"\binom{100000}{50000}",
        r"(x+y)^{10000}",
        r"(a+b+c+d)^{200}",
        r"\sum_{k=1}^{10^9} k!",
    ]
    return _box(*towers, *large, *others, *binomials)


def _digits() -> list[str]:
    return _box(
        *("7" * size for size in (400, 1_999, 4_301, 100_000)),
        *("1." + "3" * size for size in (400, 100_000)),
        *("-" * size + "13" for size in (2, 101, 1_900)),
        ",".join(["1"] * 900),
        ",".join("123" for _ in range(300)),
        "+".join(["1"] * 13),
        "+".join(["x"] * 900),
        "0" * 1_000 + "13",
        "1e999999999",
        "1E9999",
        "13." + "0" * 1_000,
        "1/" * 900 + "1",
        "0x0D",
        "0b1101",
        "1_3",
    )


def _nesting() -> list[str]:
    depths = (50, 500, 10_000)
    pairs = (
        ("{", "}"),
        ("(", ")"),
        ("[", "]"),
        ("\\{", "\\}"),
        ("\\left(", "\\right)"),
        ("\\sqrt{", "}"),
        ("\\frac{", "}{2}"),
    )
    closed = [opening * depth + "13" + closing * depth for depth in depths for opening, closing in pairs]
    boxes = ["\\boxed{" * depth + "13" + "}" * depth for depth in depths]
    unclosed = ["\\boxed{" * depth + "13" for depth in depths] + ["{" * depth + "\\boxed{13}" for depth in depths]
    more = [
        "\\boxed{13}" + "}" * 10_000,
        "\\boxed{" + "\\text{" * 300 + "13" + "}" * 300 + "}",
        "\\boxed" * 10_000 + "{13}",
    ]
    return _box(*closed) + boxes + unclosed + more


def _sizes() -> list[str]:
    megabyte = 1_000_000
    filler = (
        "x",
        "\\alpha ",
        "\\frac{1}{2}+",
        "$",
        "\\",
        " ",
        "\n",
        "{",
        "}",
        "\\boxed{",
        "####",
        "<think>",
        "</think>",
        "answer is ",
    )
    inside = [f"\\boxed{{{text * (megabyte // len(text))}}}" for text in filler[:6]]
    before = [text * (megabyte // len(text)) + "\\boxed{12}" for text in filler]
    return inside + before


def _regex_bombs() -> list[str]:
    return _box(
        "$" * 1_900,
        "\\text{" + " " * 1_900 + "}",
        "1 " * 900,
        "1," * 900,
        "(" * 900 + ")" * 900,
        "\\frac" * 380,
        "\\sqrt" * 380,
        "^(" * 600 + ")" * 600,
        "\\frac{" * 300,
        "\\log_" * 380,
        " sqrt(" * 300,
        "and " * 450,
        "a" * 1_900 + "!",
        "-" * 1_900,
        "= " * 900,
        "\\left" * 380,
        "\\%" * 900,
        "1\\text{ cm}" * 150,
        "(a)_{" * 300,
        "\\boxed {" * 200,
    )


def _unicode() -> list[str]:
    return _box(
        *(
            "１３",
            "𝟏𝟑",
            "¹³",
            "⑬",
            "١٣",
            "十三",
            "1\u200b3",
            "1\u00a03",
            "\u202e31",
            "1\ufeff3",
            "½",
            "√169",
            "−13",
            "–13",
        ),
        *(
            "13\x00",
            "\x0013",
            "\x00",
            "1\x003",
            "\ud800",
            "13\udfff",
            "\U0001f4a3" * 500,
            "e\u0301" * 900,
            "\u0130",
            "ß",
            "ſ",
        ),
        *(
            "13\r\n",
            "\x1b[31m13",
            "\x08\x0813",
            "13\x7f",
            "\u2028" * 10,
            "１" * 500,
            "1\u06dd3",
            "∞",
            "∅",
            "π",
            "13°",
            "13′",
        ),
    )


def _payloads(canary: Path) -> list[str]:
    path = str(canary)
    codes = (
        f"open('{path}','w').write('x')",
        f"__import__('os').system('touch {path}')",
        f"__import__('pathlib').Path('{path}').touch()",
        f"exec(\"open('{path}','w')\")",
        f"eval(compile(\"open('{path}','w')\",'x','eval'))",
        f"().__class__.__base__.__subclasses__()[0]('{path}')",
        f"lambda: open('{path}','w')",
        f"[open('{path}','w') for _ in (1,)]",
        f"sympify(\"open('{path}','w')\")",
        f"S(\"open('{path}','w')\")",
        f"parse_expr(\"open('{path}','w')\")",
        f"lambdify(x, \"open('{path}','w')\")(1)",
        "exit()",
        "quit()",
        "exit(0)",
        "import os",
        "os.kill(os.getppid(),9)",
        "while True: pass",
        "1 if 1 else 2",
        "globals()",
        "__builtins__",
        "breakpoint()",
        "input()",
    )
    wraps = (
        "{}",
        "f({})",
        "f({},13)",
        "\\gcd({},13)",
        "\\max({},13)",
        "\\text{{{}}}",
        "\\operatorname{{{}}}(13)",
        "x_{{{}}}",
        "$ {} $",
    )
    escapes = (
        r"\write18{touch X}",
        r"\input{/etc/passwd}",
        r"\immediate\write18{ls}",
        r"\def\x{\x}\x",
        r"\loop\iftrue\repeat",
    )
    plain = ["13;" + codes[0], "13\n" + codes[0], "13#" + codes[0], "#### " + codes[0], "The answer is " + codes[0]]
    return _box(*(wrap.format(code) for code in codes for wrap in wraps), *escapes) + plain


def _algebra() -> list[str]:
    return _box(
        r"\int_0^\infty \sin(x^x) e^{-x^{x}} dx",
        r"\int \frac{\sin(\cos(\tan x))}{\ln(x^x+1)} dx",
        r"\sum_{n=1}^{\infty} \frac{\sin(n^n)}{n^{\ln n}}",
        r"\lim_{x\to 0} \frac{\sin(x^{x^x})}{x^{1/x}}",
        r"\prod_{n=1}^{100000} \left(1+\frac{1}{n!}\right)",
        r"\det\begin{pmatrix}"
        + r"\\".join("&".join(f"x_{{{i}{j}}}" for j in range(9)) for i in range(9))
        + r"\end{pmatrix}",
        r"\begin{pmatrix}" + r"\\".join("&".join(["x^x"] * 9) for _ in range(9)) + r"\end{pmatrix}^{1000}",
        r"x^{100}+y^{100}=z^{100}+\sin(x y z)",
        r"\sin(\sin(\sin(\sin(\sin(\sin(\sin(x)))))))=\cos(\cos(\cos(x)))",
        r"\sqrt{" * 40 + "2" + "+1}" * 40,
        "".join(rf"(x-{k})(x^{{{k}}}+{k})" for k in range(2, 60)),
        r"\frac{x^{97}-1}{x-1}\cdot\frac{x^{89}-1}{x-1}\cdot\frac{(x+y)^{80}}{(x-y)^{80}}",
        r"\sin(10^{1000})",
        r"\Gamma(10^{9})",
        r"\zeta(\frac{1}{2}+10^{9}i)",
        r"\frac{0}{0}",
        r"\frac{1}{0}",
        r"\infty-\infty",
        r"0^0",
        r"\tan(\frac{\pi}{2})",
        r"\log(0)",
        r"\text{nan}",
        r"x=x",
        r"1=1",
        r"1=2",
        r"x<x",
        r"\{\}",
        r"\mathbb{R}",
        r"(-\infty,\infty)",
        r"\pm\pm\pm 13",
        r"x\in\{13\}",
        r"x\neq 12",
        r"13\lor 12",
        r"\overline{13}",
        r"13\ldots",
    )


def _structure() -> list[str]:
    every = ",".join(str(n) for n in range(100))
    return [
        "",
        " ",
        "\n" * 1_000,
        "13",
        "\\boxed",
        "\\boxed{",
        "\\boxed{}",
        "\\boxed{ }",
        "\\boxed{{}}",
        "\\boxed{$$}",
        "\\boxed{.}",
        "\\boxed 13",
        "boxed{13}",
        "\\boxed{12}\\boxed{}",
        "<think>\\boxed{13}",
        "<think>\\boxed{13}</think>",
        "<think>" * 5_000 + "\\boxed{13}",
        "</think>" * 5_000,
        "</think><think>\\boxed{13}",
        "<think></think><think>\\boxed{13}</think>",
        "\\boxed{either 12 or 13}",
        "\\boxed{12 or 13}",
        "\\boxed{12, 13}",
        f"\\boxed{{{every}}}",
        f"\\boxed{{\\{{{every}\\}}}}",
        "".join(f"\\boxed{{{n}}}" for n in range(100)),
        " or ".join(f"$\\boxed{{{n}}}$" for n in range(100)),
        "\\boxed{[12,14]}",
        "\\boxed{12<x<14}",
        "\\boxed{\\approx 13.4}",
        "\\boxed{\\neg 13}",
        "\\boxed{\\text{not }13}",
        "\\boxed{?}",
        "####",
        "#### ",
        "#### 12\n####",
    ]


def _hedges() -> list[str]:
    joins = (
        " or ",
        " and ",
        ", ",
        "; ",
        " / ",
        " | ",
        "\\text{ or }",
        "\\quad",
        "\\lor ",
        "\\vee ",
        " = ",
        "\\neq ",
        "\\approx ",
    )
    lists = (("12", "13"), ("13", "12"), ("13", "14", "15"), ("1", "2", "13"))
    return _box(*(join.join(numbers) for join in joins for numbers in lists))
