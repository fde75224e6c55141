use http_body_util::BodyExt as _;
use hyper::header;

use super::*;

fn target(return_to: Option<&str>) -> LoginTarget {
    serde_json::from_value(json!({
        "integration_id": "slack-1", "integration_name": "Slack", "connection_id": "workspace1", "return_to": return_to,
    }))
    .unwrap()
}

async fn shown(status: u16, outcome: Outcome<'_>, target: Option<&LoginTarget>) -> (String, String) {
    let reply = reply(StatusCode::from_u16(status).unwrap(), &outcome, target);
    let policy = reply.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    (policy, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn b9_without_return_to_there_is_no_script() {
    let (policy, html) = shown(200, Outcome::Connected(None), Some(&target(None))).await;
    assert!(html.contains("<h1>Slack is connected</h1>") && html.contains("You can close this window"));
    assert!(!html.contains("<script") && !policy.contains("script-src") && !html.contains("data-message"));
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"));
    assert!(policy.contains("frame-ancestors 'none'"));
}

#[tokio::test]
async fn b9_the_message_goes_to_the_exact_origin() {
    let target = target(Some("https://app.example.com:8443/done?x=1&y=\"2\"#here"));
    let (policy, html) = shown(200, Outcome::Connected(None), Some(&target)).await;
    assert!(policy.contains("script-src 'sha256-"));
    assert!(html.contains(r#"data-origin="https://app.example.com:8443""#));
    assert!(html.contains(r#"href="https://app.example.com:8443/done?x=1&amp;y=%222%22#here""#));
    assert!(html.contains("Back to app.example.com:8443</a>"));
    for part in ["&quot;type&quot;:&quot;tokenbus&quot;", "&quot;status&quot;:&quot;connected&quot;"] {
        assert!(html.contains(part), "{part} not in {html}");
    }
    assert!(!html.contains("&quot;error&quot;"));
}

#[tokio::test]
async fn b6_the_providers_text_is_escaped_everywhere() {
    let said = "access_denied: </script><script>alert(1)</script><a href='//x'>\"";
    let hint = Hint { cause: Cause::Client, text: said.to_owned() };
    let failed = Outcome::Failed { error: said, reason: Some(said), hint: Some(&hint) };
    let (_, html) = shown(400, failed, Some(&target(Some("https://app.example.com/")))).await;
    assert_eq!(html.matches("<script>").count(), 1, "only our own script");
    assert!(!html.contains("alert(1)</script>") && !html.contains("<a href='"));
    assert!(html.contains("&quot;status&quot;:&quot;error&quot;"));
    assert!(html.contains("&lt;/script&gt;"));
}

#[tokio::test]
async fn b8_unsafe_return_links_are_dropped() {
    for odd in ["//x.example", "\\\\x.example", "javascript:alert(1)", "https://a@x.example/", "data:text/html,x", "x"]
    {
        let (_, html) = shown(200, Outcome::Connected(None), Some(&target(Some(odd)))).await;
        assert!(!html.contains("href=") && !html.contains("<script"), "{odd}");
    }
}

#[tokio::test]
async fn each_failure_tells_the_person_what_to_do() {
    for status in [400, 429, 502, 503, 504] {
        let (_, html) = shown(status, Outcome::Failed { error: "because", reason: None, hint: None }, None).await;
        assert!(html.contains("<h1>The login did not succeed</h1>") && html.contains("because"), "{status}");
    }
}

#[tokio::test]
async fn a_used_link_does_not_deny_the_connection_made_with_it() {
    for target in [None, Some(&target(None))] {
        let (_, html) = shown(401, Outcome::Failed { error: "used", reason: None, hint: None }, target).await;
        assert!(html.contains("<h1>This login link is not valid</h1>") && html.contains("all is well"), "{html}");
    }
}

#[tokio::test]
async fn only_a_denied_login_is_called_refused() {
    for (reason, is_denied) in [(Some("access_denied"), true), (Some("identity_mismatch"), false), (None, false)] {
        let target = target(Some("https://app.example.com/"));
        let error = "log in as that account";
        let (_, html) = shown(400, Outcome::Failed { error, reason, hint: None }, Some(&target)).await;
        assert_eq!(html.contains("refused or cancelled"), is_denied, "{html}");
        assert!(html.contains(error), "{html}");
        let sent = reason.map(|reason| format!("&quot;reason&quot;:&quot;{reason}&quot;"));
        assert!(sent.is_none_or(|sent| html.contains(&sent)), "the app that opened the page gets the code: {html}");
    }
}

#[tokio::test]
async fn a_label_is_isolated_and_a_long_heading_is_smaller() {
    for (label, class) in [("ada@example.com".to_owned(), ""), ("a".repeat(80), " class=\"long\"")] {
        let (_, html) = shown(200, Outcome::Connected(Some(&label)), Some(&target(None))).await;
        assert!(html.contains(&format!("<h1{class}>Slack is connected as <bdi>{label}</bdi></h1>")), "{html}");
        assert!(html.contains(&format!("<title>Slack is connected as {label}</title>")), "{html}");
    }
}
