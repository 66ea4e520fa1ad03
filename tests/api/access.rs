//! Who may do what: each rpc without a good key, and each rpc by each role and reach of a key.

use std::time::{Duration, Instant};

use postroom::api::proto::accounts_service_client::AccountsServiceClient;
use postroom::api::proto::check_account_request::Target;
use postroom::api::proto::logs_service_client::LogsServiceClient;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use postroom::api::proto::{
    Account, CancelMessageRequest, CancelMessagesRequest, CheckAccountRequest, ConfirmSenderRequest,
    CreateAccountRequest, CreateSenderRequest, CreateSiteRequest, DeleteAccountRequest, DeleteSenderRequest,
    DownloadLogRequest, GetAccountRequest, GetMessageContentRequest, GetMessageRequest, GetSettingsRequest,
    GetSiteRequest, ListAccountsRequest, ListLogEntriesRequest, ListLogsRequest, ListMessagesRequest,
    ListSendersRequest, ListSitesRequest, ResolveAccountRequest, RetryMessageRequest, RetryMessagesRequest,
    SendMessageRequest, Settings, TailLogEntriesRequest, UpdateAccountRequest, UpdateSettingsRequest,
    WatchEventsRequest,
};
use postroom::domain::access::{Caller, Role, Scope, key_hash, new_key};
use postroom::domain::clock::Clock;
use postroom::domain::site::SiteId;
use postroom::store::keys;
use time::OffsetDateTime;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::scripted::ordinary::Behaviour;
use crate::support::{Authorised, PATIENCE, Postroom, letter, plain_account, reason};

/// A key that was used or revoked is dead within so long (API 9).
const DEAD_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rpc {
    CreateSite,
    GetSite,
    ListSites,
    GetSettings,
    UpdateSettings,
    CreateAccount,
    GetAccount,
    ListAccounts,
    UpdateAccount,
    DeleteAccount,
    CheckAccount,
    ResolveAccount,
    ResolveAccountOfAll,
    CreateSender,
    ConfirmSender,
    ListSenders,
    DeleteSender,
    SendMessage,
    GetMessage,
    ListMessages,
    GetMessageContent,
    CancelMessage,
    RetryMessage,
    CancelMessages,
    RetryMessages,
    WatchEvents,
    ListLogs,
    ListLogEntries,
    TailLogEntries,
    DownloadLog,
}

/// Which roles may call what: admin, operator, sender, auditor.
const TABLE: [(Rpc, [bool; 4]); 30] = [
    (Rpc::CreateSite, [true, false, false, false]),
    (Rpc::GetSite, [true, true, true, true]),
    (Rpc::ListSites, [true, true, true, true]),
    (Rpc::GetSettings, [true, true, false, false]),
    (Rpc::UpdateSettings, [true, true, false, false]),
    (Rpc::CreateAccount, [true, true, false, false]),
    (Rpc::GetAccount, [true, true, true, false]),
    (Rpc::ListAccounts, [true, true, true, false]),
    (Rpc::UpdateAccount, [true, true, false, false]),
    (Rpc::DeleteAccount, [true, true, false, false]),
    (Rpc::CheckAccount, [true, true, false, false]),
    (Rpc::ResolveAccount, [true, true, true, false]),
    (Rpc::ResolveAccountOfAll, [true, true, false, false]),
    (Rpc::CreateSender, [true, true, true, false]),
    (Rpc::ConfirmSender, [true, true, true, false]),
    (Rpc::ListSenders, [true, true, true, false]),
    (Rpc::DeleteSender, [true, true, true, false]),
    (Rpc::SendMessage, [true, true, true, false]),
    (Rpc::GetMessage, [true, true, true, true]),
    (Rpc::ListMessages, [true, true, true, true]),
    (Rpc::GetMessageContent, [true, true, false, false]),
    (Rpc::CancelMessage, [true, true, true, false]),
    (Rpc::RetryMessage, [true, true, true, false]),
    (Rpc::CancelMessages, [true, true, true, false]),
    (Rpc::RetryMessages, [true, true, true, false]),
    (Rpc::WatchEvents, [true, true, true, true]),
    (Rpc::ListLogs, [true, true, false, true]),
    (Rpc::ListLogEntries, [true, true, false, true]),
    (Rpc::TailLogEntries, [true, true, false, true]),
    (Rpc::DownloadLog, [true, true, false, true]),
];

