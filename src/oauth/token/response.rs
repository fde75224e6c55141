//! Token responses (RFC 6749 §5). Tolerates the known deviations of real providers.

mod body;
mod fields;

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use self::body::parse_body;
use self::fields::{Fields, is_large, is_plain};
use crate::integration::{IntegrationOauthConfig, Refusal, TokenKind, value_at};
use crate::oauth::error::{ErrorCode, ErrorKind};
use crate::oauth::{Identity, json};
use crate::secret::Secret;

/// Type of a token whose answer names none (RFC 6750).
pub(crate) const BEARER: &str = "Bearer";

// RFC 6749 sets no limits. A record with both tokens, sealed, has to fit into the server's largest message (1 MiB by
// default).
const MAX_ACCESS_TOKEN_BYTES: usize = 128 * 1024;
pub(crate) const MAX_REFRESH_TOKEN_BYTES: usize = 16 * 1024;
const MAX_ID_TOKEN_BYTES: usize = 64 * 1024;
const MAX_TOKEN_TYPE_BYTES: usize = 64;

/// Names of parts in [`TokenSet::left_out`].
const SCOPE: &str = "scope";
pub(crate) const METADATA: &str = "metadata";

/// A successful token response (RFC 6749 §5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    /// Never empty.
    pub access_token: Secret,
    /// As in the response; `Bearer` when absent.
    pub token_type: String,
    /// Never empty.
    pub refresh_token: Option<Secret>,
    /// Seconds, from 1 to ten years; absent if the response has no valid lifetime.
    pub expires_in: Option<i64>,
    /// Time of the response plus `expires_in`.
    pub expiry: Option<Timestamp>,
    /// End of the refresh token, if the response has it.
    pub refresh_token_expiry: Option<Timestamp>,
    /// The granted scopes, if the response has them.
    pub scope: Option<String>,
    /// The account, if the config's paths of it lead into this response.
    pub identity: Option<Identity>,
    /// OpenID Connect Core 1.0 §2, if the config reads the identity from it.
    pub id_token: Option<Secret>,
    /// The values at the config's `metadata_paths`, by path.
    pub metadata: Map<String, Value>,
    /// Parts of the response that are too large to keep, or not plain text.
    pub left_out: Vec<&'static str>,
}

/// A token response without tokens. Contains no text of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// An error response (RFC 6749 §5.2).
    #[error("{0}")]
    Oauth(ErrorCode),
    /// Status 429. The response's `Retry-After` may say when to try again.
    #[error("rate limited by the provider")]
    RateLimited,
    /// Status 5xx, with any body.
    #[error("the provider failed with status {0}")]
    ServerError(u16),
    /// Status 401 without a code: the provider rejects the client's secret, or the token.
    #[error("the provider answered 401 without an error code")]
    Unauthorized,
    /// The body has neither an access token nor an error code, or it has an access token with a status other than 2xx.
    #[error("the provider's answer has neither the expected content nor a known error code")]
    Unreadable,
    /// The answer or a token is over its limit in bytes.
    #[error("the provider's answer is too large: `{part}` has more than {most} bytes")]
    TooLarge { part: &'static str, most: usize },
}

impl TokenError {
    /// The error of an answer that is larger than the client reads.
    #[must_use]
    pub(crate) fn of_large_answer(status: u16, most: usize) -> Self {
        temporary_error(status).unwrap_or(Self::TooLarge { part: "body", most })
    }

    /// Returns the reason in events.
    #[must_use]
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Oauth(code) => code.as_str(),
            Self::RateLimited => "rate_limited",
            Self::ServerError(_) => "provider_error",
            Self::Unauthorized => "unauthorized",
            Self::Unreadable => "unreadable_answer",
            Self::TooLarge { .. } => "answer_too_large",
        }
    }

    /// Returns true if the request may be sent again with the next client secret. The provider rejected the client
    /// before it looked at the grant, so neither the authorization code nor the refresh token is used up. A 401 without a code
    /// may also mean the token; no server issues tokens with it.
    #[must_use]
    pub(crate) fn allows_next_secret(self) -> bool {
        self == Self::Unauthorized || matches!(self, Self::Oauth(code) if code.kind() == ErrorKind::InvalidClient)
    }
}

/// A response of the token endpoint or of the revocation endpoint.
pub(crate) struct Response<'a> {
    status: u16,
    body: Cow<'a, str>,
    /// The body, if it is a JSON object or a form.
    fields: Option<Value>,
}

