//! Why there can be no connector.

use std::path::PathBuf;

/// Why there can be no connector.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The operator's CA file.
    #[error("the CA file {} cannot be used: {reason}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The name in EHLO.
    #[error("`{0}` cannot be a name in EHLO")]
    HeloName(String),
    /// TLS itself.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}
