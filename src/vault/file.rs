//! The key file: made, added to, read. Never half of it, and no key is ever overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::VaultError;
use super::keys::{KEY_LEN, Keys};

/// Reads a key file.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    fs::read(path).map(Zeroizing::new).map_err(file_error(path))
}

/// Warns of a key file that is everybody's.
pub(super) fn warn_of_readers(path: &Path) -> Result<(), VaultError> {
    let mode = fs::metadata(path).map_err(file_error(path))?.permissions().mode();
    if mode & 0o004 != 0 {
        tracing::warn!(path = %path.display(), "every user of this machine can read the vault's keys: chmod o-r");
    }
    Ok(())
}

/// Makes a key file with one new key, readable by its owner alone, whole and safe from a power cut.
pub(super) fn create(path: &Path) -> Result<(), VaultError> {
    let head = b"# The keys of Postroom's vault. Without them no stored password can be read: keep a copy elsewhere.\n";
    let text = Zeroizing::new([head.as_slice(), &new_line()?].concat());
    // A hard link refuses to replace, unlike a rename.
    place_file(path, &text, |unfinished| fs::hard_link(unfinished, path))
}

/// Puts a new key before the others. Owner and mode of the file stay.
pub(super) fn add(path: &Path) -> Result<(), VaultError> {
    let lock = lock(path)?;
    let old = read(path)?;
    Keys::parse(&old)?;
    let text = Zeroizing::new([new_line()?.as_slice(), &old].concat());
    Keys::parse(&text)?;
    // Behind a link lies the file itself: the link stays.
    let path = fs::canonicalize(path).map_err(file_error(path))?;
    let before = fs::metadata(&path).map_err(file_error(&path))?;
    let placed = place_file(&path, &text, |unfinished| {
        let made = fs::metadata(unfinished)?;
        if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
            chown(unfinished, Some(before.uid()), Some(before.gid()))?;
        }
        fs::set_permissions(unfinished, before.permissions())?;
        fs::rename(unfinished, &path)
    });
    drop(lock);
    placed
}

/// Keeps others from adding a key until it is dropped: of two that add one at once, neither loses his.
fn lock(path: &Path) -> Result<File, VaultError> {
    let at = file_error(path);
    loop {
        let file = File::open(path).map_err(&at)?;
        file.lock().map_err(&at)?;
        // Who was first has put another file in its place.
        let (locked, there) = (file.metadata().map_err(&at)?, fs::metadata(path).map_err(&at)?);
        if (locked.dev(), locked.ino()) == (there.dev(), there.ino()) {
            return Ok(file);
        }
    }
}

/// Whether the error says that there is no such file, or that there is one already.
pub(super) fn is(error: &VaultError, kind: ErrorKind) -> bool {
    matches!(error, VaultError::File { source, .. } if source.kind() == kind)
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
