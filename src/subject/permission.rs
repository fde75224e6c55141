//! Permissions that each kind of NATS user needs, and permissions it must not have. The program checks its own users against
//! these lists. `nats/accounts.conf` repeats them for the server; a test compares the two.

use std::fmt;

use super::pattern::{covers, overlap};
use super::{
    ADMIN_CALLS, ADMIN_EDGE, AGAIN_CALLS, API_KEYS, COMMANDS, CONFIGS, CONNECTIONS, EDGE_CALLS, EVENTS, JETSTREAM_INFO,
    META, NONCES, OAUTH, OAUTH_COMMANDS, OAUTH_DEAD, OAUTH_EVENTS, OAUTH_SCHEDULE, SERVICE_PING, STATES, Verb,
    WORKER_KEYS, Waiter, consumer_delete, direct_get, kv_stream, kv_subject, message_delete, message_get, stream_info,
    stream_restore, stream_snapshot,
};

/// Request for the permissions of the user that sends it.
pub(crate) const USER_INFO: &str = "$SYS.REQ.USER.INFO";

const BUCKETS: [&str; 6] = [CONNECTIONS, CONFIGS, STATES, API_KEYS, META, NONCES];
/// Streams that `setup` may delete, to create them again. The others hold what exists nowhere else.
pub(crate) const DELETABLE: [&str; 3] = [OAUTH_COMMANDS, OAUTH_SCHEDULE, OAUTH_EVENTS];
const STREAMS: [&str; 5] = [OAUTH, OAUTH_COMMANDS, OAUTH_SCHEDULE, OAUTH_DEAD, OAUTH_EVENTS];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Publish,
    Subscribe,
}

/// A permission that a user needs, or must not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    pub act: Act,
    /// May contain wildcards.
    pub subject: String,
    /// The purpose; of a forbidden permission, the harm.
    pub why: &'static str,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let act = match self.act {
            Act::Publish => "publish",
            Act::Subscribe => "subscribe",
        };
        write!(f, "{act} `{}` ({})", self.subject, self.why)
    }
}

/// A user's permissions for one act, in the form of the server's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Allowed subjects. Empty allows all.
    pub allow: Vec<String>,
    /// Exceptions from `allow`.
    pub deny: Vec<String>,
}

impl Rules {
    /// Returns true if one `allow` rule covers the whole pattern and no `deny` rule touches it. Several rules that cover the
    /// pattern only together do not count.
    #[must_use]
    pub(crate) fn allow_all_of(&self, pattern: &str) -> bool {
        let allowed = self.allow.is_empty() || self.allow.iter().any(|rule| covers(subject_of(rule), pattern));
        allowed && !self.deny.iter().any(|rule| overlap(subject_of(rule), pattern))
    }

    /// Returns true if at least one subject that matches the pattern may be allowed.
    #[must_use]
    pub(crate) fn allow_some_of(&self, pattern: &str) -> bool {
        let allowed = self.allow.is_empty() || self.allow.iter().any(|rule| overlap(subject_of(rule), pattern));
        allowed && !self.deny.iter().any(|rule| covers(subject_of(rule), pattern))
    }
}

/// Strips the queue name that may follow the subject in a rule for subscriptions.
fn subject_of(rule: &str) -> &str {
    rule.split_whitespace().next().unwrap_or_default()
}

fn publish(why: &'static str, subjects: impl IntoIterator<Item = impl Into<String>>) -> Vec<Permission> {
    let all = subjects.into_iter().map(|subject| Permission { act: Act::Publish, subject: subject.into(), why });
    all.collect()
}

fn subscribe(why: &'static str, subjects: impl IntoIterator<Item = impl Into<String>>) -> Vec<Permission> {
    let all = subjects.into_iter().map(|subject| Permission { act: Act::Subscribe, subject: subject.into(), why });
    all.collect()
}

fn needed_by_all(inbox_prefix: &str) -> Vec<Permission> {
    subscribe("its own inbox: `nats.inbox_prefix`", [format!("{inbox_prefix}.>")])
}

