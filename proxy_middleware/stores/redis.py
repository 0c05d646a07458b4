"""Tokens in Redis, or in Valkey."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from proxy_middleware.errors import StoreUnavailable
from proxy_middleware.stores.encrypted import EncryptedStore
from proxy_middleware.stores.encryption import SEALED
from proxy_middleware.stores.protocol import Tokens
from proxy_middleware.stores.records import check_id, check_lease

SCHEMA = b"1"
CONNECT = 2.0  # Seconds.
ANSWER = 3.0  # Seconds.

# A record is a hash, a lease a key of its own; each script touches one key, as a cluster demands. The hash outlives its
# record with nothing but the version, so that it goes on growing.
_WRITE = """
if ARGV[1] ~= '' then
    local version = redis.call('HEXISTS', KEYS[1], 'present') == 1 and redis.call('HGET', KEYS[1], 'version') or '0'
    if version ~= ARGV[1] then return false end
end
redis.call('HSET', KEYS[1], 'present', '1', unpack(ARGV, 3))
return redis.call('HINCRBY', KEYS[1], 'version', ARGV[2])
"""
_ACQUIRE = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RENEW = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0"
_RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"


class RedisStore(EncryptedStore):
    """Keeps tokens, encrypted, in Redis 4 or newer, or in Valkey.

    Nothing is opened before the first use. Threads, processes and forked processes may share one store. `create` has to
    be called once. The server must keep what it is given: with a `maxmemory-policy` that evicts keys, or without
    persistence, refresh tokens are lost.

    Args:
        url: `redis://user:password@host:6379/0`, `rediss://` for TLS, or `unix:///path`, as redis-py takes it.
        keys: The first encrypts, all decrypt; each 32 bytes, or their base64 text as `generate_key` makes it.
        prefix: What the names of all keys begin with.

    Raises:
        ImportError: The extra "redis" is not installed.
        ValueError: The URL or a key is malformed.
    """

    def __init__(self, url: str, keys: Sequence[str | bytes], *, prefix: str = "proxy_middleware:") -> None:
        super().__init__(keys)
        self._redis = _client(url)
        self._prefix = prefix
        self._checked = False

    def create(self) -> None:
        """Notes the version of what is kept, unless it is there; any number of processes may call this, at once, too.

        Raises:
            StoreUnavailable: The server cannot be reached, or what it keeps is of another release.
        """
        self._send("SET", self._name("schema"), SCHEMA, "NX")
        self._check_schema()

    def close(self) -> None:
        """Closes this process' connections; using the store again opens new ones."""
        self._redis.close()

    def save(self, connection_id: str, tokens: Tokens, expected: int, /) -> int | None:
        """See `TokenStore.save`."""
        return self._write(connection_id, str(expected), 1, self._values(connection_id, tokens))

    def put(self, connection_id: str, tokens: Tokens, /) -> int:
        """See `TokenStore.put`."""
        version = self._write(connection_id, "", 1, self._values(connection_id, tokens))
        assert version is not None, "an unconditional write returns a version"
        return version

    def delete(self, connection_id: str, /) -> None:
        """See `TokenStore.delete`."""
        self._run("HDEL", self._record(connection_id), "present", "dead", "expires_at", *SEALED)

    def mark_dead(self, connection_id: str, expected: int, /) -> None:
        """See `TokenStore.mark_dead`."""
        if expected:
            self._write(connection_id, str(expected), 0, {"dead": "1"})

    def acquire(self, connection_id: str, owner: str, seconds: float, /) -> bool:
        """See `TokenStore.acquire`."""
        return self._lease(_ACQUIRE, connection_id, owner, seconds)

    def renew(self, connection_id: str, owner: str, seconds: float, /) -> bool:
        """See `TokenStore.renew`."""
        return self._lease(_RENEW, connection_id, owner, seconds)

    def release(self, connection_id: str, owner: str, /) -> None:
        """See `TokenStore.release`."""
        check_id(connection_id)
        self._run("EVAL", _RELEASE, 1, self._name(f"lease:{connection_id}"), owner)

    def _rewrite(self, connection_id: str, version: int, fields: Mapping[str, bytes]) -> bool:
        return self._write(connection_id, str(version), 0, fields) is not None

    def _ids(self) -> Iterator[str]:
        begin = self._name("tokens:")
        # A prefix may have characters that SCAN takes for wildcards.
        pattern = re.sub(r"([\[\]*?\\^-])", r"\\\1", begin) + "*"
        cursor: Any = 0
        while True:
            cursor, names = self._run("SCAN", cursor, "MATCH", pattern, "COUNT", 100)
            yield from (name.decode()[len(begin) :] for name in names)
            if not int(cursor):
                return

    def _read(self, connection_id: str) -> dict[str, Any] | None:
        found = self._run("HGETALL", self._record(connection_id))
        row = {name.decode(errors="replace"): value for name, value in found.items()}
        return row if "present" in row else None

    def _write(self, connection_id: str, expected: str, step: int, values: Mapping[str, Any]) -> int | None:
        """Writes fields if the version is still this one, or in any case (""); the version it has then, or None."""
        pairs = [part for pair in values.items() for part in pair]
        version = self._run("EVAL", _WRITE, 1, self._record(connection_id), expected, step, *pairs)
        return None if version is None else int(version)

    def _values(self, connection_id: str, tokens: Tokens) -> dict[str, Any]:
        check_id(connection_id)
        sealed = self._ring.seal(connection_id, tokens)
        expires_at = "" if tokens.expires_at is None else repr(tokens.expires_at)
        return {**sealed, "expires_at": expires_at, "dead": "0"}

    def _lease(self, script: str, connection_id: str, owner: str, seconds: float) -> bool:
        check_lease(connection_id, owner, seconds)
        milliseconds = max(1, round(seconds * 1000))
        return bool(self._run("EVAL", script, 1, self._name(f"lease:{connection_id}"), owner, milliseconds))

    def _record(self, connection_id: str) -> str:
        check_id(connection_id)
        return self._name(f"tokens:{connection_id}")

    def _name(self, rest: str) -> str:
        return self._prefix + rest

    def _run(self, *command: Any) -> Any:
        if not self._checked:
            self._check_schema()
            self._checked = True
        return self._send(*command)

    def _check_schema(self) -> None:
        found = self._send("GET", self._name("schema"))
        if found is None:
            raise StoreUnavailable("The token store has not been set up yet: call create() once")
        if found != SCHEMA:
            raise StoreUnavailable("The token store's records are of another version than this release knows")

    def _send(self, *command: Any) -> Any:
        try:
            return self._redis.execute_command(*command)  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            reason = type(error).__name__  # Its message might quote the connection string.
        raise StoreUnavailable(f"The token store cannot be used ({reason})")


def _client(url: str) -> redis.Redis:
    # Nothing is sent twice: a save whose answer was lost would then take its own work for somebody else's.
    settings: dict[str, Any] = {"socket_timeout": ANSWER, "socket_connect_timeout": CONNECT, "protocol": 2}
    try:
        return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **settings)
    except (TypeError, ValueError):
        pass  # The message might quote the URL, and that a password.
    raise ValueError("RedisStore takes a URL like redis://user:password@host:6379/0, rediss://... or unix://...")
