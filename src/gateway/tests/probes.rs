//! Requests of monitoring, as load balancers and containers send them.

use super::*;

#[tokio::test]
async fn o14_probes_may_be_head_requests_with_a_query_or_a_slash() {
    let running = start(Limits::default()).await;
    for (path, status) in [("/healthz", 200), ("/readyz", 503), ("/metrics", 200)] {
        for end in ["", "/", "?probe=1", "/?probe=1", "?a&a=%"] {
            let path = format!("{path}{end}");
            let got = ask(&running, "GET", &path, "").await;
            expect(&got, status, &["content-length: "]);
            let head = ask(&running, "HEAD", &path, "").await;
            expect(&head, status, &["content-length: "]);
            assert!(head.ends_with("\r\n\r\n"), "a body follows {head}");
        }
        expect(&ask(&running, "POST", path, "content-length: 0\r\n").await, 405, &["allow: GET, HEAD"]);
    }
    // All other paths are exact.
    expect(&ask(&running, "GET", "/openapi.json/", "").await, 404, &[]);
    expect(&ask(&running, "GET", "/hub/integrations/oauth-config?x=1", KEY).await, 400, &["unknown parameter"]);
}
