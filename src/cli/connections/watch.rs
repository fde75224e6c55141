//! `connections watch`: follows refreshes, failures and expiries as they happen.
//!
//! Follows the events first and lists the connections after, so that no change between the two is missed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::bail;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::Calls;
use super::events::{self, Events};
use super::show;
use crate::cli::print::{self, note, print_line, print_styled};
use crate::connection::{OauthConnection, Status};
use crate::event::EventKind;
use crate::foreign_text::escape_lines;
use crate::subject::Integration;
use crate::system;

/// Terminal lines that are not rows of the table: title, blank line, header, count of omitted rows, cursor.
const OTHER_LINES: usize = 5;
/// Columns and lines to assume if the terminal does not report its size.
const DEFAULT_SIZE: (u16, u16) = (80, 24);
/// Interval of redraws: the table shows seconds.
const REDRAW: Duration = Duration::from_secs(1);
/// Moves the cursor to the top and clears the terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, Default)]
struct Row {
    status: &'static str,
    expiry: Option<Timestamp>,
    sequence: u64,
    /// Events don't have it.
    identity: Option<Value>,
    last_event: String,
}

/// All connections, by integration and name.
#[derive(Debug, Default)]
struct View(BTreeMap<(String, String), Row>);

pub(super) async fn run(calls: &Calls, integration: Option<&Integration>, json: bool) -> anyhow::Result<()> {
    let wanted = |name: &str| integration.is_none_or(|integration| integration.as_str() == name);
    let (sender, mut events) = events::channel();
    let mut following = std::pin::pin!(Events::open(calls).await?.forward(calls, sender));
    let mut view = View::default();
    view.replace_all(calls.list(integration).await?)?;
    let is_drawn = !json && std::io::stdout().is_terminal();
    if !is_drawn {
        note(&format!("watching {1} connections of {0}", calls.account, view.0.len()));
    }
    let (mut redraw, mut known) = (tokio::time::interval(REDRAW), calls.nats.connection_count());
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            _ = &mut interrupted => {
                // Ends the table's last line, so that the shell's prompt starts on its own.
                return if is_drawn { print_line("") } else { Ok(()) };
            }
            refusal = calls.nats.refusal() => bail!("this NATS user may not watch the account: {refusal}"),
            ended = &mut following => return ended,
            Some(event) = events.recv() => {
                if !wanted(field(&event, "integration_id")) {
                    continue;
                }
                view.add_event(&event);
                if field(&event, "event") == EventKind::Connected.as_str() {
                    view.add_identity(calls, &event).await;
                }
                if json {
                    print_line(&view.with_identity(event).to_string())?;
                } else if !is_drawn {
                    print_line(&view.describe(&event))?;
                }
            }
            _ = redraw.tick() => {
                if is_drawn {
                    let (width, height) = crossterm::terminal::size().unwrap_or(DEFAULT_SIZE);
                    let table = view.table(&calls.account.to_string(), system::now(), height.into());
                    let away = if calls.nats.is_connected() { "" } else { "Not connected to NATS. " };
                    let text = escape_lines(&format!("{away}{table}")).into_owned();
                    print_styled(&format!("{CLEAR}{}\n", truncate_lines(&text, width.into())))?;
                }
                let connection_count = calls.nats.connection_count();
                // After a reconnect, list again: changes were missed. Without a worker this repeats at the next redraw.
                if connection_count != known
                    && let Ok(Ok(connections)) = timeout(REDRAW, calls.list(integration)).await
                {
                    known = connection_count;
                    view.replace_all(connections)?;
                }
            }
        }
    }
}

/// Truncates lines to the width of the terminal: a wrapped line would scroll the first ones away.
fn truncate_lines(text: &str, width: usize) -> String {
    text.lines().map(|line| line.chars().take(width).collect::<String>()).collect::<Vec<_>>().join("\n")
}

fn field<'a>(event: &'a Value, name: &str) -> &'a str {
    event.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn key(event: &Value) -> (String, String) {
    (field(event, "integration_id").to_owned(), field(event, "connection_id").to_owned())
}

fn names(connection: &OauthConnection) -> (String, String) {
    show::names(&json!({ "subject": connection.subject }))
}

/// Returns the status that a connection has after an event, or nothing if the event changes none.
fn status_after(event: &str) -> Option<Status> {
    [
        (EventKind::Connected, Status::Active),
        (EventKind::Refreshed, Status::Active),
        (EventKind::NeedsReauthorization, Status::NeedsReauthorization),
        (EventKind::Revoked, Status::Revoked),
    ]
    .into_iter()
    .find_map(|(kind, status)| (kind.as_str() == event).then_some(status))
}

