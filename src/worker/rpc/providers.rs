//! The calls `providers` and `provider`. Workers answer them, because the operator's own profiles are files on their
//! machines.

use serde::Deserialize;
use serde_json::{Value, json};
use tracing::warn;

use super::CallError;
use super::status::Failure;
use crate::provider::profiles::{ProfileError, Profiles};
use crate::system::TimeSlice;
use crate::telemetry::describe_error;
use crate::worker::context::Context;

/// Lists all profiles. One whose file is not valid has its error instead of its name.
pub(super) async fn list(context: &Context) -> Result<Value, CallError> {
    let profiles = profiles(context);
    let (mut results, mut slice) = (Vec::new(), TimeSlice::begin());
    let ids = match profiles.ids().await {
        Ok(ids) => Ok(ids),
        Err(error) => {
            warn!("{}", describe_error(&error));
            profiles.built_in().ids().await
        }
    };
    for id in ids.map_err(|error| refused(&error))? {
        results.push(match profiles.find(id.as_str()).await {
            Ok(profile) => json!(profile.summary()),
            Err(error) => json!({ "id": id, "error": error.to_string() }),
        });
        slice.pause().await;
    }
    let total = results.len();
    Ok(json!({ "results": results, "results_total": total }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderQuestion {
    provider: String,
}

pub(super) async fn get(context: &Context, question: &ProviderQuestion) -> Result<Value, CallError> {
    let mut profile = profiles(context).find(&question.provider).await.map_err(|error| refused(&error))?;
    profile.hide_secrets();
    Ok(json!(profile))
}

fn profiles(context: &Context) -> Profiles<'_> {
    Profiles::new(&context.config.oauth)
}

fn refused(error: &ProfileError) -> CallError {
    match error {
        ProfileError::Unknown => CallError::Refused(Failure::NotFound, "no profile with that id".to_owned()),
        ProfileError::Invalid { .. } | ProfileError::Folder(_) | ProfileError::Asked { .. } => {
            warn!("{}", describe_error(error));
            CallError::Refused(Failure::BadRequest, error.to_string())
        }
    }
}
