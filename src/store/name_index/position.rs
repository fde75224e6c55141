//! Compares the watch with the bucket's leader.

use std::time::{Duration, Instant};

use super::{NameIndex, Watch};
use crate::jetstream::{NatsError, REQUEST_TIMEOUT};
use crate::subject::{CONNECTIONS, kv_stream};

/// Time without a change after which a missing one may have been replaced before its delivery.
const QUIET: Duration = Duration::from_millis(20);
/// Most messages that are looked up for that. More arrive while the bucket is written, and then the watch moves on.
const LOOKED_UP: usize = 16;

impl NameIndex {
    /// Starts the watch if it does not run. Returns false if it cannot run.
    pub(super) async fn is_watching(&self) -> bool {
        let mut news = self.0.news.subscribe();
        {
            let mut state = self.lock();
            if state.watch == Watch::Off {
                state.watch = Watch::Wanted;
                self.0.wanted.notify_one();
            }
        }
        let begun = async {
            loop {
                news.mark_unchanged();
                match self.lock().watch {
                    Watch::On { .. } => return true,
                    Watch::Off => return false,
                    Watch::Wanted => {}
                }
                if news.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(REQUEST_TIMEOUT, begun).await.unwrap_or(false)
    }

    /// Waits until the names hold everything that the bucket's leader has stored by now. Returns false if the watch ends or is
    /// too slow.
    pub(super) async fn has_caught_up(&self) -> Result<bool, NatsError> {
        let mut news = self.0.news.subscribe();
        let Some(stream) = self.0.nats.stream_state(&kv_stream(CONNECTIONS)).await? else { return Ok(false) };
        let began = Instant::now();
        while began.elapsed() < REQUEST_TIMEOUT {
            news.mark_unchanged();
            let Watch::On { position } = self.lock().watch else { return Ok(false) };
            if position >= stream.last_sequence {
                return Ok(true);
            }
            if tokio::time::timeout(QUIET, news.changed()).await.is_err() {
                self.skip_replaced(position, stream.last_sequence).await?;
            }
        }
        Ok(false)
    }

    /// Moves the position past messages that were replaced before the watch could deliver them.
    async fn skip_replaced(&self, position: u64, last: u64) -> Result<(), NatsError> {
        for sequence in (position + 1..=last).take(LOOKED_UP) {
            if self.0.nats.holds(&kv_stream(CONNECTIONS), sequence).await? {
                return Ok(());
            }
            let mut state = self.lock();
            if state.watch == (Watch::On { position: sequence - 1 }) {
                state.watch = Watch::On { position: sequence };
            }
        }
        Ok(())
    }
}
