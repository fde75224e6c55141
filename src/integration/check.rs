//! Validates an admin's JSON and makes a config of it.

mod api_requests;
mod effect;
mod fields;
mod form;
mod headers;
mod json;
mod names;
mod params;
mod placeholders;
mod urls;

use serde_json::Value;

pub(crate) use self::effect::OF_REVOCATIONS;
#[cfg(test)]
pub(super) use self::fields::field_names;
use self::form::below;
pub(crate) use self::json::read_json;
pub(super) use self::urls::all_urls;
use super::error::printable;
use super::scopes::scope_list;
use super::{
    ConfigError, IntegrationOauthConfig, RequestKind, TokenAuthMethod, TokenKind, UrlRules, secrets, signing_key,
    template,
};
use crate::foreign_text::has_hidden;
use crate::secret::Secret;
use crate::subject::Integration;

const MAX_NAME_CHARS: usize = 200;
/// Characters of a text, bytes of a parameter's value.
const MAX_TEXT: usize = 1024;
const TEXT: &str = "a text of 1 to 1024 characters without a blank at either end";
const MAX_SCOPES: usize = 256;
const MAX_SCOPES_BYTES: usize = 8 * 1024;
const MAX_SECRET_BYTES: usize = 4 * 1024;
const MAX_KEY_BYTES: usize = 16 * 1024;
/// Secrets beside `client_secret`. Each of them may cost one more token request.
pub(super) const MAX_SECRETS: usize = 4;

/// Validates a config to which the fields of its profile have been added.
///
/// # Errors
/// [`ConfigError`] with the field's name, never with a value.
pub(crate) fn parse_value(
    body: Value,
    path_id: &Integration,
    rules: UrlRules,
) -> Result<IntegrationOauthConfig<Secret>, ConfigError> {
    let Value::Object(mut fields) = body else { return Err(ConfigError::NotAnObject) };
    fields.retain(|_, value| !value.is_null());
    fields::check_fields(&fields)?;
    if fields.get("token_auth_method").and_then(Value::as_str) == Some("signed_client_secret") {
        // The only algorithm that a provider is known to take there.
        fields.entry("client_key_alg").or_insert_with(|| "ES256".into());
    }
    if fields.get("client_secret").and_then(Value::as_str) == Some("") {
        // A public client.
        fields.entry("token_auth_method").or_insert_with(|| "none".into());
    }
    placeholders::check(&fields)?;
    secrets::refuse_word_for_secrets(&fields)?;
    // Unreachable after the checks above. Serde's message is dropped because it repeats values.
    let config = serde_json::from_value(Value::Object(fields)).map_err(|_| ConfigError::NotAnObject)?;
    check(&config, path_id, rules)?;
    Ok(config)
}

fn check(config: &IntegrationOauthConfig, path_id: &Integration, rules: UrlRules) -> Result<(), ConfigError> {
    require(config.integration_id == *path_id, "integration_id", "the same as in the path")?;
    check_texts(config)?;
    urls::check_variables(config, rules)?;
    urls::check_redirect(config, rules)?;
    params::check(config)?;
    api_requests::check(config)?;
    check_authentication(config)?;
    effect::check(config)
}

