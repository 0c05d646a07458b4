"""Credentials: what they put on a request, and that they keep their secrets."""

import pickle
import traceback
from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qsl, quote, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_middleware import Credential, UpstreamRequest
from proxy_middleware._fields import Field, canonical

SECRET = "s3cret-canary"
QUERY_PARTS = st.text(st.sampled_from("ab+%2F=k;é"), max_size=6).map(lambda text: quote(text, safe="+%=;").encode())
COOKIE_PAIRS = st.sampled_from([b"a=1", b"session=x", b"session", b"SESSION=y", b"xsession=z", b"b=session=1", b""])


def put(credential: Credential, target: bytes = b"/x", *fields: Field) -> tuple[list[Field], bytes]:
    """Fields and target with the credential on."""
    return credential.put_on(list(fields), target)


def nothing(request: UpstreamRequest) -> list[tuple[str, str]]:
    """A signer that adds nothing."""
    return []


# Header fields


@pytest.mark.parametrize(
    ("credential", "field"),
    [
        (Credential.bearer("tok"), (b"authorization", b"Bearer tok")),
        (Credential.basic("Aladdin", "open sesame"), (b"authorization", b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")),
        (Credential.basic("test", "123£"), (b"authorization", b"Basic dGVzdDoxMjPCow==")),
        (Credential.basic("", "a:b"), (b"authorization", b"Basic OmE6Yg==")),
        (Credential.header("X-Api-Key", "key"), (b"X-Api-Key", b"key")),
        (Credential.header("X-Latin", "é"), (b"X-Latin", b"\xe9")),
    ],
)
def test_field_is_injected(credential: Credential, field: Field) -> None:
    """A credential's field is appended, and nothing else changes."""
    assert put(credential, b"/a%2Fb?", (b"accept", b"*/*")) == ([(b"accept", b"*/*"), field], b"/a%2Fb?")


def test_field_replaces_the_callers() -> None:
    """The caller's fields of the same name go, in whatever spelling and number."""
    fields = [(b"x-api-key", b"1"), (b"X_Api_KEY", b"2"), (b"x-api-key2", b"3"), (b"X-API-Key", b"4")]
    given = list(fields)
    assert put(Credential.header("X-Api-Key", "key"), b"/", *given)[0] == [
        (b"x-api-key2", b"3"),
        (b"X-Api-Key", b"key"),
    ]
    assert given == fields


def test_callers_list_is_left_alone() -> None:
    """The list that was handed in stays as it was, so that it can be used for a second credential."""
    fields = [(b"accept", b"*/*"), (b"cookie", b"a=b")]
    every = Credential.combine(Credential.bearer("t"), Credential.query("k", "v"), Credential.cookie("a", "c"))
    every.put_on(fields, b"/")
    assert fields == [(b"accept", b"*/*"), (b"cookie", b"a=b")]


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "é", "Host", "connection", "Content_Length", "TE\n"])
def test_bad_field_name(name: str) -> None:
    """A name that is no token, or that is the proxy's own, is a ValueError."""
    with pytest.raises(ValueError, match="Credential"):
        Credential.header(name, "x")


@pytest.mark.parametrize("value", [f"{SECRET}\r\nx: y", f"{SECRET}\n", f"\x00{SECRET}", f"{SECRET}\x7f", f"{SECRET}€"])
def test_bad_field_value(value: str) -> None:
    """A value that no field can carry is a ValueError that does not repeat it, nor does its traceback."""
    for make in (Credential.bearer, lambda text: Credential.header("x-key", text)):
        with pytest.raises(ValueError, match="Credential") as caught:
            make(value)
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_basic_user_has_no_colon() -> None:
    """A colon in the user name would end it early."""
    with pytest.raises(ValueError, match="colon") as caught:
        Credential.basic("a:b", SECRET)
    assert SECRET not in str(caught.value)


# Query parameters


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/x", b"/x?api_key=v"),
        (b"/x?", b"/x?api_key=v"),
        (b"/x?a=1", b"/x?a=1&api_key=v"),
        (b"/x?api_key=evil&a=%2F&b=c+d", b"/x?a=%2F&b=c+d&api_key=v"),
        (b"/x?a=1&api%5Fkey=evil&api_key&api_key=", b"/x?a=1&api_key=v"),
        (b"/x?%61%70%69_key=evil", b"/x?api_key=v"),
        (b"/x?API_KEY=other", b"/x?API_KEY=other&api_key=v"),
        (b"/x?&&a&&", b"/x?&&a&&&api_key=v"),
        (b"/x?a=api_key=1", b"/x?a=api_key=1&api_key=v"),
        (b"/x?a?b=?&%zz=%", b"/x?a?b=?&%zz=%&api_key=v"),
    ],
)
def test_query_parameter(target: bytes, expected: bytes) -> None:
    """A parameter replaces those of its decoded name; everything else stays byte for byte."""
    fields, given = put(Credential.query("api_key", "v"), target, (b"a", b"b"))
    assert (fields, given) == ([(b"a", b"b")], expected)


