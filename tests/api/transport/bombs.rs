//! Requests that are larger than they look, or than they may be; and callers without a key, whose requests nobody reads.

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use postroom::api::proto::ListSitesRequest;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::raw::{HEALTH_CHECK, LIST_SITES, RawClient, SEND_MESSAGE, TAIL, head, status, with_prefix};
use crate::eventually::eventually;
use crate::support::{Options, Postroom, patiently, reason, variable};

const MIB: usize = 1024 * 1024;
const CREATE_ACCOUNT: &str = "/postroom.v1.AccountsService/CreateAccount";
const SEND_MESSAGES: &str = "/postroom.v1.SendService/SendMessages";

/// About 1 MiB that unpacks to 1 GiB (RFC 1952): one block of zeros, over and over.
fn bomb() -> Bytes {
    let mut block = Vec::with_capacity(MIB);
    let zeros = vec![0; MIB];
    Compress::new(Compression::default(), false)
        .compress_vec(&zeros, &mut block, FlushCompress::Full)
        .expect("compressed");
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let bytes = [&head[..], &block.repeat(1_024)].concat();
    assert!(bytes.len() < 2 * MIB, "{}", bytes.len());
    with_prefix(1, &bytes)
}

async fn limited() -> Postroom {
    Postroom::start_with(Options { max_letter_bytes: Some(2 * MIB), ..Options::default() }).await
}

fn expect_too_large(refused: &Status, max_bytes: usize) {
    assert_eq!(reason(refused), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".to_owned()), "{refused:?}");
    assert_eq!(variable(refused, "max_bytes"), max_bytes.to_string());
}

/// The memory that they take is measured by benches/abuse.rs.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_bombs_at_once_are_refused() {
    let postroom = limited().await;
    let bomb = bomb();
    let mut calls = JoinSet::new();
    for number in 0..50 {
        let (path, max_bytes) = [
            (SEND_MESSAGE, 2 * MIB),
            (SEND_MESSAGES, 2 * MIB),
            (LIST_SITES, MIB),
            (CREATE_ACCOUNT, MIB),
            (TAIL, MIB),
        ][number % 5];
        let (address, key, bomb) = (postroom.address.clone(), postroom.key.clone(), bomb.clone());
        calls.spawn(async move {
            let mut client = RawClient::connect(&address).await;
            let head = head(path, Some(&key), &[("grpc-encoding", "gzip")]);
            expect_too_large(&client.call(head, bomb).await, max_bytes);
        });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("refused");
        let listed =
            patiently(async || postroom.settings().list_sites(ListSitesRequest::default()).await).await;
        listed.expect("a good client is served");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_letters_may_have_a_mebibyte() {
    let postroom = limited().await;
    let mut client = RawClient::connect(&postroom.address).await;
    for path in [LIST_SITES, CREATE_ACCOUNT, TAIL] {
        let large = with_prefix(0, &vec![0; MIB + 1]);
        expect_too_large(&client.call(head(path, Some(&postroom.key), &[]), large).await, MIB);
    }
    // Without a key even less: names of services have some ten bytes.
    let refused = client.call(head(HEALTH_CHECK, None, &[]), with_prefix(0, &vec![0; 100 * 1024])).await;
    assert_eq!(reason(&refused), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".to_owned()), "{refused:?}");
}

/// The answer comes although the request does not: nothing of it is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_no_request_is_read() {
    let postroom = limited().await;
    for path in [SEND_MESSAGE, SEND_MESSAGES, LIST_SITES, CREATE_ACCOUNT, TAIL] {
        for key in [None, Some("prm_unknown")] {
            let refused = eventually("an answer of the store", async || {
                let mut client = RawClient::connect(&postroom.address).await;
                let (response, _open) = client.begin(head(path, key, &[])).await;
                Some(status(response).await).filter(|refused| refused.code() != Code::Unavailable)
            })
            .await;
            assert_eq!(reason(&refused), (Code::Unauthenticated, "KEY_MISSING".to_owned()), "{path}");
        }
    }
}
