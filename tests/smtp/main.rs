//! The SMTP client against servers that misbehave, one by one, on loopback. No sleeps but those a server plays.

mod announcing;
mod certificates_test;
mod checks;
mod content;
mod envelope;
mod gates;
mod login;
mod opening;
mod redaction;
mod reuse;
mod scripted;
mod support;
mod transcripts;
