"""Predicted memory of a device against the measured peak of real engines, on random models of real sizes.

usage: python benchmarks/compile_fit.py [--model FOLDER] [--only gguf mlx]

The engines are the device's own children, started as a device starts them. Counted is the most that was ever resident
in the process (VmHWM): mapped weights too, since each token reads them all, and whatever loading took. llama.cpp
clears its cache when it makes it, so all of it is resident from then on; a prompt longer than a step (512 tokens)
touches the buffers. mlx-lm's cache grows with the tokens, so there the prompt fills the context, which is short: the
CPU back end takes a second for a few tokens. fit_over_percent and fit_under_percent are the worst of all cases.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import edgewright_agent.engines
from edgewright_contract.engine import SECRET_VARIABLE, EngineSpec
from edgewright_controller import device_memory
from edgewright_controller.manifest import Profile, parse

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import random_models  # noqa: E402

CHILDREN: Final = Path(edgewright_agent.engines.__file__).parent / "children"
ENGINES: Final = {"gguf": "xllamacpp_engine.py", "mlx": "mlx_engine.py"}
HOST: Final = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
THREADS: Final = os.cpu_count() or 1
LOAD_S: Final = 300.0
WORK_S: Final = 600.0


@dataclass(frozen=True)
class Case:
    """A random model of this size, served with this context, asked once with a prompt of so many words."""

    size: str
    runtime: str
    quantization: str
    context: int
    words: int
    parallel: int = 1

    def __str__(self) -> str:
        return f"{self.size} {self.runtime} {self.quantization}, context {self.context} x {self.parallel}"


CASES: Final = (
    Case("0.5B", "gguf", "Q4_0", 2048, 540),
    Case("0.5B", "gguf", "Q4_0", 8192, 540, parallel=2),
    Case("0.5B", "gguf", "Q8_0", 8192, 540),
    Case("1.5B", "gguf", "Q4_0", 2048, 540),
    Case("1.5B", "gguf", "Q4_0", 8192, 540),
    Case("0.5B", "mlx", "4bit", 64, 60),
    Case("0.5B", "mlx", "4bit", 160, 156),
    Case("1.5B", "mlx", "4bit", 64, 30),
)

_MANIFEST: Final = """
[fleet]
name = "bench"
[models.random]
source = "random"
[profiles.bench]
runtime = "{runtime}"
quantization = "{quantization}"
accelerator = "cpu"
memory = "64GB"
options = {{ context = {context}, parallel = {parallel} }}
[devices.one]
profile = "bench"
[groups.all]
model = "random"
devices = ["one"]
"""


def profile_of(case: Case) -> Profile:
    """The manifest's profile that such a device would have."""
    return parse(_MANIFEST.format(**vars(case)), file="bench.toml").profiles["bench"]


def peak_bytes(case: Case, artifact: Path, log: Path) -> int:
    """The most that was resident in the engine's process, loading and answering."""
    options = {"context": case.context, "parallel": case.parallel, "threads": THREADS}
    spec = EngineSpec(case.runtime, str(artifact), "random", options=options)
    secret = secrets.token_hex(8)
    environment = {**os.environ, SECRET_VARIABLE: secret, "OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(CHILDREN / ENGINES[case.runtime]), "--spec", json.dumps(spec.to_json())]
    pipe = subprocess.PIPE
    with (
        log.open("wb") as words,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=words, env=environment) as engine,
    ):
        assert engine.stdin
        assert engine.stdout
        try:
            ports = json.loads(engine.stdout.readline())
            _wait(ports["port"], secret)
            question = {
                "model": "random",
                "messages": [{"role": "user", "content": " the" * case.words}],
                "max_tokens": 2,
                "temperature": 0,
            }
            _ask(ports["openai_port"], "/v1/chat/completions", secret, question)
            status = Path(f"/proc/{engine.pid}/status").read_text()
            found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
            assert found
            return int(found.group(1)) * 1024
        finally:
            engine.stdin.close()  # its lifeline


def _wait(port: int, secret: str) -> None:
    until = time.monotonic() + LOAD_S
    while time.monotonic() < until:
        try:
            _ask(port, "/engine/ready", secret)
            return
        except urllib.error.HTTPError as answer:
            said = json.load(answer)
            if said.get("state") == "failed":
                raise SystemExit(f"the engine did not load: {said}") from answer
        time.sleep(0.2)
    raise SystemExit(f"the engine was not ready within {LOAD_S:.0f} s")


def _ask(port: int, path: str, secret: str, question: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=None if question is None else json.dumps(question).encode(),
        headers={"Authorization": f"Bearer {secret}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=WORK_S) as answer:
        return json.load(answer)


def percent_off(case: Case, tokenizer: Path, scratch: Path, made: dict[str, int]) -> float:
    """How many percent of the measured peak the prediction is above it; told on standard error."""
    shape = random_models.SHAPES[case.size]
    folder = scratch / f"{case.size}-{case.quantization}"
    if folder.name not in made:
        if case.runtime == "gguf":
            made[folder.name] = random_models.write_gguf(folder, shape, case.quantization, tokenizer)
        else:
            made[folder.name] = random_models.write_mlx(folder, shape, tokenizer)
    predicted = device_memory.predict(profile_of(case), made[folder.name], shape.facts)
    measured = peak_bytes(case, folder, scratch / "engine.log")
    off = 100 * (predicted.total - measured) / measured
    print(f"{case}: {predicted.total:,} predicted, {measured:,} measured, {off:+.1f} %: {predicted}", file=sys.stderr)
    return off


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Measures how well a device's memory is predicted.")
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "demo" / "smollm2", help="for its tokenizer")
    parser.add_argument("--only", nargs="+", choices=sorted(ENGINES), default=sorted(ENGINES))
    given = parser.parse_args(arguments)
    made: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="edgewright-bench-") as scratch:
        cases = [case for case in CASES if case.runtime in given.only]
        found = {case: percent_off(case, given.model, Path(scratch), made) for case in cases}
    over, under = max(found, key=lambda case: found[case]), min(found, key=lambda case: found[case])
    for name, value, case in (("over", found[over], over), ("under", -found[under], under)):
        line = {"name": f"compile.fit_{name}_percent", "value": round(max(0.0, value), 2), "unit": "%"}
        print(json.dumps({**line, "of": f"the worst of {len(found)}: {case}", "host": HOST}), flush=True)


if __name__ == "__main__":
    main()
