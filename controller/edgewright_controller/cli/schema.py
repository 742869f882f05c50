"""`edgewright schema`: the manifest's JSON Schema, so that editors complete it."""

from __future__ import annotations

import json
import sys


def schema() -> int:
    """Print the JSON Schema of the manifest."""
    from edgewright_controller.manifest import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
    return 0
