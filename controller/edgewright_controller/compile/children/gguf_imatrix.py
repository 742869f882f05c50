"""Unquantised GGUF and a calibration text → importance matrix: for each weight that the layers multiply with, the mean
square of what each of its columns is multiplied by. What llama.cpp's own tool `llama-imatrix` collects, in its form.

llama.cpp shows each step of its graph to a callback. What it shows is a structure of C, so its layout is checked
against llama.cpp's own answers about the same tensor before anything in it is believed.

Request: {"source": file, "text": file, "out": file, "least": tokens, below which the text is refused, "most": tokens,
beyond which it is not read, "threads": 1}
Result: {"tokens": read, "tensors": measured}
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
from stage import Say, StageError, run

CHUNK = 512  # tokens that are read together, as llama-imatrix has it
_DIMENSIONS, _SOURCES, _NAME, _PARAMETERS = 4, 10, 64, 16
_F32 = 0
# Of these ggml's description says the function.
_NAMED_OTHERWISE = (b"UNARY", b"GLU")


class Tensor(ctypes.Structure):
    """struct ggml_tensor of ggml.h, up to its name."""


Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * _DIMENSIONS),
    ("nb", ctypes.c_size_t * _DIMENSIONS),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * _PARAMETERS),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(Tensor) * _SOURCES),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * _NAME),
]


class Ggml:
    """The few functions of ggml that answer for a tensor."""

    def __init__(self) -> None:
        from llama_cpp._ctypes_extensions import load_shared_library
        from llama_cpp._ggml import libggml_base_path

        library = load_shared_library("ggml-base", libggml_base_path)
        pointer = ctypes.c_void_p
        for name, result, arguments in (
            ("ggml_get_name", ctypes.c_char_p, [pointer]),
            ("ggml_nelements", ctypes.c_int64, [pointer]),
            ("ggml_nbytes", ctypes.c_size_t, [pointer]),
            ("ggml_get_data", pointer, [pointer]),
            ("ggml_op_name", ctypes.c_char_p, [ctypes.c_int]),
            ("ggml_op_desc", ctypes.c_char_p, [pointer]),
            ("ggml_backend_tensor_get", None, [pointer, pointer, ctypes.c_size_t, ctypes.c_size_t]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def check(self, address: int) -> None:
        """Raise StageError unless the structure says of the tensor what ggml says of it."""
        tensor = Tensor.from_address(address)
        same = (
            tensor.name == self.ggml_get_name(address)  # type: ignore[attr-defined]
            and int(np.prod(tensor.ne)) == self.ggml_nelements(address)  # type: ignore[attr-defined]
            and tensor.data == self.ggml_get_data(address)  # type: ignore[attr-defined]
            and 0 <= tensor.op < 256
            and self.op(tensor) in (self.ggml_op_desc(address), *_NAMED_OTHERWISE)  # type: ignore[attr-defined]
        )
        if not same:
            raise StageError(
                "llama.cpp's tensors are laid out otherwise than this version of Edgewright knows, so no importance"
                " matrix can be computed; install the llama-cpp-python of constraints.txt, or take a recipe without one"
            )

    def op(self, tensor: Any) -> bytes:
        """What is computed, such as MUL_MAT."""
        return self.ggml_op_name(tensor.op)  # type: ignore[attr-defined,no-any-return]

    def rows(self, tensor: Any, kind: Any = np.float32) -> Any:
        """The tensor's numbers, fetched from wherever they are, as an array of [ne3, ne2, ne1, ne0]."""
        data = np.empty(self.ggml_nbytes(ctypes.addressof(tensor)), np.uint8)  # type: ignore[attr-defined]
        self.ggml_backend_tensor_get(ctypes.addressof(tensor), data.ctypes.data, 0, data.nbytes)  # type: ignore[attr-defined]
        return np.lib.stride_tricks.as_strided(
            data.view(kind), tuple(reversed(tensor.ne)), tuple(reversed(tensor.nb)), writeable=False
        )


class Collector:
    """Adds up the squares, by the weight's name and, where several matrices share a tensor, by the matrix."""

    def __init__(self, ggml: Ggml, shapes: dict[str, list[int]]) -> None:
        """`shapes`: each tensor of the file, with its dimensions as ggml has them, the row's length first."""
        self.sums: dict[str, Any] = {}
        self.counts: dict[str, Any] = {}
        self.fault: StageError | None = None
        self._ggml, self._shapes, self._known = ggml, shapes, False

    def see(self, address: int, ask: bool, _user: Any) -> bool:
        """The callback: asked whether this step is wanted, then shown it done. No exception may leave it."""
        try:
            if not self._known:
                self._ggml.check(address)
                self._known = True
            tensor = Tensor.from_address(address)
            op = self._ggml.op(tensor)
            if op not in (b"MUL_MAT", b"MUL_MAT_ID"):
                return not ask  # what is not wanted is shown all the same, and must go on
            if ask:
                return self._wanted(tensor)
            self._add(tensor, op == b"MUL_MAT_ID")
        except StageError as fault:
            self.fault = fault
            return False
        except Exception as fault:
            self.fault = StageError(f"an importance matrix cannot be computed here: {type(fault).__name__}: {fault}")
            return False
        return True

    def _wanted(self, tensor: Any) -> bool:
        return _name(tensor.src[0].contents).startswith("blk.") and tensor.src[1].contents.type == _F32

    def _add(self, tensor: Any, by_expert: bool) -> None:
        weight, given = tensor.src[0].contents, tensor.src[1].contents
        name = _name(weight)
        shape = self._shapes.get(name)
        if shape is None or list(weight.ne)[: len(shape)] != shape or given.ne[0] != weight.ne[0]:
            raise StageError(
                f"llama.cpp multiplies with {name!r} of {list(weight.ne)}, where the file has {shape}; is this"
                " llama-cpp-python the one of constraints.txt?"
            )
        matrices, columns = int(weight.ne[2] * weight.ne[3]), int(weight.ne[0])
        sums = self.sums.setdefault(name, np.zeros((matrices, columns)))
        counts = self.counts.setdefault(name, np.zeros(matrices))
        squares = np.square(self._ggml.rows(given), dtype=np.float64)
        if by_expert:
            # Which expert of a token takes which row: [tokens, experts used].
            chosen = self._ggml.rows(tensor.src[2].contents, np.int32)[0, 0]
            for token, experts in enumerate(chosen):
                for place, expert in enumerate(experts):
                    sums[expert] += squares[0, token, place % squares.shape[2]]
                    counts[expert] += 1
            return
        # A matrix that several heads share is multiplied with each of their rows.
        for outer in range(squares.shape[0]):
            for inner in range(squares.shape[1]):
                matrix = (outer % int(weight.ne[3])) * int(weight.ne[2]) + inner % int(weight.ne[2])
                sums[matrix] += squares[outer, inner].sum(axis=0)
                counts[matrix] += squares.shape[2]


