//! `doctor`: checks settings, bus and keyring, and prints how to fix what is wrong.

mod bus;
mod keyring;
mod report;
mod shape;

use std::sync::Arc;

use anyhow::bail;
use clap::{Args, ValueEnum};

use self::report::{Check, Report};
use super::describe_error;
use super::print::{print_line, print_styled};
use super::serve::provider;
use crate::auth::bearer::Bearers;
use crate::config::{Config, SettingsError};
use crate::gateway::Certificates;
use crate::provider::Client;
use crate::telemetry::traces;

const SETTINGS: &str = "settings";
const CORRECT: &str = "correct the setting; docs/configuration.md lists every key and its format";

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
    fn has_gateway(self) -> bool {
        matches!(self, Self::All | Self::Edge)
    }

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
    report.add(Check::failed(SETTINGS, error.to_string()).fix(CORRECT));
    finish(&report, options)
}

pub(super) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    let mut report = Report::default();
    let client = if options.role.has_keys() { Some(provider::client(config).await) } else { None };
    report.add(settings(config, options.role, client.as_ref().and_then(|client| client.as_ref().ok())).await);
    if let Some(check) = listeners(config, options.role) {
        report.add(check);
    }
    if let Some(client) = &client {
        report.add(authorities(config, client));
    }
    let keyring = if options.role.has_keys() { keyring::load(config, &mut report).await.map(Arc::new) } else { None };
    bus::check(config, options.role, keyring.as_ref(), &mut report).await;
    finish(&report, &options)
}

/// Checks the settings that `serve` refuses though they can be read. Authorities, addresses and the keyring have checks of their own.
async fn settings(config: &Config, role: Role, client: Option<&Client>) -> Check {
    let mut refused = Vec::new();
    let mut note = |done: anyhow::Result<()>| refused.extend(done.err().map(|error| describe_error(&error)));
    if role.has_gateway() || role.has_keys() {
        note(config.events.check().map_err(Into::into));
        note(traces::check(&config.traces).map_err(Into::into));
    }
    if role.has_gateway() {
        note(Certificates::load(&config.http.tls_cert, &config.http.tls_key).await.map(drop).map_err(Into::into));
    }
    if role.has_keys() {
        note(provider::receivers(config).map(drop));
        let bearers = client.map_or(Ok(None), |client| Bearers::check(&config.auth, client));
        note(bearers.map(drop).map_err(anyhow::Error::msg));
    }
    let mut refused = refused.into_iter();
    match refused.next() {
        None => Check::fine(SETTINGS, "readable, all keys known"),
        Some(first) => refused.fold(Check::failed(SETTINGS, first), Check::and).fix(CORRECT),
    }
}

/// Checks what would make a gateway or a worker refuse to start.
fn listeners(config: &Config, role: Role) -> Option<Check> {
    const CHECK: &str = "listeners";
    let has_gateway = role.has_gateway();
    if !has_gateway && !role.has_keys() {
        return None;
    }
    let http = &config.http;
    Some(match http.check_plaintext(has_gateway) {
        Ok(()) if has_gateway && http.proxy_protocol && http.trusted_proxies.is_empty() => {
            Check::warning(CHECK, "`http.proxy_protocol` has no effect without `http.trusted_proxies`")
                .fix("set it to the networks of the proxies that send PROXY headers")
        }
        Ok(()) if http.allow_plaintext => Check::fine(CHECK, "plaintext is allowed by `http.allow_plaintext`"),
        Ok(()) => Check::fine(CHECK, "use TLS or loopback"),
        Err(error) => Check::failed(CHECK, error.to_string()),
    })
}

/// Checks what a worker needs to verify certificates of providers.
fn authorities(config: &Config, client: &anyhow::Result<Client>) -> Check {
    const CHECK: &str = "authorities of providers";
    match client {
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
