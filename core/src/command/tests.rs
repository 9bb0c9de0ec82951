use super::*;

const COUNT: Flag = Flag::integer("count", "How often").default("1");

const COMMANDS: &[Command] = &[
    Command::new("door open", "Opens a door.", &[&[COUNT], &[OUTPUT]], |_| Box::pin(done()))
        .example("house door open -count 2"),
    Command::new("door close", "Closes a door.", &[], |_| Box::pin(done())).named("close"),
    Command::new("old door shut", "Former name.", &[], |_| Box::pin(done())).former(),
    Command::process("live", "Lives.", &[&[COUNT]], |_| ExitCode::SUCCESS).manner(Manner {
        failure: "",
        mistake_again: Some("again: "),
        help_end: "",
    }),
];

const HOUSE: Program = Program { name: "house", version: "1.2.3", commands: &[COMMANDS] };

async fn done() -> Outcome {
    Ok(())
}

fn choose(line: &str) -> Result<(&'static str, Values), Told> {
    let words: Vec<_> = line.split_whitespace().map(ToOwned::to_owned).collect();
    HOUSE.choose(&words).map(|(command, values)| (command.words, values))
}

fn told(line: &str) -> (String, u8) {
    let told = choose(line).unwrap_err();
    (told.text, told.code)
}

#[test]
fn words_call_a_command_and_flags_follow() {
    let (words, values) = choose("door open --count=3 -output json").unwrap();
    assert_eq!((words, values.integer("count"), is_json(&values)), ("door open", 3, true));
    assert_eq!(choose("live").unwrap().0, "live");
}

#[test]
fn help_names_purpose_flags_and_an_example() {
    let flags = "Usage of door open:\n  -count int\n    \tHow often (default 1)\n  -output value\n    \
                 \tOutput format: pretty or json. The default is pretty\n";
    let help = format!(
        "{flags}\nOpens a door.\n\nExample:\n  house door open -count 2\n\nflag: help requested\n"
    );
    assert_eq!(told("door open -h"), (help, 0));
    assert_eq!(told("door close --help").0.lines().next(), Some("Usage of close:"));
    assert!(told("live -h").0.ends_with("\nLives.\n\n\n"));
    let group = format!(
        "Usage of close:\n{flags}This command is accessed by using one of the subcommands \
         below.\n\nSubcommands:\n    close    Closes a door.\n    open     Opens a door.\n"
    );
    for (line, code) in [("door", 1), ("door slam", 1), ("door -x", 1), ("door -h", 0)] {
        assert_eq!(told(line), (group.clone(), code), "{line}");
    }
}

#[test]
fn without_a_known_command_all_are_listed() {
    for (line, code) in [("", 127), ("roof", 127), ("doo", 127), ("-x", 127), ("--help", 0)] {
        let (text, told) = told(line);
        assert_eq!(told, code, "{line}");
        assert!(text.starts_with("Usage: house "), "{text}");
        assert!(text.contains("\n    door close    Closes a door.\n"), "{text}");
    }
    assert_eq!(told("-version"), ("1.2.3\n".to_owned(), 0));
}

#[test]
fn an_old_spelling_runs_and_no_help_shows_it() {
    assert_eq!(choose("old door shut").unwrap().0, "old door shut");
    for (line, code) in [("", 127), ("old", 127), ("old door -h", 127), ("-h", 0)] {
        let (text, told) = told(line);
        assert_eq!(told, code, "{line}");
        assert!(text.starts_with("Usage: house ") && !text.contains("shut"), "{line}: {text}");
    }
}

#[test]
fn mistakes_of_flags_are_told_before_the_list() {
    let (text, code) = told("door open -nope");
    assert_eq!(code, 1);
    assert!(text.starts_with("flag provided but not defined: -nope\nUsage of door open:\n  -co"));
    let (text, _) = told("live -count x");
    let mistake = "invalid value \"x\" for flag -count: parse error";
    assert!(text.starts_with(&format!("{mistake}\nUsage of live:\n")), "{text}");
    assert!(text.ends_with(&format!("\nagain: {mistake}\n")), "{text}");
    for (line, mistake) in [
        ("-output foo", "bad formatter flag: unknown format option: \"foo\""),
        ("-output pretty -output json", "the output format has already been set to \"pretty\""),
    ] {
        let (text, _) = told(&format!("door open {line}"));
        assert!(text.lines().next().unwrap().ends_with(&format!(" -output: {mistake}")), "{text}");
    }
}