impl View {
    /// Applies a complete list. Connections that are not in the list were deleted.
    fn replace_all(&mut self, connections: Vec<Value>) -> anyhow::Result<()> {
        let mut listed = BTreeSet::new();
        for connection in connections {
            let connection = serde_json::from_value(connection)?;
            listed.insert(names(&connection));
            self.update(&connection);
        }
        for (_, row) in self.0.iter_mut().filter(|(names, _)| !listed.contains(names)) {
            (row.status, row.expiry) = (Status::Revoked.as_str(), None);
        }
        Ok(())
    }

    fn update(&mut self, connection: &OauthConnection) {
        let row = self.0.entry(names(connection)).or_default();
        row.identity = connection.identity.as_ref().map(|identity| json!(identity));
        if connection.sequence >= row.sequence {
            (row.status, row.expiry, row.sequence) =
                (connection.status.as_str(), connection.expiry, connection.sequence);
        }
    }

    /// Records an event as the last one of its connection. Reads are ignored: they change nothing.
    fn add_event(&mut self, event: &Value) {
        let name = field(event, "event");
        if event.get("connection_id").is_none() || name == EventKind::Read.as_str() {
            return;
        }
        let row = self.0.entry(key(event)).or_default();
        let sequence = event.get("sequence").and_then(Value::as_u64).unwrap_or(0);
        if let Some(status) = status_after(name).filter(|_| sequence >= row.sequence) {
            (row.status, row.expiry, row.sequence) = (status.as_str(), field(event, "expiry").parse().ok(), sequence);
        }
        let time: Option<Timestamp> = field(event, "time").parse().ok();
        let time = time.map(|time| time.strftime("%T").to_string()).unwrap_or_default();
        row.last_event = [time.as_str(), name, field(event, "reason")].join(" ");
    }

    /// Reads the identity of a new connection. Without an answer in time, the connection is shown without one.
    async fn add_identity(&mut self, calls: &Calls, event: &Value) {
        let Ok(integration) = Integration::parse(field(event, "integration_id")) else { return };
        let Ok(Ok(connections)) = timeout(REDRAW, calls.list(Some(&integration))).await else { return };
        let names = key(event);
        let connection = connections.iter().find(|connection| show::names(connection) == names);
        let identity = connection.and_then(|connection| connection.get("identity")).filter(|it| it.is_object());
        self.0.entry(names).or_default().identity = identity.cloned();
    }

    /// Adds the connection's identity to an event.
    fn with_identity(&self, mut event: Value) -> Value {
        let identity = self.0.get(&key(&event)).and_then(|row| row.identity.clone());
        if let (Some(identity), Some(fields)) = (identity, event.as_object_mut()) {
            fields.insert("identity".to_owned(), identity);
        }
        event
    }

    fn describe(&self, event: &Value) -> String {
        let (integration, name) = key(event);
        let time: Option<Timestamp> = field(event, "time").parse().ok();
        let time = time.map(|time| time.strftime("%FT%TZ").to_string()).unwrap_or_default();
        let mut line = format!("{time} {:<22} {integration}", field(event, "event"));
        if !name.is_empty() {
            line = format!("{line}/{name}");
        }
        let row = self.0.get(&(integration, name));
        if let Some(identity) = row.and_then(|row| row.identity.as_ref()) {
            line = format!("{line} ({})", show::describe_identity(Some(identity)));
        }
        line = format!("{line} by {}", field(event, "actor"));
        if let Some(count) = event.get("count") {
            line = format!("{line}, {count} times");
        }
        if !field(event, "reason").is_empty() {
            line = format!("{line}: {}", field(event, "reason"));
        }
        match row.and_then(|row| row.expiry) {
            Some(expiry) => format!("{line}, ends {}", show::describe_time_left(expiry, system::now())),
            None => line,
        }
    }