impl<'a> Response<'a> {
    /// Parses a response. The content type is only a hint: providers often mislabel bodies.
    pub(crate) fn parse<T>(
        status: u16,
        content_type: Option<&str>,
        body: &'a [u8],
        config: &IntegrationOauthConfig<T>,
    ) -> Self {
        let body = String::from_utf8_lossy(body);
        let fields = parse_body(content_type, &body, &config.answer_roots().collect::<Vec<_>>());
        Self { status, body, fields }
    }

    /// Returns the tokens. Success is a 2xx with a non-empty `access_token`, no `error` and no `"ok": false`.
    pub(crate) fn tokens<T>(&self, config: &IntegrationOauthConfig<T>, now: Timestamp) -> Result<TokenSet, TokenError> {
        if !self.is_success(config) {
            return Err(self.error(config));
        }
        // Rules must not cost tokens that arrive without an error.
        let tokens = self.fields.as_ref().ok_or(TokenError::Unreadable).and_then(|it| token_set(it, config, now));
        tokens.map_err(|error| self.code_by_rules(config).map_or(error, TokenError::Oauth))
    }

    /// Judges a response that needs no content (RFC 7009 §2.2). Success is a 2xx without an error, because some providers
    /// send errors with the status 200.
    pub(crate) fn success<T>(&self, config: &IntegrationOauthConfig<T>) -> Result<(), TokenError> {
        if self.is_success(config) { Ok(()) } else { Err(self.error(config)) }
    }

    /// Returns the JSON of an API's answer.
    pub(crate) fn json(&self) -> Result<Value, TokenError> {
        match self.status {
            200..300 => json::parse(&self.body).ok_or(TokenError::Unreadable),
            401 => Err(TokenError::Unauthorized),
            status => Err(temporary_error(status).unwrap_or(TokenError::Unreadable)),
        }
    }

    fn is_success<T>(&self, config: &IntegrationOauthConfig<T>) -> bool {
        (200..300).contains(&self.status) && self.standard_code(config).is_none()
    }

    fn error<T>(&self, config: &IntegrationOauthConfig<T>) -> TokenError {
        if let Some(code) = self.code_by_rules(config) {
            return TokenError::Oauth(code);
        }
        match (temporary_error(self.status), self.standard_code(config)) {
            (Some(error), _) => error,
            // Words that are unknown are no code.
            (None, None | Some(ErrorCode::Unknown)) if self.status == 401 => TokenError::Unauthorized,
            (None, Some(code)) => TokenError::Oauth(code),
            (None, None) => TokenError::Unreadable,
        }
    }

    fn code_by_rules<T>(&self, config: &IntegrationOauthConfig<T>) -> Option<ErrorCode> {
        let objects: Vec<&Value> = self.objects(config).collect();
        ErrorCode::by_rules(config, &Refusal { status: self.status, body: &self.body, objects: &objects })
    }

    fn standard_code<T>(&self, config: &IntegrationOauthConfig<T>) -> Option<ErrorCode> {
        self.objects(config).find_map(error_code)
    }

    /// The objects that may hold an error: the root, and the one at `token_response_path`.
    fn objects<T>(&self, config: &IntegrationOauthConfig<T>) -> impl Iterator<Item = &Value> {
        let path = config.token_response_path.as_deref();
        let nested = self.fields.as_ref().zip(path).and_then(|(fields, path)| value_at(fields, path));
        self.fields.iter().chain(nested)
    }
}

/// Returns the error of a status that takes precedence over the body.
fn temporary_error(status: u16) -> Option<TokenError> {
    match status {
        429 => Some(TokenError::RateLimited),
        500.. => Some(TokenError::ServerError(status)),
        _ => None,
    }
}

