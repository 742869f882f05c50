"""GGUF by xllamacpp: llama.cpp's own server inside this process. /v1 is its, on a port of its own."""

import json
import socket
import urllib.error
import urllib.request

import engine_http
import gguf_files
import llama_log
import llama_options
import sockets
import templates

_TOKEN_S = 600
_CACHE_MIB = 64  # llama.cpp's own default of 8 GiB for remembered prompts is no size for a device


class Xllamacpp:
    """See engine_http for what each part promises."""

    name = "xllamacpp"
    capabilities = ("completions",)

    def __init__(self, spec, secret, held=None):
        self._spec = spec
        self._secret = secret
        self._held = held or sockets.Held(_hold_port(), apart=False)
        self.openai_port = self._held.port

    def version(self):
        from importlib.metadata import version

        return version("xllamacpp")

    def load(self):
        path = gguf_files.model_file(self._spec["artifact"])
        with llama_log.LlamaLog() as self._log:
            import xllamacpp

            params = _params(xllamacpp, self._spec, path)
            params.port = self.openai_port
            params.api_keys = [self._secret]
            if hasattr(socket, "SO_REUSEPORT"):
                params.reuse_port = True
            else:
                self._held.socket.close()
            self._server = xllamacpp.Server(params)
        if self._spec["options"].get("chat_template"):
            templates.check(self._spec, self._ask("/props").get("chat_template"))
        self._held.serve(self.openai_port)
        self._context = params.n_ctx // params.n_parallel

    def info(self):
        accelerator, device = self._log.accelerator()
        facts = self._log.facts
        return {
            "accelerator": accelerator,
            "device": device,
            "layers": facts["layers"],
            "layers_offloaded": facts["layers_offloaded"],
            "context": self._context,
        }

    def vram_bytes(self):
        return self._log.vram_bytes()

    def one_token(self):
        question = {"model": self._spec["model"], "prompt": "Hello", "max_tokens": 1, "temperature": 0}
        if self._ask("/v1/completions", question)["usage"]["completion_tokens"] < 1:
            raise RuntimeError("llama.cpp generated no token")

    def at_work(self):
        # Answered by the loop that decodes, between two steps: so the loop turns, and a slot is in it. A long
        # answer must not be taken for a hung engine because a further token has to queue behind it.
        return any(slot["is_processing"] for slot in self._ask("/slots"))

    def render_chat(self, messages):
        return self._ask("/apply-template", {"messages": messages})["prompt"]

    def encode_chat(self, messages):
        # llama.cpp's server adds the model's own special tokens to a chat, and takes them off a template's text first.
        return self._encode(self.render_chat(messages), add_special=True)

    def encode_text(self, text):
        return self._encode(text, add_special=False)

    def _encode(self, text, add_special):
        return self._ask("/tokenize", {"content": text, "add_special": add_special, "parse_special": True})["tokens"]

    def _ask(self, path, question=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.openai_port}{path}",
            data=None if question is None else json.dumps(question).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._secret}"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_TOKEN_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as fault:
            raise RuntimeError(f"llama.cpp answered {fault.code}: {fault.read(500)!r}") from fault


def _params(xllamacpp, spec, path):
    options = llama_options.LlamaOptions(spec["options"], spec["accelerator"])
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {spec["model"]}
    params.n_parallel = options.parallel
    params.n_ctx = options.context * options.parallel  # llama.cpp divides it among the slots
    params.n_batch, params.n_ubatch = options.batch_size, options.ubatch_size
    params.n_gpu_layers, params.main_gpu = options.gpu_layers, options.main_gpu
    params.split_mode = xllamacpp.llama_split_mode(options.split_mode)
    if options.tensor_split:
        params.tensor_split = options.tensor_split + [0.0] * (len(params.tensor_split) - len(options.tensor_split))
    params.flash_attn_type = xllamacpp.llama_flash_attn_type(options.flash_attention)
    params.cache_type_k = xllamacpp.ggml_type(options.cache_type_k)
    params.cache_type_v = xllamacpp.ggml_type(options.cache_type_v)
    params.load_mode = xllamacpp.llama_load_mode(int(options.mmap) + 2 * int(options.mlock))
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    params.fit_params = False  # what does not fit must fail, not shrink in silence
    params.warmup = False
    params.cache_ram_mib = _CACHE_MIB
    params.offline = True
    params.ui = False
    params.endpoint_slots = True
    params.cors_origins = ""
    params.sse_ping_interval = 0
    params.verbosity = 4  # below this llama.cpp does not say where it put the layers
    return params


def _hold_port():
    """A bound socket that does not listen: the port is ours, and announced, before the server is up."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if hasattr(socket, "SO_REUSEPORT"):
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return held


if __name__ == "__main__":
    engine_http.main(Xllamacpp)
