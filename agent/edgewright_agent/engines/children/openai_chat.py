"""OpenAI's request and answer shapes, for engines that have no server of their own."""

import json
import time
import uuid

MAX_MESSAGES = 1000
_UNSUPPORTED = ("tools", "functions", "logprobs", "top_logprobs", "response_format", "audio", "modalities")


class BadRequest(ValueError):
    """The request cannot be answered as asked. `code` is OpenAI's, or None."""

    def __init__(self, message, param=None, code=None, status=400):
        self.param = param
        self.code = code
        self.status = status
        super().__init__(message)


class Chat:
    """A checked request."""

    def __init__(self, body, served_model):
        document = _object(body)
        model = document.get("model", served_model)
        if model != served_model:
            raise BadRequest(
                f"the model {model!r} does not exist here; there is {served_model}", "model", "model_not_found", 404
            )
        for name in _UNSUPPORTED:
            if document.get(name) not in (None, [], {}, False, {"type": "text"}):
                raise BadRequest(f"{name} is not supported by this engine", name)
        if document.get("n") not in (None, 1):
            raise BadRequest("n must be 1", "n")
        self.model = model
        self.messages = _messages(document.get("messages"))
        limit = document.get("max_completion_tokens")
        limit_name = "max_tokens" if limit is None else "max_completion_tokens"
        self.max_tokens = _number(document, limit_name, int, None, (1, 1 << 20))
        self.temperature = _number(document, "temperature", float, 0.8, (0, 2))
        self.top_p = _number(document, "top_p", float, 0.95, (0, 1))
        self.seed = _number(document, "seed", int, None, (-(1 << 63), 1 << 63))
        self.stop = _stop(document.get("stop"))
        self.stream = document.get("stream") is True
        options = document.get("stream_options")
        self.include_usage = isinstance(options, dict) and options.get("include_usage") is True


class Answer:
    """The documents of one answer."""

    def __init__(self, model):
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, text, finish_reason, usage, timings):
        """The plain answer."""
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
        kind = {"object": "chat.completion"}
        return {**self._head, **kind, "choices": [choice], "usage": usage, "timings": timings}

    def chunk(self, delta, finish_reason=None, **more):
        """One event of a stream."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **more}

    def usage(self, usage):
        """The extra event that `stream_options.include_usage` asks for."""
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage}


def error(message, kind="invalid_request_error", param=None, code=None):
    """OpenAI's error document."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def event(document):
    """A document as one server-sent event."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def _object(body):
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as fault:
        raise BadRequest(f"the body is not JSON: {fault}") from fault
    if not isinstance(document, dict):
        raise BadRequest("the body is not a JSON object")
    return document


def _messages(value):
    if not isinstance(value, list) or not 0 < len(value) <= MAX_MESSAGES:
        raise BadRequest(f"messages must be a list of 1 to {MAX_MESSAGES} messages", "messages")
    return [_message(message, f"messages[{place}]") for place, message in enumerate(value)]


def _message(message, where):
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise BadRequest(f"{where} must have a role", where)
    content = message.get("content")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        if not all(isinstance(part, str) for part in parts):
            raise BadRequest(f"{where}.content: only parts of type text are understood", where)
        content = "".join(parts)
    if not isinstance(content, str):
        raise BadRequest(f"{where}.content must be text", where)
    return {"role": message["role"], "content": content}


def _number(document, name, kind, default, bounds):
    value, (low, high) = document.get(name), bounds
    if value is None:
        return default
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or (kind is int and not isinstance(value, int)) or not low <= value <= high:
        raise BadRequest(f"{name}: {value!r} is not a number from {low} to {high}", name)
    return kind(value)


def _stop(value):
    stops = [value] if isinstance(value, str) else value if value is not None else []
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(one, str) and one for one in stops):
        raise BadRequest("stop must be a text, or a list of at most 4", "stop")
    return stops
