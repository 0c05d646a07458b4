"""Which addresses may be dialled: checked on the address itself, after the name look-up.

Explicit tables, because the predicates of `ipaddress` call `224.0.0.1`, `64:ff9b::7f00:1` and `2002:7f00:1::` global
and change from one Python release to the next. Sources: the IANA IPv4 and IPv6 special-purpose address registries
(RFC 6890), the IPv4 multicast registry, and the IPv6 address space registry.
"""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

from proxy_middleware.errors import AddressRefused
from proxy_middleware.models import EgressPolicy

__all__ = ["AddrInfo", "dialable", "permits"]

AddrInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""What a look-up gives: family, type, protocol, the name that was looked up, socket address."""

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2: the socket layer dials the IPv4 address

_SPECIAL = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",  # "this network", RFC 791; Linux takes 0.0.0.0 for loopback
        "10.0.0.0/8",  # private, RFC 1918
        "100.64.0.0/10",  # shared (CGNAT), RFC 6598
        "127.0.0.0/8",  # loopback, RFC 1122
        "169.254.0.0/16",  # link-local, RFC 3927
        "172.16.0.0/12",  # private, RFC 1918
        "192.0.0.0/24",  # IETF protocol assignments, RFC 6890
        "192.0.2.0/24",  # documentation, RFC 5737
        "192.31.196.0/24",  # AS112, RFC 7535
        "192.52.193.0/24",  # AMT, RFC 7450
        "192.88.99.0/24",  # 6to4 and 6a44 relays, RFC 7526
        "192.168.0.0/16",  # private, RFC 1918
        "192.175.48.0/24",  # AS112, RFC 7534
        "198.18.0.0/15",  # benchmarking, RFC 2544
        "198.51.100.0/24",  # documentation, RFC 5737
        "203.0.113.0/24",  # documentation, RFC 5737
        "224.0.0.0/4",  # multicast, RFC 5771
        "240.0.0.0/4",  # reserved, RFC 1112; limited broadcast
        # All but 2000::/3, the only block that IANA delegates for global unicast (RFC 4291 section 2.4). Among them:
        "::/3",  # ::, ::1, IPv4-compatible, mapped, translated, NAT64 64:ff9b::/96 and 64:ff9b:1::/48, discard 100::/64
        "4000::/2",  # SRv6 SIDs 5f00::/16
        "8000::/1",  # unique local fc00::/7, link-local fe80::/10, site-local fec0::/10, multicast ff00::/8
        "2001::/23",  # IETF protocol assignments, RFC 2928: Teredo, benchmarking, AMT, AS112, ORCHID, drone ids
        "2001:db8::/32",  # documentation, RFC 3849
        "2002::/16",  # 6to4, RFC 3056
        "2620:4f:8000::/48",  # AS112, RFC 7534
        "3fff::/20",  # documentation, RFC 9637
    )
)

_METADATA = frozenset(
    ip_address(address)
    for address in (
        "169.254.169.254",  # most clouds
        "169.254.169.252",  # Google Kubernetes Engine
        "fe80::a9fe:a9fe",  # OpenStack
        "169.254.170.2",  # AWS ECS
        "169.254.170.23",  # AWS EKS pod identity
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS EKS pod identity
        "168.63.129.16",  # Azure wire server; a public address
        "fd20:ce::254",  # Google
        "192.0.0.192",  # Oracle classic
        "fd00:c1::a9fe:a9fe",  # Oracle
        "100.100.100.200",  # Alibaba
        "fd00:100::100:200",  # Alibaba
        "169.254.0.23",  # Tencent
        "100.96.0.96",  # Volcano Engine
        "169.254.42.42",  # Scaleway
        "fd00:42::42",  # Scaleway
        "fd00:a9fe:a9fe::1",  # Akamai
    )
)


# Wherever they lead: emulators and node agents answer under these names on private addresses.
_METADATA_NAMES = frozenset(
    {
        "api.metadata.cloud.ibm.com",
        "instance-data",  # AWS
        "instance-data.ec2.internal",
        "metadata",  # Google
        "metadata.goog",
        "metadata.google.internal",
        "metadata.packet.net",  # Equinix
        "metadata.platformequinix.com",
        "metadata.tencentyun.com",
        "rancher-metadata",
    }
)


class _Disguise(NamedTuple):
    """Where an IPv4 address hides in an IPv6 one: from which bit on, and in the lowest 32 bits of what `read` gives."""

    network: IPv6Network
    start: int
    read: Callable[[int], int]


def _low(bits: int) -> int:
    return bits


def _nat64(prefix: int) -> _Disguise:
    """Where RFC 6052 section 2.2 puts the IPv4 address behind a /48, /56 or /64: around bits 64 to 71, always zero."""
    return _Disguise(
        IPv6Network("64:ff9b:1::/48"),
        prefix,
        lambda bits: ((bits >> 64) << 56 | bits & ((1 << 56) - 1)) >> (88 - prefix),
    )


_DISGUISES = (
    _Disguise(IPv6Network("::/96"), 96, _low),
    _Disguise(_MAPPED, 96, _low),
    _Disguise(IPv6Network("::ffff:0:0:0/96"), 96, _low),
    _Disguise(IPv6Network("64:ff9b::/96"), 96, _low),
    # RFC 8215 leaves the length of the translator's prefix to the network's operator.
    _nat64(48),
    _nat64(56),
    _nat64(64),
    _Disguise(IPv6Network("64:ff9b:1::/48"), 96, _low),
    # RFC 4380 section 4: the Teredo server, and the client with its bits inverted.
    _Disguise(IPv6Network("2001::/32"), 32, lambda bits: bits >> 64),
    _Disguise(IPv6Network("2001::/32"), 96, lambda bits: ~bits),
    _Disguise(IPv6Network("2002::/16"), 16, lambda bits: bits >> 80),
)


def permits(policy: EgressPolicy, address: str, name: str = "") -> bool:
    """Whether this address may be dialled. Looks nothing up.

    Args:
        policy: `deny` beats `allow`, and holds for an IPv4 address in IPv6 disguise too. `allow` names the address as
            it is dialled; a mapped one (`::ffff:0:0/96`) may be named by its IPv4 address as well. A network of
            disguises, such as `64:ff9b::/96`, allows those of public and of allowed IPv4 addresses.
        address: As the socket layer gives it, perhaps with a `%scope`. Whatever is no IP literal is refused.
        name: What was looked up. Under the name of a metadata service every address is one.
    """
    try:
        literal = _parse(address)
    except ValueError:
        return False
    hidden = _hidden(literal)
    forms = {literal, *(part for _, part in hidden)}
    if any(_within(part, map(_plain, policy.denied)) for part in forms):
        return False
    named = forms if literal in _MAPPED else {literal}
    allowing = [network for network in policy.allowed if any(part in network for part in named)]
    if any(network.prefixlen == network.max_prefixlen for network in allowing):
        return True
    if not _METADATA.isdisjoint(forms) or name.lower().rstrip(".") in _METADATA_NAMES:
        return False
    return not _within(literal, _SPECIAL) or any(_leads_out(policy, network, hidden) for network in allowing)


def dialable(policy: EgressPolicy, addresses: Iterable[AddrInfo]) -> list[AddrInfo]:
    """Those of a look-up's answers that may be dialled, in their order.

    Raises:
        AddressRefused: None is left.
    """
    permitted = [info for info in addresses if permits(policy, info[4][0], info[3])]
    if not permitted:
        raise AddressRefused
    return permitted


def _parse(address: str) -> _Address:
    literal = ip_address(address)
    # Without its scope, since scoped addresses compare unequal to plain ones.
    return literal if isinstance(literal, IPv4Address) else IPv6Address(int(literal))


def _hidden(literal: _Address) -> list[tuple[int, IPv4Address]]:
    """Every IPv4 address that this one may be a disguise of, and the bit at which it starts."""
    bits = int(literal)
    # RFC 4291 section 2.5.5.1: `::` and `::1` lie among the IPv4-compatible addresses, and are none.
    if bits <= 1:
        return []
    return [(start, IPv4Address(read(bits) & 0xFFFFFFFF)) for network, start, read in _DISGUISES if literal in network]


def _plain(network: _Network) -> _Network:
    """Mapped addresses as the IPv4 addresses that they are."""
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def _leads_out(policy: EgressPolicy, network: _Network, hidden: Iterable[tuple[int, IPv4Address]]) -> bool:
    """Whether the hidden addresses of which an allowed network says nothing are public, or allowed themselves."""
    return all(
        start < network.prefixlen or _within(part, policy.allowed) or not _within(part, _SPECIAL)
        for start, part in hidden
    )


def _within(address: _Address, networks: Iterable[_Network]) -> bool:
    return any(address in network for network in networks)
