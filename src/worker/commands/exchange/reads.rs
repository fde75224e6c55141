//! What a callback is judged by.

use async_nats::jetstream::message::StreamMessage;

use crate::integration::IntegrationOauthConfig;
use crate::protocol::records;
use crate::store::{FoundLogin, StoreError};
use crate::subject::ConnectionKey;
use crate::worker::context::Context;

pub(super) struct Reads {
    /// The connection's newest record.
    pub(super) newest: Option<StreamMessage>,
    pub(super) login: FoundLogin,
    /// An error matters only to a pending login.
    pub(super) config: Result<Option<IntegrationOauthConfig>, StoreError>,
}

/// Reads the connection's record, the login and the config at the same time.
pub(super) async fn read(context: &Context, key: &ConnectionKey, state_hash: &str) -> Result<Reads, StoreError> {
    let subject = key.subject();
    let (newest, login, config) = tokio::join!(
        records::last(&context.nats, &subject),
        context.store.login(state_hash),
        context.store.config(&key.integration),
    );
    Ok(Reads { newest: newest?, login: login?, config })
}
