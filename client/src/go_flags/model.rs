//! Every verb's flags against a small model of Go's `flag` package (1.22, `FlagSet.parseOne`), made
//! from clap's own tables: what Go accepts means the same here.

use super::{is_one_trailing_vector, is_truth, rewrite};
use crate::cli::{Cli, go_bool};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory as _};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::LazyLock;

/// A verb and what Go would know of it.
#[derive(Debug, Clone)]
struct Verb {
    words: Vec<String>,
    /// By any of its names: the flag's id, and whether it is a truth.
    flags: BTreeMap<String, (String, bool)>,
    /// The most positional words.
    room: usize,
    trailing: bool,
}

fn verbs() -> Vec<Verb> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut found = Vec::new();
    collect(&root, &[], &mut found);
    found
}

fn collect(command: &Command, words: &[String], found: &mut Vec<Verb>) {
    if command.has_subcommands() {
        for below in command.get_subcommands() {
            collect(below, &[words, &[below.get_name().to_owned()]].concat(), found);
        }
        return;
    }
    let mut flags = BTreeMap::new();
    for arg in command.get_arguments().filter(|arg| !arg.is_positional() && !is_help(arg)) {
        let truth = !arg.get_action().takes_values() || is_truth(arg);
        let names = arg.get_long().map(str::to_owned).into_iter().chain(arg.get_short().map(String::from));
        flags.extend(names.map(|name| (name, (arg.get_id().to_string(), truth))));
    }
    let room = |arg: &Arg| arg.get_num_args().map_or(1, |range| range.max_values());
    found.push(Verb {
        words: words.to_vec(),
        flags,
        room: command.get_positionals().map(room).fold(0, usize::saturating_add),
        trailing: is_one_trailing_vector(command),
    });
}

fn is_help(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

/// What was said: values by flag in order, and the words behind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed {
    values: BTreeMap<String, Vec<String>>,
    rest: Vec<String>,
}

