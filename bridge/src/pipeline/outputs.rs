//! What a compile is expected to leave, and by which name the client wants each. Pure.
//!
//! The client writes whatever an answer names, where it names it: so nothing is answered that it did not ask
//! for, and under no other name.

use super::client_path::{ClientPath, Located, locate};
use super::refusal::Refusal;
use motefarm_proto::goma::ExecReq;
use std::collections::HashSet;

/// Most outputs of one compile; whatever has more is none.
const MAX_OUTPUTS: usize = 10_000;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// As in the request.
    pub filename: String,
    /// From the action's working directory, as the server is asked for it.
    pub path: String,
    /// Where it is.
    pub located: Located,
    /// Whether a directory is meant.
    pub is_directory: bool,
    /// Whether a compile without it did not succeed, whatever its exit code.
    pub required: bool,
}

/// The outputs of a request said in `cwd`, in the request's order, directories last.
pub fn expected(request: &ExecReq, cwd: &ClientPath, root: &ClientPath) -> Result<Vec<Expected>, Refusal> {
    let main = flag_value(&request.arg, "-o");
    let (mut files, directories) = (request.expected_output_files.clone(), &request.expected_output_dirs);
    if files.is_empty() && directories.is_empty() {
        files = from_flags(&request.arg, main.as_deref());
    }
    if files.len() + directories.len() > MAX_OUTPUTS {
        return Err(Refusal::never(format!("the request names more than {MAX_OUTPUTS} outputs")));
    }
    let mut all: Vec<Expected> = Vec::with_capacity(files.len() + directories.len());
    let mut seen = HashSet::with_capacity(all.capacity());
    let names = files.iter().map(|name| (name, false)).chain(directories.iter().map(|name| (name, true)));
    for (filename, is_directory) in names {
        let wrong = |what: String| Refusal::never(format!("output {filename:?} {what}"));
        let located = locate(cwd, filename).map_err(|error| wrong(error.to_string()))?;
        if located.path.below(root).is_none() {
            return Err(wrong(format!("is outside the input root {root}")));
        }
        let path = located.path.seen_from(cwd);
        if !seen.insert(path.clone()) {
            continue;
        }
        let required = !is_directory
            && main.as_ref().map_or_else(|| filename.ends_with(".o"), |main| same_place(cwd, main, &located));
        all.push(Expected { filename: filename.clone(), path, located, is_directory, required });
    }
    if all.is_empty() {
        return Err(Refusal::never("the request names no output, and its flags none either (-o)"));
    }
    Ok(all)
}

fn same_place(cwd: &ClientPath, name: &str, located: &Located) -> bool {
    locate(cwd, name).is_ok_and(|other| other.path == located.path)
}

/// The value of a flag that is written apart or joined; the last one holds.
fn flag_value(args: &[String], flag: &str) -> Option<String> {
    let mut found = None;
    let mut rest = args.iter().skip(1);
    while let Some(arg) = rest.next() {
        if arg == flag {
            found = rest.next().cloned().or(found);
        } else if let Some(joined) = arg.strip_prefix(flag) {
            found = Some(joined.to_owned());
        }
    }
    found
}

/// What clients that do not say it (before 2020) expect of gcc and clang.
fn from_flags(args: &[String], main: Option<&str>) -> Vec<String> {
    let Some(main) = main else { return Vec::new() };
    let mut files = vec![main.to_owned()];
    files.extend(flag_value(args, "-MF"));
    if args.iter().any(|arg| arg == "-gsplit-dwarf" || arg.starts_with("-gsplit-dwarf=")) {
        let stem = main.rsplit_once('.').filter(|(_, end)| !end.contains('/')).map_or(main, |(stem, _)| stem);
        files.push(format!("{stem}.dwo"));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(args: &[&str], files: &[&str], dirs: &[&str]) -> ExecReq {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        ExecReq {
            arg: own(args),
            expected_output_files: own(files),
            expected_output_dirs: own(dirs),
            ..ExecReq::default()
        }
    }

    fn outputs(request: &ExecReq, root: &str) -> Result<Vec<(String, String, bool)>, Refusal> {
        let (cwd, root) = (ClientPath::absolute("/w/out").unwrap(), ClientPath::absolute(root).unwrap());
        let all = expected(request, &cwd, &root)?;
        Ok(all.into_iter().map(|output| (output.filename, output.path, output.required)).collect())
    }

    fn row(filename: &str, path: &str, required: bool) -> (String, String, bool) {
        (filename.to_owned(), path.to_owned(), required)
    }

    #[test]
    fn outputs_keep_the_clients_names_and_only_the_object_must_be_there() {
        let args = ["gcc", "-c", "a.c", "-o", "obj/a.o", "-MF", "obj/a.d"];
        let all = outputs(&request(&args, &["obj/a.o", "./obj/x/../a.d", "/w/gen/a.dwo"], &["classes"]), "/").unwrap();
        assert_eq!(
            all,
            [
                row("obj/a.o", "obj/a.o", true),
                row("./obj/x/../a.d", "obj/a.d", false),
                row("/w/gen/a.dwo", "../gen/a.dwo", false),
                row("classes", "classes", false),
            ]
        );
        let twice = outputs(&request(&["gcc"], &["a.o", "./a.o"], &[]), "/").unwrap();
        assert_eq!(twice, [row("a.o", "a.o", true)]);
    }

    #[test]
    fn old_clients_outputs_are_read_from_the_flags() {
        let args = ["gcc", "-c", "a.c", "-ox/a.b.o", "-gsplit-dwarf", "-MMD", "-MF", "a.d"];
        let all = outputs(&request(&args, &[], &[]), "/").unwrap();
        assert_eq!(
            all,
            [row("x/a.b.o", "x/a.b.o", true), row("a.d", "a.d", false), row("x/a.b.dwo", "x/a.b.dwo", false)]
        );
        assert!(outputs(&request(&["gcc", "-c", "a.c"], &[], &[]), "/").is_err());
    }

    #[test]
    fn outputs_outside_the_root_are_refused() {
        let request = request(&["gcc"], &["../../etc/passwd"], &[]);
        assert!(matches!(outputs(&request, "/w"), Err(Refusal::Never(why)) if why.contains("../../etc/passwd")));
        assert!(outputs(&request, "/").is_ok());
    }
}
