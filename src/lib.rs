//! Postroom: portals, shops and CRMs delegate their outgoing mail to it over gRPC.

pub mod domain;
pub mod smtp;
