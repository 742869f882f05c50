"""A token is good for one device, one key, once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from edgewright_contract import enrolment_token
from edgewright_controller.enrolment import EnrolmentRefused, EnrolmentRow, Enrolments
from edgewright_controller.pki import Authority, peer
from tests.controller.pki_requests import NOW, new_key, request


class TokensInMemory:
    """The store's seam, on a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[str, EnrolmentRow] = {}

    def get(self, secret_sha256: str) -> EnrolmentRow | None:
        return self.rows.get(secret_sha256)

    def put(self, row: EnrolmentRow) -> None:
        self.rows[row.secret_sha256] = row


@pytest.fixture
def enrolments(tmp_path: Path) -> Enrolments:
    authority = Authority.open(tmp_path / "pki", "demo", NOW)
    return Enrolments(authority, TokensInMemory(), "127.0.0.1:7443")


def _secret(enrolments: Enrolments, device: str = "jetson-01", valid_s: int = 0) -> str:
    return enrolment_token.parse(enrolments.create(device, valid_s, NOW)).secret


def test_a_token_says_where_who_and_whom_to_trust(enrolments: Enrolments) -> None:
    token = enrolment_token.parse(f"  {enrolments.create('jetson-01', 60, NOW)}\n")
    assert (token.address, token.device, len(token.secret)) == ("127.0.0.1:7443", "jetson-01", 43)
    store = enrolments.store
    assert isinstance(store, TokensInMemory)
    assert token.secret not in repr(store.rows)


def test_a_token_is_redeemed_for_its_devices_certificate(enrolments: Enrolments) -> None:
    device, chain = enrolments.redeem(_secret(enrolments), request(new_key(), cn="mac-01"), NOW)
    assert device == "jetson-01"
    assert peer(chain, "demo").id == "jetson-01"


def test_the_same_key_gets_the_same_certificate_for_ten_minutes(enrolments: Enrolments) -> None:
    secret, csr = _secret(enrolments), request(new_key())
    first = enrolments.redeem(secret, csr, NOW)
    assert enrolments.redeem(secret, csr, NOW + timedelta(minutes=10)) == first
    with pytest.raises(EnrolmentRefused, match="used already"):
        enrolments.redeem(secret, csr, NOW + timedelta(minutes=10, seconds=1))


def test_another_key_is_refused_once_the_token_was_used(enrolments: Enrolments) -> None:
    secret = _secret(enrolments)
    enrolments.redeem(secret, request(new_key()), NOW)
    with pytest.raises(EnrolmentRefused, match="used already"):
        enrolments.redeem(secret, request(new_key()), NOW)


def test_a_token_ends(enrolments: Enrolments) -> None:
    secret = _secret(enrolments, valid_s=60)
    with pytest.raises(EnrolmentRefused, match="ended at 2026-03-01 12:01 UTC"):
        enrolments.redeem(secret, request(new_key()), NOW + timedelta(seconds=60))
    enrolments.redeem(secret, request(new_key()), NOW + timedelta(seconds=59))


def test_a_guess_is_refused(enrolments: Enrolments) -> None:
    _secret(enrolments)
    for guess in ("", "A" * 43, "\udc80"):
        with pytest.raises(EnrolmentRefused, match="not known here"):
            enrolments.redeem(guess, request(new_key()), NOW)


def test_a_bad_request_does_not_use_up_the_token(enrolments: Enrolments) -> None:
    secret = _secret(enrolments)
    with pytest.raises(EnrolmentRefused, match="jetson-01: not a signing request"):
        enrolments.redeem(secret, b"rubbish", NOW)
    assert enrolments.redeem(secret, request(new_key()), NOW)[0] == "jetson-01"


@pytest.mark.parametrize(("device", "valid_s"), [("operator.admin", 60), ("", 60), ("jetson-01", 86_401), ("a", -1)])
def test_a_token_that_may_not_be_is_not_made(enrolments: Enrolments, device: str, valid_s: int) -> None:
    with pytest.raises(EnrolmentRefused):
        enrolments.create(device, valid_s, NOW)


def test_a_token_without_a_secret_says_where_who_and_whom_to_trust(enrolments: Enrolments) -> None:
    token = enrolment_token.parse(enrolments.without_secret("jetson-01"))
    assert (token.address, token.device, token.secret) == ("127.0.0.1:7443", "jetson-01", "")
    assert token == enrolment_token.parse(token.encode())


def test_damaged_tokens_are_refused_without_telling_the_secret(enrolments: Enrolments) -> None:
    text = enrolments.create("jetson-01", 60, NOW)
    secret = enrolment_token.parse(text).secret
    for damaged in ("", "ewt2." + text[5:], text[:-20], text[:40] + "!" + text[41:], "ewt1." + "A" * 9000, "ewt1.e30"):
        with pytest.raises(enrolment_token.TokenError) as refused:
            enrolment_token.parse(damaged)
        assert secret not in str(refused.value)