/// `None` where Go reports an error.
fn go_parse(verb: &Verb, args: &[String]) -> Option<Parsed> {
    let mut parsed = Parsed::default();
    let mut at = 0;
    while let Some(arg) = args.get(at) {
        if arg.len() < 2 || !arg.starts_with('-') {
            break;
        }
        at += 1;
        let mut body = &arg[1..];
        if let Some(after) = body.strip_prefix('-') {
            body = after;
            if body.is_empty() {
                break;
            }
        }
        if body.is_empty() || body.starts_with('-') || body.starts_with('=') {
            return None;
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let (id, truth) = verb.flags.get(name)?;
        let value = if *truth {
            value.as_deref().map_or(Some(true), go_bool)?.to_string()
        } else {
            match value {
                Some(value) => value,
                None => {
                    at += 1;
                    args.get(at - 1)?.clone()
                }
            }
        };
        parsed.values.entry(id.clone()).or_default().push(value);
    }
    parsed.rest = args[at..].to_vec();
    Some(parsed)
}

/// What clap made of the same, in the same terms.
fn mote_parse(verb: &Verb, args: &[String]) -> Result<(ArgMatches, Vec<String>), clap::Error> {
    let line = std::iter::once("mote").chain(verb.words.iter().map(String::as_str));
    let line = line.map(OsString::from).chain(args.iter().map(OsString::from));
    let root = Cli::command();
    let mut matches = root.clone().try_get_matches_from(rewrite(&root, line))?;
    let mut command = &root;
    for word in &verb.words {
        command = command.find_subcommand(word).unwrap();
        matches = matches.remove_subcommand().unwrap().1;
    }
    let rest = command.get_positionals().flat_map(|arg| raw(&matches, arg.get_id().as_str())).collect();
    Ok((matches, rest))
}

fn raw(matches: &ArgMatches, id: &str) -> Vec<String> {
    let values = matches.get_raw(id).into_iter().flatten();
    values.map(|value| value.to_str().unwrap().to_owned()).collect()
}

/// A verb, and words that may be its flags.
fn line() -> impl Strategy<Value = (Verb, Vec<String>)> {
    proptest::sample::select(verbs()).prop_flat_map(|verb| {
        let names: Vec<String> = verb.flags.keys().cloned().collect();
        let value = prop::sample::select(vec!["x", "7", "10m", "true", "F", "0", "1", "", "-y", "644", "a=b", "--"]);
        let flag = (prop::sample::select(names), prop::bool::ANY, prop::option::of(value.clone())).prop_map(
            |(name, double, value)| {
                let dashes = if double { "--" } else { "-" };
                value.map_or_else(|| format!("{dashes}{name}"), |value| format!("{dashes}{name}={value}"))
            },
        );
        let word = prop_oneof![6 => flag, 3 => value.prop_map(str::to_owned), 1 => "[-=a-e]{0,4}"];
        (Just(verb), prop::collection::vec(word, 0..7))
    })
}

#[test]
fn all_verbs_are_there() {
    let all: Vec<String> = verbs().into_iter().map(|verb| verb.words.join(" ")).collect();
    for verb in ["create", "run", "puttar", "group add", "snapshot create", "admin token create"] {
        assert!(all.iter().any(|known| known == verb), "{verb} of {all:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn what_go_accepts_means_the_same_for_every_verb((verb, args) in line()) {
        let Some(expected) = go_parse(&verb, &args) else { return Ok(()) };
        // Behind the first word clap takes flags still, which Go does not: both are ours to allow.
        let mixed = expected.rest.iter().any(|word| word.starts_with('-'));
        if mixed && !verb.trailing {
            return Ok(());
        }
        let (matches, rest) = match mote_parse(&verb, &args) {
            Ok(parsed) => parsed,
            // Go's program finds these later, or not at all.
            Err(error) => {
                let crowded = expected.rest.len() > verb.room;
                let later = matches!(
                    error.kind(),
                    ErrorKind::ArgumentConflict
                        | ErrorKind::ValueValidation
                        | ErrorKind::InvalidValue
                        | ErrorKind::MissingRequiredArgument
                        | ErrorKind::TooManyValues
                        | ErrorKind::WrongNumberOfValues
                        | ErrorKind::TooFewValues
                );
                prop_assert!(later || (crowded && error.kind() == ErrorKind::UnknownArgument), "{:?}: {}", args, error);
                return Ok(());
            }
        };
        same(&verb, &args, &expected, &matches, &rest)?;
    }
}

/// Whether clap understood what Go did, and nothing besides.
fn same(
    verb: &Verb,
    args: &[String],
    expected: &Parsed,
    matches: &ArgMatches,
    rest: &[String],
) -> Result<(), TestCaseError> {
    prop_assert_eq!(rest, &expected.rest, "{:?}", args);
    for (id, truth) in verb.flags.values() {
        let Some(values) = expected.values.get(id) else {
            prop_assert_ne!(matches.value_source(id), Some(ValueSource::CommandLine), "-{} of {:?}", id, args);
            continue;
        };
        let got = raw(matches, id);
        let last = values.last().unwrap();
        if *truth {
            let is_on = matches.get_one::<bool>(id).copied();
            prop_assert_eq!(is_on, go_bool(last), "-{} of {:?}", id, args);
        } else if got.len() > 1 || id == "env" {
            prop_assert_eq!(&got, values, "-{} of {:?}", id, args);
        } else {
            prop_assert_eq!(got.last(), Some(last), "-{} of {:?}", id, args);
        }
    }
    Ok(())
}

static RUN: LazyLock<Verb> = LazyLock::new(|| verbs().into_iter().find(|verb| verb.words == ["run"]).unwrap());

/// What people type before and behind `run`'s instance.
fn word() -> impl Strategy<Value = String> {
    let fixed = [
        "-e",
        "--e",
        "-e=A=1",
        "-e=",
        "A=1",
        "-dir",
        "-dir=x",
        "--dir",
        "--dir=-y",
        "-path=a,b",
        "-path",
        "-system",
        "-system=false",
        "--system=T",
        "-system=0",
        "-debug",
        "--debug=true",
        "-debug=F",
        "I",
        "cmd",
        "-",
        "--",
        "-x",
        "-dir=",
        "",
        "=",
        "-run=Test",
        "a=b",
        "-v",
        "--system",
        "$PATH,$WORKDIR/go/bin",
        "-list",
    ];
    prop_oneof![9 => proptest::sample::select(fixed.to_vec()).prop_map(str::to_owned), 1 => "[-=a-e ]{0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn what_go_accepts_of_run_is_never_refused(args in prop::collection::vec(word(), 0..8)) {
        let Some(expected) = go_parse(&RUN, &args) else { return Ok(()) };
        // A command without an instance is our usage error; Go's program finds that later.
        if expected.rest.is_empty() {
            return Ok(());
        }
        let got = mote_parse(&RUN, &args);
        prop_assert!(got.is_ok(), "{:?}: {}", args, got.unwrap_err());
        let (matches, rest) = got.unwrap();
        same(&RUN, &args, &expected, &matches, &rest)?;
    }
}
