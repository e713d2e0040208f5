"""What a shell text calls and which variables it uses, as far as that can be seen without being a shell.

Words are read line by line. What stands in a variable, in `eval`, in a here-document or in a script that is called is
not seen; nor is a command that is made by another one. So what is found is so, but for a text that defines what it
calls in a way not known here; what is not found may be there all the same.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from ..step.contract import _SHELL_WORDS

_KEYWORDS = {"if", "then", "else", "elif", "do", "while", "until", "!", "{", "time", "exec", "command"}
_OTHERS = {"}", "fi", "done", "esac", "in", "(", ")", "[[", "]]"}
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)\+?=")
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
_PLAIN = re.compile(r"[A-Za-z0-9_.+-]+")
_USE = re.compile(r"\$(?:\{([A-Za-z_]\w*)([^}]?)|([A-Za-z_]\w*))")
_GIVEN = re.compile(r"\b(?:for|read(?:\s+-\w+)*|export|local|declare|readonly)\s+([A-Za-z_]\w*)")
# what brings functions along, asks for what may not be there, or has words where others have commands
_UNCERTAIN = re.compile(
    r"(?m)(?:^|[\s;&|({])(?:\.|source|eval|alias|case|command\s+-[vV]|type|which|hash)\s|=\(|\(\(|\[\["
)
_FUNCTION = re.compile(r"(?m)(?:^|[;&|{(]\s*)\s*(?:function\s+)?([A-Za-z_][\w-]*)\s*\(\s*\)")


def calls(text: str) -> list[str]:
    """The programs that it calls by a name alone, in order, each once: no builtins, no paths, no functions of its."""
    own = set(_FUNCTION.findall(text))
    found: dict[str, None] = {}
    for line in _lines(text):
        for word in _first_words(line):
            if _PLAIN.fullmatch(word) and word not in _SHELL_WORDS and word not in own and not word.isdigit():
                found[word] = None
    return list(found)


def is_certain(text: str) -> bool:
    """Whether every name in `calls` is that of a program: nothing else could define it, or be taken for a command."""
    if _UNCERTAIN.search(text):
        return False
    try:
        return all(shlex.split(line, comments=True) is not None for line in _lines(text))
    except ValueError:  # a quote over lines: what stands in it was read as commands
        return False


def variables(text: str) -> list[str]:
    """The variables that it uses and neither sets nor has a default for, in order, each once."""
    known = {match[1] for match in _ASSIGNMENT.finditer(text)} | set(_GIVEN.findall(text))
    found: dict[str, None] = {}
    for braced, after, plain in _USE.findall(_without_single_quotes(text)):
        name = braced or plain
        if name not in known and after not in (":", "-", "=", "+"):
            found[name] = None
    return list(found)


def _lines(text: str) -> Iterator[str]:
    """Its lines, with those that a backslash continues as one, and without here-documents and case patterns."""
    end = ""
    for line in text.replace("\\\n", " ").split("\n"):
        if end:
            end = "" if line.strip() == end else end
            continue
        if heredoc := _HEREDOC.search(line):
            end = heredoc[2]
        yield line


def _first_words(line: str) -> Iterator[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()<>")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a quote that goes on in the next line
        return
    first, skip = True, False
    for word in words:
        if skip:  # the file of a redirection
            skip = False
        elif set(word) <= set("<>&|;()") and word:
            skip = word[0] in "<>" or word.endswith((">", "<"))
            if not skip and ("<" not in word and ">" not in word):
                first = word != ")"
        elif first and word in ("for", "case", "select", "function"):
            return  # what follows is not a command, until a later line
        elif first and (word in _KEYWORDS or _ASSIGNMENT.match(word)):
            continue
        elif first and word not in _OTHERS:
            yield word
            first = False


def _without_single_quotes(text: str) -> str:
    """The text without what stands in single quotes, where $ means nothing."""
    kept, double, place = [], False, 0
    while place < len(text):
        char = text[place]
        if char == "\\":
            kept.append(" ")
            place += 2
            continue
        if char == '"':
            double = not double
        elif char == "'" and not double:
            end = text.find("'", place + 1)
            place = len(text) if end < 0 else end + 1
            continue
        kept.append(char)
        place += 1
    return "".join(kept)
