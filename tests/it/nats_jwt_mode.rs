//! Operator mode: the accounts, exports, imports and users of `docs/operations.md` as JWTs, on a real server.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command as Blocking;

use async_nats::client::RequestErrorKind;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::StreamExt as _;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::child::Running;
use crate::support::nats::Nats;
use crate::support::root;
use crate::support::tokenbus::{PROGRAM, run, small_streams};

/// Exports of `OAUTH`: subject, kind, position of the account's key; without one it is private.
const EXPORTS: [(&str, &str, u8); 22] = [
    ("ms.integration.oauth.*.*.*.*", "service", 0),
    ("oauth.edge.*", "service", 0),
    ("oauth.again.*", "service", 0),
    ("oauth.reply.*.*", "stream", 0),
    ("oauth.admin.*", "service", 0),
    ("oauth.node.*.*", "service", 0),
    ("ms.integration.oauth.*.*.*", "stream", 4),
    ("ms.oauth.*.event.*.*.*", "stream", 3),
    ("ms.oauth.*.*", "service", 3),
    ("$JS.API.INFO", "service", 0),
    ("$JS.API.STREAM.NAMES", "service", 0),
    ("$JS.API.STREAM.LIST", "service", 0),
    ("$JS.API.STREAM.INFO.*", "service", 0),
    ("$JS.API.STREAM.MSG.GET.*", "service", 0),
    ("$JS.ACK.>", "service", 0),
    ("$JS.FC.>", "service", 0),
    ("$JS.API.DIRECT.GET.>", "service", 0),
    ("$JS.API.CONSUMER.>", "service", 0),
    ("$SRV.>", "service", 0),
    ("_INBOX_operator.>", "stream", 0),
    ("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", "stream", 0),
    ("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>", "stream", 0),
];
/// Exports with several answers to one request.
const SEVERAL_ANSWERS: [&str; 3] = ["$JS.API.DIRECT.GET.>", "$JS.API.CONSUMER.>", "$SRV.>"];

/// Returns true if the account imports that private export.
fn is_imported_by(account: &str, subject: &str) -> bool {
    match account {
        "OPERATOR" => subject.starts_with('$') || subject.starts_with("_INBOX_operator"),
        "ADMIN" => !is_imported_by("OPERATOR", subject),
        _ => is_imported_by("ADMIN", subject) && !["oauth.admin.*", "oauth.node.*.*"].contains(&subject),
    }
}

struct Mode {
    nats: Nats,
    keys: HashMap<&'static str, KeyPair>,
    folder: TempDir,
}

