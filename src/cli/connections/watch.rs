//! `connections watch`: what expires, is refreshed and fails, as it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::bail;
use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::Calls;
use super::show;
use crate::cli::print::{self, say};
use crate::client::{connects, parse_push};
use crate::connection::{OauthConnection, Status};
use crate::event::EventKind;
use crate::subject::{self, Integration};
use crate::system;

/// Lines beside the rows of the table: title, header, what is left out, and the cursor's.
const BESIDE: usize = 5;
/// Where the terminal does not say how large it is.
const TERMINAL: (u16, u16) = (80, 24);
/// How often times left are drawn anew.
const REDRAW: Duration = Duration::from_secs(1);
/// Clears the terminal, its cursor at the top.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What is known of one connection.
#[derive(Debug, Default)]
struct Row {
    status: &'static str,
    expiry: Option<Timestamp>,
    sequence: u64,
    last: String,
}

/// All of them, by integration and name.
#[derive(Debug, Default)]
struct View(BTreeMap<(String, String), Row>);

pub(super) async fn run(calls: &Calls, integration: Option<&Integration>, json: bool) -> anyhow::Result<()> {
    let wanted = |name: &str| integration.is_none_or(|integration| integration.as_str() == name);
    let mut events = calls.subscribe(subject::events_of(&calls.account)).await?;
    let mut pushes = calls.subscribe(subject::tokens_of(&calls.account)).await?;
    let mut view = View::default();
    view.are(calls.list(integration).await?)?;
    let is_drawn = !json && std::io::stdout().is_terminal();
    if !is_drawn {
        eprintln!("watching the connections of {}, {} now", calls.account, view.0.len());
    }
    let (mut redraw, mut connected) = (tokio::time::interval(REDRAW), connects(calls.nats.client()));
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            // A push comes before the event that tells of it.
            biased;
            _ = &mut interrupted => {
                // The shell's prompt stands below the table, not behind its last line.
                return if is_drawn { say("") } else { Ok(()) };
            }
            refusal = calls.nats.refusal() => bail!("this NATS user may not watch the account: {refusal}"),
            push = next(&mut pushes) => {
                if let Some(connection) = parse_push(&push?).filter(|it| wanted(&names(it).0)) {
                    view.is(&connection);
                }
            }
            event = next(&mut events) => {
                let Ok(event) = serde_json::from_slice::<Value>(&event?.payload) else { continue };
                if !wanted(field(&event, "integration_id")) {
                    continue;
                }
                view.happened(&event);
                if json {
                    say(&event.to_string())?;
                } else if !is_drawn {
                    say(&view.line(&event))?;
                }
            }
            _ = redraw.tick() => {
                if is_drawn {
                    let (width, height) = crossterm::terminal::size().unwrap_or(TERMINAL);
                    let table = view.table(&calls.account.to_string(), system::now(), height.into());
                    let away = if calls.nats.is_connected() { "" } else { "NATS is away. " };
                    say(&format!("{CLEAR}{}", cut(&format!("{away}{table}"), width.into())))?;
                }
                let now = connects(calls.nats.client());
                // What happened while the bus was away was missed; while no worker is there, it is tried again.
                if now != connected && let Ok(Ok(connections)) = timeout(REDRAW, calls.list(integration)).await {
                    connected = now;
                    view.are(connections)?;
                }
            }
        }
    }
}

/// Each line as far as there is room for it: one that wraps would push the first ones out.
fn cut(text: &str, width: usize) -> String {
    text.lines().map(|line| line.chars().take(width).collect::<String>()).collect::<Vec<_>>().join("\n")
}

async fn next(messages: &mut Subscriber) -> anyhow::Result<Message> {
    messages.next().await.ok_or_else(|| anyhow::anyhow!("the connection to NATS ended"))
}

fn field<'a>(event: &'a Value, name: &str) -> &'a str {
    event.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn key(event: &Value) -> (String, String) {
    (field(event, "integration_id").to_owned(), field(event, "connection_id").to_owned())
}

/// Integration and name.
fn names(connection: &OauthConnection) -> (String, String) {
    show::names(&json!({ "subject": connection.subject }))
}

impl View {
    /// All there are. Those that are not among them were deleted.
    fn are(&mut self, connections: Vec<Value>) -> anyhow::Result<()> {
        let mut listed = BTreeSet::new();
        for connection in connections {
            let connection = serde_json::from_value(connection)?;
            listed.insert(names(&connection));
            self.is(&connection);
        }
        for (_, row) in self.0.iter_mut().filter(|(names, _)| !listed.contains(names)) {
            (row.status, row.expiry) = (Status::Revoked.as_str(), None);
        }
        Ok(())
    }

    /// A connection's state.
    fn is(&mut self, connection: &OauthConnection) {
        let row = self.0.entry(names(connection)).or_default();
        if connection.sequence >= row.sequence {
            (row.status, row.expiry, row.sequence) =
                (connection.status.as_str(), connection.expiry, connection.sequence);
        }
    }

