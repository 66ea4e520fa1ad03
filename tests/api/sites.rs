//! Sites: created once and found, their ids, their pages.

use postroom::api::proto::{CreateSiteRequest, GetSiteRequest, ListSitesRequest, Site};
use tonic::{Code, Status};

use crate::support::{Postroom, bad_fields, reason};

async fn create_site(postroom: &Postroom, id: &str, display_name: &str) -> Result<Site, Status> {
    let site = Site { display_name: display_name.to_owned(), ..Site::default() };
    let request = CreateSiteRequest { site_id: id.to_owned(), site: Some(site) };
    Ok(postroom.settings().create_site(request).await?.into_inner().site.expect("set"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_created_once_and_found() {
    let postroom = Postroom::start().await;
    let created = create_site(&postroom, "portal-2", "Портал 2").await.expect("a site");
    assert_eq!((created.name.as_str(), created.display_name.as_str()), ("sites/portal-2", "Портал 2"));
    let request = GetSiteRequest { name: "sites/portal-2".to_owned() };
    let found = postroom.settings().get_site(request).await.expect("found").into_inner().site;
    assert_eq!(found, Some(created));

    let again = create_site(&postroom, "portal-2", "").await.expect_err("there is one");
    assert_eq!(reason(&again), (Code::AlreadyExists, "ALREADY_EXISTS".to_owned()));
    let request = GetSiteRequest { name: "sites/other".to_owned() };
    let missing = postroom.settings().get_site(request).await.expect_err("there is none");
    assert_eq!(reason(&missing), (Code::NotFound, "NOT_FOUND".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_names_of_sites_have_rules() {
    let postroom = Postroom::start().await;
    let long = "a".repeat(64);
    for id in ["", "-", "-a", "Shop", "a_b", "a.b", "a/b", "a b", "sité", "a\n", long.as_str()] {
        let refused = create_site(&postroom, id, "").await.expect_err(id);
        assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()), "{id:?}");
        assert_eq!(bad_fields(&refused), ["site_id"], "{id:?}");
    }
    for id in ["0", "a-", &long[1..]] {
        create_site(&postroom, id, &"ж".repeat(200)).await.expect(id);
    }
    let both = create_site(&postroom, "A", "two\nlines").await.expect_err("two faults");
    assert_eq!(bad_fields(&both), ["site_id", "site.display_name"]);
    let long = create_site(&postroom, "long", &"a".repeat(201)).await.expect_err("too long");
    assert_eq!(bad_fields(&long), ["site.display_name"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_come_in_pages_by_id() {
    let postroom = Postroom::start().await;
    for id in ["zoo", "a-1", "a0", "b"] {
        create_site(&postroom, id, "").await.expect(id);
    }
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListSitesRequest { page_size: 2, page_token };
        let page = postroom.settings().list_sites(request).await.expect("a page").into_inner();
        names.push(page.sites.into_iter().map(|site| site.name).collect::<Vec<_>>());
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, [vec!["sites/a-1", "sites/a0"], vec!["sites/b", "sites/shop"], vec!["sites/zoo"]]);

    let request = ListSitesRequest { page_size: -1, page_token: String::new() };
    let negative = postroom.settings().list_sites(request).await.expect_err("negative");
    assert_eq!(bad_fields(&negative), ["page_size"]);
    let request = ListSitesRequest { page_size: i32::MAX, page_token: String::new() };
    let all = postroom.settings().list_sites(request).await.expect("1,000 at most").into_inner();
    assert_eq!(all.sites.len(), 5);
    for token in ["x", "AAAAAAAAAAAAAAAAAAAAAGEw", "ü", "===="] {
        let request = ListSitesRequest { page_size: 0, page_token: token.to_owned() };
        let forged = postroom.settings().list_sites(request).await.expect_err("forged");
        assert_eq!(bad_fields(&forged), ["page_token"], "{token}");
    }
}
