//! Refuses fields that have no effect without another one: an admin who sets one expects what it says.

use super::require;
use crate::integration::{
    BasicEncoding, ConfigError, IntegrationOauthConfig, KeyAlgorithm, Method, Reconnect, RequestKind, TokenAuthMethod,
};

/// The fields that shape revocations. Without `revocation_url` none is sent.
pub(crate) const OF_REVOCATIONS: [&str; 5] =
    ["revocation_auth_method", "revocation_body_format", "revocation_method", "revoke_with", "revoke_replaced"];
const NO_REVOCATIONS: &str = "absent without `revocation_url`: no revocation is sent";

/// A field with its default value passes: it says what happens anyway.
pub(super) fn check(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    check_identity_rules(config)?;
    check_revocations(config)?;
    check_keys(config)?;
    check_secrets(config)
}

/// Both fields compare accounts, and without `identity` no connection has one.
fn check_identity_rules(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let has_identity = config.identity.is_some();
    let is_any = config.reconnect == Reconnect::Any;
    require(is_any || has_identity, "reconnect", "any without `identity`, which says whose account a connection is")?;
    let expected = "false without `identity`, which says whose account a connection is";
    require(!config.revoke_replaced || has_identity, "revoke_replaced", expected)
}

fn check_revocations(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    if config.revocation_url.is_some() {
        return Ok(());
    }
    let are_set = [
        config.revocation_auth_method.is_some(),
        config.revocation_body_format.is_some(),
        config.revocation_method != Method::default(),
        config.revoke_with.is_some(),
        config.revoke_replaced,
    ];
    OF_REVOCATIONS.iter().zip(are_set).try_for_each(|(field, is_set)| require(!is_set, field, NO_REVOCATIONS))?;
    let names_params = config.param_names.entries().any(|(request, ..)| request == Some(RequestKind::Revoke.as_str()));
    require(!names_params, "param_names.revoke", NO_REVOCATIONS)
}

/// Fields of the key that signs credentials.
fn check_keys(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    if uses(config, &[TokenAuthMethod::PrivateKeyJwt, TokenAuthMethod::SignedClientSecret]) {
        return Ok(());
    }
    let expected =
        "absent without the authentication method private_key_jwt or signed_client_secret, which uses the key";
    for (field, is_set) in [
        ("client_key", config.client_key.is_some()),
        ("client_key_id", config.client_key_id.is_some()),
        ("client_key_alg", config.client_key_alg != KeyAlgorithm::default()),
        ("client_assertion_aud", config.client_assertion_aud.is_some()),
        ("client_assertion_iss", config.client_assertion_iss.is_some()),
    ] {
        require(!is_set, field, expected)?;
    }
    Ok(())
}

/// A single `client_secret` may stay beside any method, because every config has the field.
fn check_secrets(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let sends_secret = uses(config, &[TokenAuthMethod::ClientSecretPost, TokenAuthMethod::ClientSecretBasic]);
    let expected = "absent without the authentication method client_secret_post or client_secret_basic, which sends it";
    require(sends_secret || config.client_secrets.is_empty(), "client_secrets", expected)?;
    let is_joined = uses(config, &[TokenAuthMethod::ClientSecretBasic]);
    let expected = "form without the authentication method client_secret_basic";
    require(is_joined || config.basic_encoding == BasicEncoding::default(), "basic_encoding", expected)
}

/// Returns true if a request authenticates the client by one of the methods.
fn uses(config: &IntegrationOauthConfig, methods: &[TokenAuthMethod]) -> bool {
    RequestKind::ALL.into_iter().any(|request| methods.contains(&config.auth_method(request)))
}
