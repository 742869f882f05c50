"""How fast and when a device may download: the manifest's words, the buckets, and the time that windows take."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from edgewright_controller.delivery.terms import Terms
from edgewright_controller.manifest import ManifestError, parse
from edgewright_controller.rollout.window import Window, lasts
from edgewright_controller.service.pacing import BURST_S, Bucket, Pacing

DAILY = frozenset(range(7))
NIGHT = (Window(DAILY, 22 * 60, 6 * 60),)

MANIFEST = """
[fleet]
name = "plant-7"
timezone = "Europe/Berlin"
[models.tiny]
source = "unused"
[profiles.jetson]
runtime = "gguf"
quantization = "Q4_0"
accelerator = "cpu"
memory = "8GB"
[groups.hall]
model = "tiny"
profile = "jetson"
devices = ["one", "two"]
site = "hall"
[groups.rest]
model = "tiny"
profile = "jetson"
devices = ["three", "four"]
[devices.one]
[devices.two]
delivery = { max_rate = "1MB/s", window = "01:00-02:30" }
[devices.three]
[devices.four]
site = "yard"
timezone = "Asia/Tokyo"
[delivery]
max_rate = "20MB/s"
window = "22:00-06:00"
[sites.hall]
max_rate = "50MB/s"
timezone = "America/New_York"
[sites.yard]
window = [{ days = ["sat"], start = "00:00", end = "24:00" }, "03:00 - 04:00"]
"""


def at(hour: int, minute: int = 0, day: int = 3) -> float:
    return datetime(2026, 3, day, hour, minute, tzinfo=timezone.utc).timestamp()


def test_a_devices_own_word_counts_before_its_sites_and_that_before_the_fleets() -> None:
    terms = parse(MANIFEST, file="fleet.toml").terms()
    assert terms["one"] == Terms(20_000_000, "hall", 50_000_000, NIGHT, "America/New_York")
    assert terms["two"] == Terms(1_000_000, "hall", 50_000_000, (Window(DAILY, 60, 150),), "America/New_York")
    assert terms["three"] == Terms(20_000_000, "", None, NIGHT, "Europe/Berlin")
    saturday, three = Window(frozenset({5}), 0, 1440), Window(DAILY, 180, 240)
    assert terms["four"] == Terms(20_000_000, "yard", None, (saturday, three), "Asia/Tokyo")


def test_a_manifest_that_says_nothing_limits_nothing() -> None:
    text = MANIFEST.replace('site = "hall"', "").replace('site = "yard"', "").replace("delivery = {", "labels = {")
    text = text[: text.index("[delivery]")].replace("max_rate", "a").replace("window", "b")
    terms = parse(text, file="fleet.toml").terms()
    assert {(one.rate, one.site, one.site_rate, one.windows) for one in terms.values()} == {(None, "", None, ())}


@pytest.mark.parametrize(
    ("written", "instead", "expected"),
    [
        ('"20MB/s"', '"20MB"', 'delivery.max_rate: must be bytes a second, at least "64KB/s", like "20MB/s"'),
        ('"50MB/s"', '"5KB/s"', "sites.hall.max_rate: must be bytes a second"),
        ('"1MB/s"', "1000000", "devices.two.delivery.max_rate: must be bytes a second"),
        ('"22:00-06:00"', '"22-6"', 'delivery.window: must be hours like "22:00-06:00", or a table with start and end'),
        ('"22:00-06:00"', '"06:00-06:00"', "delivery.window: never opens"),
        ('"01:00-02:30"', '"01:00-24:30"', "devices.two.delivery.window: must be hours"),
        ('site = "hall"', 'site = "hal"', 'groups.hall.site: there is no site "hal"; did you mean "hall"?'),
        ('site = "yard"', 'site = "yrd"', 'devices.four.site: there is no site "yrd"; did you mean "yard"?'),
        ("America/New_York", "America/New_Yrk", "sites.hall.timezone: there is no time zone"),
        (
            'devices = ["three", "four"]',
            'devices = ["one", "three", "four"]\nsite = "yard"',
            "devices.one: is in groups with different sites: groups.hall says hall and groups.rest says yard",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(written: str, instead: str, expected: str) -> None:
    assert written in MANIFEST
    with pytest.raises(ManifestError) as told:
        parse(MANIFEST.replace(written, instead), file="fleet.toml")
    assert expected in str(told.value)


def test_a_site_without_a_device_is_warned_of() -> None:
    found = parse(MANIFEST.replace('site = "yard"', ""), file="fleet.toml").warnings()
    assert "sites.yard has no device" in found


def test_when_downloads_may_begin_is_said_in_the_devices_own_time() -> None:
    terms = Terms(windows=NIGHT, zone="Europe/Berlin")
    assert not terms.is_open(at(12))
    assert terms.opens_in(at(12)) == 9 * 3600.0
    assert terms.words(at(12)) == "not before 22:00 (Europe/Berlin)"
    assert terms.is_open(at(21))
    assert terms.opens_in(at(21)) == 0.0
    weekly = Terms(windows=(Window(frozenset({5}), 0, 1440),))
    assert weekly.words(at(12)) == "not before 00:00 on Sat 07 Mar (UTC)"


@pytest.mark.parametrize(
    ("now", "open_s", "expected"),
    [
        (at(23), 3600.0, 3600.0),  # inside
        (at(12), 3600.0, 11 * 3600.0),  # ten hours until it opens
        (at(5), 2 * 3600.0, 18 * 3600.0),  # an hour now, another from 22:00 on
        (at(12), 16 * 3600.0, 42 * 3600.0),  # two whole nights
    ],
)
def test_how_long_it_takes_until_windows_were_open_for_so_long(now: float, open_s: float, expected: float) -> None:
    assert lasts(NIGHT, "UTC", now, open_s) == expected
    assert lasts((), "UTC", now, open_s) == open_s


def test_a_bucket_gives_its_rate_and_a_burst_and_remembers_no_more_than_that() -> None:
    bucket = Bucket(1000, 0.0)
    assert bucket.take(int(1000 * BURST_S), 0.0) == 0.0
    assert bucket.take(500, 0.0) == 0.5
    assert bucket.take(500, 0.0) == 1.0, "who asks later waits longer"
    assert bucket.take(500, 1.0) == 0.5
    assert bucket.take(int(1000 * BURST_S), 1000.0) == 0.0
    assert bucket.take(1000, 1000.0) == 1.0, "an idle hour is not saved up"


def test_a_sites_devices_share_its_rate_and_each_keeps_to_its_own() -> None:
    pacing, now = Pacing(), 0.0
    terms = Terms(rate=1000, site="hall", site_rate=1500)
    sent = dict.fromkeys("abc", 0)
    free_at = dict.fromkeys("abc", 0.0)
    while now < 100:
        for device in sent:
            if free_at[device] <= now:
                free_at[device] = now + pacing.wait_s(device, terms, 100, now)
                sent[device] += 100
        now += 0.01
    assert 0.95 * 1500 * 100 <= sum(sent.values()) <= 1500 * 100 + 1500 + 300
    assert max(sent.values()) <= 1.1 * min(sent.values()), "nobody is left behind"
    alone = Pacing()
    first = [alone.wait_s("a", terms, 100, 0.0) for _ in range(30)]
    assert first[-1] == pytest.approx(2.0), "by its own limit: 3000 bytes, of which a second's worth went at once"
