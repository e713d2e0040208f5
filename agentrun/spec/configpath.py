"""Where config.yaml is looked for. Alone, because most have none: to see that must cost no more than a look.

    $XDG_CONFIG_HOME/agentrun/config.yaml, else ~/.config/agentrun/config.yaml; of root, /etc/agentrun/config.yaml
    where that is not there
"""

from __future__ import annotations

import os


def candidates() -> list[str]:
    """The places; the first where something is counts."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    found = [os.path.join(os.path.abspath(base), "agentrun", "config.yaml")]
    return [*found, "/etc/agentrun/config.yaml"] if os.geteuid() == 0 else found


def config_path() -> str | None:
    """The file that counts; None where there is none."""
    return next((name for name in candidates() if os.path.lexists(name)), None)
