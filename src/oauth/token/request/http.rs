//! Requests of a client: places and formats of their parameters, credentials and headers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use crate::integration::{
    BasicEncoding, BodyFormat, IntegrationOauthConfig, Method, Placeholders, RequestKind, encode,
};
use crate::oauth::token::ClientAuthentication;
use crate::oauth::{Body, HttpRequest};
use crate::secret::Secret;

pub(super) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const ACCEPT: &str = "accept";
const AUTHORIZATION: &str = "authorization";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// A request whose client is not authenticated yet.
pub(in crate::oauth::token) struct Parts<'a> {
    config: &'a IntegrationOauthConfig,
    kind: RequestKind,
    pub(in crate::oauth::token) method: Method,
    url: Url,
    placeholders: Placeholders<'a>,
    params: Vec<(&'a str, Cow<'a, str>)>,
    bearer: Option<&'a Secret>,
}

impl<'a> Parts<'a> {
    /// `url` has its variables filled in, except for those of the request.
    pub(in crate::oauth::token) fn new(
        config: &'a IntegrationOauthConfig,
        kind: RequestKind,
        mut url: Url,
        placeholders: Placeholders<'a>,
    ) -> Self {
        placeholders.fill_query(&mut url);
        Self { config, kind, method: config.token_method, url, placeholders, params: Vec::new(), bearer: None }
    }

    /// Adds a parameter of the protocol under the provider's name, unless the provider wants none.
    pub(in crate::oauth::token) fn add(&mut self, name: &'a str, value: &'a str) {
        let name = self.config.param_names.of(self.kind, name);
        self.params.extend(name.map(|name| (name, Cow::Borrowed(value))));
    }

    /// Adds the token that authorizes the request by itself.
    pub(in crate::oauth::token) fn add_bearer(&mut self, token: &'a Secret) {
        self.bearer = Some(token);
    }

    /// Adds parameters of the config. Of the protocol's, a config can only repeat the redirect URI.
    pub(in crate::oauth::token) fn add_own(&mut self, params: &'a BTreeMap<String, String>) {
        for (name, value) in params {
            if !self.params.iter().any(|(given, _)| given == name) {
                self.params.push((name, self.placeholders.fill(value)));
            }
        }
    }

    /// Adds the client's credentials and builds the request.
    pub(in crate::oauth::token) fn request(mut self, authentication: &'a ClientAuthentication) -> HttpRequest {
        let config = self.config;
        let mut headers = self.headers();
        match authentication {
            ClientAuthentication::Public => self.add("client_id", &config.client_id),
            ClientAuthentication::Post(secret) => {
                self.add("client_id", &config.client_id);
                self.add("client_secret", secret.expose());
            }
            ClientAuthentication::Basic(secret) => {
                headers.push((AUTHORIZATION.into(), basic_credentials(config, secret)));
            }
            ClientAuthentication::Assertion(assertion) => {
                self.add("client_id", &config.client_id);
                self.add("client_assertion_type", ASSERTION_TYPE);
                self.add("client_assertion", assertion.expose());
            }
            ClientAuthentication::Bearer => {}
        }
        let bearer = self.bearer.map(|token| Secret::new(format!("Bearer {}", token.expose())));
        headers.extend(bearer.map(|value| (AUTHORIZATION.into(), value)));
        let Self { kind, method, mut url, params, .. } = self;
        let of_kind = config.revocation_body_format.filter(|_| kind == RequestKind::Revoke);
        let format =
            if method == Method::Get { BodyFormat::Query } else { of_kind.unwrap_or(config.token_body_format) };
        let body = |content_type, text| Some(Body { content_type, text: Secret::new(text) });
        let body = match format {
            // An API that reads no parameters may refuse a body, and even the type of one.
            _ if params.is_empty() => None,
            BodyFormat::Form => {
                body(FORM, form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish())
            }
            BodyFormat::Json => {
                let object = params.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value)));
                body(JSON, Value::Object(object.collect::<Map<_, _>>()).to_string())
            }
            BodyFormat::Query => {
                let own = url.query().filter(|query| !query.is_empty()).map(str::to_owned);
                let params = params.into_iter().map(|(name, value)| format!("{}={}", encode(name), encode(&value)));
                url.set_query(Some(&own.into_iter().chain(params).collect::<Vec<_>>().join("&")));
                None
            }
        };
        HttpRequest { method, url, headers, body }
    }

    fn headers(&self) -> Vec<(Cow<'static, str>, Secret)> {
        let own = &self.config.token_headers;
        let has_accept = own.keys().any(|name| name.eq_ignore_ascii_case(ACCEPT));
        let default = (!has_accept).then(|| (ACCEPT.into(), Secret::new(JSON)));
        let fill = |value: &Secret| Secret::new(self.placeholders.fill(value.expose()));
        default.into_iter().chain(own.iter().map(|(name, value)| (name.clone().into(), fill(value)))).collect()
    }
}

/// RFC 6749 §2.3.1: client id and secret are form-encoded before they are joined.
fn basic_credentials(config: &IntegrationOauthConfig, secret: &Secret) -> Secret {
    let encoded = |text: &str| match config.basic_encoding {
        BasicEncoding::Form => form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>(),
        BasicEncoding::Raw => text.to_owned(),
    };
    let pair = Secret::new(format!("{}:{}", encoded(&config.client_id), encoded(secret.expose())));
    Secret::new(format!("Basic {}", BASE64_STANDARD.encode(pair.expose())))
}
