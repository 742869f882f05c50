"""The builder signs in its own process, and only what it may."""

from __future__ import annotations

import os
import stat
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, TargetFile, Targets

from edgewright_controller.publish import ImageRepository, PublishError, builder_signer
from edgewright_controller.publish.builder import BuilderProcess
from edgewright_controller.publish.metadata import target_file
from tests.controller.signed_things import NOW, KeyInHand, look_up, target


def _targets(version: int = 1, **changes: Any) -> Targets:
    one = target("a")
    return Targets(
        version, expires=NOW + timedelta(days=90), targets={one.path: target_file(one, one.custom)}, **changes
    )


def _ask(folder: Path, signed: Targets) -> dict[str, Any]:
    return builder_signer.answer({"op": "sign", "signed": signed.to_dict()}, folder, NOW)


def test_a_repository_is_signed_by_the_real_process(tmp_path: Path) -> None:
    repository = ImageRepository.open(tmp_path / "image", tmp_path / "keys", NOW)
    repository.publish([target("a")], NOW)
    assert look_up(repository.first_root, repository.files({}), target("a").path) is not None
    key = tmp_path / "keys" / "builder" / "builder.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_the_process_refuses_with_a_reason(tmp_path: Path) -> None:
    process = BuilderProcess(tmp_path / "builder")
    signed = _targets(5)
    public = process.public()
    public.verify_signature(process.sign(signed), Metadata(signed).signed_bytes)
    with pytest.raises(PublishError, match="version 4 is below 5"):
        process.sign(_targets(4))


def test_a_process_that_dies_is_reported_with_its_last_line(tmp_path: Path) -> None:
    dying = [sys.executable, "-c", "import sys; sys.exit('no such token in slot 3')"]
    with pytest.raises(PublishError, match="status 1: no such token in slot 3"):
        BuilderProcess(tmp_path / "builder", dying).public()


def test_the_process_sees_nothing_of_the_controllers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_SECRET", "hunter2")
    telling = [sys.executable, "-c", "import os, json; print(json.dumps({'error': sorted(os.environ)}))"]
    with pytest.raises(PublishError) as refused:
        BuilderProcess(tmp_path / "builder", telling).public()
    assert "PATH" in os.environ
    assert "PATH" in str(refused.value)
    assert "EDGEWRIGHT_SECRET" not in str(refused.value)


def test_the_same_version_may_be_signed_again_after_a_crash(tmp_path: Path) -> None:
    assert _ask(tmp_path, _targets(2))["signature"]
    assert _ask(tmp_path, _targets(2))["signature"]


def test_a_delegation_is_refused(tmp_path: Path) -> None:
    assert _ask(tmp_path, _targets())["signature"]
    key = KeyInHand().public()
    role = DelegatedRole("thief", [key.keyid], 1, terminating=False, paths=["models/*/*/*"])
    with pytest.raises(PublishError, match="delegates to nobody"):
        _ask(tmp_path, _targets(delegations=Delegations({key.keyid: key}, {"thief": role})))


def test_what_only_a_director_says_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="nothing but targets"):
        _ask(tmp_path, _targets(unrecognized_fields={"device_id": "jetson-01"}))


def test_a_life_without_end_is_refused(tmp_path: Path) -> None:
    forever = _targets()
    forever.expires = datetime(2999, 1, 1, tzinfo=timezone.utc)
    with pytest.raises(PublishError, match="at most 100 days"):
        _ask(tmp_path, forever)


def test_a_target_that_is_no_artifact_is_refused(tmp_path: Path) -> None:
    odd = _targets()
    odd.targets["../../etc/passwd"] = TargetFile(1, {"sha256": "a" * 64}, "../../etc/passwd")
    with pytest.raises(PublishError, match="passwd"):
        _ask(tmp_path, odd)


@pytest.mark.parametrize("request_", [None, [], {}, {"op": "export"}, {"op": "sign"}, {"op": "sign", "signed": []}])
def test_rubbish_is_refused(tmp_path: Path, request_: Any) -> None:
    with pytest.raises(PublishError):
        builder_signer.answer(request_, tmp_path, NOW)


def test_a_lost_key_is_not_replaced(tmp_path: Path) -> None:
    _ask(tmp_path, _targets())
    (tmp_path / "builder.pem").unlink()
    with pytest.raises(PublishError, match=r"builder.pem is lost"):
        _ask(tmp_path, _targets(2))
