//! What the tests of rotation and download share: entries written behind the server's back at a time of the test's own,
//! logs as they are listed and downloaded, and readers that note which logs began afresh.

use std::sync::Arc;

use postroom::api::proto::tail_log_entries_request::Start;
use postroom::api::proto::{
    ClearLogRequest, DownloadLogRequest, DownloadLogResponse, ListLogsRequest, Log, LogEntry, Restart,
    TailLogEntriesRequest, TailLogEntriesResponse,
};
use postroom::domain::clock::Clock;
use postroom::domain::log::{Chunk, Entry, EntryKind, LogId};
use postroom::store::{Store, logs};
use time::OffsetDateTime;
use tokio::time::timeout;
use tonic::{Status, Streaming};
use uuid::Uuid;

use crate::cluster::patient;
use crate::desk::shop;
use crate::support::{PATIENCE, Postroom, SITE};

/// The name of a log of the site.
pub(crate) fn log_name(id: &str) -> String {
    format!("{SITE}/logs/{id}")
}

pub(crate) fn log_id(id: &str) -> LogId {
    LogId::parse(id).expect("a log")
}

/// Entries of one session in a log, all of one time.
pub(crate) fn chunk(log: &str, time: OffsetDateTime, texts: &[&str]) -> Chunk {
    let entry = |text: &&str| Entry { time, kind: EntryKind::Server, text: (*text).to_owned() };
    Chunk {
        site: shop(),
        log: log_id(log),
        session: Some(Uuid::now_v7()),
        message: None,
        entries: texts.iter().map(entry).collect(),
    }
}

/// A chunk about a letter.
pub(crate) fn about(chunk: Chunk, message: &str) -> Chunk {
    let id = message.rsplit('/').next().expect("an id").parse().expect("a UUID");
    Chunk { message: Some((id, 1)), ..chunk }
}

/// A store over the server's database whose clock is the test's.
pub(crate) struct Stepped {
    pub(crate) store: Store,
    clock: Clock,
}

impl Stepped {
    pub(crate) fn over(postroom: &Postroom) -> Self {
        let clock = Clock::default();
        let (url, vault) = (&postroom.database_url, Arc::clone(&postroom.vault));
        let store = Store::open_with(url, &patient(), vault, clock.clone()).expect("a store");
        Self { store, clock }
    }

    /// Records a text at this time.
    pub(crate) async fn record(&self, log: &str, time: OffsetDateTime, text: &str) {
        self.clock.set(time);
        self.put(&[chunk(log, time, &[text])]).await;
    }

    /// Records these as of now.
    pub(crate) async fn put(&self, chunks: &[Chunk]) {
        logs::record(&self.store, &shop(), &[], chunks).await.expect("recorded");
    }

    /// Empties the logs whose period is over at this time, as the hourly cleaning does.
    pub(crate) async fn restart_due(&self, time: OffsetDateTime) {
        logs::restart_due(&self.store, &shop(), time).await.expect("looked at");
    }

    /// Deletes what logs held before they began afresh, as the sweep does.
    pub(crate) async fn sweep(&self) {
        for site in logs::sites_with_leavings(&self.store).await.expect("sites") {
            logs::drop_leavings(&self.store, &site).await.expect("deleted");
        }
    }
}

/// The logs of the site as they are listed.
pub(crate) async fn listed(postroom: &Postroom) -> Vec<Log> {
    listed_in(postroom, SITE).await
}

/// The logs of a site but the log `audit`.
pub(crate) async fn listed_in(postroom: &Postroom, parent: &str) -> Vec<Log> {
    let request =
        ListLogsRequest { parent: parent.to_owned(), page_size: 1_000, ..ListLogsRequest::default() };
    let logs = postroom.logs().list_logs(request).await.expect("logs").into_inner().logs;
    logs.into_iter().filter(|log| log.tags != ["[Audit]"]).collect()
}

/// The size that is listed of a log; 0 where it is not listed.
pub(crate) async fn size(postroom: &Postroom, id: &str) -> usize {
    let name = log_name(id);
    let size = listed(postroom).await.into_iter().find(|log| log.name == name).map(|log| log.size_bytes);
    usize::try_from(size.unwrap_or(0)).expect("a size")
}

/// Opens the download of a log by its whole name.
pub(crate) async fn open_download(
    postroom: &Postroom,
    name: &str,
) -> Result<Streaming<DownloadLogResponse>, Status> {
    let request = DownloadLogRequest { name: name.to_owned() };
    Ok(postroom.logs().download_log(request).await?.into_inner())
}

/// The responses of a whole download.
pub(crate) async fn responses(postroom: &Postroom, name: &str) -> Result<Vec<String>, Status> {
    let mut stream = open_download(postroom, name).await?;
    let mut texts = Vec::new();
    while let Some(response) = timeout(PATIENCE, stream.message()).await.expect("in time")? {
        texts.push(response.text);
    }
    Ok(texts)
}

/// The text of a log of the site.
pub(crate) async fn download(postroom: &Postroom, id: &str) -> String {
    responses(postroom, &log_name(id)).await.expect("a log").concat()
}

pub(crate) async fn clear(postroom: &Postroom, id: &str) -> Result<(), Status> {
    postroom.logs().clear_log(ClearLogRequest { name: log_name(id) }).await.map(|_| ())
}

/// A tail, and what it has told so far.
pub(crate) struct Tail {
    stream: Streaming<TailLogEntriesResponse>,
    pub(crate) token: String,
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) restarts: Vec<Restart>,
}

impl Tail {
    /// Opens one, and takes its first response.
    pub(crate) async fn open(postroom: &Postroom, request: &TailLogEntriesRequest) -> Self {
        let request = TailLogEntriesRequest { parent: SITE.to_owned(), ..request.clone() };
        let stream = postroom.logs().tail_log_entries(request).await.expect("a stream").into_inner();
        let mut tail = Self { stream, token: String::new(), entries: Vec::new(), restarts: Vec::new() };
        tail.next().await;
        tail
    }

    /// The same call again from a token.
    pub(crate) async fn resume(postroom: &Postroom, request: &TailLogEntriesRequest, token: &str) -> Self {
        let start = Some(Start::ResumeToken(token.to_owned()));
        Self::open(postroom, &TailLogEntriesRequest { start, history: 0, ..request.clone() }).await
    }

    pub(crate) async fn next(&mut self) {
        let response = timeout(PATIENCE, self.stream.message()).await.expect("a response in time");
        let response = response.expect("open").expect("it ends with a status");
        self.token = response.resume_token;
        self.entries.extend(response.entries);
        self.restarts.extend(response.restarts);
    }

    /// Reads on until an entry with this text has come.
    pub(crate) async fn until(&mut self, text: &str) {
        while !self.entries.iter().any(|entry| entry.text.contains(text)) {
            self.next().await;
        }
    }

    /// Reads on until so many restarts were told.
    pub(crate) async fn until_restarts(&mut self, count: usize) {
        while self.restarts.len() < count {
            self.next().await;
        }
    }

    /// The logs that began afresh, by their ids, with the cause.
    pub(crate) fn told(&self) -> Vec<(String, postroom::api::proto::restart::Cause)> {
        let id = |restart: &Restart| restart.log.rsplit('/').next().expect("an id").to_owned();
        self.restarts.iter().map(|restart| (id(restart), restart.cause())).collect()
    }
}
