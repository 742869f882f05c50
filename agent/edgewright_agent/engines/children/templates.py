"""Chat templates: whether it is the one that the release names, and bounds on rendering it in Python.

mlx-lm and llama-cpp-python both render with jinja2's ImmutableSandboxedEnvironment, so a template reaches nothing of
this process and changes nothing that it is given. What that sandbox lets a template take is time and memory: loops in
loops, and texts that double. The model's thread renders, so an endless template would be an engine that hangs. Here the
template's own lines are watched while they run, and what would be too much ends as a request that is refused.

A single step in C that asks for all memory at once cannot be watched. That is for the limit on the engine's memory.
llama.cpp's server and onnxruntime-genai render in C++ with interpreters of their own, which know no Python.
"""

import contextlib
import hashlib
import sys
import time

import process_memory

RENDER_S = 5.0
MAX_GROWTH_BYTES = 256 << 20
MAX_TEXT = 16 << 20  # characters; a request has at most half of it
MAX_REPEATED = 1 << 20
MAX_POWER_BITS = 1 << 12

# jinja2's name for the code that it makes of a template.
_TEMPLATE = "<template>"
_MEMORY_EVERY_S = 0.01


class Overrun(Exception):
    """The template takes more time or memory than any honest one."""


class OtherTemplate(Exception):
    """The engine took another chat template than the release names."""


def check(spec, template):
    """Raise OtherTemplate unless `template`, None for none, is the one that the release pins, if it pins one."""
    pinned = spec["options"].get("chat_template")
    if pinned and (template is None or hashlib.sha256(template.encode()).hexdigest() != pinned):
        raise OtherTemplate(f"the engine took a chat template that is not the one with sha256 {pinned}")


def bound_operators():
    """Have the sandbox refuse products and powers of absurd size. Once in a process, before a template is compiled."""
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def call_binop(environment, _context, operator, left, right):
        if operator == "*" and max(_repeated(left, right), _repeated(right, left)) > MAX_REPEATED:
            raise SecurityError(f"a text or list of more than {MAX_REPEATED} parts by multiplication")
        if operator == "**" and _power_bits(left, right) > MAX_POWER_BITS:
            raise SecurityError(f"a power of more than {MAX_POWER_BITS} bits")
        return environment.binop_table[operator](left, right)

    # The libraries make their environments themselves, so the class is what can be told.
    ImmutableSandboxedEnvironment.intercepted_binops = frozenset({"*", "**"})
    ImmutableSandboxedEnvironment.call_binop = call_binop


def render(make):
    """The text that `make()` renders in this thread. Raises Overrun, and whatever the template raises."""
    with _watched():
        text = make()
    if len(text) > MAX_TEXT:
        raise Overrun(f"it makes {len(text)} characters of them")
    return text


@contextlib.contextmanager
def _watched():
    end = time.monotonic() + RENDER_S
    most = process_memory.rss_bytes() + MAX_GROWTH_BYTES
    looked = time.monotonic()

    def look(*_):
        nonlocal looked
        now = time.monotonic()
        if now > end:
            raise Overrun(f"it takes longer than {RENDER_S:.0f} s")
        if now - looked > _MEMORY_EVERY_S:
            looked = now
            if process_memory.rss_bytes() > most:
                raise Overrun(f"it takes more than {MAX_GROWTH_BYTES >> 20} MiB of memory")
        return look

    def entered(frame, _event, _argument):
        # Only the template's own lines: whatever loops, loops there.
        return look() if frame.f_code.co_filename == _TEMPLATE else None

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        yield
    finally:
        sys.settrace(before)


def _repeated(thing, times):
    """How many parts `thing` times `times` has; 0 for numbers."""
    if isinstance(thing, (str, bytes, list, tuple)) and isinstance(times, int):
        return len(thing) * max(times, 0)
    return thing.bit_length() + times.bit_length() if isinstance(thing, int) and isinstance(times, int) else 0


def _power_bits(base, exponent):
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        return base.bit_length() * exponent
    return 0
