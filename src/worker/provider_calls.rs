//! Asks a token endpoint, with each of the client's secrets in turn when one is refused.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::context::Context;
use crate::integration::IntegrationOauthConfig;
use crate::oauth::PostRequest;
use crate::oauth::token::{self, ClientAuthentication, RequestError, TokenError, TokenSet};
use crate::provider::{ProviderError, TOTAL_TIMEOUT};
use crate::system;

/// Why there are no tokens.
pub(crate) enum NoTokens {
    /// The request could not be made: the config does not fit.
    Request(RequestError),
    /// No answer.
    Unreachable(ProviderError),
    /// An answer without tokens, and how long it asks to wait.
    Refused(TokenError, Option<Duration>),
}

impl NoTokens {
    /// How long the provider asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Request(_) | Self::Unreachable(_) => None,
            Self::Refused(_, retry_after) => *retry_after,
        }
    }

    /// Its name in events, from a fixed list.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Request(_) => "client_authentication",
            Self::Unreachable(_) => "provider_unreachable",
            Self::Refused(error, _) => error.reason(),
        }
    }
}

impl std::fmt::Display for NoTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Request(error) => error.fmt(f),
            Self::Unreachable(error) => error.fmt(f),
            Self::Refused(error, _) => error.fmt(f),
        }
    }
}

/// Asks for tokens, for as long as a provider is waited for: all tries together, for a refresh that is cut off is sent
/// again once nobody can be waiting for its answer any more.
pub(super) async fn ask(
    context: &Context,
    config: &IntegrationOauthConfig,
    variables: &BTreeMap<String, String>,
    build: impl Fn(&ClientAuthentication) -> Result<PostRequest, RequestError>,
) -> Result<TokenSet, NoTokens> {
    let asked = tokio::time::timeout(TOTAL_TIMEOUT, ask_each(context, config, variables, build)).await;
    asked.unwrap_or_else(|elapsed| Err(NoTokens::Unreachable(ProviderError::timed_out(elapsed))))
}

/// Sends the request that `build` makes of each way to authenticate, until one is not refused for the client's sake:
/// such a refusal spends neither code nor refresh token.
async fn ask_each(
    context: &Context,
    config: &IntegrationOauthConfig,
    variables: &BTreeMap<String, String>,
    build: impl Fn(&ClientAuthentication) -> Result<PostRequest, RequestError>,
) -> Result<TokenSet, NoTokens> {
    let mut refused = NoTokens::Request(RequestError::NoClientKey);
    for attempt in 0.. {
        let auth = ClientAuthentication::of(config, attempt, variables, system::now(), &system::random_id());
        let Some(auth) = auth.map_err(NoTokens::Request)? else { break };
        let began = Instant::now();
        let sent = context.provider.send(build(&auth).map_err(NoTokens::Request)?).await;
        context.measures.provider_seconds.observe(began.elapsed().as_secs_f64());
        let answer = sent.map_err(NoTokens::Unreachable)?;
        let content_type = answer.content_type.as_deref();
        match token::parse_response(answer.status, content_type, &answer.body, config, system::now()) {
            Ok(tokens) => return Ok(tokens),
            Err(error) if error.allows_next_secret() => refused = NoTokens::Refused(error, answer.retry_after),
            Err(error) => return Err(NoTokens::Refused(error, answer.retry_after)),
        }
    }
    Err(refused)
}
