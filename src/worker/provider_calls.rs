//! Requests to a provider. `revocation` has those to its revocation endpoint.
//!
//! A client may have two secrets while one replaces the other. A refusal of the client's authentication is tried again
//! with the next secret: the provider has then not looked at the grant, so neither code nor refresh token is spent.

pub(super) mod facts;
pub(crate) mod revocation;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

pub(super) use self::time::RequestTime;
use crate::connection::CONFIG_CHANGED;
use crate::connection::lifecycle::Meaning;
use crate::integration::{IntegrationOauthConfig, RequestKind};
use crate::oauth::error::{Cause, ErrorKind};
use crate::oauth::token::{ClientAuthentication, RequestError, Response, TokenError, TokenSet};
use crate::oauth::{HttpRequest, ProviderAnswer};
use crate::protocol::records::{LONGEST_WRITE, longest_token};
use crate::provider::{MAX_BODY_BYTES, ProviderError, ProviderResponse};
use crate::secret::Secret;
use crate::system;
use crate::worker::context::{CallPermit, Context};
use crate::worker::lease::Lease;

/// Time from a command's first request in which a connection is opened once more. The last try may take another 5 s, so the
/// caller learns the reason before the default `http.deadline`, 20 s.
const RECONNECT_TIME: Duration = Duration::from_secs(12);
/// Pause before the second try. Each further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Reason why a token request returned no tokens, or a revocation did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoTokens {
    /// Nothing was sent: the config does not fit.
    #[error(transparent)]
    Request(RequestError),
    /// Nothing was sent: earlier requests of the command took all its time.
    #[error("no time is left for the request")]
    OutOfTime,
    /// The request may have arrived, unless the error says that it was not sent.
    #[error(transparent)]
    Unreachable(#[from] Unreached),
    #[error("{error}")]
    Refused {
        #[source]
        error: TokenError,
        /// Shortest wait before the next request, if the provider asks for one.
        retry_after: Option<Duration>,
        answer: Box<ProviderAnswer>,
    },
}

/// A request without an answer.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(crate) struct Unreached {
    #[source]
    error: ProviderError,
    /// The same for operators.
    answer: Box<ProviderAnswer>,
}

impl From<ProviderError> for Unreached {
    fn from(error: ProviderError) -> Self {
        let answer = Box::new(ProviderAnswer::missing(error.to_string()));
        Self { error, answer }
    }
}

impl NoTokens {
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Request(_) | Self::OutOfTime | Self::Unreachable(_) => None,
            Self::Refused { retry_after, .. } => *retry_after,
        }
    }

    /// The provider's answer, as operators see it.
    pub(super) fn answer(&self) -> Option<&ProviderAnswer> {
        match self {
            Self::Request(_) | Self::OutOfTime => None,
            Self::Unreachable(Unreached { answer, .. }) | Self::Refused { answer, .. } => Some(answer),
        }
    }

    /// What the provider blames for a failed login.
    pub(super) fn cause(&self) -> Option<Cause> {
        match self {
            Self::Request(_) | Self::OutOfTime | Self::Unreachable(_) => None,
            Self::Refused { error, answer, .. } => Cause::of_answer(*error, answer),
        }
    }

    /// Meaning of a refresh's failure for the grant.
    pub(super) fn meaning(&self) -> Meaning {
        match self {
            Self::Request(_) => Meaning::ClientRefused,
            Self::OutOfTime | Self::Unreachable(_) => Meaning::Temporary,
            Self::Refused { error, answer, .. } => match error {
                TokenError::RateLimited | TokenError::ServerError(_) => Meaning::Temporary,
                TokenError::Unauthorized | TokenError::Unreadable | TokenError::TooLarge { .. } => Meaning::Unclear,
                TokenError::Oauth(code) => match code.kind() {
                    ErrorKind::InvalidGrant => Meaning::DeadGrant,
                    ErrorKind::InvalidClient => Meaning::ClientRefused,
                    // In an answer of 4xx it may be meant for ever, and a connection must not stay active for ever with an
                    // expired token. Unclear failures are tried again in the same way, and end at last.
                    ErrorKind::Temporary if answer.status < 400 => Meaning::Temporary,
                    ErrorKind::Temporary | ErrorKind::Other => Meaning::Unclear,
                },
            },
        }
    }

    fn allows_next_secret(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if error.allows_next_secret())
    }

    /// The reason in events, from a fixed list.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Request(RequestError::IssuedElsewhere) => CONFIG_CHANGED,
            Self::Request(_) => "client_authentication",
            Self::OutOfTime | Self::Unreachable(_) => "provider_unreachable",
            Self::Refused { error, .. } => error.reason(),
        }
    }
}

