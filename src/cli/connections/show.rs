//! Printing connections. Tokens are redacted unless the person asks for them.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::cli::print::{self, plain, print_line};
use crate::subject::ConnectionKey;
use crate::system;

#[derive(Debug, Clone, Copy)]
pub(super) struct Printer {
    pub(super) json: bool,
    pub(super) show_token: bool,
}

impl Printer {
    pub(super) fn print(self, connection: &Value) -> anyhow::Result<()> {
        let mut connection = connection.clone();
        if let Some(token) = connection.get_mut("access_token").filter(|_| !self.show_token) {
            *token = "[redacted]".into();
        }
        if self.json {
            return print_line(&connection.to_string());
        }
        let mut table = print::Table::new();
        for (name, value) in connection.as_object().into_iter().flatten() {
            let shown = match (name.as_str(), value) {
                ("identity", value) => describe_identity(Some(value)),
                ("expiry", value) => format!("{} ({})", plain(value), describe_expiry(Some(value))),
                ("modified", value) => value
                    .as_i64()
                    .and_then(|at| Timestamp::from_second(at).ok())
                    .map_or_else(|| value.to_string(), |at| format!("{at} ({})", describe_age(at))),
                (_, value) => plain(value),
            };
            table.add_row([name.clone(), shown]);
        }
        print_line(&table.render())
    }
}

/// Renders a table with a row per connection.
pub(super) fn table(connections: &[Value]) -> String {
    if connections.is_empty() {
        return "no connections".to_owned();
    }
    let mut table = print::Table::new();
    table.set_header(["INTEGRATION", "CONNECTION", "CONNECTED AS", "STATUS", "ENDS", "CHANGED", "SEQUENCE"]);
    for connection in connections {
        let (integration, name) = names(connection);
        let changed = connection.get("modified").and_then(Value::as_i64).and_then(|at| Timestamp::from_second(at).ok());
        table.add_row([
            integration,
            name,
            describe_identity(connection.get("identity")),
            connection.get("status").map(plain).unwrap_or_default(),
            describe_expiry(connection.get("expiry")),
            changed.map(describe_age).unwrap_or_default(),
            connection.get("sequence").map(plain).unwrap_or_default(),
        ]);
    }
    table.render()
}

/// Renders a table with a row per failure: events, the newest first.
pub(super) fn failures(events: &[Value]) -> String {
    let mut table = print::Table::new();
    table.set_header(["FAILED", "EVENT", "REASON", "PROVIDER", "CODE", "DESCRIPTION"]);
    for event in events {
        let field = |name| event.get(name).map(plain).unwrap_or_default();
        let time = event.get("time").and_then(Value::as_str).and_then(|time| time.parse::<Timestamp>().ok());
        table.add_row([
            time.map(describe_age).unwrap_or_default(),
            field("event"),
            field("reason"),
            field("provider_status"),
            field("provider_error"),
            field("provider_detail"),
        ]);
    }
    table.render()
}

/// Returns integration and name, which are only in the token subject.
pub(super) fn names(connection: &Value) -> (String, String) {
    let subject = connection.get("subject").and_then(Value::as_str).unwrap_or_default();
    match ConnectionKey::parse_subject(subject) {
        Ok(key) => (key.integration.to_string(), key.name.to_string()),
        Err(_) => (subject.to_owned(), String::new()),
    }
}

/// Describes whose account a connection is: by its label, else by its id.
pub(super) fn describe_identity(identity: Option<&Value>) -> String {
    let text = |name| identity.and_then(|identity| identity.get(name)).and_then(Value::as_str);
    text("label").or(text("id")).map_or_else(|| "–".to_owned(), str::to_owned)
}

fn describe_expiry(expiry: Option<&Value>) -> String {
    let expiry = expiry.and_then(Value::as_str).and_then(|text| text.parse().ok());
    expiry.map_or_else(|| "–".to_owned(), |expiry| describe_time_left(expiry, system::now()))
}

/// Describes the time to an expiry: `in 59 min`, `ended 3 s ago`.
pub(super) fn describe_time_left(expiry: Timestamp, now: Timestamp) -> String {
    let left = expiry.duration_since(now);
    if left.is_positive() {
        format!("in {}", format_duration(left))
    } else {
        format!("ended {} ago", format_duration(-left))
    }
}

fn describe_age(at: Timestamp) -> String {
    format!("{} ago", format_duration(system::now().duration_since(at)))
}

/// Formats a duration in its two largest units.
fn format_duration(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_left_have_at_most_two_units() {
        #[track_caller]
        fn check(seconds: i64, expected: &str) {
            let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
            assert_eq!(describe_time_left(now + SignedDuration::from_secs(seconds), now), expected);
        }
        check(1, "in 1 s");
        check(119, "in 119 s");
        check(3_540, "in 59 min");
        check(7_200 + 61, "in 2 h 1 min");
        check(8 * 86_400 + 3_600, "in 8 d 1 h");
        check(0, "ended 0 s ago");
        check(-180, "ended 3 min ago");
    }

    #[test]
    fn names_come_from_the_subject() {
        let account = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";
        let key = ConnectionKey::parse(account, "slack", "one").unwrap();
        let connection = serde_json::json!({ "subject": key.subject() });
        assert_eq!(names(&connection), ("slack".to_owned(), "one".to_owned()));
    }
}
