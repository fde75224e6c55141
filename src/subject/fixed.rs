//! Names that hold no variable part: streams, buckets, and the subjects that streams and consumers filter by.

/// Stream of connection and config records.
pub(crate) const OAUTH: &str = "OAUTH";
/// Work queue of commands.
pub(crate) const OAUTH_COMMANDS: &str = "OAUTH_COMMANDS";
/// Stream of scheduled refreshes and of those that are due.
pub(crate) const OAUTH_SCHEDULE: &str = "OAUTH_SCHEDULE";
/// Stream of dead letters: commands, and events that a webhook did not accept.
pub(crate) const OAUTH_DEAD: &str = "OAUTH_DEAD";
/// Stream of audit events.
pub(crate) const OAUTH_EVENTS: &str = "OAUTH_EVENTS";

/// Bucket of stored connections, key `<account>.<integration>.<name>`.
pub const CONNECTIONS: &str = "oauth_connections";
/// Bucket of current configs, key `<integration>`.
pub(crate) const CONFIGS: &str = "oauth_configs";
/// Bucket of pending logins, key `<hash of state>.<account>`, and of their start tickets, key
/// `<hash of ticket>.<account>.start`.
pub(crate) const STATES: &str = "oauth_states";
/// Bucket of API keys, key `<key id>`.
pub(crate) const API_KEYS: &str = "oauth_api_keys";
/// Bucket of used nonces of signed requests, key = hash of user and nonce.
pub(crate) const NONCES: &str = "oauth_nonces";
/// Bucket of what all workers share about the stored data, keys [`META_FORM`], [`META_KEYS`], [`META_HIGH_WATER`],
/// [`META_REPAIR`], [`META_SERVER`], [`META_RESTORED`] and
/// [`META_REBUILD`].
pub(crate) const META: &str = "oauth_meta";
/// Key in [`META`]: ids of the sealing keys in use.
pub(crate) const META_KEYS: &str = "keys";
/// Key in [`META`]: highest sequences seen in the buckets, and the checkpoints up to which they were read.
pub(crate) const META_HIGH_WATER: &str = "marks";
/// Key in [`META`]: form of the stored values.
pub(crate) const META_FORM: &str = "form";
/// Key in [`META`]: who made the streams, until `tokenbus setup` confirms them.
pub(crate) const META_ORIGIN: &str = "origin";
/// Key in [`META`]: start time of the last repair pass.
pub(crate) const META_REPAIR: &str = "repair";
/// Key in [`META`]: id of the server, if it may lose acknowledged commands when it crashes.
pub(crate) const META_SERVER: &str = "server";
/// Key in [`META`]: id of the restored backup that a repair pass has seen.
pub(crate) const META_RESTORED: &str = "restored";
/// Key in [`META`]: the backup of the streams that `tokenbus setup --rebuild` creates again.
pub(crate) const META_REBUILD: &str = "rebuild";

/// Key in a bucket: written to find out whether the server stores messages again.
pub(crate) const TEST_KEY: &str = "room";
/// The same for the stream `OAUTH`, and the subject under which it stores the message for a second. No tenant can subscribe to
/// it: `room` is no account.
pub(crate) const RECORDS_TEST: &str = "oauth.record.room.room.room";
pub(crate) const RECORDS_TEST_STORED: &str = "ms.integration.oauth.room.room.room";
/// The same for the stream `OAUTH_COMMANDS`. No consumer takes it: `room` is no verb.
pub(crate) const COMMANDS_TEST: &str = "ms.integration.oauth.room.room.room.room";
/// Key in [`META`]: written to find out whether the server has a majority.
pub(crate) const META_MAJORITY: &str = "majority";

/// Subjects that the stream `OAUTH` accepts; it stores their messages under [`RECORDS_STORED`].
pub(crate) const RECORDS_IN: &str = "oauth.record.>";
pub(crate) const RECORDS_STORED: &str = "ms.integration.oauth.>";
/// Stored connection records. The server republishes each to [`TOKENS_OUT`] once it is committed.
pub(crate) const TOKENS: &str = "ms.integration.oauth.*.*.*";
/// The same subject, in the form of a republish target.
pub(crate) const TOKENS_OUT: &str = "ms.integration.oauth.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}";
pub(crate) const COMMANDS: &str = "ms.integration.oauth.*.*.*.*";
pub(crate) const SCHEDULES: &str = "ms.integration.oauth.*.*.*.refresh.*";
pub(crate) const SCHEDULES_DUE: &str = "ms.integration.oauth.*.*.*.refresh.due";
pub(crate) const DEAD_LETTERS: &str = "oauth.dead.>";
pub(crate) const EVENTS: &str = "ms.oauth.*.event.*.*.*";
/// Takes the place of a gateway's id in the reply subjects of the program's own commands.
pub(crate) const ADMIN_EDGE: &str = "admin";
/// All calls of gateways.
pub(crate) const EDGE_CALLS: &str = "oauth.edge.*";
/// Second tries of gateways' calls, to all workers.
pub(crate) const AGAIN_CALLS: &str = "oauth.again.*";
/// All calls of the account ADMIN.
pub(crate) const ADMIN_CALLS: &str = "oauth.admin.*";
/// Request for the account's JetStream limits.
pub(crate) const JETSTREAM_INFO: &str = "$JS.API.INFO";
/// Question that the service `tokenbus` of each worker answers.
pub(crate) const SERVICE_PING: &str = "$SRV.PING.tokenbus";
/// Request to all workers for the ids of the sealing keys that they hold.
pub(crate) const WORKER_KEYS: &str = "oauth.worker.keys";
