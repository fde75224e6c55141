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

/// Between the marks in a header.
const SEPARATOR: &str = " ";

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

    /// Adds the marks to an entry's headers: by each key, because a tombstone keeps the marks of the keys at its deletion.
    pub(super) fn mark_grant(&self, headers: &mut HeaderMap, stored: &StoredConnection) {
        let marks = self.grant_marks(stored);
        if !marks.is_empty() {
            headers.insert(HEADER_IDENTITY, marks.join(SEPARATOR));
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
                let shares = |found: &str| found.split(SEPARATOR).any(|mark| marks.iter().any(|own| own == mark));
                if chunk.iter().any(|entry| entry.key != own && shares(header(&entry.headers, HEADER_IDENTITY))) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Returns true if the marks are of two grants. False if that is unknown: if no key has made marks of both.
pub(crate) fn are_of_different_grants(one: &[String], other: &[String]) -> bool {
    let key = |mark: &str| mark.split_once('.').map(|(key, _)| key.to_owned());
    let have_same_key = one.iter().any(|one| other.iter().any(|other| key(one) == key(other)));
    have_same_key && one.iter().all(|mark| !other.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h13_marks_of_different_keys_say_nothing_about_two_grants() {
        let check = |one: &[&str], other: &[&str], expected: bool| {
            let marks = |marks: &[&str]| marks.iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(are_of_different_grants(&marks(one), &marks(other)), expected, "{one:?} {other:?}");
        };
        check(&["k1.a"], &["k1.b"], true);
        check(&["k1.a"], &["k1.a"], false);
        check(&["k1.a"], &["k2.b"], false);
        check(&["k2.c", "k1.a"], &["k1.a"], false);
        check(&["k2.c", "k1.a"], &["k2.d"], true);
        check(&[], &["k1.a"], false);
        check(&["k1.a"], &[], false);
    }
}