    /// Renders the table: connections that need a login first, then by expiry, those without expiry last. Rows beyond the
    /// given number of lines are only counted.
    fn table(&self, account: &str, now: Timestamp, lines: usize) -> String {
        let most = lines.saturating_sub(OTHER_LINES).max(1);
        let mut rows: Vec<_> = self.0.iter().collect();
        let is_usable = |row: &Row| row.status != Status::NeedsReauthorization.as_str();
        rows.sort_by_key(|(_, row)| (is_usable(row), row.expiry.is_none(), row.expiry));
        let mut table = print::Table::new();
        table.set_header(["INTEGRATION", "CONNECTION", "CONNECTED AS", "STATUS", "ENDS", "LAST EVENT (UTC)"]);
        for ((integration, name), row) in rows.iter().take(most) {
            let ends = row.expiry.map_or_else(|| "–".to_owned(), |expiry| show::describe_time_left(expiry, now));
            let connected_as = show::describe_identity(row.identity.as_ref());
            table.add_row([integration.as_str(), name, &connected_as, row.status, &ends, &row.last_event]);
        }
        let more = match rows.len().saturating_sub(most) {
            0 => String::new(),
            more => format!("\n… and {more} more"),
        };
        let title = format!("Ctrl-C ends. {} connections of {account}", rows.len());
        format!("{title}\n\n{}{more}", table.render())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";

    fn connection(name: &str, sequence: u64, expiry: Option<&str>) -> OauthConnection {
        let subject = crate::subject::ConnectionKey::parse(ACCOUNT, "odd", name).unwrap().subject();
        let mut value = json!({ "token_type": "Bearer", "sequence": sequence, "subject": subject, "status": "active" });
        if let Some(expiry) = expiry {
            value["expiry"] = json!(expiry);
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn rows_are_sorted_by_expiry_with_the_last_event() {
        let mut view = View::default();
        view.update(&connection("forever", 1, None));
        view.update(&connection("late", 2, Some("2026-01-01T14:00:00Z")));
        view.update(&connection("soon", 4, Some("2026-01-01T12:01:00Z")));
        view.update(&connection("soon", 3, Some("2026-01-01T18:00:00Z")));
        let about = |event: &str| {
            json!({
                "event": event, "integration_id": "odd", "connection_id": "soon", "actor": "schedule",
                "reason": "invalid_client", "time": "2026-01-01T11:59:59Z",
            })
        };
        view.add_event(&about("refresh_failed"));
        view.add_event(&about("read"));
        let table = view.table(ACCOUNT, "2026-01-01T12:00:00Z".parse().unwrap(), 24);
        let lines: Vec<Vec<&str>> = table.lines().skip(3).map(|line| line.split_whitespace().collect()).collect();
        let expected = ["odd", "soon", "–", "active", "in", "60", "s", "11:59:59", "refresh_failed", "invalid_client"];
        assert_eq!(lines[0], expected);
        assert_eq!((lines[1][1], lines[2][1], lines.len()), ("late", "forever", 3));

        // A list after a reconnect: connections that are missing were deleted meanwhile.
        let listed = ["late", "forever"].map(|name| json!(connection(name, 5, None)));
        view.replace_all(listed.to_vec()).unwrap();
        let status = |name: &str| view.0[&("odd".to_owned(), name.to_owned())].status;
        assert_eq!(["soon", "late", "forever"].map(status), ["revoked", "active", "active"]);

        view.update(&OauthConnection { status: Status::NeedsReauthorization, ..connection("forever", 9, None) });
        let table = view.table(ACCOUNT, "2026-01-01T12:00:00Z".parse().unwrap(), 24);
        let first: Vec<&str> = table.lines().nth(3).unwrap().split_whitespace().collect();
        assert_eq!(first[1..4], ["forever", "–", "needs_reauthorization"]);

        view.0.get_mut(&("odd".to_owned(), "late".to_owned())).unwrap().identity =
            Some(json!({ "id": "1", "label": "Acme" }));
        let event =
            json!({ "event": "refreshed", "integration_id": "odd", "connection_id": "late", "actor": "schedule" });
        assert!(view.describe(&event).contains(" odd/late (Acme) by schedule"), "{}", view.describe(&event));
        assert_eq!(view.with_identity(event)["identity"], json!({ "id": "1", "label": "Acme" }));
        let unknown = json!({ "event": "login_started", "integration_id": "odd", "connection_id": "new" });
        assert_eq!(view.with_identity(unknown.clone()), unknown);

        let short = view.table(ACCOUNT, "2026-01-01T12:00:00Z".parse().unwrap(), 7);
        assert_eq!((short.lines().count(), short.lines().last()), (6, Some("… and 1 more")), "{short}");
        assert_eq!(truncate_lines("ä table\nof two lines", 4), "ä ta\nof t");
    }
}
