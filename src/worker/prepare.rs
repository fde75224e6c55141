//! Preparation of a worker before its first command: permissions, streams and buckets, consumers, keys.

use std::sync::atomic::Ordering;

use tracing::{error, warn};

use crate::config::Config;
use crate::jetstream::{ConnectError, Nats};
use crate::protocol::commands as queue;
use crate::protocol::origin;
use crate::protocol::permissions::{self, PermissionError};
use crate::protocol::records::{LARGEST_MESSAGE, longest_token};
use crate::protocol::topology::{self, TopologyError};
use crate::store::StoreError;
use crate::subject::{Verb, permission};
use crate::worker::background::{repair, room};
use crate::worker::clock;
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
    #[error("cannot serve calls: {0}")]
    Calls(#[source] ConnectError),
    /// The subscription to answers was refused or ended.
    #[error("cannot receive answers: {0}")]
    Answers(#[source] async_nats::Error),
}

impl PrepareError {
    /// Returns true if trying again cannot help, so that the worker ends.
    #[must_use]
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Topology(
                TopologyError::Incompatible { .. }
                | TopologyError::NoRoom { .. }
                | TopologyError::NotStandalone { .. }
                | TopologyError::Resizable { .. }
                | TopologyError::TooOld { .. }
                | TopologyError::Backwards(_),
            )
            | Self::Permission(PermissionError::Missing { .. })
            | Self::Calls(_)
            | Self::Answers(_) => true,
            Self::Topology(TopologyError::Form(error)) => error.is_permanent(),
            Self::Store(error) => error.prevents_start(),
            Self::Topology(_) | Self::Permission(PermissionError::Away(_)) => false,
        }
    }
}

/// Checks permissions, declares streams, buckets and consumers, writes down which sealing keys are in use, and repairs a store
/// that was restored from a backup.
pub(crate) async fn prepare(context: &Context) -> Result<(), PrepareError> {
    let Context { nats, store, config, .. } = context;
    permissions::check(nats, permission::needed_by_worker(&config.nats.inbox_prefix())).await?;
    clock::read(context).await.map_err(StoreError::from)?;
    // The server may have lost a queue, and all schedules with it.
    if topology::declare(nats, sizes(config)).await? {
        context.wakeups.report_lost_queue();
    }
    if config.nats.replicas == 1 {
        nats.read_directly();
    }
    look_for_restart(context).await?;
    check_max_payload(nats);
    if let Err(error) = origin::check(nats).await.map_err(StoreError::from)? {
        context.data_is_gone.store(true, Ordering::Relaxed);
        error!("{error}");
    }
    room::look(context).await.map_err(StoreError::from)?;
    make_ready(context).await?;
    store.claim_keys().await?;
    Ok(repair::after_restore(context).await?)
}

/// Logs that the server does not take messages with the largest tokens.
pub(super) fn check_max_payload(nats: &Nats) {
    let bytes = nats.max_payload();
    match longest_token(bytes) {
        0 => error!(
            "`max_payload` of nats-server is {bytes} bytes: no token can be stored; raise it to its default, 1MB"
        ),
        most if bytes < LARGEST_MESSAGE => {
            warn!("`max_payload` of nats-server is {bytes} bytes: access tokens over {most} bytes cannot be stored");
        }
        _ => {}
    }
}

pub(super) fn sizes(config: &Config) -> topology::Sizes {
    topology::Sizes::of(config)
}

/// Looks whether the server may have lost commands and schedules since any worker was connected.
pub(super) async fn look_for_restart(context: &Context) -> Result<(), TopologyError> {
    if context.restarts.look(&context.nats, sizes(&context.config)).await? {
        let left = context.restarts.hold_left(context.clock.now()).unwrap_or_default();
        if !left.is_zero() {
            let seconds = left.as_secs();
            warn!("the NATS server was restarted and may have lost commands; no refresh token is sent for {seconds} s");
        }
        context.wakeups.report_restart();
    }
    Ok(())
}

/// Creates the consumers.
pub(super) async fn make_ready(context: &Context) -> Result<(), StoreError> {
    for verb in Verb::ALL {
        queue::declare_consumer(&context.nats, verb).await?;
    }
    Ok(())
}