#[must_use]
pub(crate) fn needed_by_edge(inbox_prefix: &str, waiter: &Waiter) -> Vec<Permission> {
    let exchange = format!("ms.integration.oauth.*.*.*.{}", Verb::Exchange);
    let configs = [Verb::Put, Verb::Delete].map(Verb::filter);
    [
        needed_by_all(inbox_prefix),
        publish("to call workers", [EDGE_CALLS, AGAIN_CALLS]),
        publish("to pass callbacks on", [exchange]),
        publish("to pass configs on", configs),
        subscribe("replies to its commands", [waiter.replies()]),
    ]
    .concat()
}

#[must_use]
pub fn needed_by_worker(inbox_prefix: &str) -> Vec<Permission> {
    let streams = STREAMS.into_iter().map(str::to_owned).chain(BUCKETS.map(kv_stream));
    let read = [OAUTH, OAUTH_EVENTS, OAUTH_DEAD].map(str::to_owned).into_iter().chain(BUCKETS.map(kv_stream));
    let queues = [OAUTH_COMMANDS, OAUTH_SCHEDULE];
    let listed = [CONNECTIONS, CONFIGS, STATES, API_KEYS].map(kv_stream).into_iter().chain([OAUTH.to_owned()]);
    [
        needed_by_all(inbox_prefix),
        publish("to store records", ["oauth.record.*.*.*", "oauth.record.config.*"]),
        publish("to write buckets", BUCKETS.map(|bucket| kv_subject(bucket, ">"))),
        publish("to queue refreshes and deletions", [COMMANDS]),
        publish("to schedule refreshes", ["ms.integration.oauth.*.*.*.refresh.at"]),
        publish("to publish events", [EVENTS]),
        publish("to publish dead letters", ["oauth.dead.*.*.*.*"]),
        publish("to answer commands", ["oauth.reply.*.*", "oauth.reply.worker.*.*"]),
        publish("to answer calls from other accounts", ["_R_.>"]),
        publish("to read the limits of JetStream", [JETSTREAM_INFO]),
        publish("to check the configuration of streams", streams.map(|name| stream_info(&name))),
        publish("to read stored values", read.clone().map(|name| message_get(&name))),
        publish("to list stored values", listed.map(|name| format!("$JS.API.CONSUMER.CREATE.{name}.>"))),
        publish("to declare consumers", queues.map(|name| format!("$JS.API.CONSUMER.CREATE.{name}.>"))),
        publish("to create consumers again", queues.map(|name| consumer_delete(name, "*"))),
        publish("to find consumers", queues.map(|name| format!("$JS.API.CONSUMER.INFO.{name}.*"))),
        publish("to take commands", queues.map(|name| format!("$JS.API.CONSUMER.MSG.NEXT.{name}.*"))),
        publish("to cancel schedules", [format!("$JS.API.STREAM.PURGE.{OAUTH_SCHEDULE}")]),
        publish("to read stored values of one server, and pages", read.map(|name| direct_get(&name))),
        publish("to ask other workers for their sealing keys", [WORKER_KEYS]),
        publish("to remove unreadable commands from the queue", [message_delete(OAUTH_COMMANDS)]),
        publish("to drop dead letters", [message_delete(OAUTH_DEAD)]),
        publish("to list dead letters", [format!("$JS.API.CONSUMER.CREATE.{OAUTH_DEAD}.>")]),
        publish("to read commands in progress", [message_get(OAUTH_COMMANDS)]),
        publish("to confirm commands", ["$JS.ACK.>"]),
        publish("to list stored values", ["$JS.FC.>"]),
        subscribe("calls of gateways", [EDGE_CALLS, AGAIN_CALLS]),
        subscribe("calls of the admin", [ADMIN_CALLS]),
        subscribe("calls of nodes", ["ms.oauth.*.*", "$SRV.>"]),
        subscribe("questions of other workers", [WORKER_KEYS]),
        subscribe("replies to its own commands", [Waiter::Worker("*".to_owned()).replies()]),
    ]
    .concat()
}

