//! Postroom: portals, shops and CRMs delegate their outgoing mail to it over gRPC.
//!
//! # The map of the house
//!
//! | module | what lives there |
//! |---|---|
//! | [`cli`] | the command line, one file for each subcommand |
//! | [`app`] | the composition root: store, delivery, API and health put together; binds nothing, traps nothing |
//! | [`api`] | the gRPC edge: proto to domain and back, one file or folder for each noun |
//! | [`delivery`] | claims due letters, sends them, records what became of them |
//! | [`store`] | every SQL statement, one file for each noun |
//! | [`smtp`] | the SMTP client: sessions, replies, TLS, egress, transcripts, the check of an account |
//! | [`mime`] | letters as bytes: put together, or a caller's own mended |
//! | [`vault`] | sealing of secrets |
//! | [`metrics`] | what is counted, and its text for Prometheus |
//! | [`domain`] | the rules, pure: addresses, choice of account, outcomes, retry times, rights |
//! | [`config`] | flags and environment, checked once |
//! | [`private_postgres`] | the PostgreSQL of those who bring none |
//! | [`shutdown`] | signals, soft stop, hard stop |
//! | [`transport`] | connections of clients: their number, TLS, HTTP/2; the listener of metrics |
//! | [`telemetry`] | log lines |
//!
//! # The rule
//!
//! `main -> cli -> app -> {api, delivery} -> {store, smtp, mime} -> {vault, metrics, domain}`: a module knows those to its right,
//! never those to its left, never those beside it in braces. (`vault` knows one type of `domain`, the secret; `metrics` has its words.) The
//! last five of the table are for `cli` and `app`; `delivery` is told of the shutdown. `domain` knows no tonic, prost,
//! sqlx, lettre or tokio; generated types are known in `api` and `cli`, sqlx in `store`, lettre and mail-parser in
//! `mime`, rustls in `smtp` and `transport`, prometheus-client in `metrics`. `tests/architecture` holds the sources to it.
//!
//! # A letter's journey
//!
//! `SendMessage` reaches `api::send`, which asks `api::auth` for the caller, turns the request into a draft
//! (`api::send::letter`), lets [`domain::routing`] choose the account and [`mime::compose`] make the bytes, and stores
//! letter, bytes and a place in the queue by one statement, [`store::taking::take`]. The store says that the account
//! has due mail; `delivery::dispatch` wakes a worker, the worker claims under a lease ([`store::queue::claim`]), and
//! `delivery::attempt` sends over an [`smtp::Session`], with no transaction open. Transcript and outcome go to the one
//! recorder (`delivery::record`), which writes them in batches ([`store::logs::record`]) and wakes who waits: the
//! `SendMessage` that asked for the outcome, and every `TailLogEntries`. docs/ARCHITECTURE.md goes the way in detail.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod domain;
pub mod metrics;
pub mod mime;
pub mod private_postgres;
pub mod shutdown;
pub mod smtp;
pub mod store;
pub mod telemetry;
pub mod transport;
pub mod vault;
