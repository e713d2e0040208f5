"""What supervisor and shim say to each other: frames of JSON over a stream socket that never blocks.

A frame is four bytes of length (big endian) and that much JSON, an object whose `is` names it.

    supervisor → shim   open, connect (the first frame), start, end, sweep, retire, goodbye
    shim → supervisor   hello (the answer to the first frame), bell (read the results file), swept,
                        refusing (the disk refuses results: why; or takes them again: null),
                        over (a limit of the run was crossed: what, and how much was used; once to each supervisor),
                        stuck (which attempts do nothing, and since when: all of them, at each change and to each new
                        supervisor),
                        refused, replaced (both: nothing more will come)

Both sides buffer what the kernel does not take, so neither can be held up by a peer that is stopped. A frame
is acted upon when it is whole: what a dead peer left half said was never said.

The shim lives as long as its run, once for each run, and a clean interpreter with `socket` and `json` is 1 MiB
larger (both load `enum`, the second `re`) than with the C modules below them. Hence `_socket`, and `_json` where
it is there and is what we know: anything else about it, and `json` does the same.
"""

from __future__ import annotations

import _socket

VERSION = 2
LIMIT = 256 << 20  # a longer frame is not ours
_BLOCK = 65_536

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Message = dict[str, Any]


class _Scan:
    """What the C scanner asks of a JSONDecoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _coders() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    """JSON to text and back: the C halves of the standard library's, without its Python ones."""
    sample = {"a": [1, None, True, "é\n\udcff"], "b": {}}
    try:
        import _json

        encoder = _json.make_encoder(None, str, _json.encode_basestring_ascii, None, ":", ",", False, False, True)
        scan = _json.make_scanner(_Scan())  # type: ignore[arg-type]  # it asks for the attributes only

        def encode(value: Any) -> str:
            return "".join(encoder(value, 0))

        def decode(text: str) -> Any:
            value, end = scan(text, 0)
            if end != len(text):
                raise ValueError("more than one value in a frame")
            return value

        if decode(encode(sample)) == sample:
            return encode, decode
    except (ImportError, AttributeError, TypeError, ValueError):
        pass
    import json

    return json.JSONEncoder(separators=(",", ":")).encode, json.loads


encode, decode = _coders()


def stream(fd: int | None = None) -> _socket.socket:
    """A Unix stream socket that does not block and that no child inherits; of an open descriptor if given."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
    sock.setblocking(False)
    return sock


class Wire:
    """One end of a connection: frames in, frames out, nothing blocks. `eof`: the peer will say no more."""

    __slots__ = ("_in", "_out", "_sock", "eof")

    def __init__(self, sock: _socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._in = bytearray()
        self._out = bytearray()
        self.eof = False

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def pending(self) -> int:
        """Bytes that the kernel has not taken yet: watch the descriptor for writing while it is not 0."""
        return len(self._out)

    def send(self, message: Message) -> None:
        """Say it, now or as soon as the peer reads. To a peer that is gone: said to nobody (see `eof`)."""
        body = encode(message).encode("ascii")
        self._out += len(body).to_bytes(4, "big")
        self._out += body
        self.flush()

    def flush(self) -> None:
        """Hand the kernel as much as it takes."""
        while self._out:
            try:
                # a bytearray with an exported view cannot shrink: the view ends before the cut
                with memoryview(self._out) as view:
                    sent = self._sock.send(view[: 4 * _BLOCK], _socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._out.clear()  # what the peer said before it went can still be read
                return
            del self._out[:sent]

    def receive(self) -> list[Message]:
        """The frames that are whole by now, in order. Sets `eof` when the peer has hung up."""
        while not self.eof:
            try:
                block = self._sock.recv(_BLOCK)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                block = b""
            if not block:
                self.eof = True
            self._in += block
        return self._whole()

    def _whole(self) -> list[Message]:
        messages: list[Message] = []
        at = 0
        while len(self._in) - at >= 4:
            length = int.from_bytes(self._in[at : at + 4], "big")
            if length > LIMIT:
                self.eof = True
                break
            if len(self._in) - at - 4 < length:
                break
            at += 4
            try:
                message = decode(self._in[at : at + length].decode("utf-8"))
            except (ValueError, StopIteration):
                message = None
            if not isinstance(message, dict):
                self.eof = True  # not one of ours: nothing after it can be understood either
                break
            messages.append(message)
            at += length
        del self._in[:at]
        return messages

    def close(self) -> None:
        self.eof = True
        self._out.clear()
        self._sock.close()
