"""Text that others wrote, as it may be shown: in a terminal, on a page, in Markdown."""

import re

# Control characters move the cursor or recolor a terminal, except for the line break and the tab; the marks of writing
# direction rearrange what a reader sees; the separators break lines where a reader of lines does not.
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|!&~])")


def visible(text: str) -> str:
    """Return `text` with characters that act on the display in place of being displayed written as escapes."""
    return _HIDDEN.sub(lambda found: _escape(found.group()), text)


def markdown(text: str) -> str:
    """Return `text` as Markdown that shows it in one line, without links, images, HTML or further cells of a table."""
    return _MARKDOWN.sub(r"\\\1", visible(_one_line(text)))


def markdown_code(text: str) -> str:
    """Return `text` as a code span in one line."""
    return f"`{visible(_one_line(text)).replace('`', chr(39))}`"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
