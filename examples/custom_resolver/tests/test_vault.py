"""Credentials from Vault's files: what is read, what is refused, and that nothing of a secret is told."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from tenant_connections import VaultFile

from proxy_middleware import Connection, Credential, RefreshFailed
from proxy_middleware.errors import CredentialUnavailable

CRM = Connection("crm", "https://api.example.com")


def write(path: Path, data: Any, version: int = 1, mode: int = 0o600) -> None:
    """A file as Vault's agent leaves it."""
    document = {"request_id": "1", "data": {"data": data, "metadata": {"version": version, "destroyed": False}}}
    new = path.with_suffix(".new")
    new.write_text(json.dumps(document))
    new.chmod(mode)
    new.replace(path)


@pytest.mark.parametrize(
    ("data", "credential"),
    [
        ({"token": "s3cret"}, Credential.bearer("s3cret")),
        ({"username": "u", "password": "s3cret"}, Credential.basic("u", "s3cret")),
        ({"token": "s3cret", "username": "u", "password": "p"}, Credential.bearer("s3cret")),
    ],
)
def test_obtain(tmp_path: Path, data: dict[str, str], credential: Credential) -> None:
    """A token is a bearer token, a user and password are basic authentication."""
    write(tmp_path / "crm.json", data)
    assert VaultFile(tmp_path).obtain(CRM) == credential


def test_refresh(tmp_path: Path) -> None:
    """A refresh gives what is in the file by now, and fails as long as that is what was rejected."""
    provider = VaultFile(tmp_path)
    write(tmp_path / "crm.json", {"token": "old-s3cret"})
    old = provider.obtain(CRM)
    with pytest.raises(RefreshFailed, match="version 1") as caught:
        provider.refresh(CRM, old)
    assert "s3cret" not in str(caught.value)
    write(tmp_path / "crm.json", {"token": "old-s3cret"}, version=2)
    with pytest.raises(RefreshFailed, match="version 2"):
        provider.refresh(CRM, old)
    write(tmp_path / "crm.json", {"token": "new-s3cret"}, version=3)
    assert provider.refresh(CRM, old) == Credential.bearer("new-s3cret")


def test_refresh_of_what_is_gone(tmp_path: Path) -> None:
    """A refresh without a file fails."""
    with pytest.raises(CredentialUnavailable):
        VaultFile(tmp_path).refresh(CRM, Credential.bearer("s3cret"))


def refused(provider: VaultFile, connection: Connection, caplog: pytest.LogCaptureFixture) -> str:
    """Why there is no credential, by the log; the caller is told nothing, and nobody a secret."""
    with caplog.at_level(logging.ERROR, "tenant_connections"), pytest.raises(CredentialUnavailable) as caught:
        provider.obtain(connection)
    assert str(caught.value) == str(CredentialUnavailable())
    assert caught.value.__context__ is None
    assert "s3cret" not in caplog.text
    return caplog.messages[-1]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"data": {"data": {"token": "s3cret"', "no document of KV version 2"),
        (b'\xff"s3cret"', "no document of KV version 2"),
        ("[" * 100_000, "no document of KV version 2"),
        ('"s3cret"', "no document of KV version 2"),
        ('{"data": {"token": "s3cret"}}', "no document of KV version 2"),  # KV version 1
        ('{"data": {"data": null, "metadata": {"version": 3}}}', "version 3 was deleted"),
        ('{"data": {"data": {"key": "s3cret"}, "metadata": {"version": 3}}}', 'neither "token"'),
        ('{"data": {"data": {"token": "s3cret\\n"}, "metadata": {"version": 3}}}', 'neither "token"'),
        ('{"data": {"data": {"token": ""}, "metadata": {"version": 3}}}', 'neither "token"'),
        ('{"data": {"data": {"token": ["s3cret"]}, "metadata": {"version": 3}}}', 'neither "token"'),
        (b" " * 1024 * 1024 + b"{}", "longer than"),
    ],
)
def test_content(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | bytes, reason: str) -> None:
    """A document that is malformed, or of another kind, gives no credential."""
    path = tmp_path / "crm.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    assert reason in refused(VaultFile(tmp_path), CRM, caplog)


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_modes_that_are_used(tmp_path: Path, mode: int) -> None:
    """Owner and group may read."""
    write(tmp_path / "crm.json", {"token": "s3cret"}, mode=mode)
    assert VaultFile(tmp_path).obtain(CRM)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o660])
def test_modes_that_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int) -> None:
    """A file that others can read, or the group write, is not used."""
    write(tmp_path / "crm.json", {"token": "s3cret"}, mode=mode)
    assert f"mode {mode:04o}" in refused(VaultFile(tmp_path), CRM, caplog)


@pytest.mark.parametrize("connection_id", ["../crm", "/etc/crm", "sub/crm", ".crm", "..", "crm\x00", "crm\n", "a\\b"])
def test_ids_that_are_paths(tmp_path: Path, caplog: pytest.LogCaptureFixture, connection_id: str) -> None:
    """An id never leads out of the directory."""
    (tmp_path / "secrets" / "sub").mkdir(parents=True)
    for path in ("crm.json", "secrets/sub/crm.json", "secrets/.crm.json"):
        write(tmp_path / path, {"token": "s3cret"})
    connection = Connection(connection_id, "https://api.example.com")
    assert "cannot be a file name" in refused(VaultFile(tmp_path / "secrets"), connection, caplog)


def test_links(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A link may stay within the directory, as those of Kubernetes do, and not lead out of it, or round."""
    secrets = tmp_path / "secrets"
    (secrets / "..data").mkdir(parents=True)
    write(secrets / "..data" / "crm.json", {"token": "inside"})
    write(tmp_path / "outside.json", {"token": "s3cret"})
    (secrets / "crm.json").symlink_to("..data/crm.json")
    assert VaultFile(secrets).obtain(CRM) == Credential.bearer("inside")
    (secrets / "crm.json").unlink()
    (secrets / "crm.json").symlink_to("../outside.json")
    assert "out of the directory" in refused(VaultFile(secrets), CRM, caplog)
    (secrets / "crm.json").unlink()
    (secrets / "crm.json").symlink_to("crm.json")
    assert "cannot be read" in refused(VaultFile(secrets), CRM, caplog)


def test_pipe(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is no regular file is not waited for."""
    os.mkfifo(tmp_path / "crm.json", 0o600)
    assert "no regular file" in refused(VaultFile(tmp_path), CRM, caplog)


def test_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A connection without a file has no credential."""
    assert "cannot be read (No such file or directory)" in refused(VaultFile(tmp_path), CRM, caplog)
