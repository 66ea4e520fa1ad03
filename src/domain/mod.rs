//! The rules of the house, pure: no I/O, no gRPC, no SQL, no MIME library.

pub mod access;
pub mod account;
pub mod address;
pub mod audit;
pub mod clock;
pub mod error;
pub mod event;
pub mod limits;
pub mod log;
pub mod message;
pub mod outcome;
pub mod pace;
pub mod parking;
pub mod providers;
pub mod reply;
pub mod routing;
pub mod secret;
pub mod sender;
pub mod settings;
pub mod site;
