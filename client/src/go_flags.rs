//! Go's flag syntax, as people have typed it for fifteen years, made into clap's.
//!
//! Known flags before the first positional argument may be written `-dir x`, `-dir=x`, `--dir x`
//! or `--dir=x`, switches also `-system=false`. They become `--dir=x`, which clap reads in one way
//! only. What is not known is left for clap to judge; nothing from the first positional on is touched.

use crate::cli::go_bool;
use clap::{Arg, ArgAction, Command};
use std::ffi::OsString;

/// Rewrites a whole command line (program name first).
pub(crate) fn rewrite(root: &Command, args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut out: Vec<OsString> = args.next().into_iter().collect();
    let mut level = root;
    let mut inherited: Vec<&Arg> = Vec::new();
    while let Some(arg) = args.next() {
        let flag = arg.to_str().and_then(flag_of);
        let Some((name, value)) = flag else {
            if arg.to_str().is_some_and(|text| text.starts_with('-') && !matches!(text, "-" | "--")) {
                // A dash and no flag's name: clap's to refuse.
                out.push(arg);
                continue;
            }
            if arg == "--" {
                out.push(arg);
                break;
            }
            if let Some(verb) = arg.to_str().and_then(|text| level.find_subcommand(text)) {
                inherited.extend(level.get_arguments().filter(|a| a.is_global_set()));
                level = verb;
                out.push(arg);
                continue;
            }
            if is_one_trailing_vector(level) {
                out.push("--".into());
            }
            out.push(arg);
            break;
        };
        let Some(known) = find(level, &inherited, name) else {
            out.push(arg);
            continue;
        };
        let long = format!("--{}", known.get_long().unwrap_or(name));
        if is_truth(known) {
            // On unless it is switched off: only `-name=value` has a value.
            out.push(value.map_or(long.clone().into(), |value| joined(&long, &value.into())));
        } else if known.get_action().takes_values() {
            // Go takes the next argument whatever it looks like.
            match value.map(OsString::from).or_else(|| args.next()) {
                Some(value) => out.push(joined(&long, &value)),
                None => out.push(long.into()),
            }
        } else {
            match value.map(go_bool) {
                None | Some(Some(true)) => out.push(long.into()),
                Some(Some(false)) if matches!(known.get_action(), ArgAction::SetTrue) => {
                    out.retain(|earlier| *earlier != *long);
                }
                Some(_) => out.push(joined(&long, &value.unwrap_or_default().into())),
            }
        }
    }
    out.extend(args);
    out
}

/// Name and value of `-name`, `--name`, `-name=value`; `None` for what is no flag.
fn flag_of(text: &str) -> Option<(&str, Option<&str>)> {
    let body = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    let (name, value) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (body, None),
    };
    let sound = !name.is_empty() && !name.starts_with('-');
    sound.then_some((name, value))
}

fn find<'a>(level: &'a Command, inherited: &[&'a Arg], name: &str) -> Option<&'a Arg> {
    let own = level.get_arguments().chain(inherited.iter().copied());
    own.filter(|arg| !arg.is_positional()).find(|arg| {
        let mut chars = name.chars();
        let short = match (chars.next(), chars.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        };
        arg.get_long() == Some(name)
            || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
            || (short.is_some() && arg.get_short() == short && arg.get_long().is_some())
    })
}

/// Whether everything from the first positional on is the verb's own (`run INSTANCE CMD ARGS...`).
fn is_one_trailing_vector(level: &Command) -> bool {
    level.get_positionals().any(Arg::is_trailing_var_arg_set)
}

/// A switch whose value is a truth, as all of Go's are: it may be left out.
fn is_truth(arg: &Arg) -> bool {
    arg.get_action().takes_values() && arg.get_num_args().is_some_and(|range| range.min_values() == 0)
}

fn joined(long: &str, value: &OsString) -> OsString {
    let mut whole = OsString::from(long);
    whole.push("=");
    whole.push(value);
    whole
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory as _;

    fn rewritten(args: &[&str]) -> Vec<String> {
        rewrite(&Cli::command(), args.iter().map(OsString::from))
            .into_iter()
            .map(|arg| arg.into_string().unwrap())
            .collect()
    }

    #[test]
    fn the_pages_command_lines_become_claps() {
        let cases: [(&[&str], &[&str]); 11] = [
            (
                &["mote", "run", "-path", "$PATH,$WORKDIR/go/bin", "I", "go/src/make.bat"],
                &["mote", "run", "--path=$PATH,$WORKDIR/go/bin", "--", "I", "go/src/make.bat"],
            ),
            (
                &["mote", "run", "-e", "GOPATH=c:/x", "I", "go/bin/go", "test", "-run=T"],
                &["mote", "run", "--env=GOPATH=c:/x", "--", "I", "go/bin/go", "test", "-run=T"],
            ),
            (&["mote", "create", "-list"], &["mote", "create", "--list"]),
            (
                &["mote", "create", "-status=false", "-count=3", "-status", "linux-amd64"],
                &["mote", "create", "--status=false", "--count=3", "--status", "linux-amd64"],
            ),
            (
                &["mote", "ls", "-R", "-d", "-skip", "a,b", "I"],
                &["mote", "ls", "--recursive", "--digest", "--skip=a,b", "I"],
            ),
            (&["mote", "-group", "g", "group", "add", "I"], &["mote", "--group=g", "group", "add", "I"]),
            (&["mote", "-server=a:1", "list", "-json"], &["mote", "--server=a:1", "list", "--json"]),
            (&["mote", "list", "-server", "a:1"], &["mote", "list", "--server=a:1"]),
            (&["mote", "run", "-system", "-system=false", "--", "I", "x"], &["mote", "run", "--", "I", "x"]),
            (&["mote", "push", "-C", "-odd", "-to", "x", "I"], &["mote", "push", "--tree=-odd", "--to=x", "I"]),
            (
                &["mote", "admin", "user", "add", "-role=admin", "bob"],
                &["mote", "admin", "user", "add", "--role=admin", "bob"],
            ),
        ];
        for (typed, clap) in cases {
            assert_eq!(rewritten(typed), clap, "{typed:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_alone() {
        for args in [&["mote", "run", "-nonsense", "I"][..], &["mote", "nonsense", "-list"], &["mote", "gettar", "-"]] {
            let rewritten: Vec<String> = rewritten(args).into_iter().filter(|arg| arg != "--").collect();
            assert_eq!(rewritten, args);
        }
    }
}
