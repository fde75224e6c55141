use proptest::prelude::*;

use super::*;

const TEMPLATES: [&str; 5] = [
    "https://${v}.acme.example:8443/a?k=v",
    "https://${v}.${w}.acme.example/a",
    "https://acme.example/a/${v}/b/x-${w}?k=v",
    "https://acme.example/${v}${w}",
    "https://acme.example/a?k=v&v=${v}&w=x${w}&z",
];

fn variables(template: &str) -> BTreeMap<String, Variable> {
    let any = || Variable { pattern: Some("(?s).*".to_owned()), ..Variable::default() };
    variable_names(template).into_iter().map(|name| (name.to_owned(), any())).collect()
}

#[test]
fn c7_a_template_has_variables_only_in_allowed_parts() {
    for (template, fits) in [
        ("https://acme.example", true),
        ("https://${v}.acme.example/", true),
        ("https://acme.example/${v}", true),
        ("https://acme.example/a-${v}.json?x=1", true),
        ("${v}://acme.example/", false),
        ("http${v}://acme.example/", false),
        ("https://${v}/", false),
        ("https://${v}.example/", false),
        ("https://a${v}.acme.example/", false),
        ("https://acme.${v}/", false),
        ("https://acme.example${v}/", false),
        ("https://acme.example:${v}/", false),
        ("https://${v}@acme.example/", false),
        ("https://u:p@acme.example/", false),
        ("https://acme.example/?x=${v}", true),
        ("https://acme.example/?a=b&x=a-${v}&c", true),
        ("https://acme.example/?${v}=x", false),
        ("https://acme.example/?a=b&%24{v}", false),
        ("https://acme.example/?x=${v w}", false),
        ("https://acme.example/#x", false),
        ("https://acme.example/#${v}", false),
        ("https://acme.example\\${v}/", false),
        ("https://acme.example/${", false),
        ("https://acme.example/${}", false),
        ("https://acme.example/${v w}", false),
        ("https://acme.example/ x", false),
        ("https:///acme.example/", false),
        ("https:acme.example", false),
        ("ftp://acme.example/", false),
        ("javascript:alert(1)", false),
        ("/relative", false),
        ("", false),
    ] {
        assert_eq!(sample_url(template).is_some(), fits, "{template}");
    }
}

#[test]
fn c7_patterns_match_whole_values() {
    for (text, value, fits) in [
        ("[a-z]+", "abc", true),
        ("[a-z]+", "abc1", false),
        ("[a-z]+", "abc\n", false),
        ("a|b", "ab", false),
        ("(?m)^a$", "a\nb", false),
        ("", "a", false),
    ] {
        assert_eq!(whole_value_regex(text).unwrap().is_match(value), fits, "{text} {value}");
    }
    for text in ["a)|(b", "(", "(?:a{1000}){1000}", "a(?#", "(?x) a #"] {
        assert!(whole_value_regex(text).map_or(true, |pattern| !pattern.is_match("xyz")), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn c7_an_expanded_url_keeps_its_shape(
        v in prop_oneof![".{0,12}", "[a-z.:/@%#?\\\\-]{0,12}", "[a-z][a-z0-9-]{0,8}", "canary[.:/@%#?]{1,3}"],
        w in prop_oneof!["[a-z]{1,4}", "[.%2eE/\\\\]{0,6}"],
    ) {
        let values = BTreeMap::from([("v".to_owned(), v), ("w".to_owned(), w)]);
        for template in TEMPLATES {
            let variables = variables(template);
            let given = values.iter().filter(|(name, _)| variables.contains_key(*name)).map(|(n, v)| (n.clone(), v.clone())).collect();
            let url = match endpoint_url(template, &variables, &given) {
                Ok(url) => url,
                Err(error) => {
                    prop_assert!(!error.to_string().contains("canary"));
                    continue;
                }
            };
            let sample = sample_url(template).unwrap();
            prop_assert_eq!(url.scheme(), "https");
            prop_assert_eq!(url.port(), sample.port());
            let shape = |url: &Url| url.query_pairs().map(|(name, _)| name.into_owned()).collect::<Vec<_>>();
            prop_assert_eq!(shape(&url), shape(&sample));
            prop_assert!(url.fragment().is_none() && url.username().is_empty() && url.password().is_none());
            prop_assert!(url.host_str().unwrap().ends_with("acme.example"));
            prop_assert_eq!(url.path().matches('/').count(), sample.path().matches('/').count());
            let text = expand(template, &variables, &given).unwrap();
            prop_assert_eq!(Url::parse(&text).unwrap(), url);
        }
    }

    #[test]
    fn c7_no_template_panics(template in "(https?://)?[a-z.${}:/?#@\\\\ -]{0,40}") {
        let _ = sample_url(&template);
        let _ = endpoint_url(&template, &BTreeMap::new(), &BTreeMap::new());
    }
}
