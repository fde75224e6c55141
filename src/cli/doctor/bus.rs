//! Checks of the bus: server, permissions, streams, workers and clock.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use super::Role;
use super::keyring;
use super::report::{Check, Report};
use super::shape;
use crate::config::Config;
use crate::gateway::backend::{Backend, NotReady};
use crate::jetstream::{Nats, NatsError, Patience};
use crate::protocol::high_water::{self, SequenceError};
use crate::protocol::origin::{self, Unconfirmed};
use crate::protocol::permissions::{self, OwnUser};
use crate::protocol::records::{LARGEST_MESSAGE, longest_token};
use crate::protocol::replies::Replies;
use crate::protocol::topology::{self, Server, Sizes, StreamUse, TopologyError, Unwritable};
use crate::seal::Keyring;
use crate::store::{Store, StoreError};
use crate::subject::Waiter;
use crate::subject::permission::{self, Act, Permission, USER_INFO};

/// Largest accepted difference between clocks. With more, credentials are refused and refreshes come at the wrong time.
const MAX_CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_secs(2);
/// Missing permissions that are listed. A user that lacks more than these belongs to another role.
const MAX_LISTED: usize = 10;
/// Longest wait for a worker's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn check(config: &Config, role: Role, keyring: Option<&Arc<Keyring>>, report: &mut Report) {
    let nats = match Nats::connect(&config.nats, "tokenbus doctor", Patience::Once).await {
        Ok(nats) => nats,
        Err(error) => {
            let check = Check::failed("NATS", crate::cli::describe_error(&error.into()));
            return report.add(
                check.fix("start nats-server, or correct `nats.url`, `nats.user`, `nats.password` or `nats.creds`"),
            );
        }
    };
    report.add(server(config, &nats));
    report.add(encryption_in_transit(config, &nats));
    match permissions::own_user(&nats).await {
        Ok(Some(own)) => {
            report.add(permissions_of(&own, needed(config, role)));
            report.add(no_more_than_needed(&own, role));
            report.add(clock(&own));
        }
        answer => report.add(unknown_user(answer.err())),
    }
    if role.sees_streams() {
        check_streams(config, &nats, keyring, role, report).await;
    }
    if role.calls_workers() {
        report.add(workers(nats).await);
    }
}

/// Checks streams and buckets. Stops early without JetStream, because each further request would time out.
async fn check_streams(config: &Config, nats: &Nats, keyring: Option<&Arc<Keyring>>, role: Role, report: &mut Report) {
    let server = topology::check_server(nats).await;
    let is_there = matches!(server, Ok(_) | Err(TopologyError::TooOld { .. }));
    report.add(jetstream(server));
    if !is_there {
        return report.add(Check::skipped("streams", "cannot be checked without JetStream"));
    }
    let sizes = Sizes::of(config);
    report.add(shape::cluster(nats, sizes));
    let inspected = topology::inspect(nats, sizes).await;
    let is_missing = inspected.iter().any(|found| matches!(found, Err(TopologyError::Absent(_))));
    report.add(streams(inspected));
    report.add(shape::persistence(topology::old_shapes(nats, sizes).await));
    report.add(room(topology::used(nats, &topology::limited()).await));
    report.add(origin_of(origin::check(nats).await));
    report.add(largest_message(nats));
    report.add(if is_missing {
        Check::skipped("writes", "cannot be tested while a stream is missing")
    } else if role.has_keys() {
        writes(topology::test_writes(nats).await)
    } else {
        Check::skipped("writes", "this user may not test them: run `tokenbus doctor --role worker`")
    });
    if role != Role::Operator {
        report.add(sequences(high_water::check(nats).await));
    }
    report.add(Check::skipped(
        "at rest",
        "the server does not report how it stores: compare `cipher` and `sync_interval` with nats/server.conf",
    ));
    if let Some(keyring) = keyring {
        report.add(keyring::compare(nats, keyring).await);
        report.add(stored_values(Store::new(nats.clone(), Arc::clone(keyring)).unreadable().await));
    }
}

/// Names the entries and records that no worker can read.
fn stored_values(unreadable: Result<Vec<StoreError>, StoreError>) -> Check {
    const CHECK: &str = "stored values";
    let unreadable = match unreadable {
        Ok(unreadable) if unreadable.is_empty() => return Check::fine(CHECK, "can all be read"),
        Ok(unreadable) => unreadable,
        Err(error) => return Check::failed(CHECK, error.to_string()),
    };
    let mut check = Check::failed(CHECK, format!("{} cannot be read", unreadable.len()));
    for error in unreadable.iter().take(MAX_LISTED) {
        check = check.and(format!("  {error}"));
    }
    check.fix("an entry is restored from its record when it is read; otherwise log in again, or put the config again")
}

