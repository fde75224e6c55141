//! The share of its `max_bytes` that each stream uses.

use crate::jetstream::{Nats, NatsError};
use crate::subject::{API_KEYS, CONFIGS, CONNECTIONS, META, NONCES, OAUTH, OAUTH_COMMANDS, STATES, kv_stream};

/// Share of `max_bytes` above which an operator should act.
const NEARLY_FULL: f64 = 0.8;

#[derive(Debug, Clone)]
pub(crate) struct StreamUse {
    pub stream: String,
    /// From 0 to 1.
    pub share: f64,
}

impl StreamUse {
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.share > NEARLY_FULL
    }
}

/// The streams without which new tokens cannot be stored.
pub(crate) fn needed_for_tokens() -> [String; 2] {
    [OAUTH.to_owned(), kv_stream(CONNECTIONS)]
}

/// The streams that refuse messages when they are full. Those of events and dead letters drop the oldest instead.
pub(crate) fn limited() -> Vec<String> {
    let buckets = [CONNECTIONS, STATES, CONFIGS, API_KEYS, META, NONCES].map(kv_stream);
    [OAUTH, OAUTH_COMMANDS].map(str::to_owned).into_iter().chain(buckets).collect()
}

/// Returns how full these streams are. Leaves out those that are missing or have no limit.
pub(crate) async fn used(nats: &Nats, streams: &[String]) -> Result<Vec<StreamUse>, NatsError> {
    nats.require_connected()?;
    let mut found = Vec::new();
    for stream in streams {
        let Some(info) = nats.stream_info(stream).await? else { continue };
        let Some(most) = u64::try_from(info.config.max_bytes).ok().filter(|most| *most > 0) else { continue };
        #[expect(clippy::cast_precision_loss, reason = "a share needs no exact numbers")]
        let share = info.state.bytes as f64 / most as f64;
        found.push(StreamUse { stream: stream.clone(), share });
    }
    Ok(found)
}