/// The requests of one command to its provider. All of them together take at most the config's `timeout`.
#[derive(Clone, Copy)]
pub(super) struct ProviderCalls<'a> {
    context: &'a Context,
    /// Sends nothing once this lease is lost; `None` to send without a lease.
    lease: Option<&'a Arc<Lease>>,
    time: &'a RequestTime,
    /// Returned while a request waits for its answer.
    permit: Option<&'a CallPermit>,
    /// Tries again if no connection was opened.
    reconnects: bool,
}

impl<'a> ProviderCalls<'a> {
    pub(super) fn new(
        context: &'a Context,
        lease: &'a Arc<Lease>,
        time: &'a RequestTime,
        permit: Option<&'a CallPermit>,
    ) -> Self {
        Self { context, lease: Some(lease), time, permit, reconnects: false }
    }

    /// Requests tokens. If the provider cannot be reached, tries again for [`RECONNECT_TIME`]: nothing was sent, and a login
    /// whose code is not sent is lost.
    pub(super) async fn tokens(
        &self,
        config: &IntegrationOauthConfig,
        kind: RequestKind,
        variables: &BTreeMap<String, String>,
        build: impl Fn(&ClientAuthentication) -> Result<HttpRequest, RequestError>,
    ) -> Result<TokenSet, NoTokens> {
        let judge = |response: &Response<'_>| response.tokens(config, self.context.clock.now());
        let tokens = Self { reconnects: true, ..*self }.with_each_secret(config, kind, variables, build, judge).await?;
        self.check_size(tokens)
    }

    /// Refuses tokens that the bus cannot store: the server's `max_payload` may be smaller than the largest token.
    fn check_size(&self, tokens: TokenSet) -> Result<TokenSet, NoTokens> {
        let max_payload = self.context.nats.max_payload();
        let (bytes, most) = (tokens.access_token.expose().len(), longest_token(max_payload));
        if bytes <= most {
            return Ok(tokens);
        }
        let detail = format!(
            "the access token has {bytes} bytes, and `max_payload` of nats-server ({max_payload}) leaves room for {most}"
        );
        warn!(detail, "the provider's token is too large to be stored");
        let answer = Box::new(ProviderAnswer::missing(detail));
        let error = TokenError::TooLarge { part: "access_token", most };
        Err(NoTokens::Refused { error, retry_after: None, answer })
    }

