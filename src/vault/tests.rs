//! The vault keeps its promises whatever is done to an envelope.

use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;

use super::*;

const FIRST: &str = "2026-01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";
const SECOND: &str = "2025-01:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\n";

fn vault(lines: &[&str]) -> Vault {
    Vault::parse(lines.concat().as_bytes()).unwrap()
}

fn place(row: &str) -> Place<'_> {
    Place { table: "accounts", column: "password", site: "shop", row: row.to_owned() }
}

fn seal(vault: &Vault, plain: &[u8]) -> Vec<u8> {
    vault.seal(&place("1"), &Secret::new(plain.to_vec())).unwrap()
}

proptest! {
    #[test]
    fn what_was_sealed_opens_in_its_place(plain in any::<Vec<u8>>(), site in ".{0,20}", row in ".{0,20}") {
        let vault = vault(&[FIRST, SECOND]);
        let place = Place { table: "accounts", column: "password", site: &site, row };
        let sealed = vault.seal(&place, &Secret::new(plain.clone())).unwrap();
        let opened = vault.open(&place, &sealed).unwrap();
        prop_assert_eq!(opened.expose(), &plain);
        prop_assert!(plain.len() < 8 || !sealed.windows(plain.len()).any(|window| window == plain));
    }

    #[test]
    fn a_flipped_bit_never_opens(plain in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let vault = vault(&[FIRST, SECOND]);
        let mut sealed = seal(&vault, &plain);
        let at = at.index(sealed.len());
        sealed[at] ^= 1_u8 << bit;
        let refused = match vault.open(&place("1"), &sealed) {
            Err(VaultError::Broken) => true,
            // The flip made another valid key id of it.
            Err(VaultError::KeyUnknown { id }) => id != "2026-01",
            _ => false,
        };
        prop_assert!(refused);
    }

    #[test]
    fn a_cut_never_opens(plain in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
        let vault = vault(&[FIRST]);
        let sealed = seal(&vault, &plain);
        let cut = &sealed[..at.index(sealed.len())];
        prop_assert!(matches!(vault.open(&place("1"), cut).err(), Some(VaultError::Broken)));
    }

    #[test]
    fn nonsense_never_opens(sealed in any::<Vec<u8>>()) {
        prop_assert!(vault(&[FIRST]).open(&place("1"), &sealed).is_err());
    }

    #[test]
    fn other_place_never_opens(
        (site, row) in (".{0,3}", ".{0,3}"), (other_site, other_row) in (".{0,3}", ".{0,3}"),
    ) {
        prop_assume!((&site, &row) != (&other_site, &other_row));
        let vault = vault(&[FIRST]);
        let here = Place { table: "accounts", column: "password", site: &site, row };
        let there = Place { site: &other_site, row: other_row, ..here.clone() };
        let sealed = vault.seal(&here, &Secret::new(b"secret".to_vec())).unwrap();
        prop_assert!(matches!(vault.open(&there, &sealed).err(), Some(VaultError::Broken)));
    }

    #[test]
    fn any_key_file_is_understood_or_refused(text in any::<Vec<u8>>()) {
        let _ = Vault::parse(&text);
    }
}

#[test]
fn parts_of_a_place_do_not_run_together() {
    let vault = vault(&[FIRST]);
    let at = |table, column, site, row: &str| Place { table, column, site, row: row.to_owned() };
    let sealed = vault.seal(&at("a", "b", "c", "d"), &Secret::new(b"secret".to_vec())).unwrap();
    for other in
        [at("ab", "", "c", "d"), at("a", "bc", "", "d"), at("a", "b", "cd", ""), at("b", "a", "c", "d")]
    {
        assert!(matches!(vault.open(&other, &sealed).err(), Some(VaultError::Broken)), "{other:?}");
    }
}

