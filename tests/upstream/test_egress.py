"""The egress policy: which addresses may be dialled."""

import socket
from ipaddress import ip_address, ip_network

import pytest

from proxy_middleware.errors import AddressRefused
from proxy_middleware.models import EgressPolicy
from proxy_middleware.upstream.egress import AddrInfo, dialable, permits

DEFAULT = EgressPolicy()


def words(text: str) -> list[str]:
    """A table written as text."""
    return text.split()


# First and last address of every block of the two IANA special-purpose registries, multicast, and what is reserved.
REFUSED = words(
    """
    0.0.0.0 0.255.255.255  10.0.0.0 10.255.255.255  100.64.0.0 100.127.255.255  127.0.0.0 127.255.255.255
    169.254.0.0 169.254.255.255  172.16.0.0 172.31.255.255  192.0.0.0 192.0.0.255  192.0.2.0 192.0.2.255
    192.31.196.0 192.31.196.255  192.52.193.0 192.52.193.255  192.88.99.0 192.88.99.255  192.168.0.0 192.168.255.255
    192.175.48.0 192.175.48.255  198.18.0.0 198.19.255.255  198.51.100.0 198.51.100.255  203.0.113.0 203.0.113.255
    224.0.0.0 239.255.255.255  240.0.0.0 255.255.255.255  :: ::1  ::2 ::ffff:ffff  ::ffff:0:0 ::ffff:ffff:ffff
    ::ffff:0:0:0 ::ffff:0:ffff:ffff  64:ff9b:: 64:ff9b::ffff:ffff  64:ff9b:1:: 64:ff9b:1:ffff:ffff:ffff:ffff:ffff
    100:: 100::ffff:ffff:ffff:ffff  100:0:0:1:: 100::1:ffff:ffff:ffff:ffff  2001:: 2001:0:ffff:ffff:ffff:ffff:ffff:ffff
    2001:1::1 2001:1::3  2001:2:: 2001:2:0:ffff:ffff:ffff:ffff:ffff  2001:3:: 2001:3:ffff:ffff:ffff:ffff:ffff:ffff
    2001:4:112:: 2001:4:112:ffff:ffff:ffff:ffff:ffff  2001:10:: 2001:1f:ffff:ffff:ffff:ffff:ffff:ffff
    2001:20:: 2001:2f:ffff:ffff:ffff:ffff:ffff:ffff  2001:30:: 2001:3f:ffff:ffff:ffff:ffff:ffff:ffff
    2001:: 2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff  2001:db8:: 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff
    2002:: 2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff  2620:4f:8000:: 2620:4f:8000:ffff:ffff:ffff:ffff:ffff
    3fff:: 3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff  5f00:: 5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff
    fc00:: fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff  fe80:: febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff
    fec0:: feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff  ff00:: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
    4000:: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff  :: 1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
    """
)

# The neighbours of those blocks, and some well-known hosts.
PERMITTED = words(
    """
    1.0.0.0 1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255
    169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.1.255 192.0.3.0 192.31.195.255 192.31.197.0
    192.52.192.255 192.52.194.0 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0 192.175.47.255 192.175.49.0
    198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255 168.63.129.15
    168.63.129.17 2000:: 2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2001:200:: 2001:4860:4860::8888
    2001:db7:ffff:ffff:ffff:ffff:ffff:ffff 2001:db9:: 2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2003::
    2606:4700:4700::1111 2620:4f:7fff:ffff:ffff:ffff:ffff:ffff 2620:4f:8001:: 2a00:1450::1
    3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff 3fff:1000:: 3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
    """
)

METADATA = words(
    """
    169.254.169.254 169.254.169.252 169.254.170.2 169.254.170.23 169.254.0.23 169.254.42.42 168.63.129.16 192.0.0.192
    100.100.100.200 100.96.0.96 fe80::a9fe:a9fe fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:c1::a9fe:a9fe
    fd00:100::100:200 fd00:42::42 fd00:a9fe:a9fe::1
    """
)

GARBAGE = words(
    """
    localhost example.com 127.1 0 1 2130706433 134744072 0x7f000001 0x08.8.8.8 08.8.8.8 010.8.8.8 8.8.8 8.8.8.8.
    .8.8.8.8 8.8.8.8.8 8.8.8.256 8.8.8.8/32 8.8.8.8:80 8.8.8.8%eth0 [2606:4700::1] 2606:4700::1/128 2606:4700::1%
    2606:4700::1%a%b 2606::4700::1 2606:4700::00001 8\u30028\u30028\u30028 \uff18.8.8.8 \u0668.8.8.8
    2606:4700::8.8.8.08 -1 +8.8.8.8
    """
)


