//! The credential of a callback.

use super::Callback;
use crate::command::WorkerReply;
use crate::rights::Scopes;
use crate::store::StoreError;
use crate::worker::context::Context;
use crate::worker::job::Job;
use crate::worker::rpc::status::{self, Failure};

/// Result of [`check_credential`].
pub(super) enum CheckedCredential {
    /// The credential belongs to the login's account, or the callback has none. The scopes decide which tokens the answer
    /// shows: none without a credential, because a state and a code travel through browsers and logs.
    Accepted(Scopes),
    Refused(WorkerReply),
}

pub(super) async fn check_credential(
    context: &Context,
    job: &Job,
    callback: &Callback<'_>,
) -> Result<CheckedCredential, StoreError> {
    let Some(credential) = callback.credential else { return Ok(CheckedCredential::Accepted(Scopes::default())) };
    let purpose = job.purpose(callback.query.expose().as_bytes());
    match context.auth.authenticate(credential, purpose, &job.origin).await {
        Ok(caller) if caller.account == job.subject.account => Ok(CheckedCredential::Accepted(caller.rights.scopes)),
        Ok(_) => Ok(CheckedCredential::Refused(Failure::Unauthorized.answer("this login belongs to another account"))),
        Err(error) => status::answer_to_auth_error(error).map(CheckedCredential::Refused),
    }
}