/// Checks what would make a worker refuse to start.
fn sequences(checked: Result<(), SequenceError>) -> Check {
    match checked {
        Ok(()) => Check::fine("sequences", "continue above all stored sequences"),
        Err(error) => Check::failed("sequences", error.to_string()),
    }
}

fn server(config: &Config, nats: &Nats) -> Check {
    let version = nats.client().server_info().version;
    Check::fine("NATS", format!("nats-server {version} at {}", config.nats.url))
}

fn encryption_in_transit(config: &Config, nats: &Nats) -> Check {
    const CHECK: &str = "on the way";
    let is_here = |server: &str| {
        let host = server.trim().split_once("://").map_or(server.trim(), |(_, host)| host);
        ["127.", "localhost", "[::1]"].iter().any(|start| host.starts_with(start))
    };
    if config.nats.url.split(',').all(|server| server.trim().starts_with("tls://"))
        || nats.client().server_info().tls_required
    {
        return Check::fine(CHECK, "TLS");
    }
    if config.nats.url.split(',').all(is_here) {
        return Check::fine(CHECK, "no TLS, but traffic does not leave this machine");
    }
    Check::warning(CHECK, "tokens travel to NATS unencrypted")
        .fix("configure `tls` on the server, set `tls://…` in `nats.url` and, for a private CA, `nats.ca`")
}

fn needed(config: &Config, role: Role) -> Vec<Permission> {
    let inbox = config.nats.inbox_prefix();
    let edge_id = Some(config.http.edge_id.as_str()).filter(|id| !id.is_empty()).unwrap_or("*");
    let edge = permission::needed_by_edge(&inbox, &Waiter::Edge(edge_id.to_owned()));
    match role {
        Role::All => [permission::needed_by_worker(&inbox), edge].concat(),
        Role::Edge => edge,
        Role::Worker => permission::needed_by_worker(&inbox),
        Role::Setup => permission::needed_by_setup(&inbox),
        Role::Operator => permission::needed_by_operator(&inbox),
        Role::Admin => permission::needed_by_admin(&inbox),
    }
}

fn permissions_of(own: &OwnUser, needed: Vec<Permission>) -> Check {
    const CHECK: &str = "permissions";
    let whose = format!("user `{}` of account `{}`", own.user, own.account);
    let missing = own.missing(needed);
    if missing.is_empty() {
        return Check::fine(CHECK, format!("{whose} has all permissions that it needs"));
    }
    let mut check = Check::failed(CHECK, format!("{whose} lacks"));
    for permission in missing.iter().take(MAX_LISTED) {
        check = check.and(format!("  {permission}"));
    }
    if missing.len() > MAX_LISTED {
        let wrong = "this looks like another role's user: correct `nats.user`; nats/accounts.conf lists all users";
        return check.and(format!("  and {} more", missing.len() - MAX_LISTED)).fix(wrong);
    }
    for (act, list) in [(Act::Publish, "publish"), (Act::Subscribe, "subscribe")] {
        let subjects = missing.iter().filter(|permission| permission.act == act);
        let subjects: Vec<String> = subjects.map(|permission| format!("\"{}\"", permission.subject)).collect();
        if !subjects.is_empty() {
            check = check.fix(format!("add to the user's `{list}: {{ allow: [ … ] }}`: {}", subjects.join(", ")));
        }
    }
    check
}

fn no_more_than_needed(own: &OwnUser, role: Role) -> Check {
    const CHECK: &str = "limits";
    let forbidden = match role {
        Role::Edge => permission::forbidden_to_edge(),
        Role::Operator => permission::forbidden_to_operator(),
        Role::Admin => permission::forbidden_to_admin(),
        Role::All | Role::Worker | Role::Setup => {
            return Check::skipped(CHECK, "this user can read every token: guard its password");
        }
    };
    let excess = own.excess(forbidden);
    if excess.is_empty() {
        return Check::fine(CHECK, "the user has no permissions that it should not have");
    }
    let mut check = Check::warning(CHECK, "the user also has, at least in part,");
    for permission in excess {
        check = check.and(format!("  {permission}"));
    }
    check.fix("narrow the user's permissions as in nats/accounts.conf")
}

fn unknown_user(error: Option<NatsError>) -> Check {
    let found = error.map_or("the server does not answer".to_owned(), |error| error.to_string());
    Check::warning("permissions", format!("cannot be checked: {found}"))
        .fix(format!("allow the user to publish `{USER_INFO}`"))
        .fix("allow it to subscribe to its inbox (`nats.inbox_prefix`, or `_INBOX_<user>`), where answers arrive")
}

