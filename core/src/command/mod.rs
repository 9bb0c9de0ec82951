//! Commands as data: the words that name one, its flags, and the function that runs it. Each
//! program is a table of them, and [`Program::main`] reads the command line, runs one and tells
//! what went wrong, in the form that SPIRE's scripts know.

mod debug;
mod failure;
mod files;
mod health;
mod help;
mod logger;
mod output;
mod service;
mod socket;
mod time;

use std::ffi::OsString;
use std::process::ExitCode;

use futures::future::LocalBoxFuture;

use crate::flags::{self, Flag, FlagError, Values};
use crate::os_error::reason;

pub use debug::{info_line, rfc3339, svid_chain, uptime};
pub use failure::{Context, Failure};
pub use files::{FileError, file_in, write_private, write_public};
pub use health::{HEALTHCHECK, check_health};
pub use logger::{LEVEL, print_logger, wanted_level};
pub use output::{OUTPUT, answer, is_json, parse_json, print, print_error, print_json, read_file};
pub use service::{serve, tell};
pub use socket::{PathForm, Socket, Template};
pub use time::{local_time, utc_time};

/// What became of a command.
pub type Outcome = Result<(), Failure>;

/// A program and its commands.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name on the command line.
    pub name: &'static str,
    /// What `-version` prints.
    pub version: &'static str,
    /// Its commands, group by group.
    pub commands: &'static [&'static [Command]],
}

/// A command.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    /// The words that call it, such as `entry create`.
    pub words: &'static str,
    /// What help calls it after `Usage of`.
    pub name: &'static str,
    /// What it does, in one line for help.
    pub synopsis: &'static str,
    /// A use of it that can be copied, for help; empty for none.
    pub example: &'static str,
    /// Its flags, by sets that commands share.
    pub flags: &'static [&'static [Flag]],
    /// How it words failures.
    pub manner: Manner,
    /// Whether it is an old spelling, which help leaves out.
    pub former: bool,
    run: Run,
}

#[derive(Debug, Clone, Copy)]
enum Run {
    /// Has the process to itself and prints what there is to say.
    Process(fn(&Values) -> ExitCode),
    /// Asks a server or an agent, and ends.
    Client(fn(Values) -> LocalBoxFuture<'static, Outcome>),
}

/// How commands word failures, in which the families of SPIRE's commands differ.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// What stands before a failure.
    pub failure: &'static str,
    /// What stands before a flag's mistake where it is told again after the list of flags.
    pub mistake_again: Option<&'static str>,
    /// The last line of help.
    pub help_end: &'static str,
}

impl Manner {
    /// Of the server's commands, and of the agent's for operators.
    pub const ERROR: Self =
        Self { failure: "Error: ", mistake_again: None, help_end: "flag: help requested" };
}

/// Why no command is run: what is said on stderr, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    text: String,
    code: u8,
}

impl Command {
    /// A command that asks a server or an agent.
    pub const fn new(
        words: &'static str,
        synopsis: &'static str,
        flags: &'static [&'static [Flag]],
        run: fn(Values) -> LocalBoxFuture<'static, Outcome>,
    ) -> Self {
        let (name, manner, run) = (words, Manner::ERROR, Run::Client(run));
        Self { words, name, synopsis, example: "", flags, manner, former: false, run }
    }

    /// A command that has the process to itself.
    pub const fn process(
        words: &'static str,
        synopsis: &'static str,
        flags: &'static [&'static [Flag]],
        run: fn(&Values) -> ExitCode,
    ) -> Self {
        let (name, manner, run) = (words, Manner::ERROR, Run::Process(run));
        Self { words, name, synopsis, example: "", flags, manner, former: false, run }
    }

    /// As an old spelling, which help leaves out.
    #[must_use]
    pub const fn former(self) -> Self {
        Self { former: true, ..self }
    }

    /// With another name in help than its words.
    #[must_use]
    pub const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// With an example.
    #[must_use]
    pub const fn example(self, example: &'static str) -> Self {
        Self { example, ..self }
    }

    /// With other words for failures.
    #[must_use]
    pub const fn manner(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }

    /// All its flags.
    pub fn all_flags(&self) -> Vec<Flag> {
        self.flags.concat()
    }

    fn parse(&self, arguments: &[String]) -> Result<Values, Told> {
        flags::parse(&self.all_flags(), arguments).map_err(|error| match error {
            FlagError::Help => Told { text: help::of_command(self), code: 0 },
            FlagError::Bad(mistake) => {
                let mut text = format!("{mistake}\n{}", help::usage(self));
                if let Some(before) = self.manner.mistake_again {
                    text.push_str(&format!("{before}{mistake}\n"));
                }
                Told { text, code: 1 }
            }
        })
    }

    fn execute(&self, values: Values) -> ExitCode {
        let run = match self.run {
            Run::Process(run) => return run(&values),
            Run::Client(run) => run,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outcome = match runtime {
            Ok(runtime) => runtime.block_on(run(values)),
            Err(error) => Err(Failure::new(reason(&error))),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                print_error(&format!("{}{failure}\n", self.manner.failure));
                ExitCode::FAILURE
            }
        }
    }
}

impl Program {
    /// Runs the command that `arguments` name (without the program's own name).
    pub fn main(&self, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
        // No flag takes a text that is not Unicode; the letters in its place show in what follows.
        let arguments = arguments.into_iter();
        let arguments: Vec<_> =
            arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
        match self.choose(&arguments) {
            Ok((command, values)) => command.execute(values),
            Err(told) => {
                print_error(&told.text);
                ExitCode::from(told.code)
            }
        }
    }

    /// Its commands in the order of their words, without old spellings.
    pub fn sorted_commands(&self) -> Vec<&'static Command> {
        let shown = self.all_commands().filter(|command| !command.former);
        let mut commands: Vec<_> = shown.collect();
        commands.sort_by_key(|command| command.words);
        commands
    }

    fn all_commands(&self) -> impl Iterator<Item = &'static Command> {
        self.commands.iter().copied().flatten()
    }

    fn choose(&self, arguments: &[String]) -> Result<(&'static Command, Values), Told> {
        let commands = self.sorted_commands();
        let first = arguments.first().map_or("", String::as_str);
        if matches!(first, "-v" | "-version" | "--version") {
            return Err(Told { text: format!("{}\n", self.version), code: 0 });
        }
        let called = self
            .all_commands()
            .filter(|command| starts_with(arguments, command.words))
            .max_by_key(|command| command.words.len());
        if let Some(command) = called {
            let rest = arguments.get(command.words.split(' ').count()..).unwrap_or_default();
            return Ok((command, command.parse(rest)?));
        }
        let group = (1..=arguments.len())
            .rev()
            .map(|count| arguments[..count].join(" ") + " ")
            .find(|group| commands.iter().any(|command| command.words.starts_with(group.as_str())));
        if let Some(group) = group {
            let next = arguments.get(group.split_whitespace().count());
            let code = if next.is_some_and(|next| is_help(next)) { 0 } else { 1 };
            return Err(Told { text: help::of_group(&commands, &group), code });
        }
        let code = if is_help(first) { 0 } else { 127 };
        Err(Told { text: help::of_program(self.name, &commands), code })
    }
}

fn starts_with(arguments: &[String], words: &str) -> bool {
    let words = words.split(' ');
    words.clone().count() <= arguments.len()
        && words.zip(arguments).all(|(one, other)| one == other)
}

fn is_help(argument: &str) -> bool {
    matches!(argument, "-h" | "-help" | "--help" | "--h")
}

#[cfg(test)]
mod tests;