def test_query_parameter_is_quoted() -> None:
    """Name and value are escaped so that they stay one parameter."""
    assert put(Credential.query("a b&c", "d=e/f+é#"))[1] == b"/x?a%20b%26c=d%3De%2Ff%2B%C3%A9%23"
    assert put(Credential.query("a b", "v"), b"/x?a+b=evil&a%20b=evil&ab=1")[1] == b"/x?ab=1&a%20b=v"


@given(
    st.lists(QUERY_PARTS, max_size=6),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5) | st.sampled_from(["a", "k", "+", "é"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
def test_query_injection_is_total(parts: list[bytes], name: str, value: str) -> None:
    """Whatever the query: the parameter is there once, last, and all others are left as they were, in order."""
    whole = b"&".join(parts)
    given = put(Credential.query(name, value), b"/p?" + whole)[1]
    path, _, query = given.partition(b"?")
    *others, last = query.split(b"&")
    assert path == b"/p"
    assert parse_qsl(last.decode("ascii"), keep_blank_values=True) == [(name, value)]
    assert others == [part for part in parts if whole and unquote_plus(part.partition(b"=")[0].decode()) != name]


# Cookies


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], b"session=v"),
        ([(b"cookie", b"a=b")], b"a=b; session=v"),
        ([(b"cookie", b"")], b"session=v"),
        ([(b"cookie", b"a=b;"), (b"cookie", b" ; c=d")], b"a=b; c=d; session=v"),
        ([(b"Cookie", b"session=evil; a=b;c=d")], b"a=b; c=d; session=v"),
        ([(b"cookie", b"a=b"), (b"cookie", b"session=evil;  c")], b"a=b; c; session=v"),
        ([(b"cookie", b" session =evil; Session=other")], b"Session=other; session=v"),
    ],
)
def test_cookie(fields: list[Field], expected: bytes) -> None:
    """A cookie replaces the pair of its name, and all pairs make up one field."""
    kept = (b"x-a", b"1")
    assert put(Credential.cookie("session", "v"), b"/x", *fields, kept) == ([kept, (b"cookie", expected)], b"/x")


@given(st.lists(st.lists(COOKIE_PAIRS, max_size=4).map(b"; ".join), max_size=3))
def test_cookie_injection_is_total(values: list[bytes]) -> None:
    """Whatever cookies come: the injected one is there once, last, in the only Cookie field."""
    fields = put(Credential.cookie("session", "v"), b"/", *((b"cookie", value) for value in values))[0]
    ((name, value),) = fields
    pairs = [pair.strip() for pair in value.split(b";")]
    assert name == b"cookie"
    assert pairs[-1] == b"session=v"
    assert [pair for pair in pairs if pair.partition(b"=")[0] == b"session"] == [b"session=v"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "v"),
        ("a b", "v"),
        ("a=b", "v"),
        ("é", "v"),
        ("a", "b;c"),
        ("a", "b c"),
        ("a", "b,c"),
        ("a", 'b"'),
        ("a", "é"),
    ],
)
def test_bad_cookie(name: str, value: str) -> None:
    """What a cookie cannot carry is a ValueError."""
    with pytest.raises(ValueError, match=r"Credential\.cookie"):
        Credential.cookie(name, value)


# Several together


def test_combine() -> None:
    """Everything that each part injects is injected."""
    both = Credential.combine(
        Credential.bearer("t"), Credential.query("k", "1"), Credential.query("l", "2"), Credential.cookie("c", "d")
    )
    fields, target = put(both, b"/x?k=0", (b"Authorization", b"evil"))
    assert fields == [(b"authorization", b"Bearer t"), (b"cookie", b"c=d")]
    assert target == b"/x?k=1&l=2"


@pytest.mark.parametrize(
    ("expiries", "given", "expected"),
    [((None, None), None, None), ((5, None), None, 5), ((9, 3), None, 3), ((9, 3), 7, 7), ((), None, None)],
)
def test_combined_expiry(expiries: tuple[float | None, ...], given: float | None, expected: float | None) -> None:
    """A combination expires with the first of its parts, unless told otherwise."""
    parts = [Credential.header(f"x-{index}", "v", expires_at=expiry) for index, expiry in enumerate(expiries)]
    assert Credential.combine(*parts, expires_at=given).expires_at == expected


def test_expiry_can_be_given_everywhere() -> None:
    """Each constructor takes `expires_at`, and by default nothing expires."""
    constructors: list[Callable[..., Credential]] = [
        partial(Credential.bearer, "t"),
        partial(Credential.basic, "u", "p"),
        partial(Credential.header, "n", "v"),
        partial(Credential.query, "n", "v"),
        partial(Credential.cookie, "n", "v"),
        partial(Credential.signed, nothing),
        partial(Credential.combine, Credential.bearer("t")),
    ]
    for make in constructors:
        assert make(expires_at=12.5).expires_at == 12.5
        assert make().expires_at is None


