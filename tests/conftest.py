"""For all tests: commands are started by the thousand, and each would compile what may not be kept compiled."""

from __future__ import annotations

import os

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
