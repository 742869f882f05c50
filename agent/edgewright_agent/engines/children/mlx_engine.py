"""MLX by mlx-lm's functions. Its own server is not used: it looks unknown model names up on a hub."""

import os
import sys

import engine_http
import templates
from openai_chat import BadRequest

_PREFILL = 128  # tokens between two signs of life


class Mlx:
    """See engine_http for what each part promises."""

    name = "mlx-lm"
    capabilities = ("logits",)
    openai_port = 0

    def __init__(self, spec, _secret):
        self._spec = spec

    def version(self):
        from importlib.metadata import version

        return f"{version('mlx-lm')} (mlx {version('mlx')})"

    def load(self):
        if not os.path.isfile(os.path.join(self._spec["artifact"], "config.json")):
            raise FileNotFoundError(f"{self._spec['artifact']}: no config.json in the artifact")
        # transformers would load torch where it is installed: 260 MB that nothing here uses.
        sys.modules.setdefault("torch", None)
        import mlx.core as mx
        from mlx_lm.utils import load

        templates.bound_operators()
        self._mx = mx
        self._gpu = mx.default_device() == mx.Device(mx.gpu, 0)
        self._model, self._tokenizer, self._config = load(
            self._spec["artifact"], return_config=True, trust_remote_code=False
        )
        if not self._gpu:
            self._model.set_dtype(mx.float32)  # on a CPU bfloat16 costs six times as much
        mx.eval(self._model.parameters())
        templates.check(self._spec, self._template())

    def _template(self):
        """What the tokenizer renders by: a text, or the name of a module of mlx-lm's; None for nothing."""
        if self._tokenizer._chat_template is not None:
            return self._tokenizer._chat_template.__module__
        template = self._tokenizer.chat_template
        return template.get("default") if isinstance(template, dict) else template

    def info(self):
        layers = len(self._model.layers)
        kind = "cpu"
        if self._gpu:
            kind = "metal" if self._mx.metal.is_available() else "cuda"
        return {
            "accelerator": kind,
            "device": f"mlx: {self._mx.default_device()}",
            "layers": layers,
            "layers_offloaded": layers if self._gpu else 0,
            "context": self._context(),
        }

    def _context(self):
        trained = int(self._config.get("max_position_embeddings", 0))
        wanted = int(self._spec["options"].get("context", 2048))
        return min(wanted, trained) if trained else wanted

    def vram_bytes(self):
        return int(self._mx.get_active_memory()) if self._gpu else 0

    def one_token(self):
        for _ in self._tokens(self.encode_text("Hello"), 1, None, lambda: None):
            pass

    def at_work(self):
        return False  # the worker knows: each token passes through it

    def render_chat(self, messages):
        if not self._tokenizer.has_chat_template:
            raise BadRequest("the artifact has no chat template")
        try:
            return templates.render(
                lambda: self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            )
        except Exception as fault:  # a template may raise anything
            raise BadRequest(f"the chat template refuses these messages: {fault!r}", "messages") from fault

    def encode_chat(self, messages):
        return self.encode_text(self.render_chat(messages))

    def encode_text(self, text):
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def generate(self, tokens, limit, chat, progress):
        detokenizer = self._tokenizer.detokenizer
        detokenizer.reset()
        for token in self._tokens(tokens, limit, chat, progress):
            if token in self._tokenizer.eos_token_ids:
                return
            detokenizer.add_token(token)
            yield detokenizer.last_segment
        detokenizer.finalize()

    def _tokens(self, tokens, limit, chat, progress):
        from mlx_lm.generate import generate_step
        from mlx_lm.sample_utils import make_sampler

        mx = self._mx
        if chat is not None and chat.seed is not None:
            mx.random.seed(chat.seed & 0xFFFFFFFFFFFFFFFF)
        sampler = make_sampler(temp=chat.temperature, top_p=chat.top_p) if chat is not None else make_sampler(temp=0.0)
        steps = generate_step(
            mx.array(tokens),
            self._model,
            max_tokens=limit,
            sampler=sampler,
            prefill_step_size=_PREFILL,
            prompt_progress_callback=lambda *_: progress(),
        )
        for token, _ in steps:
            yield int(token)

    def logits(self, tokens):
        from mlx_lm.models.cache import make_prompt_cache

        columns = int(self._model(self._mx.array([tokens[:1]])).shape[-1])
        return columns, self._rows(tokens, make_prompt_cache(self._model))

    def _rows(self, tokens, cache):
        """In pieces over one cache: all rows at once would be gigabytes for a large vocabulary."""
        mx = self._mx
        for start in range(0, len(tokens), _PREFILL):
            rows = self._model(mx.array([tokens[start : start + _PREFILL]]), cache=cache)[0].astype(mx.float32)
            mx.eval(rows)
            yield bytes(memoryview(rows).cast("B"))


if __name__ == "__main__":
    engine_http.main(Mlx)
