//! Black-box tests.

mod acceptor;
mod catcher;
mod letters;
mod letters_compose;
mod postfix;
mod postfix_auth;
mod postfix_relays;
