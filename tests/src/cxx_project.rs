//! A project of C and C++ to be compiled: libraries that use one another, and programs that check them.
//! The bridge's own tests take this file in by path.

use std::fs;
use std::path::{Path, PathBuf};

/// Numbers in the table of a large library: its object is over 2 MiB.
const TABLE: usize = 300_000;
/// One library of C in this many has such a table.
const LARGE_EVERY: usize = 16;

/// How much of it there is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Libraries of C, and as many of C++.
    pub libraries: usize,
    /// Programs; each uses a library of either kind.
    pub programs: usize,
    /// Units that include nothing of the system's.
    pub freestanding: usize,
    /// With the system's headers, paths that climb, and objects over 2 MiB; else as plain as can be.
    pub demanding: bool,
}

/// See the module.
pub struct CxxProject {
    /// Where it is.
    pub dir: PathBuf,
    shape: Shape,
}

/// What one file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// C.
    C,
    /// C++.
    Cxx,
    /// C without the system's headers.
    Freestanding,
}

/// A translation unit.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Of its files, without an ending.
    pub stem: String,
    /// What it is.
    pub kind: Kind,
}

impl Unit {
    /// The name of its source.
    pub fn source(&self) -> String {
        format!("{}.{}", self.stem, if self.kind == Kind::Cxx { "cc" } else { "c" })
    }
}

/// Writes a file, and the folders it is in.
pub fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder of the project");
    fs::write(path, text).expect("a file of the project");
}

impl CxxProject {
    /// Writes it all into `dir`.
    pub fn write(dir: &Path, shape: Shape) -> Self {
        let project = Self { dir: dir.to_owned(), shape };
        for n in 0..shape.libraries {
            project.write_library(n, "c");
            project.write_library(n, "cc");
        }
        for n in 0..shape.programs {
            let text = format!(
                "#include \"c_{n}.h\"\n#include \"cc_{n}.h\"\n#include <cstdio>\n\
                 int main() {{ std::printf(\"%d %d\\n\", c_{n}(), cc_{n}()); }}\n"
            );
            write(&project.dir.join(format!("app_{n}.cc")), &text);
        }
        for n in 0..shape.freestanding {
            let text = format!(
                "#include <stdarg.h>\n#include <stddef.h>\n#include \"common.h\"\n\
                 size_t free_{n}(size_t count, ...) {{\n  va_list rest;\n  va_start(rest, count);\n  size_t sum = {n};\n  \
                 while (count--) sum += va_arg(rest, size_t);\n  va_end(rest);\n  return sum;\n}}\n"
            );
            write(&project.dir.join(format!("free_{n}.c")), &text);
        }
        write(&project.dir.join("parts/numbers.h"), "#define ONE 1\n");
        project.edit(0);
        project
    }

    /// Changes what every compilation reads.
    pub fn edit(&self, generation: u32) {
        write(&self.dir.join("common.h"), &format!("#define GENERATION {generation}\n"));
    }

    /// Everything that is compiled.
    pub fn units(&self) -> Vec<Unit> {
        let named =
            |prefix: &'static str, kind, count| (0..count).map(move |n| Unit { stem: format!("{prefix}_{n}"), kind });
        named("c", Kind::C, self.shape.libraries)
            .chain(named("cc", Kind::Cxx, self.shape.libraries))
            .chain(named("app", Kind::Cxx, self.shape.programs))
            .chain(named("free", Kind::Freestanding, self.shape.freestanding))
            .collect()
    }

    /// What program `n` writes.
    pub fn expected(n: usize) -> String {
        // Library k adds k to what the one before it says; the C++ ones begin with 1.
        let sum: usize = (0..=n).sum();
        format!("{sum} {}", sum + 1)
    }

    fn write_library(&self, n: usize, kind: &str) {
        let name = format!("{kind}_{n}");
        let declared = format!("int {name}(void);\n");
        let c = format!("#ifdef __cplusplus\nextern \"C\"\n#endif\n{declared}");
        write(&self.dir.join(format!("{name}.h")), if kind == "c" { &c } else { &declared });
        let before = n.checked_sub(1).map(|m| format!("{kind}_{m}"));
        let start = match before {
            Some(ref before) => format!("{before}()"),
            None => usize::from(kind == "cc").to_string(),
        };
        let climbing = if self.shape.demanding { "parts/../" } else { "" };
        let mut text = String::from("#include \"common.h\"\n");
        if let Some(before) = before {
            text += &format!("#include \"{climbing}{before}.h\"\n");
        }
        text += &match (self.shape.demanding, kind) {
            (false, _) => format!("int {name}(void) {{ return {start} + {n}; }}\n"),
            (true, "c") => demanding_c(n, &start),
            (true, _) => demanding_cxx(n, &start),
        };
        write(&self.dir.join(format!("{name}.{kind}")), &text);
    }
}

fn demanding_c(n: usize, start: &str) -> String {
    let table = match n % LARGE_EVERY {
        0 => format!(
            "unsigned table_{n}[{TABLE}] = {{[0] = {n}, [{}] = ONE}};\nlong more_{n}[{TABLE}] = {{ONE}};\n",
            TABLE / 2
        ),
        _ => String::new(),
    };
    format!(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include \"parts/numbers.h\"\n{table}\
         int c_{n}(void) {{\n  char text[16];\n  snprintf(text, sizeof text, \"%d\", {n});\n  \
         return {start} + (strlen(text) ? atoi(text) * ONE : 0);\n}}\n"
    )
}

fn demanding_cxx(n: usize, start: &str) -> String {
    format!(
        "#include <map>\n#include <string>\n#include <vector>\n#include \"parts/numbers.h\"\n\
         int cc_{n}(void) {{\n  std::map<std::string, std::vector<int>> numbers;\n  \
         numbers[\"{n}\"].push_back({n} * ONE);\n  return {start} + numbers.begin()->second.front();\n}}\n"
    )
}
