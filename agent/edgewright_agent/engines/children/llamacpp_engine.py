"""GGUF by llama-cpp-python: gives logits, and generates where no xllamacpp wheel fits (a Jetson's CUDA build)."""

import codecs

import engine_http
import gguf_files
import llama_log
import llama_options
import templates
from openai_chat import BadRequest


class LlamaCpp:
    """See engine_http for what each part promises."""

    name = "llama-cpp-python"
    capabilities = ("logits",)
    openai_port = 0

    def __init__(self, spec, _secret):
        self._spec = spec

    def version(self):
        from importlib.metadata import version

        return version("llama-cpp-python")

    def load(self):
        options = llama_options.LlamaOptions(self._spec["options"], self._spec["accelerator"])
        path = gguf_files.model_file(self._spec["artifact"])
        with llama_log.LlamaLog() as self._log:
            import llama_cpp

            self._llama_cpp = llama_cpp
            templates.bound_operators()
            if self._spec["accelerator"] == "cpu":
                _keep_to_plain_kernels(llama_cpp.llama_cpp)
            self._llm = llama_cpp.Llama(
                path,
                n_ctx=options.context,
                n_batch=options.batch_size,
                n_ubatch=options.ubatch_size,
                n_gpu_layers=options.gpu_layers,
                main_gpu=options.main_gpu,
                split_mode=options.split_mode,
                tensor_split=options.tensor_split or None,
                flash_attn=options.flash_attention == 1,  # this library has no "as llama.cpp likes"
                type_k=options.cache_type_k,
                type_v=options.cache_type_v,
                use_mmap=options.mmap,
                use_mlock=options.mlock,
                n_threads=options.threads,
                n_threads_batch=options.threads,
                logits_all=False,
                verbose=True,
            )
        self._llm.verbose = False
        self._formatter = self._template()

    def _template(self):
        source = self._llm.metadata.get("tokenizer.chat_template")
        templates.check(self._spec, source)
        if source is None:
            return None
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        def piece(token):
            return self._llm.detokenize([token], special=True).decode("utf-8", "replace") if token >= 0 else ""

        return Jinja2ChatFormatter(
            template=source,
            eos_token=piece(self._llm.token_eos()),
            bos_token=piece(self._llm.token_bos()),
        )

    def info(self):
        accelerator, device = self._log.accelerator()
        facts = self._log.facts
        return {
            "accelerator": accelerator,
            "device": device,
            "layers": facts["layers"],
            "layers_offloaded": facts["layers_offloaded"],
            "context": self._llm.n_ctx(),
        }

    def vram_bytes(self):
        return self._log.vram_bytes()

    def one_token(self):
        self._llm.reset()
        self._llm.eval(self.encode_text("Hello"))
        self._llm.sample(temp=0.0)

    def at_work(self):
        return False  # the worker knows: each token passes through it

    def render_chat(self, messages):
        if self._formatter is None:
            raise BadRequest("the artifact has no chat template")
        try:
            return templates.render(lambda: self._formatter(messages=messages).prompt)
        except Exception as fault:  # a template may raise anything
            raise BadRequest(f"the chat template refuses these messages: {fault!r}", "messages") from fault

    def encode_chat(self, messages):
        return self.encode_text(self.render_chat(messages))

    def encode_text(self, text):
        return self._llm.tokenize(text.encode(), add_bos=False, special=True)

    def generate(self, tokens, limit, chat, _progress):
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        if chat.seed is not None:
            self._llm.set_seed(chat.seed & 0xFFFFFFFF)
        vocabulary = self._llm._model.vocab
        stream = self._llm.generate(tokens, temp=chat.temperature, top_p=chat.top_p)
        for _ in range(limit):
            token = next(stream)
            if self._llama_cpp.llama_vocab_is_eog(vocabulary, token):
                return
            yield decoder.decode(self._llm.detokenize([token]))

    def logits(self, tokens):
        columns = self._llm.n_vocab()
        return columns, self._rows(tokens, columns)

    def _rows(self, tokens, columns):
        """In batches, straight from llama.cpp's buffer: all rows at once would be gigabytes."""
        import ctypes

        cpp, llm = self._llama_cpp, self._llm
        llm.reset()
        context = llm._ctx.ctx
        cpp.llama_memory_clear(cpp.llama_get_memory(context), True)
        size = min(llm.n_batch, 64)
        batch = cpp.llama_batch_init(size, 0, 1)
        try:
            for start in range(0, len(tokens), size):
                part = tokens[start : start + size]
                batch.n_tokens = len(part)
                for place, token in enumerate(part):
                    batch.token[place] = token
                    batch.pos[place] = start + place
                    batch.n_seq_id[place] = 1
                    batch.seq_id[place][0] = 0
                    batch.logits[place] = 1
                fault = cpp.llama_decode(context, batch)
                if fault:
                    raise RuntimeError(f"llama_decode gave {fault} at token {start}")
                for place in range(len(part)):
                    yield ctypes.string_at(cpp.llama_get_logits_ith(context, place), columns * 4)
        finally:
            cpp.llama_batch_free(batch)
            llm.reset()


def _keep_to_plain_kernels(bindings):
    """No weights repacked for special instructions, which `Llama` cannot be told by an argument.

    A build for this very processor uses AMX where the processor announces it, and dies of SIGSEGV under hypervisors
    that do not let its tiles be used. Logits are the same everywhere without it.
    """
    defaults = bindings.llama_model_default_params

    def without_repacking():
        params = defaults()
        params.use_extra_bufts = False
        return params

    bindings.llama_model_default_params = without_repacking


if __name__ == "__main__":
    engine_http.main(LlamaCpp)
