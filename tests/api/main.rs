//! Black-box tests: typed gRPC clients against the real server, each with a database of its own.

mod acceptor;
mod access;
mod accounts;
mod catcher;
mod checks;
mod deleting;
mod filters;
mod health;
mod input;
mod leases;
mod letters;
mod letters_compose;
mod logs;
mod postfix;
mod postfix_auth;
mod postfix_relays;
#[path = "../smtp/scripted.rs"]
#[expect(dead_code, reason = "shared with tests/smtp, which uses all of it")]
mod scripted;
mod sending;
mod settings;
mod sizes;
mod support;
mod watching;
