//! The vault keeps its promises whatever is done to an envelope.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

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
    assert_eq!(key_id(&before).unwrap(), "2025-01");

    let after = seal(&both, b"secret");
    assert_eq!(key_id(&after).unwrap(), "2026-01");
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
fn content_mac_counts_as_long_as_its_key_is_there() {
    let (old, both, new) = (vault(&[SECOND]), vault(&[FIRST, SECOND]), vault(&[FIRST]));
    let mac = |vault: &Vault| vault.content_mac("check", b"x");
    assert_eq!(mac(&both), mac(&new), "made with the key that seals");
    assert_ne!(mac(&both), mac(&old));
    for (vault, made_by, counts) in
        [(&both, &old, true), (&both, &new, true), (&new, &both, true), (&new, &old, false)]
    {
        assert_eq!(vault.is_content_mac("check", b"x", &mac(made_by)), counts);
        let fingerprint = vault.fingerprint("check", b"x");
        assert_eq!(fingerprint.is(&mac(made_by)), counts);
        assert_eq!(fingerprint.begins(&mac(made_by)[..16]), counts);
        assert_eq!(*fingerprint.mac(), mac(vault));
    }
    assert_ne!(mac(&old), old.content_mac("check", b"y"));
    assert_ne!(mac(&old), old.content_mac("chec", b"kx"));
    assert!(!both.is_content_mac("check", b"x", b""));
}

/// Sealed under the first key, for the place `1` of the site `shop`.
fn sample() -> (Vault, Vec<u8>) {
    let vault = vault(&[FIRST, SECOND]);
    let sealed = seal(&vault, b"correct horse battery staple");
    (vault, sealed)
}

#[test]
fn no_flipped_bit_opens() {
    let (vault, sealed) = sample();
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1_u8 << bit;
            let error = vault.open(&place("1"), &flipped).err();
            let refused = match &error {
                Some(VaultError::Broken) => true,
                // The flip made another valid key id of it.
                Some(VaultError::KeyUnknown { id }) => (1..9).contains(&at) && id != "2026-01",
                _ => false,
            };
            assert!(refused, "bit {bit} of byte {at}: {error:?}");
        }
    }
}

#[test]
fn no_cut_opens() {
    let (vault, sealed) = sample();
    for length in 0..sealed.len() {
        let error = vault.open(&place("1"), &sealed[..length]).err();
        assert!(matches!(error, Some(VaultError::Broken)), "{length}: {error:?}");
    }
    let longer = [sealed.as_slice(), b"x"].concat();
    assert!(matches!(vault.open(&place("1"), &longer).err(), Some(VaultError::Broken)));
}

#[test]
fn no_two_values_can_be_swapped() {
    let vault = vault(&[FIRST, SECOND]);
    let sites = ["shop", "portal", ""];
    let places: Vec<_> = sites
        .iter()
        .flat_map(|site| ["1", "2", "11"].map(|row| Place { site, row: row.to_owned(), ..place("1") }))
        .collect();
    let seal = |place: &Place| vault.seal(place, &Secret::new(place.row.as_bytes().to_vec())).unwrap();
    let sealed: Vec<_> = places.iter().map(seal).collect();
    for (here, place) in places.iter().enumerate() {
        for (there, value) in sealed.iter().enumerate() {
            let opened = vault.open(place, value);
            if here == there {
                assert_eq!(opened.unwrap().expose(), place.row.as_bytes());
            } else {
                assert!(matches!(opened.err(), Some(VaultError::Broken)), "{here} {there}");
            }
        }
    }
}

#[test]
fn the_first_key_that_all_servers_have_seals() {
    let vault = vault(&[FIRST, SECOND]);
    let sealing = || key_id(&seal(&vault, b"secret")).unwrap().to_owned();
    let labels = vault.announcement();
    assert!(labels[0].starts_with("2026-01 ") && labels[1].starts_with("2025-01 "), "{labels:?}");
    let only = |label: usize| vec![labels[label].clone()];

    vault.agree(&[labels.clone(), only(1)]);
    assert_eq!(sealing(), "2025-01");
    assert_eq!(vault.announcement(), [labels[1].clone(), labels[0].clone()]);
    assert_eq!(vault.content_mac("check", b"x"), self::vault(&[SECOND]).content_mac("check", b"x"));
    vault.agree(std::slice::from_ref(&labels));
    assert_eq!(sealing(), "2026-01");
    // Another key of that id is not the same key.
    let impostor = self::vault(&[&FIRST.replace("AAEC", "BBEC"), SECOND]).announcement();
    vault.agree(&[impostor]);
    assert_eq!(sealing(), "2025-01");
    // Where nothing is common, the operator's first.
    vault.agree(&[only(0), only(1)]);
    assert_eq!(sealing(), "2026-01");
    vault.agree(&[]);
    assert_eq!(sealing(), "2026-01");
}

