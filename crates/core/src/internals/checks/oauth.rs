//! Checks a sign-in at servers that a string of bytes controls: their metadata, client registrations, device codes and
//! tokens, and all that our libraries do with these.
//!
//! The sign-in ends, with success or an error, and makes a bounded number of requests.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{Instant, timeout},
};

use super::hostile::{Script, lock, next_head};
use crate::{
    Config, Error, Proxy,
    auth::{Credential, Grant, OAuth, Secret},
    http::in_memory::Network,
};

/// The address of all servers. Loopback addresses need no TLS.
const HOME: &str = "http://127.0.0.1:1";
/// The deadline for a sign-in. It has one hour, and each request its own timeout.
const END: Duration = Duration::from_hours(2);
/// The most requests of a sign-in: at once, and in a second.
const MAX_BURST: u64 = 100;
const MAX_PER_SECOND: u64 = 2;

/// Plays these bytes: two for the settings, then the reply to each request.
pub fn oauth(input: &[u8]) {
    let _ = sign_in(input);
}

fn sign_in(input: &[u8]) -> Result<(), Error> {
    let mut script = Script::new(input);
    let mut config = Config::new(&format!("{HOME}/mcp")).expect("a URL");
    config.proxy = Proxy::None;
    let mut oauth = OAuth::new(|_| ());
    let settings = script.byte();
    oauth.grant = if settings & 1 == 0 { Grant::Device } else { Grant::ClientCredentials };
    if settings & 2 != 0 || oauth.grant == Grant::ClientCredentials {
        oauth.client_id = Some("client".to_owned());
        oauth.credential = Some(Credential::Secret(Secret::new("secret".to_owned())));
    }
    config.oauth = Some(oauth);
    let account = config.account().expect("signing in is turned on");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let script = script.rest(settings & 4 != 0);
        let server = Arc::new(Mutex::new(Server { script, began: Instant::now(), requests: 0, is_flooded: false }));
        let listening = Arc::clone(&server);
        let _network = Network::new(move |uri| {
            if uri.host() != Some("127.0.0.1") {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = duplex(64 << 10);
            tokio::spawn(converse(Arc::clone(&listening), far));
            Ok(Box::new(near))
        });
        let outcome = timeout(END, account.login()).await;
        let server = lock(&server);
        assert!(!server.is_flooded, "{} requests in {:?}", server.requests, server.began.elapsed());
        outcome.expect("a sign-in has an end")
    })
}

struct Server {
    script: Script,
    began: Instant,
    requests: u64,
    /// It got too many requests and replies no more.
    is_flooded: bool,
}

