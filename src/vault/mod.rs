//! Sealing of secrets before they are stored: AES-256-GCM, bound to their place, under keys from a file of the operator.
//! Several keys may open, the first one seals. Which columns are sealed is the store's business.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac::{self, HMAC_SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hkdf};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::domain::secret::Secret;

/// The layout of the envelope: this byte, the key id's length and the key id, the nonce, the ciphertext with its tag.
const VERSION: u8 = 1;
/// Bytes of an AES-256 key.
const KEY_LEN: usize = 32;
/// A key id must fit a file's line and an error message.
const KEY_ID_MAX: usize = 32;
/// Separates the key of [`Vault::content_mac`] from the one that seals (RFC 5869, 3.1).
const MAC_SALT: &[u8] = b"postroom vault content mac 1";

/// Why a secret could not be sealed or opened, or why there is no vault.
#[derive(Debug, Error)]
pub enum VaultError {
    /// Sealed under a key that the file does not hold. Put it back, and nothing is lost.
    #[error("the vault has no key `{id}`, under which this was sealed: put it back into the key file")]
    KeyUnknown {
        /// The id in the envelope.
        id: String,
    },
    /// Altered, cut, moved from another place, or never sealed by a vault.
    #[error("a sealed value is broken or stands in a place that is not its own")]
    Broken,
    /// A line of the key file that cannot be understood. What it holds is not repeated here.
    #[error("line {line} of the key file: {reason}")]
    Line {
        /// Counted from one.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A key file without keys.
    #[error("the key file holds no key: one `<id>:<base64 of 32 bytes>` a line")]
    NoKey,
    /// The operating system's generator of random numbers failed.
    #[error("no random numbers")]
    Random,
    /// The key file could not be read or written.
    #[error("key file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where a sealed value stands. It opens nowhere else, so that nobody who can write to the database gains by
/// moving one site's password into another's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// The site to which the row belongs; empty where rows belong to none.
    pub site: &'a str,
    /// The rest of the row's primary key.
    pub row: String,
}

/// The keys, ready for use.
///
/// The file's text is wiped as soon as the keys are made of it; the keys themselves live inside `ring`, which does not wipe.
pub struct Vault {
    keys: Vec<Key>,
    mac: hmac::Key,
    random: SystemRandom,
}

struct Key {
    id: String,
    aead: LessSafeKey,
}

impl Vault {
    /// Reads a key file: one `<id>:<base64 of 32 bytes>` a line, the first one seals; `#` begins a comment.
    ///
    /// # Errors
    ///
    /// [`VaultError::File`], [`VaultError::Line`] and [`VaultError::NoKey`].
    pub fn load(path: &Path) -> Result<Self, VaultError> {
        let text = Zeroizing::new(fs::read(path).map_err(file_error(path))?);
        let mode = fs::metadata(path).map_err(file_error(path))?.permissions().mode();
        if mode & 0o004 != 0 {
            tracing::warn!(path = %path.display(), "every user of this machine can read the vault's keys: chmod o-r");
        }
        Self::parse(&text)
    }

