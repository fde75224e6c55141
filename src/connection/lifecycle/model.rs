//! A connection that the rules drive without a worker. Property tests check what may happen to it, and a test compares it with
//! a real worker.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Map;

use super::{Begin, Change, Failed, Meaning, Moment, NewGrant, Rules};
use crate::connection::{CONFIG_CHANGED, NO_CONFIG, RefreshFailure, Status, StoredConnection};
use crate::event::EventKind;
use crate::integration::IssuedAt;
use crate::oauth::token::TokenSet;
use crate::secret::Secret;

/// Seconds since 1970 at which a model begins. Any time will do.
const START: i64 = 1_000_000_000;

/// An answer of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// With a lifetime in seconds.
    Tokens(Option<i64>),
    InvalidGrant,
    InvalidClient,
    Down,
    Unclear,
}

/// The integration's config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelConfig {
    Fits,
    /// Of another client or origin.
    Other,
    Missing,
}

/// The state that tests compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub status: Status,
    pub reason: Option<String>,
    pub has_access_token: bool,
    pub has_refresh_token: bool,
}

impl Summary {
    #[must_use]
    pub fn of(stored: &StoredConnection) -> Self {
        let connection = &stored.connection;
        let failure = stored.refresh_failure.as_ref().filter(|_| connection.status == Status::Active);
        Self {
            status: connection.status,
            reason: failure.map(|failure| failure.reason.clone()).or_else(|| connection.status_reason.clone()),
            has_access_token: connection.access_token.is_some(),
            has_refresh_token: connection.refresh_token.is_some(),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Model {
    pub stored: StoredConnection,
    pub now: Timestamp,
    /// Requests with the refresh token.
    pub requests: usize,
    /// Names of the events, oldest first.
    pub events: Vec<&'static str>,
    config: ModelConfig,
    rules: Rules,
}

impl Model {
    /// A connection right after its login.
    #[must_use]
    pub fn connected(lifetime: Option<i64>, min_interval: Duration) -> Self {
        let now = Timestamp::from_second(START).unwrap_or(Timestamp::MAX);
        let give_up_after = Duration::from_hours(24);
        let rules = Rules { min_interval, give_up_after, default_expires_in: None, refresh_token_lifetime: None };
        let grant = NewGrant { subject: String::new(), issued_at: IssuedAt::default(), login_id: String::new() };
        let stored = super::connected(grant, tokens(lifetime, now), now, &rules);
        let mut model = Self { stored, now, requests: 0, events: Vec::new(), config: ModelConfig::Fits, rules };
        model.write(model.stored.clone());
        model
    }

    pub fn advance(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    }

    /// Stores a config. Connections that waited for one are refreshed at once; returns true if this one was.
    pub fn configure(&mut self, config: ModelConfig, reply: Reply) -> bool {
        self.config = config;
        let is_paused = self.stored.refresh_failure.as_ref().is_some_and(RefreshFailure::is_pause);
        let resumes = config != ModelConfig::Missing && is_paused && self.stored.connection.status == Status::Active;
        if resumes {
            self.refresh(false, reply);
        }
        resumes
    }

    /// Time at which the schedule fires.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.stored.next_due(self.now, self.rules.min_interval, 0.0)
    }

    /// Runs a refresh that is due, or that a caller asks for. `reply` is the provider's answer, if it is asked.
    pub fn refresh(&mut self, by_caller: bool, reply: Reply) {
        let moment = Moment { now: self.now, jitter: 0.0, by_caller, may_be_sent: false };
        loop {
            let stored = self.stored.clone();
            match super::begin(&stored, stored.connection.sequence, &moment, &self.rules) {
                Begin::Send(_) => return self.send(&stored, reply, &moment),
                Begin::AnswerFromState | Begin::Wait(_) | Begin::NoRefreshToken => return,
                Begin::Change(change) => {
                    let is_record = matches!(*change, Change::Record(_));
                    self.apply(*change);
                    if is_record {
                        return;
                    }
                }
            }
        }
    }

    fn send(&mut self, stored: &StoredConnection, reply: Reply, moment: &Moment) {
        let (meaning, reason) = match (self.config, reply) {
            (ModelConfig::Missing, _) => (Meaning::Paused, NO_CONFIG),
            (ModelConfig::Other, _) => (Meaning::Paused, CONFIG_CHANGED),
            (ModelConfig::Fits, Reply::Tokens(lifetime)) => {
                self.requests += 1;
                let new = super::renewed(stored.clone(), tokens(lifetime, self.now), self.now, &self.rules);
                return self.apply(Change::Record(new));
            }
            (ModelConfig::Fits, Reply::InvalidGrant) => (Meaning::DeadGrant, "invalid_grant"),
            (ModelConfig::Fits, Reply::InvalidClient) => (Meaning::ClientRefused, "invalid_client"),
            (ModelConfig::Fits, Reply::Down) => (Meaning::Temporary, "provider_error"),
            (ModelConfig::Fits, Reply::Unclear) => (Meaning::Unclear, "unreadable_answer"),
        };
        if meaning != Meaning::Paused {
            self.requests += 1;
        } else if stored.connection.status != Status::Active {
            return;
        }
        let failed = Failed { meaning, reason: reason.to_owned(), status: 400, retry_after: None };
        self.apply(super::conclude(stored, &failed, moment, &self.rules));
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Record(stored) => {
                self.events.push(stored.event().as_str());
                self.write(stored);
            }
            Change::Notes { stored, event } => {
                self.events.extend(event.map(EventKind::as_str));
                self.stored = stored;
            }
        }
    }

    fn write(&mut self, mut stored: StoredConnection) {
        stored.connection.sequence += 1;
        stored.connection.modified = u64::try_from(self.now.as_second()).unwrap_or(0);
        self.stored = stored;
    }
}

/// Tokens of an answer, with a lifetime in seconds or without.
pub(super) fn tokens(lifetime: Option<i64>, now: Timestamp) -> TokenSet {
    let tokens = TokenSet {
        access_token: Secret::new("at"),
        token_type: "Bearer".to_owned(),
        refresh_token: Some(Secret::new("rt")),
        expires_in: None,
        expiry: None,
        refresh_token_expiry: None,
        scope: None,
        identity: None,
        id_token: None,
        metadata: Map::new(),
        left_out: Vec::new(),
    };
    tokens.or_lifetime(lifetime, now)
}
