"""MLX folder → what the device's engine makes of texts and chats.

Request: {"artifact": folder, "texts": {name: text}, "chats": {name: [message, …]}}
Result: {"ids": {name: [id, …]}, "chats": {name: text}, "engine": name, "version": of the runtime}
"""

from __future__ import annotations

import sys
from typing import Any

from engine_parity import ask, engine
from stage import Say, run


def parity(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading for mlx-lm")
    # transformers would load torch where it is installed; mlx-lm has no use for it.
    sys.modules["torch"] = None  # type: ignore[assignment]
    return ask(engine("mlx_engine", "Mlx", request["artifact"]), request["texts"], request["chats"], say)


if __name__ == "__main__":
    sys.exit(run(parity))
