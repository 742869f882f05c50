"""Where the file is that says how to reach the controller, for the commands and for the Python client alike."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import platformdirs

CONFIG: Final = "EDGEWRIGHT_CONFIG"
CONTROLLER: Final = "EDGEWRIGHT_CONTROLLER"


def default_config() -> Path:
    """The file that is read when nobody and no environment variable names one."""
    return Path(platformdirs.user_config_dir("edgewright", appauthor=False)) / "client.toml"
