//! Properties of the sealed form.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::*;

const CONTEXT: SealContext<'_> =
    SealContext { bucket: "oauth_connections", key: "a.b.c", field: "refresh_token", sequence: 3, bound_to: "" };

/// Shared by all cases: creating one takes longer than using it.
static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
    let text = file::fresh().unwrap().0;
    Keyring::parse(&Source::Text(Secret::default()), &text).unwrap()
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn e1_no_text_panics_and_none_opens(text in prop_oneof![".{0,80}", "v1\\.[A-Za-z0-9]{0,10}\\.[A-Za-z0-9_-]{0,80}"]) {
        let keyring = &*KEYRING;
        prop_assert!(keyring.open(CONTEXT, &text).is_err());
        let own = text.rsplit('.').next().unwrap_or_default();
        let id = keyring.key_ids().remove(0);
        let error = keyring.open(CONTEXT, &format!("v1.{id}.{own}")).unwrap_err();
        prop_assert!(matches!(error, SealError::Form | SealError::Encoding(_) | SealError::Forged));
        prop_assert!(keyring.open_order(&text, own).is_err());
        prop_assert!(keyring.open_order(keyring.seal_to(), own).is_err());
    }

    #[test]
    fn e1_what_was_sealed_opens_whole_and_changed_nowhere(value in ".{0,60}", at in any::<prop::sample::Index>(), to in 33_u8..127) {
        let keyring = &*KEYRING;
        let sealed = keyring.seal(CONTEXT, &Secret::new(value.as_str())).unwrap();
        let opened = keyring.open(CONTEXT, &sealed).unwrap();
        prop_assert_eq!(opened.expose(), value.as_str());
        let mut changed = sealed.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] = to;
        let changed = String::from_utf8(changed).unwrap();
        prop_assert!(changed == sealed || keyring.open(CONTEXT, &changed).is_err(), "{} {}", sealed, changed);
        prop_assert!(keyring.open(CONTEXT, &sealed[..at]).is_err());
    }
}
