use super::*;

#[test]
fn names_and_routes_are_unique() {
    for call in Call::ALL {
        assert_eq!(Call::parse(call.as_str()), Some(*call));
        assert_eq!(Call::parse_subject(&call.subject()), Some(*call));
        assert!(!call.operations().is_empty(), "{call:?}");
    }
    let mut seen = std::collections::HashSet::new();
    for Route { method, paths } in Operation::ALL.iter().map(|operation| operation.route()) {
        assert!(!paths.is_empty());
        for path in paths {
            assert!(seen.insert((method, path)), "{method} {path} is listed twice");
        }
    }
}

#[test]
fn placeholders_match_one_segment_each() {
    #[track_caller]
    fn check(method: &str, path: &str, expected: Option<&[(&str, &str)]>) {
        assert_eq!(Operation::GetConfig.names(method, path).as_deref(), expected, "{method} {path}");
    }
    let slack: &[_] = &[("integration_id", "slack")];
    check("GET", "/hub/integrations/slack/oauth-config", Some(slack));
    check("GET", "/hub/integrations/oauth-config/slack", Some(slack));
    check("PUT", "/hub/integrations/slack/oauth-config", None);
    check("GET", "/hub/integrations/oauth-config", None);
    check("GET", "/hub/integrations/slack/oauth-config/", None);
    check("GET", "hub/integrations/slack/oauth-config", None);
}
