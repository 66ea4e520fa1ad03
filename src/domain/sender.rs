//! Senders: addresses that somebody may put into From, and the codes that prove it. Rules alone; nothing is mailed here.

use std::time::Duration;

use ring::rand::SecureRandom;
use time::OffsetDateTime;

use super::address::Address;
use super::error::{Problem, Reason};
use super::secret::Secret;
use super::site::SiteId;

/// How long a code is good.
pub const CODE_LIFETIME: Duration = Duration::from_hours(1);
/// Tries of one code: with a million codes, a guesser of every code of a day finds one in 20,000.
pub const MAX_TRIES: i32 = 5;
/// How long codes are remembered, and `MAX_CODES` are counted.
pub const COUNTING_PERIOD: Duration = Duration::from_hours(24);
/// Codes that are mailed to one address in a day, whoever asks.
const MAX_CODES: usize = 10;
/// From one code to the next for the same address.
const CODE_INTERVAL: Duration = Duration::from_mins(1);
/// Digits of a code.
const CODE_DIGITS: usize = 6;
/// How many codes there are.
const CODES: u32 = 1_000_000;
/// A number is drawn again that would favour small codes: one in 130,000 is.
const MAX_DRAWS: usize = 16;

/// How it is known that an address may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// By a code that was mailed to it.
    Code,
    /// An operator says that it is the address of a person's mailbox.
    Mailbox,
}

impl Source {
    /// The name in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Mailbox => "mailbox",
        }
    }

    /// The source of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Code, Self::Mailbox].into_iter().find(|source| source.name() == name)
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Name of the sender, maybe empty.
    pub sender_name: String,
    /// The address.
    pub sender_email: Address,
    /// The site's own id of the person whose it is; empty for the site itself.
    pub user: String,
    /// Whether everyone of the site may use it, once it is confirmed.
    pub shared: bool,
    /// How it is to be known.
    pub source: Source,
}

/// One sender.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Whose it is.
    pub site: SiteId,
    /// Its id.
    pub id: i64,
    /// What was asked for.
    pub wish: Wish,
    /// Whether it may be used.
    pub confirmed: bool,
    /// When it was created.
    pub create_time: OffsetDateTime,
}

/// The resource name of a sender.
#[must_use]
pub fn sender_name(site: &SiteId, id: i64) -> String {
    format!("sites/{site}/senders/{id}")
}

/// A fresh code, every one as likely as the others.
///
/// # Errors
/// None but that the operating system has no randomness to give.
pub fn new_code(random: &dyn SecureRandom) -> Result<Secret, Problem> {
    for _ in 0..MAX_DRAWS {
        let mut bytes = [0; 4];
        if random.fill(&mut bytes).is_err() {
            break;
        }
        if let Some(code) = code_of(u32::from_be_bytes(bytes)) {
            return Ok(Secret::from(code));
        }
    }
    Err(Problem::new(Reason::Internal, "the operating system gave no randomness"))
}

/// The code of a random number; none for the numbers beyond the last whole million.
fn code_of(number: u32) -> Option<String> {
    (number < u32::MAX / CODES * CODES).then(|| format!("{:0CODE_DIGITS$}", number % CODES))
}

/// A code as a person typed it, blanks around it taken off.
///
/// # Errors
/// What is wrong with it.
pub fn parse_code(text: &str) -> Result<Secret, &'static str> {
    let digits = text.trim_matches(' ');
    if digits.len() != CODE_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("must be the six digits of the letter");
    }
    Ok(Secret::from(digits.to_owned()))
}

/// How long to wait before another code may be mailed to an address, to which codes were mailed at these times, newest
/// first; none where one may be mailed now.
#[must_use]
pub fn wait_for_code(now: OffsetDateTime, mailed: &[OffsetDateTime]) -> Option<Duration> {
    let after_last = mailed.first().map(|last| *last + CODE_INTERVAL);
    let after_many = mailed.get(MAX_CODES - 1).map(|first| *first + COUNTING_PERIOD);
    let allowed = after_last.into_iter().chain(after_many).max()?;
    Duration::try_from(allowed - now).ok().filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use ring::rand::SystemRandom;
    use time::OffsetDateTime;

    use super::{code_of, new_code, parse_code, wait_for_code};

    #[test]
    fn codes_are_six_digits_with_their_zeros() {
        for (number, code) in [
            (0, Some("000000")),
            (42, Some("000042")),
            (1_000_007, Some("000007")),
            (4_293_999_999, Some("999999")),
            // The 4,295th million is not whole.
            (4_294_000_000, None),
            (u32::MAX, None),
        ] {
            assert_eq!(code_of(number).as_deref(), code, "{number}");
        }
        let codes: HashSet<_> =
            (0..100).map(|_| new_code(&SystemRandom::new()).expect("randomness").expose().to_vec()).collect();
        assert!(codes.len() > 90 && codes.iter().all(|code| code.len() == 6));
    }

    #[test]
    fn what_is_typed() {
        assert_eq!(parse_code(" 012345 ").expect("a code").expose(), b"012345");
        for wrong in ["", "12345", "1234567", "12345x", "12 345", "１２３４５６", "012345\n"] {
            assert!(parse_code(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn one_a_minute_and_ten_a_day() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::from_hours(1_000);
        let ago = |seconds: &[u64]| seconds.iter().map(|s| now - Duration::from_secs(*s)).collect::<Vec<_>>();
        let ten = [100, 200, 300, 400, 500, 600, 700, 800, 900, 86_000];
        for (mailed, wait) in [
            (ago(&[]), None),
            (ago(&[0]), Some(60)),
            (ago(&[59, 70]), Some(1)),
            (ago(&[60]), None),
            (ago(&ten[..9]), None),
            (ago(&ten), Some(400)),
        ] {
            assert_eq!(wait_for_code(now, &mailed), wait.map(Duration::from_secs), "{mailed:?}");
        }
    }
}
