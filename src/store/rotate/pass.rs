//! One pass over the records and entries that were stored since the previous pass.

use async_nats::jetstream::Message;
use futures_util::{StreamExt as _, stream};
use tracing::warn;

use super::{POLL_INTERVAL, RotateError, Rotation, Step};
use crate::command::HEADER_SEALED_REFRESH;
use crate::jetstream::reader::{Parts, Reader, Stored};
use crate::jetstream::{NatsError, header, kv};
use crate::store::{Store, StoreError};
use crate::subject::{self, CONFIGS, CONNECTIONS, OAUTH, kv_stream, kv_subject};

/// Messages processed in parallel. Each costs a few requests to the server, so this hides their latency.
const CONCURRENCY: usize = 32;
/// Tries of one message while the bus is not available, a second apart: a server that restarts is back by then.
const MAX_TRIES: u32 = 60;

/// Sequences up to which the streams were read.
#[derive(Clone, Copy, Default)]
pub(super) struct Progress {
    records: u64,
    connections: u64,
    configs: u64,
}

/// The work that a message may need.
enum Work {
    CatchUp { record: String, sealed: String, sequence: u64 },
    Reseal { bucket: &'static str, entry: kv::Entry },
}

impl Rotation<'_> {
    /// Reads the records first: an entry that catches up with its record is written with the sealing key.
    pub(super) async fn pass(&mut self) -> Result<(), RotateError> {
        let Progress { records, connections, configs } = self.progress;
        let catch_up = |sequence, message: Message| {
            let sealed = message.headers.as_ref().map_or("", |headers| header(headers, HEADER_SEALED_REFRESH));
            Work::CatchUp { record: message.subject.to_string(), sealed: sealed.to_owned(), sequence }
        };
        let records = self.walk(OAUTH, subject::RECORDS_STORED, records, catch_up).await?;
        let connections = self.reseal(CONNECTIONS, connections).await?;
        let configs = self.reseal(CONFIGS, configs).await?;
        self.progress = Progress { records, connections, configs };
        Ok(())
    }

    async fn reseal(&mut self, bucket: &'static str, after: u64) -> Result<u64, RotateError> {
        let reseal = |revision, message| Work::Reseal { bucket, entry: kv::entry_of(bucket, revision, message) };
        self.walk(&kv_stream(bucket), &kv_subject(bucket, ">"), after, reseal).await
    }

    /// Does the work of all messages after a sequence. Returns the sequence of the last one.
    async fn walk(
        &mut self,
        stream: &str,
        subjects: &str,
        after: u64,
        work: impl Fn(u64, Message) -> Work,
    ) -> Result<u64, RotateError> {
        let (store, show) = (self.store, self.show);
        let state = store.nats.stream_state(stream).await?;
        let Some(reader) = Reader::through(&store.nats, stream, subjects, after, Parts::All).await? else {
            return Ok(after);
        };
        show(Step::Begins(stream, state.map_or(0, |state| state.messages.min(state.last_sequence - after))));
        let messages = stream::unfold(reader, async |mut reader| match reader.next().await {
            Ok(None) => None,
            Ok(Some(message)) => Some((Ok(message), reader)),
            Err(error) => Some((Err(error), reader)),
        });
        let work = &work;
        let mut done = std::pin::pin!(
            messages
                .map(async |message: Result<Stored, NatsError>| {
                    let Stored { sequence, message } = message?;
                    let what = message.subject.to_string();
                    let outcome = work_with_retries(store, &work(sequence, message)).await;
                    Ok::<_, NatsError>((sequence, what, outcome))
                })
                .buffered(CONCURRENCY)
        );
        let mut last = after;
        while let Some(next) = done.next().await {
            let (sequence, what, outcome) = next?;
            show(Step::Done);
            last = sequence;
            match outcome {
                Ok(false) => {}
                Ok(true) if stream == OAUTH => self.done.caught_up += 1,
                Ok(true) => self.done.resealed += 1,
                // An entry that cannot be opened must not hold up the others.
                Err(error @ (StoreError::Seal { .. } | StoreError::Unreadable { .. })) => {
                    warn!("entry not re-sealed: {error}");
                    self.failures.push(what);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(last)
    }
}

/// Does the work, and tries again while the bus is not available. Returns true if the work was needed.
async fn work_with_retries(store: &Store, work: &Work) -> Result<bool, StoreError> {
    let mut tries = 0;
    loop {
        let done = match work {
            Work::CatchUp { record, sealed, sequence } => store.catch_up(record, sealed, *sequence).await,
            Work::Reseal { bucket, entry } => store.reseal(bucket, entry.clone()).await,
        };
        match done {
            Err(StoreError::Nats(error)) if error.is_unavailable() && tries < MAX_TRIES => {
                tries += 1;
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            other => return other,
        }
    }
}
