//! What commands print.

use std::io::Write as _;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

/// Prints a line, at once. Whoever reads may have had enough: that is an error, not a panic.
pub(super) fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Says that something is done; to a program in the words of the HTTP interface.
pub(super) fn done(said: &str, json: bool) -> anyhow::Result<()> {
    if json { say(&json!({ "message": "success" }).to_string()) } else { say(said) }
}

/// A table without lines.
pub(super) fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// A table's text, without the spaces that fill its last column.
pub(super) fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A JSON value as people read it: text without quotes.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
