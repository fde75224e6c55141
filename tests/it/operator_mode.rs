//! A server in operator mode with its full resolver: everything of tokenbus runs on it with JWTs.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use nkeys::KeyPair;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use crate::ask::{Answer, ask};
use crate::mint;
use crate::support::child::{Running, signal};
use crate::support::nats::{binary, ports};
use crate::support::tokenbus::{PROGRAM, run};
use crate::support::wait::eventually;

/// Operator, accounts, server and program.
struct World {
    operator: KeyPair,
    system: KeyPair,
    oauth: KeyPair,
    tenant: KeyPair,
    nats: String,
    url: Url,
    http: reqwest::Client,
    folder: TempDir,
    _server: Running,
    program: Running,
}

impl World {
    async fn start() -> Self {
        let (operator, folder) = (KeyPair::new_operator(), tempfile::tempdir().unwrap());
        let [system, oauth, tenant] = [(); 3].map(|()| KeyPair::new_account());
        let server = server(&operator, &system, &oauth, folder.path());
        let nats = ports(folder.path()).await;
        let [worker, resolver] = [(&oauth, "worker"), (&system, "system")].map(|(account, name)| {
            let user = KeyPair::new_user();
            file(folder.path(), name, &mint::creds(&mint::user(account, &user, &json!({})), &user))
        });
        let keys = folder.path().join("keys").to_str().unwrap().to_owned();
        let operators = format!("[\"{}\"]", operator.public_key());
        let settings: HashMap<String, String> = [
            ("NATS__URL", nats.as_str()),
            ("NATS__CREDS", &worker),
            ("HTTP__LISTEN", "127.0.0.1:0"),
            // The tests ask as fast as they can.
            ("HTTP__ADDRESS_RATE", "0"),
            ("HTTP__CREDENTIAL_RATE", "0"),
            ("SECRETS__KEYS_FILE", &keys),
            ("AUTH__NATS__OPERATORS", &operators),
            ("AUTH__NATS__SYSTEM_CREDS", &resolver),
            ("AUTH__CACHE_TTL", "1s"),
        ]
        .map(|(name, value)| (format!("TOKENBUS_{name}"), value.to_owned()))
        .into();
        run(&settings, &["keys", "generate", "--out", &keys]).await;
        run(&settings, &["setup"]).await;
        let mut program = Running::start(Path::new(PROGRAM), &folder.path().join("program.log"), |command| {
            command.envs(&settings).args(["serve", "--role", "all"]);
        });
        let url = program.line(|line| Url::parse(line.strip_prefix("listening on ")?).ok()).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let world = Self { operator, system, oauth, tenant, nats, url, http, folder, _server: server, program };
        world.push(&json!({})).await;
        let ready = async || world.get("readyz", "").await.status == 200;
        eventually("the program is ready", ready).await;
        world
    }

    /// Uploads a new JWT of the tenant to the server, as `nsc push` does.
    async fn push(&self, more: &Value) {
        self.push_to(&self.tenant, more).await;
    }

    async fn push_to(&self, account: &KeyPair, more: &Value) {
        let creds = std::fs::read_to_string(self.folder.path().join("system")).unwrap();
        let options = async_nats::ConnectOptions::with_credentials(&creds).unwrap();
        let client = options.connect(&self.nats).await.unwrap();
        let jwt = mint::account(&self.operator, account, more);
        let answer = client.request("$SYS.REQ.CLAIMS.UPDATE", jwt.into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["data"]["code"], 200, "{answer}");
    }

    async fn get(&self, path: &str, jwt: &str) -> Answer {
        let request = self.http.request(Method::GET, self.url.join(path).unwrap());
        ask(request.header("authorization", format!("Bearer {jwt}"))).await
    }

