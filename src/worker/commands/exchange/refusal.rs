//! A login that ends without a connection.

use std::time::Duration;

use crate::integration::IntegrationOauthConfig;
use crate::oauth::ProviderAnswer;
use crate::oauth::error::Cause;
use crate::worker::context::Context;
use crate::worker::hint::hint_for;
use crate::worker::rpc::status::Failure;

/// Why a consumed login creates no connection.
pub(super) struct Refusal {
    pub(super) failure: Failure,
    /// For the event, from a fixed list.
    pub(super) reason: String,
    /// For the person.
    pub(super) text: String,
    pub(super) retry_after: Option<Duration>,
    /// The token endpoint's answer.
    pub(super) provider: Option<ProviderAnswer>,
    pub(super) cause: Option<Cause>,
    /// The value to change, in the config or at the provider.
    pub(super) hint: Option<String>,
}

impl Refusal {
    pub(super) fn new(failure: Failure, reason: &str, text: &str) -> Self {
        Self {
            failure,
            reason: reason.to_owned(),
            text: text.to_owned(),
            retry_after: None,
            provider: None,
            cause: None,
            hint: None,
        }
    }

    /// Adds the cause, if there is one, and its hint.
    pub(super) async fn because(
        self,
        context: &Context,
        config: &IntegrationOauthConfig,
        cause: Option<Cause>,
    ) -> Self {
        let Some(cause) = cause else { return self };
        Self { cause: Some(cause), hint: Some(hint_for(cause, context, config).await), ..self }
    }
}
