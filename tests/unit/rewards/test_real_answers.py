r"""Answers as models and data sets write them: units, bases, times, tiny numbers, approximations, spellings.

Each ground truth comes with answers that are right and answers that are wrong, several of each kind.
"""
# ruff: noqa: E501

import pytest

from verl_relift.rewards import GradeOutcome, Grader, PoolSettings

TABLE = {
    "several quantities with units": [
        (r"30\text{ km}, 45\text{ km}", ["30, 45", r"45\text{ km}, 30\text{ km}", "30 km, 45 km"], ["30", r"30\text{ km}, 46\text{ km}", r"30\text{ km}"]),
        (r"1\text{ h }15\text{ min}", [r"1\text{ h } 15\text{ min}", "1 h 15 min", r"1\text{ hour and }15\text{ minutes}"], ["1", "15", "115", r"1\text{ h }16\text{ min}", r"2\text{ h }15\text{ min}", r"1\text{ h}"]),
        (r"5\text{ ft }7\text{ in}", [r"5\text{ ft }7\text{ in}"], ["5", r"5\text{ ft }8\text{ in}", r"5\text{ ft}"]),
        (r"3\text{ apples and }4\text{ pears}", [r"3\text{ apples and }4\text{ pears}", "3 apples, 4 pears"], ["3", "4", r"3\text{ apples and }5\text{ pears}"]),
        (r"\$12 \text{ and } \$15", ["12, 15", r"\$15, \$12"], ["12", "15", "12, 16"]),
        (r"12", [r"12\text{ cm}"], [r"12\text{ cm }5\text{ mm}", r"1\text{ h }12\text{ min}"]),
        (r"x=3\text{ m}, y=4\text{ m}", ["(3,4)", "x=3, y=4"], ["3", r"x=3\text{ m}, y=5\text{ m}"]),
    ],
    "tiny values": [
        (r"5\times10^{-21}", [r"5\cdot10^{-21}", r"\frac{5}{10^{21}}", "5e-21"], [r"3\times10^{-20}", r"5\times10^{-20}", r"5\times10^{-22}", "0"]),
        (r"\frac1{3^{61}}", [r"3^{-61}", r"\frac{1}{3^{61}}", r"\frac{3}{3^{62}}"], [r"\frac1{3^{60}}", r"3^{-60}", "0"]),
        (r"2^{-40}", [r"\frac{1}{2^{40}}"], [r"2^{-41}", r"\frac{1}{2^{39}}"]),
        (r"\frac{\pi}{10^{9}}", [r"\pi\cdot10^{-9}"], [r"\frac{\pi}{10^{8}}", r"\frac{3\pi}{10^{9}}"]),
        (r"\frac{\sqrt{2}}{10^{8}}", [r"\sqrt{2}\cdot10^{-8}"], [r"\frac{\sqrt{3}}{10^{8}}"]),
        ("0.00000012", [r"1.2\times10^{-7}", "1.2e-7"], ["0.00000013", r"1.3\times10^{-7}", "0"]),
        (r"\binom{40}{20}^{-1}", [r"\frac{1}{\binom{40}{20}}"], [r"\frac{1}{\binom{40}{19}}"]),
        (r"e^{-30}", [r"\frac{1}{e^{30}}"], [r"e^{-31}", r"e^{-29}"]),
        (r"\frac{1}{20!}", [r"\frac{1}{20\cdot19!}"], [r"\frac{1}{19!}"]),
    ],
    "e-notation": [
        ("2.5e7", [r"2.5\times10^7", "25000000", "2.5e7", "2.5E7", r"2.5\cdot10^{7}", "25,000,000"], ["17.5e", "2.5", "2.5e6", r"2.5\times10^8"]),
        ("2e-06", [r"2\times10^{-6}", "0.000002", "2e-06", "2e-6"], ["3e-06", "0", "2", r"2\times10^{-5}"]),
        ("1e3", ["1000", "10^3"], ["e^3", "100", "3e"]),
        ("-1.5e-3", ["-0.0015", r"-\frac{3}{2000}"], ["0.0015", "-0.0016"]),
        ("2e^3", [r"2\mathrm{e}^{3}", "2e^{3}"], ["2000", "2e3", "2"]),
    ],
    "approximations": [
        (r"\sqrt5\approx 2.236", ["2.236", r"\sqrt5", r"\sqrt{5}\approx 2.236", r"\sqrt{5}\approx2.24"], [r"\sqrt5\approx 2.4", "2.4", r"\sqrt{6}", r"\sqrt{6}\approx 2.236"]),
        (r"\frac{22}{7}\approx3.143", ["3.143", "22/7", r"\frac{22}{7}"], ["3.2", r"\frac{23}{7}"]),
        (r"\approx 0.69", ["0.69", r"\approx0.69", r"x\approx 0.69"], ["0.7", "0.68"]),
        (r"x\approx 1.25", ["1.25", r"x\approx1.25", "x=1.25"], ["1.35", r"x\approx 1.2"]),
        ("13", [r"\frac{26}{2}\approx 13"], [r"12\approx 13", r"13\approx 14", r"\sqrt{2}\approx 13"]),
        (r"\ln 2\approx 0.693", [r"\ln 2", "0.693"], [r"\ln 3", "0.7"]),
    ],
    "upright and bold letters": [
        (r"2\mathrm{e}^{3}", ["2e^3", r"2\mathrm{e}^3"], ["2", "8", "2e^2"]),
        (r"\mathbf{i}-2\mathbf{j}", [r"\mathbf{i}-2\mathbf{j}", r"-2\mathbf{j}+\mathbf{i}"], [r"\mathbf{i}+2\mathbf{j}", r"\mathbf{i}", r"2\mathbf{i}-2\mathbf{j}"]),
        (r"3\mathrm{e}", ["3e"], ["3", "4e"]),
        (r"2+3\mathrm{i}", ["2+3i"], ["2+3", "5", "2", "2-3i"]),
        (r"\boldsymbol{v}+2\boldsymbol{w}", [r"2\mathbf{w}+\mathbf{v}"], [r"\boldsymbol{v}+3\boldsymbol{w}"]),
        (r"5\mathrm{~m}", ["5", r"5\text{ m}"], ["6"]),
    ],
    "thousands": [
        (r"4,\! 500", ["4500", "4,500", r"4{,}500"], ["4", "500", "4, 501"]),
        ("4500", [r"4,\! 500", r"4,\!500", r"4\,500"], [r"4,\! 501", "4"]),
        (r"1,\!234,\!567", ["1234567"], ["1234568", "1,234"]),
    ],
    "bases": [
        ("21_4", ["21_4", "21_{4}", "21", r"21_{\text{four}}"], ["21_5", "22_4", "22"]),
        ("9", ["21_4", "1001_2"], ["21_5", "1011_2"]),
        ("1A_{16}", ["1A_{16}", "1a_{16}", r"\text{1A}_{16}"], ["1B_{16}", "1A_{15}"]),
        ("2022_{3}", ["2022"], ["2021", "2022_{5}"]),
    ],
    "names": [
        ("x=3,y=7", ["x=3,y=7", "y=7,x=3", "(3,7)", "(x,y)=(3,7)", "(y,x)=(7,3)", r"x=3\text{ and }y=7", "3,7", r"y=7,\ x=\frac{6}{2}"], ["(7,3)", "x=7,y=3", "7,3", "x=3", "3", "a=3,b=7"]),
        ("(a, b, c)=(1, 2, 3)", ["(1,2,3)", "a=1,b=2,c=3", r"(a,b,c)=(1,2,\frac{6}{2})"], ["(3,2,1)", "(a,b,c)=(1,2,4)"]),
        ("(3,7)", ["x=3,y=7", "y=7,x=3", "(x,y)=(3,7)"], ["(x,y)=(7,3)", "x=7,y=3", "y=3,x=7"]),
        ("a=1,b=2,c=3", ["(1,2,3)", "c=3,b=2,a=1"], ["(3,2,1)", "a=1,b=2", "(1,2)"]),
        (r"x=1\text{ or }x=2", ["1,2", "x=2,x=1", r"x=2\text{ or }x=1"], ["1", "x=1,x=3"]),
    ],
    "clock times": [
        ("5:00", ["5:00", "05:00", r"5:00\text{ p.m.}"], ["4:60", "5:01", "6:00"]),
        (r"3:05\text{ PM}", ["3:05", r"3:05\text{ p.m.}", "3:05 pm", "15:05"], ["3:06", r"3:05\text{ am}", "3:50", "3"]),
        (r"\text{10:30 AM}", ["10:30", "10:30 a.m."], ["10:30 PM", "10:31", "11:30"]),
        ("3:4", ["3:4", "6:8", r"\frac{3}{4}"], ["4:3", "3:5"]),
        ("2:3:5", ["2:3:5", "2 : 3 : 5"], ["2:3:6", "3:2:5"]),
    ],
    "plain units and words": [
        ("8", ["8 books", "8 m/s", r"8\text{ m^2}", "8 cm", "8 meters per second", r"8\text{ m}^{2}", "8cm", r"8\text{ books}", r"8\mathrm{~m}/\mathrm{s}"], ["9 books", "8x", "8 or 9", "8 books and 9 pens", "8 million", "8 dozen", r"8\text{ million}", "8 not", "8 pi"]),
        ("60", ["60°", r"60^\circ", "60 degrees", r"60^{\circ}"], ["61°", "6°"]),
        ("7", ["€7", "7€", "£7", r"\$7", "7 dollars", r"\text{€}7", "US$7"], ["€8", "70€"]),
        ("9 (apples)", ["9", "9 apples", "9 (apples)"], ["8", "90", "apples"]),
        ("8 books", ["8", "8 books", r"8\text{ books}"], ["9", "books", "9 books"]),
        ("60°", ["60", r"60^\circ", "60°"], ["61"]),
        ("€7", ["7", "€7"], ["8"]),
        ("12 m/s", ["12", r"12\text{ m/s}"], ["13", "12.5"]),
        ("5000000", ["5 million", r"5\text{ million}", "5,000,000"], ["5", "5 billion", "5 thousand"]),
        ("24", ["2 dozen", "24 eggs"], ["3 dozen", "2"]),
        ("13", [r"13\text{ cm}^2", r"13\ \mathrm{kg}", "13 kilograms"], [r"13\text{ or 14}", "13 but 14", "not 13"]),
        (r"\frac{3}{4}", [r"\frac{3}{4}\text{ hours}", "3/4 hours", "0.75 h"], ["3/5 hours"]),
    ],
    "mixed numbers and repeating decimals": [
        ("1 1/2", ["1 1/2", "3/2", "1.5", r"1\frac{1}{2}", r"\frac{3}{2}"], ["11/2", "1", "1/2", "1 1/3", "1.6"]),
        (r"0.\overline{6}", [r"\frac{2}{3}", "2/3", r"0.\overline{6}", r"0.\overline{66}", r"0.\bar{6}"], ["0.6", "0.66", r"0.\overline{7}", r"\frac{3}{5}"]),
        (r"\frac{1}{6}", [r"0.1\overline{6}"], [r"0.\overline{16}", r"0.1\overline{7}"]),
        ("2.5", ["2 1/2", r"2\tfrac{1}{2}"], ["2 1/3", "21/2"]),
        ("-1 1/2", ["-1.5", r"-\frac{3}{2}"], ["-0.5", "1.5"]),
    ],
    "spelling": [
        (r"\langle 3,4\rangle", [r"\langle 3, 4\rangle", "(3,4)", r"\left\langle 3,4 \right\rangle"], [r"\langle 4,3\rangle", r"\langle 3,5\rangle"]),
        (r"\emptyset", [r"\varnothing", "∅", r"\{\}"], ["0", r"\{0\}"]),
        (r"\text{Märkte}", ["Märkte", "märkte", r"\text{Märkte}"], [r"\text{Markte}", "Märkt"]),
        ("C", ["Option C", r"\text{Option C}", "option (C)", "(C)", "Choice C"], ["Option D", "Option C or D", "Option B"]),
        ("12", [r"\[12\]", r"\(12\)", "12 dollars."], [r"\[13\]"]),
        ("No solution", ["no solution", r"\text{no solution}"], ["solution"]),
        (r"\sqrt2", [r"\sqrt{2}"], [r"\sqrt3"]),
        (r"\frac12", ["0.5", "1/2", r"\dfrac{1}{2}"], [r"\frac13"]),
    ],
    "mixed": [
        (r"2\text{ hours }30\text{ minutes}", ["2.5 hours", r"2.5\text{ h}", "150 minutes", "2 hours and 30 minutes", r"2\frac{1}{2}\text{ hours}", "2 hr 30 min"], ["2", "30", "2 hours", "3.5 hours", "2 hours 31 minutes"]),
        (r"5\text{ dollars and }25\text{ cents}", ["5.25", r"\$5.25", "525 cents", "5 dollars 25 cents"], ["5", "25", "5.52"]),
        (r"1\text{ h }15\text{ min}", ["1.25", "75 min"], ["1.15", "15"]),
        (r"100\text{ cm}^3", ["100", r"100\text{ cm}^{3}", "100 cm^3", "100 cubic centimeters"], ["1000"]),
        ("-40", [r"-40^\circ\text{C}", "-40 °C", r"-40^{\circ}\mathrm{C}", "-40°C", "-40 degrees Celsius"], ["40", "-4"]),
        ("300000000", [r"3.0\times10^8\text{ m/s}", r"3\times 10^{8}\mathrm{~m/s}", "3e8", "3e8 m/s"], [r"3\times10^7"]),
        ("1234.5", ["1,234.5 m", r"1{,}234.5\text{ m}"], ["1,234 m"]),
        ("50", ["50 mph", "50 miles per hour", "50 km/h", r"50\text{ km}/\text{h}", r"\text{50 books}", "50 people", "50 students."], ["500", "5 mph"]),
        ("4", [r"\text{4 books}", "4 sides", "4 units", "4 sq units", "4 square units", r"4\text{ sq. units}", "4 more"], ["4 or 5", "4x", "4 thousand", "4 pi", "4 sin"]),
        ("30", ["30 min", "30 minutes", "30 mins", r"30\text{ min.}"], ["30 or 31"]),
        ("0.000001", ["10^{-6}", "1e-6"], ["10^{-7}", "0"]),
        ("0", ["0.0", "0 cm"], ["10^{-9}", "0.0001"]),
        ("1101_2", ["1101_{2}", "(1101)_2", r"1101_{\text{two}}", r"1101_{\mathrm{two}}", "1101_{(2)}"], ["1100_2", "1101_3", "1001"]),
        ("(x,y)=(3,7)", ["(3,7)", "(x,y)=(3,7)", "x=3,y=7"], ["(7,3)"]),
        (r"5\text{ PM}", ["5:00 PM", "5 pm", "17:00", "5 p.m."], ["5 am", "6 PM"]),
        (r"\frac{\pi}{3}", [r"\frac{\pi}{3}\text{ radians}", r"\pi/3", r"\frac{1}{3}\pi"], [r"\frac{\pi}{4}"]),
        ("12", ["12 inches", "12 in", "12 ft", "12''", "12%"], ["12 dozen", "120"]),
        ("5", ["x=5", "x = 5 cm", "n=5"], ["x=6"]),
        ("(1,2)", ["(1, 2)", r"\left(1,2\right)", r"(1, \, 2)"], ["(2,1)"]),
        ("3.14", [r"\approx 3.14", "3.14 cm", r"\pi\approx 3.14"], ["3.15", r"\pi"]),
        (r"\text{Tuesday}", ["tuesday", "Tuesday."], ["Thursday"]),
        (r"\text{Yes}", ["yes", "Yes"], ["no"]),
        ("x^2+2x", ["x(x+2)", "x^2 + 2 x"], ["x^2+3x"]),
        (r"2\sqrt{3}\text{ cm}", [r"2\sqrt{3}", r"2\sqrt{3} cm", r"\sqrt{12}\text{ cm}"], [r"3\sqrt{2}"]),
        (r"10\%", ["10", r"10\%", "0.1"], ["1"]),
        ("2:3", ["2:3", r"\frac{2}{3}", "4:6"], ["3:2"]),
        (r"\{1,2\}", ["1,2", r"\{2,1\}", "1 and 2"], ["1", r"\{1,3\}"]),
        ("1000", ["1,000", "1 000", r"1\,000", "1000.00"], ["1.000"]),
        (r"\frac{3}{4}\text{ cup}", ["3/4 cup", "0.75", "3/4"], ["1/4 cup"]),
        ("7 days", ["7", "7 days", "1 week"], ["8 days", "6"]),
        ("3 feet 4 inches", ["3 ft 4 in", "40 inches", "3 feet, 4 inches"], ["3", "3 ft", "4", "3 ft 5 in"]),
        (r"30^\circ", ["30", "30 degrees", "30°"], ["31"]),
        (r"\text{(B)}", ["B", "(B)", "Option B", "b"], ["A"]),
        (r"\$18", ["18", "$18", "18 dollars", "18.00", "$18.00"], ["81", "$1.8"]),
        ("1/3", ["0.333333", r"\frac13", r"0.\overline{3}", r"\frac{2}{6}"], ["0.3"]),
        (r"3\frac{1}{2}", ["3.5", "7/2", "3 1/2", r"\frac72"], ["3/2", "31/2"]),
        ("2.5", ["2 1/2 cups", r"2\frac12", "2.5 cups", "2.50"], ["2.05"]),
        ("-3", ["-3 °C", "−3", "- 3"], ["3"]),
        ("8!", ["40320", "8!"], ["5040"]),
        ("1.5e10", ["15000000000", r"1.5\times 10^{10}", "1.5E10", "1.5e+10"], ["1.5e9"]),
        ("6.02e23", [r"6.02\times10^{23}"], [r"6.02\times10^{22}", r"6.03\times10^{23}"]),
        ("a=2, b=-3", ["(2,-3)", "a=2,b=-3", "a=2 and b=-3", "b=-3, a=2"], ["(−3,2)", "a=-3,b=2"]),
        ("x=1,x=2", ["1,2", "x=1,2", "2,1"], ["1"]),
        ("9:05", ["9:05", "9:05 AM"], ["9:50", "9:5"]),
        ("10 (ten)", ["10"], ["11"]),
        ("25 square meters", ["25", "25 m^2", r"25\text{ m}^2"], ["26"]),
        ("16π", [r"16\pi"], ["16"]),
        ("½", ["1/2", "0.5"], ["2"]),
        ("3²", ["9"], ["3"]),
        ("5 ± 1", [r"5\pm1", "4,6"], ["5"]),
        ("≤5", [r"\le 5"], ["5"]),
        ("40 / 3", ["40/3", r"\frac{40}{3}"], ["40"]),
        ("45 km/h", ["45", "45 km/h"], ["54"]),
        ("1 : 2", ["1:2", "1/2"], ["2:1"]),
        ("100,000", ["100000", "1e5", "10^5"], ["10,000"]),
    ],
}  # fmt: skip
CASES = [
    (kind, truth, answer, correct)
    for kind, rows in TABLE.items()
    for truth, right, wrong in rows
    for correct, answers in ((True, right), (False, wrong))
    for answer in answers
]


@pytest.fixture(scope="module")
def grader():
    with Grader(pool=PoolSettings(workers=2, time_limit_s=20)) as grader:
        yield grader


@pytest.mark.parametrize(("kind", "truth", "answer", "correct"), CASES)
def test_table(grader, kind, truth, answer, correct):
    grade = grader.grade(f"\\boxed{{{answer}}}", truth)
    assert grade.outcome is not GradeOutcome.TIMED_OUT
    assert grade.correct == correct, grade


def test_an_answer_after_hashes(grader):
    assert grader.grade("#### 12 dollars.", "12").correct
    assert not grader.grade("#### 13 dollars.", "12").correct
