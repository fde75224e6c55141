//! Connections that share a grant.
//!
//! Many providers end all grants of an account when one of them is revoked. So each entry of a connection whose owner is known
//! has a mark: a keyed hash of the token endpoint's origin, the client and the owner. Before tokens are revoked, a worker looks
//! for another entry with the same mark.

use async_nats::HeaderMap;
use jiff::Timestamp;

use super::{Store, StoreError};
use crate::command::HEADER_IDENTITY;
use crate::connection::{StoredConnection, WaitingRevocation};
use crate::jetstream::{header, kv};
use crate::subject::{self, CONNECTIONS, ConnectionKey};

/// Headers read at once.
const CHUNK: usize = 500;

impl Store {
    /// Returns the marks of a connection's grant, by each key of the keyring; none if its owner is not known.
    fn grant_marks(&self, stored: &StoredConnection) -> Vec<String> {
        let (Some(identity), Some(origin)) = (&stored.connection.identity, stored.issued_at.token_origin()) else {
            return Vec::new();
        };
        let issuer = stored.issued_at.issuer.as_deref().unwrap_or_default();
        // None of the first three can hold a zero byte.
        self.keyring.marks(&format!("{origin}\0{issuer}\0{}\0{}", stored.issued_at.client_id, identity.id))
    }

    /// Returns the tokens of a connection that is deleted, or whose grant ends otherwise.
    pub(crate) fn tokens_to_revoke(&self, stored: &StoredConnection, since: Timestamp) -> WaitingRevocation {
        WaitingRevocation::of(stored, self.grant_marks(stored), since)
    }

    /// Adds the mark to an entry's headers.
    pub(super) fn mark_grant(&self, headers: &mut HeaderMap, stored: &StoredConnection) {
        if let Some(mark) = self.grant_marks(stored).first() {
            headers.insert(HEADER_IDENTITY, mark.as_str());
        }
    }

    /// Returns true if another connection has one of the marks. Reads the headers of all connections at the integrations that
    /// have the same client.
    pub(crate) async fn shares_grant(
        &self,
        key: &ConnectionKey,
        client_id: &str,
        marks: &[String],
    ) -> Result<bool, StoreError> {
        if marks.is_empty() {
            return Ok(false);
        }
        let own = key.kv_key();
        for integration in self.integrations_of(client_id).await? {
            let filter = subject::connections_at(&integration);
            let mut reader = kv::HeaderReader::start(&self.nats, CONNECTIONS, &filter).await?;
            while let Some(chunk) = reader.next_chunk(CHUNK).await? {
                let shares = |mark: &str| marks.iter().any(|own| own == mark);
                if chunk.iter().any(|entry| entry.key != own && shares(header(&entry.headers, HEADER_IDENTITY))) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}
