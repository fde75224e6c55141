//! The authorization server behaves as the other tests expect.

use crate::parts::client::{
    CALLBACK, CLIENT, VERIFIER, authorization_url, exchange, metadata, plain_authorization_url, refresh, revoke,
    try_exchange,
};
use crate::parts::provider::{Fault, Provider};
use crate::parts::visitor::{Consent, query, walk};
use serde_json::Value;

async fn provider() -> Provider {
    Provider::start(&[metadata(CLIENT)]).await
}

async fn code(provider: &Provider) -> String {
    let callback = walk(authorization_url(provider, CLIENT), CALLBACK, Consent::Allow).await;
    query(&callback).remove("code").expect("a code")
}

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap_or_else(|| panic!("no {field} in {answer}"))
}

#[tokio::test]
async fn a_login_ends_with_a_code_and_the_issuer() {
    let provider = provider().await;
    let callback = walk(authorization_url(&provider, CLIENT), CALLBACK, Consent::Allow).await;
    let found = query(&callback);
    assert_eq!(found["state"], "a-state");
    assert_eq!(found["iss"], provider.issuer);

    let (status, answer) = exchange(&provider, &found["code"], VERIFIER).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(text(&answer, "token_type"), "Bearer");
    assert_eq!(text(&answer, "scope"), "read write");
    assert_eq!(answer["expires_in"], 3600);
    text(&answer, "refresh_token");
}

#[tokio::test]
async fn a_refusal_is_access_denied() {
    let provider = provider().await;
    let callback = walk(authorization_url(&provider, CLIENT), CALLBACK, Consent::Deny).await;
    let found = query(&callback);
    assert_eq!(found["error"], "access_denied");
    assert_eq!(found["state"], "a-state");
    assert_eq!(found["iss"], provider.issuer);
    assert!(!found.contains_key("code"));
}

#[tokio::test]
async fn pkce_is_required_and_checked() {
    let provider = provider().await;
    let callback = walk(plain_authorization_url(&provider, CLIENT, CALLBACK), CALLBACK, Consent::Allow).await;
    assert_eq!(query(&callback)["error"], "invalid_request");

    let other = VERIFIER.replace("verifier", "different");
    let (status, answer) = exchange(&provider, &code(&provider).await, &other).await;
    assert_eq!((status.as_u16(), text(&answer, "error")), (400, "invalid_grant"));
}

#[tokio::test]
async fn a_replayed_code_kills_the_grant() {
    let provider = provider().await;
    let code = code(&provider).await;
    let (_, first) = exchange(&provider, &code, VERIFIER).await;
    let (_, second) = exchange(&provider, &code, VERIFIER).await;
    assert_eq!(text(&second, "error"), "invalid_grant");
    let (_, third) = refresh(&provider, text(&first, "refresh_token")).await;
    assert_eq!(text(&third, "error"), "invalid_grant");

    let received = provider.received().await;
    let seen: Vec<_> = received.iter().map(|it| (it.grant_type.as_deref(), it.status)).collect();
    let exchange = Some("authorization_code");
    assert_eq!(seen, [(exchange, 200), (exchange, 400), (Some("refresh_token"), 400)]);
    assert!(received.iter().all(|it| it.auth.as_deref() == Some(CLIENT) && it.client_id.as_deref() == Some(CLIENT)));
}

#[tokio::test]
async fn refresh_tokens_rotate_and_an_old_one_kills_the_grant() {
    let provider = provider().await;
    let (_, first) = exchange(&provider, &code(&provider).await, VERIFIER).await;
    let (status, second) = refresh(&provider, text(&first, "refresh_token")).await;
    assert_eq!(status, 200, "{second}");
    assert_ne!(text(&first, "refresh_token"), text(&second, "refresh_token"));
    assert_ne!(text(&first, "access_token"), text(&second, "access_token"));

    let (_, old) = refresh(&provider, text(&first, "refresh_token")).await;
    assert_eq!(text(&old, "error"), "invalid_grant");
    let (_, new) = refresh(&provider, text(&second, "refresh_token")).await;
    assert_eq!(text(&new, "error"), "invalid_grant");
}

#[tokio::test]
async fn a_revoked_refresh_token_is_refused() {
    let provider = provider().await;
    let (_, tokens) = exchange(&provider, &code(&provider).await, VERIFIER).await;
    assert_eq!(revoke(&provider, text(&tokens, "refresh_token")).await, 200);
    let (_, after) = refresh(&provider, text(&tokens, "refresh_token")).await;
    assert_eq!(text(&after, "error"), "invalid_grant");
    assert_eq!(provider.received().await[1].route, "revocation");
}

#[tokio::test]
async fn faults_hit_the_next_requests_only() {
    let provider = provider().await;
    let (_, tokens) = exchange(&provider, &code(&provider).await, VERIFIER).await;
    provider.fault(&[Fault::Unavailable]).await;
    assert_eq!(refresh(&provider, text(&tokens, "refresh_token")).await.0, 503);
    assert_eq!(refresh(&provider, text(&tokens, "refresh_token")).await.0, 200);
}

#[tokio::test]
async fn a_code_whose_answer_was_lost_is_used_up() {
    let provider = provider().await;
    let code = code(&provider).await;
    provider.fault(&[Fault::Lost]).await;
    assert!(try_exchange(&provider, &code).await.is_err(), "the answer never leaves");
    let (_, again) = exchange(&provider, &code, VERIFIER).await;
    assert_eq!(text(&again, "error"), "invalid_grant");
    let seen: Vec<_> = provider.received().await.iter().map(|it| it.status).collect();
    assert_eq!(seen, [200, 400]);
}
