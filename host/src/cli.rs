//! The command line: what can be asked of the binary, and how errors leave it.

mod arguments;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;

use crate::{
    bench, compare,
    config::ConfigError,
    plugins::build::BuildArgs,
    serve::{self, StartError},
};
use arguments::{Arguments, Command, PluginCommand};

/// Exit code of a start that was refused, as clap's own for wrong arguments.
const REFUSED: u8 = 2;

/// Parses the process's arguments, does what they say, and prints what went wrong. `cache_home` is
/// where this user's caches lie.
pub fn run(cache_home: Option<PathBuf>) -> ExitCode {
    let Arguments { command, serve } = Arguments::parse();
    let outcome = match command.unwrap_or(Command::Serve(serve)) {
        Command::Serve(config) => serve::serve(config.given(cache_home)).map_err(refused),
        Command::Check(config) => {
            let summary = serve::check(&config.given(cache_home));
            summary.map(|summary| println!("{summary}")).map_err(refused)
        }
        Command::Compare(args) => {
            let (given, request) = args.split(cache_home);
            compare::run(&given, &request).map(|table| println!("{table}")).map_err(refused)
        }
        Command::Bench(args) => {
            bench::run(&args, &mut io::stdout()).map_err(|error| failed(&error))
        }
        Command::Plugin(PluginCommand::Build(args)) => build(&args),
    };
    outcome.err().unwrap_or(ExitCode::SUCCESS)
}

fn build(args: &BuildArgs) -> Result<(), ExitCode> {
    for built in args.run().map_err(|error| failed(&error))? {
        println!("{} ({} bytes)", built.component.display(), built.bytes);
    }
    Ok(())
}

fn refused(error: StartError) -> ExitCode {
    match error {
        StartError::Config(error) => print_config_error(&error),
        StartError::Refused(problems) => {
            problems.iter().for_each(|problem| eprintln!("error: {problem}"));
        }
        error => eprintln!("error: {error}"),
    }
    ExitCode::from(REFUSED)
}

fn print_config_error(error: &ConfigError) {
    eprintln!("{}", error.render(io::stderr().is_terminal()));
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests;
