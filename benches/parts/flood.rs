//! A flood: requests at a constant rate, from a generator that leaves the cores to the service. It writes HTTP/1.1 itself, on
//! connections that stay open, and waits for no answer before the next request.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Connections at once. A request that finds all of them busy is not sent, and counted.
const CONNECTIONS: usize = 1_500;
/// Longest wait for an answer: above the gateway's deadline.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a flood takes its requests, and what becomes of a refused one.
pub(crate) trait Source: Send + Sync + 'static {
    /// The path of the next request, and its API key. `None` if none is left.
    fn next(&self) -> Option<(String, String)>;
    /// A request with this path and key was refused.
    fn refused(&self, _path: String, _key: String) {}
}

/// Times and status of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    /// When it was sent, from the beginning of the flood.
    pub(crate) at: Duration,
    /// From the time at which it should have been sent: the generator's own delay.
    pub(crate) late: Duration,
    /// From its sending to the whole answer.
    pub(crate) took: Duration,
    /// 0 without an answer.
    pub(crate) status: u16,
}

/// All requests of a flood.
#[derive(Debug, Default)]
pub(crate) struct Flooded {
    pub(crate) answers: Vec<Answered>,
    /// Requests that found no free connection.
    pub(crate) unsent: usize,
}

impl Flooded {
    pub(crate) fn count(&self, matches: impl Fn(u16) -> bool) -> usize {
        self.answers.iter().filter(|answer| matches(answer.status)).count()
    }

    /// A quantile in milliseconds of the answers that match; zero if there is none.
    pub(crate) fn quantile(&self, share: f64, matches: impl Fn(u16) -> bool) -> f64 {
        let answers = self.answers.iter().filter(|answer| matches(answer.status));
        quantile(answers.map(|answer| answer.took).collect(), share)
    }

    /// The same of the generator's delays.
    pub(crate) fn late(&self, share: f64) -> f64 {
        quantile(self.answers.iter().map(|answer| answer.late).collect(), share)
    }
}

pub(crate) fn quantile(mut times: Vec<Duration>, share: f64) -> f64 {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get((last as f64 * share).round() as usize).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// The generator's connections to a gateway.
pub(crate) struct Generator {
    address: SocketAddr,
    /// The address that it comes from, one of this machine's own.
    from: Ipv4Addr,
    idle: Mutex<Vec<TcpStream>>,
    busy: AtomicUsize,
}

impl Generator {
    pub(crate) fn new(address: SocketAddr, from: Ipv4Addr) -> Arc<Self> {
        Arc::new(Self { address, from, idle: Mutex::default(), busy: AtomicUsize::new(0) })
    }

    /// Sends requests at a constant rate for that time, and waits for the last answers.
    pub(crate) async fn flood(self: &Arc<Self>, rate: f64, lasts: Duration, source: &Arc<impl Source>) -> Flooded {
        let (began, interval) = (Instant::now(), Duration::from_secs_f64(1.0 / rate));
        let (mut tasks, mut flooded, mut due) = (JoinSet::new(), Flooded::default(), Duration::ZERO);
        while due < lasts {
            tokio::time::sleep_until((began + due).into()).await;
            // The timer has a resolution of a millisecond: all that are due by now.
            while due <= began.elapsed() && due < lasts {
                if self.busy.fetch_add(1, Ordering::Relaxed) < CONNECTIONS {
                    let (generator, source) = (Arc::clone(self), Arc::clone(source));
                    tasks.spawn(async move { generator.send(&*source, began, due).await });
                } else {
                    self.busy.fetch_sub(1, Ordering::Relaxed);
                    flooded.unsent += 1;
                }
                due += interval;
            }
            while let Some(Ok(answered)) = tasks.try_join_next() {
                flooded.answers.extend(answered);
            }
        }
        flooded.answers.extend(tasks.join_all().await.into_iter().flatten());
        flooded.answers.sort_unstable_by_key(|answered| answered.at);
        flooded
    }

    /// Closed loop for that time: each client sends its next request once it has the answer to its last.
    pub(crate) async fn closed(
        self: &Arc<Self>,
        clients: usize,
        lasts: Duration,
        source: &Arc<impl Source>,
    ) -> Flooded {
        let (began, mut tasks) = (Instant::now(), JoinSet::new());
        for _ in 0..clients {
            let (generator, source) = (Arc::clone(self), Arc::clone(source));
            tasks.spawn(async move {
                let mut answers = Vec::new();
                while began.elapsed() < lasts {
                    generator.busy.fetch_add(1, Ordering::Relaxed);
                    let Some(answered) = generator.send(&*source, began, began.elapsed()).await else { break };
                    answers.push(answered);
                }
                answers
            });
        }
        Flooded { answers: tasks.join_all().await.concat(), unsent: 0 }
    }

    async fn send(&self, source: &impl Source, began: Instant, due: Duration) -> Option<Answered> {
        let answered = match source.next() {
            Some((path, key)) => {
                let sent = Instant::now();
                let status = tokio::time::timeout(PATIENCE, self.ask(&path, &key)).await;
                let status = status.ok().and_then(Result::ok).unwrap_or(0);
                if status == 429 || status == 503 {
                    source.refused(path, key);
                }
                let at = sent - began;
                Some(Answered { at, late: at.saturating_sub(due), took: sent.elapsed(), status })
            }
            None => None,
        };
        self.busy.fetch_sub(1, Ordering::Relaxed);
        answered
    }

    /// Returns the status of the answer. A connection with an error is closed.
    async fn ask(&self, path: &str, key: &str) -> std::io::Result<u16> {
        let idle = self.idle.lock().expect("no thread panics with the lock").pop();
        let mut connection = if let Some(connection) = idle {
            connection
        } else {
            let socket = TcpSocket::new_v4()?;
            socket.bind((self.from, 0).into())?;
            socket.connect(self.address).await?
        };
        connection.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nx-api-key: {key}\r\naccept: application/json\r\n\r\n",
            self.address
        );
        connection.write_all(request.as_bytes()).await?;
        let mut answer = Vec::with_capacity(2_048);
        loop {
            if connection.read_buf(&mut answer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((status, bytes, closes)) = head(&answer)
                && answer.len() >= bytes
            {
                if !closes {
                    self.idle.lock().expect("no thread panics with the lock").push(connection);
                }
                return Ok(status);
            }
        }
    }
}

/// The status of an answer, its bytes, and whether the connection ends with it. `None` if the head has not arrived.
fn head(answer: &[u8]) -> Option<(u16, usize, bool)> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..end]).expect("heads are ASCII").to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let body: usize = body.map_or(0, |bytes| bytes.trim().parse().expect("a number"));
    Some((status, end + body, head.contains("connection: close")))
}
