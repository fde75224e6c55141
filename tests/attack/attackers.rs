//! The attackers.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::interval;

use crate::fleet::Fleet;
use crate::support::tokenbus::ACCOUNT;
use crate::wire::Wire;

/// A header block whose value holds a lone carriage return: async-nats 0.51 panics at it.
const LONE_CR: &str = "NATS/1.0\r\nx: a\rb\r\n\r\n";

#[derive(Default)]
pub(crate) struct Attackers {
    /// By attack: messages or requests sent, and those of them that were refused.
    counts: Mutex<BTreeMap<&'static str, [usize; 2]>>,
}

/// A message that an attacker sends again and again.
struct Flood {
    name: &'static str,
    /// The attacker's NATS user.
    user: &'static str,
    message: String,
    /// Sent together at each tick of the pace.
    times: usize,
    pace: Duration,
}

impl Attackers {
    /// All attackers at once. Never returns; the caller drops the future.
    pub(crate) async fn attack(&self, fleet: &Fleet) {
        let calls = Flood {
            name: "tenant: malformed headers",
            user: "demo",
            message: malformed(&format!("ms.oauth.{ACCOUNT}.token")),
            times: 20,
            pace: Duration::from_millis(20),
        };
        tokio::join!(self.flood(fleet, calls));
    }

    pub(crate) fn print(&self) {
        println!("\n{:<36}{:>8}{:>8}", "attack", "sent", "refused");
        for (name, [sent, refused]) in &*self.counts.lock().expect("no panic with the lock") {
            println!("{name:<36}{sent:>8}{refused:>8}");
        }
    }

    fn count(&self, name: &'static str, sent: usize, refused: usize) {
        let mut counts = self.counts.lock().expect("no panic with the lock");
        let count = counts.entry(name).or_default();
        *count = [count[0] + sent, count[1] + refused];
    }

    async fn flood(&self, fleet: &Fleet, flood: Flood) {
        let mut wire = Wire::connect(&fleet.nats, flood.user).await;
        let mut pace = interval(flood.pace);
        let messages = flood.message.repeat(flood.times);
        loop {
            pace.tick().await;
            let output = wire.send_text(&messages).await;
            self.count(flood.name, flood.times, output.iter().filter(|line| line.starts_with("-ERR")).count());
        }
    }
}

/// A request with malformed headers.
fn malformed(subject: &str) -> String {
    let (head, all) = (LONE_CR.len(), LONE_CR.len() + "{}".len());
    format!("HPUB {subject} _INBOX.x {head} {all}\r\n{LONE_CR}{{}}\r\n")
}
