"""SHA-256 without OpenSSL: `hashlib` loads it, for 4 ms of every command, where Python's own C module does."""

from __future__ import annotations

try:
    from _sha2 import sha256  # type: ignore[import-not-found]  # Python 3.12 and newer
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found]  # Python 3.11
    except ImportError:  # another Python: slower, the same
        from hashlib import sha256


def sha256_hex(data: bytes) -> str:
    """The digest in 64 hexadecimal digits."""
    return str(sha256(data).hexdigest())
