//! Requests with long parameters and many cookies, as providers and browsers send them.

use super::*;

#[tokio::test]
async fn o13_long_codes_and_scopes_pass() {
    let running = start(Limits::default()).await;
    let part = "a".repeat(16 * 1024);
    // 503: there is no bus.
    let callback = format!("/hub/integrations/oauth-callback?state=s&code={part}&scope={part}&ignored={part}");
    expect(&ask(&running, "GET", &callback, "").await, 503, &[]);
    let login = format!("/hub/integrations/slack/oauth-login/w?scopes={part}");
    expect(&ask(&running, "GET", &login, KEY).await, 503, &[]);
    expect(&ask(&running, "GET", &format!("{callback}&code={part}"), "").await, 414, &["the URI is longer than"]);
    let long = format!("/hub/integrations/oauth-callback?state=s&code={part}a");
    expect(&ask(&running, "GET", &long, "").await, 400, &["`code` is longer than 16384 bytes"]);
}

#[tokio::test]
async fn o13_many_cookies_pass_up_to_the_limit() {
    let cookies = |bytes: usize| format!("cookie: {}\r\n", "a=b; ".repeat(bytes / 5));
    let running = start(Limits::default()).await;
    expect(&ask(&running, "GET", CALLBACK, &cookies(60 * 1024)).await, 503, &[]);
    expect(&ask(&running, "GET", CALLBACK, &cookies(70 * 1024)).await, 431, &["larger than 65536 bytes", "cookies"]);
    let running = start(Limits { headers: 8 * 1024, ..Limits::default() }).await;
    expect(&ask(&running, "GET", CALLBACK, &cookies(9 * 1024)).await, 431, &["larger than 8192 bytes"]);
}

/// The HTTP library itself has this limit with HTTP/1.1 only.
#[tokio::test]
async fn o13_header_lines_have_the_same_limit_with_http2() {
    let running = start(Limits::default()).await;
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (executor, io) = (hyper_util::rt::TokioExecutor::new(), hyper_util::rt::TokioIo::new(stream));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let requests = async move {
        for (lines, status) in [(100, 200), (101, 431)] {
            let request = (0..lines).fold(Request::get("http://x/healthz"), |request, _| request.header("x", "y"));
            let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
            assert_eq!(sender.send_request(request).await.unwrap().status(), status, "{lines} lines");
        }
    };
    let ((), ended) = tokio::join!(requests, connection);
    ended.unwrap();
}

#[tokio::test]
async fn o13_an_ingress_may_leave_its_path() {
    let running = start_below("/bus", Limits::default(), None).await;
    for path in ["/healthz", "/bus/healthz", "/bus/healthz?probe=1"] {
        expect(&ask(&running, "GET", path, "").await, 200, &[]);
    }
    expect(&ask(&running, "GET", &format!("/bus{CALLBACK}"), "").await, 503, &[]);
    for path in ["/bus", "/bush/healthz", "/bus/bus/healthz"] {
        expect(&ask(&running, "GET", path, "").await, 404, &[]);
    }
}

#[tokio::test]
async fn o13_a_base_path_may_be_the_beginning_of_other_paths() {
    let running = start_below("/hub", Limits::default(), None).await;
    for path in [CALLBACK, &format!("/hub{CALLBACK}")] {
        expect(&ask(&running, "GET", path, "").await, 503, &[]);
    }
    for path in ["/healthz", "/hub/healthz"] {
        expect(&ask(&running, "GET", path, "").await, 200, &[]);
    }
    expect(&ask(&running, "GET", &format!("/hub/hub{CALLBACK}"), "").await, 404, &[]);
}
