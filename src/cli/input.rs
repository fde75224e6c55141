//! Files and `<name>=<value>` arguments that a person passes to a command.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::secret::Secret;

/// Largest file: as the largest body of a PUT. A device such as `/dev/zero` never ends.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Reads a file, or standard input for `-`.
pub(super) fn read(file: &Path) -> anyhow::Result<Secret> {
    if file == Path::new("-") {
        return read_limited(std::io::stdin()).context("cannot read standard input");
    }
    read_file(file)
}

pub(super) fn read_file(file: &Path) -> anyhow::Result<Secret> {
    let opened = std::fs::File::open(file).map_err(anyhow::Error::from);
    opened.and_then(read_limited).with_context(|| format!("cannot read {}", file.display()))
}

fn read_limited(input: impl std::io::Read) -> anyhow::Result<Secret> {
    let mut text = String::new();
    input.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        bail!("it has more than 64 KiB");
    }
    // Some editors begin a file with a byte order mark. In a secret it would be a character of the secret.
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(Secret::new(text))
}

/// Reads a secret that is one line.
pub(super) fn read_secret(file: &Path) -> anyhow::Result<Secret> {
    let text = read(file)?;
    let secret = text.expose().trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        bail!("{} is empty; it must hold the client secret", file.display());
    }
    if secret.contains(['\r', '\n']) {
        bail!("{} has more than one line; it must hold the client secret and nothing else", file.display());
    }
    Ok(Secret::new(secret))
}

/// Parses arguments of the form `<name>=<value>`.
pub(super) fn pairs(arguments: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for argument in arguments {
        // The argument is not repeated, because its value may be a secret.
        let Some((name, value)) = argument.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            bail!("a value must be `<name>=<value>`");
        };
        if pairs.insert(name.to_owned(), value.to_owned()).is_some() {
            bail!("{name} is given twice");
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_distinct_names() {
        let parse = |arguments: &[&str]| pairs(&arguments.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        let parsed = parse(&["a=1", "b=x=y", "c="]).unwrap();
        assert_eq!(
            parsed.into_iter().collect::<Vec<_>>(),
            [("a", "1"), ("b", "x=y"), ("c", "")].map(|(n, v)| (n.into(), v.into()))
        );
        for wrong in [&["a"][..], &["=canary"], &[""], &["a=canary", "a=2"]] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_secret_is_one_line_and_files_have_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        for (text, expected) in [
            ("canary", Ok("canary")),
            ("canary \r\n\n", Ok("canary ")),
            ("\u{feff}canary\n", Ok("canary")),
            ("", Err("is empty")),
            ("\n", Err("is empty")),
            ("canary\nb", Err("more than one line")),
            ("canary\rb\n", Err("more than one line")),
        ] {
            std::fs::write(&file, text).unwrap();
            let read = read_secret(&file);
            match expected {
                Ok(secret) => assert_eq!(read.unwrap().expose(), secret, "{text:?}"),
                Err(problem) => {
                    let error = format!("{:#}", read.unwrap_err());
                    assert!(error.contains(problem) && !error.contains("canary"), "{text:?}: {error}");
                }
            }
        }
        let error = format!("{:#}", read(Path::new("/dev/zero")).unwrap_err());
        assert!(error.starts_with("cannot read /dev/zero: it has more than 64 KiB"), "{error}");
    }
}
