"""The sockets that a confined child inherits, see the contract: one that listens, and perhaps one that holds a port."""

import os
import socket
import threading

_PIECE = 1 << 16
_STACK = 1 << 20


class Held:
    """A port for the runtime's own server. `apart`: who asks comes in by this socket, the server cannot be reached."""

    def __init__(self, holding, apart):
        self.socket = holding
        self.port = holding.getsockname()[1]
        self.apart = apart

    def serve(self, port):
        """The runtime's server listens on `port` of 127.0.0.1 as this process sees it: let it be reached."""
        if self.apart:
            self.socket.listen(128)
            threading.stack_size(_STACK)  # the usual eight MB of each count against a limit on memory
            threading.Thread(target=self._accept, args=(port,), name="relay", daemon=True).start()
        else:
            self.socket.close()  # the server took the port over

    def _accept(self, port):
        while True:
            outer, _ = self.socket.accept()
            threading.Thread(target=_connect, args=(outer, port), name="relay", daemon=True).start()


def add_arguments(parser):
    """What a parent that confines adds to the command line."""
    parser.add_argument("--sockets", default="")
    parser.add_argument("--apart", action="store_true")


def inherited(given):
    """(listening socket or None, Held or None)."""
    handles = [int(handle) for handle in given.sockets.split(",") if handle]
    found = [socket.socket(fileno=handle) for handle in handles]
    for handle in handles:
        os.set_inheritable(handle, False)
    return (found[0] if found else None), (Held(found[1], given.apart) if len(found) > 1 else None)


def _connect(outer, port):
    with outer:
        try:
            inner = socket.create_connection(("127.0.0.1", port))
        except OSError:
            return  # the client sees a closed connection, as from a server that is gone
        with inner:
            for one in (outer, inner):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_pass_on, args=(inner, outer), name="relay", daemon=True)
            back.start()
            _pass_on(outer, inner)
            back.join()


def _pass_on(source, sink):
    """Until either end closes. The other direction is then ended too: of HTTP nothing half-open is worth keeping."""
    try:
        while piece := source.recv(_PIECE):
            sink.sendall(piece)
    except OSError:
        pass  # one end is gone, which is what ends this
    for one in (source, sink):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # closed already
