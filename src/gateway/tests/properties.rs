//! Arbitrary requests are parsed or rejected, never panic, and a rejection repeats no value.

use hyper::header::HeaderValue;
use proptest::prelude::*;

use super::super::*;
use crate::command::Cookie;

/// Queries, and texts that are not valid queries.
fn query() -> impl Strategy<Value = String> {
    let value = "canary[a-z0-9%+&=;#]{0,12}";
    let pair = ("(state|code|limit|cursor|var\\.x|%73tate|[a-z]{0,3})", value)
        .prop_map(|(name, value)| format!("{name}={value}"));
    prop_oneof![proptest::collection::vec(pair, 0..5).prop_map(|pairs| pairs.join("&")), ".{0,80}"]
}

fn headers(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers
        .extend(HeaderValue::from_str(value).ok().map(|value| (hyper::header::HeaderName::from_static(name), value)));
    headers
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn b7_no_query_panics_and_no_refusal_repeats_a_value(raw in query()) {
        let names: Vec<_> = url::form_urlencoded::parse(raw.as_bytes()).map(|(name, _)| name.into_owned()).collect();
        let unique: std::collections::HashSet<_> = names.iter().collect();
        match Query::parse(&raw) {
            Ok(mut query) => {
                prop_assert_eq!(unique.len(), names.len());
                let limit = query.number("limit", 1_u32..=1000);
                prop_assert!(limit.as_ref().map_or(true, |limit| limit.is_none_or(|limit| (1..=1000).contains(&limit))));
                prop_assert!(limit.map_or_else(|error| !error.to_string().contains("canary"), |_| true));
                let state = query.require("state").map(|state| state.is_empty());
                prop_assert!(state.map_or(true, |is_empty| !is_empty), "a required parameter is never empty");
            }
            Err(error) => {
                prop_assert!(unique.len() < names.len());
                let named = names.iter().any(|name| name.contains("canary"));
                prop_assert!(named || !error.to_string().contains("canary"), "{}", error);
            }
        }
    }

    #[test]
    fn e4_a_path_has_a_valid_name_or_none(segment in prop_oneof!["[^/]{0,20}", "[a-zA-Z0-9_%.*>-]{0,20}", "(%[0-9a-fA-F]{2}){0,8}"]) {
        let routes = Routes::new(Served::All).unwrap();
        if let Ok(found) = routes.find(&format!("/hub/integrations/{segment}/oauth-connections"))
            && let Ok(name) = found.names.integration()
        {
            let name = name.as_str();
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')));
            let decoded = url::form_urlencoded::parse(format!("x={segment}").as_bytes()).next().map(|(_, value)| value.into_owned());
            prop_assert_eq!(decoded.as_deref(), Some(name));
        }
    }

    #[test]
    fn f1_no_header_panics_and_ids_are_sane(value in prop_oneof![".{0,80}", "[ -~]{0,80}", "00-[0-9a-f]{30,34}-[0-9a-f]{14,18}-0[01](-.{0,3})?"]) {
        let id = request::request_id(&headers("x-request-id", &value));
        prop_assert!((1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
        if let Some(trace) = request::traceparent(&headers("traceparent", &value)) {
            prop_assert_eq!(&trace, &value);
        }
        let _ = request::prefers_html(&headers("accept", &value));
        let _ = request::is_prefetch(&headers("sec-purpose", &value));
        for name in ["authorization", "x-api-key"] {
            if let Ok(credential) = request::credential(&headers(name, &value), request::RequestLine { method: "GET", target: "/" }) {
                let printed = format!("{credential:?}");
                prop_assert!(!printed.contains(&value) || value.len() < 12, "{}", printed);
            }
        }
        for Cookie { name, value } in request::login_cookies(&headers("cookie", &value)) {
            prop_assert!(name.starts_with("__Host-tokenbus-") && !value.expose().contains(';'));
        }
    }
}
