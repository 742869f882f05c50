"""Drawing a mandate up and signing it: none is made that no device would believe, none signed that was changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from securesystemslib.signer import CryptoSigner

from edgewright_contract import mandate as contract
from edgewright_controller.publish import PublishError, keys, mandates
from edgewright_controller.publish.mandates import Terms
from tests.agent.mandate_fleet import MandateFleet, altered
from tests.agent.trust_fleet import NOW, release
from tests.controller.signed_things import target

TERMS = Terms("demo", "jetson-01", None, 3, 7, release("b"), target("b"), NOW, NOW + timedelta(days=90))


@pytest.fixture
def fleet(tmp_path: Path) -> MandateFleet:
    return MandateFleet(tmp_path / "controller")


def test_a_mandate_says_what_it_was_drawn_up_for(fleet: MandateFleet) -> None:
    request = mandates.draw_up(fleet.image.documents(), TERMS)
    read = mandates.read(request)
    assert (read.number, read.mandate.generation, read.release) == (3, 7, release("b"))
    assert (read.missing, read.signed, read.unsigned) == (1, (), (fleet.mandate_key.public_key.keyid,))
    signed = mandates.sign(request, fleet.mandate_key)
    assert mandates.read(signed).missing == 0
    assert mandates.sign(signed, fleet.mandate_key) == signed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"expires": NOW + timedelta(days=181)}, "at most 180 days"),
        ({"expires": NOW}, "at most 180 days"),
        ({"generation": 0}, "generation"),
        ({"device": None}, "for a device or for a profile"),
        ({"target": target("e"), "release": release("e")}, "is not published"),
        ({"target": target("b", epoch=3)}, "not published as it stands"),
        ({"issued": NOW + timedelta(days=300), "expires": NOW + timedelta(days=400)}, "root ends on"),
        ({"issued": NOW + timedelta(days=100), "expires": NOW + timedelta(days=110)}, "targets ended on"),
    ],
)
def test_what_no_device_would_believe_is_not_made(fleet: MandateFleet, change: dict[str, Any], said: str) -> None:
    mandates.draw_up(fleet.image.documents(), TERMS)
    with pytest.raises(PublishError, match=said):
        mandates.draw_up(fleet.image.documents(), replace(TERMS, **change))


def test_a_fleet_without_a_key_for_mandates_says_so(fleet: MandateFleet) -> None:
    fleet.delegate()
    with pytest.raises(PublishError, match="names no key that signs mandates"):
        mandates.draw_up(fleet.image.documents(), TERMS)


@pytest.mark.attack("request to sign that was altered on its way to the signer")
def test_a_request_that_does_not_hold_together_is_not_signed(tmp_path: Path, fleet: MandateFleet) -> None:
    request = mandates.draw_up(fleet.image.documents(), TERMS)
    papers = contract.parse(request)
    other = MandateFleet(tmp_path / "other")
    strange = contract.parse(mandates.draw_up(other.image.documents(), TERMS))
    fleet.image.publish([target("d")], NOW)
    later = contract.parse(mandates.draw_up(fleet.image.documents(), TERMS))
    for bad in (
        replace(papers, builder=later.builder),
        replace(papers, builder=strange.builder),
        replace(papers, targets=strange.targets),
        replace(papers, roots=strange.roots),
        replace(papers, roots=(papers.roots[0], papers.roots[0])),
        replace(papers, mandate=papers.targets),
        replace(papers, mandate=b"{}"),
    ):
        with pytest.raises(PublishError, match="mandate"):
            mandates.sign(bad.encode(), fleet.mandate_key)
    assert mandates.read(mandates.sign(request, fleet.mandate_key)).missing == 0


def test_a_strangers_key_signs_nothing(fleet: MandateFleet) -> None:
    request = mandates.draw_up(fleet.image.documents(), TERMS)
    with pytest.raises(PublishError, match="does not sign mandates of this fleet"):
        mandates.sign(request, CryptoSigner.generate_ed25519())


def test_a_signature_is_only_for_what_was_signed(fleet: MandateFleet) -> None:
    signed = mandates.sign(mandates.draw_up(fleet.image.documents(), TERMS), fleet.mandate_key)
    assert mandates.read(altered(signed, None, fields={"generation": 8})).missing == 1


def test_a_key_may_be_encrypted(tmp_path: Path) -> None:
    plain = keys.signer(tmp_path / "plain.pem")
    encrypted = tmp_path / "encrypted.pem"
    pem = plain._private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    encrypted.write_bytes(pem)
    assert keys.load(encrypted, "secret").public_key == plain.public_key
    for passphrase, said in ((None, "is encrypted; give its passphrase"), ("wrong", "its passphrase is another one")):
        with pytest.raises(PublishError, match=said):
            keys.load(encrypted, passphrase)
    with pytest.raises(PublishError, match="is not encrypted"):
        keys.load(tmp_path / "plain.pem", "secret")
