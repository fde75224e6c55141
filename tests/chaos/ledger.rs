//! The ledger: connections as their tenants know them from the answers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::answers::Answers;

/// A connection, by its tenant's number and its name.
pub(crate) type Key = (usize, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No login has succeeded yet.
    Unknown,
    Stored,
    /// Its deletion was answered with success.
    Deleted,
    /// A login or deletion was not answered, so it may be stored or not. No further change of it is made.
    Open,
}

/// A success that needs an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Success {
    pub(crate) event: &'static str,
    /// `None` for a deletion, whose answer has none.
    pub(crate) sequence: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) state: State,
    /// Of the newest answer.
    pub(crate) sequence: u64,
    pub(crate) token: String,
    pub(crate) successes: Vec<Success>,
    /// Changes that have begun.
    pub(crate) begun: usize,
    /// A change is under way.
    pub(crate) is_busy: bool,
}

#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) connections: BTreeMap<Key, Known>,
    pub(crate) answers: Answers,
    /// Statements that do not hold.
    pub(crate) faults: Vec<String>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            state: State::Unknown,
            sequence: 0,
            token: String::new(),
            successes: Vec::new(),
            begun: 0,
            is_busy: false,
        }
    }
}

impl Ledger {
    pub(crate) fn fault(&mut self, fault: String) {
        println!("FAULT: {fault}");
        self.faults.push(fault);
    }

    pub(crate) fn begin(&mut self, key: &Key) {
        let known = self.connections.entry(key.clone()).or_default();
        known.begun += 1;
        known.is_busy = true;
    }

    pub(crate) fn end(&mut self, key: &Key) {
        self.known(key).is_busy = false;
    }

    /// The entry of a connection whose change has begun.
    pub(crate) fn known(&mut self, key: &Key) -> &mut Known {
        self.connections.entry(key.clone()).or_default()
    }

    /// Enters a connection from an answer, with the event that the change needs.
    pub(crate) fn stored(&mut self, key: &Key, event: Option<&'static str>, body: &Value) {
        let (name, tenant) = (&key.1, key.0);
        let Some((sequence, token)) = sequence_and_token(body) else {
            return self.fault(format!("{tenant} {name}: no sequence or no token in {body}"));
        };
        if !is_of(key, &token) {
            self.fault(format!("{tenant} {name}: an answer has the token {token}"));
        }
        let known = self.known(key);
        let (before, is_as_new) = (known.sequence, sequence >= known.sequence);
        let is_new = sequence > known.sequence;
        known.state = State::Stored;
        (known.sequence, known.token) = (sequence, token);
        // A refresh may be answered with a record that is a moment old, whose event counts already.
        if let Some(event) = event
            && is_new
        {
            known.successes.push(Success { event, sequence: Some(sequence) });
        }
        if !is_as_new {
            self.fault(format!("{tenant} {name}: sequence {before} was answered, and later {sequence}"));
        }
    }
}

/// Returns true if the provider issued the token for that connection.
pub(crate) fn is_of((tenant, name): &Key, token: &str) -> bool {
    token.starts_with(&format!("at-t{tenant}-{name}-"))
}

pub(crate) fn sequence_and_token(body: &Value) -> Option<(u64, String)> {
    Some((body["sequence"].as_u64()?, body["access_token"].as_str()?.to_owned()))
}
