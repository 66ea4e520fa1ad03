//! Finds PostgreSQL's own programs and runs them as the cluster's user. What they are asked to do is decided elsewhere.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PrivatePostgresError;
use super::user::ClusterUser;

/// The oldest major version whose features the store uses.
const OLDEST_MAJOR: u32 = 15;
/// Where Debian and its children keep each major version in a folder of its own.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";
/// All that we call; a folder that lacks one of them is not a complete installation.
const NEEDED: [&str; 5] = ["initdb", "pg_ctl", "pg_isready", "postgres", "createdb"];
/// What of a failed program's output goes into the error, in bytes; the reason stands at its end.
const OUTPUT_KEPT: usize = 2048;

/// One installed version of PostgreSQL.
#[derive(Debug)]
pub(super) struct Programs {
    directory: PathBuf,
    major: u32,
}

impl Programs {
    /// The installation of major version `wanted`, or the newest that is new enough.
    pub(super) fn find(wanted: Option<u32>) -> Result<Self, PrivatePostgresError> {
        let newest = debian_installations()
            .into_iter()
            .chain(path_installations())
            .filter(|found| wanted.map_or(found.major >= OLDEST_MAJOR, |major| found.major == major))
            .max_by_key(|found| found.major);
        match (newest, wanted) {
            (Some(found), _) => Ok(found),
            (None, Some(major)) => Err(PrivatePostgresError::VersionMissing { major }),
            (None, None) => Err(PrivatePostgresError::NotInstalled),
        }
    }

    /// A command in `folder`, as `user`, that sees nothing of our environment: it may hold secrets of ours,
    /// and variables such as `PGDATA` or `PGHOST` would lead the programs astray.
    pub(super) fn command(&self, program: &str, user: &ClusterUser, folder: &Path) -> Command {
        let mut command = Command::new(self.directory.join(program));
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C");
        command.current_dir(folder).stdin(Stdio::null());
        // A Ctrl-C at the terminal is ours to answer; it must not tear down a start half-way.
        command.process_group(0);
        user.run_as(&mut command);
        command
    }
}

/// Runs a command to its end; its output is the error's text when it fails.
pub(super) fn run(command: &mut Command) -> Result<(), PrivatePostgresError> {
    let program =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|source| PrivatePostgresError::File { path: command.get_program().into(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(PrivatePostgresError::Program { program, said: ending(&said) })
}

/// The last part of what a program said, as one printable text.
pub(super) fn ending(said: &[u8]) -> String {
    let from = said.len().saturating_sub(OUTPUT_KEPT);
    String::from_utf8_lossy(said.get(from..).unwrap_or_default()).trim().to_owned()
}

fn debian_installations() -> Vec<Programs> {
    let Ok(entries) = fs::read_dir(DEBIAN_ROOT) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.parse().ok()?;
            Some(Programs { directory: entry.path().join("bin"), major })
        })
        .filter(|found| is_complete(&found.directory))
        .collect()
}

fn path_installations() -> Vec<Programs> {
    let Some(path) = std::env::var_os("PATH") else { return Vec::new() };
    std::env::split_paths(&path)
        // A distribution may link single programs there; their neighbours live behind the link.
        .filter_map(|directory| {
            fs::canonicalize(directory.join("postgres")).ok()?.parent().map(Path::to_owned)
        })
        .filter(|directory| is_complete(directory))
        .filter_map(|directory| {
            let output = Command::new(directory.join("postgres")).arg("--version").output().ok()?;
            let major = major_of(&String::from_utf8_lossy(&output.stdout))?;
            Some(Programs { directory, major })
        })
        .collect()
}

fn is_complete(directory: &Path) -> bool {
    NEEDED.iter().all(|program| directory.join(program).is_file())
}

/// The major version in `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)`.
fn major_of(version_line: &str) -> Option<u32> {
    let version = version_line.split_once("(PostgreSQL) ")?.1;
    let digits = version.split(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_version_is_read_from_the_version_line() {
        let table = [
            ("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)", Some(15)),
            ("postgres (PostgreSQL) 18beta1", Some(18)),
            ("postgres (PostgreSQL) 17.2", Some(17)),
            ("mysqld 8.0", None),
            ("", None),
        ];
        for (line, major) in table {
            assert_eq!(major_of(line), major, "{line}");
        }
    }

    #[test]
    fn ending_keeps_the_reason() {
        assert_eq!(ending(b"  short \n"), "short");
        assert!(ending(&vec![b'x'; 10_000]).len() <= OUTPUT_KEPT);
    }

    #[test]
    fn missing_version_names_its_package() {
        let error = Programs::find(Some(1)).expect_err("nobody has version 1");
        assert!(error.to_string().contains("postgresql-1`"), "{error}");
    }
}