    /// An event. Reads are no news about a connection.
    fn happened(&mut self, event: &Value) {
        let name = field(event, "event");
        if event.get("connection_id").is_none() || name == EventKind::Read.as_str() {
            return;
        }
        let row = self.0.entry(key(event)).or_default();
        let time: Option<Timestamp> = field(event, "time").parse().ok();
        let time = time.map(|time| time.strftime("%T").to_string()).unwrap_or_default();
        row.last = [time.as_str(), name, field(event, "reason")].join(" ");
    }

    fn line(&self, event: &Value) -> String {
        let (integration, name) = key(event);
        let time: Option<Timestamp> = field(event, "time").parse().ok();
        let time = time.map(|time| time.strftime("%FT%TZ").to_string()).unwrap_or_default();
        let mut line = format!("{time} {:<22} {integration}", field(event, "event"));
        if !name.is_empty() {
            line = format!("{line}/{name}");
        }
        line = format!("{line} by {}", field(event, "actor"));
        if let Some(count) = event.get("count") {
            line = format!("{line}, {count} times");
        }
        if !field(event, "reason").is_empty() {
            line = format!("{line}: {}", field(event, "reason"));
        }
        match self.0.get(&(integration, name)).and_then(|row| row.expiry) {
            Some(expiry) => format!("{line}, ends {}", show::left(expiry, system::now())),
            None => line,
        }
    }

    /// What somebody has to log in to again comes first, then what ends soonest; what does not end comes last. Rows for
    /// which there are not lines enough are counted.
    fn table(&self, account: &str, now: Timestamp, lines: usize) -> String {
        let most = lines.saturating_sub(BESIDE).max(1);
        let mut rows: Vec<_> = self.0.iter().collect();
        let is_fine = |row: &Row| row.status != Status::NeedsReauthorization.as_str();
        rows.sort_by_key(|(_, row)| (is_fine(row), row.expiry.is_none(), row.expiry));
        let mut table = print::table();
        table.set_header(["INTEGRATION", "CONNECTION", "STATUS", "ENDS", "LAST EVENT (UTC)"]);
        for ((integration, name), row) in rows.iter().take(most) {
            let ends = row.expiry.map_or_else(|| "–".to_owned(), |expiry| show::left(expiry, now));
            table.add_row([integration.as_str(), name, row.status, &ends, &row.last]);
        }
        let more = match rows.len().saturating_sub(most) {
            0 => String::new(),
            more => format!("\n… and {more} more"),
        };
        let title = format!("Ctrl-C ends. {} connections of {account}", rows.len());
        format!("{title}\n\n{}{more}", print::trimmed(&table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";

    fn connection(name: &str, sequence: u64, expiry: Option<&str>) -> OauthConnection {
        let subject = subject::ConnectionKey::parse(ACCOUNT, "odd", name).unwrap().subject();
        let mut value = json!({ "token_type": "Bearer", "sequence": sequence, "subject": subject, "status": "active" });
        if let Some(expiry) = expiry {
            value["expiry"] = json!(expiry);
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_ends_soonest_comes_first_with_its_last_event() {
        let mut view = View::default();
        view.is(&connection("forever", 1, None));
        view.is(&connection("late", 2, Some("2026-01-01T14:00:00Z")));
        view.is(&connection("soon", 4, Some("2026-01-01T12:01:00Z")));
        view.is(&connection("soon", 3, Some("2026-01-01T18:00:00Z")));
        let about = |event: &str| {
            json!({
                "event": event, "integration_id": "odd", "connection_id": "soon", "actor": "schedule",
                "reason": "invalid_client", "time": "2026-01-01T11:59:59Z",
            })
        };
        view.happened(&about("refresh_failed"));
        view.happened(&about("read"));
        let table = view.table(ACCOUNT, "2026-01-01T12:00:00Z".parse().unwrap(), 24);
        let lines: Vec<Vec<&str>> = table.lines().skip(3).map(|line| line.split_whitespace().collect()).collect();
        let expected = ["odd", "soon", "active", "in", "60", "s", "11:59:59", "refresh_failed", "invalid_client"];
        assert_eq!(lines[0], expected);
        assert_eq!((lines[1][1], lines[2][1], lines.len()), ("late", "forever", 3));

        // Found after the bus was away: the others were deleted meanwhile.
        let listed = ["late", "forever"].map(|name| json!(connection(name, 5, None)));
        view.are(listed.to_vec()).unwrap();
        let status = |name: &str| view.0[&("odd".to_owned(), name.to_owned())].status;
        assert_eq!(["soon", "late", "forever"].map(status), ["revoked", "active", "active"]);

        view.is(&OauthConnection { status: Status::NeedsReauthorization, ..connection("forever", 9, None) });
        let table = view.table(ACCOUNT, "2026-01-01T12:00:00Z".parse().unwrap(), 24);
        let first: Vec<&str> = table.lines().nth(3).unwrap().split_whitespace().collect();
        assert_eq!(first[1..3], ["forever", "needs_reauthorization"]);

        let short = view.table(ACCOUNT, "2026-01-01T12:00:00Z".parse().unwrap(), 7);
        assert_eq!((short.lines().count(), short.lines().last()), (6, Some("… and 1 more")), "{short}");
        assert_eq!(cut("ä table\nof two lines", 4), "ä ta\nof t");
    }
}
