//! Callers as they should be: whatever becomes of a call, it is made again with the same request id until there is an
//! answer. What was answered stands in a ledger of their own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postroom::api::proto::message::Content;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::{Composed, Message, SendMessageRequest};
use postroom::domain::clock::Clock;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::replica::Balancer;

/// How long a caller waits for an answer before it asks again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits before it asks again.
const AGAIN: Duration = Duration::from_millis(50);
/// When a caller gives up who does not wait, at the latest, in microseconds: about as long as a letter takes.
const GIVEN_UP: u64 = 20_000;
/// For how long letters wait that are to be sent later.
const LATER: Duration = Duration::from_secs(5);

/// A letter that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    /// Its resource name.
    pub(crate) name: String,
    /// Its Message-ID.
    pub(crate) message_id: String,
    /// Its site.
    pub(crate) site: String,
    /// For whom it is.
    pub(crate) recipients: Vec<String>,
    /// When it was first handed in.
    pub(crate) called: Instant,
    /// When it may be sent.
    pub(crate) not_before: Option<Instant>,
}

/// What the callers noted.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// What was accepted.
    pub(crate) accepted: Vec<Accepted>,
    /// Calls that were made again, by the code they ended with.
    pub(crate) again: BTreeMap<String, usize>,
    /// Answers after which there is no sense in asking again.
    pub(crate) refused: Vec<String>,
    /// How long an answer took that said UNAVAILABLE, at most.
    pub(crate) slowest_no: Duration,
    /// Answers that said UNAVAILABLE on their own behalf, without saying when to ask again.
    pub(crate) without_retry_info: usize,
    /// The longest time from the first call to the answer.
    pub(crate) longest: Duration,
    /// When the last letter was accepted.
    pub(crate) last: Option<Instant>,
}

/// What letters are like.
#[derive(Clone, Debug)]
pub(crate) struct Kinds {
    /// The sites, `sites/...`.
    pub(crate) sites: Vec<String>,
    /// Accounts of each.
    pub(crate) accounts: usize,
    /// Most recipients of a letter; each number is drawn.
    pub(crate) recipients: usize,
    /// Longest text in bytes; each length is drawn.
    pub(crate) text: usize,
    /// One letter of so many is large, 16 times the longest text.
    pub(crate) large: Option<u32>,
    /// Of a hundred letters, how many are of a mailing.
    pub(crate) mailings: u32,
    /// Of a hundred letters, how many are to be sent [`LATER`].
    pub(crate) later: u32,
    /// How often a caller gives a call up at a random moment before it waits for an answer.
    pub(crate) given_up: u32,
}

impl Kinds {
    /// Small letters to one recipient each.
    pub(crate) fn small(sites: &[String], accounts: usize) -> Self {
        Self {
            sites: sites.to_vec(),
            accounts,
            recipients: 1,
            text: 4_096,
            large: None,
            mailings: 0,
            later: 0,
            given_up: 0,
        }
    }
}

/// The callers of a scenario.
pub(crate) struct Callers {
    ledger: Arc<Mutex<Ledger>>,
    allowed: watch::Sender<usize>,
    calling: JoinSet<()>,
}

impl Callers {
    /// So many callers at once. They hand in nothing until they are allowed to.
    pub(crate) fn start(count: usize, kinds: &Kinds, balancer: &Arc<Balancer>, seed: u64) -> Self {
        let ledger = Arc::<Mutex<Ledger>>::default();
        let allowed = watch::Sender::new(0);
        let begun = Arc::<Mutex<usize>>::default();
        let mut calling = JoinSet::new();
        for number in 0..count {
            let (ledger, begun, balancer) = (Arc::clone(&ledger), Arc::clone(&begun), Arc::clone(balancer));
            let mut allowed = allowed.subscribe();
            let draws = StdRng::seed_from_u64(seed.wrapping_add(u64::try_from(number).unwrap_or_default()));
            let mut caller = Caller { kinds: kinds.clone(), balancer, ledger, draws };
            calling.spawn(async move {
                loop {
                    let may = |most: &usize| {
                        let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
                        let may = *begun < *most;
                        *begun += usize::from(may);
                        may
                    };
                    // Closed when there is nothing more to hand in.
                    if allowed.wait_for(may).await.is_err() {
                        return;
                    }
                    caller.hand_in().await;
                }
            });
        }
        Self { ledger, allowed, calling }
    }

    /// Allows so many letters more.
    pub(crate) fn allow(&self, letters: usize) {
        self.allowed.send_modify(|allowed| *allowed += letters);
    }

    /// No letters any more, but those that are under way.
    pub(crate) fn enough(&self) {
        self.allowed.send_replace(0);
    }

    /// How many letters were allowed and are not accepted yet.
    pub(crate) fn open(&self) -> usize {
        let ledger = self.ledger();
        self.allowed.borrow().saturating_sub(ledger.accepted.len() + ledger.refused.len())
    }

