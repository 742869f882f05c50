"""Checkpoint folder and a calibration text → MLX folder, by a recipe of mlx-lm that learns: awq, dwq, gptq, dynamic.

mlx-lm's own commands are run. Those that fetch their text find ours where they would have kept theirs, in the home
folder, which is the build's; dwq is given it as a data set. Nothing is asked of a hub.

Request: {"source": folder, "out": folder that does not exist, "learned": "awq", "bits": 4, "group_size": 64, "text":
file, "least": tokens, below which the text is refused}
The source's config.json is already the cured one (see compile/mlx_config.py).
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from stage import Say, StageError, run

MODULES = {"awq": "awq", "dwq": "dwq", "gptq": "gptq", "dynamic": "dynamic_quant"}
# Where mlx_lm.quant.utils.load_data keeps its text.
KEPT = (".cache", "mlx-lm", "calibration_v5.txt")
SEQUENCE = 512
# Samples that awq looks at: its search costs by the sample.
SAMPLES = 32
_NEXT = {2: 3, 3: 4, 4: 5, 5: 6, 6: 8}
_PIECE = 1500  # characters of one sample of dwq


def learn(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading for MLX")
    text = Path(request["text"]).read_text("utf-8")
    _check_length(request, text)
    learned = request["learned"]
    module = _module(learned)
    if learned != "dwq":
        kept = Path.home().joinpath(*KEPT)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(text, "utf-8")
    sys.argv = [learned, *arguments(request, text, Path.home())]
    say(0.1, f"learning by {learned}")
    try:
        module.main()
    except NotImplementedError as error:
        raise StageError(f"recipe.learned: mlx-lm has no {learned} for this kind of model: {error}") from error
    except ModuleNotFoundError as error:
        raise _lacking(learned, error) from error
    Path(request["out"], "README.md").unlink(missing_ok=True)
    return {}


def _module(learned: str) -> Any:
    try:
        return importlib.import_module(f"mlx_lm.quant.{MODULES[learned]}")
    except ImportError as error:
        raise _lacking(learned, error) from error


def _lacking(learned: str, error: ImportError) -> StageError:
    return StageError(f"recipe.learned: {learned} needs more here: {error}; pip install 'mlx-lm[train]'")


def arguments(request: dict[str, Any], text: str, home: Path) -> list[str]:
    """The command's arguments; for dwq its data set is written below `home`."""
    given = ["--model", request["source"], "--mlx-path", request["out"]]
    bits, group = str(request["bits"]), str(request["group_size"])
    if request["learned"] == "dynamic":
        higher = _NEXT[request["bits"]]
        # Half of the layers, about, in the larger type; 32 bits of scale and bias for each group.
        target = (request["bits"] + higher) / 2 + 32 / request["group_size"]
        given += ["--low-bits", bits, "--low-group-size", group, "--high-bits", str(higher), "--high-group-size", group]
        return [*given, "--target-bpw", str(target)]
    given += ["--bits", bits, "--group-size", group]
    if request["learned"] == "awq":
        return [*given, "--embed-bits", bits, "--embed-group-size", group, "--num-samples", str(SAMPLES)]
    if request["learned"] == "gptq":
        return [*given, "--fallback-bits", bits, "--fallback-group-size", group]
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    data = home / "calibration"
    data.mkdir(exist_ok=True)
    (data / "train.jsonl").write_text("".join(json.dumps({"text": piece}) + "\n" for piece in pieces))
    # What is not trained on is measured with.
    trained = len(pieces) - max(1, len(pieces) // 8)
    given += ["--data-path", str(data), "--num-samples", str(trained), "--max-seq-length", str(SEQUENCE + 1)]
    return [*given, "--batch-size", "1"]


def _check_length(request: dict[str, Any], text: str) -> None:
    from transformers import AutoTokenizer

    count = len(AutoTokenizer.from_pretrained(request["source"])(text).input_ids)
    if count < request["least"]:
        raise StageError(
            f"the calibration text gives {count:,} tokens of this model; {request['learned']} needs at least"
            f" {request['least']:,}: name a longer text as `calibration` of the model, or leave it out for the one that"
            " is shipped"
        )


if __name__ == "__main__":
    sys.exit(run(learn))