    /// Understands the content of a key file.
    ///
    /// # Errors
    ///
    /// [`VaultError::Line`] and [`VaultError::NoKey`].
    pub fn parse(text: &[u8]) -> Result<Self, VaultError> {
        let mut keys = Vec::new();
        let mut oldest = Zeroizing::new(Vec::new());
        let mut ids = HashSet::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let wrong = |reason| VaultError::Line { line: index + 1, reason };
            let (id, bytes) = parse_line(line).map_err(wrong)?;
            if !ids.insert(id.clone()) {
                return Err(wrong("this id has a key already"));
            }
            let aead =
                UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| wrong("the key has not 32 bytes"))?;
            keys.push(Key { id, aead: LessSafeKey::new(aead) });
            oldest = bytes;
        }
        if keys.is_empty() {
            return Err(VaultError::NoKey);
        }
        // The last line is the oldest key, so that values stay the same when a new key is put before it.
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, MAC_SALT).extract(&oldest);
        let mac = root.expand(&[], HMAC_SHA256).map_err(|_| VaultError::NoKey)?.into();
        Ok(Self { keys, mac, random: SystemRandom::new() })
    }

    /// Reads the key file, or makes it if there is none. Of several that make it at once, one wins and all read it.
    ///
    /// # Errors
    ///
    /// As of [`Vault::load`] and [`Vault::create_file`].
    pub fn load_or_create(path: &Path) -> Result<Self, VaultError> {
        let is = |error: &VaultError, kind| matches!(error, VaultError::File { source, .. } if source.kind() == kind);
        match Self::load(path) {
            Err(error) if is(&error, ErrorKind::NotFound) => match Self::create_file(path) {
                Err(error) if is(&error, ErrorKind::AlreadyExists) => Self::load(path),
                other => other,
            },
            other => other,
        }
    }

    /// Makes a key file with one new key, readable by its owner alone, whole and safe from a power cut.
    ///
    /// # Errors
    ///
    /// [`VaultError::File`] if there is such a file already: a key is never overwritten.
    pub fn create_file(path: &Path) -> Result<Self, VaultError> {
        let head = b"# The keys of Postroom's vault. Without them no stored password can be read: keep a copy elsewhere.\n";
        let text = Zeroizing::new([head.as_slice(), &new_line()?].concat());
        let vault = Self::parse(&text)?;
        // A hard link refuses to replace, unlike a rename.
        place_file(path, &text, |unfinished| fs::hard_link(unfinished, path))?;
        Ok(vault)
    }

    /// Puts a new key before the others of a key file; from its next reading on, it seals.
    ///
    /// # Errors
    ///
    /// As of [`Vault::load`]; the file stays as it was then.
    pub fn add_key(path: &Path) -> Result<Self, VaultError> {
        let old = Zeroizing::new(fs::read(path).map_err(file_error(path))?);
        Self::parse(&old)?;
        let text = Zeroizing::new([new_line()?.as_slice(), &old].concat());
        let vault = Self::parse(&text)?;
        place_file(path, &text, |unfinished| fs::rename(unfinished, path))?;
        Ok(vault)
    }

    /// Seals a secret for one place, under the first key.
    ///
    /// # Errors
    ///
    /// [`VaultError::Random`] if the system gives no random numbers, [`VaultError::Broken`] beyond 64 GiB.
    pub fn seal(&self, place: &Place, plain: &Secret) -> Result<Vec<u8>, VaultError> {
        let key = self.keys.first().ok_or(VaultError::NoKey)?;
        let id_len = u8::try_from(key.id.len()).map_err(|_| VaultError::Broken)?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| VaultError::Random)?;
        let mut sealed = Zeroizing::new(plain.expose().to_vec());
        let tag = key
            .aead
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated(place, &key.id)),
                &mut sealed,
            )
            .map_err(|_| VaultError::Broken)?;
        Ok([&[VERSION, id_len], key.id.as_bytes(), &nonce, &sealed, tag.as_ref()].concat())
    }

    /// Opens what was sealed for this place, under whichever key it was.
    ///
    /// # Errors
    ///
    /// [`VaultError::KeyUnknown`] if the key is missing, else [`VaultError::Broken`].
    pub fn open(&self, place: &Place, sealed: &[u8]) -> Result<Secret, VaultError> {
        let (id, rest) = split_envelope(sealed)?;
        let key = self
            .keys
            .iter()
            .find(|key| key.id == id)
            .ok_or_else(|| VaultError::KeyUnknown { id: id.to_owned() })?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or(VaultError::Broken)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let plain = key
            .aead
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(associated(place, &key.id)),
                &mut buffer,
            )
            .map_err(|_| VaultError::Broken)?;
        Ok(Secret::new(plain.to_vec()))
    }

    /// Whether a sealed value is under the first key, so that a rotation may pass it by.
    ///
    /// # Errors
    ///
    /// [`VaultError::Broken`] if it is no envelope.
    pub fn is_current(&self, sealed: &[u8]) -> Result<bool, VaultError> {
        let (id, _rest) = split_envelope(sealed)?;
        Ok(self.keys.first().is_some_and(|key| key.id == id))
    }

    /// The ids of all keys, the sealing one first.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.id.as_str())
    }

    /// A fingerprint of content that only holders of the key file can make, and so cannot be guessed from the
    /// database (a plain hash of a short password could). HMAC-SHA256, apart for each purpose.
    ///
    /// Its key comes from the last line of the key file, the oldest key, and so stays the same as long as that key is kept.
    #[must_use]
    pub fn content_mac(&self, purpose: &str, bytes: &[u8]) -> [u8; digest::SHA256_OUTPUT_LEN] {
        let mut mac = [0; digest::SHA256_OUTPUT_LEN];
        mac.copy_from_slice(hmac::sign(&self.mac, &for_purpose(purpose, bytes)).as_ref());
        mac
    }

    /// Whether this is the [`Vault::content_mac`] of the content. Takes the same time whatever of it is right.
    #[must_use]
    pub fn is_content_mac(&self, purpose: &str, bytes: &[u8], mac: &[u8]) -> bool {
        hmac::verify(&self.mac, &for_purpose(purpose, bytes), mac).is_ok()
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.key_ids().collect();
        formatter.debug_struct("Vault").field("key_ids", &ids).finish_non_exhaustive()
    }
}

