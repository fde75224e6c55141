use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::integration::Method;
use crate::oauth::Body;
use crate::secret::Secret;

fn request(body: &str) -> HttpRequest {
    HttpRequest {
        method: Method::Post,
        url: "https://provider.example/token".parse().unwrap(),
        headers: vec![("accept".into(), Secret::new("application/json"))],
        body: Some(Body { content_type: "application/x-www-form-urlencoded", text: Secret::new(body) }),
    }
}

fn read(body: &Value) -> ProviderAnswer {
    ProviderAnswer::read(
        400,
        body.to_string().as_bytes(),
        &request("grant_type=refresh_token&refresh_token=rt-1&client_id=app"),
        [],
    )
}

#[test]
fn codes_and_descriptions_are_read_wherever_providers_put_them() {
    #[track_caller]
    fn check(body: &Value, error: Option<&str>, detail: Option<&str>) {
        let answer = read(body);
        assert_eq!((answer.error.as_deref(), answer.detail.as_deref()), (error, detail), "{body}");
    }
    let both = (Some("invalid_grant"), Some("The grant is gone."));
    check(&json!({"error": "invalid_grant", "error_description": "The grant is gone."}), both.0, both.1);
    check(&json!({"error": {"type": "invalid_grant", "message": "The grant is gone."}}), both.0, both.1);
    check(&json!({"error": {"code": 190, "message": "x"}}), Some("190"), Some("x"));
    check(&json!({"code": "invalid_grant", "message": "The grant is gone."}), both.0, both.1);
    check(&json!({"errors": [{"message": "The grant is gone."}]}), None, both.1);
    check(&json!({"ok": false, "error": "invalid_grant"}), both.0, None);
    check(&json!({"error": null}), None, None);
    check(&json!([1]), None, None);
    for body in [
        "error=invalid_grant&error_description=The+grant+is+gone.",
        " error=invalid_grant&message=The%20grant%20is%20gone.",
    ] {
        let answer = ProviderAnswer::read(400, body.as_bytes(), &request(""), []);
        assert_eq!((answer.error.as_deref(), answer.detail.as_deref()), both, "{body}");
    }
    let page = ProviderAnswer::read(502, b"<html><title>Bad gateway</title></html>", &request(""), []);
    assert_eq!(page, ProviderAnswer { status: 502, error: None, detail: None });
}

#[test]
fn f1_texts_are_cleaned_of_secrets_tokens_and_addresses() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut request = request("code=c/1%2B&client_secret=s3+cret&client_id=app&grant_type=authorization_code");
        request.headers.push(("authorization".into(), Secret::new("Basic YXBwOnB3ZA==")));
        let body = json!({"error": "e", "error_description": text, "access_token": "odd"}).to_string();
        let answer = ProviderAnswer::read(400, body.as_bytes(), &request, []);
        assert_eq!(answer.detail.as_deref(), Some(expected), "{text}");
    }
    check("Token c/1+ of app is spent", "Token [redacted] of app is spent");
    check("Code c%2F1%2B (s3 cret)", "Code [redacted] ([redacted])");
    check("header Basic YXBwOnB3ZA==, too", "header [redacted] [redacted], too");
    check("user jane.doe@example.com has left", "user [redacted] has left");
    check("user jürgen%40example.com", "user [redacted]");
    check("AADSTS700082: The refresh token has expired.", "AADSTS700082: The refresh token has expired.");
    check("token xoxe-1-My0xLTEyMzQ1 is bad", "token [redacted] is bad");
    check("see eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2lnbmF0dXJl", "see [redacted]");
    check("two\r\nlines\tand \u{202e}more\u{200b}", "two lines and more");
}

#[test]
fn f1_a_short_token_in_a_longer_header_or_text_is_removed() {
    let mut request = request(r#"{"variables":{"token":"canary"}}"#);
    for (name, value) in [("authorization", "Token token=\"canary\""), ("x-token", "acme:canary")] {
        request.headers.push((name.into(), Secret::new(value)));
    }
    let body = json!({"error": "canary", "error_description": "the token (canary) of app:canary is bad"}).to_string();
    let answer = ProviderAnswer::read(401, body.as_bytes(), &request, [&Secret::new("canary")]);
    assert_eq!(answer.error.as_deref(), Some("[redacted]"));
    assert_eq!(answer.detail.as_deref(), Some("the token ([redacted]) of app:[redacted] is bad"));
}

#[test]
fn texts_are_short() {
    let answer = read(&json!({"error": "word ".repeat(100), "error_description": "ä ".repeat(1_000)}));
    assert_eq!(answer.error.unwrap().chars().count(), 100);
    assert_eq!(answer.detail.unwrap().chars().count(), 300);
}

proptest! {
    #[test]
    fn f1_no_text_repeats_a_secret_of_its_request(
        secret in "[ -~]{6,40}", before in "[a-z ]{0,8}", after in "[a-z ]{0,8}", form in 0..4
    ) {
        prop_assume!(!"[redacted]".contains(secret.trim()) && !before.contains(secret.trim()));
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let shown = match form {
            0 => secret.clone(),
            1 => encode(&secret),
            2 => secret.bytes().fold(String::new(), |all, byte| all + &format!("%{byte:02X}")),
            _ => secret.bytes().fold(String::new(), |all, byte| all + &format!("{byte:02x}")),
        };
        let body = json!({"error": shown, "error_description": format!("{before}{shown}{after}")}).to_string();
        let answer = ProviderAnswer::read(400, body.as_bytes(), &request(&format!("code={}", encode(&secret))), []);
        let text = format!("{:?} {:?}", answer.error, answer.detail);
        prop_assert!(!text.contains(&shown), "{text}");
    }
}
