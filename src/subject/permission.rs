//! What each kind of user needs on the bus, and what it must not have: what `nats/accounts.conf` writes out for the
//! server, for the program's own check. A test compares the two.

use std::fmt;

use super::pattern::{covers, overlap};
use super::{
    API_KEYS, COMMANDS, CONFIGS, CONNECTIONS, EDGE_CALLS, EVENTS, JETSTREAM_INFO, META, NONCES, OAUTH, OAUTH_COMMANDS,
    OAUTH_DEAD, OAUTH_EVENTS, OAUTH_SCHEDULE, STATES, Verb, WORKER_KEYS, Waiter, direct_get, kv_stream, kv_subject,
    message_delete, message_get, stream_info,
};

/// What a connection asks the server about itself.
pub const USER_INFO: &str = "$SYS.REQ.USER.INFO";

const BUCKETS: [&str; 6] = [CONNECTIONS, CONFIGS, STATES, API_KEYS, META, NONCES];
const STREAMS: [&str; 5] = [OAUTH, OAUTH_COMMANDS, OAUTH_SCHEDULE, OAUTH_DEAD, OAUTH_EVENTS];

/// A thing that a user may do with subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Send there.
    Publish,
    /// Listen there.
    Subscribe,
}

/// Something that a user of the bus needs, or must not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// What to do.
    pub act: Act,
    /// Where; may hold wildcards.
    pub subject: String,
    /// What for, or what would come of it.
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

/// A list of subjects that the server allows, minus those that it denies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// What is allowed; empty: everything.
    pub allow: Vec<String>,
    /// What is not, all the same.
    pub deny: Vec<String>,
}

impl Rules {
    /// Whether everything that the pattern stands for is allowed by one rule and denied by none.
    #[must_use]
    pub fn allow_all_of(&self, pattern: &str) -> bool {
        let allowed = self.allow.is_empty() || self.allow.iter().any(|rule| covers(subject_of(rule), pattern));
        allowed && !self.deny.iter().any(|rule| overlap(subject_of(rule), pattern))
    }

    /// Whether something that the pattern stands for is allowed.
    #[must_use]
    pub fn allow_some_of(&self, pattern: &str) -> bool {
        let allowed = self.allow.is_empty() || self.allow.iter().any(|rule| overlap(subject_of(rule), pattern));
        allowed && !self.deny.iter().any(|rule| covers(subject_of(rule), pattern))
    }
}

/// A rule for subscriptions may name a queue behind its subject.
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

fn everybody(inbox_prefix: &str) -> Vec<Permission> {
    subscribe("its own inbox: `nats.inbox_prefix`", [format!("{inbox_prefix}.>")])
}

/// What a gateway needs.
#[must_use]
pub fn needed_by_edge(inbox_prefix: &str, waiter: &Waiter) -> Vec<Permission> {
    let exchange = format!("ms.integration.oauth.*.*.*.{}", Verb::Exchange);
    let configs = [Verb::Put, Verb::Delete].map(Verb::filter);
    [
        everybody(inbox_prefix),
        publish("to call workers", [EDGE_CALLS]),
        publish("to hand callbacks on", [exchange]),
        publish("to hand configs on", configs),
        subscribe("answers to its commands", [waiter.replies()]),
    ]
    .concat()
}

/// What a worker needs.
#[must_use]
pub fn needed_by_worker(inbox_prefix: &str) -> Vec<Permission> {
    let streams = STREAMS.into_iter().map(str::to_owned).chain(BUCKETS.map(kv_stream));
    let read = [OAUTH.to_owned(), OAUTH_EVENTS.to_owned()].into_iter().chain(BUCKETS.map(kv_stream));
    let queues = [OAUTH_COMMANDS, OAUTH_SCHEDULE];
    let listed = [CONNECTIONS, CONFIGS, STATES, API_KEYS].map(kv_stream);
    [
        everybody(inbox_prefix),
        publish("to store records", ["oauth.record.*.*.*", "oauth.record.config.*"]),
        publish("to keep buckets", BUCKETS.map(|bucket| kv_subject(bucket, ">"))),
        publish("to queue refreshes and deletions", [COMMANDS]),
        publish("to schedule refreshes", ["ms.integration.oauth.*.*.*.refresh.at"]),
        publish("to leave events", [EVENTS]),
        publish("to leave dead letters", ["oauth.dead.*.*.*.*"]),
        publish("to answer commands", ["oauth.reply.*.*", "oauth.reply.worker.*.*"]),
        publish("to answer calls from other accounts", ["_R_.>"]),
        publish("to see what the server is", [JETSTREAM_INFO]),
        publish("to see that streams are as they must be", streams.map(|name| stream_info(&name))),
        publish("to read what is stored", read.map(|name| message_get(&name))),
        publish("to list what is stored", listed.map(|name| format!("$JS.API.CONSUMER.CREATE.{name}.>"))),
        publish("to declare consumers", queues.map(|name| format!("$JS.API.CONSUMER.CREATE.{name}.>"))),
        publish("to find consumers", queues.map(|name| format!("$JS.API.CONSUMER.INFO.{name}.*"))),
        publish("to take commands", queues.map(|name| format!("$JS.API.CONSUMER.MSG.NEXT.{name}.*"))),
        publish("to take schedules back", [format!("$JS.API.STREAM.PURGE.{OAUTH_SCHEDULE}")]),
        publish("to take deleted connections out", [format!("$JS.API.STREAM.PURGE.{}", kv_stream(CONNECTIONS))]),
        publish("to read pages", [direct_get(&kv_stream(CONNECTIONS))]),
        publish("to ask other workers what they seal with", [WORKER_KEYS]),
        publish("to take unreadable commands off the queue", [message_delete(OAUTH_COMMANDS)]),
        publish("to look at commands under way", [message_get(OAUTH_COMMANDS)]),
        publish("to confirm commands", ["$JS.ACK.>"]),
        publish("to list what is stored", ["$JS.FC.>"]),
        subscribe("the gateways' calls", [EDGE_CALLS]),
        subscribe("the nodes' calls", ["ms.oauth.*.*", "$SRV.>"]),
        subscribe("what other workers ask", [WORKER_KEYS]),
        subscribe("answers to its own commands", [Waiter::Worker("*".to_owned()).replies()]),
    ]
    .concat()
}

