//! Keys of a backup. They are derived from a key of the keyring and from the backup's id, so that a file of one backup opens
//! in no other.
//!
//! A sealed file is the nonce (19 random bytes), then segments of 128 KiB, each with a tag of 16 bytes, in the STREAM
//! construction with XChaCha20-Poly1305: a file that was cut, extended or reordered does not open.

use std::io::{self, Read, Write};

use aead_stream::{DecryptorBE32, EncryptorBE32};
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::Payload;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::mark::hmac_sha256;
use super::{Keyring, SealError, printable_key_id};
use crate::system;

/// Separates the keys of backups from the key that seals.
const PURPOSE: &[u8] = b"tokenbus backup";
/// Bytes of a segment before it is sealed. A restore sends one segment in a message, and servers take 1 MiB by default.
pub(crate) const SEGMENT_BYTES: usize = 128 * 1024;
/// Bytes that sealing adds to a segment.
const TAG_BYTES: usize = 16;
/// The nonce of 24 bytes without the 5 for counter and end.
const STREAM_NONCE_BYTES: usize = 19;

/// Secret from which the keys of backups are derived.
#[derive(Clone)]
pub(super) struct BackupSecret(Zeroizing<Vec<u8>>);

impl BackupSecret {
    pub(super) fn of(secret: &[u8]) -> Self {
        Self(Zeroizing::new(hmac_sha256(secret, PURPOSE)))
    }

    fn derive(&self, purpose: &str, backup: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(hmac_sha256(&self.0, format!("{purpose}\0{backup}").as_bytes()))
    }
}

/// The keys of one backup.
pub(crate) struct BackupKeys {
    cipher: XChaCha20Poly1305,
    manifest: Zeroizing<Vec<u8>>,
}

impl Keyring {
    /// Returns the keys of a new backup, and the id of the sealing key from which they are derived.
    pub(crate) fn new_backup(&self, backup: &str) -> Result<(String, BackupKeys), SealError> {
        let id = self.keys.load().first().map(|key| key.id.clone()).ok_or(SealError::Form)?;
        let keys = self.backup_keys(&id, backup)?;
        Ok((id, keys))
    }

    /// # Errors
    /// [`SealError::MissingKey`] if the keyring does not have the key from which they are derived.
    pub(crate) fn backup_keys(&self, key_id: &str, backup: &str) -> Result<BackupKeys, SealError> {
        let key = self.key(key_id).ok_or_else(|| SealError::MissingKey(printable_key_id(key_id)))?;
        let files = key.backups.derive("files", backup);
        // A derived key has the cipher's length, so this never fails.
        let Ok(cipher) = XChaCha20Poly1305::new_from_slice(&files) else { return Err(SealError::Form) };
        Ok(BackupKeys { cipher, manifest: key.backups.derive("manifest", backup) })
    }
}

impl BackupKeys {
    /// Returns the proof that a holder of the keyring wrote this manifest.
    pub(crate) fn sign(&self, manifest: &str) -> Vec<u8> {
        hmac_sha256(&self.manifest, manifest.as_bytes())
    }

    pub(crate) fn has_signed(&self, manifest: &str, proof: &[u8]) -> bool {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.manifest) else { return false };
        mac.update(manifest.as_bytes());
        mac.verify_slice(proof).is_ok()
    }

    /// Begins a sealed file. It opens only under the same name.
    pub(crate) fn seal_file<'a, W: Write>(&self, name: &'a str, mut file: W) -> io::Result<SealedWriter<'a, W>> {
        let nonce = system::random::<STREAM_NONCE_BYTES>();
        file.write_all(&nonce)?;
        let cipher = EncryptorBE32::from_aead(self.cipher.clone(), &nonce.into());
        Ok(SealedWriter { name, file, cipher, waiting: Vec::with_capacity(2 * SEGMENT_BYTES) })
    }

    pub(crate) fn open_file<'a, R: Read>(&self, name: &'a str, mut file: R) -> io::Result<SealedReader<'a, R>> {
        let mut nonce = [0; STREAM_NONCE_BYTES];
        file.read_exact(&mut nonce)?;
        let cipher = DecryptorBE32::from_aead(self.cipher.clone(), &nonce.into());
        let mut reader = SealedReader { name, file, cipher: Some(cipher), segment: Vec::new() };
        reader.segment = reader.read_segment()?;
        Ok(reader)
    }
}

/// Seals what is written to it. [`SealedWriter::finish`] seals the last segment; a file without it does not open.
pub(crate) struct SealedWriter<'a, W> {
    name: &'a str,
    file: W,
    cipher: EncryptorBE32<XChaCha20Poly1305>,
    /// At most one segment: the last one is sealed differently.
    waiting: Vec<u8>,
}

