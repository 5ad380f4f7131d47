//! Hostile authorization servers, and servers that name one: no secret reaches them.

use std::{fmt::Write as _, time::Duration};

use mcp_gangway_core::auth::{self, Credential, Grant, Revocation, Secret};
use serde_json::json;

use crate::{
    issuer::Issuer,
    oauth::{prompted, refuse, refused_call, refused_for, scene, sign_out, unauthorized, with_token},
    support::{Client, Log, Server, call},
};

/// Configures a client that the user registered, with this grant and credential.
fn known_client(config: &mut mcp_gangway_core::Config, grant: Grant, credential: Option<Credential>) {
    let settings = config.oauth.as_mut().unwrap();
    settings.grant = grant;
    settings.client_id = Some("known-client".to_owned());
    settings.credential = credential;
}

fn secret() -> Credential {
    Credential::Secret(Secret::new("canary-secret".into()))
}

fn key() -> Credential {
    Credential::Key(Secret::new(rcgen::KeyPair::generate().unwrap().serialize_pem()))
}

/// Makes a call and completes the sign-in that it needs. Returns the token.
async fn sign_in(
    client: &mut Client,
    server: &mut Server,
    issuer: &Issuer,
    prompts: &mut tokio::sync::mpsc::UnboundedReceiver<auth::Prompt>,
    grant: Grant,
) -> String {
    client.send(call("1")).await;
    refuse(server, issuer).await;
    if grant == Grant::Browser {
        issuer.approve(&prompted(prompts).await).await;
    }
    let post = server.post().await;
    let token = post.header("authorization").unwrap().to_owned();
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    token.trim_start_matches("Bearer ").to_owned()
}

