//! Requests as data: exchange (RFC 6749 §4.1.3), refresh (§6), revocation (RFC 7009 §2.1).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use super::client_assertion;
use crate::integration::{
    BodyFormat, ConfigError, IntegrationOauthConfig, IssuedAt, TokenAuthMethod, endpoint_url, expand,
};
use crate::secret::Secret;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A POST to a provider, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Where to.
    pub url: Url,
    /// Beside `Content-Type`.
    pub headers: Vec<(&'static str, Secret)>,
    /// What the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: Secret,
}

/// Why a request cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// The URL's variables do not fit the config any more.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The client's key is missing or cannot sign.
    #[error("client_key cannot sign a client assertion")]
    ClientKey,
    /// The config has since got another token endpoint or client.
    #[error("the token was issued at another token endpoint or to another client")]
    IssuedElsewhere,
}

/// How the client says who it is: exactly one way per request (RFC 6749 §2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// By its id alone.
    Public,
    /// Id and secret in the body.
    Post(Secret),
    /// Id and secret as HTTP Basic.
    Basic(Secret),
    /// A signed assertion.
    Assertion(Secret),
}

impl ClientAuth {
    /// The way that the config asks for. Attempt 0 uses `client_secret`, the next ones
    /// `client_secrets`; `None` when there is no further way.
    ///
    /// # Errors
    /// [`RequestError`] when an assertion cannot be made.
    pub(crate) fn of(
        config: &IntegrationOauthConfig,
        attempt: usize,
        variables: &BTreeMap<String, String>,
        now: Timestamp,
        jti: &str,
    ) -> Result<Option<Self>, RequestError> {
        let secret = match attempt.checked_sub(1) {
            None => Some(&config.client_secret),
            Some(further) => config.client_secrets.get(further),
        };
        let with_secret = |way: fn(Secret) -> Self| {
            secret.map(|secret| if secret.is_empty() { Self::Public } else { way(secret.clone()) })
        };
        Ok(match config.token_auth_method {
            TokenAuthMethod::ClientSecretPost => with_secret(Self::Post),
            TokenAuthMethod::ClientSecretBasic => with_secret(Self::Basic),
            TokenAuthMethod::PrivateKeyJwt | TokenAuthMethod::None if attempt > 0 => None,
            TokenAuthMethod::PrivateKeyJwt => {
                let token_url = expand(&config.token_url, &config.variables, variables)?;
                Some(Self::Assertion(client_assertion(config, &token_url, now, jti)?))
            }
            TokenAuthMethod::None => Some(Self::Public),
        })
    }
}

/// A code to be exchanged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeGrant<'a> {
    /// The code; sent once.
    pub code: &'a Secret,
    /// The verifier behind the challenge.
    pub verifier: Option<&'a Secret>,
    /// The login's variables.
    pub variables: &'a BTreeMap<String, String>,
}

/// A refresh token to be used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefreshGrant<'a> {
    /// The refresh token.
    pub refresh_token: &'a Secret,
    /// Where it was issued.
    pub issued_at: &'a IssuedAt,
}

/// A token to be revoked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Revocation<'a> {
    /// The token.
    pub token: &'a Secret,
    /// Which kind.
    pub hint: TokenHint,
    /// Where it was issued.
    pub issued_at: &'a IssuedAt,
}

/// Which kind of token is to be revoked (RFC 7009 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenHint {
    /// `access_token`.
    AccessToken,
    /// `refresh_token`.
    RefreshToken,
}

impl TokenHint {
    fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "access_token",
            Self::RefreshToken => "refresh_token",
        }
    }
}

type Params<'a> = Vec<(&'a str, &'a str)>;

/// The exchange of a code (RFC 6749 §4.1.3).
///
/// # Errors
/// [`RequestError::Config`] when the variables do not fit.
pub(crate) fn exchange_request(
    config: &IntegrationOauthConfig,
    grant: &CodeGrant<'_>,
    auth: &ClientAuth,
) -> Result<Request, RequestError> {
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
    Ok(request(config, url, params, auth))
}

/// A refresh (RFC 6749 §6), at the place where the token was issued or not at all.
///
/// # Errors
/// [`RequestError::IssuedElsewhere`], or [`RequestError::Config`] when the variables do not fit.
pub(crate) fn refresh_request(
    config: &IntegrationOauthConfig,
    grant: &RefreshGrant<'_>,
    auth: &ClientAuth,
) -> Result<Request, RequestError> {
    let url = config.refresh_url.as_ref().unwrap_or(&config.token_url);
    let url = url_for(config, url, grant.issued_at)?;
    let mut params: Params<'_> = vec![
        (config.param_name("grant_type"), "refresh_token"),
        (config.param_name("refresh_token"), grant.refresh_token.expose()),
    ];
    params.extend(config.refresh_params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    Ok(request(config, url, params, auth))
}

/// A revocation (RFC 7009 §2.1); `None` where the provider has no endpoint for it.
///
/// # Errors
/// As [`refresh_request`].
pub(crate) fn revocation_request(
    config: &IntegrationOauthConfig,
    revocation: &Revocation<'_>,
    auth: &ClientAuth,
) -> Result<Option<Request>, RequestError> {
    let Some(url) = &config.revocation_url else { return Ok(None) };
    if !config.may_revoke(revocation.issued_at) {
        return Err(RequestError::IssuedElsewhere);
    }
    let url = url_for(config, url, revocation.issued_at)?;
    let params = vec![("token", revocation.token.expose()), ("token_type_hint", revocation.hint.as_str())];
    Ok(Some(request(config, url, params, auth)))
}

fn url_for(config: &IntegrationOauthConfig, url: &str, issued_at: &IssuedAt) -> Result<Url, RequestError> {
    if !config.issued(issued_at) {
        return Err(RequestError::IssuedElsewhere);
    }
    Ok(endpoint_url(url, &config.variables, &issued_at.variables)?)
}

fn request<'a>(config: &'a IntegrationOauthConfig, url: Url, mut params: Params<'a>, auth: &'a ClientAuth) -> Request {
    let mut headers = vec![("accept", Secret::new("application/json"))];
    let client_id = (config.param_name("client_id"), config.client_id.as_str());
    match auth {
        ClientAuth::Public => params.push(client_id),
        ClientAuth::Post(secret) => {
            params.extend([client_id, (config.param_name("client_secret"), secret.expose())]);
        }
        ClientAuth::Basic(secret) => headers.push(("authorization", basic(&config.client_id, secret))),
        ClientAuth::Assertion(assertion) => params.extend([
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
    Request { url, headers, content_type, body: Secret::new(body) }
}

/// Id and secret are form-encoded before they are joined (RFC 6749 §2.3.1).
fn basic(client_id: &str, secret: &Secret) -> Secret {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Secret::new(format!("{}:{}", encode(client_id), encode(secret.expose())));
    Secret::new(format!("Basic {}", BASE64_STANDARD.encode(pair.expose())))
}

#[cfg(test)]
mod tests;
