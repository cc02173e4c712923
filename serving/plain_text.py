"""Text that came from outside, made safe for a terminal or a text log: it neither controls one nor forges a line."""

import re
from typing import Final

_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, marks that turn the direction of text, and what UTF-8 cannot encode."""
INDENT: Final = "    "


def one_line(text: str) -> str:
    """The text in one line, with each unsafe character as its escape sequence."""
    return _UNSAFE.sub(_escaped, text) if _UNSAFE.search(text) else text


def lines_of(text: str) -> str:
    """The text with its own line breaks, each line safe."""
    return "\n".join(one_line(line) for line in text.split("\n"))


def log_entry(text: str, message: str) -> str:
    """A formatted record whose `message` may have line breaks, and what follows it: a traceback, indented."""
    head, separator, rest = text.partition(message)
    if not separator:
        head, message, rest = "", text, ""
    entry = one_line(head) + one_line(message)
    following = [line for line in rest.split("\n") if line]
    return "\n".join([entry, *(INDENT + one_line(line) for line in following)])


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