    async fn list(&self, jwt: &str) -> Answer {
        self.get("hub/integrations/oauth-connections", jwt).await
    }
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn server(operator: &KeyPair, system: &KeyPair, oauth: &KeyPair, folder: &Path) -> Running {
    let store = json!({ "limits": { "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1 } });
    let preload = [(system, json!({})), (oauth, store)]
        .map(|(account, more)| format!("  {}: {}\n", account.public_key(), mint::account(operator, account, &more)));
    let own = file(folder, "operator", &mint::operator(operator, system));
    let [resolved, stored] = ["resolver", "store"].map(|name| folder.join(name).display().to_string());
    let text = format!(
        "server_name: operated\nhost: 127.0.0.1\noperator: \"{own}\"\nsystem_account: {}\n\
         resolver {{ type: full, dir: \"{resolved}\" }}\nresolver_preload {{\n{}}}\njetstream {{ store_dir: \"{stored}\" }}\n",
        system.public_key(),
        preload.concat(),
    );
    let config = file(folder, "server.conf", &text);
    Running::start(Path::new(binary()), &folder.join("server.log"), |command| {
        command.args(["-c", &config, "-p", "-1", "--ports_file_dir"]).arg(folder);
    })
}

/// The JWT of the workers' account, after that user's has been revoked.
fn revoked(user: &KeyPair) -> Value {
    let mut account = json!({ "limits": { "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1 } });
    account["revocations"] = json!({ user.public_key(): 4_000_000_000_u64 });
    account
}

impl World {
    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("program.log")).unwrap()
    }

    /// The user of the program's credentials.
    fn user(&self) -> KeyPair {
        let creds = std::fs::read_to_string(self.folder.path().join("worker")).unwrap();
        KeyPair::from_seed(creds.lines().find(|line| line.starts_with("SU")).unwrap()).unwrap()
    }

    /// Writes the credentials of another user, and returns the user before.
    fn renew(&self, account: &KeyPair) -> KeyPair {
        let (old, user) = (self.user(), KeyPair::new_user());
        file(self.folder.path(), "worker", &mint::creds(&mint::user(account, &user, &json!({})), &user));
        old
    }
}

#[tokio::test]
async fn o2_renewed_credentials_are_used_at_the_next_connection() {
    let world = World::start().await;
    let connections = || world.log().matches(" connected to NATS").count();
    let old = world.renew(&world.oauth);
    let before = connections();
    // The server ends the connections of a user that it no longer accepts.
    world.push_to(&world.oauth, &revoked(&old)).await;
    let is_back = async || connections() > before && world.get("readyz", "").await.status == 200;
    eventually("the program connects again and is ready", is_back).await;
}

#[tokio::test]
async fn o2_a_jwt_that_has_expired_is_named() {
    let world = World::start().await;
    let user = KeyPair::new_user();
    let jwt = mint::user(&world.oauth, &user, &json!({ "exp": 1_700_000_001 }));
    let expired = file(world.folder.path(), "expired", &mint::creds(&jwt, &user));
    let mut doctor = tokio::process::Command::new(PROGRAM);
    doctor.env("TOKENBUS_NATS__URL", &world.nats).env("TOKENBUS_NATS__CREDS", &expired);
    let output = doctor.args(["doctor", "--role", "operator"]).output().await.unwrap();
    let found = String::from_utf8_lossy(&output.stdout);
    assert!(found.contains(&format!("the JWT in {expired} has expired")), "{found}");

    std::fs::copy(&expired, world.folder.path().join("worker")).unwrap();
    signal(world.program.pid(), "HUP");
    eventually("the log names the reason", async || world.log().contains("has expired: renew the file")).await;
}

#[tokio::test]
async fn o2_sighup_moves_all_connections_to_renewed_credentials_and_loses_no_request() {
    let world = World::start().await;
    let bearer = mint::user(&world.tenant, &KeyPair::new_user(), &json!({ "nats": { "bearer_token": true } }));
    let is_over = Cell::new(false);
    let requests = async || {
        let mut answered = 0;
        while !is_over.get() {
            let answer = world.list(&bearer).await;
            assert_eq!(answer.status, 200, "after {answered}: {}\n{}", answer.text, world.log());
            answered += 1;
        }
        answered
    };
    let renewals = async {
        // The server knows no such account, so the connections stay.
        let of_stranger = KeyPair::new_account();
        let mut old = world.renew(&of_stranger);
        signal(world.program.pid(), "HUP");
        eventually("the log says it", async || world.log().contains("keeps the old credentials")).await;
        for renewal in 1..=3 {
            world.renew(&world.oauth);
            signal(world.program.pid(), "HUP");
            let renewed = async || world.log().matches("connected to NATS with the renewed").count() == renewal;
            eventually("the program uses the new credentials", renewed).await;
            // No connection is left that the server would now end.
            world.push_to(&world.oauth, &revoked(&old)).await;
            old = world.user();
        }
        is_over.set(true);
    };
    let ((), first, second, third) = tokio::join!(renewals, requests(), requests(), requests());
    assert!(first + second + third > 10);
    assert!(!world.log().contains("no connection"), "{}", world.log());
    assert_eq!(world.log().matches("disconnected from NATS").count(), 3, "{}", world.log());
}

#[tokio::test]
async fn a_bearer_is_verified_with_the_account_jwt_from_the_servers_resolver() {
    let world = World::start().await;
    let (user, signing) = (KeyPair::new_user(), KeyPair::new_account());
    let jwt = mint::user(&world.tenant, &user, &json!({ "nats": { "bearer_token": true } }));
    let answer = world.list(&jwt).await;
    assert_eq!((answer.status, &answer.json()["results_total"]), (200, &json!(0)), "{}", answer.text);
    // The resolver does not know the first account. The system account is the operator's, but has no connections.
    let bearer = json!({ "nats": { "bearer_token": true } });
    let unknown = mint::user(&KeyPair::new_account(), &user, &bearer);
    assert_eq!(world.list(&unknown).await.status, 401);
    assert_eq!(world.list(&mint::user(&world.system, &user, &bearer)).await.status, 200);

    // A signing key comes with a newer JWT of the account.
    let of_account = json!({ "nats": { "bearer_token": true, "issuer_account": world.tenant.public_key() } });
    let signed = mint::user(&signing, &user, &of_account);
    assert_eq!(world.list(&signed).await.status, 401);
    world.push(&json!({ "signing_keys": [signing.public_key()] })).await;
    eventually("the new signing key is accepted", async || world.list(&signed).await.status == 200).await;

    // A revocation, too, arrives with a newer JWT of the account.
    let revoked = json!({ "revocations": { user.public_key(): tokenbus::internals::system::now().as_second() } });
    assert_eq!(world.list(&jwt).await.status, 200);
    world.push(&revoked).await;
    eventually("the user is revoked", async || world.list(&jwt).await.status == 401).await;
    assert_eq!(world.list(&signed).await.status, 401);
    let other = mint::user(&world.tenant, &KeyPair::new_user(), &bearer);
    assert_eq!(world.list(&other).await.status, 200);
}

/// Watches the look-ups of accounts at the server's resolver.
async fn lookups(world: &World) -> async_nats::Subscriber {
    let creds = std::fs::read_to_string(world.folder.path().join("system")).unwrap();
    let client = async_nats::ConnectOptions::with_credentials(&creds).unwrap().connect(&world.nats).await.unwrap();
    let lookups = client.subscribe("$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP").await.unwrap();
    client.flush().await.unwrap();
    lookups
}

/// The number of look-ups of an account until a look-up of another one, which this makes.
async fn count(world: &World, lookups: &mut async_nats::Subscriber, account: &KeyPair) -> usize {
    let (last, bearer) = (KeyPair::new_account(), json!({ "nats": { "bearer_token": true } }));
    assert_eq!(world.list(&mint::user(&last, &KeyPair::new_user(), &bearer)).await.status, 401);
    let mut found = 0;
    while let Some(lookup) = lookups.next().await {
        if lookup.subject.contains(&last.public_key()) {
            return found;
        }
        found += usize::from(lookup.subject.contains(&account.public_key()));
    }
    panic!("the subscription ended")
}

#[tokio::test]
async fn h18_look_ups_of_accounts_have_one_flight_and_need_a_self_consistent_jwt() {
    let world = World::start().await;
    let mut lookups = lookups(&world).await;
    let (account, stranger, user) = (KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_user());
    let bearer = json!({ "nats": { "bearer_token": true } });

    let claims = mint::user_claims(&account, &user, &bearer);
    let now = tokenbus::internals::system::now().as_second();
    let mut expired = claims.clone();
    expired["exp"] = json!(now - 1);
    let mut no_user = claims.clone();
    no_user["sub"] = json!(account.public_key());
    let mut of_operator = claims.clone();
    of_operator["iss"] = json!(world.operator.public_key());
    of_operator["nats"]["issuer_account"] = json!(account.public_key());
    let good = mint::sign(&account, &claims);
    for jwt in [
        mint::sign(&stranger, &claims),
        mint::sign(&account, &expired),
        mint::sign(&account, &no_user),
        mint::sign(&world.operator, &of_operator),
        mint::sign_as(&account, &json!({ "typ": "at+jwt", "alg": "ed25519-nkey" }), &claims),
        mint::sign_as(&account, &json!({ "alg": "ed25519-nkey" }), &claims),
        good[..good.len() - 8].to_owned(),
    ] {
        assert_eq!(world.list(&jwt).await.status, 401, "{jwt}");
    }
    assert_eq!(count(&world, &mut lookups, &account).await, 0, "look-ups for JWTs that prove nothing");

    let answers = join_all((0..40).map(|_| world.list(&good))).await;
    // On a slow machine some do not wait until the look-up ends.
    for answer in answers {
        assert!([401, 503].contains(&answer.status), "{}: {}", answer.status, answer.text);
    }
    let found = count(&world, &mut lookups, &account).await;
    // What was found is remembered for a second.
    assert!((1..=3).contains(&found), "{found} look-ups for 40 requests at once");
}
