"""Any egress policy and any address, compared with an oracle that works on digits, not on networks."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import example, given
from hypothesis import strategies as st

from proxy_middleware.models import EgressPolicy
from proxy_middleware.upstream.egress import permits
from tests.upstream.test_egress import DEFAULT, DRESSES, METADATA, PERMITTED, REFUSED, disguises


def digits(address: str) -> str:
    """The address as binary digits, 32 or 128 of them."""
    plain = ip_address(address.partition("%")[0])
    return f"{int(plain):0{plain.max_prefixlen}b}"


def starts(network: str) -> str:
    """The binary digits that all addresses of a network start with."""
    address, _, prefix = network.partition("/")
    return digits(address)[: int(prefix)] if prefix else digits(address)


def oracle_hidden(address: str) -> Iterator[tuple[int, str]]:
    """The IPv4 addresses inside an IPv6 one, cut out of its 32 hex digits: behind how many, and as eight."""
    if ":" not in address:
        return
    digit = IPv6Address(address.partition("%")[0]).exploded.replace(":", "")
    if digit[:31] == "0" * 31 and digit[31] in "01":
        return
    if digit[:24] in ("0" * 24, "0" * 20 + "ffff", "0" * 16 + "ffff0000", "0064ff9b" + "0" * 16):
        yield 24, digit[24:]
    if digit.startswith("0064ff9b0001"):
        yield 12, digit[12:16] + digit[18:22]
        yield 14, digit[14:16] + digit[18:24]
        yield 16, digit[18:26]
        yield 24, digit[24:]
    if digit.startswith("20010000"):
        yield 8, digit[8:16]
        yield 24, "".join(f"{15 - int(each, 16):x}" for each in digit[24:])
    if digit.startswith("2002"):
        yield 4, digit[4:12]


def oracle_special(address: str) -> bool:
    """Whether an address is none of a public host, decided on its numbers from left to right."""
    if ":" in address:
        groups = [int(g, 16) for g in IPv6Address(address.partition("%")[0]).exploded.split(":")]
        match groups[0]:
            case 0x2001:
                return groups[1] < 0x200 or groups[1] == 0xDB8
            case 0x2620:
                return groups[1:3] == [0x4F, 0x8000]
            case 0x3FFF:
                return groups[1] < 0x1000
            case first:
                return first == 0x2002 or not 0x2000 <= first < 0x4000
    match [int(part) for part in address.split(".")]:
        case [0 | 10 | 127, *_] | [169, 254, *_] | [192, 168, *_] | [198, 18 | 19, *_]:
            return True
        case [192, 0, 0 | 2, _] | [192, 31, 196, _] | [192, 52, 193, _] | [192, 88, 99, _] | [192, 175, 48, _]:
            return True
        case [198, 51, 100, _] | [203, 0, 113, _]:
            return True
        case [first, second, *_]:
            return first >= 224 or (first == 100 and second // 64 == 1) or (first == 172 and second // 16 == 1)
    raise AssertionError(address)


def oracle(allow: list[str], deny: list[str], address: str) -> bool:
    """The policy once more, on strings of binary digits."""
    own = digits(address)
    hidden = [(4 * place, f"{int(each, 16):032b}") for place, each in oracle_hidden(address)]
    inner = [each for _, each in hidden]

    def names(network: str, candidates: list[str]) -> bool:
        width = 128 if ":" in network else 32
        return any(len(each) == width and each.startswith(starts(network)) for each in candidates)

    def denies(network: str) -> bool:
        start, mapped = starts(network), "0" * 80 + "1" * 16
        unmapped = start[96:] if ":" in network and start.startswith(mapped) else "none"
        plain = any(len(each) == 32 and each.startswith(unmapped) for each in [own, *inner])
        return plain or names(network, [own, *inner])

    def fine(each: str) -> bool:
        plain = any(names(network, [each]) for network in allow)
        return plain or not oracle_special(str(IPv4Address(int(each, 2))))

    if any(map(denies, deny)):
        return False
    mapped = inner if own.startswith("0" * 80 + "1" * 16) and len(own) == 128 else []
    matching = [network for network in allow if names(network, [own, *mapped])]
    if any(len(starts(network)) == (128 if ":" in network else 32) for network in matching):
        return True
    if {own, *inner} & {digits(each) for each in METADATA}:
        return False
    free = [[each for place, each in hidden if place >= len(starts(network))] for network in matching]
    return not oracle_special(address) or any(all(map(fine, each)) for each in free)


def near(address: str) -> list[str]:
    """The address and its two neighbours."""
    kind = type(ip_address(address))
    last = (1 << ip_address(address).max_prefixlen) - 1
    return [str(kind(min(max(int(ip_address(address)) + step, 0), last))) for step in (-1, 0, 1)]


EDGES = [neighbour for address in [*REFUSED, *PERMITTED, *METADATA] for neighbour in near(address)]
ipv4 = st.one_of(
    st.sampled_from([each for each in EDGES if ":" not in each]), st.integers(0, 2**32 - 1).map(IPv4Address).map(str)
)
ipv6 = st.one_of(
    st.sampled_from([each for each in EDGES if ":" in each]),
    st.integers(0, 2**128 - 1).map(IPv6Address).map(str),
    st.builds(lambda address, dress: disguises(address)[dress], ipv4, st.sampled_from(DRESSES)),
    st.builds(lambda prefix, low: str(IPv6Address(prefix << 112 | low)), st.integers(0, 0xFFFF), st.integers(0, 2**64)),
)
addresses = st.one_of(ipv4, ipv6, ipv6.map(lambda address: f"{address}%eth0"))


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], list[str], str]:
    """Networks to allow and to deny, most of them around the address, and the address."""
    address = draw(addresses)
    plain = address.partition("%")[0]
    inner = [str(IPv4Address(int(each, 16))) for _, each in oracle_hidden(address)]

    def network() -> str:
        centre = draw(st.one_of(st.sampled_from([plain, *inner]), ipv4, ipv6))
        length = ip_address(centre).max_prefixlen
        prefix = draw(st.one_of(st.just(length), st.integers(0, length)))
        return str(ip_network(f"{centre}/{prefix}", strict=False))

    allow = [network() for _ in range(draw(st.integers(0, 2)))]
    deny = [network() for _ in range(draw(st.sampled_from([0, 0, 1])))]
    return allow, deny, address


@given(cases())
@example((["::/0"], [], "64:ff9b:1:a9fe:a9:fe00::"))
@example((["169.254.169.254/32"], [], "::ffff:a9fe:a9fe"))
def test_agrees_with_the_oracle(case: tuple[list[str], list[str], str]) -> None:
    """Any policy decides on any address as the independent oracle does."""
    allow, deny, address = case
    assert permits(EgressPolicy(allow=allow, deny=deny), address) == oracle(allow, deny, address)


@given(addresses)
def test_refuses_what_the_standard_library_knows(address: str) -> None:
    """Whatever a predicate of `ipaddress` calls special is refused by default; the reverse does not hold."""
    literal = ip_address(address)
    known = ("private", "loopback", "link_local", "multicast", "reserved", "unspecified", "site_local")
    special = not literal.is_global or any(getattr(literal, f"is_{kind}", False) for kind in known)
    assert not (special and permits(DEFAULT, address))


@given(st.text(max_size=20))
def test_text_is_an_address_or_refused(text: str) -> None:
    """Arbitrary text never raises, and is never permitted unless it is an IP literal."""
    if permits(EgressPolicy(allow=["0.0.0.0/0", "::/0"]), text):
        ip_address(text)
