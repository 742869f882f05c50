"""Tiny models of several architectures, as checkpoints, made here once and kept under .cache/test-models.

    python -m tests.models        makes them, as `make test-models` does, and prints their folder

A folder is named by what shapes its bytes, so that a changed recipe for a model is another folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import pydoc_data.topics
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.models.making import CONFIGS

NAMES: Final = tuple(CONFIGS)
CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "test-models"
SECONDS: Final = 900.0  # on a machine that does much else

_MADE_BY: Final = ("torch", "transformers", "tokenizers", "sentencepiece", "safetensors")


def digest() -> str:
    """Of the recipe, of the pages that the tokenizer and one of the models learn from, and of the libraries."""
    shaped_by = {name: importlib.metadata.version(name) for name in _MADE_BY}
    files = {"recipe": Path(__file__).with_name("making.py"), "pages": Path(pydoc_data.topics.__file__)}
    shaped_by |= {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}
    shaped_by |= {"platform": f"{platform.system()}-{platform.machine()}"}
    return hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()[:16]


def folder() -> Path:
    """The folder with a checkpoint for each of NAMES, made if it is not there. Raises RuntimeError.

    It appears by a rename when it is complete; who wants it meanwhile waits.
    """
    out = CACHE / digest()
    if out.is_dir():
        return out
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.is_dir():
            half = CACHE / f".{out.name}"
            shutil.rmtree(half, ignore_errors=True)
            _make(half)
            os.rename(half, out)
    return out


def _make(out: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("making.py")), str(out)]
    log = out.with_name(f"{out.name}.log")
    with log.open("wb") as words:
        done = subprocess.run(command, check=False, stdout=words, stderr=words, timeout=SECONDS)
    if done.returncode:
        last = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the test models could not be made ({' '.join(command)}):\n{last}")
    log.unlink()