fn parse_line(line: &[u8]) -> Result<(String, Zeroizing<Vec<u8>>), &'static str> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("no colon between id and key")?;
    let (id, rest) = line.split_at(colon);
    if !is_key_id(id) {
        return Err("an id has 1 to 32 of a-z, 0-9 and -");
    }
    let encoded = rest.trim_ascii_start().strip_prefix(b":").unwrap_or_default().trim_ascii();
    let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| "the key is not base64")?);
    if bytes.len() != KEY_LEN {
        return Err("the key has not 32 bytes");
    }
    Ok((String::from_utf8_lossy(id).into_owned(), bytes))
}

fn is_key_id(id: &[u8]) -> bool {
    let letters = id.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
    letters && (1..=KEY_ID_MAX).contains(&id.len())
}

/// The key id of an envelope, and what follows it.
fn split_envelope(sealed: &[u8]) -> Result<(&str, &[u8]), VaultError> {
    let (&[version, id_len], rest) = sealed.split_first_chunk::<2>().ok_or(VaultError::Broken)?;
    let (id, rest) = rest.split_at_checked(usize::from(id_len)).ok_or(VaultError::Broken)?;
    if version != VERSION || !is_key_id(id) {
        return Err(VaultError::Broken);
    }
    Ok((std::str::from_utf8(id).map_err(|_| VaultError::Broken)?, rest))
}

/// Version, place and key id, each with its length before it, so that no two places read the same.
fn associated(place: &Place, key_id: &str) -> Vec<u8> {
    let Place { table, column, site, row } = place;
    let mut bytes = vec![VERSION];
    for part in [table, column, site, row.as_str(), key_id] {
        bytes.extend_from_slice(&length(part.as_bytes()));
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

/// The purpose with its length before it, then the content; wiped, since the content may be a short secret.
fn for_purpose(purpose: &str, bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([&length(purpose.as_bytes()), purpose.as_bytes(), bytes].concat())
}

fn length(bytes: &[u8]) -> [u8; 8] {
    // usize has at most 64 bits wherever this compiles.
    (bytes.len() as u64).to_be_bytes()
}

/// A new key as a line of the file.
fn new_line() -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let random = SystemRandom::new();
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let mut id = [0; 4];
    random.fill(key.as_mut()).and_then(|()| random.fill(&mut id)).map_err(|_| VaultError::Random)?;
    let encoded = Zeroizing::new(STANDARD.encode(key.as_ref()));
    let id = u32::from_be_bytes(id);
    Ok(Zeroizing::new(format!("key-{id:08x}:{}\n", encoded.as_str()).into_bytes()))
}

/// Writes a file of its own beside `path`, and lets `place` put it there once it is safely on disk.
fn place_file(
    path: &Path,
    text: &[u8],
    place: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), VaultError> {
    let mut suffix = [0; 8];
    SystemRandom::new().fill(&mut suffix).map_err(|_| VaultError::Random)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}", u64::from_be_bytes(suffix)));
    let unfinished = path.with_file_name(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(text)?;
        file.sync_all()?;
        place(&unfinished)
    })();
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(file_error(&unfinished)(error)),
        _ => {}
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    written.and_then(|()| File::open(folder)?.sync_all()).map_err(file_error(path))
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> VaultError + use<> {
    let path = path.to_owned();
    move |source| VaultError::File { path: path.clone(), source }
}

#[cfg(test)]
mod tests;
