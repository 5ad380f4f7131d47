//! Sign-in at real servers: authorization servers that follow the standards loosely, and servers with API keys and no
//! sign-in.

use mcp_gangway_core::auth::{Grant, Prompt};
use serde_json::json;
use url::Url;

use crate::{
    issuer::{Issuer, query},
    oauth::{answered, prompted, refused_call, scene, sign_out, unauthorized, with_token},
    support::{Client, SOON, Server, call, within},
};

#[tokio::test]
async fn a_loosely_typed_token_response_is_accepted() {
    for (token, scopes, refreshes) in [
        (json!({"expires_in": "3600", "scope": ["read", "write"], "token_type": null}), "read write", true),
        (json!({"expires_in": 3600.5, "scope": null, "id_token": null, "token_type": "BEARER"}), "read", true),
        (json!({"expires_in": null, "refresh_token": null, "scope": "read  write"}), "read write", false),
        (json!({"refresh_token": "", "token_type": "", "issued_at": {"any": "thing"}}), "read", false),
    ] {
        let (mut server, issuer, config, mut prompts, _folder) = scene().await;
        issuer.state().token = token.clone();
        let mut client = Client::start(config.clone());
        refused_call(&mut client, &mut server, &issuer, "1").await;
        issuer.approve(&prompted(&mut prompts).await).await;
        answered(&mut client, &mut server, "token-2").await;
        let [status] = &*config.account().unwrap().status().await.unwrap() else { panic!("one record") };
        assert_eq!((status.scopes.join(" "), status.can_refresh), (scopes.to_owned(), refreshes), "{token}");
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn loosely_typed_oauth_metadata_is_accepted() {
    let (mut server, issuer, config, mut prompts, _folder) = scene().await;
    issuer.state().metadata = json!({
        "code_challenge_methods_supported": "plain S256",
        "scopes_supported": null,
        "response_types_supported": "code",
        "authorization_response_iss_parameter_supported": "true",
        "jwks_uri": null,
    });
    let origin = issuer.origin();
    issuer.state().resource_metadata = json!({"authorization_servers": origin, "scopes_supported": "read write"});
    issuer.state().registered = json!({"client_id": 12_345, "client_secret": "", "client_secret_expires_at": "0"});
    let mut client = Client::start(config);
    refused_call(&mut client, &mut server, &issuer, "1").await;
    let url = prompted(&mut prompts).await;
    assert_eq!((&*query(&url)["client_id"], &*query(&url)["scope"]), ("12345", "read write"));
    issuer.approve(&url).await;
    answered(&mut client, &mut server, "token-2").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_token_endpoint_error_of_any_status_and_form_is_in_the_message() {
    for (status, said, words) in [
        (200, json!({"error": "bad_verification_code", "error_description": "It is over"}), "It is over"),
        (200, json!({"error": {"code": "denied", "message": "Not for you"}}), "denied: Not for you"),
        (400, json!({"error": {"message": "Not for you"}}), "Not for you"),
        (401, json!({"message": "Unknown client"}), "Unknown client"),
        (500, json!({"error": "server_error", "error_description": "On fire"}), "On fire"),
    ] {
        let (mut server, issuer, config, mut prompts, _folder) = scene().await;
        issuer.state().answers.insert("/token", (status, said));
        let mut client = Client::start(config);
        refused_call(&mut client, &mut server, &issuer, "1").await;
        issuer.approve(&prompted(&mut prompts).await).await;
        let failure = client.expect_error("1").await;
        assert_eq!(failure.kind(), "sign_in_failed", "{failure:?}");
        assert!(failure.message.contains(words), "{words}: {failure:?}");
        client.finish(&mut server).await;
    }
}

/// Some servers answer a device that polls too soon with 200, and send the error code as a number.
#[tokio::test]
async fn authorization_pending_with_status_200_keeps_the_device_polling() {
    let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
    config.oauth.as_mut().unwrap().grant = Grant::Device;
    issuer.state().device = json!({"user_code": 4711, "interval": "1", "expires_in": null});
    issuer.state().answers.insert("/token", (200, json!({"error": "authorization_pending"})));
    let mut client = Client::start(config);
    refused_call(&mut client, &mut server, &issuer, "1").await;
    let Some(Prompt::Device { code, .. }) = within("a prompt", prompts.recv()).await else { panic!("a code") };
    assert_eq!(code, "4711");
    within("an early poll", async {
        while !issuer.state().has_got("POST /token") {
            tokio::time::sleep(SOON).await;
        }
    })
    .await;
    issuer.state().answers.clear();
    answered(&mut client, &mut server, "token-1").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn registration_uses_the_redirect_host_that_the_issuer_accepts() {
    for only in ["localhost", "127.0.0.1"] {
        let (mut server, issuer, config, mut prompts, _folder) = scene().await;
        issuer.state().redirect_host = Some(only);
        let mut client = Client::start(config.clone());
        refused_call(&mut client, &mut server, &issuer, "1").await;
        let url = prompted(&mut prompts).await;
        let redirect = Url::parse(&query(&url)["redirect_uri"]).unwrap();
        assert_eq!((redirect.host_str(), redirect.path()), (Some(only), "/callback"));
        issuer.approve(&url).await;
        with_token(&mut server, "token-2").await.answer("{}").await;
        client.line("its answer").await;
        let tries = issuer.state().registrations.len();
        assert_eq!(tries, if only == "localhost" { 2 } else { 1 });
        client.finish(&mut server).await;

        // The next sign-in uses the same client, and registers no other.
        issuer.state().refreshes = false;
        let mut client = Client::start(config);
        refused_call(&mut client, &mut server, &issuer, "1").await;
        refuse_token(&mut server, &issuer, "token-2").await;
        let url = prompted(&mut prompts).await;
        assert_eq!(query(&url)["redirect_uri"], redirect.as_str());
        issuer.approve(&url).await;
        with_token(&mut server, "token-4").await.answer("{}").await;
        client.line("its answer").await;
        assert_eq!(issuer.state().registrations.len(), tries);
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn the_redirect_uri_uses_the_configured_callback_host_and_path() {
    let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
    let settings = config.oauth.as_mut().unwrap();
    settings.callback_host = Some("localhost".into());
    settings.callback_path = Some("/oauth/callback".into());
    let mut client = Client::start(config);
    refused_call(&mut client, &mut server, &issuer, "1").await;
    let url = prompted(&mut prompts).await;
    let redirect = Url::parse(&query(&url)["redirect_uri"]).unwrap();
    assert_eq!((redirect.host_str(), redirect.path()), (Some("localhost"), "/oauth/callback"));
    assert_eq!(issuer.state().registrations.len(), 1);
    issuer.approve(&url).await;
    with_token(&mut server, "token-2").await.answer("{}").await;
    client.line("its answer").await;
    client.finish(&mut server).await;
}

/// A server with keys answers 401 to all requests without one, and names no authorization server.
#[tokio::test]
async fn a_call_to_an_api_key_server_fails_with_the_advice_to_give_credentials() {
    for (document, registration) in
        [((401, "no key"), (401, "no key")), ((404, "{}"), (404, "<html>")), ((200, "<html>"), (200, "{}"))]
    {
        let (mut server, _issuer, config, mut prompts, _folder) = scene().await;
        server.expect_get();
        let mut client = Client::start(config);
        client.send(call("1")).await;
        let refused = r#"{"error":"Missing API key"}"#;
        let strict = async {
            loop {
                let request = server.next("a request").await;
                let (status, body) = match &*request.target {
                    "/mcp" => (401, refused),
                    "/register" => registration,
                    _ => document,
                };
                request.respond(status, &[("Content-Type", "application/json")], body).await;
            }
        };
        let failure = tokio::select! {
            failure = client.expect_error("1") => failure,
            () = strict => unreachable!(),
        };
        assert_eq!((failure.kind(), failure.status()), ("http_status", Some(401)), "{failure:?}");
        assert!(
            failure.message.contains("Missing API key") && failure.message.contains("give credentials"),
            "{failure:?}"
        );
        assert!(!failure.message.contains("register"), "{failure:?}");
        assert!(prompts.try_recv().is_err());
        server.expect_no_more();
    }
}

#[tokio::test]
async fn a_login_at_an_api_key_server_says_to_give_a_key() {
    let (mut server, _issuer, config, _prompts, _folder) = scene().await;
    server.expect_get();
    let strict = async {
        loop {
            server.next("a request").await.respond(401, &[], "no key").await;
        }
    };
    let account = config.account().unwrap();
    let error = tokio::select! {
        outcome = account.login() => outcome.unwrap_err(),
        () = strict => unreachable!(),
    };
    assert_eq!(error.kind(), "no_sign_in");
    assert!(error.to_string().contains("give a key or a token"), "{error}");
}

/// Signing out removes everything, also where the client was registered under its other name.
#[tokio::test]
async fn a_client_registered_under_its_other_redirect_host_signs_out() {
    let (mut server, issuer, config, mut prompts, _folder) = scene().await;
    issuer.state().redirect_host = Some("localhost");
    let mut client = Client::start(config.clone());
    refused_call(&mut client, &mut server, &issuer, "1").await;
    issuer.approve(&prompted(&mut prompts).await).await;
    with_token(&mut server, "token-2").await.answer("{}").await;
    client.line("its answer").await;
    client.finish(&mut server).await;
    assert_eq!(sign_out(&mut server, &issuer, &config).await.len(), 1);
    assert!(config.account().unwrap().status().await.unwrap().is_empty());
}

async fn refuse_token(server: &mut Server, issuer: &Issuer, token: &str) {
    unauthorized(with_token(server, token).await, issuer).await;
}
