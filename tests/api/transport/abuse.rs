//! Connections: their number, those that say nothing, those that say something else, their age.

use std::time::Duration;

use postroom::api::proto::{ListSitesRequest, TailLogEntriesRequest, TailLogEntriesResponse};
use postroom::transport::TransportOptions;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::certs::{Authority, Files};
use super::channels::{client_config, shake_hands};
use super::raw::{LIST_SITES, RawClient, TAIL, framed, head};
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Options, PATIENCE, Postroom, SITE, plain_account};

/// Short enough for a test; the default is ten seconds.
const HANDSHAKE: Duration = Duration::from_millis(300);

async fn start(transport: TransportOptions) -> Postroom {
    Postroom::start_with(Options { transport, ..Options::default() }).await
}

/// Reads to the end of a connection, which must come.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server ends it");
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_let_go() {
    let postroom = start(TransportOptions { handshake: HANDSHAKE, ..TransportOptions::default() }).await;
    let mut silent = TcpStream::connect(&postroom.address).await.expect("a connection");
    let mut slow = TcpStream::connect(&postroom.address).await.expect("a connection");
    slow.write_all(b"PRI * HTTP/2").await.expect("written");
    for stream in [&mut silent, &mut slow] {
        assert_eq!(read_to_end(stream).await, b"");
    }

    let authority = Authority::new("Authority of abuse");
    let files = Files::new(&authority.server(), None);
    let transport = TransportOptions { handshake: HANDSHAKE, ..files.transport() };
    let secured = postroom.another_with(Options { transport, ..Options::default() }).await;
    let mut silent = TcpStream::connect(&secured.address).await.expect("a connection");
    let mut slow = TcpStream::connect(&secured.address).await.expect("a connection");
    // The head of a record that does not come.
    slow.write_all(b"\x16\x03\x01\x02\x00\x01").await.expect("written");
    for stream in [&mut silent, &mut slow] {
        assert_eq!(read_to_end(stream).await, b"");
    }
    // Through with TLS, and then silent.
    let mut stream =
        shake_hands(&secured.address, client_config(&authority, None)).await.expect("a handshake");
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server ends it");
    assert!(bytes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_is_not_answered() {
    let postroom = start(TransportOptions::default()).await;
    let mut stream = TcpStream::connect(&postroom.address).await.expect("a connection");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
    assert_eq!(read_to_end(&mut stream).await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_bound_are_closed_at_once() {
    let postroom = Postroom::start().await;
    let transport = TransportOptions { max_connections: 4, ..TransportOptions::default() };
    let bounded = postroom.another_with(Options { transport, ..Options::default() }).await;
    let call = || head(LIST_SITES, Some(&postroom.key), &[]);
    let body = || framed(&ListSitesRequest::default());
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = RawClient::connect(&bounded.address).await;
        assert_eq!(client.call(call(), body()).await.code(), tonic::Code::Ok);
        clients.push(client);
    }
    for _ in 0..20 {
        let mut further = TcpStream::connect(&bounded.address).await.expect("taken by the system");
        assert_eq!(read_to_end(&mut further).await, b"", "above the bound");
    }
    for client in &mut clients {
        assert_eq!(client.call(call(), body()).await.code(), tonic::Code::Ok, "those that are there go on");
    }
    // A place that becomes free is taken again.
    let RawClient { connection, .. } = clients.pop().expect("four");
    connection.abort();
    eventually("a free place", async || {
        let stream = TcpStream::connect(&bounded.address).await.ok()?;
        let (send, connection) = h2::client::handshake(stream).await.ok()?;
        tokio::spawn(connection);
        let (response, mut stream) = send.ready().await.ok()?.send_request(call(), false).ok()?;
        stream.send_data(body(), true).ok()?;
        response.await.ok().filter(|answer| answer.status() == 200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_say_nothing_leave_room_for_others() {
    let postroom = Postroom::start().await;
    let transport = TransportOptions { max_connections: 4, ..TransportOptions::default() };
    let bounded = postroom.another_with(Options { transport, ..Options::default() }).await;
    let call = || head(LIST_SITES, Some(&postroom.key), &[]);
    let mut first = RawClient::connect(&bounded.address).await;
    assert_eq!(first.call(call(), framed(&ListSitesRequest::default())).await.code(), tonic::Code::Ok);
    // Half of the places are for those who have not begun; the third silent one is closed at once.
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(TcpStream::connect(&bounded.address).await.expect("a connection"));
    }
    let mut third = TcpStream::connect(&bounded.address).await.expect("taken by the system");
    assert_eq!(read_to_end(&mut third).await, b"");
    assert_eq!(first.call(call(), framed(&ListSitesRequest::default())).await.code(), tonic::Code::Ok);
    // And one that has ended its silence is in.
    drop(silent);
    eventually("room", async || {
        let mut stream = TcpStream::connect(&bounded.address).await.ok()?;
        stream.write_all(super::raw::DATA_PREFACE).await.ok()?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.ok()
    })
    .await;
}

/// After its age a connection takes no further calls; a stream on it goes on, and tells of what happens later.
#[tokio::test(flavor = "multi_thread")]
async fn streams_outlive_the_age_of_their_connection() {
    let postroom = Postroom::start().await;
    let server = Behaviour::default().start().await;
    let transport =
        TransportOptions { max_connection_age: Duration::from_millis(300), ..TransportOptions::default() };
    let young = postroom.another_with(Options { transport, ..Options::default() }).await;
    let mut client = RawClient::connect(&young.address).await;
    let (response, mut stream) = client.begin(head(TAIL, Some(&postroom.key), &[])).await;
    let request = TailLogEntriesRequest { parent: SITE.to_owned(), ..TailLogEntriesRequest::default() };
    stream.send_data(framed(&request), true).expect("sent");
    let mut tail = timeout(PATIENCE, response).await.expect("in time").expect("a tail").into_body();
    let end = eventually("the age", async || client.refusal().await).await;
    assert!(end.is_go_away() || end.is_io(), "{end}");
    postroom.create_account(plain_account(&server, "shop@example.com")).await;
    // Heartbeats come, too; what is waited for is the check of the new account.
    let mut bytes = Vec::new();
    let told = async {
        loop {
            let data = tail.data().await.expect("open").expect("no error");
            tail.flow_control().release_capacity(data.len()).expect("capacity");
            bytes.extend_from_slice(&data);
            while let Some(length) = bytes.get(1..5) {
                let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
                let Some(message) = bytes.get(5..5 + length) else { break };
                let response = TailLogEntriesResponse::decode(message).expect("a response");
                bytes.drain(..5 + length);
                if !response.entries.is_empty() {
                    return;
                }
            }
        }
    };
    timeout(PATIENCE, told).await.expect("the stream goes on");
    drop((tail, stream));
    timeout(PATIENCE, client.connection).await.expect("an end").expect("no panic").expect("a clean end");
}
