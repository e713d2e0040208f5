"""Runs the code of one Python step: `python pystep.py CALL`, in whatever interpreter the step names.

Standard library only, Python 3.8 and newer, and no import of ours: the interpreter need not know agentrun.
The call file (JSON, written by `contract.write_call`) says what to call:

    module + function      `function(**args)` of that module; async functions too
    source                 inline code. If it defines `main` at its top level, it is executed as a module and
                           `main(**args)` is called; else it is a script of its own, run as `__main__`

The working folder comes first on sys.path, then the job file's folder; not the folder of this file.

What is returned goes to `<output>.ret`, as one JSON object: a dict as it is, anything else but None as
{"result": value}. The code may write $AGENTRUN_OUTPUT as well: what is returned is laid over it.
An exception goes to stderr without our frames, and to the exception file: type, message, traceback, and the
names of its classes. The exit status is then 1; `sys.exit(n)` keeps its own. Both files appear by rename.
"""

from __future__ import annotations

import sys

# Run by path, Python puts the folder of this file first: what lies there must shadow nobody's modules.
_OURS = __file__.rpartition("/")[0]
if __name__ == "__main__" and sys.path and sys.path[0] == _OURS:
    del sys.path[0]

import json  # noqa: E402
import os  # noqa: E402
from types import CoroutineType, ModuleType  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, TracebackType
    from typing import Any

_STANDARD_PATH = list(sys.path)
_inline: tuple[str, str] | None = None  # the file name and the text of inline code, for tracebacks

LIMIT = 1 << 20  # bytes of $AGENTRUN_OUTPUT and what is returned, as in outputs.py
_SHOWN = 64 << 10  # characters of a traceback that are recorded: the last ones
_ONLY_AST = 0x400  # ast.PyCF_ONLY_AST: the tree without the import of ast


