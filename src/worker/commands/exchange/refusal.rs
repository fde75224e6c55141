//! A login that ends without a connection.

use std::time::Duration;

use crate::integration::IntegrationOauthConfig;
use crate::oauth::ProviderAnswer;
use crate::worker::context::Context;
use crate::worker::hint::Suspect;
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
    /// The setting to change, in the config or at the provider.
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
            hint: None,
        }
    }

    /// Adds what to change if a setting may be wrong.
    pub(super) async fn suspect(
        self,
        context: &Context,
        config: &IntegrationOauthConfig,
        suspect: Option<Suspect>,
    ) -> Self {
        match suspect {
            Some(suspect) => Self { hint: Some(suspect.hint(context, config).await), ..self },
            None => self,
        }
    }
}
