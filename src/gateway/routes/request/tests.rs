use hyper::header::{HeaderName, HeaderValue};

use super::*;
use crate::command::Credential;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn b7_doubled_and_over_long_parameters_are_refused() {
    let error = |query: &str| Query::parse(query).err().map(|error| error.to_string());
    assert_eq!(error("state=a&code=b"), None);
    assert_eq!(error("state=a&state=b").as_deref(), Some("parameter `state` is given twice"));
    assert_eq!(error("sta%74e=a&state=b").as_deref(), Some("parameter `state` is given twice"));
    assert!(error(&format!("code={}", "a".repeat(16 * 1024 + 1))).is_some());
}

#[test]
fn unknown_parameters_are_named() {
    let error = Query::parse("scopes=a&scope=b").and_then(|mut query| {
        query.take("scopes");
        query.expect_empty()
    });
    assert_eq!(error.unwrap_err().to_string(), "unknown parameter `scope`");
}

#[test]
fn numbers_are_whole_and_within_bounds() {
    let limit = |text: &str| Query::parse(text).unwrap().number("limit", 1..=1000).ok();
    assert_eq!(limit(""), Some(None));
    assert_eq!(limit("limit=1000"), Some(Some(1000)));
    for bad in ["limit=0", "limit=1001", "limit=", "limit=-1", "limit=%2B5", "limit=1.5", "limit=99999999999"] {
        assert_eq!(limit(bad), None, "{bad}");
    }
}

#[test]
fn variables_are_taken_by_their_prefix() {
    let mut query = Query::parse("var.tenant=acme&scopes=a").unwrap();
    assert_eq!(serde_json::json!(query.take_prefixed("var.")), serde_json::json!({ "tenant": "acme" }));
    assert!(query.take("scopes").is_some());
    assert!(query.expect_empty().is_ok());
}

#[track_caller]
fn check_credential(lines: &[(&'static str, &str)], expected: Result<&str, u16>) {
    let line = RequestLine { method: "GET", target: "/x?y=1" };
    let got = credential(&headers(lines), line).map_err(|error| error.reply(false).status.as_u16());
    assert_eq!(got.as_ref().map(Credential::expose).map_err(|status| *status), expected);
}

#[test]
fn one_credential_is_taken_and_not_verified() {
    check_credential(&[("authorization", "bearer a.b.c")], Ok("Bearer a.b.c"));
    check_credential(&[("authorization", "NATS a.b.c")], Err(401));
    let signed = [("authorization", "nats a.b.c"), ("x-nats-timestamp", "7"), ("x-nats-nonce", "n")];
    check_credential(&signed, Err(401));
    check_credential(&[&signed[..], &[("x-nats-signature", "s")]].concat(), Ok("NATS a.b.c 7 n s GET /x?y=1"));
    check_credential(&[&signed[..], &[("x-nats-signature", "s t")]].concat(), Err(401));
    check_credential(&[&signed[..], &[("x-nats-signature", "s"), ("x-nats-nonce", "o")]].concat(), Err(400));
    check_credential(&[("x-api-key", "tb_1_2")], Ok("X-Api-Key tb_1_2"));
    check_credential(&[], Err(401));
    check_credential(&[("authorization", "Basic eDp5")], Err(401));
    check_credential(&[("authorization", "Bearer ")], Err(401));
    check_credential(&[("x-api-key", "")], Err(401));
    check_credential(&[("authorization", "Bearer a"), ("x-api-key", "b")], Err(400));
    check_credential(&[("authorization", "Bearer a"), ("authorization", "Bearer b")], Err(400));
}

#[test]
fn f1_a_credential_prints_redacted() {
    let line = RequestLine { method: "GET", target: "/" };
    let credential = credential(&headers(&[("x-api-key", "tb_1_2")]), line).unwrap();
    assert!(!format!("{credential:?}").contains("tb_1_2"));
}

#[test]
fn request_ids_are_taken_if_short_and_plain() {
    assert_eq!(request_id(&headers(&[("x-request-id", "a-B_9.z")])), "a-B_9.z");
    for bad in ["", "a b", "a/b", &"a".repeat(65)] {
        let id = request_id(&headers(&[("x-request-id", bad)]));
        assert_ne!(id, bad);
        assert_eq!(id.len(), 22);
    }
}

#[test]
fn traceparents_have_the_w3c_form() {
    let passed = |text: &str| traceparent(&headers(&[("traceparent", text)])).is_some();
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    assert!(passed(&format!("00-{trace}-{parent}-01")));
    assert!(passed(&format!("01-{trace}-{parent}-01-more")));
    assert!(!passed(&format!("00-{trace}-{parent}-01-more")));
    assert!(!passed(&format!("ff-{trace}-{parent}-01")));
    assert!(!passed(&format!("00-{}-{parent}-01", trace.to_uppercase())));
    assert!(!passed(&format!("00-{}-{parent}-01", "0".repeat(32))));
    assert!(!passed(&format!("00-{trace}-{}-01", "0".repeat(16))));
    assert!(!passed("00"));
}

#[test]
fn html_is_for_clients_that_prefer_it() {
    let html = |accept: &str| prefers_html(&headers(&[("accept", accept)]));
    assert!(html("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
    assert!(html("text/html"));
    assert!(html("application/json;q=0.5, text/html"));
    assert!(!html("*/*"));
    assert!(!html("application/json"));
    assert!(!html("application/json, text/html"));
    assert!(!html("application/json, text/html;q=0.9"));
    assert!(!html("text/html;q=0"));
    assert!(!html("text/html;q=x"));
    assert!(!prefers_html(&HeaderMap::new()));
}

#[test]
fn b7_prefetches_are_recognised() {
    for (name, value) in [
        ("sec-purpose", "prefetch"),
        ("sec-purpose", "prefetch;prerender"),
        ("purpose", "Prefetch"),
        ("x-moz", "prefetch"),
        ("x-purpose", "preview"),
    ] {
        assert!(is_prefetch(&headers(&[(name, value)])), "{name}: {value}");
    }
    assert!(!is_prefetch(&headers(&[("sec-fetch-dest", "document")])));
}

#[test]
fn b4_only_our_cookies_are_passed_on() {
    let headers = headers(&[("cookie", "a=b; __Host-tokenbus-1=x; c"), ("cookie", "__Host-tokenbus-2=y=z")]);
    let cookies = login_cookies(&headers);
    let cookies: Vec<_> = cookies.iter().map(|cookie| (cookie.name.as_str(), cookie.value.expose())).collect();
    assert_eq!(cookies, [("__Host-tokenbus-1", "x"), ("__Host-tokenbus-2", "y=z")]);
}
