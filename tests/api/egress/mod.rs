//! Egress: what the operator forbids is refused when an account is saved, when it is checked and at every connection
//! (CASES 38). What the tests share: calls over one channel, and listeners that count.

mod addresses;
mod forms;
mod later;
mod names;
mod namespace;
mod rebinding;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use postroom::api::proto::accounts_service_client::AccountsServiceClient;
use postroom::api::proto::check_account_request::Target;
use postroom::api::proto::check_step::State as StepState;
use postroom::api::proto::message::State;
use postroom::api::proto::parking::Reason;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::{
    Account, CheckAccountRequest, CheckAccountResponse, CreateAccountRequest, GetMessageRequest,
    ListAccountsRequest, Security, SendMessageRequest, Step, UpdateAccountRequest,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use uuid::Uuid;

use self::addresses::forbidden;
use crate::desk::execute;
use crate::eventually::eventually;
use crate::support::{Authorised, Postroom, SITE, letter, patiently, reason, variable};

/// An account without a login that is checked at once.
fn account(host: &str, port: u16, sender_email: &str) -> Account {
    Account {
        sender_email: sender_email.to_owned(),
        host: host.to_owned(),
        port: u32::from(port),
        security: Security::None.into(),
        ..Account::default()
    }
}

/// The same, switched off: it is saved unchecked.
fn inactive(account: Account) -> Account {
    Account { active: Some(false), ..account }
}

/// Calls over one channel, so that no connection of the tests' own is counted.
struct Calls(Authorised);

impl Calls {
    fn accounts(&self) -> AccountsServiceClient<Authorised> {
        AccountsServiceClient::new(self.0.clone())
    }

    async fn create(&self, account: Account, validate_only: bool) -> Result<Account, Status> {
        let request = CreateAccountRequest {
            parent: SITE.to_owned(),
            account: Some(account),
            request_id: Uuid::now_v7().to_string(),
            validate_only,
        };
        let created = patiently(async || self.accounts().create_account(request.clone()).await).await?;
        Ok(created.account.expect("set"))
    }

    async fn check(&self, target: Target) -> CheckAccountResponse {
        let request = CheckAccountRequest {
            parent: SITE.to_owned(),
            target: Some(target),
            ..CheckAccountRequest::default()
        };
        patiently(async || self.accounts().check_account(request.clone()).await).await.expect("an answer")
    }

    async fn update(&self, change: Account, validate_only: bool) -> Result<Account, Status> {
        let request =
            UpdateAccountRequest { account: Some(change), validate_only, ..UpdateAccountRequest::default() };
        let updated = patiently(async || self.accounts().update_account(request.clone()).await).await?;
        Ok(updated.account.expect("set"))
    }

    /// Hands in a letter; its name.
    async fn send(&self, from: &str) -> String {
        let request = SendMessageRequest {
            parent: SITE.to_owned(),
            message: Some(letter(from, &["ann@example.org"])),
            request_id: Uuid::now_v7().to_string(),
            ..SendMessageRequest::default()
        };
        let send = async || SendServiceClient::new(self.0.clone()).send_message(request.clone()).await;
        patiently(send).await.expect("taken").message.expect("set").name
    }

    async fn parked(&self) -> Vec<Account> {
        let request = ListAccountsRequest {
            parent: SITE.to_owned(),
            page_size: 1_000,
            parked: Some(true),
            ..ListAccountsRequest::default()
        };
        let list = async || self.accounts().list_accounts(request.clone()).await;
        patiently(list).await.expect("a page").accounts
    }

    /// Waits until a letter is in this state; one of a parked account is tried again and again.
    async fn wait_for(&self, name: &str, state: State) {
        let request = GetMessageRequest { name: name.to_owned() };
        eventually("a letter's state", async || {
            let get = async || SendServiceClient::new(self.0.clone()).get_message(request.clone()).await;
            let message = patiently(get).await.expect("found").message.expect("set");
            (message.state() == state).then_some(())
        })
        .await;
    }
}

/// Demands that a call was refused by the policy, in words that name host and port.
fn demand_refused(refused: &Status, host: &str, port: u16) {
    let expected = (Code::FailedPrecondition, "HOST_NOT_ALLOWED".to_owned());
    assert_eq!(reason(refused), expected, "{host}: {refused:?}");
    assert!(!variable(refused, "host").is_empty(), "{host}: {refused:?}");
    assert_eq!(variable(refused, "port"), port.to_string(), "{host}: {refused:?}");
    assert_eq!(variable(refused, "step"), "RESOLVE", "{host}: {refused:?}");
}

/// Demands that a check ended at its first step, by the policy.
fn demand_failed(response: &CheckAccountResponse, host: &str) {
    let first = &response.steps[0];
    assert_eq!((first.step(), first.state()), (Step::Resolve, StepState::Failed), "{host}: {response:?}");
    let reply = first.reply.as_ref().expect("words");
    assert!(reply.text.ends_with("(HOST_NOT_ALLOWED)"), "{host}: {response:?}");
    assert!(
        response.steps[1..].iter().all(|step| step.state() == StepState::Skipped),
        "{host}: {response:?}"
    );
}

/// The address of the account for the letter of this number.
fn sender(number: usize) -> String {
    format!("sender{number}@example.com")
}

/// Accounts as a server with another policy might have left them: one for each forbidden form, active, past all checks.
async fn leave_accounts(postroom: &Postroom, calls: &Calls, port: u16) -> Vec<Account> {
    let mut accounts = Vec::new();
    let mut changes = Vec::new();
    for (number, host) in forbidden().into_iter().enumerate() {
        let saved = calls.create(inactive(account("mail.example.com", port, &sender(number))), false).await;
        accounts.push(saved.expect("saved unchecked"));
        let id = number + 1;
        changes.push(format!("update accounts set active = true, host = '{host}' where account_id = {id};"));
    }
    execute(postroom, &changes.concat()).await;
    accounts
}

/// Tries every forbidden form in every way: saving, checking, delivering.
async fn try_everything(calls: &Calls, left: &[Account], port: u16) {
    for (number, host) in forbidden().into_iter().enumerate() {
        let wanted = account(host, port, "shop@example.com");
        for (account, validate_only) in [
            (wanted.clone(), false),
            (wanted.clone(), true),
            (inactive(wanted.clone()), false),
            (inactive(wanted.clone()), true),
        ] {
            let refused = calls.create(account, validate_only).await.expect_err(host);
            demand_refused(&refused, host, port);
        }
        demand_failed(&calls.check(Target::Account(Box::new(wanted))).await, host);
        demand_failed(&calls.check(Target::Name(left[number].name.clone())).await, host);
        calls.send(&sender(number)).await;
    }
    let mut parked = Vec::new();
    while parked.len() < left.len() {
        // A busy machine takes a while for all of them; each one comes in time.
        parked = eventually("another account parked", async || {
            let now = calls.parked().await;
            (now.len() > parked.len()).then_some(now)
        })
        .await;
    }
    for account in parked {
        let parking = account.parking.as_ref().expect("parked");
        assert_eq!(parking.reason(), Reason::Configuration, "{account:?}");
        assert!(parking.error.contains("HOST_NOT_ALLOWED"), "{account:?}");
    }
}

/// A listener that counts connections and ends them.
struct Counter {
    address: SocketAddr,
    /// Who came.
    accepted: Arc<Mutex<Vec<SocketAddr>>>,
    accepting: JoinHandle<()>,
}

impl Counter {
    async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let accepted = Arc::<Mutex<Vec<_>>>::default();
        let counted = Arc::clone(&accepted);
        let accepting = tokio::spawn(async move {
            while let Ok((_, peer)) = listener.accept().await {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                counted.lock().expect("no panic").push(peer);
            }
        });
        Ok(Self { address, accepted, accepting })
    }

    /// On every address of this machine, of both families where it has both.
    async fn on_all_addresses(port: u16) -> Self {
        match Self::bind((std::net::Ipv6Addr::UNSPECIFIED, port).into()).await {
            Ok(counter) => counter,
            Err(_) => Self::bind((std::net::Ipv4Addr::UNSPECIFIED, port).into()).await.expect("a port"),
        }
    }

    /// How many connections there were. One of our own is behind them in the queue: when it has come, all have.
    async fn connections(&self, own: SocketAddr) -> usize {
        let own = TcpStream::connect(own).await.expect("a connection");
        let own = own.local_addr().expect("an address");
        eventually("our own connection", async || {
            let accepted = self.accepted.lock().expect("no panic");
            accepted.contains(&own).then(|| accepted.len() - 1)
        })
        .await
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
