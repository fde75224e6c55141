//! The keyring, and its file.

mod properties;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use zeroize::ZeroizeOnDrop;

use super::*;

fn keyring() -> Keyring {
    let text = file::fresh().unwrap().0;
    Keyring::parse(&Source::Text(Secret::default()), &text).unwrap()
}

async fn load(path: &Path) -> Keyring {
    Keyring::load(&secrets("", path.to_str().unwrap(), &[])).await.unwrap()
}

fn secrets(keys: &str, keys_file: &str, key_command: &[&str]) -> config::Secrets {
    let key_command = key_command.iter().map(|&text| text.to_owned()).collect();
    config::Secrets { keys: Secret::new(keys), keys_file: keys_file.into(), key_command }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

const CONTEXT: SealContext<'_> = SealContext {
    bucket: "oauth_configs",
    key: "slack",
    field: "client_secret",
    sequence: 7,
    bound_to: "https://a client",
};

#[test]
fn opens_what_it_sealed() {
    let keyring = keyring();
    let sealed = keyring.seal(CONTEXT, &Secret::new("hush")).unwrap();
    assert!(sealed.starts_with("v1.") && !sealed.contains("hush"));
    assert_eq!(keyring.open(CONTEXT, &sealed).unwrap().expose(), "hush");
}

#[test]
fn e1_a_sealed_value_moved_elsewhere_does_not_open() {
    let keyring = keyring();
    let sealed = keyring.seal(CONTEXT, &Secret::new("hush")).unwrap();
    let moved = [
        SealContext { bucket: "oauth_connections", ..CONTEXT },
        SealContext { key: "github", ..CONTEXT },
        SealContext { field: "client_key", ..CONTEXT },
        SealContext { sequence: 8, ..CONTEXT },
        SealContext { bound_to: "https://b client", ..CONTEXT },
    ];
    for context in moved {
        assert!(matches!(keyring.open(context, &sealed), Err(SealError::Forged)), "{context:?}");
    }
}

#[test]
fn e2_a_missing_key_is_named() {
    let sealed = keyring().seal(CONTEXT, &Secret::new("hush")).unwrap();
    let id = sealed.split('.').nth(1).unwrap().to_owned();
    let error = keyring().open(CONTEXT, &sealed).unwrap_err();
    assert!(matches!(&error, SealError::MissingKey(missing) if *missing == id), "{error}");
}

#[test]
fn broken_values_are_refused() {
    let keyring = keyring();
    let sealed = keyring.seal(CONTEXT, &Secret::new("hush")).unwrap();
    let (at, mut changed) = (sealed.len() - 9, sealed.clone());
    changed.replace_range(at..=at, if sealed.as_bytes()[at] == b'A' { "B" } else { "A" });
    for text in ["", "v1", "v1.", "v1..", "v2.k.AAAA", &sealed[..sealed.len() - 4], &changed] {
        assert!(keyring.open(CONTEXT, text).is_err(), "{text}");
    }
}

#[test]
fn an_order_is_read_by_the_workers_alone() {
    let (workers, others) = (keyring(), keyring());
    let (sealed, sender) = seal_order(workers.seal_to(), b"order").unwrap();
    assert_eq!(workers.open_order(&sender, &sealed).unwrap().as_slice(), b"order");
    assert!(others.open_order(&sender, &sealed).is_err());
    assert!(workers.open_order(others.seal_to(), &sealed).is_err());
}

#[tokio::test]
async fn a_new_file_is_private_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let id = generate(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(load(&path).await.key_ids(), [id]);
    assert!(generate(&path).is_err());
}

