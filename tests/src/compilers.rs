//! Compilers that projects of tests are compiled with: this machine's, and one that lies in the project.
//! The bridge's own tests take this file in by path.

use super::cxx_project::CxxProject;
use super::goma_client::inputs::{self, ToolSpec};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What clang of a distribution calls itself, and what the one in a project does: it is seen who compiled.
const VENDORS: [&[u8; 7]; 2] = [b"Debian ", b"Ubuntu "];
/// What such a one in a project calls itself: see `VENDORS`.
pub const IN_TREE: &str = "Intree clang version";
/// Its folder, as spelled in the folder of the objects.
const TREE: &str = "../third_party/llvm";

/// One for C and one for C++.
#[derive(Debug, Clone)]
pub struct Compilers {
    c: String,
    cxx: String,
    /// In the project: flags that keep it there, and its parts.
    tree: Option<(Vec<String>, Vec<ToolSpec>)>,
}

impl Compilers {
    /// Those that this machine has, and the names of those that it has not.
    pub fn here() -> (Vec<Self>, Vec<&'static str>) {
        let all = [("/usr/bin/gcc", "/usr/bin/g++"), ("/usr/bin/clang", "/usr/bin/clang++")];
        let (found, lacking): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(c, cxx)| [c, cxx].iter().all(|name| Path::new(name).exists()));
        let found = found.into_iter().map(|(c, cxx)| Self { c: c.to_owned(), cxx: cxx.to_owned(), tree: None });
        (found.collect(), lacking.into_iter().map(|(_, cxx)| cxx).collect())
    }

    /// The one for C.
    pub fn of_c(&self) -> &str {
        &self.c
    }

    /// Clang copied into a project, with its own headers, called relatively.
    pub fn into_tree(project: &CxxProject) -> Option<Self> {
        let clang = fs::canonicalize("/usr/bin/clang").ok()?;
        let asked = Command::new(&clang).arg("-print-resource-dir").output().ok()?;
        let resources = PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim());
        let tree = project.dir.join("third_party/llvm");
        fs::create_dir_all(tree.join("bin")).expect("a folder for the compiler");
        fs::create_dir_all(project.dir.join("out")).expect("a folder for objects");
        fs::copy(clang, tree.join("bin/clang-real")).expect("the compiler is copied");
        std::os::unix::fs::symlink("clang-real", tree.join("bin/clang")).expect("its link");
        copy(&resources.join("include"), &tree.join("lib/clang").join(resources.file_name()?).join("include"));
        Some(Self::in_tree(project, &[]))
    }

    /// The same with its libraries, of some 160 MiB; `None` if this machine lacks patchelf, or clang is made otherwise.
    pub fn into_tree_whole(project: &CxxProject) -> Option<Self> {
        Self::into_tree(project)?;
        let tree = project.dir.join("third_party/llvm");
        let clang = tree.join("bin/clang-real");
        let asked = Command::new("ldd").arg(&clang).output().ok()?;
        let text = String::from_utf8_lossy(&asked.stdout).into_owned();
        let of_llvm = |line: &&str| line.trim().starts_with("libclang-cpp.so") || line.trim().starts_with("libLLVM");
        let mut names = Vec::new();
        for line in text.lines().filter(of_llvm) {
            let (name, from) = line.trim().split_once(" => ")?;
            let mut content = fs::read(from.split(' ').next()?).ok()?;
            if name.starts_with("libclang-cpp") {
                let at = content.windows(7).position(|seven| VENDORS.iter().any(|vendor| seven == *vendor))?;
                content[at..at + 7].copy_from_slice(&IN_TREE.as_bytes()[..7]);
            }
            fs::write(tree.join("lib").join(name), content).expect("a library is copied");
            names.push(format!("{TREE}/lib/{name}"));
        }
        let patched = Command::new("patchelf").args(["--set-rpath", "$ORIGIN/../lib"]).arg(clang).status();
        (patched.is_ok_and(|status| status.success()) && names.len() == 2).then(|| Self::in_tree(project, &names))
    }

    fn in_tree(project: &CxxProject, libraries: &[String]) -> Self {
        let flags = ["-no-canonical-prefixes", "-nostdlibinc", "-fdebug-compilation-dir", "."];
        let c = format!("{TREE}/bin/clang");
        // Hashed once for all compiles, as the real client does.
        let parts = std::iter::once(&c).chain(libraries);
        let parts = parts.flat_map(|part| inputs::toolchain(&project.dir.join("out"), Path::new(part))).collect();
        Self { cxx: c.clone(), c, tree: Some((flags.map(str::to_owned).to_vec(), parts)) }
    }

    /// The beginning of a command.
    pub fn call(&self, cxx: bool) -> Vec<String> {
        let flags = self.tree.iter().flat_map(|(flags, _)| flags.clone());
        std::iter::once(if cxx { &self.cxx } else { &self.c }.clone()).chain(flags).collect()
    }

    /// What a client names of it.
    pub fn toolchain(&self, cwd: &Path, compiler: &str) -> Vec<ToolSpec> {
        match &self.tree {
            Some((_, parts)) => parts.clone(),
            None => inputs::toolchain(cwd, Path::new(compiler)),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).expect("a file is copied");
        }
    }
}
