//! A documented request, compared with the one that a worker would send.

use std::collections::BTreeMap;

use serde::Deserialize;
use url::{Url, form_urlencoded};

use crate::integration::{IntegrationOauthConfig, RequestKind};
use crate::oauth::HttpRequest;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    method: String,
    url: String,
    /// Place of the client's credentials.
    auth: Auth,
    format: Option<Format>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Parameters that are peculiar to the provider, and the grant type.
    #[serde(default)]
    params: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Auth {
    Body,
    Basic,
    Bearer,
    Query,
    None,
    Assertion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Form,
    Json,
    Query,
}

/// The parameters in the body and in the query.
pub(super) fn params_of(request: &HttpRequest) -> BTreeMap<String, String> {
    let mut params: BTreeMap<_, _> = request.url.query_pairs().into_owned().collect();
    params.extend(body_of(request));
    params
}

fn body_of(request: &HttpRequest) -> BTreeMap<String, String> {
    let Some(body) = &request.body else { return BTreeMap::new() };
    match body.content_type {
        "application/json" => serde_json::from_str(body.text.expose()).unwrap(),
        _ => form_urlencoded::parse(body.text.expose().as_bytes()).into_owned().collect(),
    }
}

fn format_of(request: &HttpRequest) -> Format {
    match request.body.as_ref().map(|body| body.content_type) {
        None => Format::Query,
        Some("application/json") => Format::Json,
        Some(_) => Format::Form,
    }
}

impl Expected {
    pub(super) fn problems(
        &self,
        request: &HttpRequest,
        config: &IntegrationOauthConfig,
        kind: RequestKind,
    ) -> Vec<String> {
        let Self { method, url, auth, format, headers, params } = self;
        let mut problems = Vec::new();
        let mut expect = |holds: bool, problem: String| problems.extend((!holds).then_some(problem));
        let ours = request.method.as_str();
        expect(ours == method, format!("{ours}, not {method}"));
        let documented = Url::parse(url).unwrap();
        let place = |url: &Url| (url.origin(), url.path().to_owned());
        expect(place(&request.url) == place(&documented), format!("at {}, not at {url}", request.url));
        let in_query = documented.query_pairs().into_owned();
        let sent = params_of(request);
        for (name, value) in params.clone().into_iter().chain(in_query) {
            let value = value.replace("${redirect_url}", &config.redirect_url);
            let value = value.replace("${scope}", &config.scope_text(&config.scopes()));
            let found = sent.get(&name);
            expect(found == Some(&value), format!("{name} is {found:?}, not {value}"));
        }
        let found = format_of(request);
        expect(format.is_none_or(|format| format == found), format!("{found:?}, not {format:?}"));
        for (name, value) in headers {
            let found = request.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
            let found = found.map(|(_, value)| value.expose());
            expect(found == Some(value.as_str()), format!("header {name} is {found:?}, not {value}"));
        }
        let found = auth_of(request, config, kind);
        expect(found == *auth, format!("credentials: {found:?}, not {auth:?}"));
        problems
    }
}

fn auth_of(request: &HttpRequest, config: &IntegrationOauthConfig, kind: RequestKind) -> Auth {
    let name = config.param_names.of(kind, "client_secret").unwrap_or_default();
    let query: BTreeMap<_, _> = request.url.query_pairs().into_owned().collect();
    let body = body_of(request);
    let authorization = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let has_scheme = |scheme: &str| authorization.is_some_and(|(_, value)| value.expose().starts_with(scheme));
    if body.contains_key("client_assertion") {
        Auth::Assertion
    } else if body.contains_key(name) {
        Auth::Body
    } else if query.contains_key(name) {
        Auth::Query
    } else if has_scheme("Basic ") {
        Auth::Basic
    } else if has_scheme("Bearer ") {
        Auth::Bearer
    } else {
        Auth::None
    }
}
