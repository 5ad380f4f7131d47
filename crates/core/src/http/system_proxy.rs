//! The proxy of the environment and of the system: which proxies, and for which hosts none.
//!
//! A variable wins over the system's setting for the same scheme. A PAC script is not run; a warning says so.

use std::env;

use super::proxy_exceptions::ProxyExceptions;

/// The proxies as they were set: URLs, or hosts with ports. An empty text stands for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SystemProxy {
    pub(super) http: String,
    pub(super) https: String,
    pub(super) all: String,
}

/// Returns the proxies, and the hosts without a proxy.
pub(super) fn read() -> (SystemProxy, ProxyExceptions) {
    let proxy = SystemProxy {
        // In a CGI program, this variable may be a header that a client sent.
        http: if env::var_os("REQUEST_METHOD").is_some() { String::new() } else { variable("HTTP_PROXY") },
        https: variable("HTTPS_PROXY"),
        all: variable("ALL_PROXY"),
    };
    with_system(proxy, ProxyExceptions::parse(&variable("NO_PROXY")))
}

/// Returns the value of a variable in upper case, else in lower case.
fn variable(name: &str) -> String {
    env::var(name).or_else(|_| env::var(name.to_ascii_lowercase())).unwrap_or_default()
}

/// Adds the system's settings where the environment says nothing.
#[cfg(any(windows, target_os = "macos"))]
fn with_system(proxy: SystemProxy, mut exceptions: ProxyExceptions) -> (SystemProxy, ProxyExceptions) {
    let system = system::read();
    let filled = proxy.clone().or(&system.proxy);
    if filled != proxy {
        exceptions.extend(ProxyExceptions::this_computer());
        exceptions.extend(ProxyExceptions::parse(&system.exceptions));
    }
    if filled == SystemProxy::default() && system.has_script {
        tracing::warn!(
            "the system's proxy is chosen by a PAC script, which is not supported; set HTTPS_PROXY to the proxy if the \
             server is not reached directly"
        );
    }
    (filled, exceptions)
}

#[cfg(not(any(windows, target_os = "macos")))]
fn with_system(proxy: SystemProxy, exceptions: ProxyExceptions) -> (SystemProxy, ProxyExceptions) {
    (proxy, exceptions)
}

#[cfg(any(windows, target_os = "macos", test))]
impl SystemProxy {
    /// Takes the other's proxies for schemes that have none.
    fn or(self, other: &Self) -> Self {
        if !self.all.is_empty() {
            return self;
        }
        let first = |own: String, other: &String| if own.is_empty() { other.clone() } else { own };
        Self { http: first(self.http, &other.http), https: first(self.https, &other.https), all: other.all.clone() }
    }

    /// Reads the value `ProxyServer` of Windows: one proxy for all schemes, or a list such as
    /// `http=proxy:80;https=proxy:443;socks=proxy:1080`.
    #[cfg(any(windows, test))]
    fn of_windows(server: &str) -> Self {
        let mut found = Self::default();
        for entry in server.split([';', ' ']).map(str::trim).filter(|entry| !entry.is_empty()) {
            match entry.split_once('=') {
                Some(("http", proxy)) => proxy.clone_into(&mut found.http),
                Some(("https", proxy)) => proxy.clone_into(&mut found.https),
                // Windows means version 4. The proxy resolves names.
                Some(("socks", proxy)) => found.all = format!("socks4a://{proxy}"),
                Some(_) => {}
                None => entry.clone_into(&mut found.all),
            }
        }
        found
    }
}

/// The system's settings.
#[cfg(any(windows, target_os = "macos"))]
#[derive(Default)]
struct SystemSettings {
    proxy: SystemProxy,
    exceptions: String,
    /// A PAC script chooses the proxy.
    has_script: bool,
}

#[cfg(windows)]
mod system {
    use super::{SystemProxy, SystemSettings};

    /// Reads the settings of the current user.
    pub(super) fn read() -> SystemSettings {
        const KEY: &str = r"Software\Microsoft\Windows\CurrentVersion\Internet Settings";
        let Ok(key) = windows_registry::CURRENT_USER.open(KEY) else { return SystemSettings::default() };
        let text = |name| key.get_string(name).unwrap_or_default();
        let is_on = key.get_u32("ProxyEnable").is_ok_and(|on| on != 0);
        SystemSettings {
            proxy: if is_on { SystemProxy::of_windows(&text("ProxyServer")) } else { SystemProxy::default() },
            exceptions: text("ProxyOverride"),
            has_script: !text("AutoConfigURL").is_empty(),
        }
    }
}

