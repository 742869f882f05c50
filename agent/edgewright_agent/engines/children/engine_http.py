"""The engine contract over HTTP, for every runtime: what a child's main calls.

A runtime is an object with

    name, capabilities          the engine's name and list of what it can do
    openai_port                 0, or the port on which the runtime itself serves /v1
    version(), load()           `load` runs in the model's thread and may raise
    info()                      accelerator, device, layers, layers_offloaded, context
    vram_bytes()
    one_token()                 generate one token, anyhow
    at_work()                   whether it is seen to generate now, for somebody else
    render_chat(messages)       the text that it makes of a chat
    encode_chat(messages), encode_text(text)   token ids, as they reach the model
    generate(tokens, chat, progress)           yields the text of each token until the model ends
    logits(tokens)              (columns, iterator of bytes), with the capability "logits" only
"""

import argparse
import hmac
import json
import os
import select
import socket
import socketserver
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import lifeline
import process_memory
import sockets
from generation import Busy, StopText, Worker
from openai_chat import Answer, BadRequest, Chat, error, event

MAX_BODY = 8 << 20
_FRESH_S = 10.0
_LOOK_S = 0.5
_IO_S = 60.0


def main(make_runtime):
    """Run a child: `make_runtime(spec, secret)` must be quick; loading is the runtime's `load`.

    A runtime with a server of its own is given a third argument, the port held for it, when there is one."""
    line = lifeline.take_streams()
    lifeline.tie_to_parent()
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", required=True)
    sockets.add_arguments(parser)
    given = parser.parse_args()
    spec = json.loads(given.spec)
    secret = os.environ.pop("EDGEWRIGHT_ENGINE_SECRET")
    own, held = sockets.inherited(given)
    runtime = make_runtime(spec, secret) if held is None else make_runtime(spec, secret, held)
    state = State(spec, runtime, secret)
    server = Server(own, handler_of(state))
    port = server.server_address[1]
    lifeline.say(line, port, runtime.openai_port or port)
    threading.Thread(target=state.load, name="load", daemon=True).start()
    server.serve_forever(poll_interval=3600)  # nothing but the end of the process ends it


class State:
    """What the handlers share."""

    def __init__(self, spec, runtime, secret):
        self.model = spec["model"]
        self.runtime = runtime
        self.worker = Worker()
        self.failure = None
        self.ready = False
        self._expected = f"Bearer {secret}".encode()

    def authorised(self, header):
        """Whether the request bears the secret."""
        return hmac.compare_digest(header.encode(), self._expected)

    def load(self):
        """Load and generate a token; `ready` or `failure` afterwards."""
        try:
            list(self.worker.submit(lambda _: self.runtime.load()).results())
            self.first_token()
            self.ready = True
        except Exception as fault:  # whatever a runtime raises, the parent must learn of it
            traceback.print_exc()
            self.failure = f"{type(fault).__name__}: {fault}"

    def first_token(self):
        """Have one token generated, unless one was a moment ago or the runtime is seen at work.

        Requests may wait before it. A token for one of them is as good a sign of life, and comes sooner.
        """
        asked = time.monotonic()
        if asked - self.worker.last_token <= _FRESH_S or (self.ready and self.runtime.at_work()):
            return

        def look():
            if self.worker.last_token > asked:
                raise _Alive

        try:
            try:
                job = self.worker.submit(lambda _: self.runtime.one_token())
            except Busy:
                while True:  # until the parent's patience ends, and with it this process
                    look()
                    time.sleep(_LOOK_S)
            try:
                list(job.results(look))
                self.worker.progress()
            finally:
                job.cancelled.set()
        except _Alive:
            return


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, listening, handler):
        """On `listening`, an inherited socket; on any port of the loopback when it is None."""
        if listening is None:
            super().__init__(("127.0.0.1", 0), handler)
            return
        # No socket is made here, not even to be closed: a confined child may make none.
        socketserver.BaseServer.__init__(self, listening.getsockname(), handler)
        self.socket = listening


class _Alive(Exception):
    """Somebody got a token meanwhile."""


