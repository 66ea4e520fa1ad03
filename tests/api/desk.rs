//! What the tests of cancelling, retrying and sweeping share: letters that wait for an hour, put into the states that
//! cannot be brought about from outside, and what was told of them.

use std::time::Duration;

use postroom::api::proto::{
    CancelMessageRequest, CancelMessagesRequest, Message, RetryMessageRequest, RetryMessagesRequest,
    SendMessageRequest,
};
use postroom::domain::clock::Clock;
use postroom::domain::site::SiteId;
use sqlx::{AssertSqlSafe, Connection as _};
use time::OffsetDateTime;
use tonic::Status;

use crate::scripted::Server;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Options, Postroom, SITE, letter, plain_account};

pub(crate) const FROM: &str = "shop@example.com";

/// A server with account 1 for [`FROM`], at an SMTP server that takes everything.
pub(crate) async fn start() -> (Server, Postroom) {
    start_at(Behaviour::default()).await
}

/// The same at an SMTP server that behaves like this.
pub(crate) async fn start_at(behaviour: Behaviour) -> (Server, Postroom) {
    start_with(behaviour, Options::default()).await
}

/// The same with a server that sweeps so rarely that only the test does.
pub(crate) async fn start_unswept() -> (Server, Postroom) {
    let options = Options { retry_floor: Duration::from_hours(24), ..Options::default() };
    start_with(Behaviour::default(), options).await
}

async fn start_with(behaviour: Behaviour, options: Options) -> (Server, Postroom) {
    let server = behaviour.start().await;
    let postroom = Postroom::start_with(options).await;
    postroom.create_account(plain_account(&server, FROM)).await;
    (server, postroom)
}

pub(crate) fn shop() -> SiteId {
    SiteId::parse("shop").expect("a site")
}

pub(crate) fn now() -> OffsetDateTime {
    Clock::default().now()
}

/// This many milliseconds from now on.
#[expect(clippy::unnecessary_wraps, reason = "as the fields of messages have it")]
pub(crate) fn in_millis(millis: i64) -> Option<prost_types::Timestamp> {
    let time = now() + time::Duration::milliseconds(millis);
    let nanos = i32::try_from(time.nanosecond()).expect("below a second");
    Some(prost_types::Timestamp { seconds: time.unix_timestamp(), nanos: nanos / 1_000 * 1_000 })
}

pub(crate) fn nanos(time: &prost_types::Timestamp) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
}

/// Hands in a letter.
pub(crate) async fn submit(postroom: &Postroom, message: Message) -> Message {
    let request = SendMessageRequest {
        parent: SITE.to_owned(),
        message: Some(message),
        ..SendMessageRequest::default()
    };
    let taken = postroom.send().send_message(request).await.expect("taken").into_inner();
    taken.message.expect("set")
}

/// Hands in a letter to these that waits for an hour.
pub(crate) async fn waiting(postroom: &Postroom, to: &[&str]) -> Message {
    submit(postroom, Message { send_time: in_millis(3_600_000), ..letter(FROM, to) }).await
}

pub(crate) fn id(message: &Message) -> &str {
    message.name.rsplit('/').next().expect("an id")
}

/// Changes the store behind the server's back.
pub(crate) async fn execute(postroom: &Postroom, statement: &str) {
    let mut database = sqlx::PgConnection::connect(&postroom.database_url).await.expect("a connection");
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut database).await.expect("a statement");
    database.close().await.expect("closed");
}

/// One number out of the store.
pub(crate) async fn count(postroom: &Postroom, question: &str) -> i64 {
    let mut database = sqlx::PgConnection::connect(&postroom.database_url).await.expect("a connection");
    let answer = sqlx::query_scalar(AssertSqlSafe(question.to_owned()));
    let answer = answer.fetch_one(&mut database).await.expect("an answer");
    database.close().await.expect("closed");
    answer
}

/// Whose lease a letter is made to have.
#[derive(Clone, Copy)]
pub(crate) enum Lease {
    /// Of a replica that is heard of: an attempt is under way.
    Living,
    /// Of one that is silent.
    Dead,
}

/// Makes a waiting letter look as if a replica had claimed it, and had written the dot for these recipients.
pub(crate) async fn lease(postroom: &Postroom, message: &Message, lease: Lease, at_dot: &[i32]) {
    const REPLICA: &str = "00000000-0000-0000-0000-00000000000a";
    let at_dot = match at_dot {
        [] => "null".to_owned(),
        numbers => format!("array{numbers:?}"),
    };
    let heartbeat = match lease {
        Lease::Living => format!("insert into replicas values ('{REPLICA}') on conflict do nothing;"),
        Lease::Dead => format!("delete from replicas where replica_id = '{REPLICA}';"),
    };
    let id = id(message);
    let statement = format!(
        "{heartbeat} update queue set attempt = 1, leased_by = '{REPLICA}', at_dot = {at_dot} where message_id = '{id}'"
    );
    execute(postroom, &statement).await;
}

/// Makes the recipients of a waiting letter look as if an attempt had brought this; the letter leaves the queue.
pub(crate) async fn settle(
    postroom: &Postroom,
    message: &Message,
    recipient: &str,
    state: &str,
    is_held: bool,
) {
    let (id, final_time) = (id(message), if is_held { "null" } else { "now()" });
    let statement = format!(
        "delete from queue where message_id = '{id}';
         update messages
         set state = '{state}', final_time = {final_time}, held_attempt = 1,
             recipients = (select jsonb_agg(jsonb_set(r, '{{state}}', '\"{recipient}\"'))
                           from jsonb_array_elements(recipients) as r)
         where message_id = '{id}'"
    );
    execute(postroom, &statement).await;
}

/// The states that were told of a letter, in their order.
pub(crate) async fn told(postroom: &Postroom, message: &Message) -> Vec<String> {
    let mut database = sqlx::PgConnection::connect(&postroom.database_url).await.expect("a connection");
    let question = format!(
        "select item ->> 'state'
         from events, jsonb_array_elements(items) as item
         where item ->> 'message' = '{}'
         order by position",
        id(message)
    );
    let states = sqlx::query_scalar(AssertSqlSafe(question)).fetch_all(&mut database).await.expect("told");
    database.close().await.expect("closed");
    states
}

pub(crate) async fn cancel(postroom: &Postroom, name: &str) -> Result<Message, Status> {
    let request = CancelMessageRequest { name: name.to_owned() };
    Ok(postroom.send().cancel_message(request).await?.into_inner().message.expect("set"))
}

pub(crate) async fn retry(postroom: &Postroom, name: &str) -> Result<Message, Status> {
    let request = RetryMessageRequest { name: name.to_owned() };
    Ok(postroom.send().retry_message(request).await?.into_inner().message.expect("set"))
}

pub(crate) async fn cancel_all(postroom: &Postroom, request: CancelMessagesRequest) -> Result<i64, Status> {
    let request = CancelMessagesRequest { parent: SITE.to_owned(), ..request };
    Ok(postroom.send().cancel_messages(request).await?.into_inner().count)
}

pub(crate) async fn retry_all(postroom: &Postroom, request: RetryMessagesRequest) -> Result<i64, Status> {
    let request = RetryMessagesRequest { parent: SITE.to_owned(), ..request };
    Ok(postroom.send().retry_messages(request).await?.into_inner().count)
}
