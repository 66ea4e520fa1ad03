//! The rules of the house, pure: no I/O, no gRPC, no SQL, no MIME library.

pub mod account;
pub mod address;
pub mod clock;
pub mod error;
pub mod log;
pub mod outcome;
pub mod reply;
pub mod secret;