#[tokio::test]
async fn e2_an_added_key_opens_only_and_a_promoted_one_seals() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("keys.toml"), folder.path().join("link"));
    let first = generate(&path).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let before = load(&path).await;
    let sealed_before = before.seal(CONTEXT, &Secret::new("hush")).unwrap();

    let second = add(&link).unwrap();
    let added = load(&path).await;
    assert_eq!(added.key_ids(), [first.clone(), second.clone()]);
    assert!(added.is_current(&sealed_before));
    assert!(promote(&path, "nobody").is_err());
    assert_eq!(load(&path).await.key_ids(), added.key_ids());
    assert!(promote(&link, &second).unwrap());
    assert!(!promote(&path, &second).unwrap());

    let promoted = load(&path).await;
    assert_eq!((promoted.key_ids(), promoted.seal_to()), (vec![second.clone(), first], before.seal_to()));
    assert!(!promoted.is_current(&sealed_before));
    assert_eq!(promoted.open(CONTEXT, &sealed_before).unwrap().expose(), "hush");
    let sealed = promoted.seal(CONTEXT, &Secret::new("hush")).unwrap();
    assert_eq!(key_id(&sealed), Some(second.as_str()));
    assert_eq!(mode(&path), 0o600);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");

    // A keyring in use finds the key in the file when it needs it, and seals as before.
    assert_eq!(before.open(CONTEXT, &sealed).unwrap().expose(), "hush");
    assert!(before.is_current(&sealed_before));
    before.reload(&before.read_again().await.unwrap());
    assert!(before.is_current(&sealed));
}

#[tokio::test]
async fn e2_a_keyring_with_another_curve_key_is_not_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    generate(&path).unwrap();
    let before = load(&path).await;
    std::fs::remove_file(&path).unwrap();
    generate(&path).unwrap();
    let error = before.read_again().await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("curve_seed"), "{error}");
    let sealed = load(&path).await.seal(CONTEXT, &Secret::new("hush")).unwrap();
    assert!(matches!(before.open(CONTEXT, &sealed), Err(SealError::MissingKey(_))));
}

#[test]
fn two_keys_of_one_id_are_refused() {
    let text = file::fresh().unwrap().0;
    let (_, key) = text.split_once("[[key]]").unwrap();
    let error = file::parse(&format!("{}\n[[key]]{key}", *text)).err();
    assert_eq!(error.map(|error| error.to_string()).as_deref(), Some("two keys have the same id"));
}

#[tokio::test]
async fn the_keyring_has_one_source() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let id = generate(&path).unwrap();
    let path = path.to_str().unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    for settings in [secrets(&text, "", &[]), secrets("", path, &[]), secrets("", "", &["cat", path])] {
        assert_eq!(Keyring::load(&settings).await.unwrap().key_ids(), [id.as_str()]);
    }
    let check = async |settings: config::Secrets, expected: &str| {
        let error = Keyring::load(&settings).await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(expected) && !error.contains("canary"), "{expected}: {error}");
    };
    check(secrets("", "", &[]), "no keyring").await;
    check(secrets(&text, path, &[]), "`secrets.keys_file` and `secrets.keys` are both set").await;
    check(secrets(&text, "", &["cat", path]), "`secrets.keys` and `secrets.key_command` are both set").await;
    check(secrets("", path, &["cat", path]), "`secrets.keys_file` and `secrets.key_command` are both set").await;
    check(secrets("canary", "", &[]), "of `secrets.keys` is not valid").await;
    check(secrets("", "", &["echo", "canary"]), "of `secrets.key_command` is not valid").await;
    check(secrets("", "", &["sh", "-c", "echo canary; exit 3"]), "(sh): failed: exit status: 3").await;
    check(secrets("", "", &["./no-such-program"]), "cannot be started").await;
    check(secrets("", "", &["sh", "-c", "yes canary"]), "printed more than 32768 bytes").await;
    check(secrets("", "", &["sh", "-c", r"printf 'canary\377'"]), "not text").await;
}

#[tokio::test]
async fn a_command_that_hangs_times_out() {
    let command = ["sleep", "600"].map(str::to_owned);
    let error = source::printed_by(&command, Duration::from_millis(50)).await.unwrap_err();
    assert!(error.to_string().contains("took longer than 50ms"), "{error}");
}

/// Compiles only for types that wipe themselves when dropped.
fn is_wiped<T: ZeroizeOnDrop>(_: &T) {}

#[test]
fn f4_keys_are_wiped_when_dropped() {
    let keyring = keyring();
    let keys = keyring.keys.load();
    is_wiped::<XChaCha20Poly1305>(&keys[0].cipher);
    let (text, _) = file::fresh().unwrap();
    is_wiped(&text);
    is_wiped(&file::parse(&text).unwrap().curve_seed);
}
