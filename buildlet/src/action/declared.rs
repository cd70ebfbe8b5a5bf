//! The outputs a command declares: where they lie and how the answer speaks of them. Pure.

use motefarm_core::WorkPath;
use motefarm_proto::convert::FieldError;
use motefarm_proto::reapi::Command;
use motefarm_proto::reapi::command::OutputDirectoryFormat;
use std::collections::{BTreeSet, HashSet};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    /// Each once.
    pub(super) outputs: Vec<Output>,
    /// In the form before version 2.1, whose answer has lists of its own for links. What kind of thing an
    /// output was declared to be means nothing: what is there counts.
    pub(super) old_form: bool,
    pub(super) directories: DirectoryForm,
    pub(super) properties: Properties,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    /// As it was declared, and is answered.
    pub(super) declared: String,
    /// From the root.
    pub(super) path: WorkPath,
}

/// How output directories are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DirectoryForm {
    pub(super) tree: bool,
    /// Each `Directory` as a blob of its own, and the root's digest.
    pub(super) directories: bool,
}

/// Which properties of outputs are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Properties {
    pub(super) mtime: bool,
    pub(super) unix_mode: bool,
}

impl Declared {
    #[expect(deprecated, reason = "clients of version 2.0 know nothing else")]
    pub(super) fn parse(command: &Command, work_dir: &WorkPath) -> Result<Self, FieldError> {
        let old_form = command.output_paths.is_empty();
        let declared: Vec<(&'static str, &String)> = if old_form {
            let files = command.output_files.iter().map(|path| ("command.output_files", path));
            files.chain(command.output_directories.iter().map(|path| ("command.output_directories", path))).collect()
        } else {
            command.output_paths.iter().map(|path| ("command.output_paths", path)).collect()
        };
        let mut seen = HashSet::new();
        let mut outputs = Vec::with_capacity(declared.len());
        for (field, path) in declared {
            if seen.insert(path) {
                outputs.push(Output { declared: path.clone(), path: resolve(field, work_dir, path)? });
            }
        }
        let wants = |name: &str| command.output_node_properties.iter().any(|wanted| wanted == name);
        Ok(Self {
            outputs,
            old_form,
            directories: match command.output_directory_format() {
                OutputDirectoryFormat::TreeOnly => DirectoryForm { tree: true, directories: false },
                OutputDirectoryFormat::DirectoryOnly => DirectoryForm { tree: false, directories: true },
                OutputDirectoryFormat::TreeAndDirectory => DirectoryForm { tree: true, directories: true },
            },
            properties: Properties { mtime: wants("mtime"), unix_mode: wants("unix_mode") },
        })
    }

    /// Directories that are to be there before the command runs: those that hold outputs.
    pub(super) fn parents(&self) -> BTreeSet<WorkPath> {
        self.outputs.iter().map(|output| output.path.parent()).filter(|parent| !parent.is_root()).collect()
    }
}

/// From the working directory, which it may leave, but not the root.
fn resolve(field: &'static str, work_dir: &WorkPath, path: &str) -> Result<WorkPath, FieldError> {
    // Of its own, because with a working directory before it it would not be seen to be absolute.
    if path.starts_with('/') {
        let shown: String = path.chars().take(200).collect();
        return Err(FieldError::new(field, format!("path {shown:?} is absolute")));
    }
    WorkPath::parse(format!("{work_dir}/{path}").trim_start_matches('/')).map_err(|e| FieldError::new(field, e))
}

#[cfg(test)]
#[expect(deprecated, reason = "clients of version 2.0 know nothing else")]
mod tests {
    use super::*;

    fn parse(command: Command, work_dir: &str) -> Result<Declared, FieldError> {
        Declared::parse(&command, &WorkPath::parse(work_dir).unwrap())
    }

    fn paths(declared: &Declared) -> Vec<&str> {
        declared.outputs.iter().map(|output| output.path.as_str()).collect()
    }

    #[test]
    fn paths_are_relative_to_the_working_directory_and_stay_in_the_root() {
        let of = |paths: &[&str]| Command {
            output_paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            ..Default::default()
        };
        let declared = parse(of(&["a", "../b/c", "", "a"]), "out/d").unwrap();
        assert_eq!(paths(&declared), ["out/d/a", "out/b/c", "out/d"]);
        let parents: Vec<String> = declared.parents().iter().map(ToString::to_string).collect();
        assert_eq!(parents, ["out", "out/b", "out/d"]);
        assert_eq!(paths(&parse(of(&["", "x"]), "").unwrap()), ["", "x"]);
        for bad in ["../../../x", "/x", "a\0b"] {
            let error = parse(of(&[bad]), "out/d").unwrap_err();
            assert_eq!(error.field, "command.output_paths", "{bad}");
        }
    }

    #[test]
    fn the_old_form_counts_only_alone() {
        let old = Command {
            output_files: vec!["f".into(), "both".into()],
            output_directories: vec!["d".into(), "both".into()],
            ..Default::default()
        };
        let declared = parse(old.clone(), "").unwrap();
        assert!(declared.old_form);
        assert_eq!(paths(&declared), ["f", "both", "d"]);
        let new = parse(Command { output_paths: vec!["p".into()], ..old }, "").unwrap();
        assert!(!new.old_form);
        assert_eq!(paths(&new), ["p"]);
    }
}
