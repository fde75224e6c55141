//! Variables by values and from the callback.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{check, config};

fn with(host: &str, variables: &Value) -> Value {
    json!({"token_url": format!("https://{host}/t"), "variables": variables})
}

fn values_of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn c7_a_variable_with_values_is_any_part_of_a_host() {
    let tld = json!({"v": {"values": ["com", "eu", "com.au"]}});
    for (host, fits) in [
        ("accounts.acme.${v}", true),
        ("oauth-${v}.acme.example", true),
        ("${v}", true),
        ("acme${v}x.example:8443", true),
        ("${v}${v}.acme.example", true),
        ("${v}@acme.example", false),
        ("acme.example:${v}", false),
    ] {
        assert_eq!(config(&with(host, &tld)).is_ok(), fits, "{host}");
    }
    let config = config(&with("accounts.acme.${v}", &tld)).unwrap();
    for (value, host) in [("com", Some("accounts.acme.com")), ("com.au", Some("accounts.acme.com.au")), ("de", None)] {
        let url = config.token_endpoint(&values_of(&[("v", value)])).ok();
        assert_eq!(url.as_ref().and_then(|url| url.host_str()), host, "{value}");
    }
}

#[test]
fn c7_lists_of_values_are_checked_when_the_config_is_put() {
    for (variable, field) in [
        (json!({"values": []}), "variables.v"),
        (json!({"values": ["canary/x"]}), "variables.v.values.0"),
        (json!({"values": ["${canary}"]}), "variables.v.values.0"),
        (json!({"values": ["a", ""]}), "variables.v.values.1"),
        (json!({"values": ["canary"], "pattern": "[0-9]+"}), "variables.v.values.0"),
        (json!({"values": ["a"], "default": "canary"}), "variables.v.default"),
        (json!({"values": "canary"}), "variables.v.values"),
        (json!({"values": [1]}), "variables.v.values.0"),
        (json!({"values": vec!["a"; 65]}), "variables.v.values"),
        (json!({"values": ["-canary"]}), "token_url"),
        (json!({"values": ["a"], "from": "canary"}), "variables.v.from"),
        (json!({"values": ["a"], "from": "callback:"}), "variables.v.from"),
        (json!({"values": ["a"], "from": "callback:code"}), "variables.v.from"),
        (json!({"values": ["a"], "from": "callback:state"}), "variables.v.from"),
        (json!({"values": ["a"], "from": "callback:access_token"}), "variables.v.from"),
        (json!({"values": ["a"], "from": "callback:client_secret"}), "variables.v.from"),
        (json!({"values": ["a"], "from": "callback:a b"}), "variables.v.from"),
        (json!({"values": ["a"], "metadata": "canary"}), "variables.v.metadata"),
    ] {
        check(&with("${v}", &json!({"v": variable})), field);
    }
    // A pattern and a list in one host: the list counts as written, so it must not be a public suffix.
    let both = |suffixes: Value| with("${shop}.${v}", &json!({"shop": {"pattern": ".*"}, "v": {"values": suffixes}}));
    assert!(config(&both(json!(["acme.example", "acme.co.uk"]))).is_ok());
    check(&both(json!(["acme.example", "co.uk"])), "token_url");
    check(&both(json!(["acme.example", "example"])), "token_url");
    let many = |name: &str| json!({"values": (0..20).map(|index| format!("{name}{index}")).collect::<Vec<_>>()});
    check(&with("${a}.${b}", &json!({"a": many("a"), "b": many("b")})), "token_url");
    let unused = json!({"variables": {"v": {"values": ["a/b"], "metadata": true}}});
    assert!(config(&unused).is_ok(), "metadata that no URL uses may have any text");
}

#[test]
fn c7_hosts_may_have_underscores() {
    let config = config(&with("${v}.acme.example", &json!({"v": {"pattern": "[A-Za-z0-9_]+"}}))).unwrap();
    let at = |value: &str| config.token_endpoint(&values_of(&[("v", value)])).ok().map(|url| url.to_string());
    assert_eq!(at("123456_SB1").as_deref(), Some("https://123456_sb1.acme.example/t"));
    assert_eq!(at("_a"), None);
}

