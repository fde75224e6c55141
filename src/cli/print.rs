//! Printing to standard output and standard error.

use std::io::{self, Write as _};

use comfy_table::{Table, presets};
use serde_json::{Value, json};

/// The reader of standard output has closed it, as `head` does. The command ends without an error.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
struct OutputClosed(#[source] io::Error);

/// Returns true if the command failed only because nothing reads its output any longer.
pub(super) fn is_output_closed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<OutputClosed>().is_some())
}

/// Prints a line and flushes it.
pub(super) fn print_line(text: &str) -> anyhow::Result<()> {
    print(&format!("{text}\n"))
}

/// Prints a text and flushes it. A closed pipe is an error, not a panic.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed(error).into()),
        printed => Ok(printed?),
    }
}

/// Prints a line for people to standard error. A closed standard error stops no command.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
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

/// Renders the fields of an object, with a line for each entry of an object or a list in it.
pub(super) fn fields(object: &Value) -> String {
    let mut table = table();
    for (field, value) in object.as_object().into_iter().flatten() {
        match value {
            Value::Object(entries) => {
                for (name, value) in entries {
                    table.add_row([format!("{field}: {name}"), plain(value)]);
                }
            }
            Value::Array(values) => {
                table.add_row([field.clone(), values.iter().map(plain).collect::<Vec<_>>().join("\n")]);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                table.add_row([field.clone(), plain(value)]);
            }
        }
    }
    render(&table)
}

/// Renders a JSON value for people: strings without quotes.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
