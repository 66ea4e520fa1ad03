//! The layout of a sealed value, and what it is bound to.

use super::{Place, VaultError, is_key_id};

/// The layout of the envelope: this byte, the key id's length and the key id, the nonce, the ciphertext with its tag.
/// The function `vault_key_id` of the database reads the same.
pub(super) const VERSION: u8 = 1;

/// The head of an envelope that is sealed under this key.
pub(super) fn head(key_id: &str) -> Result<Vec<u8>, VaultError> {
    let id_len = u8::try_from(key_id.len()).map_err(|_| VaultError::Broken)?;
    Ok([&[VERSION, id_len], key_id.as_bytes()].concat())
}

/// The key id of an envelope, and what follows it.
pub(super) fn split(sealed: &[u8]) -> Result<(&str, &[u8]), VaultError> {
    let (&[version, id_len], rest) = sealed.split_first_chunk::<2>().ok_or(VaultError::Broken)?;
    let (id, rest) = rest.split_at_checked(usize::from(id_len)).ok_or(VaultError::Broken)?;
    let id = std::str::from_utf8(id).map_err(|_| VaultError::Broken)?;
    if version != VERSION || !is_key_id(id) {
        return Err(VaultError::Broken);
    }
    Ok((id, rest))
}

/// Version, place and key id, each with its length before it, so that no two places read the same.
pub(super) fn associated(place: &Place, key_id: &str) -> Vec<u8> {
    let Place { table, column, site, row } = place;
    let mut bytes = vec![VERSION];
    for part in [table, column, site, row.as_str(), key_id] {
        bytes.extend_from_slice(&length(part.as_bytes()));
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

/// The length of a part, in eight bytes.
pub(super) fn length(bytes: &[u8]) -> [u8; 8] {
    // usize has at most 64 bits wherever this compiles.
    (bytes.len() as u64).to_be_bytes()
}