#[test]
fn c7_a_variable_of_the_callback_is_checked_before_any_request() {
    let variables = json!({"shop": {"pattern": "[a-z]+", "from": "callback:domain", "metadata": true},
        "tld": {"values": ["com", "eu"], "from": "callback:tld", "default": "com"}});
    let config = config(&with("${shop}.acme.${tld}", &variables)).unwrap();
    let login = config.issued_at_login(&BTreeMap::new()).unwrap();
    assert_eq!(login.token_url, "https://${shop}.acme.${tld}/t", "open until the callback");
    assert!(config.is_issuer_of(&login));
    for (of_login, of_callback, expected) in [
        (vec![], vec![("shop", "one")], Ok("https://one.acme.com/t")),
        (vec![], vec![("shop", "one"), ("tld", "eu")], Ok("https://one.acme.eu/t")),
        (vec![("shop", "one")], vec![("shop", "one")], Ok("https://one.acme.com/t")),
        (vec![("shop", "one")], vec![], Ok("https://one.acme.com/t")),
        (vec![("shop", "one")], vec![("shop", "two")], Err("variable shop differs")),
        (vec![], vec![("tld", "eu")], Err("variable shop is missing")),
        (vec![], vec![("shop", "evil.example/")], Err("variable shop must")),
        (vec![], vec![("shop", "one"), ("tld", "evil")], Err("variable tld must")),
    ] {
        let login = config.issued_at_login(&values_of(&of_login)).unwrap();
        let found = config.issued_at_callback(&login, &values_of(&of_callback)).map(|issued_at| issued_at.token_url);
        match expected {
            Ok(url) => assert_eq!(found.as_deref(), Ok(url), "{of_callback:?}"),
            Err(start) => assert!(found.unwrap_err().to_string().starts_with(start), "{of_callback:?}"),
        }
    }
    let metadata = config.metadata_of_variables(&values_of(&[("shop", "one"), ("tld", "eu")]));
    assert_eq!(Value::Object(metadata), json!({"shop": "one"}));
}

#[test]
fn c7_a_value_in_a_header_is_ascii_before_any_request() {
    let request = json!({"url": "https://api.acme.example/me", "headers": {"X-Tenant": "${v}"}, "paths": ["a"]});
    for headers in [json!({"token_headers": {"X-Tenant": "t ${v}"}}), json!({"metadata_request": request})] {
        let with = |variable: Value| {
            let mut more = headers.clone();
            more["variables"] = json!({ "v": variable });
            config(&more)
        };
        let of_login = with(json!({"pattern": ".*"})).unwrap();
        let of_callback = with(json!({"pattern": ".*", "from": "callback:v"})).unwrap();
        let begun = of_callback.issued_at_login(&BTreeMap::new()).unwrap();
        for (value, is_header) in [("a b", true), ("é", false), ("a\u{202e}", false), ("a\u{7f}", false)] {
            let values = values_of(&[("v", value)]);
            for checked in
                [of_login.check_new_values(&values), of_callback.issued_at_callback(&begun, &values).map(drop)]
            {
                let error = checked.err().map(|error| error.to_string());
                assert_eq!(error.is_none(), is_header, "{headers} {value}");
                assert!(error.is_none_or(|error| error.starts_with("variable v must ")), "{headers} {value}");
            }
            for variable in [json!({"values": [value]}), json!({"pattern": ".*", "default": value})] {
                assert_eq!(with(variable).is_ok(), is_header, "{headers} {value}");
            }
        }
    }
}

#[test]
fn d8_a_revocation_endpoint_that_changes_during_a_login_gets_no_token_of_it() {
    let at = |host: &str| config(&json!({ "revocation_url": format!("https://{host}/revoke") })).unwrap();
    let login = at("acme.example").issued_at(&BTreeMap::new()).unwrap();
    let changed = at("other.example").issued_at_callback(&login, &BTreeMap::new()).unwrap();
    assert_eq!(changed, login);
    let without = config(&json!({})).unwrap().issued_at(&BTreeMap::new()).unwrap();
    let added = at("other.example").issued_at_callback(&without, &BTreeMap::new()).unwrap();
    assert_eq!(added.revocation_url, None);
}

#[test]
fn c7_the_authorization_request_needs_its_variables_at_the_login() {
    let more = |default: Value| {
        json!({"auth_url": "https://${v}.acme.example/a",
        "variables": {"v": {"pattern": "[a-z]+", "from": "callback:shop", "default": default}}})
    };
    let open = config(&more(Value::Null)).unwrap_err().to_string();
    assert!(open.starts_with("variables.v.default must be "), "a default is a string: {open}");
    let mut without = more(Value::Null);
    without["variables"]["v"].as_object_mut().unwrap().remove("default");
    let config = config(&without).unwrap();
    assert!(config.authorization_values(&BTreeMap::new()).is_err());
    assert!(config.authorization_values(&values_of(&[("v", "one")])).is_ok());
    let config = super::config(&more(json!("one"))).unwrap();
    assert_eq!(config.authorization_values(&BTreeMap::new()).unwrap(), values_of(&[("v", "one")]));
}

#[test]
fn c7_an_error_names_the_rule_that_a_value_breaks() {
    let shop = json!({ "pattern": "[a-z]{1,8}" });
    let region = json!({ "values": ["eu", "us"] });
    let config = config(&json!({
        "variables": { "shop": shop, "region": region },
        "token_url": "https://${shop}.${region}.acme.example/t",
    }))
    .unwrap();
    let check = |shop: &str, region: &str, expected: &str| {
        let values = [("shop", shop), ("region", region)].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let error = config.token_endpoint(&values.into()).unwrap_err().to_string();
        assert_eq!(error, expected);
    };
    check("", "eu", "variable shop must have 1 to 256 bytes");
    check("a\tb", "eu", "variable shop must have no control characters");
    check("a/b", "eu", "variable shop must contain none of / \\ % ? # @ :, because a URL holds it");
    check("a.b", "eu", "variable shop must match the pattern `[a-z]{1,8}`");
    check("a", "de", "variable region must be one of the values that the config lists");
}
