//! Worker: takes commands off the queue and answers calls.
//!
//! A command goes from [`consumer`] (pull) to [`delivery`] (run, answer, ack), which calls the verb's file in [`commands`].
//! Each verb's file has the order of the verb's steps; [`apply`] has the steps after a connection's record.

mod apply;
pub(crate) mod background;
mod clock;
mod commands;
mod consumer;
pub(crate) mod context;
mod copies;
mod delivery;
mod hint;
mod hold;
mod job;
mod late_tokens;
mod lease;
mod left_out;
mod prepare;
mod provider_calls;
mod restart;
pub(crate) mod rpc;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::background::{due, periodic_checks, queues, repair, room, webhooks};
use self::context::Context;
pub(crate) use self::prepare::{PrepareError, prepare};
use crate::jetstream::ConnectError;
use crate::protocol::commands as queue;
use crate::provider::profiles::Profiles;
use crate::subject::Verb;

/// Runs until `stop` is cancelled, then takes no more commands and waits for those in progress.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) -> Result<(), ConnectError> {
    Profiles::new(&context.config.oauth).log_invalid().await;
    let tasks = TaskTracker::new();
    let (pulling, pulls) = queue::pulls(&context.nats, &context.config.nats)?;
    tasks.spawn(pulling.run(stop.clone()));
    for of_verb in Verb::ALL.into_iter().zip(pulls) {
        tasks.spawn(consumer::run(Arc::clone(&context), of_verb, stop.clone()));
    }
    for receiver in &context.receivers {
        tasks.spawn(webhooks::run(Arc::clone(&context), Arc::clone(receiver), stop.clone()));
    }
    tasks.spawn(queues::run(Arc::clone(&context), stop.clone()));
    tasks.spawn(due::run(Arc::clone(&context), stop.clone()));
    tasks.spawn(repair::run(Arc::clone(&context), stop.clone()));
    tasks.spawn(room::run(Arc::clone(&context), stop.clone()));
    tasks.spawn(periodic_checks::run(context, stop));
    tasks.close();
    tasks.wait().await;
    Ok(())
}
