"""The controller's settings: what a file and flags say, and clear words when they are wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgewright_controller.compile.stages import BuildLimits
from edgewright_controller.config import Address, BrokerMode, SettingsError, load


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "controller.toml"
    file.write_text(text)
    return file


def test_defaults_listen_on_the_loopback_alone(tmp_path: Path) -> None:
    settings = load(None, {}, tmp_path / "state")
    assert {settings.grpc.host, settings.enrolment.host, settings.mqtt.host} == {"127.0.0.1"}
    assert settings.state == tmp_path / "state"
    assert settings.broker is BrokerMode.MANAGED
    assert set(settings.interpreters.values()) == {sys.executable}
    assert settings.reports_kept_s == 48 * 3600


def test_a_file_without_an_end_is_refused_and_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"/dev/zero: larger than .* that is no configuration"):
        load(Path("/dev/zero"), {}, tmp_path)


def test_how_long_reports_are_kept_is_a_setting(tmp_path: Path) -> None:
    assert load(written(tmp_path, '[retention]\nreports = "7d"\n'), {}, tmp_path).reports_kept_s == 7 * 86_400


def test_how_long_an_expired_device_may_come_back_is_a_setting(tmp_path: Path) -> None:
    assert load(None, {}, tmp_path).return_within_days == 90
    assert load(written(tmp_path, "[identity]\nreturn_within_days = 0\n"), {}, tmp_path).return_within_days == 0


def test_what_builds_may_take_is_a_setting(tmp_path: Path) -> None:
    assert load(None, {}, tmp_path).builds == BuildLimits()
    text = '[builds]\nmemory = "12GB"\nstage_memory = "800MiB"\nstage_deadline = "4h"\n'
    assert load(written(tmp_path, text), {}, tmp_path).builds == BuildLimits(12 * 10**9, 800 << 20, 4 * 3600.0)
    with pytest.raises(SettingsError, match=r"builds\.stage_memory: '8' is not a size with its unit"):
        load(written(tmp_path, '[builds]\nstage_memory = "8"\n'), {}, tmp_path)
    with pytest.raises(SettingsError, match=r"builds\.memroy: unknown key; did you mean 'memory'"):
        load(written(tmp_path, '[builds]\nmemroy = "8GB"\n'), {}, tmp_path)
    with pytest.raises(SettingsError, match=r"builds\.stage_deadline: 'long' is not a duration"):
        load(written(tmp_path, '[builds]\nstage_deadline = "long"\n'), {}, tmp_path)


def test_secrets_of_sources_are_named_in_the_settings_and_never_written_there(tmp_path: Path) -> None:
    assert load(None, {}, tmp_path).sources_kept_bytes == 200 * 10**9
    text = '[sources]\nkeep = "64GiB"\n[credentials.hub]\nfor = ["hf://acme/"]\ntoken = { env = "HF_TOKEN" }\n'
    settings = load(written(tmp_path, text), {}, tmp_path)
    assert settings.sources_kept_bytes == 64 << 30
    assert list(settings.credentials) == ["hub"]
    with pytest.raises(SettingsError, match=r"controller\.toml: sources\.keep: 'much' is not a size"):
        load(written(tmp_path, '[sources]\nkeep = "much"\n'), {}, tmp_path)
    with pytest.raises(SettingsError, match=r"credentials\.hub\.token: says where the secret lies") as refused:
        load(written(tmp_path, '[credentials.hub]\nfor = ["hf://"]\ntoken = "hf_abc"\n'), {}, tmp_path)
    assert "hf_abc" not in str(refused.value)


def test_the_store_has_a_quota_where_the_settings_give_it_one(tmp_path: Path) -> None:
    assert load(None, {}, tmp_path).store_quota_bytes == 0
    assert load(written(tmp_path, '[store]\nquota = "200GB"\n'), {}, tmp_path).store_quota_bytes == 200 * 10**9
    with pytest.raises(SettingsError, match=r"store\.quota: '200' is not a size"):
        load(written(tmp_path, '[store]\nquota = "200"\n'), {}, tmp_path)


def test_flags_override_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, 'fleet = "plant-7"\n[listen]\ngrpc = "127.0.0.1:1"\nmqtt = "[::1]:2"\n')
    settings = load(file, {"listen.grpc": "127.0.0.1:3", "fleet": None}, tmp_path)
    assert settings.fleet == "plant-7"
    assert settings.grpc == Address("127.0.0.1", 3)
    assert settings.mqtt == Address("::1", 2)
    assert str(settings.mqtt) == "[::1]:2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[listen]\ngrcp = "127.0.0.1:1"', r"controller\.toml: listen\.grcp: unknown key; did you mean 'grpc'\?"),
        ("flet = 1", r"flet: unknown key; did you mean 'fleet'\?"),
        ("fleet = 1", r"fleet: 1 must be text"),
        ('fleet = "Plant 7"', r"fleet: 'Plant 7'; a fleet's name"),
        ('[listen]\ngrpc = "7443"', r"listen\.grpc: '7443' is not host:port"),
        ('[listen]\ngrpc = "127.0.0.1:99999"', r"listen\.grpc: .* is not host:port"),
        ('[broker]\nmode = "amqtt"', r"broker\.mode: 'amqtt'; there are managed, external, off"),
        ('[broker]\nmode = "external"', r"broker\.address: goes with"),
        ('[toolchains]\nmlx = "/nonexistent/python"', r"toolchains\.mlx: /nonexistent/python cannot be executed"),
        ('[toolchains]\nopenvino = "/nonexistent/python"', r"toolchains\.openvino: /nonexistent/python cannot be exec"),
        ('[retention]\nreports = "2 days"', r"retention\.reports: '2 days' is not a duration .*48h"),
        ("[identity]\nreturn_within_days = -1", r"identity\.return_within_days: -1 is not a number of days from 0 "),
        ('[identity]\nreturn_within_days = "90d"', r"identity\.return_within_days: '90d' is not a number of days"),
        ("[identity]\nreturn_within_days = true", r"identity\.return_within_days: True is not a number of days"),
        ("[identity]\nreturn_within = 90", r"identity\.return_within: unknown key; did you mean 'return_within_days'"),
        ("listen = 3", r"listen: must be a table"),
        ("names = [1]", r"names: must be a list"),
        ("fleet = ", r"not TOML"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(written(tmp_path, text), {}, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: No such file"):
        load(tmp_path / "none.toml", {}, tmp_path)
