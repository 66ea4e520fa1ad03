//! Letters a second over one session to Postfix's `smtp-sink`, beside a raw pipelined client that knows no errors.
//!
//! `cargo bench --bench session [-- <letters>]`. Figures are printed; nothing is judged.

mod one_session;
#[expect(dead_code, reason = "shared with the comparison, which counts what the sink took")]
mod smtp_sink;

use std::process::ExitCode;

use self::one_session::{LETTER_BYTES, ROUNDS, Rates, measure};
use self::smtp_sink::SmtpSink;

const LETTERS: usize = 20_000;

fn main() -> ExitCode {
    let letters = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(LETTERS);
    let sink = match SmtpSink::start() {
        Ok(sink) => sink,
        Err(error) => {
            eprintln!(
                "smtp-sink cannot be started ({error}); install it: apt-get install -y --no-install-recommends postfix"
            );
            return ExitCode::FAILURE;
        }
    };
    match measure(sink.address(), letters) {
        Ok(Rates { session, raw, raw_ahead }) => {
            println!(
                "letters of {LETTER_BYTES} bytes, {} each, in {ROUNDS} rounds",
                letters / ROUNDS * ROUNDS
            );
            println!("session, transcript at CLIENT_SERVER   {session:8.0} letters/s");
            println!("raw pipelined client                   {raw:8.0} letters/s");
            println!("ratio                                  {:8.1} %", 100.0 * session / raw);
            println!("raw, next envelope behind the dot      {raw_ahead:8.0} letters/s");
            println!("ratio                                  {:8.1} %", 100.0 * session / raw_ahead);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
