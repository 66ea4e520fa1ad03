//! One right request for every call, and what it needs to be right: a site with an account, a sender, a letter, logs.

use postroom::api::proto::account::Auth;
use postroom::api::proto::message::Content;
use postroom::api::proto::sender::Source;
use postroom::api::proto::{
    Account, Attachment, CancelMessageRequest, CancelMessagesRequest, CheckAccountRequest, ClearLogRequest,
    Composed, ConfirmSenderRequest, CreateAccountRequest, CreateSenderRequest, CreateSiteRequest,
    DeleteAccountRequest, DeleteSenderRequest, DeleteSiteRequest, DownloadLogRequest, GetAccountRequest,
    GetMessageContentRequest, GetMessageRequest, GetSettingsRequest, GetSiteRequest, Header, Limits,
    ListAccountsRequest, ListLogEntriesRequest, ListLogsRequest, ListMessagesRequest, ListProvidersRequest,
    ListSendersRequest, ListSitesRequest, Message, NoAuth, PasswordAuth, ResolveAccountRequest,
    RestoreSettingsRequest, RetryMessageRequest, RetryMessagesRequest, SendMessageRequest,
    SendMessagesRequest, Sender, Settings, Site, TailLogEntriesRequest, UpdateAccountRequest,
    UpdateSettingsRequest, WatchEventsRequest, check_account_request, tail_log_entries_request,
    watch_events_request,
};
use postroom::domain::clock::Clock;
use prost::Message as _;
use prost_types::{Duration, Timestamp};
use uuid::Uuid;

use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, account_at, letter, plain_account};

/// The address of the account.
const FROM: &str = "shop@example.com";

/// What the requests are about.
pub(super) struct Rig {
    pub(super) postroom: Postroom,
    pub(super) server: Server,
    account: Account,
    message: String,
    sender: String,
}

impl Rig {
    /// A server with a site that has everything.
    pub(super) async fn start() -> Self {
        let server = Behaviour::default().start().await;
        let postroom = Postroom::start().await;
        postroom.create_site("other").await;
        let settings = Settings {
            // Names that no resolver knows cost a check no longer than this.
            connection_timeout: Some(Duration { seconds: 1, nanos: 0 }),
            require_confirmed_sender: Some(false),
            // Nothing may go because there is much of it.
            log_max_size_mib: Some(0),
            ..Settings::default()
        };
        postroom.change_settings(settings).await;
        let account = postroom.create_account(plain_account(&server, FROM)).await;
        let message = postroom.send_and_wait(letter(FROM, &["ann@example.org"])).await.name;
        let sender = create_sender(&postroom, SITE).await;
        Self { postroom, server, account, message, sender }
    }

    /// Right requests of a call: one, or one for each of the ways that exclude one another. What they do is done to things
    /// of their own.
    pub(super) async fn requests(&self, call: &str) -> Vec<Vec<u8>> {
        let one = |request: Vec<u8>| vec![request];
        let parent = || SITE.to_owned();
        match call {
            "CreateSite" => one(CreateSiteRequest {
                site_id: format!("walk-{}", Uuid::now_v7()),
                site: Some(Site { display_name: "Walk".to_owned(), ..Site::default() }),
            }
            .encode_to_vec()),
            "GetSite" => one(GetSiteRequest { name: parent() }.encode_to_vec()),
            "ListSites" => {
                one(ListSitesRequest { page_size: 10, ..ListSitesRequest::default() }.encode_to_vec())
            }
            "GetSettings" => one(GetSettingsRequest { name: format!("{SITE}/settings") }.encode_to_vec()),
            "UpdateSettings" => one(self.update_settings().await),
            "RestoreSettings" => {
                let paths = vec!["send_in_parts".to_owned()];
                one(RestoreSettingsRequest { name: format!("{SITE}/settings"), paths }.encode_to_vec())
            }
            "DeleteSite" => {
                let name = self.postroom.create_site(&format!("going-{}", Uuid::now_v7())).await;
                one(DeleteSiteRequest { name, force: false }.encode_to_vec())
            }
            "CreateAccount" => self.create_account(),
            "GetAccount" => one(GetAccountRequest { name: self.account.name.clone() }.encode_to_vec()),
            "ListAccounts" => {
                one(ListAccountsRequest { parent: parent(), page_size: 10, ..Default::default() }
                    .encode_to_vec())
            }
            "UpdateAccount" => self.update_account(),
            "DeleteAccount" => {
                let account = Account { active: Some(false), ..account_at(self.server.port(), FROM) };
                let Account { name, etag, .. } = self.postroom.create_account(account).await;
                one(DeleteAccountRequest { name, etag, force: false }.encode_to_vec())
            }
            "CheckAccount" => self.check_account(),
            "ResolveAccount" => one(ResolveAccountRequest {
                parent: parent(),
                from_address: FROM.to_owned(),
                ..Default::default()
            }
            .encode_to_vec()),
            "ListProviders" => {
                one(ListProvidersRequest { email: "ann@gmail.com".to_owned() }.encode_to_vec())
            }
            "CreateSender" => one(CreateSenderRequest {
                parent: parent(),
                sender: Some(sender()),
                request_id: Uuid::now_v7().to_string(),
            }
            .encode_to_vec()),
            // A sender that is confirmed has no code left; the form of the code is looked at before.
            "ConfirmSender" => {
                one(ConfirmSenderRequest { name: self.sender.clone(), code: "123456".to_owned() }
                    .encode_to_vec())
            }
            "ListSenders" => {
                one(ListSendersRequest { parent: parent(), page_size: 10, ..Default::default() }
                    .encode_to_vec())
            }
            "DeleteSender" => {
                one(DeleteSenderRequest { name: create_sender(&self.postroom, "sites/other").await }
                    .encode_to_vec())
            }
            other => self.about_letters(other),
        }
    }

