//! Counts of answers, and the longest gap of service, for each kind of request.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Login,
    Callback,
    Refresh,
    Deletion,
    Read,
    List,
    ConfigPut,
    ConfigDeletion,
    /// A callback with the provider's refusal.
    Denied,
    /// A callback without a state, or with an unknown one.
    Malformed,
    ApiKeyPost,
    ApiKeyDeletion,
    ApiKeyList,
    BusRead,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Callback => "callback",
            Self::Refresh => "refresh",
            Self::Deletion => "deletion",
            Self::Read => "read",
            Self::List => "list",
            Self::ConfigPut => "config: put",
            Self::ConfigDeletion => "config: delete",
            Self::Denied => "denied callback",
            Self::Malformed => "bad callback",
            Self::ApiKeyPost => "key: post",
            Self::ApiKeyDeletion => "key: delete",
            Self::ApiKeyList => "key: list",
            Self::BusRead => "read on the bus",
        }
    }
}

/// Service of one kind of request.
struct Service {
    answers: BTreeMap<String, usize>,
    last_success: Instant,
    longest_gap: Duration,
    longest_answer: Duration,
}

/// A read of a connection that was deleted, or whose login is under way, is answered with 404. Denied and bad callbacks are refused.
fn is_success(kind: Kind, answer: &str) -> bool {
    match kind {
        Kind::Denied => answer == "400",
        Kind::Malformed => matches!(answer, "400" | "401"),
        Kind::Read | Kind::BusRead => matches!(answer, "200" | "404"),
        Kind::Login
        | Kind::Callback
        | Kind::Refresh
        | Kind::Deletion
        | Kind::List
        | Kind::ConfigPut
        | Kind::ConfigDeletion
        | Kind::ApiKeyPost
        | Kind::ApiKeyDeletion
        | Kind::ApiKeyList => answer == "200",
    }
}

#[derive(Default)]
pub(crate) struct Answers {
    by_kind: BTreeMap<Kind, Service>,
    /// Requests sent again because no process listened at the gateway's address.
    pub(crate) retried_connects: usize,
    /// The faults are over, and gaps are not counted any more.
    is_over: bool,
}

impl Answers {
    /// Ends the measurement of gaps. A kind of request that is without service now has its gap until now.
    pub(crate) fn end(&mut self) {
        self.is_over = true;
        for service in self.by_kind.values_mut() {
            service.longest_gap = service.longest_gap.max(service.last_success.elapsed());
        }
    }

    pub(crate) fn note(&mut self, kind: Kind, answer: &str, took: Duration) {
        let is_success = is_success(kind, answer);
        let now = Instant::now();
        let service = self.by_kind.entry(kind).or_insert_with(|| Service {
            answers: BTreeMap::new(),
            last_success: now,
            longest_gap: Duration::ZERO,
            longest_answer: Duration::ZERO,
        });
        service.longest_answer = service.longest_answer.max(took);
        *service.answers.entry(answer.to_owned()).or_default() += 1;
        if is_success && !self.is_over {
            service.longest_gap = service.longest_gap.max(now.duration_since(service.last_success));
            service.last_success = now;
        }
    }

    /// Number of requests.
    pub(crate) fn count(&self) -> usize {
        self.by_kind.values().flat_map(|service| service.answers.values()).sum()
    }

    /// Number of answers that are no success.
    pub(crate) fn failed(&self) -> usize {
        let all = self.by_kind.iter().flat_map(|(kind, service)| service.answers.iter().map(move |it| (*kind, it)));
        all.filter(|(kind, (answer, _))| !is_success(*kind, answer)).map(|(_, (_, number))| number).sum()
    }

    /// The longest time from a request of that kind to its answer.
    pub(crate) fn longest_answer(&self, kind: Kind) -> Duration {
        self.by_kind.get(&kind).map(|service| service.longest_answer).unwrap_or_default()
    }

    /// All requests, and the longest gap of each kind of request.
    pub(crate) fn summary(&self) -> String {
        let number = self.count();
        let gaps = self
            .by_kind
            .iter()
            .map(|(kind, service)| format!("{} {:.1}", kind.name(), service.longest_gap.as_secs_f64()));
        format!("{number} requests, longest gaps in s: {}", gaps.collect::<Vec<_>>().join(", "))
    }

    /// Number of answers 200 of that kind.
    pub(crate) fn successes(&self, kind: Kind) -> usize {
        self.by_kind.get(&kind).and_then(|service| service.answers.get("200")).copied().unwrap_or_default()
    }

    /// Answers that are no success, with their numbers.
    pub(crate) fn failures(&self) -> Vec<String> {
        let all = self.by_kind.iter().flat_map(|(kind, service)| {
            let failed = service.answers.iter().filter(|(answer, _)| !is_success(*kind, answer));
            failed.map(|(answer, number)| format!("{}: {answer}, {number} times", kind.name()))
        });
        all.collect()
    }

    pub(crate) fn print(&self) {
        println!("\n{:<16}{:>10}  answers", "route", "gap in ms");
        for (kind, service) in &self.by_kind {
            let answers: Vec<String> =
                service.answers.iter().map(|(code, number)| format!("{code}: {number}")).collect();
            println!("{:<16}{:>10}  {}", kind.name(), service.longest_gap.as_millis(), answers.join(", "));
        }
        println!("retried connects: {}", self.retried_connects);
    }
}