/// What people need who look, with the `nats` CLI or `tokenbus doctor`.
#[must_use]
pub fn needed_by_operator(inbox_prefix: &str) -> Vec<Permission> {
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
        everybody(inbox_prefix),
        publish("to see what the server is", [JETSTREAM_INFO, "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST"]),
        publish("to see how streams are", ["$JS.API.STREAM.INFO.*", "$JS.API.CONSUMER.INFO.*.*"]),
        publish("to see how streams are", ["$JS.API.CONSUMER.NAMES.*", "$JS.API.CONSUMER.LIST.*"]),
        publish("to look at sealed values, events and dead letters", reads),
        publish("to see who serves calls", ["$SRV.>"]),
    ]
    .concat()
}

/// What people need who change things with the program's commands.
#[must_use]
pub fn needed_by_admin(inbox_prefix: &str) -> Vec<Permission> {
    [
        needed_by_operator(inbox_prefix),
        publish("to declare streams", ["$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.*"]),
        publish("to keep API keys and key ids", [API_KEYS, META].map(|bucket| kv_subject(bucket, ">"))),
        publish("to read API keys", [message_get(&kv_stream(API_KEYS))]),
        publish("to drop dead letters", [message_delete(OAUTH_DEAD)]),
        publish("to have records go on with a higher sequence", [format!("$JS.API.STREAM.PURGE.{OAUTH}")]),
        publish("to leave events of API keys", ["ms.oauth.*.event._._.*"]),
        publish("to call workers", [EDGE_CALLS, "ms.oauth.*.*"]),
        publish("to send commands", [COMMANDS]),
    ]
    .concat()
}

/// What a gateway must not have: with it, whoever takes it over reads or changes what is stored.
#[must_use]
pub fn forbidden_to_edge() -> Vec<Permission> {
    [
        subscribe(
            "tokens, commands and calls of all",
            ["ms.>", "oauth.edge.>", "oauth.record.>", "oauth.reply.worker.*.*"],
        ),
        subscribe("what is written into buckets", ["$KV.>"]),
        publish("to write records or tokens", ["oauth.record.>", "ms.integration.oauth.*.*.*"]),
        publish("to write buckets", ["$KV.>"]),
        publish("to use JetStream", ["$JS.API.>"]),
        publish("to call as any account's node", ["ms.oauth.>"]),
    ]
    .concat()
}

/// What an operator must not have: tokens are not for it, and nothing to write.
#[must_use]
pub fn forbidden_to_operator() -> Vec<Permission> {
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
        subscribe("tokens, commands and calls of all", ["ms.>", "oauth.>"]),
        subscribe("what is written into buckets", ["$KV.>"]),
        publish("to read records, with the tokens", read.map(|end| format!("$JS.API.{end}"))),
        publish("to make, change or empty streams", write),
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
    fn what_is_needed_is_not_forbidden() {
        for (needed, forbidden) in [
            (needed_by_edge("_INBOX_edge", &Waiter::Edge("x".to_owned())), forbidden_to_edge()),
            (needed_by_operator("_INBOX_operator"), forbidden_to_operator()),
        ] {
            for Permission { act, subject, .. } in needed {
                let meets = |other: &&Permission| other.act == act && overlap(&other.subject, &subject);
                assert_eq!(forbidden.iter().find(meets), None, "{subject}");
            }
        }
    }
}