fn check_texts(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let scopes = &config.scopes;
    let listed = scope_list(scopes);
    let has_few_scopes = scopes.len() <= MAX_SCOPES_BYTES && listed.len() <= MAX_SCOPES;
    require(
        is_text(&config.name, MAX_NAME_CHARS),
        "name",
        "a text of 1 to 200 characters without a blank at either end",
    )?;
    require(has_few_scopes, "scopes", "at most 256 scopes in 8 KiB")?;
    let given = scopes.split(',').filter(|scope| !scope.trim().is_empty()).count();
    require(given == listed.len(), "scopes", "a list that names each scope once: remove the second copy")?;
    require(is_text(&config.client_id, MAX_TEXT), "client_id", TEXT)?;

    let is_secret = |secret: &Secret| {
        let text = secret.expose();
        text.len() <= MAX_SECRET_BYTES && text.trim() == text && !has_hidden(text)
    };
    let expected = "at most 4 KiB without control characters, invisible characters and a blank at either end";
    require(is_secret(&config.client_secret), "client_secret", expected)?;
    require(config.client_secrets.len() <= MAX_SECRETS, "client_secrets", "at most 4 secrets")?;
    for (index, secret) in config.client_secrets.iter().enumerate() {
        let expected = "1 byte to 4 KiB without control characters, invisible characters and a blank at either end";
        let field = below("client_secrets", &index);
        require(is_secret(secret) && !secret.is_empty(), &field, expected)?;
        require(*secret != config.client_secret, &field, "another secret than `client_secret`")?;
    }

    let is_text_or_absent = |text: &Option<String>| text.as_ref().is_none_or(|text| is_text(text, MAX_TEXT));
    require(is_text_or_absent(&config.provider), "provider", TEXT)?;
    require(is_text_or_absent(&config.issuer), "issuer", TEXT)?;
    // The callback would choose the value that it is checked against.
    let is_of_login = |name| config.variables.get(name).is_some_and(|variable| variable.callback_param().is_none());
    let mut names = config.issuer.iter().flat_map(|issuer| template::variable_names(issuer));
    require(names.all(is_of_login), "issuer", "a text whose variables are from `login`")?;
    require(is_text_or_absent(&config.client_key_id), "client_key_id", TEXT)?;
    require(is_text_or_absent(&config.client_assertion_iss), "client_assertion_iss", TEXT)?;
    require(is_text_or_absent(&config.refresh_grant_type), "refresh_grant_type", TEXT)?;
    require(is_text_or_absent(&config.client_assertion_aud), "client_assertion_aud", TEXT)
}

fn check_authentication(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    for request in RequestKind::ALL {
        match config.auth_method(request) {
            TokenAuthMethod::ClientSecretPost | TokenAuthMethod::ClientSecretBasic => {
                let expected = "set: an authentication method of the config sends it; a public client has \
                                `token_auth_method` none";
                require(!config.client_secret.is_empty(), "client_secret", expected)?;
            }
            TokenAuthMethod::SignedClientSecret => {
                require(config.client_key.is_some(), "client_key", "set for signed_client_secret")?;
                require(config.client_assertion_iss.is_some(), "client_assertion_iss", "set for signed_client_secret")?;
            }
            TokenAuthMethod::PrivateKeyJwt => {
                require(config.client_key.is_some(), "client_key", "set for private_key_jwt")?;
            }
            TokenAuthMethod::Bearer => {
                let expected =
                    "access_token or absent with bearer: only an access token authorizes a request by itself";
                require(config.revoke_with != Some(TokenKind::RefreshToken), "revoke_with", expected)?;
            }
            TokenAuthMethod::None => {}
        }
    }
    let has_first = !config.client_secret.is_empty();
    let expected = "absent beside an empty `client_secret`, which is tried first";
    require(has_first || config.client_secrets.is_empty(), "client_secrets", expected)?;
    let is_usable =
        |key: &Secret| key.expose().len() <= MAX_KEY_BYTES && signing_key(config.client_key_alg, key).is_ok();
    let expected = "a private key in PEM (PKCS#8) of the kind that client_key_alg names";
    require(config.client_key.as_ref().is_none_or(is_usable), "client_key", expected)
}

fn require(is_valid: bool, field: &str, expected: &'static str) -> Result<(), ConfigError> {
    if is_valid { Ok(()) } else { Err(ConfigError::invalid(field, expected)) }
}

/// [`form`] refuses hidden characters in every text.
fn is_text(text: &str, max_chars: usize) -> bool {
    !text.is_empty() && text.trim() == text && text.chars().count() <= max_chars
}