    fn about_letters(&self, call: &str) -> Vec<Vec<u8>> {
        let one = |request: Vec<u8>| vec![request];
        let parent = || SITE.to_owned();
        let log = || format!("{SITE}/logs/send-admin-1");
        let name = || self.message.clone();
        match call {
            "SendMessage" => Self::letters(|message| {
                SendMessageRequest {
                    parent: SITE.to_owned(),
                    message: Some(message),
                    validate_only: true,
                    ..SendMessageRequest::default()
                }
                .encode_to_vec()
            }),
            "SendMessages" => Self::letters(|message| {
                SendMessagesRequest {
                    parent: SITE.to_owned(),
                    message: Some(message),
                    index: 7,
                    request_id: String::new(),
                }
                .encode_to_vec()
            }),
            "GetMessage" => one(GetMessageRequest { name: name() }.encode_to_vec()),
            "ListMessages" => {
                one(ListMessagesRequest { parent: parent(), page_size: 10, ..Default::default() }
                    .encode_to_vec())
            }
            "GetMessageContent" => one(GetMessageContentRequest { name: name() }.encode_to_vec()),
            "CancelMessage" => one(CancelMessageRequest { name: name() }.encode_to_vec()),
            "RetryMessage" => one(RetryMessageRequest { name: name() }.encode_to_vec()),
            // Of a site where nothing waits.
            "CancelMessages" => {
                one(CancelMessagesRequest { parent: "sites/other".to_owned(), ..Default::default() }
                    .encode_to_vec())
            }
            "RetryMessages" => {
                one(RetryMessagesRequest { parent: "sites/other".to_owned(), ..Default::default() }
                    .encode_to_vec())
            }
            "WatchEvents" => watch_events(),
            "ListLogs" => {
                one(ListLogsRequest { parent: parent(), page_size: 10, ..Default::default() }.encode_to_vec())
            }
            "ListLogEntries" => {
                one(ListLogEntriesRequest { name: log(), page_size: 10, ..Default::default() }
                    .encode_to_vec())
            }
            "TailLogEntries" => tail_log_entries(),
            "DownloadLog" => one(DownloadLogRequest { name: log() }.encode_to_vec()),
            "ClearLog" => {
                let name = format!("{SITE}/logs/check-admin-0");
                one(ClearLogRequest { name }.encode_to_vec())
            }
            other => panic!("{other} has no right request here: write one, and all its fields are walked"),
        }
    }

    async fn update_settings(&self) -> Vec<u8> {
        let site = self.postroom.create_site(&format!("walk-{}", Uuid::now_v7())).await;
        let settings =
            Settings { name: format!("{site}/settings"), enabled: Some(true), ..Settings::default() };
        UpdateSettingsRequest { settings: Some(settings), update_mask: None }.encode_to_vec()
    }

    /// An account that is not checked, since it is not active; [`Rig::check_account`] has those that are.
    fn plain(&self) -> Account {
        let account = account_at(self.server.port(), FROM);
        Account { active: Some(false), limits: Some(Limits::default()), ..account }
    }

    fn two_logins(account: &Account) -> [Account; 2] {
        let login =
            PasswordAuth { username: "shop".to_owned(), password: "secret".to_owned(), ..Default::default() };
        [
            Account { auth: Some(Auth::None(NoAuth {})), ..account.clone() },
            Account { auth: Some(Auth::Password(login)), ..account.clone() },
        ]
    }

