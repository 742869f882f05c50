"""ONNX by onnxruntime-genai, one sequence at a time, as its continuous batching is for CUDA only."""

import json
import os

import engine_http
from openai_chat import BadRequest

# The manifest's accelerator → the provider's name in onnxruntime-genai.
_PROVIDERS = {"cuda": "cuda", "dml": "dml", "webgpu": "WebGPU", "qnn": "QNN", "openvino": "OpenVINO"}
# What the runtime calls where it computes → the accelerator, where that is not the same in small letters.
_KINDS = {"directml": "dml", "qnnwithsharedmemory": "qnn"}


class Onnx:
    """See engine_http for what each part promises."""

    name = "onnxruntime-genai"
    capabilities = ("logits",)
    openai_port = 0

    def __init__(self, spec, _secret):
        self._spec = spec

    def version(self):
        from importlib.metadata import PackageNotFoundError, version

        for package in ("onnxruntime-genai", "onnxruntime-genai-cuda", "onnxruntime-genai-directml"):
            try:
                return f"{version(package)}"
            except PackageNotFoundError:
                continue
        return "unknown"

    def load(self):
        folder, options = self._spec["artifact"], self._spec["options"]
        with open(os.path.join(folder, "genai_config.json"), encoding="utf-8") as file:
            self._config = json.load(file)
        import numpy
        import onnxruntime_genai

        self._numpy, self._genai = numpy, onnxruntime_genai
        config = onnxruntime_genai.Config(folder)
        threads = {"session_options": {"intra_op_num_threads": int(options.get("threads", 1))}}
        config.overlay(json.dumps({"model": {"decoder": threads}}))
        provider = _PROVIDERS.get(self._spec["accelerator"])
        config.clear_providers()
        if provider is not None:
            config.append_provider(provider)
        self._model = onnxruntime_genai.Model(config)
        self._tokenizer = onnxruntime_genai.Tokenizer(self._model)
        eos = self._config["model"]["eos_token_id"]
        self._eos = set(eos if isinstance(eos, list) else [eos])
        trained = int(self._config["model"].get("context_length", 0))
        wanted = int(options.get("context", 2048))
        self._context = min(wanted, trained) if trained else wanted

    def info(self):
        layers = int(self._config["model"]["decoder"].get("num_hidden_layers", 0))
        kind = self._model.device_type.lower()
        kind = _KINDS.get(kind, kind)
        return {
            "accelerator": kind,
            "device": f"onnxruntime: {self._model.device_type} execution provider",
            "layers": layers,
            "layers_offloaded": 0 if kind == "cpu" else layers,
            "context": self._context,
        }

    def vram_bytes(self):
        return 0  # onnxruntime-genai does not say

    def one_token(self):
        for _ in self._tokens(self.encode_text("Hello"), 1, None):
            pass

    def at_work(self):
        return False  # the worker knows: each token passes through it

    def render_chat(self, messages):
        try:
            return self._tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True)
        except Exception as fault:  # a template may raise anything
            raise BadRequest(f"the chat template refuses these messages: {fault}", "messages") from fault

    def encode_chat(self, messages):
        return self.encode_text(self.render_chat(messages))

    def encode_text(self, text):
        return [int(token) for token in self._tokenizer.encode(text)]

    def generate(self, tokens, limit, chat, _progress):
        stream = self._tokenizer.create_stream()
        for token in self._tokens(tokens, limit, chat):
            if token in self._eos:
                return
            yield stream.decode(token)

    def _tokens(self, tokens, limit, chat):
        search = {"max_length": len(tokens) + limit, "do_sample": False}
        if chat is not None and chat.temperature > 0:
            search.update(do_sample=True, temperature=chat.temperature, top_p=chat.top_p, top_k=0)
            if chat.seed is not None:
                search["random_seed"] = chat.seed & 0x7FFFFFFF
        generator = self._generator(search)
        generator.append_tokens(self._numpy.array(tokens, dtype=self._numpy.int32))
        while not generator.is_done():
            generator.generate_next_token()
            yield int(generator.get_next_tokens()[0])

    def _generator(self, search):
        params = self._genai.GeneratorParams(self._model)
        params.set_search_options(**search)
        return self._genai.Generator(self._model, params)

    def logits(self, tokens):
        return int(self._config["model"]["vocab_size"]), self._rows(tokens)

    def _rows(self, tokens):
        """One step for each token: the runtime keeps the logits of the last position only."""
        generator = self._generator({"max_length": len(tokens) + 1, "do_sample": False})
        for token in tokens:
            generator.append_tokens(self._numpy.array([token], dtype=self._numpy.int32))
            row = generator.get_logits().reshape(-1)
            yield row.astype("<f4").tobytes()


if __name__ == "__main__":
    engine_http.main(Onnx)