#[tokio::test]
async fn a_configured_client_is_used_at_one_authorization_server_only() {
    for (grant, credential) in [
        (Grant::Browser, Some(secret())),
        (Grant::Browser, None),
        (Grant::Device, Some(secret())),
        (Grant::ClientCredentials, Some(secret())),
        (Grant::ClientCredentials, Some(key())),
    ] {
        let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
        known_client(&mut config, grant, credential);
        let mut client = Client::start(config.clone());
        let token = sign_in(&mut client, &mut server, &issuer, &mut prompts, grant).await;
        while prompts.try_recv().is_ok() {}

        // The server names another authorization server between two refusals.
        let other = Issuer::of(&server).await;
        client.send(call("2")).await;
        unauthorized(with_token(&mut server, &token).await, &other).await;
        let failure = client.expect_error("2").await;
        assert_eq!((failure.kind(), failure.may_have_run()), ("other_issuer", false), "{failure:?}");
        for part in [issuer.origin(), other.origin(), "name the new one in the settings".to_owned()] {
            assert!(failure.message.contains(&part), "{part}: {failure:?}");
        }
        client.finish(&mut server).await;

        // The next bridge and the revocation of tokens refuse it as well.
        let mut client = Client::start(config.clone());
        client.send(call("3")).await;
        refuse(&mut server, &other).await;
        assert_eq!(client.expect_error("3").await.kind(), "other_issuer");
        client.finish(&mut server).await;
        assert!(matches!(&*sign_out(&mut server, &other, &config).await, [Revocation::Failed(_)]));
        {
            let state = other.state();
            assert!(state.requests.iter().all(|request| request.starts_with("GET ")), "{:?}", state.requests);
            assert!(!state.has_got("known-client") && !state.has_got("canary") && !state.has_got(&token));
        }
        assert!(prompts.try_recv().is_err(), "no prompt for a refused issuer");

        // The user may choose the new one. Then the old one is refused.
        config.oauth.as_mut().unwrap().issuer = Some(other.origin());
        let mut client = Client::start(config.clone());
        sign_in(&mut client, &mut server, &other, &mut prompts, grant).await;
        client.finish(&mut server).await;
        config.oauth.as_mut().unwrap().issuer = None;
        let mut client = Client::start(config);
        refused_call(&mut client, &mut server, &issuer, "4").await;
        assert_eq!(client.expect_error("4").await.kind(), "other_issuer");
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn an_issuer_that_differs_from_the_configured_one_is_refused() {
    for named in ["https://login.example.com", "/", "/x"] {
        let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
        let named = if named.starts_with('/') { issuer.origin() + named } else { named.to_owned() };
        // The rule holds for every kind of client.
        config.oauth.as_mut().unwrap().issuer = Some(named.clone());
        let mut client = Client::start(config);
        refused_call(&mut client, &mut server, &issuer, "1").await;
        let failure = client.expect_error("1").await;
        assert_eq!(failure.kind(), "other_issuer", "{failure:?}");
        assert!(failure.message.contains(&named) && failure.message.contains(&issuer.origin()), "{failure:?}");
        client.finish(&mut server).await;
        assert!(prompts.try_recv().is_err() && issuer.state().registrations.is_empty());
    }
}

#[tokio::test]
async fn the_error_of_a_request_whose_get_got_no_token_names_the_issuer() {
    // The stream of HTTP+SSE, and the resumption of a broken stream.
    for is_old in [true, false] {
        let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
        config.oauth.as_mut().unwrap().issuer = Some("https://login.example.com".to_owned());
        server.expect_get();
        let mut client = Client::start(config);
        if is_old {
            client.initialize().await;
            server.post().await.respond(405, &[], "").await;
        } else {
            client.send(call("1")).await;
            server.post().await.ends_to_be_resumed().await;
        }
        unauthorized(server.get().await, &issuer).await;
        let failure = client.expect_error(if is_old { r#""init""# } else { "1" }).await;
        let expected = if is_old { ("other_issuer", false) } else { ("no_answer", true) };
        assert_eq!((failure.kind(), failure.may_have_run()), expected, "{failure:?}");
        assert!(format!("{failure:?}").contains("https://login.example.com"), "{failure:?}");
        assert!(prompts.try_recv().is_err());
        client.finish(&mut server).await;
    }
}

/// A document at another URL than its issuer's may claim any issuer.
#[tokio::test]
async fn authorization_server_metadata_at_a_foreign_url_is_refused() {
    for (path, named) in [
        ("/a/.well-known/x", Some(true)),
        ("/a/.well-known/x", None),
        ("/a/.well-known/x", Some(false)),
        ("/.well-known/oauth-authorization-server-x", Some(true)),
    ] {
        let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
        known_client(&mut config, Grant::ClientCredentials, Some(secret()));
        let mut client = Client::start(config);
        let token = sign_in(&mut client, &mut server, &issuer, &mut prompts, Grant::ClientCredentials).await;

        let hostile = Issuer::of(&server).await;
        let origin = hostile.origin();
        let mut document = json!({
            "authorization_endpoint": format!("{origin}/authorize"),
            "token_endpoint": format!("{origin}/token"),
            "code_challenge_methods_supported": ["S256"],
        });
        if let Some(is_foreign) = named {
            document["issuer"] = if is_foreign { issuer.origin().into() } else { format!("{origin}/a").into() };
        }
        hostile.state().documents.insert(path.to_owned(), document);
        hostile.state().resource_metadata = json!({"authorization_servers": [origin + path]});
        client.send(call("2")).await;
        unauthorized(with_token(&mut server, &token).await, &hostile).await;
        let failure = client.expect_error("2").await;
        assert_eq!(failure.kind(), "sign_in_failed", "{failure:?}");
        client.finish(&mut server).await;
        let state = hostile.state();
        assert!(state.tokens.is_empty() && !state.has_got("canary"), "{path} {named:?}");
    }
}

#[tokio::test]
async fn oauth_urls_at_forbidden_addresses_are_refused_with_the_address() {
    for (metadata, resource, at) in [
        (json!({"token_endpoint": "https://[fec0::1]/token"}), json!({}), "fec0::1"),
        (json!({"token_endpoint": "https://[64:ff9b::a00:1]/token"}), json!({}), "64:ff9b::"),
        (json!({"token_endpoint": "https://[::ffff:10.0.0.1]/token"}), json!({}), "a00:1"),
        (json!({"token_endpoint": "https://[2002:c0a8:1::]/token"}), json!({}), "2002:c0a8"),
        (json!({"token_endpoint": "https://0x0a000001/token"}), json!({}), "10.0.0.1"),
        (json!({"token_endpoint": "https://012.0.0.1./token"}), json!({}), "10.0.0.1"),
        (json!({"token_endpoint": "https://167772161/token"}), json!({}), "10.0.0.1"),
        (json!({"authorization_endpoint": "https://192.0.0.8/a"}), json!({}), "192.0.0.8"),
        (json!({"registration_endpoint": "https://[100::1]/r"}), json!({}), "100::1"),
        (json!({}), json!({"authorization_servers": ["https://[5f00::1]/"]}), "5f00::1"),
        (
            json!({}),
            json!({"authorization_servers": ["https://192.168.0.1", "https://169.254.169.254"]}),
            "192.168.0.1",
        ),
    ] {
        let (mut server, mut client, failure, mut prompts) = refused_for(metadata, resource).await;
        assert_eq!((failure.kind(), failure.may_have_run()), ("forbidden_address", false), "{at}: {failure:?}");
        assert!(failure.message.contains(at) && failure.message.contains("where the MCP server is not"), "{failure:?}");
        assert!(failure.data.get("attempts").is_none(), "{failure:?}");
        // The call was sent once: nothing else arrived.
        client.expect_nothing(&mut server).await;
        client.finish(&mut server).await;
        assert!(prompts.try_recv().is_err(), "{at}");
    }
}

#[tokio::test]
async fn extreme_device_code_intervals_neither_end_nor_hurry_the_polling() {
    for (device, word) in [
        (json!({"interval": u64::MAX, "expires_in": u64::MAX}), "slow_down"),
        (json!({"interval": u64::MAX - 1, "expires_in": i64::MAX}), "slow_down"),
        (json!({"interval": -1, "expires_in": 1e300}), "authorization_pending"),
        (json!({"interval": 0.5, "expires_in": "600"}), "authorization_pending"),
        (json!({"interval": "soon"}), "authorization_pending"),
    ] {
        let (mut server, issuer, mut config, _prompts, _folder) = scene().await;
        let settings = config.oauth.as_mut().unwrap();
        settings.grant = Grant::Device;
        settings.login_wait = Duration::from_millis(500);
        {
            let mut state = issuer.state();
            (state.device, state.device_waits, state.device_word) = (device.clone(), usize::MAX, word);
        }
        let mut client = Client::start(config);
        refused_call(&mut client, &mut server, &issuer, "1").await;
        let failure = client.expect_error("1").await;
        assert_eq!(failure.kind(), "sign_in", "{device}: {failure:?}");
        assert_eq!(issuer.state().tokens.len(), 1, "{device}");
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn a_list_of_20000_authorization_servers_causes_fewer_than_64_requests() {
    let (mut server, issuer, config, _prompts, _folder) = scene().await;
    let names: Vec<_> = (0..20_000).map(|count| format!("{}/{count}", issuer.origin())).collect();
    issuer.state().resource_metadata = json!({"authorization_servers": names});
    let mut client = Client::start(config);
    refused_call(&mut client, &mut server, &issuer, "1").await;
    assert_eq!(client.expect_error("1").await.kind(), "sign_in_failed");
    client.finish(&mut server).await;
    let asked = issuer.state().requests.len();
    assert!(asked < 64, "{asked} requests");
}

/// Returns the secrets that only the two parties of a sign-in may see.
fn canaries(issuer: &Issuer) -> Vec<String> {
    const NAMES: [&str; 7] =
        ["client_secret", "client_assertion", "code", "code_verifier", "refresh_token", "device_code", "authorization"];
    let state = issuer.state();
    let mut found: Vec<_> = state
        .tokens
        .iter()
        .chain(&state.revocations)
        .flatten()
        .filter(|(name, _)| NAMES.contains(&name.as_str()))
        .map(|(_, value)| value.trim_start_matches("Basic ").to_owned())
        .collect();
    found.extend(["canary".to_owned(), "hunter".to_owned()]);
    found.retain(|value| value.len() >= 6);
    found
}

#[tokio::test]
async fn sign_in_secrets_are_not_shown_or_logged_or_sent_to_another_server() {
    let log = Log::default();
    let _guard = log.record();
    let mut told = String::new();
    for (grant, credential, registered, redirects) in [
        (Grant::Browser, Some(secret()), false, false),
        (Grant::Browser, None, true, false),
        (Grant::Device, Some(secret()), false, false),
        (Grant::ClientCredentials, Some(secret()), false, false),
        (Grant::ClientCredentials, Some(key()), false, false),
        (Grant::Browser, Some(secret()), false, true),
        (Grant::Device, Some(secret()), false, true),
        (Grant::ClientCredentials, Some(secret()), false, true),
    ] {
        let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
        let stranger = Issuer::of(&server).await;
        if registered {
            issuer.state().registered =
                json!({"client_secret": "canary-registered", "token_endpoint_auth_method": "client_secret_basic"});
        } else {
            known_client(&mut config, grant, credential);
        }
        issuer.state().device = json!({"device_code": "canary-device-code"});
        let mut client = Client::start(config.clone());
        // First the sign-in succeeds, unless it is redirected before there is a token.
        let token =
            if redirects { None } else { Some(sign_in(&mut client, &mut server, &issuer, &mut prompts, grant).await) };
        writeln!(told, "{:?}", config.account().unwrap().status().await.unwrap()).unwrap();
        while prompts.try_recv().is_ok() {}

        // Then the issuer echoes each request or redirects it; the MCP server echoes the token.
        {
            let mut state = issuer.state();
            state.echoes = vec!["/token", "/revoke", "/register", "/device"];
            state.redirects = redirects.then(|| format!("{}/token", stranger.origin()));
            state.metadata = json!({"revocation_endpoint": format!("{}/revoke", issuer.origin())});
        }
        client.send(call("2")).await;
        if let Some(token) = &token {
            let echo = issuer.challenge(&format!(r#", error="{token}", scope="{token}""#));
            let post = with_token(&mut server, token).await;
            post.respond(401, &[("WWW-Authenticate", &echo)], "").await;
        } else {
            refuse(&mut server, &issuer).await;
        }
        if grant == Grant::Browser {
            issuer.approve(&prompted(&mut prompts).await).await;
        }
        let failure = client.expect_error("2").await;
        assert_eq!(failure.kind(), "sign_in_failed", "{failure:?}");
        writeln!(told, "{failure:?}").unwrap();
        client.finish(&mut server).await;
        writeln!(told, "{:?}", sign_out(&mut server, &issuer, &config).await).unwrap();

        let mut canaries = canaries(&issuer);
        canaries.extend(token);
        let log = log.text();
        for canary in &canaries {
            assert!(!told.contains(canary), "{canary} is shown: {told}");
            assert!(
                !log.contains(canary),
                "{canary} is logged: {}",
                log.lines().filter(|line| line.contains(canary)).collect::<String>()
            );
        }
        assert!(log.contains("no token"), "the log is recorded");
        assert!(stranger.state().requests.is_empty(), "{:?}", stranger.state().requests);
    }
}
