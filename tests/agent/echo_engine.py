"""An engine for tests: a real child process that speaks the contract and answers with the question's words.

`echo.json` in the artifact says how it misbehaves; without one it is a sound engine.

    {"load": "abort" | "exit" | "hang" | "seize" | "fail" | "slow", "first_line": "none" | "rubbish",
     "accelerator": "cuda", "layers": 10, "layers_offloaded": 3, "token_s": 0.01, "prefix": "v2 ",
     "generate": "abort" | "hang" | "fail", "after": 3, "once": "/path/of/a/marker", "deaf": true,
     "leaves": "/path"}

`generate` happens after so many tokens, when `once` is given only if that file is not there yet. `deaf`: SIGTERM and
the closing of standard input go unheard. `leaves`: a process of its own outlives it and holds its standard error
open; its id is written to that file.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "agent" / "edgewright_agent" / "engines" / "children"))

import engine_http
import lifeline


class Echo:
    name = "echo"
    capabilities = ("logits",)
    openai_port = 0

    def __init__(self, spec, _secret):
        self._done = False
        self._context = int(spec["options"].get("context", 2048))
        file = Path(spec["artifact"], "echo.json")
        self._how = json.loads(file.read_text()) if file.exists() else {}
        first_line = self._how.get("first_line")
        if first_line == "none":
            time.sleep(600)

    def version(self):
        return "1.0"

    def load(self):
        print("echo: loading", flush=True)
        if "leaves" in self._how:
            left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True)
            Path(self._how["leaves"]).write_text(str(left.pid))
        _misbehave(self._how.get("load"))

    def info(self):
        return {
            "accelerator": self._how.get("accelerator", "cpu"),
            "device": self._how.get("accelerator", "cpu") + ":0",
            "layers": self._how.get("layers", 0),
            "layers_offloaded": self._how.get("layers_offloaded", 0),
            "context": self._context,
        }

    def vram_bytes(self):
        return 0

    def one_token(self):
        pass

    def at_work(self):
        return False

    def encode_chat(self, messages):
        self._words = messages[-1]["content"].split()
        return list(range(len(self._words)))

    def encode_text(self, text):
        return list(text.encode())

    def generate(self, tokens, limit, chat, progress):
        yield self._how.get("prefix", "")
        for count, word in enumerate(self._words):
            if count >= self._how.get("after", 0) and self._due():
                _misbehave(self._how.get("generate"))
            time.sleep(self._how.get("token_s", 0))
            yield ("" if count == 0 else " ") + word

    def logits(self, tokens):
        import struct

        return 2, (struct.pack("<2f", token, -token) for token in tokens)

    def _due(self):
        once = self._how.get("once")
        if once is None:
            return True
        if self._done or Path(once).exists():
            return False
        try:
            Path(once).touch()
        except OSError:
            self._done = True  # a confined engine can look at the marker, but not make it
        return True


def _misbehave(how):
    if how == "abort":
        print("GGML_ASSERT(echo) failed", flush=True)
        os.abort()
    if how == "exit":
        os._exit(3)
    if how == "hang":
        time.sleep(600)
    if how == "slow":
        time.sleep(1)
    if how == "seize":
        import ctypes

        ctypes.PyDLL(None).sleep(600)  # as native code that keeps the interpreter's lock
    if how == "fail":
        raise RuntimeError("echo was told to fail")


if __name__ == "__main__":
    place = Path(json.loads(sys.argv[sys.argv.index("--spec") + 1])["artifact"], "echo.json")
    if place.exists() and json.loads(place.read_text()).get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        lifeline.tie_to_parent = lambda: None
    if place.exists() and json.loads(place.read_text()).get("first_line") == "rubbish":
        print("hello, this is no port", flush=True)
    engine_http.main(Echo)