/// What calls are about.
#[derive(Clone, Debug)]
struct Things {
    site: &'static str,
    account: &'static str,
    message: String,
    log: &'static str,
}

impl Things {
    /// Things that are nowhere, in a site that may be.
    fn missing(site: &'static str) -> Self {
        Self { site, account: "999", message: Uuid::now_v7().to_string(), log: "send-admin-999" }
    }
}

/// Makes a call that, where it is allowed, changes nothing.
async fn call(rpc: Rpc, channel: Authorised, things: &Things) -> Result<(), Status> {
    let Things { site, account, message, log } = things;
    let (parent, id) = (format!("sites/{site}"), (*site).to_owned());
    let (account, message) = (format!("{parent}/accounts/{account}"), format!("{parent}/messages/{message}"));
    let sender = format!("{parent}/senders/{}", things.account);
    let (settings, log) = (format!("{parent}/settings"), format!("{parent}/logs/{log}"));
    let mut sites = SettingsServiceClient::new(channel.clone());
    let mut accounts = AccountsServiceClient::new(channel.clone());
    let mut logs = LogsServiceClient::new(channel.clone());
    match rpc {
        // With a display name that is no good, so that no site comes of it.
        Rpc::CreateSite => {
            let site = postroom::api::proto::Site { display_name: "\n".to_owned(), ..Default::default() };
            sites.create_site(CreateSiteRequest { site_id: id, site: Some(site) }).await.map(|_| ())
        }
        Rpc::GetSite => sites.get_site(GetSiteRequest { name: parent }).await.map(|_| ()),
        Rpc::ListSites => sites.list_sites(ListSitesRequest::default()).await.map(|_| ()),
        Rpc::GetSettings => sites.get_settings(GetSettingsRequest { name: settings }).await.map(|_| ()),
        Rpc::UpdateSettings => {
            let settings = Some(Settings { name: settings, ..Settings::default() });
            sites.update_settings(UpdateSettingsRequest { settings, update_mask: None }).await.map(|_| ())
        }
        Rpc::CreateAccount => {
            let request = CreateAccountRequest { parent, ..CreateAccountRequest::default() };
            accounts.create_account(request).await.map(|_| ())
        }
        Rpc::GetAccount => accounts.get_account(GetAccountRequest { name: account }).await.map(|_| ()),
        Rpc::ListAccounts => {
            let request = ListAccountsRequest { parent, ..ListAccountsRequest::default() };
            accounts.list_accounts(request).await.map(|_| ())
        }
        Rpc::UpdateAccount => {
            let account = Some(Account { name: account, ..Account::default() });
            let request = UpdateAccountRequest { account, ..UpdateAccountRequest::default() };
            accounts.update_account(request).await.map(|_| ())
        }
        Rpc::DeleteAccount => {
            let request = DeleteAccountRequest { name: account, etag: "stale".to_owned(), force: false };
            accounts.delete_account(request).await.map(|_| ())
        }
        Rpc::CheckAccount => {
            let request =
                CheckAccountRequest { parent, target: Some(Target::Name(account)), ..Default::default() };
            accounts.check_account(request).await.map(|_| ())
        }
        Rpc::ResolveAccount | Rpc::ResolveAccountOfAll => {
            let request = ResolveAccountRequest {
                parent,
                from_address: "shop@example.com".to_owned(),
                show_all: rpc == Rpc::ResolveAccountOfAll,
                ..ResolveAccountRequest::default()
            };
            accounts.resolve_account(request).await.map(|_| ())
        }
        Rpc::CreateSender => {
            let request = CreateSenderRequest { parent, ..CreateSenderRequest::default() };
            accounts.create_sender(request).await.map(|_| ())
        }
        Rpc::ConfirmSender => {
            let request = ConfirmSenderRequest { name: sender, code: "123456".to_owned() };
            accounts.confirm_sender(request).await.map(|_| ())
        }
        Rpc::ListSenders => {
            let request = ListSendersRequest { parent, ..ListSendersRequest::default() };
            accounts.list_senders(request).await.map(|_| ())
        }
        Rpc::DeleteSender => accounts.delete_sender(DeleteSenderRequest { name: sender }).await.map(|_| ()),
        Rpc::SendMessage
        | Rpc::GetMessage
        | Rpc::ListMessages
        | Rpc::GetMessageContent
        | Rpc::CancelMessage
        | Rpc::RetryMessage
        | Rpc::CancelMessages
        | Rpc::RetryMessages
        | Rpc::WatchEvents => call_about_letters(rpc, channel, parent, message).await,
        Rpc::ListLogs => {
            let request = ListLogsRequest { parent, ..ListLogsRequest::default() };
            logs.list_logs(request).await.map(|_| ())
        }
        Rpc::ListLogEntries => {
            let request = ListLogEntriesRequest { name: log, ..ListLogEntriesRequest::default() };
            logs.list_log_entries(request).await.map(|_| ())
        }
        Rpc::DownloadLog => logs.download_log(DownloadLogRequest { name: log }).await.map(|_| ()),
        Rpc::TailLogEntries => {
            let request = TailLogEntriesRequest { parent, ..TailLogEntriesRequest::default() };
            logs.tail_log_entries(request).await.map(|_| ())
        }
    }
}

