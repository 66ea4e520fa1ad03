//! Black-box tests: typed gRPC clients against the real server, each with a database of its own.

mod acceptor;
mod access;
mod accounts;
mod binary;
mod catcher;
mod checks;
mod deleting;
mod events;
mod filters;
mod health;
mod input;
mod ladder;
mod leases;
mod letters;
mod letters_compose;
mod logs;
mod ownership;
mod postfix;
mod postfix_auth;
mod process;
mod python_client;
mod real_letters;
mod retries;
mod routing;
#[path = "../smtp/scripted.rs"]
#[expect(dead_code, reason = "shared with tests/smtp, which uses all of it")]
mod scripted;
mod secrets;
mod send_stream;
mod senders;
mod sending;
mod sessions;
mod settings;
mod sharing;
mod sizes;
mod support;
mod watching;
