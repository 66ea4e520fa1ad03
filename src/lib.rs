//! Postroom: portals, shops and CRMs delegate their outgoing mail to it over gRPC.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod domain;
pub mod mime;
pub mod private_postgres;
pub mod shutdown;
pub mod smtp;
pub mod store;
pub mod telemetry;
pub mod vault;