/// For people who inspect the bus with the `nats` CLI or `tokenbus doctor`.
#[must_use]
pub(crate) fn needed_by_operator(inbox_prefix: &str) -> Vec<Permission> {
    let shown =
        [CONNECTIONS, CONFIGS, META].map(kv_stream).into_iter().chain([OAUTH_EVENTS, OAUTH_DEAD].map(Into::into));
    let reads = shown.flat_map(|name| {
        [
            message_get(&name),
            direct_get(&name),
            format!("$JS.API.DIRECT.GET.{name}.>"),
            format!("$JS.API.CONSUMER.CREATE.{name}.>"),
        ]
    });
    [
        needed_by_all(inbox_prefix),
        publish("to find streams", [JETSTREAM_INFO, "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST"]),
        publish("to inspect streams and consumers", ["$JS.API.STREAM.INFO.*", "$JS.API.CONSUMER.INFO.*.*"]),
        publish("to find consumers", ["$JS.API.CONSUMER.NAMES.*", "$JS.API.CONSUMER.LIST.*"]),
        publish("to read sealed values, events and dead letters", reads),
        publish("to find workers that serve calls", ["$SRV.>"]),
    ]
    .concat()
}

/// For `tokenbus setup`.
#[must_use]
pub(crate) fn needed_by_setup(inbox_prefix: &str) -> Vec<Permission> {
    let streams = || STREAMS.into_iter().map(str::to_owned).chain(BUCKETS.map(kv_stream));
    [
        needed_by_all(inbox_prefix),
        publish("to read the limits of JetStream", [JETSTREAM_INFO]),
        publish("to check the configuration of streams", streams().map(|name| stream_info(&name))),
        publish("to declare streams", ["$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.*"]),
        publish("to read stored values", streams().map(|name| message_get(&name))),
        publish("to list stored values", BUCKETS.map(|name| format!("$JS.API.CONSUMER.CREATE.{}.>", kv_stream(name)))),
        publish("to write buckets", BUCKETS.map(|bucket| kv_subject(bucket, ">"))),
        publish("to replace tombstones of an older store", ["oauth.record.*.*.*"]),
        publish("to raise the sequence of records", [format!("$JS.API.STREAM.PURGE.{OAUTH}")]),
        publish("to write its event", ["ms.oauth._.event._._.store_set_up"]),
        publish("to find workers before a backup", [format!("$JS.API.CONSUMER.INFO.{OAUTH_COMMANDS}.*")]),
        publish("to find workers that answer calls", [SERVICE_PING]),
        publish("to back streams up", streams().map(|name| stream_snapshot(&name))),
        publish("to receive the chunks of a snapshot", streams().map(|name| format!("$JS.SNAPSHOT.ACK.{name}.>"))),
        publish("to create streams again", DELETABLE.map(|name| format!("$JS.API.STREAM.DELETE.{name}"))),
        publish("to restore streams", streams().map(|name| stream_restore(&name))),
        publish("to send the chunks of a snapshot", streams().map(|name| format!("$JS.SNAPSHOT.RESTORE.{name}.*"))),
    ]
    .concat()
}

/// For people who change data with `tokenbus` commands, in an account of their own.
#[must_use]
pub(crate) fn needed_by_admin(inbox_prefix: &str) -> Vec<Permission> {
    [
        needed_by_all(inbox_prefix),
        publish("to manage API keys, events and dead letters", [ADMIN_CALLS]),
        publish("to call workers with an API key", [EDGE_CALLS, AGAIN_CALLS]),
        publish("to make nodes' calls", ["ms.oauth.*.*"]),
        publish("to change configs", [Verb::Put, Verb::Delete].map(Verb::filter)),
        subscribe("replies to its commands", [Waiter::Edge(ADMIN_EDGE.to_owned()).replies()]),
    ]
    .concat()
}

