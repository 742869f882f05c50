"""What llama.cpp says of itself while it loads: which devices hold the weights, how many layers went there.

It says so on standard error only. A small process of its own passes that on, line by line, and keeps the facts:
a thread would lose the last lines when GGML_ASSERT aborts, and those are the ones that somebody will need.

    with LlamaLog() as log: …load…
    log.facts → {"layers": 31, "layers_offloaded": 0, "buffers": {"CPU_Mapped": 98.9}}

Run as a program, this file is that process.
"""

import json
import os
import re
import subprocess
import sys

_OFFLOADED = re.compile(rb"offloaded (\d+)/(\d+) layers")
_LAYERS = re.compile(rb"print_info: n_layer\s+= (\d+)")
_BUFFER = re.compile(rb"load_tensors:\s+(\S+) model buffer size =\s+([0-9.]+) MiB")
_WORTH_TELLING_MIB = 0.5
_MOST_TOLD = 4
# Names of ggml's back ends as they begin a buffer's name → the accelerator's name in a manifest.
_ACCELERATORS = (
    ("CUDA", "cuda"),
    ("ROCm", "rocm"),
    ("MTL", "metal"),
    ("Metal", "metal"),
    ("Vulkan", "vulkan"),
    ("OpenCL", "opencl"),
)


class LlamaLog:
    """Standard error goes through the watching process while this is entered."""

    def __init__(self):
        self.facts = {"layers": 0, "layers_offloaded": 0, "buffers": {}}

    def __enter__(self):
        self._stderr = os.dup(2)
        self._process = None
        given = os.environ.pop("EDGEWRIGHT_ENGINE_WATCHER", None)  # a confined child cannot start it itself
        if given:
            entrance, self._told, self._pid = map(int, given.split(","))
            os.set_inheritable(self._told, False)
        else:
            self._process = subprocess.Popen(
                [sys.executable, "-E", "-S", os.path.abspath(__file__)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
            )
            entrance, self._told = os.dup(self._process.stdin.fileno()), os.dup(self._process.stdout.fileno())
            self._process.stdin.close()
            self._process.stdout.close()
        os.dup2(entrance, 2)
        os.dup2(entrance, 1)
        os.close(entrance)
        return self

    def __exit__(self, *_):
        os.dup2(self._stderr, 2)
        os.dup2(self._stderr, 1)
        os.close(self._stderr)
        with os.fdopen(self._told, "rb") as told:  # the parent's patience with loading is the deadline
            self.facts = json.loads(told.read())
        if self._process is not None:
            self._process.wait(10)
        else:
            os.waitpid(self._pid, 0)

    def accelerator(self):
        """(accelerator, device): what holds most of the weights of the layers that were offloaded, else the CPU."""
        sizes = {}
        for name, size in self.facts["buffers"].items():
            sizes[_accelerator(name)] = sizes.get(_accelerator(name), 0) + size
        others = {kind: size for kind, size in sizes.items() if kind != "cpu"}
        # With some of the layers offloaded on purpose most bytes may stay with the CPU; how many were is told apart.
        kind = max(others, key=others.get, default="cpu") if self.facts["layers_offloaded"] else "cpu"
        largest = sorted(self.facts["buffers"].items(), key=lambda buffer: -buffer[1])
        told = [f"{name} {size:.0f} MiB" for name, size in largest if size >= _WORTH_TELLING_MIB]
        return kind, "llama.cpp: " + (", ".join(told[:_MOST_TOLD]) or "names no buffer")

    def vram_bytes(self):
        """Bytes of weights that are not in the host's memory."""
        sizes = (size for name, size in self.facts["buffers"].items() if _accelerator(name) != "cpu")
        return int(sum(sizes) * (1 << 20))


def _accelerator(buffer):
    for beginning, kind in _ACCELERATORS:
        if buffer.startswith(beginning) and "Host" not in buffer:
            return kind
    return "cpu"


def _pass_on():
    facts = {"layers": 0, "layers_offloaded": 0, "buffers": {}}
    for line in sys.stdin.buffer:
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
        if found := _LAYERS.search(line):
            facts["layers"] = int(found[1]) + 1  # llama.cpp counts the output layer too
        if found := _OFFLOADED.search(line):
            facts["layers_offloaded"], facts["layers"] = int(found[1]), int(found[2])
        if found := _BUFFER.search(line):
            facts["buffers"][found[1].decode()] = float(found[2])
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    _pass_on()
