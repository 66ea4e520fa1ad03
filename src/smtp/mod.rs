//! The SMTP client: sessions, their replies, TLS, egress, transcripts, and the check of an account.
//!
//! A session reads only from a connection whose state it knows; whatever a server does, it costs its deadline and a
//! bounded amount of memory. What becomes of a result (retry times, parking) is decided by `delivery`.

mod capabilities;
mod certificate;
pub mod check;
mod connect;
mod connector;
mod connector_error;
mod content;
mod deadlines;
pub mod egress;
mod failure;
mod names;
mod printable;
mod redact;
mod reply;
mod session;
mod tls;
pub mod transcript;
mod wire;

pub use certificate::certificate_end;
pub use connector::{Connector, ConnectorOptions, Target};
pub use connector_error::ConnectorError;
pub use deadlines::{Deadlines, Floors};
pub use failure::{Failure, FailureKind};
pub use names::{Answers, Names};
pub use session::{Gate, Letter, Session, Ungated};
pub use transcript::Transcript;
