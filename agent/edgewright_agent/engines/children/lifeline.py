"""How an engine's process is tied to its parent, and what its standard streams are for.

Standard output carries one line, the ports. Native libraries print there too, so it is put aside at once and
everything else goes to standard error. Standard input is the lifeline: it closes when the parent is gone.
"""

import json
import os
import signal
import sys
import threading


def take_streams():
    """The file for the one line. Afterwards file descriptor 1 is standard error."""
    line = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return line


def say(line, port, openai_port):
    """Tell the parent the ports, and close."""
    line.write(json.dumps({"port": port, "openai_port": openai_port}) + "\n")
    line.close()


def tie_to_parent():
    """End this process when standard input closes, also while native code holds the interpreter's lock."""
    threading.Thread(target=_wait_for_end, name="lifeline", daemon=True).start()
    try:
        import fcntl
    except ImportError:
        return  # Windows: the thread alone
    if hasattr(os, "O_ASYNC") and hasattr(signal, "SIGIO"):
        # The kernel then sends SIGIO, whose default ends the process, as soon as the other end closes.
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)


def _wait_for_end():
    while os.read(0, 4096):
        pass
    sys.stderr.write("the parent is gone\n")
    os._exit(0)
