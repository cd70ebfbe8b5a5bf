//! Several commands' output on one stdout and stderr: line by line, each with its instance's name.

use super::passthrough::{Passthrough, Piece};
use crate::error::Error;
use bytes::{Bytes, BytesMut};
use motefarm_core::exec::OutputStream;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// A line longer than this is shown in several.
const MAX_LINE: usize = 64 * 1024;

/// The outputs that all share.
#[derive(Clone)]
pub(crate) struct Shared(Rc<RefCell<Inner>>);

struct Inner {
    out: Passthrough,
    /// What did not fit, since all were told there was room: at most one batch of each.
    backlog: VecDeque<Vec<Piece>>,
    /// Nobody sees it any more.
    closed: bool,
}

/// One command's way to them.
pub(crate) struct Named {
    lines: Lines,
    shared: Shared,
    told_closed: bool,
}

impl Shared {
    /// Takes hold of stdout and stderr.
    pub(crate) fn open() -> Result<Self, Error> {
        let inner = Inner { out: Passthrough::open()?, backlog: VecDeque::new(), closed: false };
        Ok(Self(Rc::new(RefCell::new(inner))))
    }

    /// Whether stdout and stderr are the same place.
    pub(crate) fn is_one_place(&self) -> bool {
        self.0.borrow().out.is_one_place()
    }

    /// For the command on this instance.
    pub(crate) fn named(&self, name: &str) -> Named {
        Named { lines: Lines::new(name), shared: self.clone(), told_closed: false }
    }

    fn has_room(&self) -> bool {
        let inner = self.0.borrow();
        inner.backlog.is_empty() && inner.out.has_room()
    }

    async fn room(&self) {
        loop {
            self.0.borrow_mut().flush();
            if self.has_room() {
                return;
            }
            let queue = self.0.borrow().out.queue();
            if let Some(queue) = queue {
                drop(queue.reserve().await);
            }
        }
    }

    /// Waits until everything shown has been taken. For when no command shows any more.
    pub(crate) async fn drained(self) -> Result<(), Error> {
        self.room().await;
        let Ok(inner) = Rc::try_unwrap(self.0) else { return Ok(()) };
        inner.into_inner().out.drained().await
    }
}

impl Inner {
    fn flush(&mut self) {
        while self.out.has_room() {
            let Some(batch) = self.backlog.pop_front() else { break };
            self.closed |= self.out.show(batch).is_err();
        }
    }
}

impl Named {
    /// See [`Passthrough::has_room`].
    pub(crate) fn has_room(&self) -> bool {
        self.shared.has_room()
    }

    /// Waits for it.
    pub(crate) async fn room(&self) {
        self.shared.room().await;
    }

    /// Shows what makes whole lines now, and the rest later.
    pub(crate) fn show(&mut self, batch: Vec<Piece>) -> Result<(), Error> {
        let lines: Vec<Piece> =
            batch.into_iter().map(|(stream, data)| (stream, self.lines.take(stream, &data))).collect();
        self.pass(lines)
    }

    /// Shows what never became a whole line.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        let rest = self.lines.rest();
        self.pass(rest)
    }

    fn pass(&mut self, mut lines: Vec<Piece>) -> Result<(), Error> {
        lines.retain(|(_, data)| !data.is_empty());
        let mut inner = self.shared.0.borrow_mut();
        if !lines.is_empty() {
            inner.backlog.push_back(lines);
            inner.flush();
        }
        if inner.closed && !std::mem::replace(&mut self.told_closed, true) {
            return Err(Error::StdoutClosed);
        }
        Ok(())
    }
}

/// Cuts one command's output into lines with a name before each.
struct Lines {
    prefix: String,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Lines {
    fn new(name: &str) -> Self {
        Self { prefix: format!("{name}: "), stdout: Vec::new(), stderr: Vec::new() }
    }

    fn take(&mut self, stream: OutputStream, data: &[u8]) -> Bytes {
        let partial = match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        };
        let mut out = BytesMut::with_capacity(data.len() + data.len() / 16);
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            for part in part.chunks(MAX_LINE) {
                partial.extend_from_slice(part);
                if part.ends_with(b"\n") || partial.len() >= MAX_LINE {
                    write_line(&mut out, &self.prefix, partial);
                }
            }
        }
        out.freeze()
    }

    fn rest(&mut self) -> Vec<Piece> {
        let prefix = &self.prefix;
        let one = |stream, partial: &mut Vec<u8>| {
            let mut out = BytesMut::new();
            if !partial.is_empty() {
                write_line(&mut out, prefix, partial);
            }
            (stream, out.freeze())
        };
        vec![one(OutputStream::Stdout, &mut self.stdout), one(OutputStream::Stderr, &mut self.stderr)]
    }
}

fn write_line(out: &mut BytesMut, prefix: &str, line: &mut Vec<u8>) {
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(line);
    if !line.ends_with(b"\n") {
        out.extend_from_slice(b"\n");
    }
    line.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use OutputStream::{Stderr, Stdout};
    use proptest::prelude::*;

    #[test]
    fn lines_of_both_streams_are_whole_and_named() {
        let mut lines = Lines::new("i");
        assert_eq!(lines.take(Stdout, b"one\ntw"), "i: one\n");
        assert_eq!(lines.take(Stderr, b"err\n"), "i: err\n");
        assert_eq!(lines.take(Stdout, b"o\n\nthree"), "i: two\ni: \n");
        assert_eq!(lines.rest(), [(Stdout, Bytes::from("i: three\n")), (Stderr, Bytes::new())]);
        assert!(lines.rest().iter().all(|(_, data)| data.is_empty()));
    }

    #[test]
    fn a_line_without_end_is_not_held_for_ever() {
        let mut lines = Lines::new("i");
        let mut shown = 0;
        for _ in 0..100 {
            shown += lines.take(Stdout, &[b'x'; 10_000]).len();
            assert!(lines.stdout.len() <= MAX_LINE + 10_000);
        }
        assert!(shown > 900_000);
    }

    proptest! {
        #[test]
        fn cut_anywhere_the_lines_are_the_same(text in "[ab\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..5)) {
            let whole: String = text.split_inclusive('\n').map(|line| format!("i: {}\n", line.trim_end_matches('\n'))).collect();
            let mut lines = Lines::new("i");
            let mut shown = Vec::new();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            for pair in cuts.windows(2) {
                shown.extend_from_slice(&lines.take(Stdout, &text.as_bytes()[pair[0]..pair[1]]));
            }
            shown.extend(lines.rest().into_iter().flat_map(|(_, data)| data));
            prop_assert_eq!(String::from_utf8(shown).unwrap(), whole);
        }
    }
}
