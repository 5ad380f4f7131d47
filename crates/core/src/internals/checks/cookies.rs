//! Checks cookies against the pairs that were set.

use http::{HeaderValue, header::SET_COOKIE};

use super::{Input, repeated};
use crate::{http::ServerUrl, server::cookies::Cookies};

/// The most cookies that are kept, and the most bytes in one.
const MOST: usize = 50;
const LONGEST: usize = 4096;

/// Checks any `Set-Cookie` headers, one for each line: the client sends back only cookies from the server's own origin,
/// and their total size is bounded.
pub fn cookies(input: &[u8]) {
    let input = Input::read(input);
    let urls = ["https://a.test/mcp/x", "https://a.test/", "https://a.test:8443/mcp/x", "http://b.test/"];
    let urls = urls.map(|url| ServerUrl::parse(url).expect("a URL"));
    let cookies = Cookies::new(urls[0].clone());
    let mut set = Vec::new();
    for (at, lines) in input.text.split(|byte| *byte == b'\n').collect::<Vec<_>>().chunks(3).enumerate() {
        let values = lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok());
        let url = &urls[(at + usize::from(input.choice)) % urls.len()];
        cookies.learn(&repeated(&SET_COOKIE, values), url);
        if urls[0].is_origin_of(url) {
            set.extend(lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()));
        }
    }
    for url in &urls {
        let Some(header) = cookies.header(url) else { continue };
        assert!(urls[0].is_origin_of(url), "cookies for {url}");
        assert!(header.len() <= MOST * (LONGEST + 2), "{} bytes of cookies", header.len());
        let header = header.to_str().expect("text");
        for value in header.split("; ").flat_map(|pair| pair.splitn(2, '=')) {
            assert!(set.iter().any(|line| line.contains(value)), "{value:?} was never set");
        }
    }
}
