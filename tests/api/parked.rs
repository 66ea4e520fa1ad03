//! Parked accounts as they are listed.

use postroom::api::proto::ListAccountsRequest;

use crate::scripted::ordinary::Behaviour;
use crate::support::{Postroom, SITE, bad_fields, plain_account};

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_listed_by_whether_they_are_parked() {
    let server = Behaviour::default().start().await;
    let postroom = Postroom::start().await;
    let mut accounts = Vec::new();
    for address in ["a@example.com", "b@example.com"] {
        accounts.push(postroom.create_account(plain_account(&server, address)).await);
    }
    assert!(accounts.iter().all(|account| account.parking.is_none()), "{accounts:?}");
    let list = async |parked, page_size, page_token: &str| {
        let request = ListAccountsRequest {
            parent: SITE.to_owned(),
            page_size,
            page_token: page_token.to_owned(),
            parked,
            ..ListAccountsRequest::default()
        };
        postroom.accounts().list_accounts(request).await.map(tonic::Response::into_inner)
    };
    assert_eq!(list(Some(true), 0, "").await.expect("a page").accounts, []);
    for parked in [None, Some(false)] {
        assert_eq!(list(parked, 0, "").await.expect("a page").accounts, accounts);
    }
    // A page belongs to its filter.
    let token = list(Some(false), 1, "").await.expect("a page").next_page_token;
    assert_eq!(list(Some(false), 1, &token).await.expect("a page").accounts, accounts[1..]);
    let other = list(Some(true), 1, &token).await.expect_err("of another filter");
    assert_eq!(bad_fields(&other), ["page_token"]);
}
