//! Hosts to which a connection is made without the proxy: `NO_PROXY` and the lists of Windows and macOS.
//!
//! Entries are separated by commas, semicolons or white space. An entry is one of these, with `:PORT` for one port:
//!
//! - a name, which stands for itself and its subdomains, with or without a dot before it;
//! - an address, or a network such as `10.0.0.0/8` or `fd00::/8`, also as `10.*` or `169.254/16`;
//! - a name with `*` in it, which stands for any text;
//! - `*`, which stands for all hosts;
//! - `<local>`, which stands for names without a dot.

use std::net::{IpAddr, Ipv4Addr};

use http::{Uri, uri::Scheme};
use ipnet::{IpNet, Ipv4Net};
use wildmatch::WildMatch;

use super::connect::bare_host;

/// A list of hosts without a proxy.
#[derive(Clone, Debug, Default)]
pub(super) struct ProxyExceptions(Vec<Exception>);

#[derive(Clone, Debug)]
struct Exception {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug)]
enum Hosts {
    All,
    /// Names without a dot.
    Local,
    Network(IpNet),
    /// Names that end with this one, in lower case.
    Domain(String),
    Pattern(WildMatch),
}

impl ProxyExceptions {
    /// Parses a list. An entry that cannot be used is left out.
    pub(super) fn parse(list: &str) -> Self {
        let entries = list.split(|c: char| matches!(c, ',' | ';') || c.is_whitespace());
        Self(entries.filter_map(Exception::parse).collect())
    }

    /// Returns the hosts that the systems' own settings always leave out: this computer, and link-local addresses.
    #[cfg(any(windows, target_os = "macos", test))]
    pub(super) fn this_computer() -> Self {
        Self::parse("localhost, 127.0.0.0/8, [::1], 169.254.0.0/16, fe80::/10")
    }

    #[cfg(any(windows, target_os = "macos", test))]
    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// True if the host of this URI needs no proxy.
    pub(super) fn contain(&self, uri: &Uri) -> bool {
        let host = bare_host(uri).trim_end_matches('.').to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 });
        self.0.iter().any(|exception| exception.matches(&host, port))
    }
}

impl Exception {
    fn parse(entry: &str) -> Option<Self> {
        // Windows permits a scheme.
        let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest);
        if let Some(hosts) = Hosts::parse(entry) {
            return Some(Self { hosts, port: None });
        }
        let (host, port) = entry.rsplit_once(':')?;
        Some(Self { hosts: Hosts::parse(host)?, port: Some(port.parse().ok()?) })
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        let address: Option<IpAddr> = host.parse().ok();
        let is_host = match (&self.hosts, address) {
            (Hosts::All, _) => true,
            (Hosts::Local, address) => address.is_none() && !host.contains('.'),
            (Hosts::Network(network), Some(address)) => network.contains(&address.to_canonical()),
            (Hosts::Domain(domain), None) => {
                host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            (Hosts::Pattern(pattern), _) => pattern.matches(host),
            (Hosts::Network(_), None) | (Hosts::Domain(_), Some(_)) => false,
        };
        is_host && self.port.is_none_or(|own| own == port)
    }
}

impl Hosts {
    fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if text == "*" {
            return Some(Self::All);
        }
        if text.eq_ignore_ascii_case("<local>") {
            return Some(Self::Local);
        }
        if let Some(network) = network(bare) {
            return Some(Self::Network(network));
        }
        // `*.example.com` is the domain itself too, as the systems' settings mean it.
        let name = text.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(text);
        let name = name.trim_matches('.').to_ascii_lowercase();
        if name.is_empty() || name.contains([':', '/', '<', '>', '[', ']']) {
            return None;
        }
        Some(if name.contains('*') { Self::Pattern(WildMatch::new(&name)) } else { Self::Domain(name) })
    }
}