def disguises(address: str) -> dict[str, str]:
    """An IPv4 address in every IPv6 dress, as text."""
    a, b, c, d = (int(part) for part in address.split("."))
    high, low = f"{a:02x}{b:02x}", f"{c:02x}{d:02x}"
    inverted = f"{a ^ 255:02x}{b ^ 255:02x}:{c ^ 255:02x}{d ^ 255:02x}"
    return {
        "compatible": f"::{address}",
        "mapped": f"::ffff:{address}",
        "mapped, in hex": f"::FFFF:{high}:{low}",
        "translated": f"::ffff:0:{address}",
        "NAT64": f"64:ff9b::{address}",
        "local NAT64 /48": f"64:ff9b:1:{high}:{c:02x}:{d:02x}00::",
        "local NAT64 /56": f"64:ff9b:1:00{a:02x}:{b:02x}:{c:02x}{d:02x}::",
        "local NAT64 /64": f"64:ff9b:1:0:{a:02x}:{b:02x}{c:02x}:{d:02x}00:0",
        "local NAT64 /96": f"64:ff9b:1::{address}",
        "Teredo client": f"2001:0:4137:9e76::{inverted}",
        "Teredo server": f"2001:0:{high}:{low}::1",
        "6to4": f"2002:{high}:{low}::1",
    }


DRESSES = list(disguises("8.8.8.8"))


def answers(*addresses: str) -> list[AddrInfo]:
    """What getaddrinfo gives for these addresses."""
    return [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 443, 0, 0))
        if ":" in address
        else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))
        for address in addresses
    ]


@pytest.mark.parametrize("address", REFUSED)
def test_special_refused(address: str) -> None:
    """The first and the last address of every special-purpose block are refused."""
    assert not permits(DEFAULT, address)


@pytest.mark.parametrize("address", PERMITTED)
def test_public_permitted(address: str) -> None:
    """Public addresses may be dialled, up to the edges of the special-purpose blocks."""
    assert permits(DEFAULT, address)


@pytest.mark.parametrize("dress", DRESSES)
@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "8.8.8.8"])
def test_disguises_refused(address: str, dress: str) -> None:
    """An IPv4 address in IPv6 disguise is refused, be it public or not."""
    assert not permits(DEFAULT, disguises(address)[dress])


@pytest.mark.parametrize(
    "address", [*GARBAGE, "", " ", "8.8.8.8 ", " 8.8.8.8", "8.8.8.8\n", "8.8.8.8\0", "2606:4700::1\n"]
)
@pytest.mark.parametrize("policy", [DEFAULT, EgressPolicy(allow=["0.0.0.0/0", "::/0"])], ids=["default", "all allowed"])
def test_garbage_refused(policy: EgressPolicy, address: str) -> None:
    """What is no IP literal in its one canonical notation is refused, whatever is allowed."""
    assert not permits(policy, address)


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fe80::1%2", "fe80::a9fe:a9fe%eth0", "::1%lo", "ff02::1%eth0"])
def test_scope_ignored_when_refusing(address: str) -> None:
    """A scope does not make a special address dialable."""
    assert not permits(DEFAULT, address)


def test_scope_ignored_when_allowing() -> None:
    """A network that is allowed holds for its addresses with a scope, and a denied one too."""
    assert permits(EgressPolicy(allow=["fe80::/10"]), "fe80::1%eth0")
    assert not permits(EgressPolicy(allow=["fe80::/10"]), "fe80::a9fe:a9fe%eth0")
    assert permits(EgressPolicy(allow=["fe80::a9fe:a9fe"]), "fe80::a9fe:a9fe%eth0")
    assert not permits(EgressPolicy(allow=["fe80::/10"], deny=["fe80::1"]), "fe80::1%eth0")


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("10.1.0.0/16", "10.1.2.3", "10.2.0.0"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
        ("fd12::/16", "fd12::1", "fd13::1"),
        ("::1/128", "::1", "::2"),
        ("64:ff9b::/96", "64:ff9b::8.8.8.8", "64:ff9b:1::8.8.8.8"),
        ("2002:808:808::/48", "2002:808:808::1", "2002:808:809::1"),
    ],
)
def test_allow(network: str, inside: str, outside: str) -> None:
    """A network that is allowed by name may be dialled; its neighbours may not."""
    policy = EgressPolicy(allow=[network])
    assert permits(policy, inside)
    assert not permits(policy, outside)
    assert permits(policy, "8.8.8.8")


def test_allow_is_per_family() -> None:
    """All of IPv4 does not allow IPv6 addresses, nor the other way round."""
    assert not permits(EgressPolicy(allow=["0.0.0.0/0"]), "::1")
    assert not permits(EgressPolicy(allow=["::/0"]), "127.0.0.1")


