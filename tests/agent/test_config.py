from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_agent import config
from edgewright_agent.engines.confinement import ConfinementSettings
from edgewright_agent.quantities import parse_duration, parse_size

FILE = Path("/etc/edgewright/agent.toml")

WHOLE = """
device = "jetson-01"
state = "state"
[controller]
address = "controller.example:7443"
[mqtt]
enabled = false
address = "controller.example:8883"
[gateway]
listen = "0.0.0.0:9000"
[engines]
confinement = "require"
user = "engines"
[engines.gguf]
python = "/opt/gguf/bin/python"
engine = "xllamacpp"
threads = 4
accelerators = ["cuda", "cpu"]
[engines.mlx]
enabled = false
[disk]
reserve = "2GiB"
quota = "20GB"
[verify]
every = "14d"
[intervals]
check_in = "15s"
telemetry = "1m"
"""


def test_a_whole_configuration_is_read() -> None:
    read = config.parse(WHOLE, FILE)
    assert read.device == "jetson-01"
    assert read.state == Path("/etc/edgewright/state")
    assert (read.controller_address, read.mqtt_address) == ("controller.example:7443", "controller.example:8883")
    assert not read.mqtt_enabled
    assert (read.gateway_host, read.gateway_port) == ("0.0.0.0", 9000)
    gguf = read.engines["gguf"]
    assert (gguf.python, gguf.engine, gguf.threads) == ("/opt/gguf/bin/python", "xllamacpp", 4)
    assert gguf.accelerators == ("cuda", "cpu")
    assert read.confinement == ConfinementSettings("require", "engines")
    assert not read.engines["mlx"].enabled
    assert read.engines["onnx"] == config.EngineConfig()
    assert (read.disk_reserve, read.check_in_s, read.telemetry_s) == (2 << 30, 15.0, 60.0)
    assert (read.disk_quota, read.verify_every_s) == (20 * 10**9, 14 * 86400.0)


def test_a_file_without_an_end_is_refused_and_named() -> None:
    with pytest.raises(config.ConfigError, match=r"/dev/zero: larger than .* that is no configuration"):
        config.load(Path("/dev/zero"))


def test_only_the_state_folder_must_be_named() -> None:
    read = config.parse('state = "/var/lib/edgewright"', FILE)
    assert read.state == Path("/var/lib/edgewright")
    assert (read.device, read.controller_address, read.mqtt_enabled) == (None, None, True)
    assert read.confinement == ConfinementSettings("best", "")
    assert (read.disk_quota, read.verify_every_s) == (0, 7 * 86400.0)


def test_looking_at_artifacts_can_be_left_off() -> None:
    assert config.parse('state = "x"\n[verify]\nevery = "never"', FILE).verify_every_s == float("inf")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("stat = 'x'", '/etc/edgewright/agent.toml: stat: unknown key; did you mean "state"?'),
        ("[engines.gguff]", '/etc/edgewright/agent.toml: engines.gguff: unknown key; did you mean "gguf"?'),
        (
            '[engines.gguf]\nengine = "xlamacpp"',
            "engines.gguf.engine: 'xlamacpp' is no engine for gguf; did you mean \"xllamacpp\"?",
        ),
        (
            "[engines]\nconfinement = 'requires'",
            "engines.confinement: 'requires' is no way to confine; did you mean \"require\"?",
        ),
        ("[engines.gguf]\nthread = 1", 'engines.gguf.thread: unknown key; did you mean "threads"?'),
        ("[engines.gguf]\nthreads = true", "engines.gguf.threads: True is not a whole number"),
        ("[engines.gguf]\nthreads = 0", "engines.gguf.threads: 0 is out of range"),
        (
            "[engines.gguf]\naccelerators = ['kuda']",
            "engines.gguf.accelerators: 'kuda' is not an accelerator; did you mean \"cuda\"?",
        ),
        ("[engines.gguf]\naccelerators = []", "engines.gguf.accelerators: empty"),
        ("device = 'Jetson 1'", "device: 'Jetson 1' is not an id"),
        ("[gateway]\nlisten = '8080'", "gateway.listen: '8080' is not an address"),
        ("[gateway]\nlisten = '127.0.0.1:70000'", "gateway.listen: '127.0.0.1:70000' is not an address"),
        ("controller = 'here'", "controller: 'here' is not a table"),
        ("[disk]\nreserve = '5 potatoes'", "disk.reserve: '5 potatoes' is not a size"),
        ("[disk]\nquota = 'much'", "disk.quota: 'much' is not a size"),
        ("[verify]\nevery = '5s'", "verify.every: '5s' is out of range; write 1m to 366d, or \"never\""),
        ("[verify]\noften = '1d'", "verify.often: unknown key"),
        ("[disk]\nreserve = 5", "disk.reserve: 5 is not text"),
        ("[intervals]\ncheck_in = '0s'", "intervals.check_in: '0s' is out of range"),
        ("[intervals]\ncheck_in = 'soon'", "intervals.check_in: 'soon' is not a duration"),
        ("state = 'again'", "agent.toml:"),
        ("state =", "agent.toml:"),
    ],
)
def test_a_wrong_line_is_named_with_file_and_key(wrong: str, message: str) -> None:
    assert config.parse('state = "s"', FILE).state  # the honest file is read
    text = f"{wrong}\n" if wrong.startswith("stat =") else f'state = "s"\n{wrong}\n'
    with pytest.raises(config.ConfigError) as refused:
        config.parse(text, FILE)
    assert message in str(refused.value)


def test_a_missing_state_folder_and_a_missing_file_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="state: missing; name the folder"):
        config.parse("", FILE)
    with pytest.raises(config.ConfigError, match=r"absent.toml: No such file.*--config"):
        config.load(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("text", "size"), [("12B", 12), ("1KB", 1000), ("8GB", 8 * 10**9), ("16GiB", 16 << 30), ("1.5MiB", 3 << 19)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("250ms", 0.25), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
