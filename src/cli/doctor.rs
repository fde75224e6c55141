//! `doctor`: checks settings, bus and keyring, and prints how to fix what is wrong.

mod bus;
mod keyring;
mod report;
mod shape;

use std::sync::Arc;

use anyhow::bail;
use clap::{Args, ValueEnum};

use self::report::{Check, Report};
use super::print::{print_line, print_styled};
use super::serve::provider;
use crate::config::{Config, SettingsError};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Role whose settings these are. Decides what is checked.
    #[arg(long, value_enum, default_value = "all")]
    role: Role,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Gateway and workers in one process.
    All,
    /// The HTTP gateway.
    Edge,
    /// Workers.
    Worker,
    /// `tokenbus setup`.
    Setup,
    /// A person who inspects the store.
    Operator,
    /// A person who changes configs and API keys.
    Admin,
}

impl Role {
    fn has_keys(self) -> bool {
        matches!(self, Self::All | Self::Worker)
    }

    /// Returns true if the role's NATS user may read streams.
    fn sees_streams(self) -> bool {
        !matches!(self, Self::Edge | Self::Admin)
    }

    /// Returns true if the role works only while a worker runs elsewhere.
    fn calls_workers(self) -> bool {
        matches!(self, Self::Edge | Self::Admin)
    }
}

/// Reports settings that cannot be read. Nothing else can be checked then.
pub(super) fn report_unreadable_settings(options: &Options, error: &SettingsError) -> anyhow::Result<()> {
    let mut report = Report::default();
    report.add(
        Check::failed("settings", error.to_string())
            .fix("correct the setting; docs/configuration.md lists every key and its format"),
    );
    finish(&report, options)
}

pub(super) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    let mut report = Report::default();
    report.add(Check::fine("settings", "readable, all keys known"));
    if let Some(check) = listeners(config, options.role) {
        report.add(check);
    }
    if options.role.has_keys() {
        report.add(authorities(config).await);
    }
    let keyring = if options.role.has_keys() { keyring::load(config, &mut report).await.map(Arc::new) } else { None };
    bus::check(config, options.role, keyring.as_ref(), &mut report).await;
    finish(&report, &options)
}

/// Checks what would make a gateway or a worker refuse to start.
fn listeners(config: &Config, role: Role) -> Option<Check> {
    const CHECK: &str = "listeners";
    let has_gateway = matches!(role, Role::All | Role::Edge);
    if !has_gateway && !role.has_keys() {
        return None;
    }
    Some(match config.http.check_plaintext(has_gateway) {
        Ok(()) if config.http.allow_plaintext => Check::fine(CHECK, "plaintext is allowed by `http.allow_plaintext`"),
        Ok(()) => Check::fine(CHECK, "use TLS or loopback"),
        Err(error) => Check::failed(CHECK, error.to_string()),
    })
}

/// Checks what a worker needs to verify certificates of providers.
async fn authorities(config: &Config) -> Check {
    const CHECK: &str = "authorities of providers";
    match provider::client(config).await {
        Ok(_) if config.oauth.ca.as_os_str().is_empty() => Check::fine(CHECK, "those of this system"),
        Ok(_) => Check::fine(CHECK, "those of this system, if it has any, and of `oauth.ca`"),
        Err(error) => Check::failed(CHECK, format!("{error:#}"))
            .fix("correct the file; running workers read it again on SIGHUP and when it changes"),
    }
}

fn finish(report: &Report, options: &Options) -> anyhow::Result<()> {
    if options.json {
        print_line(&report.as_json().to_string())?;
    } else {
        print_styled(&report.to_string())?;
    }
    match report.failed() {
        None => Ok(()),
        Some(verdict) => bail!(verdict),
    }
}
