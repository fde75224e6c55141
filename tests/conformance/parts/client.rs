//! A small OAuth client of the suite's own, to judge the authorization server without tokenbus.

use super::provider::Provider;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

/// The redirect URI; no server listens on it.
pub(crate) const CALLBACK: &str = "http://127.0.0.1:9/callback";
/// The client that the suite is unless a test says otherwise.
pub(crate) const CLIENT: &str = "client_secret_post";
pub(crate) const VERIFIER: &str = "a-verifier-of-this-suite-which-is-no-secret-0123456789";
pub(crate) const SECRET: &str = "secret +/%:&= with what forms must encode";

/// The metadata of a client named by its authentication method.
pub(crate) fn metadata(method: &str) -> Value {
    metadata_to(method, CALLBACK)
}

/// The same with another redirect URI.
pub(crate) fn metadata_to(method: &str, callback: &str) -> Value {
    let mut client = json!({ "client_id": method, "redirect_uris": [callback], "token_endpoint_auth_method": method });
    if method.starts_with("client_secret") {
        client["client_secret"] = SECRET.into();
    }
    client
}

/// The authorization URL of `client_id`, with PKCE.
pub(crate) fn authorization_url(provider: &Provider, client_id: &str) -> Url {
    authorization_url_to(provider, client_id, CALLBACK)
}

/// The same with another redirect URI.
pub(crate) fn authorization_url_to(provider: &Provider, client_id: &str, callback: &str) -> Url {
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    let mut url = plain_authorization_url(provider, client_id, callback);
    url.query_pairs_mut().append_pair("code_challenge", &challenge).append_pair("code_challenge_method", "S256");
    url
}

/// The same without PKCE.
pub(crate) fn plain_authorization_url(provider: &Provider, client_id: &str, callback: &str) -> Url {
    let mut url = provider.authorization_endpoint();
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", client_id)
        .append_pair("redirect_uri", callback)
        .append_pair("scope", "read write")
        .append_pair("state", "a-state");
    url
}

/// Exchanges `code`.
pub(crate) async fn exchange(provider: &Provider, code: &str, verifier: &str) -> (StatusCode, Value) {
    exchange_at(provider, code, verifier, CALLBACK).await
}

/// The same with another redirect URI.
pub(crate) async fn exchange_at(
    provider: &Provider,
    code: &str,
    verifier: &str,
    callback: &str,
) -> (StatusCode, Value) {
    post(provider.token_endpoint(), &exchange_fields(code, verifier, callback)).await
}

/// Exchanges `code` where the answer may be lost.
pub(crate) async fn try_exchange(provider: &Provider, code: &str) -> reqwest::Result<StatusCode> {
    let fields = exchange_fields(code, VERIFIER, CALLBACK);
    Ok(send(provider.token_endpoint(), &fields).await?.status())
}

/// Refreshes.
pub(crate) async fn refresh(provider: &Provider, refresh_token: &str) -> (StatusCode, Value) {
    post(provider.token_endpoint(), &[("grant_type", "refresh_token"), ("refresh_token", refresh_token)]).await
}

/// Revokes.
pub(crate) async fn revoke(provider: &Provider, token: &str) -> StatusCode {
    post(provider.revocation_endpoint(), &[("token", token)]).await.0
}

fn exchange_fields<'a>(code: &'a str, verifier: &'a str, callback: &'a str) -> [(&'a str, &'a str); 4] {
    [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", callback), ("code_verifier", verifier)]
}

async fn post(endpoint: Url, fields: &[(&str, &str)]) -> (StatusCode, Value) {
    let answer = send(endpoint, fields).await.expect("the provider answers");
    let status = answer.status();
    let body = answer.text().await.expect("a text");
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

async fn send(endpoint: Url, fields: &[(&str, &str)]) -> reqwest::Result<reqwest::Response> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let identity = [("client_id", CLIENT), ("client_secret", SECRET)];
    http.post(endpoint).form(&[fields, &identity].concat()).send().await
}