    /// Sends a request with each of the client's secrets in turn, until the provider does not reject the client.
    pub(super) async fn with_each_secret<T>(
        &self,
        config: &IntegrationOauthConfig,
        kind: RequestKind,
        variables: &BTreeMap<String, String>,
        build: impl Fn(&ClientAuthentication) -> Result<HttpRequest, RequestError>,
        judge: impl Fn(&Response<'_>) -> Result<T, TokenError>,
    ) -> Result<T, NoTokens> {
        // Replaced by the first try: attempt 0 always has an authentication.
        let mut refused = NoTokens::Request(RequestError::NoClientKey);
        for attempt in 0.. {
            let (now, id) = (self.context.clock.now(), system::random_id());
            let auth =
                ClientAuthentication::of(config, kind, attempt, variables, now, &id).map_err(NoTokens::Request)?;
            let Some(auth) = auth else { break };
            match self.send(config, build(&auth).map_err(NoTokens::Request)?, None, &judge).await {
                Err(error) if error.allows_next_secret() => refused = error,
                Err(NoTokens::OutOfTime) if attempt > 0 => break,
                answered => return answered,
            }
        }
        Err(refused)
    }

    /// Sends a request, for at most the command's time.
    async fn answer_to(
        &self,
        config: &IntegrationOauthConfig,
        request: &HttpRequest,
    ) -> Result<ProviderResponse, NoTokens> {
        let (mut pause, mut reported) = (FIRST_PAUSE, String::new());
        loop {
            let time_left = self.time.left(config.timeout());
            if time_left.is_zero() {
                return Err(NoTokens::OutOfTime);
            }
            self.context.limits.needs.extend(time_left.saturating_add(LONGEST_WRITE));
            let lease = self.lease.map(Arc::clone);
            let may_send = move || lease.as_ref().is_none_or(|lease| lease.is_held());
            let error = match self.context.provider.send_if(request.clone(), time_left, may_send).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let may_reconnect = self.reconnects && error.is_unsent();
            if !may_reconnect || self.time.left(config.timeout().min(RECONNECT_TIME)) <= pause {
                return Err(Unreached::from(error).into());
            }
            // One line for each reason, not for each try.
            let reason = error.to_string();
            if reason != reported {
                warn!(provider_detail = reason, "no connection to the provider; trying again");
                reported = reason;
            }
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Sends a request once. `access_token` is the one that the request has, if any: the provider's texts are cleaned of it.
    pub(super) async fn send<T>(
        &self,
        config: &IntegrationOauthConfig,
        request: HttpRequest,
        access_token: Option<&Secret>,
        judge: impl Fn(&Response<'_>) -> Result<T, TokenError>,
    ) -> Result<T, NoTokens> {
        let wait = ProviderWait::begin(self.context, self.permit);
        let sent = self.answer_to(config, &request).await;
        drop(wait);
        let (error, retry_after, mut answer) = match sent {
            Ok(ProviderResponse { status, content_type, retry_after, body }) => {
                let response = Response::parse(status, content_type.as_deref(), &body, config);
                match judge(&response) {
                    Ok(done) => return Ok(done),
                    Err(error) => {
                        let secrets = config.client_secrets.iter().chain([&config.client_secret]).chain(access_token);
                        (error, retry_after, ProviderAnswer::read(status, &body, &request, secrets))
                    }
                }
            }
            Err(NoTokens::Unreachable(Unreached {
                error: ProviderError::TooLarge { status, retry_after }, ..
            })) => {
                let answer = ProviderAnswer { status, ..ProviderAnswer::default() };
                (TokenError::of_large_answer(status, MAX_BODY_BYTES), retry_after, answer)
            }
            Err(error) => {
                warn!(
                    reason = error.reason(),
                    endpoint = endpoint_of(&request),
                    "a request to the provider failed: {error}"
                );
                return Err(error);
            }
        };
        if matches!(error, TokenError::TooLarge { .. }) {
            answer.detail = Some(error.to_string());
        }
        let ProviderAnswer { status, error: code, detail } = &answer;
        let (code, detail) = (code.as_deref(), detail.as_deref());
        let (reason, endpoint) = (error.reason(), endpoint_of(&request));
        warn!(
            reason,
            endpoint,
            provider_status = status,
            provider_error = code,
            provider_detail = detail,
            "the provider refused a request"
        );
        Err(NoTokens::Refused { error, retry_after, answer: Box::new(answer) })
    }
}

/// A wait for the provider, without a permit. Takes the permit again on drop, which ends a wait that takes too long.
struct ProviderWait<'a> {
    context: &'a Context,
    permit: Option<&'a CallPermit>,
    began: Instant,
}

impl<'a> ProviderWait<'a> {
    fn begin(context: &'a Context, permit: Option<&'a CallPermit>) -> Self {
        permit.inspect(|permit| permit.release());
        Self { context, permit, began: Instant::now() }
    }
}

impl Drop for ProviderWait<'_> {
    fn drop(&mut self) {
        self.permit.inspect(|permit| permit.retake());
        self.context.measures.provider_seconds.observe(self.began.elapsed().as_secs_f64());
    }
}

/// Returns the URL of a request without its query, which may hold secrets.
fn endpoint_of(request: &HttpRequest) -> String {
    let mut url = request.url.clone();
    url.set_query(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::integration::tests::config;

    #[test]
    fn an_answer_says_whose_fault_the_failure_is() {
        #[track_caller]
        fn check(status: u16, body: &str, expected: Meaning) {
            let config = config(&json!({})).unwrap();
            let response = Response::parse(status, Some("application/json"), body.as_bytes(), &config);
            let error = response.tokens(&config, Timestamp::UNIX_EPOCH).unwrap_err();
            let answer = Box::new(ProviderAnswer { status, ..ProviderAnswer::default() });
            assert_eq!(NoTokens::Refused { error, retry_after: None, answer }.meaning(), expected, "{status} {body}");
        }
        check(400, r#"{"error":"invalid_grant"}"#, Meaning::DeadGrant);
        check(400, r#"{"error":"bad_refresh_token"}"#, Meaning::DeadGrant);
        check(401, r#"{"error":"invalid_client"}"#, Meaning::ClientRefused);
        check(400, r#"{"error":"unauthorized_client"}"#, Meaning::ClientRefused);
        for (status, body) in [(429, "{}"), (503, r#"{"error":"invalid_grant"}"#), (500, "")] {
            check(status, body, Meaning::Temporary);
        }
        // Some providers say it with the status 200.
        for error in ["temporarily_unavailable", "server_error", "ratelimited", "service_unavailable"] {
            check(200, &json!({ "ok": false, "error": error }).to_string(), Meaning::Temporary);
            check(400, &json!({ "error": error }).to_string(), Meaning::Unclear);
        }
        for (status, body) in [(401, ""), (403, "Forbidden"), (400, r#"{"error":"invalid_request"}"#), (200, "{}")] {
            check(status, body, Meaning::Unclear);
        }
        assert_eq!(NoTokens::OutOfTime.meaning(), Meaning::Temporary);
        assert_eq!(NoTokens::Request(RequestError::NoClientKey).meaning(), Meaning::ClientRefused);
    }
}
