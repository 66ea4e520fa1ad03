//! Connections of clients: TLS, mutual TLS, certificates that are exchanged, bounds, deadlines, abuse.

mod abuse;
mod bombs;
mod certs;
mod channels;
mod deadlines;
mod elements;
mod exchange;
mod floods;
mod memory;
mod mutual;
mod options;
mod raw;
mod shedding;
mod tls;
