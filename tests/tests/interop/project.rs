//! The project of C and C++ as Bazel wants it: what depends on what, and what stands in for the repositories
//! that it would fetch.

use motefarm_tests::cxx_project::{CxxProject, Shape, write};
use std::fs;
use std::path::{Path, PathBuf};

/// Libraries of C, and as many of C++.
const LIBRARIES: usize = 35;
/// Programs; each uses a library of either kind.
const PROGRAMS: usize = 20;
/// Files made by a script.
const GENERATED: usize = 12;
/// Everything that is built.
pub(crate) const TARGETS: usize = 2 * LIBRARIES + PROGRAMS + GENERATED;
/// Object files: one a library, one a program.
pub(crate) const OBJECTS: usize = 2 * LIBRARIES + PROGRAMS;

/// See the module.
pub(crate) struct Project {
    pub(crate) dir: PathBuf,
    sources: CxxProject,
    stubs: PathBuf,
}

impl Project {
    /// Writes it all.
    pub(crate) fn write(dir: &Path) -> Self {
        let shape = Shape { libraries: LIBRARIES, programs: PROGRAMS, freestanding: 0, demanding: false };
        let sources = CxxProject::write(&dir.join("project"), shape);
        let project = Self { dir: sources.dir.clone(), sources, stubs: dir.join("stubs") };
        write(&project.dir.join("WORKSPACE"), "");
        let mut build = String::new();
        for n in 0..LIBRARIES {
            for kind in ["c", "cc"] {
                let deps = n.checked_sub(1).map_or(String::new(), |before| format!("\":{kind}_{before}\""));
                build += &format!(
                    "cc_library(name = \"{kind}_{n}\", srcs = [\"{kind}_{n}.{kind}\"], \
                     hdrs = [\"{kind}_{n}.h\", \"common.h\"], deps = [{deps}], linkstatic = 1)\n"
                );
            }
        }
        for n in 0..PROGRAMS {
            let deps = format!("[\":c_{n}\", \":cc_{n}\"]");
            build += &format!("cc_binary(name = \"app_{n}\", srcs = [\"app_{n}.cc\"], deps = {deps})\n");
        }
        for n in 0..GENERATED {
            build += &format!("genrule(name = \"made_{n}\", outs = [\"made_{n}.txt\"], cmd = \"echo {n} > $@\")\n");
        }
        write(&project.dir.join("BUILD"), &build);
        project.write_stubs();
        project
    }

    /// Changes what every compilation reads.
    pub(crate) fn edit(&self, generation: u32) {
        self.sources.edit(generation);
    }

    /// Repositories that rules of C++ pull in, as far as old Bazels look into them.
    fn write_stubs(&self) {
        let cc = [
            "cc_library",
            "cc_binary",
            "cc_test",
            "cc_import",
            "cc_proto_library",
            "cc_toolchain",
            "cc_toolchain_suite",
            "objc_library",
        ];
        let java = [
            "java_import",
            "java_runtime",
            "java_toolchain",
            "java_library",
            "java_binary",
            "java_test",
            "java_proto_library",
            "java_plugin",
            "java_package_configuration",
        ];
        for (repository, folder, names) in [("rules_cc", "cc", &cc[..]), ("rules_java", "java", &java[..])] {
            let root = self.stubs.join(repository);
            write(&root.join("WORKSPACE"), "");
            write(&root.join("BUILD"), "");
            write(&root.join(folder).join("BUILD"), "");
            let rules: String =
                names.iter().map(|name| format!("def {name}(**kw):\n    native.{name}(**kw)\n")).collect();
            write(&root.join(folder).join("defs.bzl"), &rules);
        }
    }

    /// Flags that put the stand-ins in place.
    pub(crate) fn overrides(&self) -> Vec<String> {
        ["rules_cc", "rules_java"]
            .map(|name| format!("--override_repository={name}={}", self.stubs.join(name).display()))
            .to_vec()
    }

    /// Object files that are there now.
    pub(crate) fn objects(&self) -> usize {
        fn count(dir: &Path) -> usize {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries
                .map(|entry| match entry.file_type() {
                    Ok(kind) if kind.is_dir() => count(&entry.path()),
                    _ => usize::from(entry.path().extension().is_some_and(|extension| extension == "o")),
                })
                .sum()
        }
        count(&self.dir.join("bazel-bin"))
    }
}
