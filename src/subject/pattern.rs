//! Matching of subjects with wildcards, by the rules of nats-server.

/// Returns true if every subject that matches `inner` also matches `outer`. A subject without wildcards matches itself only.
#[must_use]
pub(crate) fn covers(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(inner)) if inner != ">" => {}
            (Some(outer), Some(inner)) if outer == inner => {}
            _ => return false,
        }
    }
}

/// Returns true if a subject exists that matches both patterns.
#[must_use]
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_covers_and_overlaps_by_tokens() {
        #[track_caller]
        fn check(outer: &str, inner: &str, expected: (bool, bool)) {
            assert_eq!((covers(outer, inner), overlap(outer, inner)), expected, "{outer} {inner}");
        }
        check("a.b", "a.b", (true, true));
        check("a.*", "a.b", (true, true));
        check("a.b", "a.*", (false, true));
        check("a.>", "a", (false, false));
        check("a.>", "a.b.c", (true, true));
        check("a.>", "a.>", (true, true));
        check("a.*", "a.>", (false, true));
        check("a.*.*", "a.>", (false, true));
        check(">", "a.>", (true, true));
        check("a.*.c", "a.b.*", (false, true));
        check("a.b", "a.bc", (false, false));
        check("$JS.API.CONSUMER.CREATE.OAUTH_DEAD.>", "$JS.API.CONSUMER.CREATE.OAUTH.x", (false, false));
    }

    /// All subjects of up to four tokens. `z` occurs in no pattern; longer subjects would test nothing more.
    fn all_subjects() -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        let mut newest = vec![String::new()];
        for _ in 0..4 {
            let longer = |start: &String| ["a", "b", "z"].map(|token| format!("{start}.{token}"));
            newest = newest.iter().flat_map(longer).collect();
            found.extend(newest.iter().map(|subject| subject.trim_start_matches('.').to_owned()));
        }
        found
    }

    fn pattern() -> impl Strategy<Value = String> {
        let token = prop_oneof![Just("a"), Just("b"), Just("*")];
        (proptest::collection::vec(token, 1..4), any::<bool>()).prop_map(|(mut tokens, is_open)| {
            if is_open {
                tokens.pop();
                tokens.push(">");
            }
            tokens.join(".")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn patterns_agree_with_the_subjects_that_match_them(one in pattern(), other in pattern()) {
            let (of_one, of_other): (Vec<String>, Vec<String>) = (
                all_subjects().into_iter().filter(|subject| covers(&one, subject)).collect(),
                all_subjects().into_iter().filter(|subject| covers(&other, subject)).collect(),
            );
            prop_assert_eq!(covers(&one, &other), of_other.iter().all(|subject| of_one.contains(subject)));
            prop_assert_eq!(overlap(&one, &other), of_other.iter().any(|subject| of_one.contains(subject)));
            prop_assert_eq!(overlap(&one, &other), overlap(&other, &one));
        }
    }
}