fn clock(own: &OwnUser) -> Check {
    let seconds = own.clock_ahead.as_secs_f64();
    if own.clock_ahead.abs() <= MAX_CLOCK_DIFFERENCE {
        return Check::fine("clock", format!("within {:.1} s of the server's", seconds.abs()));
    }
    Check::failed("clock", format!("the server's clock differs by {seconds:+.1} s"))
        .fix("set both clocks by NTP: credentials and refreshes depend on them")
}

fn jetstream(server: Result<Server, TopologyError>) -> Check {
    match server {
        Ok(Server { api_level, .. }) => Check::fine("JetStream", format!("enabled, API level {api_level}")),
        Err(error) => {
            let fix = if matches!(error, TopologyError::TooOld { .. }) {
                "update nats-server; `nats/bring-nats` downloads one"
            } else {
                "use a NATS user of the account that has `jetstream`, or enable it on the server and for the account, as in nats/server.conf and nats/accounts.conf"
            };
            Check::failed("JetStream", error.to_string()).fix(fix)
        }
    }
}

fn streams(found: Vec<Result<(), TopologyError>>) -> Check {
    const CHECK: &str = "streams";
    let all = found.len();
    let wrong: Vec<TopologyError> = found.into_iter().filter_map(Result::err).collect();
    if wrong.is_empty() {
        return Check::fine(CHECK, format!("all {all} streams and buckets as declared"));
    }
    let mut check = Check::failed(CHECK, format!("{} of {all} streams and buckets are not as declared", wrong.len()));
    for error in wrong {
        check = check.and(format!("  {error}"));
    }
    check
}

fn room(used: Result<Vec<StreamUse>, NatsError>) -> Check {
    const CHECK: &str = "room";
    let nearly: Vec<StreamUse> = match used {
        Ok(used) => used.into_iter().filter(StreamUse::is_nearly_full).collect(),
        Err(error) => return Check::failed(CHECK, error.to_string()),
    };
    if nearly.is_empty() {
        return Check::fine(CHECK, "no stream above 80 % of its `max_bytes`");
    }
    let mut check = Check::warning(CHECK, "streams above 80 % of their `max_bytes`:");
    for StreamUse { stream, share } in nearly {
        check = check.and(format!("  {stream}: {:.0} %", share * 100.0));
    }
    check.fix(
        "raise `nats.max_bytes`, then run `tokenbus setup`; docs/operations.md says what each stream stops above 95 %",
    )
}

fn origin_of(checked: Result<Result<(), Unconfirmed>, NatsError>) -> Check {
    const CHECK: &str = "store";
    match checked {
        Ok(Ok(())) => Check::fine(CHECK, "set up"),
        Ok(Err(unconfirmed)) => Check::failed(CHECK, unconfirmed.to_string())
            .fix("if this is a new installation, run `tokenbus setup`; otherwise restore NATS's data first"),
        Err(error) => Check::failed(CHECK, error.to_string()),
    }
}

/// Checks that the server takes messages with the largest tokens.
fn largest_message(nats: &Nats) -> Check {
    const CHECK: &str = "max payload";
    let bytes = nats.max_payload();
    if bytes >= LARGEST_MESSAGE {
        return Check::fine(CHECK, format!("{bytes} bytes"));
    }
    let check = match longest_token(bytes) {
        0 => Check::failed(CHECK, format!("{bytes} bytes: no token can be stored")),
        most => Check::warning(CHECK, format!("{bytes} bytes: access tokens over {most} bytes cannot be stored")),
    };
    check.fix("raise `max_payload` of nats-server to its default, 1MB")
}

fn writes(tested: Result<(), Unwritable>) -> Check {
    const CHECK: &str = "writes";
    match tested {
        Ok(()) => Check::fine(CHECK, "are stored"),
        Err(error) => Check::failed(CHECK, error.to_string()).fix(
            "free space on the server's disk, or raise `nats.max_bytes`; then restart nats-server if it still fails",
        ),
    }
}

async fn workers(nats: Nats) -> Check {
    // A person who asks wants to know whether messages are stored now, not whether some were refused before.
    match Backend::new(nats, Replies::new(), ANSWER_TIMEOUT).ask_for_readiness(true).await {
        Ok(()) => Check::fine("workers", "answer, and store messages"),
        Err(NotReady::Refused(reason)) => Check::failed("workers", reason).fix(
            "a worker answers, but is not ready: `tokenbus doctor --role worker`, with a worker's settings, says more",
        ),
        Err(reason) => Check::failed("workers", reason.to_string())
            .fix("start one with `tokenbus serve --role worker`; if one is running, see the permissions above"),
    }
}
