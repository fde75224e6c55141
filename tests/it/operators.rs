//! The program as operators run it: probes, signals, and logs that nobody reads.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use url::Url;

use crate::bus::Bus;
use crate::provider::Provider;
use crate::support::child::signal;
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, settings};
use crate::support::wait::eventually;
use crate::world::World;

/// A gateway whose standard error is a pipe.
pub(crate) struct Gateway {
    pub(crate) child: Child,
    url: Url,
    http: reqwest::Client,
}

impl Gateway {
    pub(crate) async fn start(nats: &Nats, more: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::spawn(program(nats, more, arguments)).await
    }

    async fn spawn(mut program: Command) -> Self {
        Self::of(program.spawn().expect("the program starts")).await
    }

    pub(crate) async fn of(mut child: Child) -> Self {
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = lines.next_line().await.expect("the program prints text").expect("a line");
        let url = Url::parse(line.strip_prefix("listening on ").expect("the address")).expect("a URL");
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("an HTTP client");
        Self { child, url, http }
    }

    /// Status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let url = self.url.join(path).expect("a path makes a URL");
        let timeout = std::time::Duration::from_secs(30);
        let answer = self.http.get(url).timeout(timeout).send().await.expect("the gateway answers");
        (answer.status().as_u16(), answer.text().await.expect("a whole answer"))
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id().expect("the program runs"), name);
    }

    pub(crate) async fn ended(&mut self) {
        let ended = tokio::time::timeout(std::time::Duration::from_mins(1), self.child.wait()).await;
        assert!(ended.expect("it ends").expect("it ran").success());
    }
}