fn jwt(issuer: &KeyPair, subject: &str, name: &str, nats: &Value) -> String {
    let claims = json!({ "jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject, "name": name, "nats": nats });
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#), encode(&claims.to_string()));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn account(imports: &[Value], exports: &[Value], disk: i64) -> Value {
    json!({
        "imports": imports, "exports": exports, "type": "account", "version": 2,
        "limits": { "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1, "mem_storage": disk, "disk_storage": disk, "streams": disk, "consumer": disk },
    })
}

fn permissions(user: &str, act: &str) -> Vec<String> {
    let output = Blocking::new(root().join("nats/permissions")).args([user, act]).output().unwrap();
    assert!(output.status.success(), "nats/permissions {user} {act}");
    String::from_utf8(output.stdout).unwrap().trim_end().split(',').map(str::to_owned).collect()
}

impl Mode {
    async fn start() -> Self {
        let operator = KeyPair::new_operator();
        let keys: HashMap<_, _> = ["SYS", "OAUTH", "EDGE", "ADMIN", "OPERATOR", "acme", "other"]
            .map(|name| (name, KeyPair::new_account()))
            .into();
        let exports = EXPORTS.map(|(subject, kind, position)| match position {
            0 => {
                let mut export = json!({ "name": subject, "subject": subject, "type": kind, "token_req": true });
                if SEVERAL_ANSWERS.contains(&subject) {
                    export["response_type"] = "Stream".into();
                }
                export
            }
            _ => json!({ "name": subject, "subject": subject, "type": kind, "account_token_position": position }),
        });
        let oauth = keys["OAUTH"].public_key();
        let import =
            |subject: &str, kind: &str| json!({ "name": subject, "subject": subject, "account": oauth, "type": kind });
        let private = |account: &str| {
            let exports = EXPORTS.into_iter().filter(|(_, _, position)| *position == 0);
            let wanted = exports.filter(|(subject, _, _)| is_imported_by(account, subject));
            let imports = wanted.map(|(subject, kind, _)| {
                let claims = json!({ "subject": subject, "kind": kind, "type": "activation", "version": 2 });
                let mut import = import(subject, kind);
                import["token"] = jwt(&keys["OAUTH"], &keys[account].public_key(), subject, &claims).into();
                if subject == "oauth.node.*.*" {
                    import["local_subject"] = "ms.oauth.$1.$2".into();
                }
                import
            });
            imports.collect::<Vec<Value>>()
        };
        let mut preload = Vec::new();
        for (name, key) in &keys {
            let public = key.public_key();
            let claims = match *name {
                "OAUTH" => {
                    let mut claims = account(&[], &exports, -1);
                    claims["mappings"] = json!({ "oauth.node.*.*": [{ "subject": "ms.oauth.$1.$2" }] });
                    claims
                }
                "EDGE" | "ADMIN" | "OPERATOR" => account(&private(name), &[], 0),
                "SYS" => account(&[], &[], 0),
                _ => account(
                    &[
                        import(&format!("ms.integration.oauth.{public}.*.*"), "stream"),
                        import(&format!("ms.oauth.{public}.event.*.*.*"), "stream"),
                        import(&format!("ms.oauth.{public}.*"), "service"),
                    ],
                    &[],
                    0,
                ),
            };
            preload.push(format!("  {public}: {}\n", jwt(&operator, &public, name, &claims)));
        }
        let folder = tempfile::tempdir().unwrap();
        let system = keys["SYS"].public_key();
        let claims = json!({ "type": "operator", "version": 2, "system_account": system });
        let config = format!(
            "host: 127.0.0.1\njetstream: enabled\noperator: {}\nsystem_account: {system}\n\
             resolver {{ type: full, dir: \"{}\" }}\nresolver_preload: {{\n{}}}\n",
            jwt(&operator, &operator.public_key(), "tokenbus", &claims),
            folder.path().join("jwt").display(),
            preload.concat(),
        );
        Self { nats: Nats::configured(&config).await, keys, folder }
    }

    /// A user's credentials; without a role it has no limits of its own.
    fn creds(&self, account: &str, role: &str) -> PathBuf {
        let user = KeyPair::new_user();
        let mut claims = json!({ "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2 });
        if !role.is_empty() {
            claims["pub"] = json!({ "allow": permissions(role, "publish") });
            claims["sub"] = json!({ "allow": permissions(role, "subscribe") });
        }
        let jwt = jwt(&self.keys[account], &user.public_key(), role, &claims);
        let seed = user.seed().unwrap();
        let path = self.folder.path().join(format!("{account}{role}.creds"));
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    async fn connect(&self, account: &str, role: &str) -> async_nats::Client {
        let options = async_nats::ConnectOptions::with_credentials_file(self.creds(account, role)).await.unwrap();
        options.custom_inbox_prefix(format!("_INBOX_{role}")).connect(&self.nats.url).await.unwrap()
    }

    fn settings(&self, account: &str, role: &str) -> HashMap<String, String> {
        let pairs = [
            ("NATS__URL", self.nats.url.clone()),
            ("NATS__CREDS", self.creds(account, role).display().to_string()),
            ("NATS__INBOX_PREFIX", format!("_INBOX_{role}")),
            ("HTTP__LISTEN", "127.0.0.1:0".to_owned()),
            ("SECRETS__KEYS_FILE", self.folder.path().join("keys").display().to_string()),
        ];
        let pairs = pairs.into_iter().map(|(name, value)| (format!("TOKENBUS_{name}"), value));
        pairs.chain(small_streams()).collect()
    }
}

#[tokio::test]
async fn the_program_works_with_the_documented_users_in_operator_mode() {
    let mode = Mode::start().await;
    let (setup, worker) = (mode.settings("OAUTH", "setup"), mode.settings("OAUTH", "worker"));
    run(&setup, &["keys", "generate"]).await;
    run(&setup, &["setup"]).await;
    let log = mode.folder.path().join("log");
    let _serving = Running::start(Path::new(PROGRAM), &log, |command| {
        command.envs(&worker).args(["serve", "--role", "worker"]);
    });
    let ready = async {
        while !std::fs::read_to_string(&log).unwrap_or_default().contains("ready for commands") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let ready = tokio::time::timeout(std::time::Duration::from_mins(1), ready).await;
    assert!(ready.is_ok(), "{}", std::fs::read_to_string(&log).unwrap());
    let users =
        [("OAUTH", "worker"), ("OAUTH", "setup"), ("OPERATOR", "operator"), ("ADMIN", "admin"), ("EDGE", "edge")];
    for (account, role) in users {
        let mut doctor = Command::new(PROGRAM);
        let doctor = doctor.args(["doctor", "--role", role]).envs(mode.settings(account, role)).output().await.unwrap();
        let printed = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(doctor.status.success() && printed.ends_with("all is well\n"), "{role}: {printed}");
    }
    let (admin, acme) = (mode.settings("ADMIN", "admin"), mode.keys["acme"].public_key());
    let created = run(&admin, &["api-keys", "create", "--account", &acme]).await;
    assert!(created.starts_with("tb_"), "{created}");
    let listed = run(&admin, &["connections", "--account", &acme, "list"]).await;
    assert_eq!(listed, "no connections\n");
}

#[tokio::test]
async fn e4_two_tenants_in_operator_mode_only_reach_their_own_data() {
    let mode = Mode::start().await;
    let [acme, other] = ["acme", "other"].map(|name| mode.keys[name].public_key());
    let (worker, tenant) = (mode.connect("OAUTH", "").await, mode.connect("acme", "").await);
    let mut heard = tenant.subscribe("ms.>").await.unwrap();
    Nats::flush(&tenant).await;
    for account in [&other, &acme] {
        for subject in [
            format!("ms.integration.oauth.{account}.slack.one"),
            format!("ms.oauth.{account}.event.slack.one.connected"),
        ] {
            worker.publish(subject, account.clone().into()).await.unwrap();
        }
    }
    for _ in 0..2 {
        let message = heard.next().await.expect("its own come");
        assert!(message.subject.contains(&acme) && message.payload == acme.as_bytes(), "{}", message.subject);
    }
    // The user's own subscription would hide a missing import.
    heard.unsubscribe().await.unwrap();
    Nats::flush(&tenant).await;
    let mut calls = worker.subscribe("ms.oauth.*.*").await.unwrap();
    Nats::flush(&worker).await;
    for subject in [
        format!("ms.oauth.{other}.token"),
        "oauth.edge.whoami".to_owned(),
        format!("ms.integration.oauth.{acme}.a.b.exchange"),
    ] {
        let refused = tenant.request(subject.clone(), "".into()).await.expect_err("no responder");
        assert_eq!(refused.kind(), RequestErrorKind::NoResponders, "{subject}");
    }
    let answering = async {
        let call = calls.next().await.expect("the call comes");
        worker.publish(call.reply.expect("it wants an answer"), call.subject.to_string().into()).await.unwrap();
    };
    let own = format!("ms.oauth.{acme}.token");
    let (answer, ()) = tokio::join!(tenant.request(own.clone(), "".into()), answering);
    assert_eq!(answer.unwrap().payload, own.as_bytes());
}
