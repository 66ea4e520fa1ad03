//! Bad names, filters, times and sizes in requests that read: refused by the name of the field (CASES 36, 40).

use postroom::api::proto::{
    ListAccountsRequest, ListLogEntriesRequest, ListMessagesRequest, SendMessageRequest,
};

use crate::support::{Postroom, SITE, bad_fields, letter};

#[tokio::test(flavor = "multi_thread")]
async fn bad_filters_names_times_and_enum_values_are_refused() {
    let postroom = Postroom::start().await;
    let time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    let wrong = ListMessagesRequest {
        parent: SITE.to_owned(),
        states: vec![1, 99, 0, -1],
        recipient: "nobody".to_owned(),
        account: "sites/other/accounts/1".to_owned(),
        message_id: "<a\0b@example.com>".to_owned(),
        start_time: time(i64::MAX, 0),
        end_time: time(0, 1_000_000_000),
        ..ListMessagesRequest::default()
    };
    let refused = postroom.send().list_messages(wrong).await.expect_err("all wrong");
    let mut fields = bad_fields(&refused);
    fields.sort_unstable();
    let expected = [
        "account",
        "end_time",
        "message_id",
        "recipient",
        "start_time",
        "states[1]",
        "states[2]",
        "states[3]",
    ];
    assert_eq!(fields, expected);
    let wrong = ListLogEntriesRequest {
        name: format!("{SITE}/logs/send-admin-1"),
        kinds: vec![99],
        session: "x".to_owned(),
        message: "y".to_owned(),
        start_time: time(-62_135_596_801, 0),
        end_time: time(0, -1),
        ..ListLogEntriesRequest::default()
    };
    let refused = postroom.logs().list_log_entries(wrong).await.expect_err("all wrong");
    let mut fields = bad_fields(&refused);
    fields.sort_unstable();
    assert_eq!(fields, ["end_time", "kinds[0]", "message", "session", "start_time"]);
    for parent in
        ["", "shop", "sites/", "sites/-", "sites/Shop", "sites/shop/", "sites/sh\0op", "sites/shop\n"]
    {
        let request = ListAccountsRequest { parent: parent.to_owned(), ..ListAccountsRequest::default() };
        let refused = postroom.accounts().list_accounts(request).await.expect_err(parent);
        assert_eq!(bad_fields(&refused), ["parent"], "{parent:?}");
    }
    for size in [-1, i32::MIN] {
        let request = ListMessagesRequest {
            parent: SITE.to_owned(),
            page_size: size,
            ..ListMessagesRequest::default()
        };
        let refused = postroom.send().list_messages(request).await.expect_err("negative");
        assert_eq!(bad_fields(&refused), ["page_size"]);
    }
    for (seconds, nanos) in [(61, 0), (-1, 0), (0, -1), (60, 1), (i64::MAX, i32::MAX), (0, 1_000_000_000)] {
        let request = SendMessageRequest {
            parent: SITE.to_owned(),
            message: Some(letter("shop@example.com", &["ann@example.org"])),
            wait: Some(prost_types::Duration { seconds, nanos }),
            ..SendMessageRequest::default()
        };
        let refused = postroom.send().send_message(request).await.expect_err("no wait");
        assert_eq!(bad_fields(&refused), ["wait"], "{seconds} {nanos}");
    }
}
