//! `doctor`: is everything as it must be, and if not, what to do.

mod bus;
mod keyring;
mod report;

use anyhow::bail;
use clap::{Args, ValueEnum};

use self::report::{Check, Report};
use crate::config::{Config, SettingsError};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Whose settings these are; decides what is checked.
    #[arg(long, value_enum, default_value = "all")]
    role: Role,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A part of the program, or a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Gateway and workers in one process.
    All,
    /// The HTTP gateway.
    Edge,
    /// Workers.
    Worker,
    /// A person who looks.
    Operator,
    /// A person who changes things.
    Admin,
}

impl Role {
    /// Whether this role opens what is stored.
    fn has_keys(self) -> bool {
        matches!(self, Self::All | Self::Worker)
    }

    /// Whether this role is let near the streams.
    fn sees_streams(self) -> bool {
        self != Self::Edge
    }

    /// Whether this role is of no use without a worker elsewhere.
    fn calls_workers(self) -> bool {
        matches!(self, Self::Edge | Self::Admin)
    }
}

/// What there is to say when there are no settings to check anything with.
pub(super) fn unreadable_settings(options: &Options, error: &SettingsError) -> anyhow::Result<()> {
    let mut report = Report::default();
    report.add(Check::failed("settings", error.to_string()).fix("docs/configuration.md has every key and its form"));
    finish(&report, options)
}

pub(super) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    let mut report = Report::default();
    report.add(Check::fine("settings", "readable, every key known"));
    let keyring = if options.role.has_keys() { keyring::load(config, &mut report).await } else { None };
    bus::check(config, options.role, keyring.as_ref(), &mut report).await;
    finish(&report, &options)
}

fn finish(report: &Report, options: &Options) -> anyhow::Result<()> {
    if options.json {
        println!("{}", report.as_json());
    } else {
        print!("{report}");
    }
    match report.failed() {
        None => Ok(()),
        Some(verdict) => bail!(verdict),
    }
}
