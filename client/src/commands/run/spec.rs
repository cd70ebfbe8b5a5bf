//! From what was typed to what the farm is asked to run.

use crate::cli;
use crate::error::Error;
use motefarm_proto::{convert, mote};
use std::ffi::OsString;

const SHAPE: &str = "mote run [OPTIONS] INSTANCE COMMAND [ARGS]...";

/// Instance and command.
pub(super) fn from_flags(run: &cli::Run, merge_output: bool) -> Result<(String, mote::ExecSpec), Error> {
    let mut words = run.words.iter().map(text).collect::<Result<Vec<String>, Error>>()?.into_iter().peekable();
    let instance = words.next().filter(|word| !word.is_empty());
    let instance = instance.ok_or_else(|| Error::usage("the instance's name is empty", SHAPE))?;
    if words.next_if(|word| word == "--").is_none()
        && let Some(option) = words.peek().filter(|word| word.starts_with('-'))
    {
        let problem = format!("{option} stands behind the instance {instance}, where the command should be");
        return Err(Error::usage(problem, format!("options come first: mote run {option} ... {instance} COMMAND")));
    }
    let Some(program) = words.next() else {
        return Err(Error::usage(format!("there is no command to run on {instance}"), SHAPE));
    };
    let env: Vec<String> = run.env.iter().filter(|entry| !entry.is_empty()).cloned().collect();
    if let Some(bad) = env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        return Err(Error::usage(format!("-e {bad}: not a NAME=VALUE"), format!("-e {bad}=VALUE")));
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
        stdin: run.stdin,
        timeout_ms: run.timeout.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        debug: run.debug,
        ..mote::ExecSpec::default()
    };
    convert::check_exec_spec(&spec).map_err(|error| Error::usage(error.to_string(), SHAPE))?;
    Ok((instance, spec))
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
        from_flags(&run, true)
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
