"""Compiling, measured: section [compile] of the figures, one part after the other, each a process of its own.

usage: python benchmarks/compile.py [--only tools fit gates …]

tools: what builds cost beside the plain tools (compile_tools.py); fit: predicted memory against real engines
(compile_fit.py); gates: faults that are found and honest builds that pass (compile_gates.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import sections

if __name__ == "__main__":
    sys.exit(sections.run("compile", "Measures compiling; prints one JSON line for each figure."))
