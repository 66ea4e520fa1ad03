//! The table of rights in docs/SECURITY.md is made from the code. `WRITE_DOCS=1 cargo test --test architecture` writes
//! it anew.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use postroom::domain::access::{Reach, Right, Role, Rpc};

/// What stands before and behind the table.
const MARK: &str = "<!-- rights -->";

fn table() -> String {
    let mut text = format!("| call | keys | {} |\n", Role::ALL.map(Role::name).join(" | "));
    text.push_str("|---|---|---|---|---|---|\n");
    for rpc in Rpc::ALL {
        row(&mut text, rpc, "", rpc.right());
        if let Some(special) = rpc.special() {
            row(&mut text, rpc, &format!(" {}", special.when), special.right);
        }
    }
    text
}

fn row(text: &mut String, rpc: Rpc, when: &str, right: Right) {
    let reach = match rpc.reach() {
        Reach::Site => "of the site",
        Reach::AllSites => "of all sites",
        Reach::Any => "every",
    };
    let granted = Role::ALL.map(|role| if role.grants(right) { "yes" } else { "" });
    writeln!(text, "| `{rpc:?}`{when} | {reach} | {} |", granted.join(" | ")).expect("strings take all");
}

#[test]
fn the_table_of_rights_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SECURITY.md");
    let text = fs::read_to_string(&path).expect("readable");
    let parts: Vec<&str> = text.split(MARK).collect();
    let [before, written, behind] = parts[..] else { panic!("two marks {MARK} hold the table") };
    let table = format!("\n{}", table());
    if std::env::var_os("WRITE_DOCS").is_some() {
        fs::write(&path, [before, MARK, &table, MARK, behind].concat()).expect("written");
    } else {
        assert_eq!(written, table, "docs/SECURITY.md: WRITE_DOCS=1 cargo test --test architecture rights");
    }
}

#[test]
fn the_code_knows_every_call_of_the_contract() {
    let mut defined = Vec::new();
    for noun in ["settings", "accounts", "send", "logs"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("proto/postroom/v1/{noun}.proto"));
        let text = fs::read_to_string(path).expect("readable");
        let mut service = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("service ") {
                service = rest.split(' ').next().expect("a name");
            } else if let Some(rest) = line.strip_prefix("  rpc ") {
                defined.push(format!("{service}/{}", rest.split('(').next().expect("a name")));
            }
        }
    }
    let mut known: Vec<_> = Rpc::ALL.map(|rpc| format!("{}/{rpc:?}", rpc.service())).into();
    defined.sort();
    known.sort();
    assert_eq!(known, defined.iter().map(String::as_str).map(str::to_owned).collect::<Vec<_>>());
}
