//! The command line: one file for each subcommand.

mod demo;
mod key;
mod migrate;
mod open;
mod serve;
mod site;
mod vault;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Takes outgoing mail over gRPC and sends it through the right SMTP account.
#[derive(Parser)]
#[command(name = "postroom", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API and deliver mail
    Serve(Box<crate::config::ServeOptions>),
    /// Send a letter through a local catcher and watch its dialogue
    Demo(demo::Options),
    /// Bring the database's schema up to date
    Migrate(crate::config::StoreOptions),
    /// Make, list and revoke access keys
    #[command(subcommand)]
    Key(key::Command),
    /// Make and list sites
    #[command(subcommand)]
    Site(site::Command),
    /// Look after the secrets that are stored, and the keys they are sealed under
    #[command(subcommand)]
    Vault(vault::Command),
}

/// What a subcommand may fail with; shown with its causes.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command line. Everything it prints for people goes to standard error, results to standard output.
#[must_use]
pub fn run() -> ExitCode {
    let Cli { command } = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let result = runtime.block_on(async {
        match command {
            Command::Serve(options) => serve::run(*options).await,
            Command::Demo(options) => demo::run(options).await,
            Command::Migrate(options) => migrate::run(options).await,
            Command::Key(command) => key::run(command).await,
            Command::Site(command) => site::run(command).await,
            Command::Vault(command) => vault::run(command).await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    eprintln!("postroom: {text}");
    ExitCode::FAILURE
}
