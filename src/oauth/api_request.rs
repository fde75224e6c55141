//! Requests to a provider's API with a connection's access token.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use super::http_request::{Body, HttpRequest};
use crate::integration::{ApiRequest, Method, Placeholders};
use crate::secret::Secret;

/// Header of the access token (RFC 6750 §2.1).
const BEARER: &str = "authorization";
const TOKEN: &str = "${access_token}";

/// Builds a request. A header of `shared` is added if the request has none of that name. `placeholders` has also the values
/// that only these requests may hold, such as the access token. Returns `None` if the URL cannot be parsed.
pub(crate) fn api_request(
    api: &ApiRequest,
    shared: &BTreeMap<String, Secret>,
    access_token: &Secret,
    placeholders: &Placeholders<'_>,
) -> Option<HttpRequest> {
    let ApiRequest { url, method, headers, params, body, token_param } = api;
    let mut url = Url::parse(url).ok()?;
    placeholders.fill_query(&mut url);
    let mut own: BTreeMap<String, Secret> = BTreeMap::from([("accept".to_owned(), Secret::new("application/json"))]);
    let shared = shared.iter().map(|(name, value)| (name, value.expose()));
    for (name, value) in shared.chain(headers.iter().map(|(name, value)| (name, value.as_str()))) {
        own.insert(name.to_ascii_lowercase(), Secret::new(placeholders.fill(value).into_owned()));
    }
    let mut texts = headers.values().chain(params.values());
    let places_token = token_param.is_some() || own.contains_key(BEARER) || texts.any(|text| text.contains(TOKEN));
    if !places_token {
        own.insert(BEARER.to_owned(), Secret::new(format!("Bearer {}", access_token.expose())));
    }
    let filled = params.iter().map(|(name, value)| (name.as_str(), placeholders.fill(value)));
    let token = token_param.iter().map(|name| (name.as_str(), Cow::Borrowed(access_token.expose())));
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(filled.chain(token));
    let form = form.finish();
    let body = match (method, body) {
        (Method::Get, _) => {
            let query = [url.query().unwrap_or_default(), form.as_str()];
            let query = query.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("&");
            url.set_query(Some(query.as_str()).filter(|query| !query.is_empty()));
            None
        }
        (Method::Post | Method::Delete, Some(object)) => {
            let text = Value::Object(filled_object(object, placeholders)).to_string();
            Some(Body { content_type: "application/json", text: Secret::new(text) })
        }
        // An API that reads no parameters may refuse a body, and even the type of one.
        (Method::Post | Method::Delete, None) if form.is_empty() => None,
        (Method::Post | Method::Delete, None) => {
            Some(Body { content_type: "application/x-www-form-urlencoded", text: Secret::new(form) })
        }
    };
    let headers = own.into_iter().map(|(name, value)| (Cow::Owned(name), value)).collect();
    Some(HttpRequest { method: *method, url, headers, body })
}

fn filled_object(object: &Map<String, Value>, placeholders: &Placeholders<'_>) -> Map<String, Value> {
    object.iter().map(|(name, value)| (name.clone(), filled_value(value, placeholders))).collect()
}

fn filled_value(value: &Value, placeholders: &Placeholders<'_>) -> Value {
    match value {
        Value::String(text) => Value::String(placeholders.fill(text).into_owned()),
        Value::Array(values) => values.iter().map(|value| filled_value(value, placeholders)).collect(),
        Value::Object(object) => Value::Object(filled_object(object, placeholders)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns `METHOD URL`, the headers, and the body with its type.
    fn built(api: &Value) -> (String, BTreeMap<String, String>, String) {
        let api: ApiRequest = serde_json::from_value(api.clone()).unwrap();
        let variables = BTreeMap::from([("v".to_owned(), "one two".to_owned())]);
        let more = [("access_token", "at-1"), ("client_secret", "cs")];
        let (scope, redirect_url, nonce) = ("a b", "https://hub.example/cb", "n");
        let values = Placeholders { variables: &variables, scope, redirect_url, nonce, more: &more };
        let shared =
            BTreeMap::from([("User-Agent".to_owned(), Secret::new("acme")), ("X-Key".to_owned(), Secret::new("k"))]);
        let HttpRequest { method, url, headers, body } =
            api_request(&api, &shared, &Secret::new("at-1"), &values).unwrap();
        let headers = headers.into_iter().map(|(name, value)| (name.into_owned(), value.expose().to_owned())).collect();
        let body = body.map(|Body { content_type, text }| format!("{content_type}: {}", text.expose()));
        (format!("{method:?} {url}"), headers, body.unwrap_or_default())
    }

    #[test]
    fn the_token_is_in_the_header_unless_the_request_places_it() {
        #[track_caller]
        fn check(api: &Value, request: &str, authorization: Option<&str>, body: &str) {
            let (built, headers, text) = built(api);
            let found = headers.get("authorization").map(String::as_str);
            assert_eq!((built.as_str(), found, text.as_str()), (request, authorization, body), "{api}");
            assert_eq!(headers["user-agent"], "acme", "{api}");
        }
        let url = "https://api.example/me?x=1";
        let bearer = Some("Bearer at-1");
        check(&json!({ "url": url }), "Get https://api.example/me?x=1", bearer, "");
        check(
            &json!({ "url": url, "params": { "q": "${v}&" } }),
            "Get https://api.example/me?x=1&q=one+two%26",
            bearer,
            "",
        );
        check(
            &json!({ "url": url, "headers": { "Authorization": "Token ${access_token}" } }),
            "Get https://api.example/me?x=1",
            Some("Token at-1"),
            "",
        );
        check(
            &json!({ "url": url, "headers": { "X-Token": "${access_token}" } }),
            "Get https://api.example/me?x=1",
            None,
            "",
        );
        check(
            &json!({ "url": "https://api.example/me", "token_param": "access_token" }),
            "Get https://api.example/me?access_token=at-1",
            None,
            "",
        );
        check(
            &json!({ "url": url, "method": "POST", "params": { "t": "${access_token}", "s": "${client_secret}" } }),
            "Post https://api.example/me?x=1",
            None,
            "application/x-www-form-urlencoded: s=cs&t=at-1",
        );
        check(
            &json!({ "url": url, "method": "POST", "body": { "query": "{ me }", "deep": [{ "v": "${v}" }, 1] } }),
            "Post https://api.example/me?x=1",
            bearer,
            r#"application/json: {"deep":[{"v":"one two"},1],"query":"{ me }"}"#,
        );
    }

    #[test]
    fn own_headers_replace_shared_ones_and_defaults() {
        let api =
            json!({ "url": "https://api.example/", "headers": { "accept": "text/json", "x-key": "own", "V": "${v}" } });
        let (_, headers, _) = built(&api);
        assert_eq!((headers["accept"].as_str(), headers["x-key"].as_str()), ("text/json", "own"));
        assert_eq!(headers["v"], "one two");
    }
}
