//! Sign-in when a server asks for it.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use mcp_gangway_core::auth::{Credential, Grant, Prompt, Resource, Revocation, Secret};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;
use url::Url;

use crate::issuer::{Issuer, come_back, query, signing_in, visit};
use crate::support::{
    Client, Exchange, Failure, INITIALIZED, Server, VERSION, call, modern, request, response, within,
};

/// Returns a server, its authorization server, settings, the prompts, and a folder for the tokens.
pub(crate) async fn scene() -> (Server, Issuer, mcp_gangway_core::Config, UnboundedReceiver<Prompt>, TempDir) {
    let server = Server::start().await;
    let issuer = Issuer::of(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let (config, prompts) = signing_in(&server, folder.path());
    (server, issuer, config, prompts, folder)
}

pub(crate) async fn prompted(prompts: &mut UnboundedReceiver<Prompt>) -> String {
    within("a prompt", prompts.recv()).await.unwrap().url().to_owned()
}

/// Takes a request without a token, and refuses it with a challenge.
pub(crate) async fn refuse(server: &mut Server, issuer: &Issuer) {
    let post = server.post().await;
    assert_eq!(post.header("authorization"), None);
    unauthorized(post, issuer).await;
}

/// Signs out, while the server answers requests with the challenge that names its metadata.
pub(crate) async fn sign_out(
    server: &mut Server,
    issuer: &Issuer,
    config: &mcp_gangway_core::Config,
) -> Vec<Revocation> {
    server.expect_get();
    let tell = async {
        loop {
            let get = server.next("a request for the metadata").await;
            unauthorized(get, issuer).await;
        }
    };
    let account = config.account().unwrap();
    tokio::select! {
        revocations = account.logout() => revocations.unwrap(),
        () = tell => unreachable!(),
    }
}

/// Returns the failure of a call to a server that requires a token, with both parties and the prompts. `metadata` and
/// `resource` are added to the metadata of the authorization server and of the resource.
pub(crate) async fn refused_for(
    metadata: Value,
    resource: Value,
) -> (Server, Client, Failure, UnboundedReceiver<Prompt>) {
    let (mut server, issuer, config, prompts, _folder) = scene().await;
    issuer.state().metadata = metadata;
    issuer.state().resource_metadata = resource;
    let mut client = Client::start(config);
    client.send(call("1")).await;
    refuse(&mut server, &issuer).await;
    let failure = client.expect_error("1").await;
    (server, client, failure, prompts)
}

pub(crate) async fn unauthorized(post: Exchange, issuer: &Issuer) {
    post.respond(401, &[("WWW-Authenticate", &issuer.challenge(""))], "").await;
}

pub(crate) async fn with_token(server: &mut Server, token: &str) -> Exchange {
    let post = server.post().await;
    assert_eq!(post.header("authorization"), Some(&*format!("Bearer {token}")));
    post
}

/// Calls with this id, and refuses the call, which has no token yet.
pub(crate) async fn refused_call(client: &mut Client, server: &mut Server, issuer: &Issuer, id: &str) {
    client.send(call(id)).await;
    refuse(server, issuer).await;
}

/// Answers the next request, which must have this token.
pub(crate) async fn answered(client: &mut Client, server: &mut Server, token: &str) {
    let answer = with_token(server, token).await.answer("{}").await;
    client.expect(answer).await;
}

/// Calls with this id, and answers the call, which must have this token.
pub(crate) async fn answered_call(client: &mut Client, server: &mut Server, id: &str, token: &str) {
    client.send(call(id)).await;
    answered(client, server, token).await;
}

#[tokio::test]
async fn requests_wait_for_the_sign_in_and_are_sent_again_with_the_token() {
    let (mut server, issuer, config, mut prompts, folder) = scene().await;
    let mut client = Client::start(config.clone());
    client.send(call("1")).await;
    refused_call(&mut client, &mut server, &issuer, "2").await;
    refuse(&mut server, &issuer).await;
    let url = prompted(&mut prompts).await;
    let request = query(&url);
    assert_eq!(request["response_type"], "code");
    assert_eq!(request["code_challenge_method"], "S256");
    assert_eq!(request["resource"], format!("{}/mcp", server.origin()));
    assert_eq!(request["scope"], "read");
    assert!(request["state"].len() >= 16);
    assert!(request["redirect_uri"].starts_with("http://127.0.0.1:"));
    {
        let state = issuer.state();
        let [registration] = &*state.registrations else { panic!("one registration") };
        assert_eq!(registration["application_type"], "native");
        assert_eq!(registration["redirect_uris"], json!([request["redirect_uri"]]));
    }
    let page = issuer.approve(&url).await;
    assert!(page.contains("You are signed in") && !page.contains("<script"), "{page}");
    let (one, two) = (with_token(&mut server, "token-2").await, with_token(&mut server, "token-2").await);
    let answers = [one.answer("{}").await, two.answer("{}").await];
    client.expect_all(answers).await;
    let form = issuer.state().tokens[0].clone();
    assert_eq!(form["resource"], request["resource"]);
    client.finish(&mut server).await;

    // The next bridge finds the token.
    let mut client = Client::start(config.clone());
    refused_call(&mut client, &mut server, &issuer, "1").await;
    answered(&mut client, &mut server, "token-2").await;
    client.finish(&mut server).await;
    assert!(prompts.try_recv().is_err());
    assert_eq!(issuer.state().tokens.len(), 1);

    let [status] = &*config.account().unwrap().status().await.unwrap() else { panic!("one record") };
    assert!(status.is_signed_in && status.can_refresh && status.expiry.is_some());
    assert_eq!((status.issuer.clone(), status.scopes.join(" ")), (issuer.origin(), "read".to_owned()));
    let shown = format!("{status:?}");
    assert!(!shown.contains("token-") && !shown.contains("refresh-"), "{shown}");
    assert!(matches!(&*sign_out(&mut server, &issuer, &config).await, [Revocation::NotOffered]));
    assert!(config.account().unwrap().status().await.unwrap().is_empty());
    drop(folder);
}

#[tokio::test]
async fn signing_out_revokes_both_tokens_or_returns_the_failure() {
    for (endpoint, secret, fault) in [
        ("/revoke", None, None),
        ("/revoke", Some("hunter2"), None),
        ("/nowhere", None, Some("404")),
        // Tokens are never sent without TLS, even if the server asks for that.
        ("http://as.example/revoke", None, Some("only https")),
    ] {
        let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
        let endpoint = if endpoint.starts_with('/') { issuer.origin() + endpoint } else { endpoint.to_owned() };
        issuer.state().metadata = json!({"revocation_endpoint": endpoint});
        let settings = config.oauth.as_mut().unwrap();
        settings.client_id = Some("known".to_owned());
        settings.credential = secret.map(|secret| Credential::Secret(Secret::new(secret.into())));
        let mut client = Client::start(config.clone());
        refused_call(&mut client, &mut server, &issuer, "1").await;
        issuer.approve(&prompted(&mut prompts).await).await;
        answered(&mut client, &mut server, "token-2").await;
        client.finish(&mut server).await;

        let revocations = sign_out(&mut server, &issuer, &config).await;
        match (&*revocations, fault) {
            ([Revocation::Done], None) => {}
            ([Revocation::Failed(error)], Some(fault)) => assert!(error.to_string().contains(fault), "{error}"),
            other => panic!("{other:?}"),
        }
        assert!(config.account().unwrap().status().await.unwrap().is_empty(), "the account is forgotten");
        let state = issuer.state();
        let tokens: Vec<_> = state.revocations.iter().map(|form| &*form["token"]).collect();
        assert_eq!(tokens, if fault.is_none() { &["refresh-2", "token-2"][..] } else { &[] });
        for form in &state.revocations {
            assert_eq!(form.get("authorization").map(String::as_str), secret.map(|_| "Basic a25vd246aHVudGVyMg=="));
            assert_eq!(form.contains_key("client_id"), secret.is_none());
        }
    }
}

#[tokio::test]
async fn a_configured_authorization_header_is_not_replaced_by_a_sign_in() {
    let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
    config.set_authorization("Bearer own").unwrap();
    let mut client = Client::start(config);
    client.send(call("1")).await;
    unauthorized(with_token(&mut server, "own").await, &issuer).await;
    assert_eq!(client.expect_error("1").await.status(), Some(401));
    client.finish(&mut server).await;
    assert!(prompts.try_recv().is_err());
}

#[tokio::test]
async fn a_denied_sign_in_is_reported_in_the_browser_and_to_the_client() {
    let (mut server, issuer, config, mut prompts, _folder) = scene().await;
    let mut client = Client::start(config);
    refused_call(&mut client, &mut server, &issuer, "1").await;
    let request = query(&prompted(&mut prompts).await);
    let redirect = Url::parse(&request["redirect_uri"]).unwrap();
    for (stray, status) in [("/favicon.ico", "404"), ("/callback?code=x&state=y", "400"), ("/callback", "400")] {
        let page = visit(&redirect.join(stray).unwrap()).await;
        assert!(page.starts_with(&format!("HTTP/1.1 {status} ")), "{page}");
    }
    let denial = [("error", "access_denied"), ("error_description", "<b>no</b>"), ("iss", &issuer.origin())];
    let page = come_back(&request, &denial).await;
    assert!(page.contains("access_denied: &lt;b&gt;no&lt;/b&gt;") && !page.contains("<b>"), "{page}");
    let failure = client.expect_error("1").await;
    assert_eq!((failure.kind(), failure.may_have_run()), ("sign_in_failed", false), "{failure:?}");
    assert!(failure.message.contains("access_denied"), "{failure:?}");
    // The bridge does not prompt again at once.
    refused_call(&mut client, &mut server, &issuer, "2").await;
    assert!(client.expect_error("2").await.message.contains("access_denied"));
    assert!(prompts.try_recv().is_err());
    client.finish(&mut server).await;
}

#[tokio::test]
async fn an_authorization_response_without_the_right_issuer_is_refused() {
    for answer in
        [&[("code", "x"), ("iss", "https://evil.example")][..], &[("error", "hunter2"), ("iss", "")], &[("code", "x")]]
    {
        let (mut server, issuer, config, mut prompts, _folder) = scene().await;
        let mut client = Client::start(config);
        refused_call(&mut client, &mut server, &issuer, "1").await;
        let page = come_back(&query(&prompted(&mut prompts).await), answer).await;
        assert!(page.contains("does not come from") && !page.contains("hunter2"), "{page}");
        assert!(client.expect_error("1").await.message.contains("does not come from"));
        client.finish(&mut server).await;
        assert!(issuer.state().tokens.is_empty());
    }
}

#[tokio::test]
async fn unusable_oauth_metadata_is_refused_with_a_reason() {
    let none = json!({});
    for (metadata, resource, reason) in [
        (json!({"code_challenge_methods_supported": null}), none.clone(), "PKCE"),
        (json!({"code_challenge_methods_supported": ["plain"]}), none.clone(), "PKCE"),
        (json!({"issuer": "https://evil.example"}), none.clone(), "mismatch"),
        (json!({"authorization_endpoint": "http://as.example/authorize"}), none.clone(), "only https"),
        (json!({"authorization_endpoint": "file:///etc/passwd"}), none.clone(), "not http or https"),
        (json!({"registration_endpoint": "https://10.0.0.1/"}), none.clone(), "where the MCP server is not"),
        (json!({"registration_endpoint": null}), none.clone(), "name a client that is known there"),
        (none.clone(), json!({"resource": "https://other.example/mcp"}), "mismatch"),
        (none.clone(), json!({"authorization_servers": ["https://192.168.0.1"]}), "none published"),
    ] {
        let (mut server, client, failure, mut prompts) = refused_for(metadata, resource).await;
        assert!(format!("{failure:?}").contains(reason), "{reason}: {failure:?}");
        assert!(prompts.try_recv().is_err(), "{reason}");
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires_and_once_for_many_calls() {
    let (mut server, issuer, config, mut prompts, _folder) = scene().await;
    // A refresh is due after four fifths of the lifetime, so at once.
    issuer.state().life = 0;
    let mut client = Client::start(config);
    let ids: Vec<_> = (1..=64).map(|id| id.to_string()).collect();
    for id in &ids {
        client.send(call(id)).await;
    }
    for _ in &ids {
        refuse(&mut server, &issuer).await;
    }
    issuer.approve(&prompted(&mut prompts).await).await;
    let mut answers = Vec::new();
    for _ in &ids {
        answers.push(with_token(&mut server, "token-3").await.answer("{}").await);
    }
    client.expect_all(answers).await;
    assert_eq!(issuer.state().tokens.len(), 2, "one sign-in, one refresh");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_for_many_calls() {
    let (mut server, issuer, config, mut prompts, _folder) = scene().await;
    let mut client = Client::start(config);
    refused_call(&mut client, &mut server, &issuer, "0").await;
    issuer.approve(&prompted(&mut prompts).await).await;
    answered(&mut client, &mut server, "token-2").await;
    let ids: Vec<_> = (1..=64).map(|id| id.to_string()).collect();
    for id in &ids {
        client.send(call(id)).await;
    }
    for _ in &ids {
        unauthorized(with_token(&mut server, "token-2").await, &issuer).await;
    }
    let mut answers = Vec::new();
    for _ in &ids {
        answers.push(with_token(&mut server, "token-3").await.answer("{}").await);
    }
    client.expect_all(answers).await;
    let form = issuer.state().tokens[1].clone();
    assert_eq!((issuer.state().tokens.len(), &*form["refresh_token"]), (2, "refresh-2"));
    assert_eq!(form["resource"], format!("{}/mcp", server.origin()));
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_refused_refresh_token_leads_to_a_new_sign_in() {
    let (mut server, issuer, config, mut prompts, _folder) = scene().await;
    let mut client = Client::start(config);
    refused_call(&mut client, &mut server, &issuer, "1").await;
    issuer.approve(&prompted(&mut prompts).await).await;
    issuer.state().refreshes = false;
    unauthorized(with_token(&mut server, "token-2").await, &issuer).await;
    issuer.approve(&prompted(&mut prompts).await).await;
    // If the server refuses two tokens, the bridge does not request a third.
    unauthorized(with_token(&mut server, "token-4").await, &issuer).await;
    assert_eq!(client.expect_error("1").await.status(), Some(401));
    client.finish(&mut server).await;
    assert_eq!(issuer.state().registrations.len(), 1);
    assert!(prompts.try_recv().is_err());
}

#[tokio::test]
async fn a_token_that_is_refused_after_its_renewal_leads_to_a_new_sign_in() {
    let (mut server, issuer, config, mut prompts, _folder) = scene().await;
    let mut client = Client::start(config);
    refused_call(&mut client, &mut server, &issuer, "1").await;
    issuer.approve(&prompted(&mut prompts).await).await;
    answered(&mut client, &mut server, "token-2").await;
    client.send(call("2")).await;
    unauthorized(with_token(&mut server, "token-2").await, &issuer).await;
    unauthorized(with_token(&mut server, "token-3").await, &issuer).await;
    issuer.approve(&prompted(&mut prompts).await).await;
    answered(&mut client, &mut server, "token-5").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn further_sign_ins_add_to_the_granted_scopes_and_stop_after_three() {
    let (mut server, issuer, config, mut prompts, _folder) = scene().await;
    let mut client = Client::start(config);
    refused_call(&mut client, &mut server, &issuer, "1").await;
    issuer.approve(&prompted(&mut prompts).await).await;
    let scope = |scope: &str| issuer.challenge(&format!(r#", error="insufficient_scope", scope="{scope}""#));
    let mut granted = "read".to_owned();
    for (token, wanted) in [("token-2", "write"), ("token-4", "admin"), ("token-6", "read root")] {
        let post = with_token(&mut server, token).await;
        post.respond(403, &[("WWW-Authenticate", &scope(wanted))], "").await;
        let url = prompted(&mut prompts).await;
        granted = format!("{granted} {}", wanted.trim_start_matches("read "));
        assert_eq!(query(&url)["scope"], granted);
        issuer.approve(&url).await;
    }
    let post = with_token(&mut server, "token-8").await;
    post.respond(403, &[("WWW-Authenticate", &scope("more"))], "").await;
    assert_eq!(client.expect_error("1").await.status(), Some(403));
    // The scope was granted and is not enough, so do not request it again.
    client.send(call("2")).await;
    let post = with_token(&mut server, "token-8").await;
    post.respond(403, &[("WWW-Authenticate", &scope("admin"))], "").await;
    assert_eq!(client.expect_error("2").await.status(), Some(403));
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_new_authorization_server_gets_its_own_registration_and_sign_in() {
    let (mut server, issuer, config, mut prompts, _folder) = scene().await;
    let mut client = Client::start(config);
    refused_call(&mut client, &mut server, &issuer, "1").await;
    issuer.approve(&prompted(&mut prompts).await).await;
    let other = Issuer::of(&server).await;
    unauthorized(with_token(&mut server, "token-2").await, &other).await;
    other.approve(&prompted(&mut prompts).await).await;
    answered(&mut client, &mut server, "token-2").await;
    assert_eq!((issuer.state().tokens.len(), other.state().registrations.len()), (1, 1));
    assert_eq!(other.state().tokens[0]["grant_type"], "authorization_code");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_token_refused_when_a_call_stream_is_resumed_is_renewed() {
    let (mut server, issuer, config, mut prompts, _folder) = scene().await;
    let mut client = Client::start(config);
    refused_call(&mut client, &mut server, &issuer, "1").await;
    issuer.approve(&prompted(&mut prompts).await).await;
    let mut post = with_token(&mut server, "token-2").await;
    server.expect_get();
    post.sse().await;
    post.chunk("retry: 5\nid: 0\ndata:\n\n").await;
    post.end().await;
    let get = server.get().await;
    assert_eq!(get.header("authorization"), Some("Bearer token-2"));
    unauthorized(get, &issuer).await;
    let mut get = server.get().await;
    assert_eq!((get.header("authorization"), get.header("last-event-id")), (Some("Bearer token-3"), Some("0")));
    get.sse().await;
    let answer = response("1", "{}");
    get.event(&answer).await;
    get.end().await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn two_bridges_share_one_sign_in_and_one_renewal() {
    let (mut server, issuer, config, mut prompts, _folder) = scene().await;
    let (mut one, mut two) = (Client::start(config.clone()), Client::start(config));
    one.send(call("1")).await;
    two.send(call("1")).await;
    refuse(&mut server, &issuer).await;
    refuse(&mut server, &issuer).await;
    issuer.approve(&prompted(&mut prompts).await).await;
    let mut answers = Vec::new();
    for _ in 0..2 {
        answers.push(with_token(&mut server, "token-2").await.answer("{}").await);
    }
    one.expect(&answers[0]).await;
    two.expect(&answers[1]).await;
    // The token is refused for both bridges; one of them renews it.
    one.send(call("2")).await;
    two.send(call("2")).await;
    for _ in 0..2 {
        unauthorized(with_token(&mut server, "token-2").await, &issuer).await;
    }
    for _ in 0..2 {
        with_token(&mut server, "token-3").await.answer("{}").await;
    }
    one.line("its answer").await;
    two.line("its answer").await;
    assert_eq!(issuer.state().tokens.len(), 2);
    assert!(prompts.try_recv().is_err());
    one.finish(&mut server).await;
    two.finish(&mut server).await;
}

#[tokio::test]
async fn requests_that_time_out_during_a_sign_in_get_an_error_with_its_url() {
    let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
    config.oauth.as_mut().unwrap().login_wait = Duration::from_secs(2);
    let mut client = Client::start(config);
    refused_call(&mut client, &mut server, &issuer, "1").await;
    let url = prompted(&mut prompts).await;
    let failure = client.expect_error("1").await;
    assert_eq!((failure.kind(), failure.data["url"].as_str()), ("sign_in", Some(&*url)), "{failure:?}");
    refused_call(&mut client, &mut server, &issuer, "2").await;
    assert_eq!(client.expect_error("2").await.data["url"].as_str(), Some(&*url));
    issuer.approve(&url).await;
    // The page is sent only after the token is stored.
    answered_call(&mut client, &mut server, "3", "token-2").await;
    assert!(prompts.try_recv().is_err());
    client.finish(&mut server).await;
}

#[tokio::test]
async fn the_device_grant_prompts_with_a_code_and_gets_a_token() {
    let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
    config.oauth.as_mut().unwrap().grant = Grant::Device;
    issuer.state().device_waits = 1;
    let mut client = Client::start(config);
    refused_call(&mut client, &mut server, &issuer, "1").await;
    let Some(Prompt::Device { url, code, .. }) = within("a prompt", prompts.recv()).await else { panic!("a code") };
    assert_eq!((url, code), (format!("{}/type", issuer.origin()), "ABCD".to_owned()));
    answered(&mut client, &mut server, "token-1").await;
    {
        let state = issuer.state();
        assert!(state.registrations[0]["grant_types"].to_string().contains("device_code"));
        assert_eq!(state.tokens.len(), 2);
        assert_eq!(state.tokens[1]["resource"], format!("{}/mcp", server.origin()));
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn the_client_credentials_grant_needs_no_registration_and_no_prompt() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for credential in [Credential::Secret(Secret::new("hunter2".into())), Credential::Key(Secret::new(key))] {
        let has_key = matches!(credential, Credential::Key(_));
        let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
        let settings = config.oauth.as_mut().unwrap();
        settings.grant = Grant::ClientCredentials;
        settings.client_id = Some("robot".to_owned());
        settings.credential = Some(credential);
        let mut client = Client::start(config);
        refused_call(&mut client, &mut server, &issuer, "1").await;
        // This grant has no refresh token; the bridge requests a new token at once.
        unauthorized(with_token(&mut server, "token-1").await, &issuer).await;
        answered(&mut client, &mut server, "token-2").await;
        let form = issuer.state().tokens[0].clone();
        assert_eq!((&*form["grant_type"], &*form["scope"]), ("client_credentials", "read"));
        assert_eq!(form["resource"], format!("{}/mcp", server.origin()));
        if has_key {
            assert!(form["client_assertion"].split('.').count() == 3 && !form.contains_key("client_secret"));
        } else {
            assert_eq!((&*form["client_id"], &*form["client_secret"]), ("robot", "hunter2"));
        }
        client.finish(&mut server).await;
        assert!(issuer.state().registrations.is_empty() && prompts.try_recv().is_err());
    }
}

#[tokio::test]
async fn the_assertion_algorithm_fits_the_key_and_the_servers_list() {
    for (kind, taken, expected) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, json!(null), "ES256"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, json!(null), "ES384"),
        (&rcgen::PKCS_RSA_SHA256, json!(null), "RS256"),
        (&rcgen::PKCS_RSA_SHA256, json!(["PS256", "RS512", "RS256"]), "RS512"),
    ] {
        let (mut server, issuer, mut config, _prompts, _folder) = scene().await;
        issuer.state().metadata = json!({"token_endpoint_auth_signing_alg_values_supported": taken});
        let settings = config.oauth.as_mut().unwrap();
        settings.grant = Grant::ClientCredentials;
        settings.client_id = Some("robot".to_owned());
        let key = rcgen::KeyPair::generate_for(kind).unwrap().serialize_pem();
        settings.credential = Some(Credential::Key(Secret::new(key)));
        let mut client = Client::start(config);
        refused_call(&mut client, &mut server, &issuer, "1").await;
        answered(&mut client, &mut server, "token-1").await;
        let form = issuer.state().tokens[0].clone();
        let head = form["client_assertion"].split('.').next().unwrap();
        let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).unwrap()).unwrap();
        assert_eq!(head["alg"], expected);
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn a_registered_client_uses_the_auth_method_of_its_registration() {
    for (method, in_header, in_form) in
        [("client_secret_basic", true, false), ("client_secret_post", false, true), ("none", false, false)]
    {
        let (mut server, issuer, config, mut prompts, _folder) = scene().await;
        // The method of this registration takes precedence over the methods in the metadata.
        issuer.state().metadata =
            json!({"token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"]});
        issuer.state().registered = json!({"client_secret": "hunter2", "token_endpoint_auth_method": method});
        let mut client = Client::start(config.clone());
        refused_call(&mut client, &mut server, &issuer, "1").await;
        issuer.approve(&prompted(&mut prompts).await).await;
        // The next bridge, which refreshes the token, still knows the method.
        answered(&mut client, &mut server, "token-2").await;
        client.finish(&mut server).await;
        let mut client = Client::start(config);
        refused_call(&mut client, &mut server, &issuer, "1").await;
        unauthorized(with_token(&mut server, "token-2").await, &issuer).await;
        answered(&mut client, &mut server, "token-3").await;
        client.finish(&mut server).await;
        let state = issuer.state();
        assert_eq!(state.tokens.len(), 2);
        for form in &state.tokens {
            let shown = (form.contains_key("authorization"), form.contains_key("client_secret"));
            assert_eq!(shown, (in_header, in_form), "{method}: {form:?}");
        }
    }
}

#[tokio::test]
async fn configured_oauth_settings_are_in_the_authorization_and_token_requests() {
    for (resource, expected) in [(Resource::This("urn:x:y".into()), Some("urn:x:y")), (Resource::None, None)] {
        let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
        let settings = config.oauth.as_mut().unwrap();
        settings.resource = resource;
        settings.scopes = vec!["a".to_owned(), "b".to_owned()];
        settings.parameters = vec![("audience".to_owned(), "x&y".to_owned())];
        settings.client_id = Some("known".to_owned());
        settings.credential = Some(Credential::Secret(Secret::new("hunter2".into())));
        let mut client = Client::start(config);
        refused_call(&mut client, &mut server, &issuer, "1").await;
        let url = prompted(&mut prompts).await;
        let request = query(&url);
        assert_eq!((&*request["scope"], &*request["audience"], &*request["client_id"]), ("a b", "x&y", "known"));
        assert_eq!(request.get("resource").map(String::as_str), expected);
        issuer.approve(&url).await;
        answered(&mut client, &mut server, "token-2").await;
        let form = issuer.state().tokens[0].clone();
        assert_eq!(form.get("resource").map(String::as_str), expected);
        assert!(form["authorization"].starts_with("Basic "));
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn a_second_bridge_reports_the_sign_in_url_of_the_first_and_does_not_prompt() {
    let (mut server, issuer, config, mut prompts, folder) = scene().await;
    let mut one = Client::start(config);
    one.send(call("1")).await;
    refuse(&mut server, &issuer).await;
    let url = prompted(&mut prompts).await;

    let (mut config, mut others) = signing_in(&server, folder.path());
    config.oauth.as_mut().unwrap().login_wait = Duration::from_millis(500);
    let mut two = Client::start(config);
    two.send(call("2")).await;
    refuse(&mut server, &issuer).await;
    assert_eq!(two.expect_error("2").await.data["url"].as_str(), Some(&*url));
    issuer.approve(&url).await;
    let answer = with_token(&mut server, "token-2").await.answer("{}").await;
    one.expect(answer).await;
    // The second bridge may take a moment to notice, and its requests no longer wait for the sign-in.
    let answer = loop {
        two.send(call("3")).await;
        let post = server.post().await;
        if post.header("authorization").is_some() {
            break post.answer("{}").await;
        }
        unauthorized(post, &issuer).await;
        tokio::select! {
            post = server.post() => break post.answer("{}").await,
            _ = two.expect_error("3") => {}
        }
    };
    two.expect(answer).await;
    one.finish(&mut server).await;
    two.finish(&mut server).await;
    assert!(others.try_recv().is_err());
    let left = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
    assert!(left.into_iter().all(|path| path.extension().unwrap() != "prompt"), "the prompt file is removed");
}

#[tokio::test]
async fn a_sign_in_works_if_the_token_folder_cannot_be_written() {
    let (mut server, issuer, mut config, mut prompts, folder) = scene().await;
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    config.oauth.as_mut().unwrap().folder = Some(file.join("folder"));
    let mut client = Client::start(config);
    refused_call(&mut client, &mut server, &issuer, "1").await;
    issuer.approve(&prompted(&mut prompts).await).await;
    unauthorized(with_token(&mut server, "token-2").await, &issuer).await;
    answered(&mut client, &mut server, "token-3").await;
    client.finish(&mut server).await;
}

/// Returns an `initialize` with these capabilities of the client.
fn initialize(capabilities: &str) -> String {
    let params = format!(
        r#"{{"protocolVersion":"{VERSION}","capabilities":{capabilities},"clientInfo":{{"name":"c","version":"1"}}}}"#
    );
    request("1", "initialize", &params)
}

#[tokio::test]
async fn a_slow_sign_in_does_not_hold_up_the_handshake() {
    let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
    config.oauth.as_mut().unwrap().login_wait = Duration::from_secs(2);
    let mut client = Client::start(config);
    client.send(initialize(r#"{"elicitation":{"url":{}}}"#)).await;
    refuse(&mut server, &issuer).await;
    let url = prompted(&mut prompts).await;
    let provisional = client.value("a provisional answer").await;
    assert_eq!(provisional["result"]["protocolVersion"], VERSION);
    assert_eq!(provisional["result"]["serverInfo"]["name"], "mcp-gangway");
    client.send(INITIALIZED).await;
    let question = client.value("a question").await;
    assert_eq!((&question["method"], &question["params"]["url"]), (&json!("elicitation/create"), &json!(url)));
    client.send(call("2")).await;
    let again = server.post().await;
    assert_eq!(again.rpc_method(), "initialize");
    unauthorized(again, &issuer).await;
    assert_eq!(client.expect_error("2").await.data["url"].as_str(), Some(&*url));

    issuer.approve(&url).await;
    let real = with_token(&mut server, "token-2").await;
    assert_eq!(real.rpc_method(), "initialize");
    real.initialized(Some("s"), VERSION).await;
    let begun = with_token(&mut server, "token-2").await;
    assert_eq!((begun.rpc_method(), begun.header("mcp-session-id")), ("notifications/initialized".into(), Some("s")));
    begun.accepted().await;
    let mut told = Vec::new();
    while told.len() < 5 {
        told.push(client.value("a notification").await["method"].as_str().unwrap_or_default().to_owned());
    }
    told.sort();
    let lists = ["prompts", "resources", "tools"].map(|list| format!("notifications/{list}/list_changed"));
    let over = ["notifications/cancelled", "notifications/elicitation/complete"].map(str::to_owned);
    assert_eq!(told, [&over[..], &lists].concat(), "the bridge withdraws the question");
    client.send(call("3")).await;
    let post = with_token(&mut server, "token-2").await;
    assert_eq!(post.header("mcp-session-id"), Some("s"));
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    client.has_session("s");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_discover_request_gets_a_provisional_answer_during_a_sign_in() {
    let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
    config.oauth.as_mut().unwrap().login_wait = Duration::from_secs(2);
    let mut client = Client::start(config);
    client.send(modern("1", "server/discover", "")).await;
    refuse(&mut server, &issuer).await;
    let url = prompted(&mut prompts).await;
    let provisional = client.value("a provisional answer").await;
    assert_eq!(provisional["result"]["supportedVersions"], json!(["2026-07-28"]));
    issuer.approve(&url).await;
    server.expect_get();
    client.send(modern("2", "prompts/list", "")).await;
    let answer = with_token(&mut server, "token-2").await.answer(r#"{"resultType":"complete","prompts":[]}"#).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_client_that_shows_the_sign_in_url_is_notified_of_its_completion() {
    let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
    config.oauth.as_mut().unwrap().login_wait = Duration::from_secs(2);
    let mut client = Client::start(config);
    client.send(initialize(r#"{"elicitation":{"url":{}}}"#)).await;
    refuse(&mut server, &issuer).await;
    let url = prompted(&mut prompts).await;
    client.value("a provisional answer").await;
    client.send(INITIALIZED).await;
    let question = client.value("a question").await;
    client.send(json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}).to_string()).await;
    issuer.approve(&url).await;
    let mut told = client.value("a notification").await;
    while told["method"] != "notifications/elicitation/complete" {
        assert_ne!(told["method"], "notifications/cancelled", "the question was answered");
        told = client.value("a notification").await;
    }
    assert_eq!(told["params"]["elicitationId"], question["params"]["elicitationId"]);
}

/// Returns a request of a modern client that can show URLs, with these further members.
fn prompt_with_urls(id: &str, more: &str) -> String {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{"url":{}}}}"#;
    request(id, "prompts/get", &format!(r#"{{"name":"p"{more},{meta}}}"#))
}

#[tokio::test]
async fn a_modern_client_gets_the_sign_in_url_as_an_input_request_and_retries() {
    let (mut server, issuer, mut config, mut prompts, _folder) = scene().await;
    config.oauth.as_mut().unwrap().login_wait = Duration::from_secs(2);
    let mut client = Client::start(config);
    client.send(prompt_with_urls("1", "")).await;
    refuse(&mut server, &issuer).await;
    let url = prompted(&mut prompts).await;
    let asked = client.value("a question").await;
    let (result, question) = (&asked["result"], &asked["result"]["inputRequests"]["r0"]);
    assert_eq!((&asked["id"], &result["resultType"]), (&json!(1), &json!("input_required")), "{asked}");
    let params = &question["params"];
    assert_eq!((&question["method"], &params["mode"]), (&json!("elicitation/create"), &json!("url")));
    assert_eq!(params["url"], json!(url));
    let state = result["requestState"].to_string();

    // While the user signs in, the result comes back without a question.
    let again = |answer: &str| format!(r#","requestState":{state},"inputResponses":{{"r0":{{"action":"{answer}"}}}}"#);
    client.send(prompt_with_urls("2", &again("accept"))).await;
    let waits = client.value("an answer").await;
    assert_eq!(waits["result"], json!({"resultType": "input_required", "requestState": result["requestState"]}));
    // If the user declines, the error names the URL.
    client.send(prompt_with_urls("3", &again("decline"))).await;
    assert_eq!(client.expect_error("3").await.data["url"].as_str(), Some(&*url));

    client.send(prompt_with_urls("4", &format!(r#","requestState":{state}"#))).await;
    issuer.approve(&url).await;
    let post = with_token(&mut server, "token-2").await;
    let sent = post.value();
    assert_eq!((&sent["params"]["name"], sent["params"].get("requestState")), (&json!("p"), None), "{sent}");
    let answer = post.answer(r#"{"resultType":"complete","messages":[]}"#).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_401_for_the_push_stream_starts_no_sign_in() {
    let (mut server, issuer, config, mut prompts, _folder) = scene().await;
    server.expect_get();
    let mut client = Client::start(config);
    client.initialize().await;
    let answer = server.initialize(None, VERSION).await;
    client.expect(answer).await;
    client.send(INITIALIZED).await;
    server.post().await.accepted().await;
    unauthorized(server.get().await, &issuer).await;
    // The stream's 401 must not trigger a sign-in for requests that need none.
    client.send(request("1", "tools/list", "{}")).await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    assert!(prompts.try_recv().is_err(), "no browser for the bridge's own stream");
    // The first refused call starts the sign-in. Then the stream has the token, too.
    refused_call(&mut client, &mut server, &issuer, "2").await;
    issuer.approve(&prompted(&mut prompts).await).await;
    let (mut is_answered, mut is_open) = (false, false);
    while !(is_answered && is_open) {
        let mut exchange = server.next("the call and the stream").await;
        assert_eq!(exchange.header("authorization"), Some("Bearer token-2"), "{}", exchange.verb);
        if exchange.verb == "GET" {
            exchange.sse().await;
            exchange.event(&crate::support::notification("x", "{}")).await;
            client.expect(crate::support::notification("x", "{}")).await;
            is_open = true;
        } else {
            let answer = exchange.answer("{}").await;
            client.expect(answer).await;
            is_answered = true;
        }
    }
    drop(client);
}