impl<W: Write> SealedWriter<'_, W> {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(bytes);
        while self.waiting.len() > SEGMENT_BYTES {
            let rest = self.waiting.split_off(SEGMENT_BYTES);
            let segment = Zeroizing::new(std::mem::replace(&mut self.waiting, rest));
            let sealed = self.cipher.encrypt_next(Payload { msg: &segment, aad: self.name.as_bytes() });
            self.file.write_all(&sealed.map_err(io::Error::other)?)?;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> io::Result<W> {
        let Self { name, mut file, cipher, waiting } = self;
        let segment = Zeroizing::new(waiting);
        let sealed = cipher.encrypt_last(Payload { msg: &segment, aad: name.as_bytes() });
        file.write_all(&sealed.map_err(io::Error::other)?)?;
        Ok(file)
    }
}

/// Opens a sealed file, segment by segment.
pub(crate) struct SealedReader<'a, R> {
    name: &'a str,
    file: R,
    /// Nothing after the last segment.
    cipher: Option<DecryptorBE32<XChaCha20Poly1305>>,
    /// The next segment, still sealed.
    segment: Vec<u8>,
}

impl<R: Read> SealedReader<'_, R> {
    /// Returns the next segment, or nothing after the last one.
    ///
    /// # Errors
    /// Of the kind `InvalidData` if the file was changed or has another name.
    pub(crate) fn next_segment(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(mut cipher) = self.cipher.take() else { return Ok(None) };
        let changed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let next = self.read_segment()?;
        let sealed = std::mem::replace(&mut self.segment, next);
        let payload = Payload { msg: &sealed, aad: self.name.as_bytes() };
        if self.segment.is_empty() {
            return cipher.decrypt_last(payload).map(Some).map_err(changed);
        }
        let opened = cipher.decrypt_next(payload).map_err(changed)?;
        self.cipher = Some(cipher);
        Ok(Some(opened))
    }

    fn read_segment(&mut self) -> io::Result<Vec<u8>> {
        let mut segment = Vec::new();
        let most = u64::try_from(SEGMENT_BYTES + TAG_BYTES).unwrap_or(u64::MAX);
        self.file.by_ref().take(most).read_to_end(&mut segment)?;
        Ok(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(backup: &str) -> BackupKeys {
        let secret = BackupSecret::of(&[7; 32]);
        let cipher = XChaCha20Poly1305::new_from_slice(&secret.derive("files", backup));
        BackupKeys { cipher: cipher.unwrap(), manifest: secret.derive("manifest", backup) }
    }

    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut writer = keys("one").seal_file("OAUTH", Vec::new()).unwrap();
        for part in content.chunks(100_000) {
            writer.write(part).unwrap();
        }
        writer.finish().unwrap()
    }

    fn opened(backup: &str, name: &str, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let keys = keys(backup);
        let mut reader = keys.open_file(name, sealed)?;
        let mut content = Vec::new();
        while let Some(segment) = reader.next_segment()? {
            assert!(segment.len() <= SEGMENT_BYTES);
            content.extend(segment);
        }
        Ok(content)
    }

    #[test]
    fn e1_a_sealed_file_opens_whole_and_in_its_place_or_not_at_all() {
        for length in [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES] {
            let content = b"canary-in-a-backup".repeat(length / 18 + 1)[..length].to_vec();
            let sealed = sealed(&content);
            assert_eq!(opened("one", "OAUTH", &sealed).unwrap(), content, "{length}");
            assert!(!sealed.windows(6).any(|part| part == b"canary"));
            for (backup, name) in [("two", "OAUTH"), ("one", "OAUTH_EVENTS")] {
                assert!(opened(backup, name, &sealed).is_err(), "{backup} {name}");
            }
            assert!(opened("one", "OAUTH", &sealed[..sealed.len() - 1]).is_err(), "{length}");
            let cut = sealed.len().saturating_sub(SEGMENT_BYTES + TAG_BYTES).max(STREAM_NONCE_BYTES);
            assert!(opened("one", "OAUTH", &sealed[..cut]).is_err(), "{length}");
            assert!(opened("one", "OAUTH", &[&sealed[..], b"x"].concat()).is_err(), "{length}");
            for at in [0, STREAM_NONCE_BYTES, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert!(opened("one", "OAUTH", &changed).is_err(), "{length} {at}");
            }
        }
    }

    #[test]
    fn e1_a_manifest_is_accepted_only_as_its_backup_signed_it() {
        let proof = keys("one").sign("{}");
        assert!(keys("one").has_signed("{}", &proof));
        assert!(!keys("one").has_signed("{} ", &proof) && !keys("two").has_signed("{}", &proof));
        assert!(!keys("one").has_signed("{}", &proof[..31]) && !keys("one").has_signed("{}", b""));
    }
}
