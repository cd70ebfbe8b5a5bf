//! A project of C and C++ for Bazel: libraries that use one another, programs that check them, and what
//! stands in for the repositories that Bazel would fetch.

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
    stubs: PathBuf,
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder of the project");
    fs::write(path, text).expect("a file of the project");
}

impl Project {
    /// Writes it all.
    pub(crate) fn write(dir: &Path) -> Self {
        let project = Self { dir: dir.join("project"), stubs: dir.join("stubs") };
        write(&project.dir.join("WORKSPACE"), "");
        let mut build = String::new();
        for n in 0..LIBRARIES {
            project.write_library(&mut build, n, "c");
            project.write_library(&mut build, n, "cc");
        }
        for n in 0..PROGRAMS {
            let deps = format!("[\":c_{n}\", \":cc_{n}\"]");
            build += &format!("cc_binary(name = \"app_{n}\", srcs = [\"app_{n}.cc\"], deps = {deps})\n");
            let text = format!(
                "#include \"c_{n}.h\"\n#include \"cc_{n}.h\"\n#include <cstdio>\n\
                 int main() {{ std::printf(\"%d %d\\n\", c_{n}(), cc_{n}()); }}\n"
            );
            write(&project.dir.join(format!("app_{n}.cc")), &text);
        }
        for n in 0..GENERATED {
            build += &format!("genrule(name = \"made_{n}\", outs = [\"made_{n}.txt\"], cmd = \"echo {n} > $@\")\n");
        }
        write(&project.dir.join("BUILD"), &build);
        project.edit(0);
        project.write_stubs();
        project
    }

    /// Changes what every compilation reads.
    pub(crate) fn edit(&self, generation: u32) {
        write(&self.dir.join("common.h"), &format!("#define GENERATION {generation}\n"));
    }

    /// What program `n` writes.
    pub(crate) fn expected(n: usize) -> String {
        // Library k adds k to what the one before it says.
        let sum: usize = (0..=n).sum();
        format!("{sum} {}", sum + 1)
    }

    /// A library that adds its number to what the one before it says; the C++ ones begin with 1.
    fn write_library(&self, build: &mut String, n: usize, kind: &str) {
        let name = format!("{kind}_{n}");
        let before = n.checked_sub(1).map(|m| format!("{kind}_{m}"));
        let deps = before.as_ref().map_or(String::new(), |b| format!("\":{b}\""));
        *build += &format!(
            "cc_library(name = \"{name}\", srcs = [\"{name}.{kind}\"], hdrs = [\"{name}.h\", \"common.h\"], \
             deps = [{deps}], linkstatic = 1)\n"
        );
        let declared = format!("int {name}(void);\n");
        let c = format!("#ifdef __cplusplus\nextern \"C\"\n#endif\n{declared}");
        write(&self.dir.join(format!("{name}.h")), if kind == "c" { &c } else { &declared });
        let start = usize::from(kind == "cc");
        let text = match before {
            Some(b) => {
                format!("#include \"{b}.h\"\n#include \"common.h\"\nint {name}(void) {{ return {b}() + {n}; }}\n")
            }
            None => format!("#include \"common.h\"\nint {name}(void) {{ return {start}; }}\n"),
        };
        write(&self.dir.join(format!("{name}.{kind}")), &text);
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
