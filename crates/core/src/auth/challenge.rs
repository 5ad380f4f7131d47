//! Parses the `Bearer` challenge in the `WWW-Authenticate` headers of a refusal (RFC 9110, 11.6.1; RFC 6750, 3).
//!
//! Rules: a name or a comma in quotes is text. Parsing stops at a syntax error, and keeps the results before it.
//! Overlong values are ignored, and the work is linear in the rest.

use std::fmt::Write as _;

use http::{HeaderMap, header::WWW_AUTHENTICATE};

/// The longest header value that is read, in bytes, and the most values.
const LONGEST: usize = 16 << 10;
const MOST: usize = 32;

/// The parameters of a `Bearer` challenge that are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(super) resource_metadata: Option<String>,
    pub(super) scope: Option<String>,
    error: Option<String>,
}

impl Challenge {
    /// Returns the challenge in a response's headers: the first that names the metadata, otherwise the first of all.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut all: Vec<Self> = Vec::new();
        for value in headers.get_all(WWW_AUTHENTICATE).iter().filter(|value| value.len() <= LONGEST).take(MOST) {
            // Header values may be Latin-1, but the parameters used here are ASCII.
            read(&String::from_utf8_lossy(value.as_bytes()), &mut all);
        }
        let best = all.iter().position(|one| one.resource_metadata.is_some()).unwrap_or(0);
        if best < all.len() { all.swap_remove(best) } else { Self::default() }
    }

    /// True if the token is valid but lacks a scope for this request.
    pub(crate) fn wants_more_scope(&self) -> bool {
        self.error.as_deref() == Some("insufficient_scope") && self.scopes().next().is_some()
    }

    /// True if the token is expired or revoked (RFC 6750, 3.1).
    pub(crate) fn refuses_token(&self) -> bool {
        self.error.as_deref() == Some("invalid_token")
    }

    /// Removes the parameters that contain a secret.
    pub(super) fn without(mut self, secret: &str) -> Self {
        for text in [&mut self.resource_metadata, &mut self.scope, &mut self.error] {
            text.take_if(|text| !secret.is_empty() && text.contains(secret));
        }
        self
    }

    /// Returns the requested scopes.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope.iter().flat_map(|scope| scope.split_ascii_whitespace())
    }

    /// Formats the challenge as a header value.
    pub(crate) fn to_header(&self) -> Option<String> {
        let mut header = "Bearer".to_owned();
        for (name, value) in [("resource_metadata", &self.resource_metadata), ("scope", &self.scope)] {
            let Some(value) = value else { continue };
            let separator = if header.len() > "Bearer".len() { ", " } else { " " };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            // Writing to a string cannot fail.
            let _ = write!(header, "{separator}{name}=\"{value}\"");
        }
        (header.len() > "Bearer".len()).then_some(header)
    }
}

/// Adds the `Bearer` challenges in one header value.
fn read(text: &str, all: &mut Vec<Challenge>) {
    let mut rest = ChallengeRest(text);
    let mut is_bearer = false;
    while rest.begin_element() {
        let Some(name) = rest.token() else { return };
        if !rest.take('=') {
            is_bearer = name.eq_ignore_ascii_case("bearer");
            if is_bearer {
                all.push(Challenge::default());
            }
            continue;
        }
        let Some(value) = rest.value() else { return };
        if let Some(challenge) = all.last_mut().filter(|_| is_bearer) {
            let place = match name.to_ascii_lowercase().as_str() {
                "resource_metadata" => &mut challenge.resource_metadata,
                "scope" => &mut challenge.scope,
                "error" => &mut challenge.error,
                _ => continue,
            };
            place.get_or_insert(value);
        }
    }
}

/// The unread rest of a header value.
struct ChallengeRest<'a>(&'a str);

impl<'a> ChallengeRest<'a> {
    /// Skips separators. Returns false at the end.
    fn begin_element(&mut self) -> bool {
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
        !self.0.is_empty()
    }