# Signers


def test_signer_sees_the_final_request() -> None:
    """A signer is handed method, URL, fields and, only where it asks for it, body; what it returns is added."""
    seen: list[UpstreamRequest] = []

    def sign(request: UpstreamRequest) -> list[tuple[str, str]]:
        seen.append(request)
        return [("X-Signature", "sig"), ("authorization", "Sig s")]

    fields = [(b"host", b"a.example"), (b"x_signature", b"evil")]
    added = [(b"X-Signature", b"sig"), (b"authorization", b"Sig s")]
    url = "https://a.example/x?y=%2F"
    plain, whole = Credential.signed(sign), Credential.signed(sign, needs_body=True)
    assert plain.sign("POST", url, fields, b"body") == [fields[0], *added]
    assert whole.sign("POST", url, fields, b"body") == [fields[0], *added]
    assert seen == [
        UpstreamRequest("POST", url, tuple(fields), None),
        UpstreamRequest("POST", url, tuple(fields), b"body"),
    ]
    assert (plain.signs, plain.needs_body, whole.needs_body) == (True, False, True)


def test_signers_see_each_others_fields() -> None:
    """Signers run in order, each seeing what the one before it added."""
    first = Credential.signed(lambda request: [(b"x-a", b"1")])
    second = Credential.signed(lambda request: {"x-b": str(len(request.fields)), "x-a": "2"}.items())
    assert Credential.combine(first, second).sign("GET", "https://a.example/", [], None) == [
        (b"x-b", b"1"),
        (b"x-a", b"2"),
    ]


def test_combination_needs_the_body_if_a_part_does() -> None:
    """One signer that needs the body makes the combination need it."""
    both = Credential.combine(Credential.bearer("t"), Credential.signed(nothing, needs_body=True))
    assert (both.needs_body, both.signs) == (True, True)
    assert not Credential.bearer("t").signs


@pytest.mark.parametrize("pair", [("Host", SECRET), ("content-length", "0"), ("x-a", f"{SECRET}\n"), ("a b", SECRET)])
def test_signer_cannot_break_the_framing(pair: tuple[str, str]) -> None:
    """What a signer returns is checked like any other field, and its values are not repeated."""
    with pytest.raises(ValueError, match="Credential") as caught:
        Credential.signed(lambda request: [pair]).sign("GET", "https://a.example/", [], None)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


# Secrets


def every_kind() -> list[Credential]:
    """A credential of each kind, and all of them together, holding the secret."""
    kinds = [
        Credential.bearer(SECRET),
        Credential.basic(SECRET, SECRET),
        Credential.header("x-key", SECRET, expires_at=1),
        Credential.query("key", SECRET),
        Credential.cookie("key", SECRET),
        Credential.signed(lambda request: [("x-key", SECRET)], needs_body=True),
    ]
    return [*kinds, Credential.combine(*kinds)]


@pytest.mark.parametrize("credential", every_kind())
def test_secrets_are_masked(credential: Credential) -> None:
    """No text made of a credential holds its secret, in clear or in base64."""
    texts = [repr(credential), str(credential), f"{credential}", f"{[credential]!r}", f"{credential!a}"]
    assert not any(SECRET in text or "czNjcmV0" in text for text in texts)
    assert "***" in repr(credential)


def test_repr_names_what_is_injected() -> None:
    """The text still says what kind of credential it is, and when it expires."""
    assert "authorization" in repr(Credential.bearer("t", expires_at=17))
    assert "17" in repr(Credential.bearer("t", expires_at=17))
    assert "query key" in repr(Credential.query("key", "v"))
    assert "cookie sid" in repr(Credential.cookie("sid", "v"))
    assert "signed" in repr(Credential.signed(nothing))


@pytest.mark.parametrize("credential", every_kind())
def test_pickling_is_refused(credential: Credential) -> None:
    """A credential does not get into a cache or a queue by accident."""
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(credential)


def test_equality() -> None:
    """Credentials are equal if they inject the same, whenever they expire."""
    assert Credential.bearer("t", expires_at=1) == Credential.bearer("t", expires_at=2)
    assert Credential.bearer("t") != Credential.bearer("u")
    assert Credential.query("a", "b") != Credential.cookie("a", "b")
    assert Credential.signed(nothing) == Credential.signed(nothing)
    assert Credential.signed(nothing) != Credential.signed(lambda request: [])


def test_credential_is_frozen() -> None:
    """A credential that is shared between requests cannot be changed."""
    with pytest.raises(AttributeError):
        Credential.bearer("t").expires_at = 1  # type: ignore[misc]


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"Authorization", b"AUTHORIZATION", b"authorization"]), st.just(b"x")))
)
def test_the_callers_authorization_never_survives(fields: list[Field]) -> None:
    """Whatever the caller sent, the injected field is the only one of its name."""
    given = put(Credential.bearer("t"), b"/", *fields)[0]
    assert [value for name, value in given if canonical(name) == b"authorization"] == [b"Bearer t"]
