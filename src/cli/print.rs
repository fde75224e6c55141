//! Printing to standard output and standard error.
//!
//! Many texts are of providers, of files or of other people. So everything printed here has its control characters escaped:
//! they could rewrite what the terminal shows. Only [`print_styled`] prints any.

use std::io::{self, Write as _};

use comfy_table::presets;
use serde_json::{Value, json};

use crate::foreign_text::{escape, escape_lines};

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
    print_styled(&format!("{}\n", escape_lines(text)))
}

/// Prints a text with the program's own control sequences, and flushes it. Foreign texts in it must be escaped. A closed
/// pipe is an error, not a panic.
pub(super) fn print_styled(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed(error).into()),
        printed => Ok(printed?),
    }
}

/// Prints a line for people to standard error. A closed standard error stops no command.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", escape_lines(text));
}

/// Prints that a change succeeded: the text for people, or the JSON of the HTTP interface.
pub(super) fn print_success(text: &str, json: bool) -> anyhow::Result<()> {
    if json { print_line(&json!({ "message": "success" }).to_string()) } else { print_line(text) }
}

/// A table without borders. Each cell is one line, so no text continues in another row.
pub(super) struct Table(comfy_table::Table);

impl Table {
    pub(super) fn new() -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        Self(table)
    }

    pub(super) fn set_header<T: AsRef<str>>(&mut self, names: impl IntoIterator<Item = T>) {
        self.0.set_header(cells(names));
    }

    pub(super) fn add_row<T: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = T>) {
        self.0.add_row(cells(texts));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Renders the table without trailing spaces.
    pub(super) fn render(&self) -> String {
        self.0.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }
}

/// Escaped before the table measures them.
fn cells<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Vec<String> {
    texts.into_iter().map(|text| escape(text.as_ref()).into_owned()).collect()
}

/// Renders the fields of an object, with a line for each entry of an object or a list in it.
pub(super) fn fields(object: &Value) -> String {
    let mut table = Table::new();
    for (field, value) in object.as_object().into_iter().flatten() {
        match value {
            Value::Object(entries) => {
                for (name, value) in entries {
                    table.add_row([format!("{field}: {name}"), plain(value)]);
                }
            }
            Value::Array(values) => {
                let names = std::iter::once(field.as_str()).chain(std::iter::repeat(""));
                for (name, value) in names.zip(values) {
                    table.add_row([name, &plain(value)]);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                table.add_row([field.clone(), plain(value)]);
            }
        }
    }
    table.render()
}

/// Renders a JSON value for people: strings without quotes, unless one is blank.
pub(super) fn plain(value: &Value) -> String {
    let shown = value.as_str().filter(|text| !text.trim().is_empty());
    shown.map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_reaches_the_terminal_with_a_control_character() {
        let odd = "a\u{1b}[2J\nb\u{9b}\u{202e}";
        let escaped = "a\\u001b[2J\\u000ab\\u009b\\u202e";
        let mut table = Table::new();
        table.set_header([odd, "NAME"]);
        table.add_row([odd, "x"]);
        let lines = [format!(" {escaped}  NAME"), format!(" {escaped}  x")];
        assert_eq!(table.render(), lines.join("\n"));
        assert_eq!([" ", "", "a "].map(|text| plain(&json!(text))), ["\" \"", "\"\"", "a "]);
        let shown = fields(&json!({ "a": odd, "list": ["one", odd], "object": { odd: [odd] } }));
        assert!(!crate::foreign_text::has_hidden(&shown.replace('\n', "")), "{shown}");
        assert_eq!(shown.lines().count(), 4, "{shown}");
    }
}
