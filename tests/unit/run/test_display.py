"""Text of others shows what it is and does nothing."""

import pytest

from verl_relift.run.display import markdown, markdown_code, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),  # the same as ESC [, in one character
        ("over\rwritten", r"over\x0dwritten"),
        ("back\x08space\x00", r"back\x08space\x00"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u2066b\u2069", r"a\u2066b\u2069"),
        ("line\u2028line", r"line\u2028line"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_acts_on_a_display_is_written_out(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["two\nlines\tand a tab", "x² ≤ ½, 東京, שלום, é", "👩\u200d🚀", r"\frac{1}{2}", ""])
def test_what_is_displayed_stays(text):
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gsm8k", "gsm8k"),
        ("a|b", r"a\|b"),
        ("![x](http://host/pixel.png)", r"\!\[x\](http://host/pixel.png)"),
        ("<img src=x>", r"\<img src=x\>"),
        ("two\n# lines", r"two \# lines"),
        ("`code` &amp; \\", "\\`code\\` \\&amp; \\\\"),
        ("\x1b[0m", r"\\x1b\[0m"),
    ],
)
def test_markdown_shows_it(text, shown):
    assert markdown(text) == shown


def test_a_code_span_ends_where_its_text_does():
    assert markdown_code("a`b` |\n![x](y)") == "`a'b' | ![x](y)`"
