"""What a strict authorization server knows and decides: `tests.token_endpoint` puts it on the wire.

It rotates refresh tokens, and revokes all tokens of a grant when a spent one comes back (RFC 9700 section 4.14.2). It
verifies every kind of client authentication by itself: form-encoded Basic (RFC 6749 section 2.3.1), and signed
assertions with their audience, lifetime and id (RFC 7523 section 3).
"""

import base64
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_pem_public_key

CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


class Refusal(Exception):
    """An error of RFC 6749 section 5.2."""

    def __init__(self, code: str, status: int = 400) -> None:
        super().__init__(code)
        self.code, self.status = code, status


@dataclass
class Family:
    """All tokens that come from one consent."""

    client_id: str
    refresh_token: str = ""
    spent: set[str] = field(default_factory=set)
    access_tokens: set[str] = field(default_factory=set)
    revoked: bool = False


class Grants:
    """What the server knows. Everything here is done under one lock.

    Attributes:
        rotate: Whether each refresh gives a new refresh token.
        expires_in: Goes into the answers as it is; None leaves it out.
        members: Further members of every answer.
        forms: Every token request that passed the client authentication, parsed.
        claims: Of every assertion that was accepted.
        counts: Of token calls, grants, API calls and so on, by name.
    """

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.url = ""
        self.rotate = True
        self.expires_in: Any = 3600
        self.members: dict[str, Any] = {"token_type": "Bearer"}
        self.counts: Counter[str] = Counter()
        self.forms: list[dict[str, str]] = []
        self.claims: list[dict[str, Any]] = []
        self._clients: dict[str, tuple[str, str]] = {}
        self._issuers: dict[str, str] = {}
        self._families: list[Family] = []
        self._valid: dict[str, float] = {}
        self._jtis: set[str] = set()

    # What tests do.

    def register(self, client_id: str, auth: str = "client_secret_basic", key: str = "") -> None:
        """Makes a client known: `key` is its secret, or the PEM of its public key."""
        with self.lock:
            self._clients[client_id] = (auth, key)

    def trust(self, issuer: str, public_key: str) -> None:
        """Accepts assertions as grants from this issuer."""
        with self.lock:
            self._issuers[issuer] = public_key

    def connect(self, client_id: str = "client") -> dict[str, Any]:
        """What the token endpoint gives for an authorization code: the tokens of a new consent."""
        with self.lock:
            self._families.append(Family(client_id))
            return self._issue(self._families[-1], rotate=True)

    def expire_access_tokens(self) -> None:
        """Rejects every access token that was given so far."""
        with self.lock:
            self._valid.clear()

    def revoke(self) -> None:
        """Takes back every consent."""
        with self.lock:
            for family in self._families:
                self._revoke(family)

    def settle(self, rotate: bool = True, expires_in: Any = 3600, members: Mapping[str, Any] | None = None) -> None:
        """Sets what answers look like from now on."""
        with self.lock:
            self.rotate, self.expires_in = rotate, expires_in
            self.members = {"token_type": "Bearer", **(members or {})}

    def state(self) -> dict[str, int]:
        """The counts."""
        with self.lock:
            return dict(self.counts)

    def wait_for(self, name: str, count: int = 1) -> None:
        """Waits until something has been counted so often."""
        with self.lock:
            if not self.lock.wait_for(lambda: self.counts[name] >= count, timeout=20):
                raise TimeoutError(f"{name}: {self.counts[name]} of {count}")

    # What requests do.

    def count(self, name: str) -> None:
        with self.lock:
            self.counts[name] += 1
            self.lock.notify_all()

    def token(self, form: dict[str, str], authorization: str | None, *, same: bool = False) -> dict[str, Any]:
        """The answer to a token request; raises Refusal."""
        with self.lock:
            grant = form.get("grant_type", "")
            anonymous = grant == JWT_BEARER and authorization is None and "client_id" not in form
            client_id = "" if anonymous else self._authenticated(form, authorization)
            self.forms.append(form)
            self.counts[grant] += 1
            if grant == "refresh_token":
                return self._refresh(client_id, form.get("refresh_token", ""), same)
            if grant == JWT_BEARER:
                self._verify_grant(form.get("assertion", ""))
            elif grant != "client_credentials" or self._clients[client_id][0] == "none":
                raise Refusal("unauthorized_client")
            return self._issue(None, rotate=False)

    def accepts(self, access_token: str) -> bool:
        """Whether the API does."""
        with self.lock:
            return self._valid.get(access_token, 0) > time.time()

    def _refresh(self, client_id: str, token: str, same: bool) -> dict[str, Any]:
        for family in self._families:
            if token in family.spent:
                self.counts["reuses"] += 1
                self._revoke(family)
                break
            if family.refresh_token == token and family.client_id == client_id and not family.revoked:
                if same:
                    return {"access_token": sorted(family.access_tokens)[-1], **self.members}
                return self._issue(family, rotate=self.rotate)
        raise Refusal("invalid_grant")

    def _issue(self, family: Family | None, rotate: bool) -> dict[str, Any]:
        access = f"access-{self.counts['issued']:06}-{secrets.token_urlsafe(16)}"
        self.counts["issued"] += 1
        life = self.expires_in if isinstance(self.expires_in, int) and self.expires_in > 0 else 3600
        self._valid[access] = time.time() + min(life, 10**9)
        answer = {"access_token": access, **self.members}
        if self.expires_in is not None:
            answer["expires_in"] = self.expires_in
        if family is not None:
            family.access_tokens.add(access)
        if family is not None and rotate:
            family.spent |= {family.refresh_token} - {""}
            family.refresh_token = answer["refresh_token"] = f"refresh-{secrets.token_urlsafe(16)}"
        return answer

    def _revoke(self, family: Family) -> None:
        family.revoked = True
        for token in family.access_tokens:
            self._valid.pop(token, None)

    def _authenticated(self, form: dict[str, str], authorization: str | None) -> str:
        """The client, if it proves that it is the one; each may do so in its one way only."""
        client_id, way, proof = form.get("client_id", ""), "none", ""
        if authorization is not None:
            client_id, proof = _basic(authorization)
            way = "client_secret_basic"
        if "client_secret" in form:
            way, proof = "client_secret_post" if way == "none" else "two ways", form["client_secret"]
        if "client_assertion" in form:
            way = "private_key_jwt" if way == "none" else "two ways"
            client_id = client_id or _claims(form["client_assertion"]).get("sub", "")
        known, key = self._clients.get(client_id, ("unknown", ""))
        if way != known:
            raise Refusal("invalid_client", 401)
        if way == "private_key_jwt":
            self._verify_client(client_id, form, key)
        elif not secrets.compare_digest(proof.encode(), key.encode()):
            raise Refusal("invalid_client", 401)
        return client_id

    def _verify_client(self, client_id: str, form: dict[str, str], key: str) -> None:
        claims = _claims(form["client_assertion"])
        names = (form.get("client_assertion_type"), claims.get("iss"), claims.get("sub"))
        if names != (CLIENT_ASSERTION, client_id, client_id):
            raise Refusal("invalid_client", 401)
        self._verify(form["client_assertion"], key, "invalid_client")

    def _verify_grant(self, assertion: str) -> None:
        issuer = _claims(assertion).get("iss", "")
        if issuer not in self._issuers:
            raise Refusal("invalid_grant")
        self._verify(assertion, self._issuers[issuer], "invalid_grant")

    def _verify(self, assertion: str, public_key: str, code: str) -> None:
        claims = _claims(assertion)
        self.counts[f"kid {_header(assertion).get('kid')}"] += 1
        good = (
            claims.get("aud") == f"{self.url}/token"
            and time.time() < claims.get("exp", 0) <= time.time() + 3600
            and claims.get("jti") not in {*self._jtis, None}
            and _signed(assertion, public_key)
        )
        if not good:
            raise Refusal(code, 401 if code == "invalid_client" else 400)
        self._jtis.add(claims["jti"])
        self.claims.append(claims)


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, text = authorization.partition(" ")
    name, colon, secret = base64.b64decode(text, validate=True).decode("ascii").partition(":")
    if scheme != "Basic" or not colon or ":" in secret:
        raise Refusal("invalid_client", 401)
    return unquote_plus(name, errors="strict"), unquote_plus(secret, errors="strict")


def _part(jwt: str, index: int) -> bytes:
    part = jwt.split(".")[index]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _header(jwt: str) -> dict[str, Any]:
    return dict(json.loads(_part(jwt, 0)))


def _claims(jwt: str) -> dict[str, Any]:
    return dict(json.loads(_part(jwt, 1)))


def _signed(jwt: str, public_key: str) -> bool:
    """Whether the signature is that of the key (RFC 7518 sections 3.3 to 3.5)."""
    kind, digest = _header(jwt)["alg"][:2], HASHES[_header(jwt)["alg"][2:]]
    key, data, signature = load_pem_public_key(public_key.encode()), jwt.rpartition(".")[0].encode(), _part(jwt, 2)
    try:
        if kind == "ES" and isinstance(key, ec.EllipticCurvePublicKey):
            half = len(signature) // 2
            numbers = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
            key.verify(utils.encode_dss_signature(*numbers), data, ec.ECDSA(digest))
            return True
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
        key.verify(signature, data, padding.PKCS1v15() if kind == "RS" else pss, digest)
    except InvalidSignature:
        return False
    return True
