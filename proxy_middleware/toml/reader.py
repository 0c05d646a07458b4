"""Reading tables of a TOML file: every key once and in its type; whatever is wrong is noted, with where it stands."""

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

_T = TypeVar("_T")

# A value as it stands in the file, and the folder of that, to what it means.
Parse = Callable[[Any, Path], Any]


class TomlError(ValueError):
    """The file is not as it should be.

    Attributes:
        problems: One line for each thing that is wrong, such as "connections.crm.base_url: is missing"; none holds a
            secret.
    """

    def __init__(self, path: str | os.PathLike[str], problems: list[str]) -> None:
        self.problems = list(dict.fromkeys(problems))  # Tables are read by several.
        super().__init__("\n".join(f"{os.fspath(path)}: {problem}" for problem in self.problems))


class Key(NamedTuple):
    """What a key may be."""

    parse: Parse
    required: bool = False


class Table:
    """One table of the file.

    Args:
        data: What stands in it.
        where: Its dotted name; empty for the file itself.
        folder: What `file:` secrets are relative to.
        problems: Where to note what is wrong.
    """

    def __init__(self, data: Mapping[str, Any], where: str, folder: Path, problems: list[str]) -> None:
        self.data = data
        self.where = where
        self.folder = folder
        self.problems = problems

    def values(self, keys: Mapping[str, Key]) -> dict[str, Any] | None:
        """What stands under these keys, and no others; None if something of it is wrong."""
        before = len(self.problems)
        for name in self.data.keys() - keys.keys():
            self.note(name, f"is unknown; known are {', '.join(sorted(keys))}")
        for name, key in keys.items():
            if key.required and name not in self.data:
                self.note(name, "is missing")
        found = {name: self._parsed(name, key.parse) for name, key in keys.items() if name in self.data}
        return found if len(self.problems) == before else None

    def make(self, keys: Mapping[str, Key], make: Callable[..., _T], *first: Any) -> _T | None:
        """What a function makes of these keys' values; None if something is wrong, which is what it says then."""
        values = self.values(keys)
        if values is None:
            return None
        try:
            return make(*first, **values)
        except (TypeError, ValueError, ImportError) as error:
            self.problems.append(f"{self.where}: {error}")
        return None

    def table(self, name: str) -> "Table":
        """The table under this key; an empty one if there is none."""
        data = self.data.get(name, {})
        if not isinstance(data, dict):
            self.note(name, "has to be a table")
            data = {}
        return Table(data, self.place(name), self.folder, self.problems)

    def note(self, name: str, problem: str) -> None:
        """Notes what is wrong with a key."""
        self.problems.append(f"{self.place(name)}: {problem}")

    def place(self, name: str) -> str:
        """The dotted name of a key."""
        spelled = name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else f'"{name}"'
        return f"{self.where}.{spelled}" if self.where else spelled

    def _parsed(self, name: str, parse: Parse) -> Any:
        try:
            return parse(self.data[name], self.folder)
        except ValueError as error:
            self.note(name, str(error))
        return None


def read_file(path: str | os.PathLike[str]) -> Table:
    """The whole file.

    Raises:
        OSError: It cannot be read.
        TomlError: It is no TOML.
    """
    with open(path, "rb") as file:
        try:
            data = tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            # No source line is quoted: it may hold what should not have been written there.
            raise TomlError(path, [str(error)]) from None
        except (ValueError, RecursionError):
            raise TomlError(path, ["a number is too long, or lists are nested too deeply"]) from None
    return Table(data, "", Path(path).parent, [])


def text(value: Any, folder: Path) -> str:
    """Text."""
    return _of_type(value, str, "text")


def flag(value: Any, folder: Path) -> bool:
    """True or false."""
    return _of_type(value, bool, "true or false")


def whole(value: Any, folder: Path) -> int:
    """A whole number."""
    return _of_type(value, int, "a whole number")


def number(value: Any, folder: Path) -> float:
    """A number, such as of seconds."""
    return value if isinstance(value, float) else _of_type(value, int, "a number")


def texts(value: Any, folder: Path) -> list[str]:
    """A list of texts."""
    return [text(item, folder) for item in _of_type(value, list, "a list of texts")]


def pairs(value: Any, folder: Path) -> dict[str, str]:
    """A table of texts."""
    return {name: text(item, folder) for name, item in _of_type(value, dict, "a table of texts").items()}


def mapping(value: Any, folder: Path) -> dict[str, Any]:
    """A table of whatever TOML can say."""
    return _of_type(value, dict, "a table")


def anything(value: Any, folder: Path) -> Any:
    """Whatever TOML can say."""
    return value


def secret(value: Any, folder: Path) -> str:
    """What `env:NAME` or `file:PATH` leads to; a secret itself has no place in the file."""
    kind, _, name = _of_type(value, str, "env:NAME or file:PATH").partition(":")
    if kind == "env" and name:
        return _environment(name)
    if kind == "file" and name:
        return _contents(folder / name)
    raise ValueError("has to be env:NAME or file:PATH, and not the secret itself")


def secrets(value: Any, folder: Path) -> list[str]:
    """A list of those."""
    return [secret(item, folder) for item in _of_type(value, list, "a list of env:NAME or file:PATH")]


def url(value: Any, folder: Path) -> str:
    """A URL, or, since it may have a password in it, what leads to one as to a secret."""
    return secret(value, folder) if str(value).startswith(("env:", "file:")) else text(value, folder)


def _of_type(value: Any, kind: type[_T], what: str) -> _T:
    # True is an int to Python, and a number to nobody else.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"has to be {what}")
    return value


def _environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ValueError(f"the environment variable {name} is not set")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"the environment variable {name} is no UTF-8") from None
    return value


def _contents(path: Path) -> str:
    try:
        value = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise ValueError(f"the file {path} cannot be read: {reason}") from None
    # Editors and `echo` end a file with a newline, which no secret has.
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise ValueError(f"the file {path} is empty")
    return value