    /// What was noted so far.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything that was allowed is answered; what was noted.
    pub(crate) async fn finish(self) -> Ledger {
        let Self { ledger, allowed, calling } = self;
        drop(allowed);
        calling.join_all().await;
        std::mem::take(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Caller {
    kinds: Kinds,
    balancer: Arc<Balancer>,
    ledger: Arc<Mutex<Ledger>>,
    draws: StdRng,
}

impl Caller {
    /// Hands in one letter, however long it takes.
    async fn hand_in(&mut self) {
        let start = Instant::now();
        let (request, not_before) = self.letter();
        let mut given_up = 0;
        loop {
            let drawn = self.draws.random_range(0..usize::MAX);
            let Some(channel) = self.balancer.pick(drawn) else {
                sleep(AGAIN).await;
                continue;
            };
            let called = Instant::now();
            let mut send = SendServiceClient::new(channel);
            let gives_up = given_up < self.kinds.given_up;
            let patience =
                if gives_up { Duration::from_micros(self.draws.random_range(0..GIVEN_UP)) } else { PATIENCE };
            // A call that is dropped is cancelled at the server.
            let answer = timeout(patience, send.send_message(request.clone())).await;
            if gives_up && answer.is_err() {
                given_up += 1;
                self.note(|ledger| *ledger.again.entry("given up".to_owned()).or_default() += 1);
                continue;
            }
            let status = match answer {
                Ok(Ok(answer)) => {
                    let message = answer.into_inner().message.unwrap_or_default();
                    self.note(|ledger| {
                        ledger.longest = ledger.longest.max(start.elapsed());
                        ledger.last = Some(Instant::now());
                        ledger.accepted.push(Accepted {
                            name: message.name,
                            message_id: message.message_id,
                            site: request.parent.clone(),
                            recipients: message.recipients.into_iter().map(|r| r.address).collect(),
                            called: start,
                            not_before,
                        });
                    });
                    return;
                }
                Ok(Err(status)) => status,
                Err(_elapsed) => Status::deadline_exceeded("no answer"),
            };
            if !worth_asking_again(&status) {
                self.note(|ledger| ledger.refused.push(format!("{:?}: {}", status.code(), status.message())));
                return;
            }
            self.note(|ledger| {
                if let Some(details) = own_words(&status) {
                    ledger.slowest_no = ledger.slowest_no.max(called.elapsed());
                    ledger.without_retry_info += usize::from(details.retry_info().is_none());
                }
                *ledger.again.entry(format!("{:?}", status.code())).or_default() += 1;
            });
            sleep(AGAIN).await;
        }
    }

    fn note(&self, note: impl FnOnce(&mut Ledger)) {
        note(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn letter(&mut self) -> (SendMessageRequest, Option<Instant>) {
        let Kinds { sites, accounts, recipients, text, large, mailings, later, given_up: _ } = &self.kinds;
        let draws = &mut self.draws;
        let site = sites[draws.random_range(0..sites.len())].clone();
        let account = draws.random_range(0..*accounts);
        let count = draws.random_range(1..=(*recipients).max(1));
        let to =
            (0..count).map(|number| format!("{}-{number}@example.org", draws.random_range(0..1_000_000)));
        let to = to.collect();
        let is_large = large.is_some_and(|one_of| draws.random_range(0..one_of) == 0);
        let length = draws.random_range(1..=*text) * if is_large { 16 } else { 1 };
        let composed = Composed {
            subject: format!("Order {}", draws.random_range(0..1_000_000)),
            text: "It travels, line by line, to the end.\n".repeat(length.div_ceil(38)),
            ..Composed::default()
        };
        let is_later = draws.random_range(0..100) < *later;
        let send_time = Clock::default().now() + LATER;
        let not_before = is_later.then(|| Instant::now() + LATER);
        let message = Message {
            send_time: is_later.then(|| prost_types::Timestamp {
                seconds: send_time.unix_timestamp(),
                nanos: i32::try_from(send_time.nanosecond()).unwrap_or_default(),
            }),
            from_address: sender(account),
            to,
            mailing: draws.random_range(0..100) < *mailings,
            content: Some(Content::Composed(composed)),
            ..Message::default()
        };
        let request_id = Uuid::from_u128(draws.random()).to_string();
        let message = Some(message);
        (
            SendMessageRequest { parent: site, message, request_id, ..SendMessageRequest::default() },
            not_before,
        )
    }
}

/// The address of an account, by its number.
pub(crate) fn sender(account: usize) -> String {
    format!("account{account}@example.com")
}

/// The details of an answer that Postroom itself gave: UNAVAILABLE, but not by a connection that broke.
fn own_words(status: &Status) -> Option<tonic_types::ErrorDetails> {
    let details = tonic_types::StatusExt::get_error_details(status);
    (status.code() == Code::Unavailable && details.error_info().is_some()).then_some(details)
}

/// Whether a call may have ended for a reason that passes: what it did nobody knows, the same request id tells.
fn worth_asking_again(status: &Status) -> bool {
    let broken = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown];
    let details = tonic_types::StatusExt::get_error_details(status);
    broken.contains(&status.code())
        || details.retry_info().is_some()
        // tonic says Internal of a connection that broke in the middle; Postroom's own has details.
        || (status.code() == Code::Internal && details.error_info().is_none())
}
