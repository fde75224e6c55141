//! OAuth settings of one integration: their form, their validation, and their public part.

mod answer;
mod api_request;
mod check;
mod choice;
mod client_key;
mod error;
mod error_codes;
mod issued_at;
mod lifetime;
mod param_names;
mod placeholders;
mod scopes;
pub(crate) mod secrets;
mod template;
mod variable;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

pub(crate) use self::answer::{ANSWER_FIELDS, Paths};
pub(crate) use self::api_request::{ApiRequest, IdentityRule, LoginRequests, MetadataRequest, Reconnect};
pub(crate) use self::check::{OF_REVOCATIONS, parse_value, read_json};
pub(crate) use self::choice::{
    BasicEncoding, BodyFormat, ExpiresInUnit, KeyAlgorithm, Method, Pkce, ResponseMode, ScopeSeparator,
    TokenAuthMethod, TokenKind,
};
pub(crate) use self::client_key::signing_key;
pub(crate) use self::error::{ConfigError, printable};
pub(crate) use self::error_codes::{ERROR_CODES, ErrorRule, Refusal};
pub use self::issued_at::IssuedAt;
pub(crate) use self::lifetime::{LifetimeStart, RefreshTokenLifetime};
pub(crate) use self::param_names::{ParamNames, RequestKind};
pub(crate) use self::placeholders::{Placeholders, encode};
pub(crate) use self::template::{endpoint_url, expand, split_route};
pub(crate) use self::variable::Variable;
use crate::secret::Secret;
use crate::subject::{self, Integration};

/// Limit for token requests, for configs without `timeout`. Some token endpoints need more than ten seconds.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest `timeout`. The hold of an interrupted refresh lasts longer, in every release.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_mins(1);

/// The URLs that a config may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct UrlRules {
    /// Allows `http` for loopback hosts.
    pub allow_insecure_urls: bool,
}

/// The OAuth settings. `T` is the type of the secrets.
///
/// Deserializing ignores unknown fields: a later release may have stored them. A new config is checked for them before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub(crate) struct IntegrationOauthConfig<T = Secret> {
    pub integration_id: Integration,
    /// The name shown to people.
    pub name: String,
    /// Comma-separated.
    pub scopes: String,
    /// Client identifier (RFC 6749 §2.2).
    pub client_id: String,
    /// Client password (RFC 6749 §2.3.1); empty for a public client.
    pub client_secret: T,
    /// Authorization endpoint (RFC 6749 §3.1); may contain `${variable}`s.
    pub auth_url: String,
    /// Token endpoint (RFC 6749 §3.2); may contain `${variable}`s.
    pub token_url: String,
    /// Redirection endpoint (RFC 6749 §3.1.2), sent byte for byte.
    pub redirect_url: String,
    /// The provider profile that filled in the fields absent from the admin's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(default)]
    pub scope_separator: ScopeSeparator,
    #[serde(default)]
    pub pkce: Pkce,
    /// Client authentication at the token endpoint.
    #[serde(default)]
    pub token_auth_method: TokenAuthMethod,
    /// Client authentication of a refresh; `token_auth_method` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_auth_method: Option<TokenAuthMethod>,
    /// Client authentication at the revocation endpoint; `token_auth_method` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_auth_method: Option<TokenAuthMethod>,
    /// Method of token requests. Revocations have their own.
    #[serde(default)]
    pub token_method: Method,
    /// Place and format of the parameters of token requests.
    #[serde(default)]
    pub token_body_format: BodyFormat,
    /// The same for revocations; `token_body_format` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_body_format: Option<BodyFormat>,
    /// Method of revocations: POST (RFC 7009 §2.1) or DELETE.
    #[serde(default)]
    pub revocation_method: Method,
    /// The only token that is revoked; both when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_with: Option<TokenKind>,
    /// Extra headers of all requests to the provider, by name. They replace headers that tokenbus sends by default.
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub token_headers: BTreeMap<String, T>,
    #[serde(default)]
    pub basic_encoding: BasicEncoding,
    /// `response_type` of the authorization request; empty to leave it out.
    #[serde(default = "default_response_type")]
    pub response_type: String,
    #[serde(default)]
    pub response_mode: ResponseMode,
    /// Extra parameters of the authorization request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub auth_params: BTreeMap<String, String>,
    /// Extra parameters of the token request for an authorization code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub token_params: BTreeMap<String, String>,
    /// Extra parameters of a refresh.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refresh_params: BTreeMap<String, String>,
    #[serde(default)]
    pub refresh_with: TokenKind,
    /// `grant_type` of a refresh; `refresh_token` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_grant_type: Option<String>,
    /// Method of a refresh; `token_method` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_method: Option<Method>,
    /// Parameters of the authorization request that a login may set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub login_params: Vec<String>,
    /// The provider's names for the protocol's parameters, by the RFC's name.
    #[serde(default, skip_serializing_if = "ParamNames::is_empty")]
    pub param_names: ParamNames,
    /// Token endpoint for refreshes; `token_url` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_url: Option<String>,
    /// Revocation endpoint (RFC 7009).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_url: Option<String>,
    /// Dot path of the object with the tokens in the token response. What it lacks is looked for at the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_response_path: Option<String>,
    /// Dot paths of the fields in the token response, by the RFC's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub token_answer: BTreeMap<String, Paths>,
    /// The provider's words for errors; the first rule that applies counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub error_codes: Vec<ErrorRule>,
    /// Dot paths of the values in the token response that become metadata.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata_paths: Vec<String>,
    /// Parameters of the callback's query that become metadata.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callback_metadata: Vec<String>,
    /// The callback parameter that has the authorization code.
    #[serde(default = "default_code_param")]
    pub code_param: String,
    /// Lifetime of an access token in seconds, for token responses without a valid `expires_in`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_expires_in: Option<u32>,
    /// Lifetime of a refresh token, for token responses that state none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token_lifetime: Option<RefreshTokenLifetime>,
    /// Seconds for all tries of a token request together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u8>,
    #[serde(default)]
    pub expires_in_unit: ExpiresInUnit,
    /// Required value of the callback's `iss` (RFC 9207).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Private key in PEM for `private_key_jwt`.
    #[serde(default = "no_client_key", skip_serializing_if = "Option::is_none")]
    pub client_key: Option<T>,
    /// The key's `kid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key_id: Option<String>,
    #[serde(default)]
    pub client_key_alg: KeyAlgorithm,
    /// Audience of the client assertion; the token endpoint when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_assertion_aud: Option<String>,
    /// Issuer of the client assertion; the client id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_assertion_iss: Option<String>,
    /// The `${variable}`s of URLs, parameters and headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, Variable>,
    /// Request after the code exchange whose answer replaces the tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Box<ApiRequest>>,
    /// Where the provider returns a connection's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Box<IdentityRule>>,
    /// Request for facts that the token answer lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_request: Option<Box<MetadataRequest>>,
    #[serde(default)]
    pub reconnect: Reconnect,
    /// True if each login of an account is a grant of its own, so that a login may revoke the grant that it replaces.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoke_replaced: bool,
    /// More client secrets, for rotation: tried in order after the provider answers `invalid_client`.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub client_secrets: Vec<T>,
}

