//! Printing to standard output.

use std::io::Write as _;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

/// Prints a line and flushes it. A closed pipe is an error, not a panic.
pub(super) fn print_line(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Prints that a change succeeded: the text for people, or the JSON of the HTTP interface.
pub(super) fn print_success(text: &str, json: bool) -> anyhow::Result<()> {
    if json { print_line(&json!({ "message": "success" }).to_string()) } else { print_line(text) }
}

/// A table without borders.
pub(super) fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Renders a table without trailing spaces.
pub(super) fn render(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Renders a JSON value for people: strings without quotes.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
