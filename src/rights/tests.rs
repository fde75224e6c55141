use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;

const ALL: [Scope; 7] = [
    Scope::ConnectionsRead,
    Scope::TokensRead,
    Scope::RefreshTokensRead,
    Scope::ConnectionsWrite,
    Scope::ConfigsWrite,
    Scope::KeysWrite,
    Scope::AuditRead,
];
const NETWORKS: [&str; 8] =
    ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.0/25", "10.1.2.128/25", "0.0.0.0/0", "::/0", "2001:db8::/32"];
const ADDRESSES: [&str; 6] = ["10.1.2.3", "10.1.2.200", "10.1.9.9", "10.9.9.9", "192.0.2.1", "2001:db8::1"];

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn scopes() -> impl Strategy<Value = Scopes> {
    subsequence(ALL.to_vec(), 0..=ALL.len()).prop_map(|scopes| scopes.into_iter().collect())
}

fn networks() -> impl Strategy<Value = Networks> {
    subsequence(NETWORKS.to_vec(), 0..=3)
        .prop_map(|texts| Networks::parse(&texts.into_iter().map(str::to_owned).collect::<Vec<_>>()).unwrap())
}

fn wish() -> impl Strategy<Value = Wish> {
    let grant = prop_oneof![
        Just(Grant::Role(Role::Admin)),
        Just(Grant::Role(Role::Member)),
        scopes().prop_map(Grant::Scopes),
        Just(Grant::Scopes([Scope::KeysWrite].into_iter().collect())),
    ];
    let end = prop_oneof![(0_i64..100).prop_map(|s| End::At(at(s))), (0_i64..100).prop_map(|s| End::AtMost(at(s)))];
    (grant, networks(), end).prop_map(|(grant, networks, end)| Wish { grant, networks, end })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    /// `member` may change between the making of a key and its use.
    #[test]
    fn h8_no_derivation_of_keys_widens(
        first in wish(), wishes in prop::collection::vec(wish(), 1..6), then in scopes(), later in scopes(),
    ) {
        let rights = |derived: Derived, member: &Scopes| Rights {
            scopes: derived.grant.scopes(member), networks: derived.networks, end: Some(derived.end),
        };
        let Ok(first) = Rights::all().derive(first, &then) else { return Ok(()) };
        let mut makers = vec![first];
        for wish in wishes {
            let maker = makers.last().unwrap().clone();
            let Ok(made) = rights(maker, &then).derive(wish, &then) else { continue };
            makers.push(made);
        }
        for pair in makers.windows(2) {
            // A creator with the role `member` may lose scopes later; keys that it created before keep theirs.
            for member in [&then, &later] {
                let (maker, made) = (rights(pair[0].clone(), member), rights(pair[1].clone(), member));
                let follows_role = pair[0].grant == Grant::Role(Role::Member) && member == &later;
                prop_assert!(follows_role || made.scopes.without(&maker.scopes).is_empty(), "{pair:?}");
                prop_assert!(made.end <= maker.end, "{pair:?}");
                for address in ADDRESSES {
                    let address = Some(address.parse().unwrap());
                    prop_assert!(!made.networks.allow(address) || maker.networks.allow(address), "{pair:?}");
                }
                prop_assert!(maker.networks.is_empty() || !made.networks.is_empty(), "{pair:?}");
            }
        }
    }
}

fn of(texts: &[&str]) -> Networks {
    Networks::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
}

#[test]
fn h8_a_wish_is_granted_or_refused_with_a_reason() {
    #[track_caller]
    fn check(grant: Grant, networks: &[&str], end: End, expected: Result<(&str, &[&str], i64), &str>) {
        let member = [Scope::ConnectionsRead].into_iter().collect();
        let maker = Rights {
            scopes: [Scope::KeysWrite, Scope::ConnectionsRead].into_iter().collect(),
            networks: of(&["10.0.0.0/8"]),
            end: Some(at(100)),
        };
        let done = maker.derive(Wish { grant, networks: of(networks), end }, &member);
        match (done, expected) {
            (Ok(Derived { grant, networks, end }), Ok(expected)) => {
                assert_eq!((networks, end), (of(expected.1), at(expected.2)));
                assert!(matches!(grant, Grant::Scopes(scopes) if scopes.to_string() == expected.0));
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (done, expected) => panic!("{done:?} instead of {expected:?}"),
        }
    }
    let (member, admin) = (|| Grant::Role(Role::Member), || Grant::Role(Role::Admin));
    check(member(), &[], End::AtMost(at(500)), Ok(("connections:read", &["10.0.0.0/8"], 100)));
    check(member(), &["10.1.0.0/16"], End::At(at(100)), Ok(("connections:read", &["10.1.0.0/16"], 100)));
    check(member(), &[], End::At(at(101)), Err("would outlive this credential"));
    check(member(), &["11.0.0.0/8"], End::AtMost(at(1)), Err("the network 11.0.0.0/8 is not within"));
    check(admin(), &[], End::AtMost(at(1)), Err("scopes that this credential lacks: tokens:read, "));
    let none = Grant::Scopes(Scopes::default());
    check(none, &[], End::At(at(1)), Ok(("", &["10.0.0.0/8"], 1)));
}

#[test]
fn h8_tokens_are_hidden_from_scopes_without_them() {
    #[track_caller]
    fn check(scopes: &[Scope], expected: &[&str]) {
        let scopes: Scopes = scopes.iter().copied().collect();
        let connection = serde_json::json!({ "access_token": "a", "refresh_token": "r", "sequence": 1 });
        let mut list = serde_json::json!({ "results": [connection, connection], "results_total": 2 });
        let mut alone = connection;
        scopes.hide_tokens(&mut alone);
        scopes.hide_tokens(&mut list);
        for shown in [&alone, &list["results"][0], &list["results"][1]] {
            let fields: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(fields, expected, "{scopes}");
        }
    }
    check(&[Scope::TokensRead, Scope::RefreshTokensRead], &["access_token", "refresh_token", "sequence"]);
    check(&[Scope::TokensRead, Scope::ConnectionsRead], &["access_token", "sequence"]);
    check(&[Scope::RefreshTokensRead], &["refresh_token", "sequence"]);
    check(&[Scope::ConnectionsRead], &["sequence"]);
}
