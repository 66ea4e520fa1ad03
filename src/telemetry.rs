//! What the program tells its operator: log lines on standard error, as text or JSON. Standard output is for results, and
//! what is counted lives in `metrics`.

use std::io;
use std::str::FromStr;

use clap::ValueEnum;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::fmt::SubscriberBuilder;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Which log lines are written: a level, or levels by target such as `info,postroom::smtp=debug`.
#[derive(Clone, Debug)]
pub struct LogFilter(EnvFilter);

impl FromStr for LogFilter {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        EnvFilter::builder().parse(text).map(Self)
    }
}

/// Begins to write log lines to standard error. Only the first call in a process counts, so that each test
/// may call it.
pub fn init(format: LogFormat, filter: LogFilter) {
    let LogFilter(filter) = filter;
    let builder = SubscriberBuilder::default().with_env_filter(filter).with_writer(io::stderr);
    let first = match format {
        LogFormat::Text => {
            let colours = io::IsTerminal::is_terminal(&io::stderr());
            builder.with_ansi(colours).finish().with(filter_fn(may_be_told)).try_init()
        }
        LogFormat::Json => {
            builder.json().flatten_event(true).finish().with(filter_fn(may_be_told)).try_init()
        }
    };
    if first.is_err() {
        tracing::debug!("log lines are being written already");
    }
}

/// Whatever the filter says: rustls shows certificates and extensions byte by byte, and a server may put into them what it
/// learnt from us, such as a password.
fn may_be_told(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || !metadata.target().starts_with("rustls")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_by_target() {
        for good in ["info", "warn,postroom::smtp=trace", "off"] {
            assert!(good.parse::<LogFilter>().is_ok(), "{good}");
        }
        for bad in ["postroom=loud", "info,postroom=[", "=="] {
            assert!(bad.parse::<LogFilter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn second_call_is_harmless() {
        for format in [LogFormat::Text, LogFormat::Json] {
            init(format, "off".parse().unwrap());
        }
    }
}