#[test]
fn a_key_file_that_was_changed_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault.keys");
    fs::write(&path, SECOND).unwrap();
    let vault = Vault::load(&path).unwrap();
    assert!(!vault.refresh().unwrap(), "nothing was changed");
    let before = seal(&vault, b"before");

    // A value under a key that is not known yet: the file is looked at before that is told.
    let later = seal(&self::vault(&[FIRST, SECOND]), b"later");
    assert!(matches!(vault.open(&place("1"), &later).err(), Some(VaultError::KeyUnknown { .. })));
    fs::write(&path, format!("{FIRST}{SECOND}")).unwrap();
    assert_eq!(vault.open(&place("1"), &later).unwrap().expose(), b"later");
    assert_eq!(vault.key_ids(), ["2026-01", "2025-01"]);
    assert_eq!(key_id(&seal(&vault, b"x")).unwrap(), "2025-01", "until the others are heard");
    vault.agree(&[]);
    assert_eq!(key_id(&seal(&vault, b"x")).unwrap(), "2026-01");

    let other = FIRST.replace("AAEC", "BBEC");
    for broken in ["", "# empty", "x", &other] {
        fs::write(&path, broken).unwrap();
        assert!(vault.refresh().is_err(), "{broken}");
        assert_eq!(vault.key_ids(), ["2026-01", "2025-01"]);
        assert_eq!(vault.open(&place("1"), &before).unwrap().expose(), b"before");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(vault.refresh(), Err(VaultError::File { .. })));
    fs::write(&path, FIRST).unwrap();
    assert!(vault.refresh().unwrap());
    assert!(vault.open(&place("1"), &before).is_err(), "its key was taken away");
    assert!(!self::vault(&[FIRST]).refresh().unwrap(), "of no file");
}

#[test]
fn a_key_is_added_behind_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("real"), folder.path().join("link"));
    fs::write(&path, FIRST).unwrap();
    symlink("real", &link).unwrap();
    assert_eq!(Vault::add_key(&link).unwrap().key_ids().len(), 2);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Vault::load(&path).unwrap().key_ids().len(), 2);
}

#[test]
fn a_key_file_keeps_its_owner_and_mode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault.keys");
    fs::write(&path, FIRST).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    // Root runs the command, the servers run as somebody else; for anybody but root the owner is himself anyway.
    let _ = chown(&path, Some(65_534), Some(65_534));
    let before = fs::metadata(&path).unwrap();
    Vault::add_key(&path).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_ne!(before.ino(), after.ino());
    assert_eq!((before.uid(), before.gid(), before.mode()), (after.uid(), after.gid(), after.mode()));
}

#[test]
fn keys_that_are_added_at_once_are_all_there() {
    const WRITERS: usize = 8;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault.keys");
    fs::write(&path, FIRST).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| Vault::add_key(&path).unwrap());
        }
    });
    assert_eq!(Vault::load(&path).unwrap().key_ids().len(), 1 + WRITERS);
}

#[test]
fn keys_of_a_variable_stand_in_lines_or_beside_one_another() {
    let (first, second) = (FIRST.trim(), SECOND.trim());
    for text in [
        format!("{first}\n{second}"),
        format!("{first},{second}"),
        format!(" {first}  {second}\n"),
        format!("# comment, with a comma\r\n{first},\r\n{second},"),
    ] {
        assert_eq!(
            Vault::parse_variable(text.as_bytes()).unwrap().key_ids(),
            ["2026-01", "2025-01"],
            "{text}"
        );
    }
    let wrong = format!("{first},{second},{first}");
    let error = Vault::parse_variable(wrong.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "key 3 of the environment: this id has a key already");
    assert!(matches!(Vault::parse_variable(b" \n,"), Err(VaultError::NoKey)));
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
        ("# nothing\n".to_owned(), "there is no key: one `<id>:<base64 of 32 bytes>` a line"),
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
    assert_eq!(rotated.key_ids().len(), 2);
    assert_eq!(key_id(&sealed).unwrap(), rotated.key_ids()[1]);
    assert_eq!(rotated.open(&place("1"), &sealed).unwrap().expose(), b"secret");
    assert!(rotated.is_content_mac("check", b"x", &made.content_mac("check", b"x")));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
}

#[test]
fn debug_shows_ids_alone() {
    assert_eq!(format!("{:?}", vault(&[FIRST, SECOND])), r#"Vault { key_ids: ["2026-01", "2025-01"], .. }"#);
}