/// The same for calls about letters.
async fn call_about_letters(
    rpc: Rpc,
    channel: Authorised,
    parent: String,
    message: String,
) -> Result<(), Status> {
    let mut letters = SendServiceClient::new(channel);
    match rpc {
        Rpc::SendMessage => {
            let message = Some(letter("shop@example.com", &["ann@example.org"]));
            let request =
                SendMessageRequest { parent, message, validate_only: true, ..SendMessageRequest::default() };
            letters.send_message(request).await.map(|_| ())
        }
        Rpc::GetMessage => letters.get_message(GetMessageRequest { name: message }).await.map(|_| ()),
        Rpc::ListMessages => {
            let request = ListMessagesRequest { parent, ..ListMessagesRequest::default() };
            letters.list_messages(request).await.map(|_| ())
        }
        Rpc::GetMessageContent => {
            letters.get_message_content(GetMessageContentRequest { name: message }).await.map(|_| ())
        }
        Rpc::CancelMessage => {
            letters.cancel_message(CancelMessageRequest { name: message }).await.map(|_| ())
        }
        Rpc::RetryMessage => letters.retry_message(RetryMessageRequest { name: message }).await.map(|_| ()),
        Rpc::CancelMessages => {
            letters.cancel_messages(CancelMessagesRequest { parent, ..Default::default() }).await.map(|_| ())
        }
        Rpc::RetryMessages => {
            letters.retry_messages(RetryMessagesRequest { parent, ..Default::default() }).await.map(|_| ())
        }
        Rpc::WatchEvents => {
            letters.watch_events(WatchEventsRequest { parent, ..Default::default() }).await.map(|_| ())
        }
        _ => unreachable!("{rpc:?} is not about letters"),
    }
}

async fn key_with(postroom: &Postroom, scope: Scope, expire_time: Option<OffsetDateTime>) -> (Uuid, String) {
    let key = new_key().expect("randomness");
    let caller = Caller { key_id: Uuid::now_v7(), scope, roles: vec![Role::Admin], expire_time };
    let store = postroom.store();
    keys::create(&store, &caller, &key_hash(key.expose())).await.expect("stored");
    store.close().await;
    (caller.key_id, String::from_utf8(key.expose().to_vec()).expect("ASCII"))
}

