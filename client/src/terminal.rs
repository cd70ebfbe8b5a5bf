//! Asking the person at the keyboard. Questions go to stderr, so that stdout stays data.

use crate::error::Error;
use std::io::{self, IsTerminal as _, Write as _};

/// Whether somebody can be asked.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// A line, as it is typed.
pub(crate) fn ask(question: &str) -> Result<String, Error> {
    put(question)?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|e| Error::local("read the answer", e))?;
    Ok(line.trim().to_owned())
}

fn put(question: &str) -> Result<(), Error> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "# {question} ").and_then(|()| stderr.flush()).map_err(|e| Error::local("ask a question", e))
}

/// A line that is not shown.
#[cfg(unix)]
pub(crate) fn ask_secret(question: &str) -> Result<String, Error> {
    use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
    use std::io::Read as _;

    /// Puts the terminal back, whatever happens.
    struct Restore(Termios);
    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
        }
    }

    let failed = |e: rustix::io::Errno| Error::local("hide what is typed", e.into());
    let before = tcgetattr(io::stdin()).map_err(failed)?;
    let mut hidden = before.clone();
    // Byte by byte and without signals: Ctrl-C must not leave a terminal that shows nothing.
    hidden.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
    let restore = Restore(before);
    tcsetattr(io::stdin(), OptionalActions::Flush, &hidden).map_err(failed)?;
    // Asked only now: whoever answers as soon as they are asked is neither shown nor flushed.
    put(question)?;
    let mut typed = Vec::new();
    let mut stdin = io::stdin().lock();
    let mut byte = [0];
    let ended = loop {
        match stdin.read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(Error::local("read the answer", error)),
            Ok(0) => break Ok(()),
            Ok(_) => match byte[0] {
                b'\r' | b'\n' | 4 => break Ok(()),
                3 => break Err(Error::Interrupted),
                8 | 127 => drop(typed.pop()),
                other if typed.len() < 4096 => typed.push(other),
                _ => {}
            },
        }
    };
    drop(restore);
    let _ = writeln!(io::stderr());
    ended?;
    Ok(String::from_utf8_lossy(&typed).trim().to_owned())
}

/// A line that is not shown: not here.
#[cfg(not(unix))]
pub(crate) fn ask_secret(_question: &str) -> Result<String, Error> {
    Err(Error::usage("this system's terminal would show what is typed", "give the token with --token-file"))
}
