"""What allowed and denied networks mean for IPv4 addresses in IPv6 disguise, and metadata services by their names."""

import socket

import pytest

from proxy_middleware.errors import AddressRefused
from proxy_middleware.models import EgressPolicy
from proxy_middleware.upstream.egress import AddrInfo, dialable, permits
from tests.upstream.test_egress import DRESSES, disguises

# Networks of whole forms, which say nothing about the IPv4 addresses within.
FORMS = ["::/0", "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "2001::/32", "2002::/16"]
INTERNAL = ["127.0.0.1", "10.1.2.3", "100.64.0.1", "192.168.1.1", "0.1.2.3", "224.0.0.1", "255.255.255.255"]
PUBLIC = ["8.8.8.8", "93.184.216.34", "223.255.255.255"]


def answer(address: str, name: str) -> AddrInfo:
    """What a look-up of a name gives."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.SOCK_STREAM, 6, name, (address, 443)


@pytest.mark.parametrize("dress", DRESSES)
@pytest.mark.parametrize("address", INTERNAL)
def test_internal_address_in_an_allowed_form(address: str, dress: str) -> None:
    """Who allows a translator's or tunnel's whole prefix has not allowed the internal networks behind it."""
    assert not permits(EgressPolicy(allow=FORMS), disguises(address)[dress])


@pytest.mark.parametrize("dress", [dress for dress in DRESSES if dress != "Teredo server" and "local" not in dress])
@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_in_an_allowed_form(address: str, dress: str) -> None:
    """What is public behind a translator or tunnel may be dialled once its prefix is allowed."""
    assert permits(EgressPolicy(allow=FORMS), disguises(address)[dress])


@pytest.mark.parametrize("dress", [dress for dress in DRESSES if dress != "Teredo server" and "local" not in dress])
def test_both_networks_allowed(dress: str) -> None:
    """An internal network is reached through a form where both are allowed."""
    policy = EgressPolicy(allow=[*FORMS, "10.0.0.0/8"])
    assert permits(policy, disguises("10.1.2.3")[dress])
    assert not permits(policy, disguises("127.0.0.1")[dress])


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("64:ff9b::10.0.0.0/104", "64:ff9b::10.1.2.3", "64:ff9b::11.1.2.3"),
        ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
        ("2002:a01:203::/48", "2002:a01:203::1", "2002:a01:204::1"),
    ],
)
def test_internal_network_named_in_disguise(network: str, inside: str, outside: str) -> None:
    """An internal network that is named in a disguise may be dialled in that one, and not in the plain form."""
    policy = EgressPolicy(allow=[network])
    assert permits(policy, inside)
    assert not permits(policy, outside)
    assert not permits(policy, "10.1.2.3")


def test_teredo_server_and_client() -> None:
    """Of a Teredo address both ends are judged, the client also where the server is named."""
    server, client = "2001:0:4137:9e76", disguises("10.1.2.3")["Teredo client"]
    assert client.startswith(server)
    assert not permits(EgressPolicy(allow=[f"{server}::/64"]), client)
    assert permits(EgressPolicy(allow=[f"{server}::/64", "10.0.0.0/8"]), client)
    assert permits(EgressPolicy(allow=[f"{server}::/64"]), disguises("8.8.8.8")["Teredo client"])


@pytest.mark.parametrize("prefix", ["64:ff9b:1:", "64:ff9b:1:fffe:", "64:ff9b:1:a00:0:0:"])
def test_local_translator(prefix: str) -> None:
    """The /96 of a local translator may be allowed, and leads to public addresses only, whatever its own bits say."""
    filled = prefix if prefix.count(":") == 6 else prefix + ":"
    policy = EgressPolicy(allow=[f"{filled}0.0.0.0/96"])
    assert permits(policy, f"{filled}8.8.8.8")
    assert not permits(policy, f"{filled}10.1.2.3")
    assert not permits(policy, f"{filled}169.254.169.254")


def test_local_translator_of_unknown_length() -> None:
    """All that RFC 8215 sets aside may be allowed, but no reading of an address may be internal."""
    policy = EgressPolicy(allow=["64:ff9b:1::/48"])
    assert not any(permits(policy, disguises("10.1.2.3")[dress]) for dress in DRESSES)
    assert permits(policy, "64:ff9b:1:808:8:808:808:808")


@pytest.mark.parametrize("address", ["::", "::1"])
def test_loopback_is_no_disguise(address: str) -> None:
    """`::` and `::1` are no IPv4-compatible addresses, and are allowed with any network around them."""
    assert permits(EgressPolicy(allow=["::/0"]), address)
    assert permits(EgressPolicy(allow=["::/127"], deny=["0.0.0.0/8"]), address)
    assert not permits(EgressPolicy(), address)


@pytest.mark.parametrize("dress", DRESSES)
@pytest.mark.parametrize("deny", ["10.0.0.0/8", "::ffff:10.0.0.0/104", "::ffff:a00:0/104"])
def test_denied_in_every_form(deny: str, dress: str) -> None:
    """A denied network holds for the plain form and every disguise, whether it is written plainly or as mapped."""
    policy = EgressPolicy(allow=["0.0.0.0/0", "::/0", disguises("10.1.2.3")[dress]], deny=[deny])
    assert not permits(policy, "10.1.2.3")
    assert not permits(policy, disguises("10.1.2.3")[dress])
    assert permits(policy, "11.1.2.3")


def test_denied_mapped_address() -> None:
    """A single address may be denied in its mapped form, and so may all of IPv4."""
    assert not permits(EgressPolicy(deny=["::ffff:8.8.8.8"]), "8.8.8.8")
    assert permits(EgressPolicy(deny=["::ffff:8.8.8.8"]), "8.8.4.4")
    assert not permits(EgressPolicy(deny=["::ffff:0:0/96"]), "8.8.8.8")


@pytest.mark.parametrize("deny", ["64:ff9b::/96", "2002::/16", "::/0", "::/95"])
def test_denied_forms_leave_plain_addresses(deny: str) -> None:
    """Who denies translators, tunnels or all of IPv6 has not denied plain IPv4 addresses."""
    assert permits(EgressPolicy(deny=[deny]), "8.8.8.8")


NAMES = [
    "metadata.google.internal",
    "metadata.goog",
    "metadata",
    "METADATA.Google.Internal",
    "metadata.google.internal.",
    "metadata.tencentyun.com",
    "instance-data",
    "instance-data.ec2.internal",
    "api.metadata.cloud.ibm.com",
    "metadata.platformequinix.com",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("address", ["10.1.2.3", "127.0.0.1", "8.8.8.8", "fd12::1", "::ffff:10.1.2.3"])
def test_metadata_by_name(name: str, address: str) -> None:
    """A metadata service is reached under its name only where its address is allowed exactly, wherever it is."""
    wide = EgressPolicy(allow=["0.0.0.0/0", "::/0"])
    with pytest.raises(AddressRefused):
        dialable(wide, [answer(address, name)])
    exact = EgressPolicy(allow=[address])
    assert dialable(exact, [answer(address, name)]) == [answer(address, name)]
    with pytest.raises(AddressRefused):
        dialable(EgressPolicy(allow=[address], deny=[address]), [answer(address, name)])


@pytest.mark.parametrize(
    "name", ["metadata.example", "my-metadata", "google.internal", "metadata.google.internal.x.y", ""]
)
def test_other_names(name: str) -> None:
    """Names that only resemble a metadata service's are judged by their addresses alone."""
    assert dialable(EgressPolicy(), [answer("8.8.8.8", name)]) == [answer("8.8.8.8", name)]
