//! Sites and accounts at the catcher, and what the servers say of their letters.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use postroom::api::proto::message::State;
use postroom::api::proto::{
    Account, CreateAccountRequest, CreateSiteRequest, Limits, ListMessagesRequest, Message, OnUncertain,
    Security, Settings, UpdateSettingsRequest,
};
use tokio::time::sleep;
use tonic::{Code, Status};

use crate::Outcome;
use crate::caller::sender;
use crate::replica::Replica;

/// Letters of a page.
const PAGE: i32 = 1_000;
/// Time between two looks at what is still on its way.
const LOOK: Duration = Duration::from_millis(500);
/// How long a question to a server is asked again.
const ASKING: Duration = Duration::from_mins(1);

/// What a site of a scenario is like.
#[derive(Clone, Debug)]
pub(crate) struct Nature {
    /// What happens to letters of which nobody knows whether they were taken.
    pub(crate) on_uncertain: OnUncertain,
    /// Whether each recipient gets a transaction of his own.
    pub(crate) parts: bool,
    /// Waits between attempts, in milliseconds.
    pub(crate) retries: Vec<u32>,
    /// Accounts.
    pub(crate) accounts: usize,
}

impl Nature {
    /// A site with so many accounts that tries again for a long time.
    pub(crate) fn new(on_uncertain: OnUncertain, accounts: usize) -> Self {
        Self { on_uncertain, parts: false, retries: vec![100; 30], accounts }
    }
}

/// Makes a site whose accounts are at this port; its name.
pub(crate) async fn make(replica: &Replica, id: &str, nature: &Nature, port: u16) -> Outcome<String> {
    let name = format!("sites/{id}");
    let create = CreateSiteRequest { site_id: id.to_owned(), site: None };
    patiently(async || replica.settings().create_site(create.clone()).await).await?;
    let retry_intervals = nature.retries.iter().map(|milliseconds| prost_types::Duration {
        seconds: i64::from(milliseconds / 1_000),
        nanos: i32::try_from(milliseconds % 1_000 * 1_000_000).unwrap_or_default(),
    });
    let settings = Settings {
        name: format!("{name}/settings"),
        on_uncertain: Some(nature.on_uncertain.into()),
        send_in_parts: Some(nature.parts),
        retry_intervals: retry_intervals.collect(),
        ..Settings::default()
    };
    let update = UpdateSettingsRequest { settings: Some(settings), update_mask: None };
    patiently(async || replica.settings().update_settings(update.clone()).await).await?;
    for number in 0..nature.accounts {
        let account = account_at(&sender(number), port);
        let request = CreateAccountRequest {
            parent: name.clone(),
            account: Some(account),
            ..CreateAccountRequest::default()
        };
        patiently(async || replica.accounts().create_account(request.clone()).await).await?;
    }
    Ok(name)
}

/// An account at this port.
pub(crate) fn account_at(sender_email: &str, port: u16) -> Account {
    Account {
        sender_email: sender_email.to_owned(),
        host: "127.0.0.1".to_owned(),
        port: u32::from(port),
        security: Security::None.into(),
        // Sessions of killed servers count for some seconds more.
        limits: Some(Limits { max_connections: Some(100), ..Limits::default() }),
        ..Account::default()
    }
}

/// Asks again while the server says that it is busy.
pub(crate) async fn patiently<T>(call: impl AsyncFn() -> Result<T, Status>) -> Result<T, Status> {
    let start = Instant::now();
    loop {
        match call().await {
            Err(status) if status.code() == Code::Unavailable && start.elapsed() < ASKING => {
                sleep(LOOK).await;
            }
            other => return other,
        }
    }
}

/// Waits until nothing of these sites is on its way any more.
pub(crate) async fn settle(replica: &Replica, sites: &[String], within: Duration) -> Outcome<Duration> {
    let start = Instant::now();
    for site in sites {
        loop {
            let request = ListMessagesRequest {
                parent: site.clone(),
                page_size: 1,
                states: vec![State::Queued.into(), State::Sending.into()],
                ..ListMessagesRequest::default()
            };
            let left = patiently(async || replica.send().list_messages(request.clone()).await).await?;
            let left = left.into_inner().messages;
            let Some(first) = left.first() else { break };
            if start.elapsed() > within {
                return Err(
                    format!("after {within:?} letters of {site} are still on their way: {first:?}").into()
                );
            }
            sleep(LOOK).await;
        }
    }
    Ok(start.elapsed())
}

/// Every letter of these sites, by its name.
pub(crate) async fn letters(replica: &Replica, sites: &[String]) -> Outcome<HashMap<String, Message>> {
    let mut found = HashMap::new();
    for site in sites {
        let mut page_token = String::new();
        loop {
            let request = ListMessagesRequest {
                parent: site.clone(),
                page_size: PAGE,
                page_token: page_token.clone(),
                ..ListMessagesRequest::default()
            };
            let listed =
                patiently(async || replica.send().list_messages(request.clone()).await).await?.into_inner();
            found.extend(listed.messages.into_iter().map(|message| (message.name.clone(), message)));
            page_token = listed.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
    }
    Ok(found)
}
