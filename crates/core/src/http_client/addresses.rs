//! Which addresses may be connected to, where it is not the user who has chosen the host.
//!
//! Rule: a name that a server gives us leads to nothing that only this machine or its neighbours reach, unless the
//! server itself is there. A proxy finds addresses by itself, so behind one only hosts that are written as an address
//! are judged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses an HTTP client connects to.
#[derive(Clone, Debug, Default)]
pub enum Addresses {
    /// Any.
    #[default]
    Any,
    /// Those that everybody reaches, and those of the kinds that this host has: a name, or an address without brackets.
    Like(String),
}

/// Who reaches an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Everybody,
    /// A network of one's own.
    Network,
    /// The next cable.
    Link,
    Machine,
    /// It is no single host's.
    Nobody,
}

impl Reach {
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [first, second, ..] = address.octets();
        match (first, second) {
            _ if address.is_loopback() => Self::Machine,
            _ if address.is_link_local() => Self::Link,
            _ if address.is_private() => Self::Network,
            // Of providers' own networks, and of benchmarks (RFC 6598, RFC 2544).
            (100, 64..=127) | (198, 18 | 19) => Self::Network,
            (0 | 224.., _) => Self::Nobody,
            _ => Self::Everybody,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let low = |high: u16, low: u16| Self::of_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
        match address.segments() {
            _ if address.is_loopback() => Self::Machine,
            _ if address.is_unspecified() || address.is_multicast() => Self::Nobody,
            _ if address.is_unicast_link_local() => Self::Link,
            _ if address.is_unique_local() => Self::Network,
            // IPv4 in other forms: mapped, compatible, NAT64, 6to4; and what hides it, Teredo and local NAT64.
            [0, 0, 0, 0, 0, 0 | 0xffff, g, h] | [0x64, 0xff9b, 0, 0, 0, 0, g, h] | [0x2002, g, h, ..] => low(g, h),
            [0x2001, 0, ..] | [0x64, 0xff9b, 1, ..] => Self::Nobody,
            _ => Self::Everybody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reaches_an_address() {
        for (address, reach) in [
            ("93.184.216.34", Reach::Everybody),
            ("2606:2800:220:1::1", Reach::Everybody),
            ("127.8.0.1", Reach::Machine),
            ("::1", Reach::Machine),
            ("::ffff:127.0.0.1", Reach::Machine),
            ("10.1.2.3", Reach::Network),
            ("172.31.0.1", Reach::Network),
            ("192.168.0.1", Reach::Network),
            ("100.64.0.1", Reach::Network),
            ("fd00::1", Reach::Network),
            ("64:ff9b::10.0.0.1", Reach::Network),
            ("2002:c0a8:1::", Reach::Network),
            ("169.254.169.254", Reach::Link),
            ("fe80::1", Reach::Link),
            ("0.0.0.0", Reach::Nobody),
            ("255.255.255.255", Reach::Nobody),
            ("ff02::1", Reach::Nobody),
            ("::", Reach::Nobody),
            ("2001:0:1::", Reach::Nobody),
        ] {
            assert_eq!(Reach::of(address.parse().unwrap()), reach, "{address}");
        }
    }
}
