//! Hints for people who set up an integration: which value a failed login blames, and the page to correct it on.

use crate::integration::{IntegrationOauthConfig, RequestKind, TokenAuthMethod};
use crate::oauth::error::Cause;
use crate::provider::profiles::{About, Profiles};
use crate::worker::context::Context;

/// Longest hint in characters. An operator's own profile may have texts of any length.
const MAX_CHARS: usize = 1000;

/// Returns the hint for a login with this config. It contains nothing that the provider said.
pub(super) async fn hint_for(cause: Cause, context: &Context, config: &IntegrationOauthConfig) -> String {
    let provider = config.provider.as_deref().unwrap_or_default();
    // The profile only adds the page. A config outlives its profile.
    let about = Profiles::new(&context.config.oauth).find(provider).await.ok().map(|profile| profile.about);
    text(cause, config, about.as_ref()).chars().take(MAX_CHARS).collect()
}

fn text(cause: Cause, config: &IntegrationOauthConfig, about: Option<&About>) -> String {
    let page = about.and_then(|about| about.app_url.as_ref());
    let place = page.map_or_else(|| "at the provider".to_owned(), |page| format!("at {page}"));
    let field = about.and_then(|about| about.redirect_url_field.as_ref());
    let field = field.map(|field| format!(" ({field})")).unwrap_or_default();
    let (redirect_url, secret) = (&config.redirect_url, secret_of(config));
    match cause {
        Cause::ClientId => format!(
            "the provider does not know the client_id of the config: look up the app's client id {place}, and copy it into \
             the config"
        ),
        Cause::Client | Cause::ClientSecret if config.token_auth_method == TokenAuthMethod::None => format!(
            "the provider does not accept client_id of the config without a secret: compare client_id with the app's {place}; \
             if the app has a client secret, copy it into the config"
        ),
        Cause::ClientSecret => format!(
            "the {secret} of the config is wrong or has expired: look up or create the app's current one {place}, and copy \
             it into the config"
        ),
        Cause::Client => format!(
            "the provider does not accept client_id and {secret} of the config: compare both with those of the app {place}"
        ),
        Cause::App => format!(
            "the provider does not allow this kind of login to the app: check the app's type and status {place}, and compare \
             client_id and {secret} of the config with the app's"
        ),
        Cause::RedirectUrl => format!(
            "the redirect URL is not registered for the app: enter {redirect_url} {place}{field}, or set redirect_url of the \
             config to the URL that is registered there"
        ),
        Cause::Scopes if !sends_scopes(config) => {
            "the request has no scope, and the provider asks for one: add the scopes \
                                                   that the app needs to scopes of the config"
                .to_owned()
        }
        Cause::Scopes => format!(
            "the provider does not allow a scope to the app: allow the scopes of the config to the app {place}, or remove \
             from scopes of the config those that it may not have"
        ),
        Cause::Pkce => format!(
            "the provider did not accept PKCE: check {place} that the app allows it with the method S256; for a provider \
             without PKCE, set pkce of the config to off"
        ),
        Cause::TokenUrl => {
            "the answer is not that of a token endpoint: compare token_url of the config with the provider's \
                            documentation; if that names the fields of the answer in its own way, set token_answer"
                .to_owned()
        }
        Cause::Code => "the authorization code had expired, or was used before".to_owned(),
        Cause::CodeOrRedirectUrl => format!(
            "either the authorization code had expired, or the redirect URL is not the app's: {redirect_url} has to be \
             registered for the app {place}{field}"
        ),
        Cause::Request => format!(
            "the provider names no reason that is known here: compare client_id, {secret}, redirect_url and scopes of the \
             config with those of the app {place}"
        ),
    }
}

/// Returns true if authorization requests have a scope, unless a login asks for none.
fn sends_scopes(config: &IntegrationOauthConfig) -> bool {
    !config.scopes().is_empty() && config.param_names.of(RequestKind::Authorize, "scope").is_some()
}

/// The field that proves who the client is.
fn secret_of(config: &IntegrationOauthConfig) -> &'static str {
    match config.token_auth_method {
        TokenAuthMethod::PrivateKeyJwt | TokenAuthMethod::SignedClientSecret => "client_key",
        TokenAuthMethod::ClientSecretPost
        | TokenAuthMethod::ClientSecretBasic
        | TokenAuthMethod::Bearer
        | TokenAuthMethod::None => "client_secret",
    }
}