pub(crate) fn program(nats: &Nats, more: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut all: HashMap<String, String> = settings(nats, "edge", Path::new(""));
    all.insert("TOKENBUS_HTTP__ADDRESS_RATE".to_owned(), "0".to_owned());
    all.extend(more.iter().map(|(name, value)| (format!("TOKENBUS_{name}"), (*value).to_owned())));
    let mut command = Command::new(PROGRAM);
    command.envs(all).args(["serve", "--role", "edge"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn o3_a_log_that_nobody_reads_stops_nothing() {
    let nats = Nats::start().await;
    let mut gateway = Gateway::start(&nats, &[("HTTP__SHUTDOWN_DELAY", "0")], &[]).await;
    let url = gateway.url.join("healthz").expect("a URL");
    let mut clients = JoinSet::new();
    // More lines than the pipe and the queue hold.
    for _ in 0..16 {
        let (http, url) = (gateway.http.clone(), url.clone());
        clients.spawn(async move {
            for _ in 0..700 {
                let answer = http.get(url.clone()).timeout(std::time::Duration::from_secs(30)).send().await;
                assert_eq!(answer.expect("the gateway answers").status(), 200);
            }
        });
    }
    clients.join_all().await;
    let (_, metrics) = gateway.get("metrics").await;
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("tokenbus_log_lines_dropped_total "));
    assert!(dropped.expect("dropped lines are counted").parse::<u64>().expect("a number") > 0);
    gateway.signal("TERM");
    gateway.ended().await;
}

#[tokio::test]
async fn o3_a_start_does_not_wait_for_a_reader() {
    let nats = Nats::start().await;
    let (_unread, mut pipe) = std::io::pipe().expect("a pipe");
    // As much as a pipe holds.
    pipe.write_all(&vec![b'\n'; 64 * 1024]).expect("it is written");
    let full_disk = std::fs::File::options().write(true).open("/dev/full").expect("it can be written");
    for output in [OwnedFd::from(pipe.try_clone().expect("a copy")), full_disk.into()] {
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address").port();
        let address = format!("127.0.0.1:{port}");
        let mut program = program(&nats, &[("HTTP__LISTEN", &address), ("HTTP__SHUTDOWN_DELAY", "0")], &[]);
        program.stdout(output.try_clone().expect("a copy")).stderr(output);
        let child = program.spawn().expect("the program starts");
        let url = Url::parse(&format!("http://{address}")).expect("a URL");
        let mut gateway =
            Gateway { child, url, http: reqwest::Client::builder().no_proxy().build().expect("a client") };
        let url = gateway.url.join("healthz").expect("a URL");
        eventually("the gateway answers", async || gateway.http.get(url.clone()).send().await.is_ok()).await;
        gateway.signal("TERM");
        gateway.ended().await;
    }
    let mut wrong = program(&nats, &[("HTTP__LISTEN", "wrong")], &[]);
    let mut failing = wrong.stderr(pipe).spawn().expect("the program starts");
    let ended = tokio::time::timeout(std::time::Duration::from_mins(1), failing.wait()).await;
    assert!(!ended.expect("a start that fails ends").expect("it ran").success());
}

/// Runs the program with its log on a disk of 16 KiB. Once the file `free` appears in the folder, makes room on the disk.
const LOG_ON_SMALL_DISK: &str = r#"
mount -t tmpfs -o size=16k tmpfs "$1/disk" || exit 1
(while [ ! -e "$1/free" ]; do sleep 0.05; done; : > "$1/disk/log"; rm "$1/free"
 while [ ! -e "$1/end" ]; do cp "$1/disk/log" "$1/copy"; mv "$1/copy" "$1/log"; sleep 0.05; done) &
folder=$1; shift
exec "$@" 2>> "$folder/disk/log"
"#;

#[tokio::test]
async fn o3_log_lines_that_a_full_disk_refuses_are_counted_and_the_log_says_so() {
    // Only where users may mount a disk of their own.
    let namespace = std::process::Command::new("unshare").args(["-rmpf", "true"]).status();
    if !namespace.is_ok_and(|status| status.success()) {
        println!("skipped: a log on a full disk (users may not mount one here)");
        return;
    }
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("disk")).expect("it is made");
    let inner = program(&nats, &[], &[]);
    let inner = inner.as_std();
    let mut command = Command::new("unshare");
    command.args(["-rmpf", "--kill-child", "sh", "-c", LOG_ON_SMALL_DISK, "sh"]).arg(folder.path());
    command.arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let gateway = Gateway::spawn(command).await;
    let dropped = async || {
        let (_, metrics) = gateway.get("metrics").await;
        let dropped = metrics.lines().find_map(|line| line.strip_prefix("tokenbus_log_lines_dropped_total "));
        dropped.expect("dropped lines are counted").parse::<u64>().expect("a number")
    };
    eventually("the disk is full", async || dropped().await > 0).await;
    std::fs::write(folder.path().join("free"), "").expect("the folder can be written");
    eventually("the log says how many lines are missing", async || {
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        log.lines().any(|line| line.contains("log lines were dropped since the start") && line.contains("lines="))
    })
    .await;
    std::fs::write(folder.path().join("end"), "").expect("the folder can be written");
}

#[tokio::test]
async fn o15_a_process_raises_its_soft_limit_of_open_files() {
    let nats = Nats::start().await;
    let inner = program(&nats, &[], &[]);
    let inner = inner.as_std();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 256; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let gateway = Gateway::spawn(command).await;
    let id = gateway.child.id().expect("the program runs");
    let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).expect("Linux lists them");
    let limits = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("the limit");
    let [soft, hard] = [0, 1].map(|at| limits.split_whitespace().nth(at).expect("a number"));
    assert!(soft == hard && soft != "256", "{limits}");
}

#[tokio::test]
async fn o11_a_gateway_accepts_and_is_not_ready_for_a_while_after_sigterm() {
    let nats = Nats::start().await;
    let metrics = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address").to_string();
    let more = [("HTTP__SHUTDOWN_DELAY", "1h"), ("HTTP__METRICS_LISTEN", metrics.as_str())];
    let mut gateway = Gateway::start(&nats, &more, &[]).await;
    gateway.signal("TERM");
    // A balancer that sends the PROXY protocol asks the second one.
    for url in ["readyz", &format!("http://{metrics}/readyz")] {
        let is_leaving = async || {
            let (status, text) = gateway.get(url).await;
            status == 503 && text.contains("shutting down")
        };
        eventually("readiness says that the gateway ends", is_leaving).await;
    }
    // Over a new connection: the client keeps none open.
    assert_eq!(gateway.get("healthz").await.0, 200);
    gateway.signal("TERM");
    gateway.ended().await;
    let mut gateway = Gateway::start(&nats, &[("HTTP__SHUTDOWN_DELAY", "1s")], &[]).await;
    gateway.signal("TERM");
    gateway.ended().await;
}

#[tokio::test]
async fn o11_a_gateway_without_a_worker_stops_at_once() {
    let nats = Nats::start().await;
    let mut gateway = Gateway::start(&nats, &[("HTTP__SHUTDOWN_DELAY", "0")], &[]).await;
    eventually("the gateway asks for a worker", async || gateway.get("readyz").await.1.contains("worker")).await;
    let stopped = std::time::Instant::now();
    gateway.signal("TERM");
    gateway.ended().await;
    // Its question takes more than 5 s.
    assert!(stopped.elapsed() < std::time::Duration::from_secs(4), "{:?}", stopped.elapsed());
}