@pytest.mark.parametrize("dress", DRESSES)
def test_allowed_ipv4_in_disguise(dress: str) -> None:
    """A network of IPv4 addresses allows the mapped form, which is the same host, and no other disguise."""
    policy = EgressPolicy(allow=["10.0.0.0/8", "8.8.8.8"])
    for address in ("10.1.2.3", "8.8.8.8"):
        assert permits(policy, disguises(address)[dress]) == dress.startswith("mapped")


@pytest.mark.parametrize("address", ["8.8.8.8", "10.1.2.3", "2606:4700::1", "fd12::1"])
@pytest.mark.parametrize("width", ["same", "wider", "all"])
def test_deny_beats_allow(address: str, width: str) -> None:
    """A denied network is refused although it is public, or allowed just as exactly or more exactly."""
    length = ip_address(address).max_prefixlen
    prefix = {"same": length, "wider": length - 16, "all": 0}[width]
    deny = str(ip_network(f"{address}/{prefix}", strict=False))
    assert not permits(EgressPolicy(deny=[deny]), address)
    assert not permits(EgressPolicy(allow=[address], deny=[deny]), address)


def test_deny_leaves_the_rest() -> None:
    """What is not denied stays as it was, in the other address family too."""
    policy = EgressPolicy(allow=["10.0.0.0/8"], deny=["10.1.0.0/16", "::/0"])
    assert permits(policy, "10.2.0.0")
    assert permits(policy, "8.8.8.8")
    assert not permits(policy, "10.1.0.0")
    assert not permits(policy, "2606:4700::1")


@pytest.mark.parametrize("dress", DRESSES)
def test_deny_sees_through_disguises(dress: str) -> None:
    """A denied IPv4 network is denied in every IPv6 disguise, also where the disguise is allowed by name."""
    policy = EgressPolicy(allow=["0.0.0.0/0", "::/0"], deny=["93.184.216.0/24"])
    assert not permits(policy, disguises("93.184.216.34")[dress])
    assert permits(policy, disguises("93.184.217.34")[dress])


@pytest.mark.parametrize("address", METADATA)
def test_metadata(address: str) -> None:
    """Metadata addresses are allowed by their exact name only, however close or wide another network is."""
    length = ip_address(address).max_prefixlen
    around = [str(ip_network(f"{address}/{prefix}", strict=False)) for prefix in range(length)]
    assert not permits(DEFAULT, address)
    assert not permits(EgressPolicy(allow=around), address)
    assert permits(EgressPolicy(allow=[address]), address)
    assert permits(EgressPolicy(allow=[*around, f"{address}/{length}"]), address)
    assert not permits(EgressPolicy(allow=[address], deny=[address]), address)
    other = "169.254.169.254" if address != "169.254.169.254" else "169.254.170.2"
    assert not permits(EgressPolicy(allow=[other]), address)


@pytest.mark.parametrize("dress", DRESSES)
@pytest.mark.parametrize("address", [address for address in METADATA if "." in address])
def test_metadata_in_disguise(address: str, dress: str) -> None:
    """A disguised metadata address wants the disguise's own exact name; the mapped form takes the plain one too."""
    disguised = disguises(address)[dress]
    around = [str(ip_network(f"{disguised}/{prefix}", strict=False)) for prefix in range(128)]
    assert not permits(EgressPolicy(allow=["0.0.0.0/0", *around]), disguised)
    assert permits(EgressPolicy(allow=[disguised]), disguised)
    assert permits(EgressPolicy(allow=[address, "::/0"]), disguised) == dress.startswith("mapped")
    assert not permits(EgressPolicy(allow=[disguised], deny=[address]), disguised)


def test_dialable_keeps_good_addresses_in_order() -> None:
    """A name that resolves to good and bad addresses is dialled at the good ones, in the resolver's order."""
    found = answers("127.0.0.1", "2606:4700::1", "fe80::1%eth0", "8.8.8.8", "::ffff:8.8.8.8", "1.1.1.1")
    assert dialable(DEFAULT, found) == [found[1], found[3], found[5]]
    assert dialable(DEFAULT, iter(found)) == [found[1], found[3], found[5]]


def test_dialable_refuses_when_none_is_left() -> None:
    """Only bad addresses, or none at all: AddressRefused, whose detail names no address."""
    with pytest.raises(AddressRefused) as refused:
        dialable(DEFAULT, answers("10.20.30.40", "::1"))
    assert "10.20.30.40" not in refused.value.detail
    with pytest.raises(AddressRefused):
        dialable(DEFAULT, [])


@pytest.mark.parametrize("spelling", ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0", "::1"])
def test_dialable_after_a_real_look_up(spelling: str) -> None:
    """However loopback is spelled, what the system's resolver makes of it is refused, and dialable once allowed."""
    found = socket.getaddrinfo(spelling, 443, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    with pytest.raises(AddressRefused):
        dialable(DEFAULT, found)
    assert dialable(EgressPolicy(allow=["127.0.0.1", "0.0.0.0", "::1"]), found) == found