fn token_set<T>(response: &Value, config: &IntegrationOauthConfig<T>, now: Timestamp) -> Result<TokenSet, TokenError> {
    let fields = Fields::of(response, config);
    let access_token = fields.secret("access_token", MAX_ACCESS_TOKEN_BYTES)?.ok_or(TokenError::Unreadable)?;
    let refresh_token = match config.refresh_with {
        TokenKind::RefreshToken => fields.secret("refresh_token", MAX_REFRESH_TOKEN_BYTES)?,
        // Stored as the connection's refresh token, so that it is refreshed like any other.
        TokenKind::AccessToken => {
            Some(access_token.clone()).filter(|token| token.expose().len() <= MAX_REFRESH_TOKEN_BYTES)
        }
    };
    let left_out = [
        ("refresh_token", config.refresh_with == TokenKind::AccessToken && refresh_token.is_none()),
        (SCOPE, fields.has_scope() && fields.scope().is_none()),
        (METADATA, has_large_values(response, &config.metadata_paths)),
    ];
    let expires_in = fields.lifetime("expires_in", "expires_at", now);
    let refresh_token_expires_in = fields.lifetime("refresh_token_expires_in", "refresh_token_expires_at", now);
    let end_of = |seconds: i64| after(now, seconds);
    let expiry = expires_in.and_then(end_of);
    let token_type = fields.text("token_type", MAX_TOKEN_TYPE_BYTES).unwrap_or_else(|| BEARER.to_owned());
    let own_identity =
        config.identity.as_ref().filter(|rule| rule.request.is_none() && config.id_token_issuer().is_none());
    Ok(TokenSet {
        access_token,
        token_type,
        refresh_token,
        expires_in: expires_in.filter(|_| expiry.is_some()),
        expiry,
        refresh_token_expiry: refresh_token_expires_in.and_then(end_of),
        scope: fields.scope(),
        identity: own_identity.and_then(|rule| Identity::read(response, &rule.id, rule.label.as_ref())),
        // A malformed one must not cost the tokens.
        id_token: config.id_token_issuer().and_then(|_| fields.secret("id_token", MAX_ID_TOKEN_BYTES).ok().flatten()),
        metadata: plain_values(response, &config.metadata_paths),
        left_out: left_out.into_iter().filter_map(|(part, is_left_out)| is_left_out.then_some(part)).collect(),
    })
}

/// Returns the values at the paths, by path. Skips those that could hold a token.
pub(crate) fn plain_values(answer: &Value, paths: &[String]) -> Map<String, Value> {
    let plain = |path: &String| {
        value_at(answer, path).filter(|value| is_plain(value)).map(|value| (path.clone(), value.clone()))
    };
    paths.iter().filter_map(plain).collect()
}

/// Returns true if a value at one of the paths is too large to keep.
pub(crate) fn has_large_values(answer: &Value, paths: &[String]) -> bool {
    paths.iter().filter_map(|path| value_at(answer, path)).any(is_large)
}

impl TokenSet {
    /// Adds the fields that only the first answer had. The access token and its lifetime are those of this answer.
    #[must_use]
    pub(crate) fn after(self, first: Self) -> Self {
        let mut metadata = first.metadata;
        metadata.extend(self.metadata);
        let mut left_out = first.left_out;
        left_out.extend(self.left_out.iter().filter(|part| !left_out.contains(part)).copied().collect::<Vec<_>>());
        Self {
            left_out,
            refresh_token: self.refresh_token.or(first.refresh_token),
            refresh_token_expiry: self.refresh_token_expiry.or(first.refresh_token_expiry),
            scope: self.scope.or(first.scope),
            identity: self.identity.or(first.identity),
            id_token: self.id_token.or(first.id_token),
            metadata,
            ..self
        }
    }

    /// Sets a lifetime in seconds if the response had none.
    #[must_use]
    pub(crate) fn or_lifetime(self, seconds: Option<i64>, now: Timestamp) -> Self {
        let expiry = seconds.and_then(|seconds| after(now, seconds));
        match (self.expiry, expiry) {
            (None, Some(_)) => Self { expires_in: seconds, expiry, ..self },
            (Some(_), _) | (None, None) => self,
        }
    }
}

fn after(now: Timestamp, seconds: i64) -> Option<Timestamp> {
    now.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn error_code(value: &Value) -> Option<ErrorCode> {
    let is_refused = value.get("ok") == Some(&Value::Bool(false));
    match value.get("error") {
        None => is_refused.then_some(ErrorCode::Unknown),
        Some(error) if is_falsy(error) => is_refused.then_some(ErrorCode::Unknown),
        Some(Value::String(code)) => Some(ErrorCode::parse(code)),
        Some(other) => {
            let code = other.get("code").or_else(|| other.get("type")).and_then(Value::as_str);
            Some(code.map_or(ErrorCode::Unknown, ErrorCode::parse))
        }
    }
}

/// Returns true for an `error` that reports no error. A form has `0` and `false` as text.
fn is_falsy(error: &Value) -> bool {
    match error {
        Value::Null => true,
        Value::Bool(is_error) => !is_error,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => ["", "0", "false"].contains(&text.as_str()),
        Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests;