async fn converse(server: Arc<Mutex<Server>>, mut wire: DuplexStream) -> io::Result<()> {
    let mut read = Vec::new();
    while let Some((head, length)) = next_head(&mut wire, &mut read).await? {
        while read.len() < length {
            if wire.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        read.drain(..length);
        let reply = lock(&server).reply(head.split(' ').nth(1).unwrap_or_default());
        let Some(reply) = reply else { return Ok(()) };
        wire.write_all(&reply).await?;
    }
    Ok(())
}

impl Server {
    /// Makes the reply to a request for this path. Returns `None` if the connection closes.
    fn reply(&mut self, path: &str) -> Option<Vec<u8>> {
        self.requests += 1;
        self.is_flooded |= self.requests > MAX_BURST + MAX_PER_SECOND * self.began.elapsed().as_secs();
        if self.is_flooded {
            return None;
        }
        let (status, mut document) = right(path);
        let script = &mut self.script;
        let mut headers = String::new();
        if status == 401 {
            headers = format!(
                "WWW-Authenticate: Bearer resource_metadata=\"{HOME}/.well-known/oauth-protected-resource\"\r\n"
            );
        }
        let (status, body) = match script.below(12) {
            0..=4 => (status, document.to_string()),
            5 | 6 => {
                for _ in 0..=script.below(3) {
                    edit(&mut document, script);
                }
                (status, document.to_string())
            }
            7 => (script.pick(&[400, 401, 403, 404, 429, 500, 503, 200, 204]), document.to_string()),
            8 => (script.pick(&[200, 400]), String::from_utf8_lossy(&script.text()).into_owned()),
            9 => (200, script.pick(&["[", "{\"a\":"]).repeat(script.pick(&[100, 3_000, 200_000]))),
            10 => {
                let to = script.pick(&[
                    "/.well-known/oauth-authorization-server",
                    "/mcp",
                    "//",
                    "http://10.0.0.1/",
                    "https://a.test/",
                ]);
                headers = format!("Location: {to}\r\n");
                (script.pick(&[307, 308, 302]), String::new())
            }
            _ => {
                let why = script.pick(&[
                    "authorization_pending",
                    "slow_down",
                    "expired_token",
                    "invalid_client",
                    "\u{1b}[2J",
                    "",
                ]);
                (400, json!({"error": why, "error_description": String::from_utf8_lossy(&script.text())}).to_string())
            }
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        (script.below(32) < 31).then(|| [head.as_bytes(), body.as_bytes()].concat())
    }
}

/// The reply of a correct server.
fn right(path: &str) -> (u16, Value) {
    let path = path.split('?').next().unwrap_or_default();
    let document = match path {
        "/mcp" => return (401, Value::Null),
        "/register" => json!({"client_id": "c", "redirect_uris": [], "token_endpoint_auth_method": "none"}),
        "/device" => json!({
            "device_code": "d", "user_code": "u", "verification_uri": format!("{HOME}/v"), "expires_in": 100, "interval": 5,
        }),
        "/token" => {
            json!({"access_token": "t", "token_type": "Bearer", "expires_in": 100, "refresh_token": "r", "scope": "a"})
        }
        _ if path.starts_with("/.well-known/oauth-protected-resource") => {
            json!({"resource": format!("{HOME}/mcp"), "authorization_servers": [HOME], "scopes_supported": ["a"]})
        }
        _ if path.starts_with("/.well-known/") => json!({
            "issuer": HOME,
            "authorization_endpoint": format!("{HOME}/authorize"),
            "token_endpoint": format!("{HOME}/token"),
            "registration_endpoint": format!("{HOME}/register"),
            "device_authorization_endpoint": format!("{HOME}/device"),
            "code_challenge_methods_supported": ["S256"],
            "grant_types_supported": ["client_credentials", "urn:ietf:params:oauth:grant-type:device_code"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
            "response_types_supported": ["code"],
            "scopes_supported": ["a"],
        }),
        _ => return (404, Value::Null),
    };
    (200, document)
}

/// Replaces one member.
fn edit(document: &mut Value, script: &mut Script) {
    let Some(members) = document.as_object_mut() else { return };
    let at = usize::from(script.byte()) % (members.len() + 1);
    let name = members.keys().nth(at).cloned().unwrap_or_else(|| "client_secret_expires_at".to_owned());
    let value = match script.below(14) {
        0 => json!(u64::MAX),
        1 => json!(0),
        2 => json!(-1),
        3 => json!(1e300),
        4 => json!(u64::MAX / 1000),
        5 => Value::Null,
        6 => json!(""),
        7 => json!([]),
        8 => json!({}),
        9 => json!("https://10.0.0.1/x"),
        10 => json!(format!("{HOME}/mcp")),
        11 => json!("x".repeat(script.pick(&[1_000, 500_000]))),
        12 => json!([HOME, "a b", "S256", "none"]),
        _ => json!(String::from_utf8_lossy(&script.text())),
    };
    members.insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_in_succeeds_with_well_behaved_servers() {
        for settings in 0..4 {
            sign_in(&[settings]).unwrap_or_else(|error| panic!("{settings}: {error} {:?}", error.detail()));
        }
    }
}
