//! An SMTP account: where it connects to, how it logs in, whose letters it carries.

use super::secret::Secret;

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte (RFC 8314).
    ImplicitTls,
    /// STARTTLS, required, never optional (RFC 3207).
    StartTls,
    /// Plain text.
    None,
}

impl Security {
    /// The port an account uses that names none: 465, 587 or 25.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::ImplicitTls => 465,
            Self::StartTls => 587,
            Self::None => 25,
        }
    }
}

/// The server of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Host name in its ASCII (A-label) form, or an IP literal without brackets.
    pub host: String,
    /// TCP port, 1 to 65535.
    pub port: u16,
    /// Protection of the connection.
    pub security: Security,
}

/// How an account logs in.
#[derive(Clone)]
pub enum Auth {
    /// Not at all.
    None,
    /// By user name and password (RFC 4954).
    Password {
        /// The user name, never empty.
        username: String,
        /// The password.
        password: Secret,
    },
}
