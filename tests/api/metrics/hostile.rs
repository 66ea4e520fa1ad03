//! The listener of metrics: one page, and whoever reaches it costs little.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{ask, start, text};
use crate::eventually::eventually;
use crate::support::{PATIENCE, Postroom};

/// Connections that are taken at once.
const PLACES: usize = 16;

/// Whether the server ends a connection, whatever it says first.
async fn ends(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = timeout(2 * PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn connect(postroom: &Postroom) -> TcpStream {
    TcpStream::connect(&postroom.metrics_address).await.expect("a connection")
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_page() {
    let postroom = start().await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("GET /../metrics HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405"),
        ("DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
        ("GET /metrics?all=1 HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
        ("GET /metrics HTTP/1.0\r\n\r\n", "200"),
        ("nonsense\r\n\r\n", "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
    ] {
        let answer = ask(&postroom, request.as_bytes()).await;
        let told = answer.split(' ').nth(1).unwrap_or_default();
        assert!(told == status || status.is_empty(), "{request:?}: {answer}");
        assert!(!answer.contains("postroom_") || status == "200", "{request:?}: {answer}");
    }
    let head = ask(&postroom, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_client_is_cut() {
    let postroom = start().await;
    // A head without end, of headers and of one line.
    for part in ["X-Filler: 0123456789\r\n", "0123456789"] {
        let mut stream = connect(&postroom).await;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: ").await.expect("written");
        let mut written = 0;
        // Fails when the server has closed.
        while written < 16 * 1024 * 1024 {
            let Ok(Ok(())) = timeout(PATIENCE, stream.write_all(part.repeat(1_000).as_bytes())).await else {
                break;
            };
            written += part.len() * 1_000;
        }
        let answer = ends(&mut stream).await;
        assert!(written < 16 * 1024 * 1024, "all of it was read");
        assert!(!answer.contains("postroom_"), "{answer}");
    }
    // Half a head and then silence; nothing at all.
    for beginning in [&b"GET /metrics HTT"[..], b"GET /metrics HTTP/1.1\r\nHost: x\r\n", b""] {
        let mut stream = connect(&postroom).await;
        stream.write_all(beginning).await.expect("written");
        assert!(!ends(&mut stream).await.contains("postroom_"));
    }
    assert!(text(&postroom).await.ends_with("# EOF\n"), "others are served");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_hold_their_places_for_a_while_only() {
    let postroom = start().await;
    let mut silent = Vec::new();
    for _ in 0..PLACES {
        silent.push(connect(&postroom).await);
    }
    // Taken in the order in which they came; this one is closed unanswered, if those were not cut before.
    let mut further = connect(&postroom).await;
    let _ = further.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = ends(&mut further).await;
    for stream in &mut silent {
        assert_eq!(ends(stream).await.matches("postroom_").count(), 0);
    }
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200"), "{answer}");
    eventually("places are free again", async || {
        let answer = ask(&postroom, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        answer.ends_with("# EOF\n").then_some(())
    })
    .await;
}

/// Off by default.
#[tokio::test(flavor = "multi_thread")]
async fn without_an_address_there_are_none() {
    let postroom = Postroom::start().await;
    assert_eq!(postroom.metrics_address, "");
}
