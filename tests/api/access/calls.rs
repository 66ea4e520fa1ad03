//! Each call of the API, in a form that changes nothing where it is allowed, but for what is said there.

use postroom::api::proto::accounts_service_client::AccountsServiceClient;
use postroom::api::proto::check_account_request::Target;
use postroom::api::proto::logs_service_client::LogsServiceClient;
use postroom::api::proto::send_service_client::SendServiceClient;
use postroom::api::proto::sender::Source;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use postroom::api::proto::{
    Account, CancelMessageRequest, CancelMessagesRequest, CheckAccountRequest, ClearLogRequest,
    ConfirmSenderRequest, CreateAccountRequest, CreateSenderRequest, CreateSiteRequest, DeleteAccountRequest,
    DeleteSenderRequest, DeleteSiteRequest, DownloadLogRequest, GetAccountRequest, GetMessageContentRequest,
    GetMessageRequest, GetSettingsRequest, GetSiteRequest, ListAccountsRequest, ListLogEntriesRequest,
    ListLogsRequest, ListMessagesRequest, ListProvidersRequest, ListSendersRequest, ListSitesRequest,
    ResolveAccountRequest, RestoreSettingsRequest, RetryMessageRequest, RetryMessagesRequest,
    SendMessageRequest, SendMessagesRequest, Sender, Settings, TailLogEntriesRequest, UpdateAccountRequest,
    UpdateSettingsRequest, WatchEventsRequest,
};
use postroom::domain::access::Rpc;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use uuid::Uuid;

use crate::support::{Authorised, letter};

/// What calls are about.
#[derive(Clone, Debug)]
pub(super) struct Things {
    pub(super) site: &'static str,
    pub(super) account: &'static str,
    pub(super) sender: String,
    pub(super) message: String,
    pub(super) log: &'static str,
    /// Whether calls are about what is special for them.
    pub(super) is_special: bool,
}

impl Things {
    /// Things that are nowhere, in a site that may be.
    pub(super) fn missing(site: &'static str) -> Self {
        Self {
            site,
            account: "999",
            sender: "999".to_owned(),
            message: Uuid::now_v7().to_string(),
            log: "send-admin-999",
            is_special: false,
        }
    }
}

/// Makes a call that, where it is allowed, changes nothing. A store that is busy with other tests is asked again.
pub(super) async fn call(rpc: Rpc, channel: Authorised, things: &Things) -> Result<(), Status> {
    loop {
        match call_once(rpc, channel.clone(), things).await {
            Err(status) if status.code() == Code::Unavailable => {}
            answer => return answer,
        }
    }
}

async fn call_once(rpc: Rpc, channel: Authorised, things: &Things) -> Result<(), Status> {
    let Things { site, account, sender, message, log, is_special } = things;
    let log = if *is_special { "audit" } else { log };
    let (parent, id) = (format!("sites/{site}"), (*site).to_owned());
    let (account, message) = (format!("{parent}/accounts/{account}"), format!("{parent}/messages/{message}"));
    let sender = format!("{parent}/senders/{sender}");
    let (settings, log) = (format!("{parent}/settings"), format!("{parent}/logs/{log}"));
    let mut sites = SettingsServiceClient::new(channel.clone());
    let mut accounts = AccountsServiceClient::new(channel.clone());
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
        // Of no field, so that nothing is restored.
        Rpc::RestoreSettings => {
            let paths = vec!["none".to_owned()];
            sites.restore_settings(RestoreSettingsRequest { name: settings, paths }).await.map(|_| ())
        }
        // A letter must wait there, or the site goes.
        Rpc::DeleteSite => {
            sites.delete_site(DeleteSiteRequest { name: parent, force: false }).await.map(|_| ())
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
        Rpc::ResolveAccount => {
            let request = ResolveAccountRequest {
                parent,
                from_address: "shop@example.com".to_owned(),
                show_all: *is_special,
                ..ResolveAccountRequest::default()
            };
            accounts.resolve_account(request).await.map(|_| ())
        }
        Rpc::CreateSender => {
            let mailbox = Sender {
                sender_email: "mailbox@example.com".to_owned(),
                user: "ann".to_owned(),
                source: Source::Mailbox.into(),
                ..Sender::default()
            };
            let sender = is_special.then_some(mailbox);
            let request = CreateSenderRequest { parent, sender, ..CreateSenderRequest::default() };
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
        Rpc::ListProviders => {
            let request = ListProvidersRequest { email: "ann@example.com".to_owned() };
            accounts.list_providers(request).await.map(|_| ())
        }
        Rpc::SendMessage
        | Rpc::SendMessages
        | Rpc::GetMessage
        | Rpc::ListMessages
        | Rpc::GetMessageContent
        | Rpc::CancelMessage
        | Rpc::RetryMessage
        | Rpc::CancelMessages
        | Rpc::RetryMessages
        | Rpc::WatchEvents => call_about_letters(rpc, channel, parent, message).await,
        Rpc::ListLogs | Rpc::ListLogEntries | Rpc::DownloadLog | Rpc::ClearLog | Rpc::TailLogEntries => {
            call_about_logs(rpc, channel, parent, log, *is_special).await
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
        Rpc::SendMessages => send_items(letters, parent).await,
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

/// One item, which is no good for another reason where the key is good enough.
async fn send_items(mut letters: SendServiceClient<Authorised>, parent: String) -> Result<(), Status> {
    let item = SendMessagesRequest { parent, ..SendMessagesRequest::default() };
    let mut results = letters.send_messages(tokio_stream::iter([item])).await?.into_inner();
    let answer = results.message().await?.expect("a result");
    let error = answer.error.expect("there is no letter in it");
    match Code::from(error.code) {
        // In the form in which other calls say it.
        code @ (Code::PermissionDenied | Code::InvalidArgument) => {
            let details = ErrorDetails::with_error_info(error.reason, "postroom", []);
            Err(Status::with_error_details(code, error.text, details))
        }
        other => panic!("{other:?} {}", error.text),
    }
}

/// The same for calls about logs.
async fn call_about_logs(
    rpc: Rpc,
    channel: Authorised,
    parent: String,
    log: String,
    is_special: bool,
) -> Result<(), Status> {
    let mut logs = LogsServiceClient::new(channel);
    match rpc {
        Rpc::ListLogs => {
            let request = ListLogsRequest { parent, ..ListLogsRequest::default() };
            logs.list_logs(request).await.map(|_| ())
        }
        Rpc::ListLogEntries => {
            let request = ListLogEntriesRequest { name: log, ..ListLogEntriesRequest::default() };
            logs.list_log_entries(request).await.map(|_| ())
        }
        Rpc::DownloadLog => logs.download_log(DownloadLogRequest { name: log }).await.map(|_| ()),
        Rpc::ClearLog => logs.clear_log(ClearLogRequest { name: log }).await.map(|_| ()),
        Rpc::TailLogEntries => {
            let logs_asked_for = if is_special { vec![log] } else { Vec::new() };
            let request = TailLogEntriesRequest { parent, logs: logs_asked_for, ..Default::default() };
            logs.tail_log_entries(request).await.map(|_| ())
        }
        _ => unreachable!("{rpc:?} is not about logs"),
    }
}
