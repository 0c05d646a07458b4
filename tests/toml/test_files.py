"""TOML files of connections: what they may say, and what is said of those that are wrong."""

import os
from pathlib import Path
from typing import Any

import pytest

from proxy_middleware import Credential, ProxyRequest
from proxy_middleware.credentials import AWSSigV4, OAuth1, OAuth2
from proxy_middleware.stores import SQLStore, Tokens, generate_key
from proxy_middleware.toml import TomlCredentials, TomlError, TomlResolver
from proxy_middleware.toml.settings import load

CRM = '[connections.crm]\nbase_url = "https://crm.example"\n'
BEARER = '[connections.crm.credential]\ntype = "bearer"\ntoken = "env:CRM_TOKEN"\n'
CLIENT = 'token_url = "https://crm.example/token"\nclient_id = "us"\nclient_secret = "env:CRM_TOKEN"\n'
OAUTH2 = f'[connections.crm.credential]\ntype = "oauth2"\n{CLIENT}'
GOOD = f'callers = "anyone"\n{CRM}{BEARER}'
SECRET = "s3cret-of-the-crm"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_TOKEN", SECRET)
    monkeypatch.setenv("OTHER_TOKEN", "other")
    monkeypatch.setenv("KEY", generate_key())
    monkeypatch.delenv("UNSET", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the file is written."""
    return tmp_path / "connections.toml"


def resolved(file: Path, selector: str) -> Any:
    """What the resolver finds."""
    return TomlResolver(file).resolve(selector, ProxyRequest("GET", selector, b"/", []))


def kept(file: Path, name: str = "crm") -> Any:
    """The credential or provider of a connection."""
    return TomlCredentials(file).select(resolved(file, name))


def problems(file: Path, content: str) -> list[str]:
    """What is wrong with a file, of which no secret may be told."""
    file.write_text(content, encoding="utf-8")
    with pytest.raises(TomlError) as caught:
        load(file)
    assert SECRET not in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")
    return caught.value.problems


def test_connection_is_what_the_file_says(file: Path) -> None:
    """A connection has the settings of its table, and is found by id and by integration key."""
    file.write_text(
        CRM + 'integration_key = "crm-app"\nmethods = ["GET"]\nheaders = { X-Version = "2" }\nrewrite_links = true\n'
        'allowed_origins = ["https://files.example"]\n[connections.crm.timeouts]\nhead = 600\n',
        encoding="utf-8",
    )
    connection = resolved(file, "crm-app")
    assert connection == resolved(file, "crm")
    assert (connection.id, connection.base_url, connection.timeouts.head) == ("crm", "https://crm.example", 600)
    assert (connection.methods, connection.added, connection.rewrite_links) == ({"GET"}, ((b"X-Version", b"2"),), True)


def test_secrets_come_from_the_environment_and_from_files(file: Path) -> None:
    """`env:` names a variable; `file:` a file beside the TOML file, whose last newline does not count."""
    (file.parent / "token").write_text(f"{SECRET}\n", encoding="utf-8")
    for reference in ("env:CRM_TOKEN", "file:token"):
        file.write_text(CRM + BEARER.replace("env:CRM_TOKEN", reference), encoding="utf-8")
        assert kept(file) == Credential.bearer(SECRET)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('type = "basic"\nuser = "u"\npassword = "env:CRM_TOKEN"', Credential.basic("u", SECRET)),
        ('type = "header"\nname = "X-Key"\nvalue = "env:CRM_TOKEN"', Credential.header("X-Key", SECRET)),
        ('type = "query"\nname = "key"\nvalue = "env:CRM_TOKEN"', Credential.query("key", SECRET)),
        ('type = "cookie"\nname = "key"\nvalue = "env:CRM_TOKEN"', Credential.cookie("key", SECRET)),
    ],
)
def test_static_credentials(file: Path, table: str, expected: Credential) -> None:
    """Each kind of static credential can be had."""
    file.write_text(f"{CRM}[connections.crm.credential]\n{table}\n", encoding="utf-8")
    assert kept(file) == expected


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            'type = "aws"\nregion = "x"\nservice = "s3"\naccess_key = "env:KEY"\nsecret_key = "env:CRM_TOKEN"',
            AWSSigV4,
        ),
        ('type = "oauth1"\nclient_key = "us"\nclient_secret = "env:CRM_TOKEN"', OAuth1),
        (f'type = "oauth2"\n{CLIENT}grant = "client_credentials"\nis_rejected = "slack"\nscope = ["a", "b"]', OAuth2),
    ],
)
def test_providers(file: Path, table: str, expected: type) -> None:
    """Each kind of provider can be had."""
    file.write_text(f"{CRM}[connections.crm.credential]\n{table}\n", encoding="utf-8")
    assert isinstance(kept(file), expected)


def test_refresh_token_starts_in_memory(file: Path) -> None:
    """Without a store the refresh token of the file is where tokens are kept."""
    file.write_text(f'{CRM}{OAUTH2}refresh_token = "env:CRM_TOKEN"\n', encoding="utf-8")
    assert kept(file).store.load("crm").tokens.refresh_token == SECRET


def test_store_is_not_overwritten(file: Path) -> None:
    """A refresh token of the file goes into the store once; what the store has had since then stays."""
    url = f"sqlite:///{file.parent}/tokens.db"
    store = f'[store]\nurl = "{url}"\nkeys = ["env:KEY"]\n'
    file.write_text(f'{CRM}{OAUTH2}refresh_token = "env:CRM_TOKEN"\n{store}', encoding="utf-8")
    provider = kept(file)
    assert isinstance(provider.store, SQLStore)
    provider.store.put("crm", Tokens(refresh_token="rotated"))
    assert kept(file).store.load("crm").tokens.refresh_token == "rotated"


def test_settings_are_what_the_file_says(file: Path) -> None:
    """The tables of `proxy` are the settings of the same names."""
    file.write_text(
        f'{GOOD}[proxy]\nprefix = "/api"\n[proxy.limits]\nrequest_body = 10\n[proxy.egress]\nallow = ["10.0.0.0/8"]\n'
        "[proxy.browser]\nguard = false\n[proxy.replay]\ndisk = 0\n[proxy.timeouts]\nidle = 1.5\n",
        encoding="utf-8",
    )
    settings = load(file).settings
    assert (settings["prefix"], settings["limits"].request_body, settings["timeouts"].idle) == ("/api", 10, 1.5)
    assert (settings["egress"].allow, settings["browser"].guard, settings["replay"].disk) == (["10.0.0.0/8"], False, 0)


def test_callers_have_tokens(file: Path) -> None:
    """The callers of the file are known by their tokens."""
    file.write_text(f'callers = {{ alice = "env:OTHER_TOKEN" }}\n{CRM}{BEARER}', encoding="utf-8")
    request = ProxyRequest("GET", "crm", b"/", [(b"authorization", b"Bearer other")])
    assert load(file).settings["authenticate"](request) == "alice"


WRONG = {
    f'{GOOD}bas_url = "x"': "connections.crm.credential.bas_url: is unknown; known are token, type",
    GOOD.replace("base_url", "url"): "connections.crm.url: is unknown",
    GOOD.replace('base_url = "https://crm.example"', ""): "connections.crm.base_url: is missing",
    GOOD.replace("https://crm.example", "ftp://crm.example"): "connections.crm: ",
    GOOD.replace('"https://crm.example"', "5"): "connections.crm.base_url: has to be text",
    GOOD.replace("env:CRM_TOKEN", "env:UNSET"): "credential.token: the environment variable UNSET is not set",
    GOOD.replace("env:CRM_TOKEN", "file:nowhere"): "nowhere cannot be read: No such file or directory",
    GOOD.replace("env:CRM_TOKEN", SECRET): "credential.token: has to be env:NAME or file:PATH, and not the secret",
    GOOD.replace('"bearer"', '"token"'): "connections.crm.credential.type: has to be one of bearer, basic",
    f'callers = "anyone"\n{CRM}': "connections.crm.credential: is missing",
    f'callers = "anyone"\n{CRM}credential = 5\n': "connections.crm.credential: has to be a table",
    f"{CRM}{BEARER}": "callers: has to be a table of names and their tokens",
    f"callers = {{}}\n{CRM}{BEARER}": "callers: has to be a table of names and their tokens",
    GOOD.replace('"anyone"', '{ a = "env:OTHER_TOKEN", b = "env:OTHER_TOKEN" }'): "callers: two have the same token",
    'callers = "anyone"\n': "connections: has none",
    'callers = "anyone"\nconnections = 5': "connections: has to be a table",
    f"{GOOD}[proxy.limits]\nrequest_body = true\n": "proxy.limits.request_body: has to be a whole number",
    f"{GOOD}[proxy.limits]\nkeepalive = 0\n": "proxy.limits: Limits.keepalive",
    f"{GOOD}[proxy.limits]\nbody = 1\n": "proxy.limits.body: is unknown",
    f'{GOOD}[proxy]\nprefix = "no/slash"\n': "proxy: ",
    f"{GOOD}[proxies]\n": "proxies: is unknown; known are callers, connections, proxy, store",
    f'{GOOD}["a b"]\n': '"a b": is unknown',
    f"{GOOD}[connections.crm.timeouts]\nheads = 5\n": "connections.crm.timeouts.heads: is unknown",
    f'callers = "anyone"\n{CRM}{OAUTH2}': "connections.crm.credential: a refresh_token is missing",
    f'{GOOD}[store]\nurl = "mysql://x"\nkeys = ["env:KEY"]\n': "store: SQLStore takes a URL",
    f'{GOOD}[store]\nurl = "sqlite:///x.db"\nkeys = ["env:CRM_TOKEN"]\n': "store: A key is 32 bytes",
    f'{GOOD}[store]\nurl = "sqlite:///x.db"\n': "store.keys: is missing",
    "callers = ": "Invalid value",
    f"a = {'1' * 5000}": "a number is too long",
    f'callers = "anyone"\n{CRM}{OAUTH2}is_rejected = ["slack"]\n': "is_rejected: has to be one of aws",
}


@pytest.mark.parametrize("content", WRONG)
def test_wrong_files_are_told_what_is_wrong_and_where(file: Path, content: str) -> None:
    """Whatever is wrong is named with its place, and without a secret."""
    found = problems(file, content)
    assert any(WRONG[content] in problem for problem in found), found


def test_everything_that_is_wrong_is_told_at_once(file: Path) -> None:
    """A file with three faults says all three, each once."""
    content = GOOD.replace('"anyone"', "5").replace("base_url", "url")
    assert len(problems(file, content)) == 3


def test_each_reads_what_is_its_own(file: Path) -> None:
    """The resolver needs no credentials in the file, and the credentials no callers."""
    file.write_text(CRM, encoding="utf-8")
    assert resolved(file, "crm").id == "crm"
    with pytest.raises(TomlError, match=r"connections\.crm\.credential: is missing"):
        TomlCredentials(file)


def test_urls_with_passwords_may_be_secrets(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rates are counted may stand in the file, or in the environment."""
    monkeypatch.setenv("STORAGE", "memory://")
    for storage in ("memory://", "env:STORAGE"):
        file.write_text(f'{GOOD}[proxy.limits]\nrate = "9/minute"\nrate_storage = "{storage}"\n', encoding="utf-8")
        assert load(file).settings["limits"].rate_storage == "memory://"


def test_environment_that_is_no_text(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is no UTF-8 is told by its name, wherever it would be used."""
    monkeypatch.setenv("OTHER_TOKEN", os.fsdecode(b"\xffsecret"))
    content = GOOD.replace('"anyone"', '{ alice = "env:OTHER_TOKEN" }')
    assert problems(file, content) == ["callers.alice: the environment variable OTHER_TOKEN is no UTF-8"]
