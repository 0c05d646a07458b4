"""Credentials from the files that Vault's agent renders, or that `vault kv get -format=json` prints."""

import json
import logging
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy_middleware import Connection, Credential, RefreshFailed
from proxy_middleware.errors import CredentialUnavailable

_log = logging.getLogger(__name__)

# An id comes from a database, and becomes a file name: nothing that could lead to another directory.
_FILE_NAME = re.compile(r"[A-Za-z0-9_~:@+-][A-Za-z0-9_.~:@+ -]*")
_LONGEST = 1024 * 1024  # Bytes; Vault takes no longer secrets.
_FORBIDDEN = stat.S_IWGRP | stat.S_IRWXO


@dataclass(frozen=True)
class Secret:
    """What a file holds.

    Attributes:
        credential: To be put on requests.
        version: Which version of the secret it is; they are numbered from 1.
    """

    credential: Credential
    version: int


class Unusable(Exception):
    """A file is of no use; the message says why, for the log, and never what is in it."""


class VaultFile:
    """Gives each connection the secret in `{directory}/{connection id}.json`, a document of Vault's KV version 2.

    A secret with `token` is sent as a bearer token, one with `username` and `password` as basic authentication. A file
    that others than its owner and group can read, or others than its owner write, is not used.

    It blocks, since it reads files: the proxy calls it in a worker thread under ASGI.

    Args:
        directory: Where the files are. A link in it may lead to another file in it, as Kubernetes lays them out.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)

    def obtain(self, connection: Connection) -> Credential:
        """The credential; raises CredentialUnavailable if the file cannot be used, and says in the log why."""
        return self._read(connection.id).credential

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """The credential that is in the file by now; raises RefreshFailed if that is the rejected one."""
        secret = self._read(connection.id)
        if secret.credential == rejected:
            raise RefreshFailed(f"The upstream rejected version {secret.version} of the secret, and there is no newer")
        return secret.credential

    def _read(self, connection_id: str) -> Secret:
        try:
            return secret_in(self._content(connection_id))
        except Unusable as error:
            reason = str(error)
        # Out here, so that the new exception has no past that was near a secret.
        _log.error("connection %r has no usable secret: %s", connection_id, reason)
        raise CredentialUnavailable

    def _content(self, connection_id: str) -> bytes:
        if not _FILE_NAME.fullmatch(connection_id):
            raise Unusable("its id cannot be a file name")
        try:
            path = Path(os.path.realpath(self._directory / f"{connection_id}.json", strict=True))
            if not path.is_relative_to(os.path.realpath(self._directory)):
                raise Unusable("its file is a link that leads out of the directory")
            # A pipe would be waited for, but for O_NONBLOCK.
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
                _check_mode(os.fstat(file.fileno()).st_mode)
                return file.read(_LONGEST + 1)
        except OSError as error:
            raise Unusable(f"its file cannot be read ({error.strerror})") from None


def _check_mode(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise Unusable("its file is no regular file")
    if mode & _FORBIDDEN:
        raise Unusable(f"its file has mode {stat.S_IMODE(mode):04o}: at most 0640 is allowed")


def secret_in(content: bytes) -> Secret:
    """The secret in a document: `{"data": {"data": {...}, "metadata": {"version": 1}}}`.

    Raises:
        Unusable: It is malformed, was deleted, or has not the members that make a credential.
    """
    if len(content) > _LONGEST:
        raise Unusable(f"its file is longer than {_LONGEST} bytes")
    outer = _member(_document(content), "data")
    version = _member(_member(outer, "metadata"), "version")
    if not isinstance(version, int):
        raise Unusable("its file is no document of KV version 2")
    credential = _credential(_member(outer, "data"))
    if credential is None:
        raise Unusable(f'version {version} was deleted, or has neither "token" nor "username" and "password"')
    return Secret(credential, version)


def _document(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None  # That exception quotes the whole document.


def _member(document: Any, name: str) -> Any:
    return document.get(name) if isinstance(document, dict) else None


def _credential(data: Any) -> Credential | None:
    token, user, password = (_member(data, name) for name in ("token", "username", "password"))
    try:
        if isinstance(token, str) and token:
            return Credential.bearer(token)
        if isinstance(user, str) and isinstance(password, str):
            return Credential.basic(user, password)
    except ValueError:  # It has characters that cannot be sent.
        pass
    return None