class _Refused(Exception):
    """The step's code cannot be called, or what it returned cannot be kept: an error of type `kind`."""

    def __init__(self, kind: type, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def main(call_path: str) -> int:
    with open(call_path, encoding="utf-8") as file:
        call = json.load(file)
    for folder in (call["job_folder"], os.getcwd()):
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.insert(0, folder)
    # into a pipe, Python writes only full blocks: a killed step would lose what it said last
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        _keep(_run(call), call["output"] + ".ret")
    except _Refused as refused:
        return _failed(refused.kind, refused.kind(str(refused)), None, call["exception"])
    except KeyboardInterrupt as error:
        _failed(type(error), error, error.__traceback__, call["exception"])
        _die_of_sigint()
    except SystemExit:
        raise
    except BaseException as error:
        return _failed(type(error), error, error.__traceback__, call["exception"])
    return 0


def _standard(name: str) -> Any:
    """A module of the standard library that not every step needs, imported late: half of the time it takes
    to start is imports. The step's folders are out of the way: a `token.py` there would break `traceback`."""
    path, sys.path[:] = sys.path[:], _STANDARD_PATH
    try:
        return __import__(name)
    finally:
        sys.path[:] = path


# ---- calling


def _run(call: dict[str, Any]) -> object:
    args = call["args"]
    if call["source"] is None:
        sys.argv = [call["module"]]
        return _call(_function(call["module"], call["function"]), args, call["function"])
    sys.argv = [call["filename"]]
    tree, code = _compile(call["source"], call["filename"], call["line"])
    if _defines_main(tree):
        module = ModuleType("__step__")
        sys.modules["__step__"] = module
        exec(code, module.__dict__)
        return _call(module.__dict__["main"], args, "main")
    if args:
        raise _Refused(
            TypeError,
            "this step has `with`, and its code no main to give it to;"
            f" put the code into `def main({', '.join(args)}):`",
        )
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(code, module.__dict__)
    return None


def _function(module: str, function: str) -> Callable[..., object]:
    try:
        __import__(module)  # not importlib: this one keeps the import machinery out of tracebacks
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise  # it is there, and something that it imports is not
        raise _Refused(
            ModuleNotFoundError,
            f"there is no module {error.name!r} in {os.getcwd()} or in the packages of {sys.executable}",
        )
    found: Any = sys.modules[module]
    for name in function.split("."):
        found = getattr(found, name, None)
    if found is None:
        where = getattr(sys.modules[module], "__file__", None) or "built in"
        raise _Refused(AttributeError, f"module {module!r} ({where}) has no {function!r}")
    if not callable(found):
        raise _Refused(TypeError, f"{module}:{function} is no function but of type {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _call(function: Callable[..., object], args: dict[str, Any], name: str) -> object:
    try:
        result = function(**args)
    except TypeError as error:
        frames = error.__traceback__
        if frames is not None and frames.tb_next is None:  # it was not even entered: the arguments do not fit
            given = ", ".join(args) or "nothing"
            raise _Refused(TypeError, f"{error}; this step's `with` gives {name} {given}")
        raise
    if isinstance(result, CoroutineType):
        return _standard("asyncio").run(result)
    return result


def _compile(source: str, filename: str, line: int) -> tuple[Any, CodeType]:
    """The inline code with the line numbers of the job file."""
    global _inline
    padded = "\n" * max(line - 1, 0) + source
    _inline = filename, padded
    tree: Any = compile(padded, filename, "exec", _ONLY_AST, dont_inherit=True)
    return tree, compile(tree, filename, "exec", dont_inherit=True)


def _defines_main(tree: Any) -> bool:
    for node in tree.body:
        kind = type(node).__name__
        if kind in ("FunctionDef", "AsyncFunctionDef") and node.name == "main":
            return True
        if kind in ("Import", "ImportFrom") and any((n.asname or n.name) == "main" for n in node.names):
            return True
        if kind == "Assign" and any(getattr(target, "id", None) == "main" for target in node.targets):
            return True
    return False


# ---- what it gave back


def _keep(result: object, path: str) -> None:
    if result is None:
        return
    values = result if isinstance(result, dict) else {"result": result}
    for key in values:
        if not isinstance(key, str) or not key:
            raise _Refused(TypeError, f"the returned dict has the key {key!r}; the name of an output is text")
    try:
        text = json.dumps(values, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise _Refused(TypeError, f"what the step returned is not JSON: {_culprit(values, '') or error}")
    if len(text) > LIMIT:
        raise _Refused(
            ValueError,
            "what the step returned is larger than 1 MiB; write it to a file in $AGENTRUN_RUN_DIR"
            " and return its path",
        )
    _write(path, text)


def _culprit(value: object, path: str, depth: int = 0) -> str | None:
    """What in the value is not JSON, and where; None if that cannot be told."""
    if depth > 50:
        return "it is nested too deeply, or holds itself"
    where = f"`{path}`" if path else "it"
    if isinstance(value, dict):
        for key, inner in value.items():
            if key is not None and not isinstance(key, (str, int, float)):
                return f"{where} has a key of type {type(key).__name__}"
            found = _culprit(inner, f"{path}.{key}" if path else str(key), depth + 1)
            if found:
                return found
        return None
    if isinstance(value, (list, tuple)):
        inside = (_culprit(inner, f"{path}[{i}]", depth + 1) for i, inner in enumerate(value))
        return next(filter(None, inside), None)
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f"{where} is {value!r}, which is no JSON number"
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return f"{where} has bytes that are no text"
    if value is None or isinstance(value, (str, int, float)):
        return None
    return f"{where} is of type {type(value).__name__}; return text, numbers, None, lists and dicts of them"


# ---- how it failed


def _failed(kind: type, error: BaseException, frames: TracebackType | None, path: str) -> int:
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    if _inline is not None:
        filename, source = _inline
        lines = source.splitlines(True)
        _standard("linecache").cache[filename] = (len(source), None, lines, filename)
    text = "".join(_standard("traceback").TracebackException(kind, error, frames).format())
    try:
        message = str(error)
    except Exception:
        message = ""
    record = {"type": kind.__name__, "message": _clean(message[:_SHOWN]), "mro": _names(kind)}
    record["traceback"] = _clean(text[-_SHOWN:])
    _write(path, json.dumps(record).encode())
    sys.stdout.flush()
    sys.stderr.write(text)
    return 1


def _clean(text: str) -> str:
    """The text without halves of surrogate pairs: a file name that is not UTF-8 is text for Python alone."""
    return text.encode("utf-8", "backslashreplace").decode()


def _names(kind: type) -> list[str]:
    """The classes of an exception by their names, then with their modules where these are not built in."""
    classes = [c for c in kind.__mro__ if c is not object]
    full = [f"{c.__module__}.{c.__qualname__}" for c in classes if c.__module__ != "builtins"]
    return [c.__name__ for c in classes] + full


def _write(path: str, data: bytes) -> None:
    with open(path + ".new", "wb") as file:
        file.write(data)
    os.replace(path + ".new", path)


def _die_of_sigint() -> None:
    """End as an uncaught KeyboardInterrupt does: by the signal, so that everybody sees the cause."""
    signal = _standard("signal")
    sys.stdout.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
