//! `mote completions` and `mote man`: what the program can write about itself.

use crate::cli::Cli;
use crate::error::Error;
use crate::exit_code::{self, ExitStatus};
use crate::printer::Printer;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use serde::Serialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Script {
    shell: String,
    script: String,
}

#[derive(Serialize)]
struct Page {
    page: String,
}

#[derive(Serialize)]
struct Pages {
    files: Vec<PathBuf>,
}

/// Prints a completion script.
pub(crate) fn completions(printer: Printer, shell: clap_complete::Shell) -> Result<ExitStatus, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mote", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    if printer.is_json() {
        printer.json(&Script { shell: shell.to_string(), script })?;
    } else {
        printer.bytes(script.as_bytes())?;
    }
    Ok(ExitStatus::Success)
}

/// Prints the page of the program, or writes all pages into a folder.
pub(crate) fn man(printer: Printer, dir: Option<&Path>) -> Result<ExitStatus, Error> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let unwritten = |e: io::Error| Error::local("write the manual page", e);
    let Some(dir) = dir else {
        let text = page(&root).map_err(unwritten)?;
        if printer.is_json() {
            printer.json(&Page { page: String::from_utf8_lossy(&text).into_owned() })?;
        } else {
            printer.bytes(&text)?;
        }
        return Ok(ExitStatus::Success);
    };
    fs::create_dir_all(dir).map_err(|e| Error::file("create the folder", dir, e))?;
    let mut files = Vec::new();
    write_all(dir, &root, &mut files)?;
    printer.message(format_args!("wrote {} pages to {}", files.len(), dir.display()));
    printer.data(&Pages { files }, String::new)?;
    Ok(ExitStatus::Success)
}

fn write_all(dir: &Path, command: &Command, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let path = dir.join(format!("{}.1", name(command)));
    let written = page(command).and_then(|text| fs::write(&path, text));
    written.map_err(|e| Error::file("write the manual page", &path, e))?;
    files.push(path);
    command.get_subcommands().try_for_each(|below| write_all(dir, below, files))
}

fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    Man::new(command.clone()).render(&mut text)?;
    if command.get_name() == "mote" {
        text.extend_from_slice(b".SH \"EXIT STATUS\"\n.nf\n");
        text.extend_from_slice(exit_code::TABLE.replace('\\', "\\\\").as_bytes());
        text.extend_from_slice(b"\n.fi\n");
    }
    Ok(text)
}
