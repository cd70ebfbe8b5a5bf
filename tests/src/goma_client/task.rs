//! A compile as it is asked for: the request's fields.

use super::files::Input;
use super::inputs::ToolSpec;
use super::wire::Message;
use std::path::{Path, PathBuf};

/// `STORE_ONLY`.
pub const STORE_ONLY: i64 = 3;
/// Said instead of the real one, where nothing depends on it.
const NORMAL_CWD: &str = "/this/path/is/set/by/goma";

/// A compile.
#[derive(Debug, Clone, Default)]
pub struct Task {
    /// Where it is run.
    pub cwd: PathBuf,
    /// The whole command.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// What it reads, as spelled.
    pub inputs: Vec<String>,
    /// What it leaves, as spelled.
    pub outputs: Vec<String>,
    /// Directories it leaves.
    pub output_dirs: Vec<String>,
    /// The compiler.
    pub toolchain: Vec<ToolSpec>,
    /// `cache_policy`, unless it is the usual one.
    pub cache_policy: Option<i64>,
    /// `dimensions`; empty: `os:linux`.
    pub dimensions: Vec<String>,
}

impl Task {
    /// `ExecReq`, the `retry`th.
    pub fn encode(&self, inputs: &[Input], task_id: u64, retry: i64, store_only: bool) -> Vec<u8> {
        let normal = self.is_free_of_its_place();
        let cwd = self.cwd.display().to_string();
        let said = if normal { NORMAL_CWD } else { &cwd };
        let env = self.env.iter().map(|pair| match pair.starts_with("PWD=") {
            true => format!("PWD={said}"),
            false => pair.clone(),
        });
        let mut request = Message::default().bytes(1, self.command_spec().0).all(2, &self.args).all(3, env);
        request = request.bytes(4, said);
        if normal {
            request = request.bytes(5, &cwd);
        }
        request = inputs.iter().fold(request, |request, input| request.group(10, input.encode()));
        request = request.bytes(30, self.requester(task_id, retry).0);
        if let Some(policy) = if store_only { Some(STORE_ONLY) } else { self.cache_policy } {
            request = request.number(31, policy);
        }
        request = request.number(33, 1).all(35, &self.outputs).all(36, &self.output_dirs);
        request = request.number(37, i64::from(!self.toolchain.is_empty()));
        self.toolchain.iter().fold(request, |request, tool| request.bytes(38, tool_spec(tool).0)).0
    }

    /// Which compiler: name, version, target and hash, as an answer may have to repeat them.
    pub fn compiler(&self) -> [String; 4] {
        let compiler = Path::new(self.args.first().map_or("", String::as_str));
        let name = compiler.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let hash = self.file().map(|(hash, _, _)| hash.clone()).unwrap_or_default();
        [name, "12".to_owned(), "x86_64-linux-gnu".to_owned(), hash]
    }

    /// The compiler's file: after its links comes one.
    fn file(&self) -> Option<&(String, i64, bool)> {
        self.toolchain.iter().find_map(|tool| tool.kind.as_ref().err())
    }

    fn command_spec(&self) -> Message {
        let fields = self.compiler();
        let spec = (1..).zip(&fields).fold(Message::default(), |spec, (n, field)| spec.bytes(n, field));
        let path = self.toolchain.first().map_or("", |tool| &tool.path);
        spec.bytes(6, path).number(13, self.file().map_or(0, |(_, size, _)| *size))
    }

    /// Whether no path in it is absolute, and the command says that the place does not matter.
    fn is_free_of_its_place(&self) -> bool {
        let said = self.args.windows(2).any(|two| two[0] == "-fdebug-compilation-dir" && two[1] == ".")
            || self.args.iter().any(|arg| arg == "-ffile-compilation-dir=.");
        said && self.inputs.iter().all(|name| !name.starts_with('/'))
    }

    fn requester(&self, task_id: u64, retry: i64) -> Message {
        let dimensions: Vec<&str> = match self.dimensions.is_empty() {
            true => vec!["os:linux"],
            false => self.dimensions.iter().map(String::as_str).collect(),
        };
        let requester = Message::default()
            .bytes(3, format!("test@host:8088/1/{task_id}"))
            .number(4, 2)
            .number(5, 1)
            .number(7, retry)
            .bytes(9, "build-1");
        requester.all(10, dimensions).number(11, 1)
    }
}

fn tool_spec(tool: &ToolSpec) -> Message {
    let spec = Message::default().bytes(1, &tool.path);
    match &tool.kind {
        Ok(target) => spec.bytes(5, target),
        Err((hash, size, executable)) => spec.bytes(2, hash).number(3, *size).number(4, i64::from(*executable)),
    }
}
