//! Connections that share a grant.
//!
//! Many providers end all grants of an identity when one of them is revoked. So each entry of a connection whose identity is
//! known has a mark: a keyed hash of the token URL, the issuer, the client and the id. Before tokens are revoked, a worker looks for
//! another entry with the same mark.

use async_nats::HeaderMap;
use jiff::Timestamp;

use super::{Store, StoreError};
use crate::command::HEADER_IDENTITY;
use crate::connection::{StoredConnection, WaitingRevocation};
use crate::jetstream::{header, kv};
use crate::subject::{CONNECTIONS, ConnectionKey};

/// Between the marks in a header.
const SEPARATOR: &str = " ";

/// Headers read at once.
const CHUNK: usize = 500;

impl Store {
    /// Returns the tokens of a connection that is deleted, or whose grant ends otherwise. Their marks have both forms: an entry
    /// has the earlier one until its connection is next stored.
    pub(crate) fn tokens_to_revoke(&self, stored: &StoredConnection, since: Timestamp) -> WaitingRevocation {
        let texts = stored.issued_identity().and_then(|identity| identity.texts()).into_iter().flatten();
        WaitingRevocation::of(stored, texts.flat_map(|text| self.keyring.marks(&text)).collect(), since)
    }

    /// Adds the marks to an entry's headers: by each key, because a tombstone keeps the marks of the keys at its deletion.
    pub(super) fn mark_grant(&self, headers: &mut HeaderMap, stored: &StoredConnection) {
        if let Some([text, _]) = stored.issued_identity().and_then(|identity| identity.texts()) {
            headers.insert(HEADER_IDENTITY, self.keyring.marks(&text).join(SEPARATOR));
        }
    }

    /// Returns true if another connection has one of the marks. Reads the headers of all connections: an integration may have
    /// connections of a client that its config no longer has, or no config at all.
    pub(crate) async fn shares_grant(&self, key: &ConnectionKey, marks: &[String]) -> Result<bool, StoreError> {
        if marks.is_empty() {
            return Ok(false);
        }
        let own = key.kv_key();
        let mut reader = kv::HeaderReader::start(&self.nats, CONNECTIONS, ">").await?;
        while let Some(chunk) = reader.next_chunk(CHUNK).await? {
            let shares = |found: &str| found.split(SEPARATOR).any(|mark| marks.iter().any(|own| own == mark));
            if chunk.iter().any(|entry| entry.key != own && shares(header(&entry.headers, HEADER_IDENTITY))) {
                return Ok(true);
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
