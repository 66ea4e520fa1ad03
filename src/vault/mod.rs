//! Sealing of secrets before they are stored: AES-256-GCM, bound to their place, under keys of the operator. Several
//! keys may open, one seals. Which columns are sealed is the store's business.

mod envelope;
mod file;
mod keys;

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use ring::aead::NONCE_LEN;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use zeroize::Zeroizing;

use self::keys::{Key, Keys};
use crate::domain::secret::Secret;

/// A key id must fit a file's line and an error message.
const KEY_ID_MAX: usize = 32;

/// Why a secret could not be sealed or opened, or why there is no vault.
#[derive(Debug, Error)]
pub enum VaultError {
    /// Sealed under a key that the vault does not hold. Put it back, and nothing is lost.
    #[error("the vault has no key `{id}`, under which this was sealed: put it back among the vault's keys")]
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
    /// The same of an environment variable.
    #[error("key {entry} of the environment: {reason}")]
    Entry {
        /// Counted from one.
        entry: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No keys where there should be some.
    #[error("there is no key: one `<id>:<base64 of 32 bytes>` a line")]
    NoKey,
    /// A key file that was changed gives a known id to another key.
    #[error("the key `{id}` has become another one: a new key needs an id of its own")]
    Contradiction {
        /// The id.
        id: String,
    },
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

/// The keys, ready for use. Those of a file are read anew by [`Vault::refresh`].
pub struct Vault {
    /// The file they come from; none where they came otherwise and stay as they are.
    path: Option<PathBuf>,
    now: RwLock<Arc<Now>>,
    random: SystemRandom,
}

/// The keys as they are now.
struct Now {
    keys: Arc<Keys>,
    /// SHA-256 of the text that they were made of.
    text: [u8; digest::SHA256_OUTPUT_LEN],
    /// Which of them seals.
    sealing: usize,
}

/// The [MACs](Vault::content_mac) of one content under all keys, to compare one with that was made before. There is at
/// least one.
#[derive(Clone, Debug)]
pub struct Fingerprint(Vec<[u8; 32]>);

impl Fingerprint {
    /// The one to keep.
    #[must_use]
    pub fn mac(&self) -> &[u8; 32] {
        &self.0[0]
    }

    /// Whether one that was kept is of the same content, whichever of the keys it was made with.
    #[must_use]
    pub fn is(&self, mac: &[u8]) -> bool {
        self.0.iter().any(|own| own == mac)
    }

    /// The same of the first bytes of one.
    #[must_use]
    pub fn begins(&self, mac: &[u8]) -> bool {
        self.0.iter().any(|own| own.starts_with(mac))
    }
}

impl Vault {
    /// Reads a key file: one `<id>:<base64 of 32 bytes>` a line, the first one is to seal; `#` begins a comment.
    ///
    /// # Errors
    ///
    /// [`VaultError::File`], [`VaultError::Line`] and [`VaultError::NoKey`].
    pub fn load(path: &Path) -> Result<Self, VaultError> {
        let text = file::read(path)?;
        file::warn_of_readers(path)?;
        Ok(Self::new(Some(path.to_owned()), &text, Keys::parse(&text)?))
    }

    /// Understands the content of a key file.
    ///
    /// # Errors
    ///
    /// [`VaultError::Line`] and [`VaultError::NoKey`].
    pub fn parse(text: &[u8]) -> Result<Self, VaultError> {
        Ok(Self::new(None, text, Keys::parse(text)?))
    }

    /// Understands keys that an environment variable holds: lines as in a file, or commas or blanks between them.
    ///
    /// # Errors
    ///
    /// [`VaultError::Entry`] and [`VaultError::NoKey`].
    pub fn parse_variable(text: &[u8]) -> Result<Self, VaultError> {
        Ok(Self::new(None, text, Keys::parse_variable(text)?))
    }

    /// Reads the key file, or makes it if there is none. Of several that make it at once, one wins and all read it.
    ///
    /// # Errors
    ///
    /// As of [`Vault::load`] and [`Vault::create_file`].
    pub fn load_or_create(path: &Path) -> Result<Self, VaultError> {
        match Self::load(path) {
            Err(error) if file::is(&error, ErrorKind::NotFound) => match Self::create_file(path) {
                Err(error) if file::is(&error, ErrorKind::AlreadyExists) => Self::load(path),
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
        file::create(path)?;
        Self::load(path)
    }

    /// Puts a new key before the others of a key file; servers read it within a second, and once all of them have, it
    /// seals.
    ///
    /// # Errors
    ///
    /// As of [`Vault::load`]; the file stays as it was then.
    pub fn add_key(path: &Path) -> Result<Self, VaultError> {
        file::add(path)?;
        Self::load(path)
    }

    fn new(path: Option<PathBuf>, text: &[u8], keys: Keys) -> Self {
        let now = Now { keys: Arc::new(keys), text: hash(text), sealing: 0 };
        Self { path, now: RwLock::new(Arc::new(now)), random: SystemRandom::new() }
    }

    /// Reads the key file again; whether the keys are others now. Keys that do not come from a file stay.
    ///
    /// # Errors
    ///
    /// As of [`Vault::load`], and [`VaultError::Contradiction`]; the keys stay as they were then.
    pub fn refresh(&self) -> Result<bool, VaultError> {
        let Some(path) = &self.path else { return Ok(false) };
        let text = file::read(path)?;
        let before = self.now();
        if before.text == hash(&text) {
            return Ok(false);
        }
        let keys = Keys::parse(&text)?;
        if let Some(id) = keys.contradiction(&before.keys) {
            return Err(VaultError::Contradiction { id: id.to_owned() });
        }
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        // What seals goes on sealing until the others are heard.
        let sealing = keys.all().iter().position(|key| key.id() == now.sealing_key().id()).unwrap_or(0);
        *now = Arc::new(Now { keys: Arc::new(keys), text: hash(&text), sealing });
        Ok(true)
    }

    /// Hears [which keys](Vault::announcement) the other servers have: the first of ours that all of them have seals from now on. Where there
    /// is none, our first one does.
    pub fn agree(&self, others: &[Vec<String>]) {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let known = |key: &Key| others.iter().all(|keys| keys.contains(&key.label()));
        let sealing = now.keys.all().iter().position(known).unwrap_or(0);
        if sealing != now.sealing {
            *now = Arc::new(Now { keys: Arc::clone(&now.keys), text: now.text, sealing });
        }
    }

    /// Seals a secret for one place.
    ///
    /// # Errors
    ///
    /// [`VaultError::Random`] if the system gives no random numbers, [`VaultError::Broken`] beyond 64 GiB.
    pub fn seal(&self, place: &Place, plain: &Secret) -> Result<Vec<u8>, VaultError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| VaultError::Random)?;
        self.now().sealing_key().seal(place, plain, nonce)
    }

    /// Opens what was sealed for this place, under whichever key it was. Where the key is missing, the file is read again
    /// at once.
    ///
    /// # Errors
    ///
    /// [`VaultError::KeyUnknown`] if the key is missing, else [`VaultError::Broken`].
    pub fn open(&self, place: &Place, sealed: &[u8]) -> Result<Secret, VaultError> {
        let (id, rest) = envelope::split(sealed)?;
        let unknown = || VaultError::KeyUnknown { id: id.to_owned() };
        if let Some(key) = self.now().keys.find(id) {
            return key.open(place, rest);
        }
        if let Err(error) = self.refresh() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the vault's keys cannot be read again"
            );
        }
        self.now().keys.find(id).ok_or_else(unknown)?.open(place, rest)
    }