fn default_response_type() -> String {
    "code".to_owned()
}

fn default_code_param() -> String {
    "code".to_owned()
}

/// `#[serde(default)]` would require `T: Default`.
fn no_client_key<T>() -> Option<T> {
    None
}

/// The part of a config that every account may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OauthConfigBasic {
    pub integration_id: Integration,
    /// The name shown to people.
    pub name: String,
    /// Comma-separated.
    pub scopes: String,
    /// Subject of the config's record.
    pub subject: String,
}

impl<T> IntegrationOauthConfig<T> {
    /// Returns the limit for all tries of a token request together.
    #[must_use]
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.map_or(DEFAULT_TIMEOUT, |seconds| Duration::from_secs(seconds.into())).min(MAX_TIMEOUT)
    }

    /// Returns the client authentication of a request.
    pub(crate) fn auth_method(&self, request: RequestKind) -> TokenAuthMethod {
        let own = match request {
            RequestKind::Authorize | RequestKind::Token => None,
            RequestKind::Refresh => self.refresh_auth_method,
            RequestKind::Revoke => self.revocation_auth_method,
        };
        own.unwrap_or(self.token_auth_method)
    }

    /// Returns true if revocations send the connection's token of this kind. A bearer token is an access token (RFC 6750).
    pub(crate) fn revokes(&self, kind: TokenKind) -> bool {
        let bearer =
            (self.auth_method(RequestKind::Revoke) == TokenAuthMethod::Bearer).then_some(TokenKind::AccessToken);
        self.revoke_with.or(bearer).is_none_or(|only| only == kind)
    }

    /// Returns the token endpoint with its variables filled in.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] if a variable is unknown or missing, or if its value is not allowed.
    pub(crate) fn token_endpoint(&self, values: &BTreeMap<String, String>) -> Result<Url, ConfigError> {
        endpoint_url(&self.token_url, &self.variables, values)
    }

    /// Returns the part that every account may see.
    #[must_use]
    pub(crate) fn basic(&self) -> OauthConfigBasic {
        OauthConfigBasic {
            integration_id: self.integration_id.clone(),
            name: self.name.clone(),
            scopes: self.scopes.clone(),
            subject: subject::config_subject(&self.integration_id),
        }
    }
}

/// Returns the value at a dot path. A number is a place in a list, from 0.
pub(crate) fn value_at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| match value.as_array() {
        Some(values) => values.get(key.parse::<usize>().ok()?),
        None => value.get(key),
    })
}

#[cfg(test)]
pub(crate) mod tests;
