//! Forms in which providers send token answers: compressed, in odd encodings, with fields of other names.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::provider::{Provider, Received, Scripted};
use crate::world::World;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

/// An answer with that content coding.
fn coded(coding: &str, body: impl Into<bytes::Bytes>) -> Scripted {
    let mut answer = Scripted::new(200, "application/json", body);
    answer.headers.push(("content-encoding", coding.to_owned()));
    answer
}

#[tokio::test]
async fn c3_compressed_answers_are_read_though_none_was_asked_for() {
    let provider = Provider::start(|number, _: &Received| match number {
        0 => coded("gzip", gzip(&json!({"access_token": "at-gzip", "refresh_token": "rt"}).to_string())),
        1 => coded("gzip", r#"{"access_token":"at-plain"}"#),
        // A megabyte in 900 bytes.
        _ => coded("gzip", gzip(&format!(r#"{{"access_token":"at","more":"{}"}}"#, "x".repeat(1024 * 1024)))),
    })
    .await;
    let world = World::with(provider).await;
    let (status, body) = world.connect("gzip").await;
    assert_eq!((status.as_u16(), &body["access_token"]), (200, &json!("at-gzip")), "{body}");
    assert_eq!(world.provider.received()[0].headers.get("accept-encoding"), None);
    let (status, body) = world.connect("plain").await;
    assert_eq!((status.as_u16(), &body["access_token"]), (200, &json!("at-plain")), "{body}");
    let (status, body) = world.connect("bomb").await;
    assert_eq!(status.as_u16(), 502, "{body}");
}