/// Parses an address or a network, also with fewer than four numbers: `10.*`, `169.254/16`.
fn network(text: &str) -> Option<IpNet> {
    if let Ok(network) = text.parse() {
        return Some(network);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.into());
    }
    let (numbers, length) = match text.split_once('/') {
        Some((numbers, length)) => (numbers, Some(length.parse().ok()?)),
        None => (text.strip_suffix(".*")?, None),
    };
    let numbers: Vec<u8> =
        numbers.split('.').filter(|number| *number != "*").map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let mut octets = [0; 4];
    octets.get_mut(..numbers.len())?.copy_from_slice(&numbers);
    let length = match length {
        Some(length) => length,
        None => u8::try_from(numbers.len() * 8).ok()?,
    };
    Some(Ipv4Net::new(Ipv4Addr::from(octets), length).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_match_hosts_as_curl_and_the_systems_have_it() {
        for (list, yes, no) in [
            ("", &[][..], &["http://a", "http://127.0.0.1"][..]),
            ("*", &["http://a", "https://10.1.2.3", "http://[::1]:8"], &[]),
            (
                "example.com",
                &["https://example.com/mcp", "https://EXAMPLE.com", "https://a.b.example.com", "https://example.com."],
                &["https://notexample.com", "https://example.com.evil.org", "https://example.org"],
            ),
            (".example.com", &["https://example.com", "https://a.example.com"], &["https://aexample.com"]),
            ("*.example.com", &["https://example.com", "https://a.example.com"], &["https://aexample.com"]),
            (
                " a.test,b.test ; c.test\td.test",
                &["http://a.test", "http://b.test", "http://c.test", "http://d.test"],
                &["http://e.test"],
            ),
            ("example.com:8443", &["https://example.com:8443"], &["https://example.com", "https://a.b:8443"]),
            ("example.com:443", &["https://example.com"], &["http://example.com"]),
            ("http://example.com", &["https://example.com"], &["https://example.org"]),
            ("10.0.0.0/8", &["http://10.1.2.3", "http://10.255.0.1:80"], &["http://11.0.0.1", "http://10.example.com"]),
            ("10.*", &["http://10.1.2.3"], &["http://11.0.0.1"]),
            ("192.168.*.*", &["http://192.168.3.4"], &["http://192.169.3.4"]),
            ("169.254/16", &["http://169.254.3.4"], &["http://169.255.3.4"]),
            ("127.0.0.1:81", &["http://127.0.0.1:81"], &["http://127.0.0.1"]),
            ("fd00::/8, ::1", &["http://[fd12::1]", "http://[::1]:80"], &["http://[2001:db8::1]"]),
            ("[::1]:8080", &["http://[::1]:8080"], &["http://[::1]"]),
            (
                "<local>",
                &["http://intranet", "http://localhost:3000"],
                &["http://a.b", "http://[::1]", "http://10.0.0.1"],
            ),
            ("build*.corp.test", &["http://build7.corp.test"], &["http://build7.corp.example"]),
            // Entries that cannot be used.
            (
                "10.0.0.0/99, a/b, <-loopback>, 1.2.3.4.5.*, :80, .",
                &[],
                &["http://10.0.0.1", "http://a", "http://1.2.3.4"],
            ),
        ] {
            let exceptions = ProxyExceptions::parse(list);
            for url in yes {
                assert!(exceptions.contain(&url.parse().unwrap()), "{list:?} contains {url}");
            }
            for url in no {
                assert!(!exceptions.contain(&url.parse().unwrap()), "{list:?} does not contain {url}");
            }
        }
    }

    #[test]
    fn this_computer_is_an_exception_of_the_systems_settings() {
        let mut exceptions = ProxyExceptions::parse("a.test");
        exceptions.extend(ProxyExceptions::this_computer());
        for url in ["http://localhost:1", "http://127.8.0.1", "http://[::1]", "http://a.test", "http://[fe80::1]"] {
            assert!(exceptions.contain(&url.parse().unwrap()), "{url}");
        }
        assert!(!exceptions.contain(&"http://intranet".parse().unwrap()));
    }
}
