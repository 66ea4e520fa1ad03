//! Documents say what is true: dependencies, settings, files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::Args as _;
use postroom::config::{KEY_DATA, ServeOptions};
use postroom::metrics::{CallKind, Metrics, Running, Waiting};

use crate::rust_files;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The names in the dependency tables of Cargo.toml.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_table = false;
    for line in manifest.lines() {
        if let Some(header) = line.strip_prefix('[') {
            is_table = header.ends_with("dependencies]");
        } else if let (true, Some((name, _))) = (is_table, line.split_once(" = ")) {
            names.insert(name.to_owned());
        }
    }
    names
}

/// What stands in backticks in the first cells of the tables of a section.
fn first_cells(text: &str) -> BTreeSet<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_dependency_has_a_use_and_a_reason() {
    let names = dependencies(&read("Cargo.toml"));
    assert!(names.len() > 20, "the tables were not found: {names:?}");
    let page = read("docs/DEPENDENCIES.md");
    let (crates, _) = page.split_once("## Tools").expect("a section of tools");
    assert_eq!(first_cells(crates), names, "docs/DEPENDENCIES.md and Cargo.toml differ");

    let mut files = vec![format!("{ROOT}/build.rs")];
    for folder in ["src", "tests", "benches"] {
        rust_files(&Path::new(ROOT).join(folder), &mut files);
    }
    let code: String = files.iter().map(|file| fs::read_to_string(file).expect("readable")).collect();
    for name in &names {
        let word = name.replace('-', "_");
        let used = [format!("use {word}::"), format!("use {word};"), format!("{word}::")];
        assert!(used.iter().any(|form| code.contains(form)), "nothing uses {name}");
    }
}

#[test]
fn the_readme_lists_the_settings_of_the_server() {
    let command = ServeOptions::augment_args(clap::Command::new("serve"));
    let text = read("README.md");
    let mut rows = BTreeSet::new();
    for argument in command.get_arguments() {
        let flag = argument.get_long().expect("settings have flags");
        let variable = argument.get_env().expect("settings have variables").to_str().expect("ASCII");
        let mut defaults = argument.get_default_values().iter().map(|value| value.to_str().expect("UTF-8"));
        let start = format!("| `--{flag}` | `{variable}` | {}", defaults.next().unwrap_or_default());
        assert!(text.contains(start.trim_end()), "README.md lacks the row {start}");
        rows.insert(format!("--{flag}"));
    }
    let row = format!("| | `{KEY_DATA}` | |");
    assert!(text.contains(&row), "README.md lacks the row {row}");
    let section = text.split("## Settings of the server").nth(1).expect("a section of settings");
    let section = section.split("\n## ").next().expect("its end");
    let listed: BTreeSet<_> =
        first_cells(section).into_iter().filter(|cell| cell.starts_with("--")).collect();
    assert_eq!(listed, rows, "README.md lists other settings than the server has");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut count = 0;
    for document in [
        "README.md",
        "docs/ARCHITECTURE.md",
        "docs/API-EXAMPLES.md",
        "docs/DEPENDENCIES.md",
        "docs/logs.md",
        "docs/delivery.md",
        "docs/SECURITY.md",
        "docs/operations.md",
        "docs/settings.md",
    ] {
        let folder = Path::new(ROOT).join(document);
        for link in read(document).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().expect("a target");
            if !target.is_empty() && !target.contains("://") {
                let path = folder.parent().expect("a folder").join(target);
                assert!(path.exists(), "{document} links to {link}, which is not there");
                count += 1;
            }
        }
    }
    assert!(count > 5, "the links were not found");
}

/// Names of metrics in a text, without what a counter or a histogram adds to its own.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("postroom_") || word.starts_with("process_"));
    let endings = ["_total", "_bucket", "_count", "_sum", "_info"];
    let bare =
        |word: &str| endings.iter().find_map(|ending| word.strip_suffix(ending)).unwrap_or(word).to_owned();
    ours.filter(|word| *word != "postroom_owner").map(bare).collect()
}

#[test]
fn every_metric_is_explained_and_every_alert() {
    let metrics = Metrics::new();
    // What is told only when there is something to tell.
    metrics.backlog.found(Some(Waiting::default()));
    metrics.database.beat();
    Running::begin(&metrics, "/", CallKind::Call).end(None);
    Running::begin(&metrics, "/", CallKind::Stream).end(None);
    let text = metrics.render().expect("text");
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: BTreeSet<String> =
        lines.map(|line| line.split(' ').next().expect("a name").to_owned()).collect();
    assert!(names.len() > 40, "{names:?}");
    let page = read("docs/operations.md");
    assert_eq!(metrics_in(&page), names, "docs/operations.md has other metrics than the server");
    let alerts = read("deploy/prometheus/alerts.yaml");
    for (file, text) in [("alerts.yaml", &alerts), ("postroom.json", &read("deploy/grafana/postroom.json"))] {
        let unknown: Vec<_> = metrics_in(text).difference(&names).cloned().collect();
        assert!(unknown.is_empty(), "{file} has metrics that are not there: {unknown:?}");
    }
    let rules: BTreeSet<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let explained: BTreeSet<String> =
        first_cells(page.split("### When to worry").nth(1).expect("a section of alerts"));
    assert_eq!(
        explained.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        rules,
        "alerts and their page differ"
    );
}
