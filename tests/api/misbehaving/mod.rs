//! What a misbehaving server leads to, seen from outside: CASES 1 to 28, each by a scripted server, its journal, the
//! letter's answer, its transcript and the account's parking. Case 26 is in `sessions.rs`.

mod content;
mod envelope;
mod login;
mod opening;
mod rig;
mod story;
mod unreachable;