    /// The [label](Vault::announcement) of the key of this id.
    #[must_use]
    pub fn label(&self, id: &str) -> Option<String> {
        self.now().keys.find(id).map(Key::label)
    }

    /// Whether there is a key of this id.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.now().keys.find(id).is_some()
    }

    /// The ids of all keys, in the order in which they are written.
    #[must_use]
    pub fn key_ids(&self) -> Vec<String> {
        self.now().keys.all().iter().map(|key| key.id().to_owned()).collect()
    }

    /// What other servers are told of the keys: the one that seals first, each by its id and a fingerprint, so that two keys
    /// of one id are not taken for the same.
    #[must_use]
    pub fn announcement(&self) -> Vec<String> {
        self.now().sealing_first(Key::label)
    }

    /// A fingerprint of content that only holders of the keys can make, and so cannot be guessed from the database (a
    /// plain hash of a short password could). HMAC-SHA256, apart for each purpose, under the key that seals.
    #[must_use]
    pub fn content_mac(&self, purpose: &str, bytes: &[u8]) -> [u8; 32] {
        self.now().sealing_key().mac(purpose, bytes)
    }

    /// Whether this is a [`Vault::content_mac`] of the content, under any of the keys. Takes the same time whatever of it
    /// is right.
    #[must_use]
    pub fn is_content_mac(&self, purpose: &str, bytes: &[u8], mac: &[u8]) -> bool {
        let is = |key: &Key| key.is_mac(purpose, bytes, mac);
        // All of them, so that the time does not depend on which.
        self.now().keys.all().iter().fold(false, |found, key| is(key) | found)
    }

    /// The [MACs](Vault::content_mac) of the content under all keys, that of the key that seals first.
    #[must_use]
    pub fn fingerprint(&self, purpose: &str, bytes: &[u8]) -> Fingerprint {
        Fingerprint(self.now().sealing_first(|key| key.mac(purpose, bytes)))
    }

    fn now(&self) -> Arc<Now> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Now {
    /// Something of each key, that of the one that seals first.
    fn sealing_first<T>(&self, of: impl Fn(&Key) -> T) -> Vec<T> {
        let mut found: Vec<T> = self.keys.all().iter().map(of).collect();
        found[..=self.sealing].rotate_right(1);
        found
    }

    fn sealing_key(&self) -> &Key {
        &self.keys.all()[self.sealing]
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Vault").field("key_ids", &self.key_ids()).finish_non_exhaustive()
    }
}

/// The key id of an envelope, whether or not there is such a key.
///
/// # Errors
///
/// [`VaultError::Broken`] if it is no envelope.
pub fn key_id(sealed: &[u8]) -> Result<&str, VaultError> {
    envelope::split(sealed).map(|(id, _rest)| id)
}

/// Whether a key may have this id.
#[must_use]
pub fn is_key_id(id: &str) -> bool {
    let right = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    id.bytes().all(right) && (1..=KEY_ID_MAX).contains(&id.len())
}

/// The purpose with its length before it, then the content; wiped, since the content may be a short secret.
fn for_purpose(purpose: &str, bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([&envelope::length(purpose.as_bytes()), purpose.as_bytes(), bytes].concat())
}

fn hash(text: &[u8]) -> [u8; digest::SHA256_OUTPUT_LEN] {
    let mut hash = [0; digest::SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text).as_ref());
    hash
}

#[cfg(test)]
mod tests;