#[test]
fn first_key_seals_and_the_second_opens() {
    let (old, both) = (vault(&[SECOND]), vault(&[FIRST, SECOND]));
    let before = seal(&old, b"secret");
    assert_eq!(both.open(&place("1"), &before).unwrap().expose(), b"secret");
    assert!(!both.is_current(&before).unwrap());

    let after = seal(&both, b"secret");
    assert!(both.is_current(&after).unwrap());
    let error = old.open(&place("1"), &after).err();
    assert!(matches!(error, Some(VaultError::KeyUnknown { id }) if id == "2026-01"));
}

#[test]
fn same_id_with_another_key_is_broken() {
    let other = FIRST.replace("AAEC", "BBEC");
    let error = vault(&[&other]).open(&place("1"), &seal(&vault(&[FIRST]), b"secret")).err();
    assert!(matches!(error, Some(VaultError::Broken)));
}

#[test]
fn sealing_twice_gives_two_envelopes() {
    let vault = vault(&[FIRST]);
    assert_ne!(seal(&vault, b"secret"), seal(&vault, b"secret"));
}

#[test]
fn content_mac_stays_while_the_oldest_key_does() {
    let (old, both, new) = (vault(&[SECOND]), vault(&[FIRST, SECOND]), vault(&[FIRST]));
    assert_eq!(old.content_mac("check", b"x"), both.content_mac("check", b"x"));
    assert_ne!(new.content_mac("check", b"x"), both.content_mac("check", b"x"));
    assert_ne!(old.content_mac("check", b"x"), old.content_mac("check", b"y"));
    assert_ne!(old.content_mac("check", b"x"), old.content_mac("chec", b"kx"));
}

#[test]
fn key_files_that_are_wrong_name_the_line_and_nothing_of_the_key() {
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let table = [
        (format!("# comment\n\n{key}\n"), "line 3 of the key file: no colon between id and key"),
        (format!("Big:{key}\n"), "line 1 of the key file: an id has 1 to 32 of a-z, 0-9 and -"),
        (format!(":{key}\n"), "line 1 of the key file: an id has 1 to 32 of a-z, 0-9 and -"),
        (
            format!("{}:{key}\n", "a".repeat(33)),
            "line 1 of the key file: an id has 1 to 32 of a-z, 0-9 and -",
        ),
        ("a:not base64\n".to_owned(), "line 1 of the key file: the key is not base64"),
        ("a:AAEC\n".to_owned(), "line 1 of the key file: the key has not 32 bytes"),
        (format!("a:{key}\na:{key}\n"), "line 2 of the key file: this id has a key already"),
        ("# nothing\n".to_owned(), "the key file holds no key: one `<id>:<base64 of 32 bytes>` a line"),
    ];
    for (text, message) in table {
        let error = Vault::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), message, "{text}");
    }
    assert!(Vault::parse(format!("  a : {key} \r\n").as_bytes()).is_err());
    assert!(Vault::parse(format!("  a: {key} \r\n").as_bytes()).is_ok());
}

#[test]
fn key_file_is_made_once_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault.keys");
    let made = Vault::load_or_create(&path).unwrap();
    let sealed = seal(&made, b"secret");
    let read = Vault::load_or_create(&path).unwrap();
    assert_eq!(read.open(&place("1"), &sealed).unwrap().expose(), b"secret");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(matches!(Vault::create_file(&path), Err(VaultError::File { .. })));

    let rotated = Vault::add_key(&path).unwrap();
    assert_eq!(rotated.key_ids().count(), 2);
    assert!(!rotated.is_current(&sealed).unwrap());
    assert_eq!(rotated.open(&place("1"), &sealed).unwrap().expose(), b"secret");
    assert_eq!(rotated.content_mac("check", b"x"), made.content_mac("check", b"x"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
}

#[test]
fn debug_shows_ids_alone() {
    assert_eq!(format!("{:?}", vault(&[FIRST, SECOND])), r#"Vault { key_ids: ["2026-01", "2025-01"], .. }"#);
}
