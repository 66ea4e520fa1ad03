//! The keys as they are written down, and each of them ready for use.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::hmac::{self, HMAC_SHA256};
use zeroize::Zeroizing;

use super::envelope::{associated, head};
use super::{Place, VaultError, is_key_id};
use crate::domain::secret::Secret;

/// Bytes of an AES-256 key.
pub(super) const KEY_LEN: usize = 32;
/// Separates the key of a MAC from the one that seals (RFC 5869, 3.1).
const MAC_SALT: &[u8] = b"postroom vault content mac 1";

/// All keys of one reading; the operator wants the first one to seal.
pub(super) struct Keys(Vec<Key>);

/// A key. The text it was made of is wiped; the key itself lives inside `ring`, which does not wipe.
pub(super) struct Key {
    id: String,
    aead: LessSafeKey,
    mac: hmac::Key,
}

impl Keys {
    /// Understands the content of a key file.
    pub(super) fn parse(text: &[u8]) -> Result<Self, VaultError> {
        let lines = text.split(|byte| *byte == b'\n').enumerate();
        let lines = lines.map(|(index, line)| (index + 1, line));
        Self::of(lines, |line, reason| VaultError::Line { line, reason })
    }

    /// Understands keys as an environment variable holds them: lines as in a file, or several in a line with commas or
    /// blanks between them.
    pub(super) fn parse_variable(text: &[u8]) -> Result<Self, VaultError> {
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let lines = lines.filter(|line| !line.starts_with(b"#"));
        let entries = lines.flat_map(|line| {
            line.split(|byte| *byte == b',' || byte.is_ascii_whitespace()).filter(|entry| !entry.is_empty())
        });
        let entries = entries.enumerate().map(|(index, entry)| (index + 1, entry));
        Self::of(entries, |entry, reason| VaultError::Entry { entry, reason })
    }

    fn of<'a>(
        lines: impl Iterator<Item = (usize, &'a [u8])>,
        wrong: impl Fn(usize, &'static str) -> VaultError,
    ) -> Result<Self, VaultError> {
        let mut keys = Vec::new();
        let mut ids = HashSet::new();
        for (number, line) in lines {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let key = Key::parse(line).map_err(|reason| wrong(number, reason))?;
            if !ids.insert(key.id.clone()) {
                return Err(wrong(number, "this id has a key already"));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(VaultError::NoKey);
        }
        Ok(Self(keys))
    }

    /// All of them, in the order in which they are written.
    pub(super) fn all(&self) -> &[Key] {
        &self.0
    }

    /// The key of this id.
    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }

    /// An id that stands for another key here than there.
    pub(super) fn contradiction(&self, other: &Self) -> Option<&str> {
        let differs =
            |key: &&Key| other.find(&key.id).is_some_and(|same| same.mac("", b"") != key.mac("", b""));
        self.0.iter().find(differs).map(Key::id)
    }
}

impl Key {
    fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or("no colon between id and key")?;
        let (id, rest) = line.split_at(colon);
        let id = std::str::from_utf8(id).ok().filter(|id| is_key_id(id));
        let id = id.ok_or("an id has 1 to 32 of a-z, 0-9 and -")?.to_owned();
        let encoded = rest.trim_ascii_start().strip_prefix(b":").unwrap_or_default().trim_ascii();
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| "the key is not base64")?);
        let short = "the key has not 32 bytes";
        if bytes.len() != KEY_LEN {
            return Err(short);
        }
        let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| short)?);
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, MAC_SALT).extract(&bytes);
        let mac = root.expand(&[], HMAC_SHA256).map_err(|_| short)?.into();
        Ok(Self { id, aead, mac })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Id and the begin of a MAC that only this key makes.
    pub(super) fn label(&self) -> String {
        let [a, b, c, d, ..] = self.mac("", b"");
        format!("{} {:08x}", self.id, u32::from_be_bytes([a, b, c, d]))
    }

    pub(super) fn seal(
        &self,
        place: &Place,
        plain: &Secret,
        nonce: [u8; NONCE_LEN],
    ) -> Result<Vec<u8>, VaultError> {
        let mut sealed = Zeroizing::new(plain.expose().to_vec());
        let tag = self
            .aead
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated(place, &self.id)),
                &mut sealed,
            )
            .map_err(|_| VaultError::Broken)?;
        Ok([&head(&self.id)?, nonce.as_slice(), &sealed, tag.as_ref()].concat())
    }

    /// Opens what follows the head of an envelope.
    pub(super) fn open(&self, place: &Place, rest: &[u8]) -> Result<Secret, VaultError> {
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or(VaultError::Broken)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let plain = self
            .aead
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(associated(place, &self.id)),
                &mut buffer,
            )
            .map_err(|_| VaultError::Broken)?;
        Ok(Secret::new(plain.to_vec()))
    }

    /// HMAC-SHA256 over purpose and content.
    pub(super) fn mac(&self, purpose: &str, bytes: &[u8]) -> [u8; 32] {
        // In parts, the same bytes as `for_purpose`: a content may be a whole letter, and is not copied for this.
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(&super::envelope::length(purpose.as_bytes()));
        context.update(purpose.as_bytes());
        context.update(bytes);
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }

    /// Whether this is that MAC. Takes the same time whatever of it is right.
    pub(super) fn is_mac(&self, purpose: &str, bytes: &[u8], mac: &[u8]) -> bool {
        hmac::verify(&self.mac, &super::for_purpose(purpose, bytes), mac).is_ok()
    }
}
