//! From what was typed to what the farm is asked to run.

use crate::cli;
use crate::error::Error;
use motefarm_proto::{convert, mote};
use std::ffi::OsString;

pub(super) const SHAPE: &str = "mote run [OPTIONS] [INSTANCE] COMMAND [ARGS]...";
/// What Go's own tests take as a word not to use the network.
const FIREWALL: &str = "GO_DISABLE_OUTBOUND_NETWORK=true";

/// The words behind the options, as text.
pub(super) fn texts(words: &[OsString]) -> Result<Vec<String>, Error> {
    words.iter().map(text).collect()
}

/// The command. `instance`: the word before `words`, if there was one.
pub(super) fn from_flags(
    run: &cli::Run,
    words: Vec<String>,
    instance: Option<&str>,
    merge_output: bool,
) -> Result<mote::ExecSpec, Error> {
    let mut words = words.into_iter().peekable();
    if words.next_if(|word| word == "--").is_none()
        && let Some(instance) = instance
        && let Some(option) = words.peek().filter(|word| word.starts_with('-'))
    {
        let problem = format!("{option} stands behind the instance {instance}, where the command should be");
        return Err(Error::usage(problem, format!("options come first: mote run {option} ... {instance} COMMAND")));
    }
    let Some(program) = words.next() else {
        let place = instance.map(|instance| format!(" on {instance}")).unwrap_or_default();
        return Err(Error::usage(format!("there is no command to run{place}"), SHAPE));
    };
    let mut env: Vec<String> = run.env.iter().filter(|entry| !entry.is_empty()).cloned().collect();
    if let Some(bad) = env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        return Err(Error::usage(format!("-e {bad}: not a NAME=VALUE"), format!("-e {bad}=VALUE")));
    }
    if run.firewall {
        env.push(FIREWALL.to_owned());
    }
    let path = run.path.as_deref().filter(|list| !list.is_empty());
    let spec = mote::ExecSpec {
        system_level: run.system || program.starts_with('/'),
        program,
        args: words.collect(),
        dir: run.dir.clone().unwrap_or_default(),
        env,
        path: path.map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default(),
        merge_output,
        stdin: run.stdin || run.interactive,
        timeout_ms: run.timeout.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        debug: run.debug,
        ..mote::ExecSpec::default()
    };
    convert::check_exec_spec(&spec).map_err(|error| Error::usage(error.to_string(), SHAPE))?;
    Ok(spec)
}

fn text(word: &OsString) -> Result<String, Error> {
    word.to_str().map(str::to_owned).ok_or_else(|| {
        let problem =
            format!("the argument {} is not UTF-8 text, which is all the farm's protocol carries", word.display());
        Error::usage(problem, "pass it in a file, or encoded")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Verb};
    use clap::{CommandFactory as _, Parser as _};

    fn typed(args: &[&str]) -> Result<(String, mote::ExecSpec), Error> {
        let line = ["mote", "run"].iter().chain(args).map(OsString::from);
        let Verb::Run(run) = Cli::try_parse_from(crate::go_flags::rewrite(&Cli::command(), line)).unwrap().verb else {
            panic!("not run")
        };
        let mut words = texts(&run.words)?;
        let instance = words.remove(0);
        from_flags(&run, words, Some(&instance), true).map(|spec| (instance, spec))
    }

    #[test]
    fn the_commands_own_arguments_pass_through() {
        let (instance, spec) = typed(&[
            "-e",
            "A=1",
            "-e=B=",
            "-path=$PATH,$WORKDIR/go/bin",
            "i",
            "go/bin/go",
            "test",
            "-run=T",
            "--",
            "-v",
        ])
        .unwrap();
        assert_eq!((instance.as_str(), spec.program.as_str()), ("i", "go/bin/go"));
        assert_eq!(spec.args, ["test", "-run=T", "--", "-v"]);
        assert_eq!(spec.env, ["A=1", "B="]);
        assert_eq!(spec.path, ["$PATH", "$WORKDIR/go/bin"]);
        assert!(!spec.system_level);
    }

    #[test]
    fn one_double_dash_is_swallowed() {
        assert_eq!(typed(&["i", "--", "-odd", "--"]).unwrap().1.program, "-odd");
        assert_eq!(typed(&["--", "i", "--", "x", "--"]).unwrap().1.args, ["--"]);
    }

    #[test]
    fn absolute_commands_are_the_machines() {
        assert!(typed(&["i", "/bin/true"]).unwrap().1.system_level);
        assert!(typed(&["-system", "i", "true"]).unwrap().1.system_level);
    }

    #[test]
    fn gomotes_other_flags_mean_what_they_meant() {
        let spec = typed(&["-firewall", "-e", "GO_DISABLE_OUTBOUND_NETWORK=false", "-debug", "i", "x"]).unwrap().1;
        assert_eq!(spec.env.last().unwrap(), "GO_DISABLE_OUTBOUND_NETWORK=true");
        assert!(spec.debug && !spec.stdin);
        assert!(typed(&["-t", "i", "x"]).unwrap().1.stdin && typed(&["-builderenv", "b", "i", "x"]).is_ok());
    }

    #[test]
    fn mistakes_are_explained() {
        let said = |args: &[&str]| {
            let error = typed(args).unwrap_err();
            format!("{error}; {}", error.next_step().unwrap())
        };
        assert!(said(&["i", "-e", "A=1", "x"]).contains("options come first: mote run -e ... i COMMAND"));
        assert!(said(&["i"]).contains("no command"));
        assert!(said(&["-e", "A", "i", "x"]).contains("NAME=VALUE"));
        assert!(said(&["-system", "i", "a/b"]).contains("spec.program"));
    }
}