    fn create_account(&self) -> Vec<Vec<u8>> {
        let request = |account: Account| CreateAccountRequest {
            parent: SITE.to_owned(),
            account: Some(account),
            validate_only: true,
            ..CreateAccountRequest::default()
        };
        Self::two_logins(&self.plain()).map(|account| request(account).encode_to_vec()).into()
    }

    fn update_account(&self) -> Vec<Vec<u8>> {
        // Without its etag: some of what is tried is saved.
        let name = self.account.name.clone();
        let request = |account: Account| UpdateAccountRequest {
            account: Some(account),
            update_mask: None,
            validate_only: true,
        };
        let account = Account { name, ..self.plain() };
        Self::two_logins(&account).map(|account| request(account).encode_to_vec()).into()
    }

    fn check_account(&self) -> Vec<Vec<u8>> {
        use check_account_request::Target;
        let account = Account { active: None, ..self.plain() };
        let [account, _] = Self::two_logins(&account);
        let login =
            PasswordAuth { username: "shop".to_owned(), password: "secret".to_owned(), ..Default::default() };
        // A wrong port: what is tried of the login costs no session.
        let with_login = Account { auth: Some(Auth::Password(login)), port: 1, ..account.clone() };
        [
            Target::Name(self.account.name.clone()),
            Target::Account(Box::new(account)),
            Target::Account(Box::new(with_login)),
        ]
        .map(|target| CheckAccountRequest {
            parent: SITE.to_owned(),
            target: Some(target),
            // For the saved one: what was found out before is answered.
            max_age: Some(Duration { seconds: 3_600, nanos: 0 }),
            ..CheckAccountRequest::default()
        })
        .map(|request| request.encode_to_vec())
        .into()
    }

    fn letters(request: impl Fn(Message) -> Vec<u8>) -> Vec<Vec<u8>> {
        let attachment = Attachment {
            filename: "a.txt".to_owned(),
            content: b"abc".to_vec().into(),
            ..Attachment::default()
        };
        let composed = Composed {
            reply_to: vec!["Desk <desk@example.com>".to_owned()],
            subject: "Walk".to_owned(),
            text: "It walks.\n".to_owned(),
            html: String::new(),
            attachments: vec![attachment],
            headers: vec![Header { name: "X-Walk".to_owned(), value: "1".to_owned() }],
        };
        let message = Message {
            cc: vec!["bob@example.org".to_owned()],
            bcc: vec!["cyd@example.org".to_owned()],
            content: Some(Content::Composed(composed)),
            tags: vec!["walk".to_owned()],
            ..letter(FROM, &["Ann <ann@example.org>"])
        };
        let raw = format!("From: {FROM}\r\nTo: ann@example.org\r\nSubject: Walk\r\n\r\nIt walks.\r\n");
        let raw = Message { content: Some(Content::Raw(raw.into_bytes().into())), ..message.clone() };
        // Kept for a month: what is not the caller's is tried with it, and no session comes of it.
        let later = Clock::default().now() + time::Duration::days(30);
        let send_time = Some(Timestamp { seconds: later.unix_timestamp(), nanos: 0 });
        let later = Message { send_time, ..raw.clone() };
        vec![request(message), request(raw), request(later)]
    }
}

fn sender() -> Sender {
    Sender {
        sender_email: FROM.to_owned(),
        user: "walker".to_owned(),
        source: Source::Mailbox.into(),
        ..Sender::default()
    }
}

async fn create_sender(postroom: &Postroom, site: &str) -> String {
    let request =
        CreateSenderRequest { parent: site.to_owned(), sender: Some(sender()), request_id: String::new() };
    postroom.accounts().create_sender(request).await.expect("a sender").into_inner().sender.expect("set").name
}

fn start_time() -> Timestamp {
    Timestamp { seconds: 1_700_000_000, nanos: 0 }
}

fn watch_events() -> Vec<Vec<u8>> {
    use watch_events_request::Start;
    [None, Some(Start::StartTime(start_time()))]
        .map(|start| WatchEventsRequest { parent: SITE.to_owned(), start, ..WatchEventsRequest::default() })
        .map(|request| request.encode_to_vec())
        .into()
}

fn tail_log_entries() -> Vec<Vec<u8>> {
    use tail_log_entries_request::Start;
    [None, Some(Start::StartTime(start_time()))]
        .map(|start| TailLogEntriesRequest {
            parent: SITE.to_owned(),
            start,
            ..TailLogEntriesRequest::default()
        })
        .map(|request| request.encode_to_vec())
        .into()
}
