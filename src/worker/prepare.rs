//! What a worker needs before it takes its first command: permissions, streams and buckets, consumers, keys.

use crate::config::Config;
use crate::protocol::permissions::{self, PermissionError};
use crate::protocol::topology::{self, TopologyError};
use crate::store::StoreError;
use crate::subject::permission;
use crate::worker::background::queues;
use crate::worker::context::Context;

/// Failed start of a worker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error(transparent)]
    Permission(#[from] PermissionError),
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A subscription to calls was refused or ended.
    #[error("cannot serve calls: {0}")]
    Calls(#[source] async_nats::Error),
}

impl PrepareError {
    /// Returns true if trying again cannot help, so that the worker ends.
    #[must_use]
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Topology(
                TopologyError::Incompatible { .. }
                | TopologyError::Resizable { .. }
                | TopologyError::TooOld { .. }
                | TopologyError::Backwards(_),
            )
            | Self::Permission(PermissionError::Missing { .. })
            | Self::Calls(_) => true,
            Self::Store(error) => error.prevents_start(),
            Self::Topology(_) | Self::Permission(PermissionError::Away(_)) => false,
        }
    }
}

/// Checks permissions, declares streams, buckets and consumers, and writes down which sealing keys are in use.
pub(crate) async fn prepare(context: &Context) -> Result<(), PrepareError> {
    let Context { nats, store, config, .. } = context;
    permissions::check(nats, permission::needed_by_worker(&config.nats.inbox_prefix())).await?;
    // The server may have lost a queue, and all schedules with it.
    if topology::declare(nats, sizes(config)).await? {
        context.wakeups.report_lost_queue();
    }
    queues::make_ready(nats).await?;
    Ok(store.claim_keys().await?)
}

pub(super) fn sizes(config: &Config) -> topology::Sizes {
    topology::Sizes { replicas: config.nats.replicas, login_ttl: config.oauth.login_ttl }
}
