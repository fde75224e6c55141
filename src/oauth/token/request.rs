//! Token requests: for an authorization code (RFC 6749 §4.1.3) and for a refresh token (§6).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use super::ClientAuthentication;
use crate::integration::{BodyFormat, ConfigError, IntegrationOauthConfig, IssuedAt, endpoint_url};
use crate::oauth::PostRequest;
use crate::secret::Secret;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The config allows no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// The stored variables don't fit the config any more.
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("client_key is missing: private_key_jwt signs client assertions with it")]
    NoClientKey,
    #[error("client_key cannot sign a client assertion")]
    ClientKey(#[from] jsonwebtoken::errors::Error),
    /// The origin of the config's endpoint, its client or its issuer has changed since.
    #[error("the token was issued at another token endpoint or to another client")]
    IssuedElsewhere,
}

/// An authorization code to exchange for tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeGrant<'a> {
    pub code: &'a Secret,
    /// Absent if the config has PKCE off.
    pub verifier: Option<&'a Secret>,
    pub variables: &'a BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct RefreshGrant<'a> {
    pub refresh_token: &'a Secret,
    pub issued_at: &'a IssuedAt,
}

/// Names and values.
type Params<'a> = Vec<(&'a str, &'a str)>;

/// Builds the token request for an authorization code (RFC 6749 §4.1.3).
pub(crate) fn exchange_request(
    config: &IntegrationOauthConfig,
    grant: &CodeGrant<'_>,
    authentication: &ClientAuthentication,
) -> Result<PostRequest, RequestError> {
    let url = config.token_endpoint(grant.variables)?;
    let mut params: Params<'_> = vec![
        (config.param_name("grant_type"), "authorization_code"),
        (config.param_name("code"), grant.code.expose()),
        (config.param_name("redirect_uri"), &config.redirect_url),
    ];
    if let Some(verifier) = grant.verifier {
        params.push((config.param_name("code_verifier"), verifier.expose()));
    }
    params.extend(config.token_params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    Ok(post_request(config, url, params, authentication))
}

/// Builds the token request for a refresh token (RFC 6749 §6).
///
/// # Errors
/// [`RequestError::IssuedElsewhere`] if the refresh token must not be sent to the config's endpoint.
pub(crate) fn refresh_request(
    config: &IntegrationOauthConfig,
    grant: &RefreshGrant<'_>,
    authentication: &ClientAuthentication,
) -> Result<PostRequest, RequestError> {
    let url = config.refresh_endpoint(grant.issued_at).ok_or(RequestError::IssuedElsewhere)?;
    let mut params: Params<'_> = vec![
        (config.param_name("grant_type"), "refresh_token"),
        (config.param_name("refresh_token"), grant.refresh_token.expose()),
    ];
    params.extend(config.refresh_params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    Ok(post_request(config, url, params, authentication))
}

/// Returns the endpoint with the grant's variables, if the grant's tokens may be sent there.
pub(super) fn issuer_endpoint(
    config: &IntegrationOauthConfig,
    url: &str,
    issued_at: &IssuedAt,
) -> Result<Url, RequestError> {
    let url = endpoint_url(url, &config.variables, &issued_at.variables).ok();
    url.filter(|url| config.may_send(issued_at, url)).ok_or(RequestError::IssuedElsewhere)
}

pub(super) fn post_request<'a>(
    config: &'a IntegrationOauthConfig,
    url: Url,
    mut params: Params<'a>,
    authentication: &'a ClientAuthentication,
) -> PostRequest {
    let mut headers = vec![("accept", Secret::new("application/json"))];
    let client_id = (config.param_name("client_id"), config.client_id.as_str());
    match authentication {
        ClientAuthentication::Public => params.push(client_id),
        ClientAuthentication::Post(secret) => {
            params.extend([client_id, (config.param_name("client_secret"), secret.expose())]);
        }
        ClientAuthentication::Basic(secret) => {
            headers.push(("authorization", basic_credentials(&config.client_id, secret)));
        }
        ClientAuthentication::Assertion(assertion) => params.extend([
            client_id,
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion.expose()),
        ]),
    }
    let (content_type, body) = match config.token_body_format {
        BodyFormat::Form => {
            let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish();
            ("application/x-www-form-urlencoded", body)
        }
        BodyFormat::Json => {
            let object: Map<_, _> =
                params.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
            ("application/json", Value::Object(object).to_string())
        }
    };
    PostRequest { url, headers, content_type, body: Secret::new(body) }
}

/// RFC 6749 §2.3.1: client id and secret are form-encoded before they are joined.
fn basic_credentials(client_id: &str, secret: &Secret) -> Secret {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Secret::new(format!("{}:{}", encode(client_id), encode(secret.expose())));
    Secret::new(format!("Basic {}", BASE64_STANDARD.encode(pair.expose())))
}

#[cfg(test)]
mod tests;