#[cfg(target_os = "macos")]
mod system {
    use system_configuration::{
        core_foundation::{
            array::CFArray,
            base::{CFType, TCFType as _},
            dictionary::CFDictionary,
            number::CFNumber,
            propertylist::{create_data, kCFPropertyListXMLFormat_v1_0},
            string::CFString,
        },
        dynamic_store::SCDynamicStoreBuilder,
    };

    use super::{SystemProxy, SystemSettings, strings};

    /// Reads the settings of the current network location.
    pub(super) fn read() -> SystemSettings {
        let store = SCDynamicStoreBuilder::new("mcp-gangway").build();
        let Some(settings) = store.and_then(|store| store.get_proxies()) else { return SystemSettings::default() };
        let settings = Settings(settings);
        let all = settings.proxy("SOCKS");
        let mut exceptions = settings.exceptions();
        if settings.is_on("ExcludeSimpleHostnames") {
            exceptions.push("<local>".to_owned());
        }
        SystemSettings {
            proxy: SystemProxy {
                http: settings.proxy("HTTP"),
                https: settings.proxy("HTTPS"),
                all: if all.is_empty() { all } else { format!("socks5h://{all}") },
            },
            exceptions: exceptions.join(","),
            has_script: settings.is_on("ProxyAutoConfigEnable") || settings.is_on("ProxyAutoDiscoveryEnable"),
        }
    }

    struct Settings(CFDictionary<CFString, CFType>);

    impl Settings {
        fn get(&self, name: &str) -> Option<CFType> {
            self.0.find(CFString::new(name)).map(|value| (*value).clone())
        }

        fn number(&self, name: &str) -> Option<i32> {
            self.get(name)?.downcast::<CFNumber>()?.to_i32()
        }

        fn is_on(&self, name: &str) -> bool {
            self.number(name) == Some(1)
        }

        /// Returns host and port of the proxy for this kind of connection, if it is in use.
        fn proxy(&self, kind: &str) -> String {
            if !self.is_on(&format!("{kind}Enable")) {
                return String::new();
            }
            let host = self.get(&format!("{kind}Proxy")).and_then(|host| host.downcast::<CFString>());
            let Some(host) = host else { return String::new() };
            match self.number(&format!("{kind}Port")) {
                Some(port) => format!("{host}:{port}"),
                None => host.to_string(),
            }
        }

        /// Returns the hosts without a proxy. They are read from the array's XML form, because the elements of an
        /// untyped array cannot be taken out without unsafe code.
        fn exceptions(&self) -> Vec<String> {
            let array = self.get("ExceptionsList").and_then(|list| list.downcast::<CFArray>());
            let xml = array.and_then(|array| create_data(array.as_CFTypeRef(), kCFPropertyListXMLFormat_v1_0).ok());
            xml.map(|xml| strings(&String::from_utf8_lossy(xml.bytes()))).unwrap_or_default()
        }
    }
}

/// Returns the strings of a property list in XML.
#[cfg(any(target_os = "macos", test))]
fn strings(xml: &str) -> Vec<String> {
    let starts = xml.split("<string>").skip(1);
    starts.filter_map(|rest| rest.split_once("</string>")).map(|(text, _)| text.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(http: &str, https: &str, all: &str) -> SystemProxy {
        SystemProxy { http: http.to_owned(), https: https.to_owned(), all: all.to_owned() }
    }

    #[test]
    fn proxies_of_windows_are_one_for_all_or_one_for_each_scheme() {
        for (server, expected) in [
            ("", proxy("", "", "")),
            ("proxy:3128", proxy("", "", "proxy:3128")),
            ("http://proxy:3128", proxy("", "", "http://proxy:3128")),
            ("http=a:1;https=b:2", proxy("a:1", "b:2", "")),
            ("ftp=c:3;http=a:1; socks=d:4 ;", proxy("a:1", "", "socks4a://d:4")),
        ] {
            assert_eq!(SystemProxy::of_windows(server), expected, "{server}");
        }
    }

    #[test]
    fn variables_win_over_the_systems_settings() {
        let system = proxy("s:1", "s:2", "s:3");
        assert_eq!(proxy("", "", "").or(&system), system);
        assert_eq!(proxy("a", "", "").or(&system), proxy("a", "s:2", "s:3"));
        assert_eq!(proxy("", "", "a").or(&system), proxy("", "", "a"));
    }

    #[test]
    fn strings_of_a_property_list_are_read() {
        let xml =
            "<plist version=\"1.0\">\n<array>\n\t<string>*.local</string>\n\t<string>169.254/16</string>\n</array>";
        assert_eq!(strings(xml), ["*.local", "169.254/16"]);
        assert_eq!(strings("<array/>"), [""; 0]);
    }
}