#[tokio::test]
async fn o14_health_asks_the_process_on_this_machine() {
    let nats = Nats::start().await;
    let gateway = Gateway::start(&nats, &[], &[]).await;
    let listen = format!("0.0.0.0:{}", gateway.url.port().expect("a port"));
    let ask = async |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.env("TOKENBUS_HTTP__LISTEN", &listen).arg("health").args(arguments);
        let output = command.output().await.expect("the program starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (code, text) = ask(&[]).await;
    assert!(code == Some(0) && text.contains("alive"), "{text}");
    let (code, text) = ask(&["--ready"]).await;
    assert!(code == Some(1) && text.contains("answers 503"), "no worker runs: {text}");
    let (code, text) = ask(&["--role", "worker"]).await;
    assert!(code == Some(1) && text.contains("http.metrics_listen"), "{text}");
    drop(gateway);
    let (code, text) = ask(&[]).await;
    assert!(code == Some(1) && text.contains("no answer") && !text.contains("provider"), "{text}");
}

#[tokio::test]
async fn o14_health_of_a_gateway_that_expects_the_proxy_protocol_from_this_machine() {
    let nats = Nats::start().await;
    let trusted = [("HTTP__PROXY_PROTOCOL", "true"), ("HTTP__TRUSTED_PROXIES", "[127.0.0.0/8]")];
    let metrics_port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let metrics_listen = format!("127.0.0.1:{metrics_port}");
    let with_metrics = [trusted[0], trusted[1], ("HTTP__METRICS_LISTEN", metrics_listen.as_str())];
    let gateway = Gateway::start(&nats, &with_metrics, &[]).await;
    let listen = format!("127.0.0.1:{}", gateway.url.port().expect("a port"));
    for (more, is_alive, expected) in
        [(&with_metrics[..], true, "alive"), (&trusted[..], false, "set `http.metrics_listen`")]
    {
        let mut command = Command::new(PROGRAM);
        command.envs(more.iter().map(|(name, value)| (format!("TOKENBUS_{name}"), value)));
        let output = command.env("TOKENBUS_HTTP__LISTEN", &listen).arg("health").output().await;
        let output = output.expect("the program starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() == is_alive && text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn o12_a_setting_with_a_wrong_value_is_named_and_not_printed() {
    let nats = Nats::start().await;
    for (name, value) in [("HTTP__MAX_CONNECTIONS", "s3cret"), ("LOG__FORMAT", "s3cret")] {
        let output = program(&nats, &[(name, value)], &[]).output().await.expect("the program starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(name) && !text.contains("s3cret"), "{text}");
    }
}

#[tokio::test]
async fn o5_scans_leave_no_consumer() {
    let world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, 200);
    let bus = Bus::of(&world.tokenbus.nats).await;
    for _ in 0..5 {
        world.tokenbus.configure(&world.config()).await;
    }
    // The repair pass at the start scans, too.
    let is_clean = async || {
        let mut consumers = 0;
        for stream in ["OAUTH", "KV_oauth_connections"] {
            consumers += bus.info(stream).await.state.consumer_count;
        }
        consumers == 0
    };
    // The server deletes an unused one after 30 s, or 2 minutes.
    let deleted = eventually("the consumers of scans are deleted", is_clean);
    tokio::time::timeout(Duration::from_secs(25), deleted).await.expect("the worker deletes them");
}

#[tokio::test]
async fn o5_the_servers_own_error_is_in_the_log() {
    let nats = Nats::edited(&[("    jetstream: enabled", "    jetstream: { max_consumers: 10 }")], &[]).await;
    let world = World::on(nats, Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, 200);
    let jetstream = Nats::jetstream(world.tokenbus.nats.connect("worker").await);
    let stream = jetstream.get_stream("KV_oauth_connections").await.expect("the bucket's stream");
    let filter_subject = "$KV.oauth_connections.>".to_owned();
    let config = pull::Config { filter_subject, ..pull::Config::default() };
    // The server allows so many for each stream.
    for _ in 0..10 {
        stream.create_consumer(config.clone()).await.expect("a consumer");
    }
    world.tokenbus.configure(&world.config()).await;
    eventually("the log has it", async || world.tokenbus.log().contains("10026")).await;
}