class _ClientLeft(Exception):
    """The other end closed the connection."""


def handler_of(state):
    """The request handler class for one state."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _IO_S
        wbufsize = -1  # an event leaves as one packet, by flush
        disable_nagle_algorithm = True

        def do_GET(self):
            self._answer(
                {
                    "/engine/ready": self._ready,
                    "/engine/ready?token=now": self._ready_now,
                    "/engine/info": self._info,
                    "/engine/memory": self._memory,
                    "/v1/models": self._models,
                }
            )

        def do_POST(self):
            self._answer({"/engine/logits": self._logits, "/v1/chat/completions": self._chat})

        def _answer(self, routes):
            self._begun = False
            try:
                if not state.authorised(self.headers.get("Authorization", "")):
                    self.close_connection = True
                    return self._json(401, error("this engine answers its parent only", "authentication_error"))
                handle = routes.get(self.path)
                if handle is None:
                    self.close_connection = True
                    return self._json(404, error(f"{self.command} {self.path}: there is nothing here"))
                handle()
            except BadRequest as fault:
                self._json(fault.status, error(str(fault), param=fault.param, code=fault.code))
            except Busy as fault:
                self._json(503, error(str(fault), "server_error", code="busy"))
            except (_ClientLeft, OSError):
                self.close_connection = True
            except Exception as fault:
                traceback.print_exc()
                self._fault(error(f"{type(fault).__name__}: {fault}", "server_error"))

        def _ready(self):
            if state.failure is not None:
                self._json(503, {"state": "failed", "error": state.failure})
            elif not state.ready:
                self._json(503, {"state": "loading"})
            else:
                self._json(200, {"state": "ready"})

        def _ready_now(self):
            if state.ready:
                state.first_token()
            self._ready()

        def _info(self):
            self._needs_ready()
            runtime = state.runtime
            head = {"engine": runtime.name, "version": runtime.version(), "capabilities": list(runtime.capabilities)}
            self._json(200, {**head, **runtime.info()})

        def _memory(self):
            vram = state.runtime.vram_bytes() if state.ready else 0
            self._json(200, {"rss_bytes": process_memory.rss_bytes(), "vram_bytes": vram})

        def _models(self):
            card = {"id": state.model, "object": "model", "created": 0, "owned_by": "edgewright"}
            self._json(200, {"object": "list", "data": [card]})

        def _needs_ready(self):
            if not state.ready:
                raise BadRequest(state.failure or "the model is loading", status=503)

        def _logits(self):
            body = self._body()
            self._needs_ready()
            if "logits" not in state.runtime.capabilities:
                raise BadRequest(f"{state.runtime.name} gives no logits", status=404)
            job = state.worker.submit(lambda job: _logits_work(job, body))
            results = job.results(lambda: self._still_there(job))
            tokens, columns = next(results)
            self._begun = True
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(tokens) * columns * 4))
            self.send_header("Edgewright-Rows", str(len(tokens)))
            self.send_header("Edgewright-Columns", str(columns))
            self.send_header("Edgewright-Tokens", ",".join(map(str, tokens)))
            self.end_headers()
            try:
                for rows in results:
                    self.wfile.write(rows)
            finally:
                job.cancelled.set()

        def _chat(self):
            body = self._body()
            self._needs_ready()
            if state.runtime.openai_port:
                raise BadRequest("ask the port of the runtime's own server", status=404)
            chat = Chat(body, state.model)
            job = state.worker.submit(lambda job: _chat_work(job, chat))
            try:
                (self._stream if chat.stream else self._whole)(chat, job)
            finally:
                job.cancelled.set()

        def _whole(self, chat, job):
            text, last = [], None
            for piece, end in job.results(lambda: self._still_there(job)):
                text.append(piece)
                last = end or last
            self._json(200, Answer(chat.model).whole("".join(text), *last))

        def _stream(self, chat, job):
            answer = Answer(chat.model)
            for piece, end in job.results(lambda: self._still_there(job)):
                if not self._begun:
                    self._begun = True
                    self.send_response(200)
                    self.send_header("Content-Type", "text/event-stream")
                    self.send_header("Cache-Control", "no-cache")
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self._chunk(event(answer.chunk({"role": "assistant", "content": ""})))
                if piece:
                    self._chunk(event(answer.chunk({"content": piece})))
                if end:
                    finish_reason, usage, timings = end
                    self._chunk(event(answer.chunk({}, finish_reason, timings=timings)))
                    if chat.include_usage:
                        self._chunk(event(answer.usage(usage)))
            self._chunk(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()

        def _chunk(self, data):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

        def _still_there(self, job):
            """Ends the job when the client closed its end while it waits."""
            readable, _, _ = select.select([self.connection], [], [], 0)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                job.cancelled.set()
                raise _ClientLeft

        def _body(self):
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > MAX_BODY:
                self.close_connection = True
                raise BadRequest(f"a Content-Length of at most {MAX_BODY} is needed", status=413)
            return self.rfile.read(int(length))

        def _json(self, status, document):
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

        def _fault(self, document):
            """A fault of the engine: as an answer, or, in the middle of a stream, as its last event."""
            if not self._begun:
                return self._json(500, document)
            self.close_connection = True
            try:
                self._chunk(event(document))
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                return None

        def log_message(self, *_):
            """No line for a request: who asked what is nobody's business."""

    def _chat_work(job, chat):
        """In the model's thread: puts (text, None) for each piece, then ("rest", (finish, usage, timings))."""
        runtime, worker = state.runtime, state.worker
        began = time.monotonic()
        tokens = runtime.encode_chat(chat.messages)
        room = runtime.info()["context"] - len(tokens)
        if room <= 0:
            raise BadRequest(
                f"the prompt has {len(tokens)} tokens, the context {runtime.info()['context']}",
                "messages",
                "context_length_exceeded",
            )
        limit = min(chat.max_tokens or room, room)
        stops, count, first = StopText(chat.stop), 0, None
        for text in runtime.generate(tokens, limit, chat, worker.progress):
            worker.progress()
            first = first or time.monotonic()
            count += 1
            job.put((stops.feed(text), None))
            if stops.stopped or count >= limit:
                break
        ended = time.monotonic()
        finish_reason = "stop" if stops.stopped or count < limit else "length"
        usage = {"prompt_tokens": len(tokens), "completion_tokens": count, "total_tokens": len(tokens) + count}
        job.put((stops.rest(), (finish_reason, usage, _timings(len(tokens), count, began, first or ended, ended))))

    def _logits_work(job, body):
        """In the model's thread: puts (tokens, columns), then bytes."""
        runtime = state.runtime
        tokens = _tokens(body, runtime)
        if len(tokens) > runtime.info()["context"]:
            raise BadRequest(f"{len(tokens)} tokens; the context has {runtime.info()['context']}", "tokens")
        columns, rows = runtime.logits(tokens)
        job.put((tokens, columns))
        for piece in rows:
            state.worker.progress()
            job.put(piece)

    return Handler


def _tokens(body, runtime):
    try:
        document = json.loads(body)
    except ValueError as fault:
        raise BadRequest(f"the body is not JSON: {fault}") from fault
    if isinstance(document, dict) and isinstance(document.get("text"), str):
        tokens = runtime.encode_text(document["text"])
    else:
        tokens = document.get("tokens") if isinstance(document, dict) else None
    if not isinstance(tokens, list) or not tokens or not all(type(token) is int and token >= 0 for token in tokens):
        raise BadRequest("tokens must be a list of token ids, or text a text that gives some", "tokens")
    return tokens


def _timings(prompt_n, predicted_n, began, first, ended):
    """As llama.cpp reports them, measured here."""
    decode_s = ended - first
    speed = (predicted_n - 1) / decode_s if predicted_n > 1 and decode_s > 0 else 0.0
    return {
        "prompt_n": prompt_n,
        "prompt_ms": round((first - began) * 1000, 3),
        "predicted_n": predicted_n,
        "predicted_ms": round(decode_s * 1000, 3),
        "predicted_per_second": round(speed, 3),
    }
