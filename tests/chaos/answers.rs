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
        }
    }
}

/// Service of one kind of request.
struct Service {
    answers: BTreeMap<String, usize>,
    last_success: Instant,
    longest_gap: Duration,
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

    pub(crate) fn note(&mut self, kind: Kind, answer: &str) {
        // A read of a connection that was deleted, or whose login failed, is answered with 404.
        let is_success = answer == "200" || (kind == Kind::Read && answer == "404");
        let now = Instant::now();
        let service = self.by_kind.entry(kind).or_insert_with(|| Service {
            answers: BTreeMap::new(),
            last_success: now,
            longest_gap: Duration::ZERO,
        });
        *service.answers.entry(answer.to_owned()).or_default() += 1;
        if is_success && !self.is_over {
            service.longest_gap = service.longest_gap.max(now.duration_since(service.last_success));
            service.last_success = now;
        }
    }

    /// Number of answers 200 of that kind.
    pub(crate) fn successes(&self, kind: Kind) -> usize {
        self.by_kind.get(&kind).and_then(|service| service.answers.get("200")).copied().unwrap_or_default()
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