def _name(tensor: Any) -> str:
    # A weight that was copied to another device is called CUDA0#blk.0.attn_k.weight#0.
    name = tensor.name.decode("utf-8", "replace")
    return name.split("#")[1] if "#" in name else name


def imatrix(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading for the importance matrix")
    import llama_cpp
    from gguf import GGUFReader

    ggml = Ggml()
    header = GGUFReader(request["source"])
    shapes = {tensor.name: [int(size) for size in tensor.shape] for tensor in header.tensors}
    collector = Collector(ggml, shapes)
    context_params = llama_cpp.llama_context_default_params()
    callback = llama_cpp.llama_cpp.ggml_backend_sched_eval_callback(collector.see)
    model_params = llama_cpp.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model_params.use_extra_bufts = False  # weights as the file has them, and none for instructions of one processor
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(request["source"]).encode(), model_params)
    if not model:
        raise StageError("llama.cpp cannot load the unquantised GGUF")
    size = min(CHUNK, llama_cpp.llama_model_n_ctx_train(model))
    tokens = _tokens(llama_cpp, model, Path(request["text"]).read_text("utf-8"), size, request)
    context_params.n_ctx = context_params.n_batch = context_params.n_ubatch = size
    context_params.n_threads = context_params.n_threads_batch = request["threads"]
    context_params.cb_eval = callback
    context_params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context_params.op_offload = context_params.offload_kqv = False
    context = llama_cpp.llama_init_from_model(model, context_params)
    if not context:
        raise StageError("llama.cpp cannot make a context for the importance matrix; is there too little memory?")
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    chunks = len(tokens) // size
    batch = llama_cpp.llama_batch_init(size, 0, 1)
    for number in range(chunks):
        chunk = tokens[number * size : (number + 1) * size]
        if llama_cpp.llama_vocab_get_add_bos(vocabulary):
            chunk[0] = llama_cpp.llama_vocab_bos(vocabulary)
        _decode(llama_cpp, context, batch, chunk, collector)
        say((number + 1) / chunks, f"{(number + 1) * size:,} of {chunks * size:,} tokens")
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    if not collector.sums:
        raise StageError("llama.cpp multiplied with no weight of a layer: for this model no importance matrix is known")
    _write(Path(request["out"]), collector, chunks, size)
    return {"tokens": chunks * size, "tensors": len(collector.sums)}


def _tokens(llama_cpp: Any, model: Any, text: str, size: int, request: dict[str, Any]) -> list[int]:
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    data = text.encode()
    room = len(data) + 8
    found = (llama_cpp.llama_token * room)()
    count = llama_cpp.llama_tokenize(vocabulary, data, len(data), found, room, True, False)
    least = max(request["least"], size)
    if count < least:
        raise StageError(
            f"the calibration text gives {max(count, 0):,} tokens of this model; an importance matrix needs at least"
            f" {least:,}: name a longer text as `calibration` of the model, or leave it out for the one that is shipped"
        )
    return list(found[: min(count, request["most"])])


def _decode(llama_cpp: Any, context: Any, batch: Any, chunk: list[int], collector: Collector) -> None:
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    batch.n_tokens = len(chunk)
    for place, token in enumerate(chunk):
        batch.token[place] = token
        batch.pos[place] = place
        batch.n_seq_id[place] = 1
        batch.seq_id[place][0] = 0
        # Of what is not asked for, the last layer is not computed.
        batch.logits[place] = 1
    status = llama_cpp.llama_decode(context, batch)
    if collector.fault:
        raise collector.fault
    if status:
        raise StageError(f"llama.cpp could not read the calibration text (llama_decode gave {status})")


def _write(out: Path, collector: Collector, chunks: int, size: int) -> None:
    """In the form that llama.cpp's own tools read and write."""
    from gguf import GGUFWriter

    writer = GGUFWriter(out, "imatrix")
    writer.add_type("imatrix")
    writer.add_uint32("imatrix.chunk_count", chunks)
    writer.add_uint32("imatrix.chunk_size", size)
    writer.add_array("imatrix.datasets", ["calibration"])
    for name in sorted(collector.sums):
        sums, counts = collector.sums[name], collector.counts[name]
        if not np.isfinite(sums).all():
            raise StageError(f"{name}: what it is multiplied by overflows; the checkpoint is damaged")
        writer.add_tensor(f"{name}.in_sum2", sums.astype(np.float32))
        writer.add_tensor(f"{name}.counts", counts.astype(np.float32).reshape(-1, 1))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    sys.exit(run(imatrix))