    /// Reads a scheme or a name.
    fn token(&mut self) -> Option<&'a str> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c);
        let end = self.0.find(|c| !is_part(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    fn take(&mut self, wanted: char) -> bool {
        match self.0.trim_start_matches([' ', '\t']).strip_prefix(wanted) {
            Some(rest) => self.0 = rest,
            None => return false,
        }
        true
    }

    fn value(&mut self) -> Option<String> {
        if !self.take('"') {
            self.0 = self.0.trim_start_matches([' ', '\t']);
            // The padding of base64 credentials is not followed by a value.
            let value = self.token().unwrap_or_default().to_owned();
            self.0 = self.0.trim_start_matches('=');
            return Some(value);
        }
        let mut value = String::new();
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = self.0.get(at + 1..).unwrap_or_default();
                    return Some(value);
                }
                '\\' => value.push(chars.next()?.1),
                c => value.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn challenge(values: &[&str]) -> Challenge {
        let values = values.iter().map(|value| (WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap()));
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(name, value);
        }
        Challenge::of(&headers)
    }

    #[test]
    fn bearer_challenge_is_found_among_other_schemes() {
        let url = "https://a.example/.well-known/oauth-protected-resource";
        for values in [
            &[&*format!(r#"Bearer resource_metadata="{url}", scope="a b""#)][..],
            &[&*format!(r#"bearer realm="x, Bearer scope=\"no\"" ,scope = "a b",RESOURCE_METADATA={url}"#)],
            &[
                "Negotiate abc==",
                r#"Basic realm="x", scope="no""#,
                &*format!(r#"Bearer scope="a b", resource_metadata="{url}""#),
            ],
            &[&*format!(
                r#"Negotiate, Digest qop="auth", Bearer scope="a b", resource_metadata="{url}", Basic realm="y""#
            )],
            &[r#"Bearer scope="other""#, &*format!(r#"Bearer scope="a b", resource_metadata="{url}""#)],
        ] {
            let challenge = challenge(values);
            assert_eq!(challenge.resource_metadata.as_deref(), Some(url), "{values:?}");
            assert_eq!(challenge.scopes().collect::<Vec<_>>(), ["a", "b"], "{values:?}");
        }
        for values in [&[][..], &[r#"Basic scope="a""#], &["Bearer"], &[r#"Bearer scope="open"#], &["="]] {
            assert_eq!(challenge(values), Challenge::default(), "{values:?}");
        }
    }

    /// The worst headers, one mebibyte in one value and in many, on a small stack.
    #[test]
    fn oversized_challenge_headers_are_ignored_or_read_in_part() {
        let parts = [
            "Bearer ",
            "Bearer,",
            ",",
            "\"",
            "\\",
            "=",
            "a=",
            "Bearer scope=a,",
            "scope=\"",
            "Bearer scope=\"\\",
            " ",
            "é",
        ];
        let small = std::thread::Builder::new().stack_size(256 << 10).spawn(move || {
            for part in parts {
                for (size, count) in [(1 << 20, 1), (LONGEST, (1 << 20) / LONGEST)] {
                    let text = format!("Bearer {}", part.repeat((size - 7) / part.len()));
                    let mut headers = HeaderMap::new();
                    for _ in 0..count {
                        headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(text.as_bytes()).unwrap());
                    }
                    let mut all = Vec::new();
                    read(&text, &mut all);
                    assert!(all.len() <= text.len() / part.len() + 1);
                    let challenge = Challenge::of(&headers);
                    assert!(challenge.scope.is_none_or(|scope| scope.len() <= LONGEST), "{part}");
                    assert_eq!(challenge.resource_metadata, None, "{part}");
                }
            }
        });
        small.unwrap().join().unwrap();
        // An overlong value is ignored, and does not hide the others.
        let long = format!("Bearer realm=\"{}\"", "x".repeat(LONGEST));
        assert_eq!(challenge(&[&long, "Bearer scope=a"]).scope.as_deref(), Some("a"));
    }

    #[test]
    fn challenge_members_that_echo_a_secret_are_removed() {
        let echoed = challenge(&[r#"Bearer resource_metadata="https://a/?t=hunter2", scope="a", error="hunter2""#]);
        assert_eq!(echoed.clone().without(""), echoed);
        assert_eq!(echoed.without("hunter2"), Challenge { scope: Some("a".into()), ..Challenge::default() });
    }

    #[test]
    fn more_scope_is_wanted_only_for_insufficient_scope_with_scopes() {
        assert!(challenge(&[r#"Bearer error="insufficient_scope", scope="w""#]).wants_more_scope());
        assert!(!challenge(&[r#"Bearer error="insufficient_scope""#]).wants_more_scope());
        assert!(!challenge(&[r#"Bearer error="invalid_token", scope="w""#]).wants_more_scope());
        let text = r#"Bearer error_description="error=\"insufficient_scope\"", scope="w""#;
        assert!(!challenge(&[text]).wants_more_scope());
    }

    #[test]
    fn challenge_is_formatted_as_a_header_again() {
        let written = r#"Bearer resource_metadata="https://a/\"b\\", scope="a b""#;
        assert_eq!(challenge(&[&format!("{written}, error=\"x\"")]).to_header().as_deref(), Some(written));
        assert_eq!(Challenge::default().to_header(), None);
    }
}
