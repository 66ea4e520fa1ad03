//! A certificate is exchanged while the server runs: no call notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use postroom::api::proto::logs_service_client::LogsServiceClient;
use postroom::api::proto::settings_service_client::SettingsServiceClient;
use postroom::api::proto::{ListSitesRequest, TailLogEntriesRequest};
use tokio::time::timeout;

use super::certs::{Authority, Files, Issued};
use super::channels::{client_config, shake_hands, tls_channel};
use crate::binary::{DataDir, Serving};
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::support::{Options, PATIENCE, Postroom, SITE, plain_account, reason};

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_while_the_certificate_is_exchanged() {
    let (old, new) = (Authority::new("The old authority"), Authority::new("The new authority"));
    let files = Files::new(&old.server(), None);
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let secured = postroom.another_with(Options { transport: files.transport(), ..Options::default() }).await;
    let channel = tls_channel(&secured.address, client_config(&old, None), &postroom.key);

    let request = TailLogEntriesRequest { parent: SITE.to_owned(), ..TailLogEntriesRequest::default() };
    let tail = LogsServiceClient::new(channel.clone()).tail_log_entries(request).await.expect("a tail");
    let mut tail = tail.into_inner();
    timeout(PATIENCE, tail.message()).await.expect("in time").expect("open").expect("a first response");

    let (ended, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let calls = tokio::spawn({
        let (ended, answered) = (Arc::clone(&ended), Arc::clone(&answered));
        let settings = SettingsServiceClient::new(channel);
        async move {
            while !ended.load(Ordering::Relaxed) {
                match settings.clone().list_sites(ListSitesRequest::default()).await {
                    Ok(_) => {}
                    // A busy store is none of the certificate's business, and tells so itself.
                    Err(status) => assert_eq!(reason(&status).1, "STORE_UNAVAILABLE"),
                }
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    });

    let Issued { cert, key } = new.server();
    files.write(&cert, &key, None);
    eventually("the new certificate", async || {
        shake_hands(&secured.address, client_config(&new, None)).await.ok()
    })
    .await;
    shake_hands(&secured.address, client_config(&old, None)).await.expect_err("the old one is gone");

    // What began before goes on: the calls, and the stream, which tells of what happens now.
    let before = answered.load(Ordering::Relaxed);
    eventually("further calls", async || (answered.load(Ordering::Relaxed) > before + 10).then_some(()))
        .await;
    ended.store(true, Ordering::Relaxed);
    calls.await.expect("no call failed");
    postroom.create_account(plain_account(&server, "shop@example.com")).await;
    loop {
        let response = timeout(PATIENCE, tail.message()).await.expect("in time").expect("the stream is open");
        if !response.expect("a response").entries.is_empty() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_changes_nothing_and_is_told_of_once() {
    let authority = Authority::new("The authority");
    let Issued { cert, key } = authority.server();
    let files = Files::new(&Issued { cert: cert.clone(), key }, None);
    let data_dir = DataDir::new();
    let flags = files.flags();
    let serving =
        Serving::start(&data_dir.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let shake = || shake_hands(&serving.address, client_config(&authority, None));
    let told = |text: &str| serving.printed().matches(text).count();
    shake().await.expect("good files");

    // The certificate of one pair, the key of another.
    files.write(&cert, &authority.server().key, None);
    let error = "does not belong to the certificate";
    eventually("the error", async || (told(error) > 0).then_some(())).await;
    shake().await.expect("the old certificate goes on");

    // Gone altogether.
    std::fs::remove_file(files.path("..data")).expect("removed");
    let gone = "cannot be read";
    eventually("the other error", async || (told(gone) > 0).then_some(())).await;
    shake().await.expect("the old certificate goes on");

    let other = Authority::new("Another authority");
    let Issued { cert, key } = other.server();
    files.write(&cert, &key, None);
    eventually("the exchange", async || {
        shake_hands(&serving.address, client_config(&other, None)).await.ok()
    })
    .await;
    assert_eq!((told(error), told(gone)), (1, 1), "{}", serving.printed());
    assert_eq!(told("the certificate was exchanged"), 1, "{}", serving.printed());
}
