//! The outcome of a login whose callback arrives again.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::{Backend, BackendError, LoginTarget, RequestContext};
use crate::call::Call;
use crate::command::Cookie;
use crate::secret::Secret;

/// Pause between two looks at a login that another callback uses. Each look is a call to a worker.
const PAUSE: Duration = Duration::from_millis(200);

/// The answer to [`Call::Outcome`].
#[derive(Debug, Deserialize)]
pub(crate) struct LoginOutcome {
    #[serde(rename = "outcome")]
    pub(crate) stage: Stage,
    #[serde(flatten)]
    pub(crate) target: LoginTarget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// No callback has used the login.
    Pending,
    /// The same, and the queue holds a callback of this connection.
    Queued,
    /// A callback has used the login and runs.
    Running,
    Connected,
    /// The callback that used the login ended without a connection.
    Failed,
}

impl Stage {
    pub(crate) fn is_end(self) -> bool {
        matches!(self, Self::Connected | Self::Failed)
    }
}

impl Backend {
    /// Looks up what became of a login. The state is the credential, with the browser's cookie if the login is bound.
    pub(crate) async fn outcome(
        &self,
        state: &Secret,
        cookies: &[Cookie],
        context: &RequestContext,
    ) -> Result<LoginOutcome, BackendError> {
        let context = RequestContext { credential: None, ..context.clone() };
        let answer =
            self.call(Call::Outcome, &context, &json!({ "state": state.expose(), "cookies": cookies })).await?;
        serde_json::from_slice(&answer).map_err(BackendError::InvalidAnswer)
    }

    /// The same, and waits while a callback is queued or runs, until the deadline for commands.
    pub(crate) async fn settled_outcome(
        &self,
        state: &Secret,
        cookies: &[Cookie],
        context: &RequestContext,
    ) -> Result<LoginOutcome, BackendError> {
        self.outcome_past(&[Stage::Queued, Stage::Running], state, cookies, context).await
    }

    /// The same, and waits while the login is in one of these stages. Workers answer before they take a command off the queue,
    /// so a callback that was turned away a moment ago may still count as queued.
    pub(crate) async fn outcome_past(
        &self,
        stages: &[Stage],
        state: &Secret,
        cookies: &[Cookie],
        context: &RequestContext,
    ) -> Result<LoginOutcome, BackendError> {
        let deadline = Instant::now() + self.deadline;
        loop {
            let found = self.outcome(state, cookies, context).await?;
            if !stages.contains(&found.stage) {
                return Ok(found);
            }
            if Instant::now() + PAUSE > deadline {
                return Err(BackendError::Deadline);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
