"""Any text as a YAML scalar that our own reader takes for the same text: plain, quoted, or a literal block.

What is easiest to read and to edit comes first. The reader (`document.py`) is the judge: a test writes every kind of
text and reads it back.
"""

from __future__ import annotations

import re

# what no indicator, comment or other type can be seen in
_WORD = r"[A-Za-z0-9_./=+@%,;|&()<>*?!$~'\"\\^-]"
_PLAIN = re.compile(rf"[A-Za-z0-9_./]{_WORD}*(?: {_WORD}+)*")
_OTHER_TYPES = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
# a line break to YAML but not to us, or nothing that a file of text should hold
_ODD = re.compile(
    "[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
    "|[\u2028\u2029\u200e\u200f\u202a-\u202e]"
)
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


def scalar(text: str, indent: int) -> str:
    """What stands behind `key: `, the key `indent` blanks from the margin. ValueError for what no text can hold."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("it is not UTF-8")
    if _PLAIN.fullmatch(text) and text.lower() not in _OTHER_TYPES:
        return text
    if "\n" in text and _fits_block(text):
        pad = " " * (indent + 2)
        lines = text.removesuffix("\n").split("\n")
        body = "\n".join(pad + line if line else "" for line in lines)
        return f"|{_indicator(text)}{'' if text.endswith(chr(10)) else '-'}\n{body}"
    if "\n" not in text and "\t" not in text and not _ODD.search(text):
        if "'" not in text:
            return f"'{text}'"
        if '"' not in text and "\\" not in text:
            return f'"{text}"'
        if _fits_block(text):
            return f"|{_indicator(text)}-\n{' ' * (indent + 2)}{text}"
    return quoted(text)


def quoted(text: str) -> str:
    """In double quotes, on one line, with an escape for all that is not plainly seen."""
    return '"' + "".join(_ESCAPES.get(char) or (_escape(char) if _ODD.match(char) else char) for char in text) + '"'


def _escape(char: str) -> str:
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _indicator(text: str) -> str:
    """A block finds its indentation by its first line that is not empty, unless it is told."""
    return "2" if text.lstrip("\n")[:1] in (" ", "\t") else ""


def _fits_block(text: str) -> bool:
    """Whether a literal block says it: nothing odd, and no empty lines around it, which would have to be counted."""
    lines = text.removesuffix("\n").split("\n")
    return not (_ODD.search(text) or not lines[0].strip() or not lines[-1].strip())
