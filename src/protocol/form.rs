//! The form of what is stored. `tokenbus setup` migrates a store to the form of this release.

use crate::jetstream::{Nats, NatsError, kv};
use crate::subject::{META, META_FORM, kv_stream};

/// The form that this release reads and writes. In form 1 only secrets were sealed; in form 2 each value is sealed as a whole.
const FORM: u32 = 2;

#[derive(Debug, thiserror::Error)]
pub(crate) enum FormError {
    #[error("stored values have an older form: stop all workers, then run `tokenbus setup` with the keyring")]
    Older,
    #[error("stored values have form {found}, and this release knows form {FORM}: install a newer release")]
    Newer { found: u32 },
    #[error(transparent)]
    Nats(#[from] NatsError),
}

impl FormError {
    /// Returns true if trying again cannot help.
    pub(crate) fn is_permanent(&self) -> bool {
        matches!(self, Self::Older | Self::Newer { .. })
    }
}

/// Checks that stored values have the form of this release. A form that cannot be read counts as older: migrating values of
/// the newest form changes nothing.
pub(crate) async fn check(nats: &Nats) -> Result<(), FormError> {
    if nats.stream_state(&kv_stream(META)).await?.is_none() {
        return Err(FormError::Older);
    }
    let value = kv::get(nats, META, META_FORM).await?.and_then(|entry| entry.value);
    match value.and_then(|value| serde_json::from_slice::<u32>(&value).ok()) {
        Some(FORM) => Ok(()),
        Some(found) if found > FORM => Err(FormError::Newer { found }),
        Some(_) | None => Err(FormError::Older),
    }
}

/// Returns true if no form is stored. The bucket must exist.
pub(crate) async fn is_missing(nats: &Nats) -> Result<bool, NatsError> {
    Ok(kv::get(nats, META, META_FORM).await?.is_none_or(|entry| entry.value.is_none()))
}

/// Stores the form of this release.
pub(crate) async fn set(nats: &Nats) -> Result<(), NatsError> {
    let replaces = kv::get(nats, META, META_FORM).await?.map_or(0, |entry| entry.revision);
    match kv::put(nats, META, META_FORM, FORM.to_string().into(), replaces).await {
        // Another process has stored it meanwhile.
        Ok(()) | Err(NatsError::WrongLastSequence) => Ok(()),
        Err(error) => Err(error),
    }
}
