//! The report: a list of checks, as text or JSON.

use std::fmt;
use std::io::IsTerminal as _;

use serde::Serialize;
use serde_json::{Value, json};

use crate::config;
use crate::foreign_text::escape_lines;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    /// Works, but should be changed.
    Warning,
    Failed,
    /// Cannot be checked from here.
    Skipped,
}

impl Status {
    fn mark(self) -> &'static str {
        match self {
            Self::Ok => "✓",
            Self::Warning => "!",
            Self::Failed => "✗",
            Self::Skipped => "–",
        }
    }

    /// SGR code of the colour.
    fn colour(self) -> u8 {
        match self {
            Self::Ok => 32,
            Self::Warning => 33,
            Self::Failed => 31,
            Self::Skipped => 2,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Check {
    #[serde(rename = "check")]
    name: &'static str,
    status: Status,
    /// Findings, the most important first.
    found: Vec<String>,
    /// Advice, one step each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fix: Vec<String>,
}

impl Check {
    fn new(name: &'static str, status: Status, found: impl Into<String>) -> Self {
        Self { name, status, found: vec![found.into()], fix: Vec::new() }
    }

    pub(super) fn fine(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Status::Ok, found)
    }

    pub(super) fn warning(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Status::Warning, found)
    }

    pub(super) fn failed(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Status::Failed, found)
    }

    pub(super) fn skipped(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Status::Skipped, found)
    }

    /// Adds a line to the findings.
    pub(super) fn and(mut self, found: impl Into<String>) -> Self {
        self.found.push(found.into());
        self
    }

    /// Adds advice.
    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix.push(fix.into());
        self
    }
}

#[derive(Debug, Default)]
pub(super) struct Report(Vec<Check>);

impl Report {
    pub(super) fn add(&mut self, check: Check) {
        self.0.push(check);
    }

    /// Returns the verdict if a check failed. It becomes the program's error, so the printed report leaves it out.
    pub(super) fn failed(&self) -> Option<String> {
        let failures = self.count(Status::Failed);
        (failures > 0).then(|| format!("{failures} of {} checks failed", self.0.len()))
    }

    fn count(&self, status: Status) -> usize {
        self.0.iter().filter(|check| check.status == status).count()
    }

    pub(super) fn as_json(&self) -> Value {
        json!({ "ok": self.failed().is_none(), "checks": self.0 })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, colours: bool) -> fmt::Result {
        let paint = |code: u8, text: &str| if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
        let width = self.0.iter().map(|check| check.name.chars().count()).max().unwrap_or_default();
        let indent = " ".repeat(width + 4);
        for Check { name, status, found, fix } in &self.0 {
            write!(f, "{} {name:width$}  ", paint(status.colour(), status.mark()))?;
            writeln!(f, "{}", escape_lines(&found.join(&format!("\n{indent}"))))?;
            for fix in fix {
                writeln!(f, "{indent}{}", paint(1, &format!("→ {}", escape_lines(fix))))?;
            }
        }
        if self.failed().is_some() {
            return Ok(());
        }
        let (colour, verdict) = match self.count(Status::Warning) {
            0 => (Status::Ok.colour(), "all is well".to_owned()),
            warnings => (Status::Warning.colour(), format!("nothing is broken; warnings: {warnings}")),
        };
        writeln!(f, "\n{}", paint(colour, &verdict))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = config::env("NO_COLOR").is_none_or(|value| value.is_empty());
        self.write(f, wanted && std::io::stdout().is_terminal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Painted<'a>(&'a Report);

    impl fmt::Display for Painted<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.write(f, true)
        }
    }

    #[test]
    fn a_report_is_a_list_with_what_to_do() {
        let mut report = Report::default();
        report.add(Check::fine("settings", "readable"));
        report.add(Check::failed("NATS", "away").and("since noon").fix("start it"));
        assert_eq!(
            report.to_string(),
            "✓ settings  readable\n✗ NATS      away\n            since noon\n            → start it\n"
        );
        assert_eq!(report.failed().as_deref(), Some("1 of 2 checks failed"));
        assert_eq!(report.as_json()["ok"], false);
        assert_eq!(report.as_json()["checks"][1]["fix"][0], "start it");
        assert!(Painted(&report).to_string().starts_with("\x1b[32m✓\x1b[0m settings"));
    }
}
