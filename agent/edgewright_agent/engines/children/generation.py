"""One thread that owns the model, and the jobs that it does one after the other.

The runtimes bind arrays and streams to the thread that made them, and serve one sequence at a time. So loading,
generating and logits all happen here, first come, first served; HTTP threads wait on a job's queue.
"""

import queue
import threading
import time

MAX_WAITING = 64
_LOOK_S = 0.5
_DONE = object()
_NOTHING = object()


class Busy(Exception):
    """Too many jobs wait already."""


class Cancelled(Exception):
    """Nobody waits for the job any more."""


class Job:
    """Work for the model's thread. `work(job)` is run there; what it puts, `results` yields elsewhere."""

    def __init__(self, work):
        self.cancelled = threading.Event()
        self._work = work
        self._results = queue.Queue()

    def put(self, result):
        """Hand one result to whoever waits. Raises Cancelled when nobody does."""
        if self.cancelled.is_set():
            raise Cancelled
        self._results.put(result)

    def results(self, while_waiting=lambda: None):
        """The results as they come. Raises what the work raised. `while_waiting` is called twice a second."""
        looked = time.monotonic()
        while True:
            try:
                result = self._results.get(timeout=_LOOK_S)
            except queue.Empty:
                result = _NOTHING
            if time.monotonic() - looked >= _LOOK_S:
                while_waiting()
                looked = time.monotonic()
            if result is _NOTHING:
                continue
            if result is _DONE:
                return
            if isinstance(result, BaseException):
                raise result
            yield result

    def run(self):
        """Called by the model's thread only."""
        try:
            if not self.cancelled.is_set():
                self._work(self)
        except Cancelled:
            pass
        except BaseException as fault:  # the thread lives on; the waiting request gets the fault
            self._results.put(fault)
        finally:
            self._results.put(_DONE)


class Worker:
    """The model's thread."""

    def __init__(self):
        self.last_token = float("-inf")
        self._jobs = queue.Queue(MAX_WAITING)
        threading.Thread(target=self._run, name="model", daemon=True).start()

    def submit(self, work):
        """Queue `work`. Raises Busy."""
        job = Job(work)
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise Busy(f"{MAX_WAITING} requests wait already") from None
        return job

    def progress(self):
        """The model is at work: called for each token and each piece of a prompt."""
        self.last_token = time.monotonic()

    def _run(self):
        while True:
            self._jobs.get().run()


class StopText:
    """Passes text on until one of `stops` appears, and holds back what might be the beginning of one."""

    def __init__(self, stops):
        self._stops = stops
        self._held = ""
        self.stopped = False

    def feed(self, text):
        """The text that is safe to pass on now."""
        held = self._held + text
        places = [place for place in (held.find(stop) for stop in self._stops) if place >= 0]
        if places:
            self.stopped = True
            self._held = ""
            return held[: min(places)]
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def rest(self):
        """What was held back when the text ended without a stop."""
        held, self._held = self._held, ""
        return held


def _overlap(text, stop):
    """The length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
