"""How a release has llama.cpp run, for both engines of GGUF: an option is honoured, or refused by its name."""

# llama.cpp's numbers of the types that the cache of keys and values may have.
CACHE_TYPES = {"f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}
SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
FLASH_ATTENTION = {None: -1, False: 0, True: 1}  # without a word llama.cpp decides

KNOWN = (
    *("context", "parallel", "threads", "gpu_layers", "chat_template", "flash_attention", "cache_type_k"),
    *("cache_type_v", "batch_size", "ubatch_size", "mmap", "mlock", "main_gpu", "tensor_split", "split_mode"),
)


class LlamaOptions:
    """A release's options with llama.cpp's defaults. Raises ValueError that names the option which cannot be."""

    def __init__(self, options, accelerator):
        unknown = sorted(set(options) - set(KNOWN))
        if unknown:
            raise ValueError(f"options.{unknown[0]}: this engine does not know it; update Edgewright on the device")
        on_cpu = accelerator == "cpu"
        self.context = int(options.get("context", 2048))
        self.parallel = int(options.get("parallel", 1))
        self.threads = int(options.get("threads", 1))
        self.gpu_layers = int(options.get("gpu_layers", 0 if on_cpu else -1))
        self.flash_attention = _one_of("flash_attention", options.get("flash_attention"), FLASH_ATTENTION)
        self.cache_type_k = _one_of("cache_type_k", options.get("cache_type_k", "f16"), CACHE_TYPES)
        self.cache_type_v = _one_of("cache_type_v", options.get("cache_type_v", "f16"), CACHE_TYPES)
        # llama.cpp's defaults; a step may not be longer than a batch.
        self.batch_size = int(options.get("batch_size", 2048))
        self.ubatch_size = min(self.batch_size, int(options.get("ubatch_size", 512)))
        self.mmap, self.mlock = bool(options.get("mmap", True)), bool(options.get("mlock", False))
        self.main_gpu = int(options.get("main_gpu", 0))
        self.split_mode = _one_of("split_mode", options.get("split_mode", "layer"), SPLIT_MODES)
        self.tensor_split = _shares(options.get("tensor_split", ""))
        quantised = str(options.get("cache_type_v", "f16")) not in ("f16", "bf16")
        if quantised and options.get("flash_attention") is False:
            raise ValueError("options.cache_type_v: a quantised cache of values needs flash_attention = true")


def _one_of(name, value, known):
    if value not in known:
        raise ValueError(f"options.{name}: {value!r}; there are {', '.join(str(one) for one in known)}")
    return known[value]


def _shares(text):
    """The share of each GPU: "3,1" → [3.0, 1.0]; an empty list where llama.cpp decides."""
    try:
        return [float(share) for share in text.split(",")] if text else []
    except ValueError:
        raise ValueError(f'options.tensor_split: {text!r} is no list of shares, such as "3,1"') from None