/// With any of these, an attacker who has the admin's password could write into buckets past the workers.
#[must_use]
pub(crate) fn forbidden_to_admin() -> Vec<Permission> {
    [
        publish("to write buckets", ["$KV.>"]),
        publish("to use JetStream", ["$JS.API.>"]),
        publish("to write records", ["oauth.record.>"]),
    ]
    .concat()
}

/// With any of these, an attacker who controls a gateway could read or change stored data.
#[must_use]
pub(crate) fn forbidden_to_edge() -> Vec<Permission> {
    [
        subscribe(
            "tokens, commands and calls of all accounts",
            ["ms.>", "oauth.edge.>", "oauth.again.>", "oauth.record.>", "oauth.reply.worker.*.*"],
        ),
        subscribe("writes to buckets", ["$KV.>"]),
        publish("to write records or tokens", ["oauth.record.>", "ms.integration.oauth.*.*.*"]),
        publish("to write buckets", ["$KV.>"]),
        publish("to use JetStream", ["$JS.API.>"]),
        publish("to call as any account's node", ["ms.oauth.>"]),
    ]
    .concat()
}

/// An operator must not read tokens and must not write.
#[must_use]
pub(crate) fn forbidden_to_operator() -> Vec<Permission> {
    let read = [
        "STREAM.MSG.GET.OAUTH",
        "DIRECT.GET.OAUTH",
        "DIRECT.GET.OAUTH.>",
        "CONSUMER.CREATE.OAUTH",
        "CONSUMER.CREATE.OAUTH.>",
        "CONSUMER.DURABLE.CREATE.OAUTH.*",
        "CONSUMER.MSG.NEXT.OAUTH.*",
        "STREAM.SNAPSHOT.OAUTH",
    ];
    let write = ["CREATE", "UPDATE", "DELETE", "PURGE", "RESTORE"].map(|act| format!("$JS.API.STREAM.{act}.*"));
    [
        subscribe("tokens, commands and calls of all accounts", ["ms.>", "oauth.>"]),
        subscribe("writes to buckets", ["$KV.>"]),
        publish("to read records and their tokens", read.map(|end| format!("$JS.API.{end}"))),
        publish("to create, change or purge streams", write),
        publish("to write", ["oauth.>", "ms.>", "$KV.>"]),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_allow_what_they_cover_and_do_not_deny() {
        #[track_caller]
        fn check(allow: &[&str], deny: &[&str], pattern: &str, expected: (bool, bool)) {
            let texts = |rules: &[&str]| rules.iter().map(|&rule| rule.to_owned()).collect();
            let rules = Rules { allow: texts(allow), deny: texts(deny) };
            assert_eq!((rules.allow_all_of(pattern), rules.allow_some_of(pattern)), expected, "{rules:?} {pattern}");
        }
        check(&[], &[], "a.>", (true, true));
        check(&["a.*"], &[], "a.b", (true, true));
        check(&["a.b"], &[], "a.*", (false, true));
        check(&["a.>"], &["a.b"], "a.*", (false, true));
        check(&["a.>"], &["a.b"], "a.b", (false, false));
        check(&[], &["a.>"], "a.b", (false, false));
        check(&["a.> queue"], &[], "a.b", (true, true));
        check(&["c.>"], &[], "a.b", (false, false));
    }

    #[test]
    fn no_needed_permission_is_forbidden() {
        for (needed, forbidden) in [
            (needed_by_edge("_INBOX_edge", &Waiter::Edge("x".to_owned())), forbidden_to_edge()),
            (needed_by_operator("_INBOX_operator"), forbidden_to_operator()),
            (needed_by_admin("_INBOX_admin"), forbidden_to_admin()),
        ] {
            for Permission { act, subject, .. } in needed {
                let meets = |other: &&Permission| other.act == act && overlap(&other.subject, &subject);
                assert_eq!(forbidden.iter().find(meets), None, "{subject}");
            }
        }
    }
}
