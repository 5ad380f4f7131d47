//! Decides which addresses may be connected to if the user has not chosen the host.
//!
//! Rules: a name that a server supplies must not lead to an address that only this machine or its network reaches,
//! unless the server itself is there. It must not lead to an address that belongs to no single host either. Only the
//! address counts: an IPv6 address that embeds an IPv4 address is treated like that IPv4 address. A proxy resolves
//! names itself, so behind a proxy only hosts that need no lookup are checked.
//!
//! The networks come from IANA's special-purpose address registries (RFC 6890) and its address space lists.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Which addresses an HTTP client connects to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Addresses {
    /// Any.
    #[default]
    Any,
    /// Public addresses, and addresses with the same reach as those of this host. If the host has a public address,
    /// only public ones. The host is a name, or an address without brackets.
    Like(String),
}

/// From where an address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressScope {
    Everybody,
    /// A private network.
    Network,
    /// The local link.
    Link,
    Machine,
    /// Not the address of a single host.
    Nobody,
}

impl AddressScope {
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [127, ..] => Self::Machine,
            [169, 254, ..] => Self::Link,
            [10, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            // Carrier-grade NAT (RFC 6598) and benchmarking (RFC 2544).
            | [100, 64..=127, ..]
            | [198, 18 | 19, ..] => Self::Network,
            // "This network", protocol assignments, documentation, former 6to4 relays (RFC 7526), multicast, and
            // reserved.
            [0 | 224..=255, ..]
            | [192, 0, 0 | 2, _]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [192, 88, 99, _] => Self::Nobody,
            _ => Self::Everybody,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Machine,
            // Unique local, and the former site-local (RFC 3879).
            [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Self::Network,
            [0xfe80..=0xfebf, ..] => Self::Link,
            // Protocol assignments, including Teredo, which embeds an IPv4 address; documentation.
            [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Self::Nobody,
            // Embedded IPv4: mapped, translated with the well-known prefix, 6to4, and ISATAP (RFC 5214).
            [0, 0, 0, 0, 0, 0xffff, g, h]
            | [0x64, 0xff9b, 0, 0, 0, 0, g, h]
            | [0x2002, g, h, ..]
            | [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe, g, h] => {
                Self::of_v4(Ipv4Addr::from(u32::from(g) << 16 | u32::from(h)))
            }
            [0x2000..=0x3fff, ..] => Self::Everybody,
            // Nothing else is global unicast: unspecified, IPv4-compatible, local-use translation prefixes,
            // discard-only, segment routing identifiers, multicast, and unassigned space.
            _ => Self::Nobody,
        }
    }
}

impl fmt::Display for AddressScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Everybody => "on the internet",
            Self::Network => "in a private network",
            Self::Link => "on the local link",
            Self::Machine => "on this machine",
            Self::Nobody => "in a reserved range",
        })
    }
}

/// True if a name always means this machine: `localhost` and the names below it.
pub(crate) fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and the last address of each network in the registries, and their neighbours if those are public.
    #[test]
    fn address_reach_follows_the_address_registries() {
        for (reach, addresses) in [
            (
                AddressScope::Everybody,
                "1.0.0.0 9.255.255.255 11.0.0.0 93.184.216.34 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 \
                 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.31.196.1 192.52.193.1 \
                 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0 192.175.48.1 198.17.255.255 198.20.0.0 \
                 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255",
            ),
            (AddressScope::Machine, "127.0.0.0 127.8.0.1 127.255.255.255"),
            (
                AddressScope::Network,
                "10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 172.16.0.0 172.31.255.255 192.168.0.0 \
                 192.168.255.255 198.18.0.0 198.19.255.255",
            ),
            (AddressScope::Link, "169.254.0.0 169.254.169.254 169.254.255.255"),
            (
                AddressScope::Nobody,
                "0.0.0.0 0.255.255.255 192.0.0.0 192.0.0.8 192.0.0.9 192.0.0.170 192.0.0.255 192.0.2.0 192.0.2.255 \
                 192.88.99.0 192.88.99.255 198.51.100.0 198.51.100.255 203.0.113.0 203.0.113.255 224.0.0.0 \
                 239.255.255.255 240.0.0.0 255.255.255.254 255.255.255.255",
            ),
            (
                AddressScope::Everybody,
                "2000:: 2001:200:: 2001:db7:: 2001:db9:: 2606:2800:220:1::1 2620:4f:8000::1 3ffe:: 3fff:1000:: \
                 2a00::5efe:8.8.8.8 2a00::200:5efe:8.8.8.8",
            ),
            (AddressScope::Machine, "::1"),
            (
                AddressScope::Network,
                "fc00:: fd00::1 fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff fec0:: fec0::1 \
                 feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ),
            (AddressScope::Link, "fe80:: fe80::1 febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            (
                AddressScope::Nobody,
                ":: ::2 ::8.8.8.8 ::127.0.0.1 ::10.0.0.1 ::fffe:8.8.8.8 ::ffff:0:8.8.8.8 64:ff9b:1::8.8.8.8 \
                 64:ff9b:1:ffff:ffff:ffff:ffff:ffff 64:ff9b:0:1::1 100:: 100::ffff:ffff:ffff:ffff 100:0:0:1::1 200:: \
                 1fff:: 2001:: 2001:0:4136:e378::1 2001:1::1 2001:2::1 2001:3::1 2001:4:112::1 2001:10::1 2001:20::1 \
                 2001:30::1 2001:1ff:ffff::1 2001:db8:: 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff 3fff:: \
                 3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff 4000:: 5f00:: 5f00:ffff:: fbff:: fe00:: ff00:: ff02::1 ffff::",
            ),
        ] {
            for address in addresses.split_whitespace() {
                assert_eq!(AddressScope::of(address.parse().unwrap()), reach, "{address}");
            }
        }
    }

    /// An IPv6 address has the same reach as the IPv4 address that it embeds.
    #[test]
    fn ipv4_embedded_in_ipv6_has_the_same_reach() {
        for address in ["8.8.8.8", "10.0.0.1", "127.0.0.1", "169.254.169.254", "192.0.0.1", "100.64.0.1", "0.0.0.0"] {
            let plain: Ipv4Addr = address.parse().unwrap();
            let [a, b, c, d] = plain.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for dressed in [
                plain.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2a00, 1, 2, 3, 0, 0x5efe, high, low),
                Ipv6Addr::new(0x2a00, 1, 2, 3, 0x200, 0x5efe, high, low),
            ] {
                assert_eq!(AddressScope::of(dressed.into()), AddressScope::of(plain.into()), "{dressed}");
            }
        }
    }
}