fn now() -> OffsetDateTime {
    Clock::default().now()
}

async fn revoke(postroom: &Postroom, key_id: Uuid) {
    let store = postroom.store();
    assert!(keys::revoke(&store, key_id).await.expect("revoked"));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rpc_serves_without_a_good_key() {
    let postroom = Postroom::start().await;
    let past = now() - Duration::from_secs(1);
    let (_, expired) = key_with(&postroom, Scope::AllSites, Some(past)).await;
    let (revoked_id, revoked) = key_with(&postroom, Scope::AllSites, None).await;
    revoke(&postroom, revoked_id).await;
    let unknown = String::from_utf8(new_key().expect("randomness").expose().to_vec()).expect("ASCII");
    let headers = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(format!("Basic {}", postroom.key)),
        Some(postroom.key.clone()),
        Some(format!("Bearer {}x", postroom.key)),
        Some(format!("Bearer {unknown}")),
        Some(format!("Bearer {expired}")),
        Some(format!("Bearer {revoked}")),
    ];
    let mut words = Vec::new();
    for header in &headers {
        let channel = postroom.channel_with(header.as_deref());
        for (rpc, _) in TABLE {
            let refused = call(rpc, channel.clone(), &Things::missing("shop")).await;
            let refused = refused.expect_err(&format!("{rpc:?} {header:?}"));
            let expected = (Code::Unauthenticated, "KEY_MISSING".to_owned());
            assert_eq!(reason(&refused), expected, "{rpc:?} {header:?}");
            words.push(refused.message().to_owned());
        }
    }
    words.dedup();
    assert_eq!(words.len(), 1, "the same words whatever is wrong with the key");
    let lower = postroom.channel_with(Some(&format!("bearer {}", postroom.key)));
    call(Rpc::GetSite, lower, &Things::missing("shop")).await.expect("schemes have no case (RFC 9110)");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_what_the_contract_grants() {
    let postroom = Postroom::start().await;
    let site = |id| Scope::Site(SiteId::parse(id).expect("a site"));
    let create = CreateSiteRequest { site_id: "other".to_owned(), site: None };
    postroom.settings().create_site(create).await.expect("a site");
    for (place, role) in Role::ALL.into_iter().enumerate() {
        for scope in [site("shop"), site("other"), Scope::AllSites] {
            let channel = postroom.channel(&postroom.make_key(scope.clone(), &[role]).await);
            for (rpc, granted) in TABLE {
                let reaches = match rpc {
                    Rpc::CreateSite => scope == Scope::AllSites,
                    Rpc::ListSites => true,
                    _ => scope != site("other"),
                };
                let cell = format!("{rpc:?} by {role:?} of {scope:?}");
                let answer = call(rpc, channel.clone(), &Things::missing("shop")).await;
                let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
                if granted[place] && reaches {
                    let served = [Code::Ok, Code::NotFound, Code::InvalidArgument, Code::FailedPrecondition];
                    assert!(served.contains(&code), "{cell}: {answer:?}");
                } else {
                    let refused = answer.expect_err(&cell);
                    let expected = (Code::PermissionDenied, "PERMISSION_DENIED".to_owned());
                    assert_eq!(reason(&refused), expected, "{cell}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_sees_its_own_site_alone() {
    let postroom = Postroom::start().await;
    let create = CreateSiteRequest { site_id: "other".to_owned(), site: None };
    postroom.settings().create_site(create).await.expect("a site");
    let scope = Scope::Site(SiteId::parse("other").expect("a site"));
    let key = postroom.make_key(scope, &[Role::Sender, Role::Auditor]).await;
    let mut client = SettingsServiceClient::new(postroom.channel(&key));
    let sites = client.list_sites(ListSitesRequest::default()).await.expect("a page").into_inner().sites;
    assert_eq!(sites.iter().map(|site| site.name.as_str()).collect::<Vec<_>>(), ["sites/other"]);
    // Two roles add up.
    let channel = postroom.channel(&key);
    for (rpc, code) in
        [(Rpc::ListLogs, Code::Ok), (Rpc::ListAccounts, Code::Ok), (Rpc::GetSettings, Code::PermissionDenied)]
    {
        let answer = call(rpc, channel.clone(), &Things::missing("other")).await;
        assert_eq!(answer.err().map_or(Code::Ok, |status| status.code()), code, "{rpc:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_learns_nothing_of_what_exists() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    postroom.create_account(plain_account(&server, "shop@example.com")).await;
    let sent = postroom.send_and_wait(letter("shop@example.com", &["ann@example.org"])).await;
    let message = sent.name.rsplit('/').next().expect("an id").to_owned();
    let real = Things { site: "shop", account: "1", message, log: "send-admin-1" };
    let create = CreateSiteRequest { site_id: "other".to_owned(), site: None };
    postroom.settings().create_site(create).await.expect("a site");
    let other = Scope::Site(SiteId::parse("other").expect("a site"));
    let key = postroom.make_key(other, &[Role::Admin]).await;
    let told = |status: Status| (status.code(), status.message().to_owned(), status.details().to_vec());
    for (rpc, _) in TABLE.into_iter().filter(|(rpc, _)| *rpc != Rpc::ListSites) {
        let mut answers = Vec::new();
        for things in [&real, &Things::missing("shop"), &Things::missing("nowhere")] {
            let refused = call(rpc, postroom.channel(&key), things).await;
            answers.push(told(refused.expect_err("not its site")));
        }
        assert_eq!(answers[0].0, Code::PermissionDenied, "{rpc:?}");
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{rpc:?}: {answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_dead_soon_even_in_the_middle_of_a_stream() {
    let postroom = Postroom::start().await;
    let (id, key) = key_with(&postroom, Scope::AllSites, None).await;
    let mut logs = LogsServiceClient::new(postroom.channel(&key));
    let request = TailLogEntriesRequest { parent: "sites/shop".to_owned(), ..Default::default() };
    let mut stream = logs.tail_log_entries(request).await.expect("a stream").into_inner();
    stream.message().await.expect("open").expect("the first response");
    let channel = postroom.channel(&key);
    call(Rpc::GetSite, channel.clone(), &Things::missing("shop")).await.expect("a good key");

    revoke(&postroom, id).await;
    let revoked = Instant::now();
    // Unary calls all the while, so that nothing is forgotten for want of use.
    let calls = async {
        loop {
            let answer = call(Rpc::GetSite, channel.clone(), &Things::missing("shop")).await;
            if let Err(refused) = answer {
                return (refused, revoked.elapsed());
            }
        }
    };
    let ending = async {
        loop {
            match stream.message().await {
                Ok(response) => assert!(response.is_some(), "it ends with a status"),
                Err(end) => return (end, revoked.elapsed()),
            }
        }
    };
    let both = tokio::time::timeout(PATIENCE, async { tokio::join!(calls, ending) }).await;
    let (refused, end) = both.expect("both end");
    for (status, after) in [refused, end] {
        assert_eq!(reason(&status), (Code::Unauthenticated, "KEY_MISSING".to_owned()));
        assert!(after <= DEAD_WITHIN, "{after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_when_its_time_is_over() {
    let postroom = Postroom::start().await;
    let end = now() + Duration::from_millis(1_500);
    let (_, key) = key_with(&postroom, Scope::AllSites, Some(end)).await;
    let channel = postroom.channel(&key);
    call(Rpc::GetSite, channel.clone(), &Things::missing("shop")).await.expect("good until then");
    let refused = loop {
        if let Err(refused) = call(Rpc::GetSite, channel.clone(), &Things::missing("shop")).await {
            break refused;
        }
    };
    let after = now() - end;
    assert_eq!(reason(&refused).1, "KEY_MISSING");
    assert!(after >= Duration::ZERO && after < Duration::from_secs(1), "{after}");
}
