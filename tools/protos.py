"""Generate the wire's Python code from protos/ into contract/.

usage: python tools/protos.py [--check]

With --check nothing is written; the exit status is 1 when the committed code is not what would be generated.
"""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
CONTRACT = ROOT / "contract"


def generate(out: Path) -> None:
    """Write the code of every .proto below `out`, as the import path has it."""
    sources = sorted(str(path) for path in PROTOS.rglob("*.proto"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{PROTOS}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--pyi_out={out}",
            *sources,
        ],
        check=True,
    )


def differences() -> list[str]:
    """Names of generated files that differ from the committed ones, are missing, or are left over."""
    with tempfile.TemporaryDirectory() as room:
        generate(Path(room))
        made = {str(path.relative_to(room)) for path in Path(room).rglob("*_pb2*")}
        there = {str(path.relative_to(CONTRACT)) for path in (CONTRACT / "edgewright_contract" / "v1").glob("*_pb2*")}
        changed = {name for name in made & there if not filecmp.cmp(Path(room) / name, CONTRACT / name, shallow=False)}
        return sorted(made ^ there | changed)


def main() -> int:
    if "--check" not in sys.argv[1:]:
        generate(CONTRACT)
        return 0
    if wrong := differences():
        print(f"protos: not what protos/ gives: {', '.join(wrong)}; run `make protos` and commit")
        return 1
    print("protos: the committed code is what protos/ gives")
    return 0


if __name__ == "__main__":
    sys.exit(main())
