//! `-until`: whether a run's whole output matches a regular expression, in linear time and memory
//! that does not grow with the output.
//!
//! A lazy DFA takes one byte after the other, so a match may lie across any boundary of what was
//! read. Go's meaning holds, where the two differ: `\b` is about ASCII words.

use regex_automata::Anchored;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::start;
use regex_syntax::hir::{Capture, Hir, HirKind, Look, Repetition};
use std::io::{self, Read};
use std::sync::Arc;

/// An expression whose automaton is larger than this is refused.
const MAX_NFA_BYTES: usize = 10 * 1024 * 1024;
/// Memory for the automaton's states that were needed so far; when it is full they are made again.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// A compiled expression.
#[derive(Clone)]
pub(crate) struct Until {
    dfa: Arc<DFA>,
}

impl Until {
    /// Compiles it. The error is what is wrong with it, on one line.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        let last_line = |text: String| text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        // Matching bytes: output need not be UTF-8.
        let mut parser = regex_syntax::ParserBuilder::new().utf8(false).build();
        let hir = parser.parse(pattern).map_err(|e| last_line(e.to_string()))?;
        let config =
            thompson::Config::new().utf8(false).which_captures(WhichCaptures::None).nfa_size_limit(Some(MAX_NFA_BYTES));
        let nfa = thompson::Compiler::new().configure(config).build_from_hir(&go_words(&hir));
        let nfa = nfa.map_err(|e| last_line(e.to_string()))?;
        let config = DFA::config().cache_capacity(CACHE_BYTES).skip_cache_capacity_check(true);
        let dfa = DFA::builder().configure(config).build_from_nfa(nfa).map_err(|e| last_line(e.to_string()))?;
        Ok(Self { dfa: Arc::new(dfa) })
    }

    /// Reads to the first match, or to the end.
    pub(crate) fn matches(&self, mut output: impl Read) -> io::Result<bool> {
        let mut scan = Scan::new(&self.dfa)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match output.read(&mut piece) {
                Ok(0) => return scan.end(),
                Ok(n) => match scan.feed(&piece[..n])? {
                    Verdict::Open => {}
                    Verdict::Matched => return Ok(true),
                    Verdict::Hopeless => return Ok(false),
                },
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

enum Verdict {
    Open,
    Matched,
    /// Whatever follows.
    Hopeless,
}

/// One pass over one output.
struct Scan<'a> {
    dfa: &'a DFA,
    cache: Cache,
    state: regex_automata::hybrid::LazyStateID,
}

impl<'a> Scan<'a> {
    fn new(dfa: &'a DFA) -> io::Result<Self> {
        let mut cache = dfa.create_cache();
        let config = start::Config::new().anchored(Anchored::No);
        let state = dfa.start_state(&mut cache, &config).map_err(io::Error::other)?;
        Ok(Self { dfa, cache, state })
    }

    fn feed(&mut self, bytes: &[u8]) -> io::Result<Verdict> {
        for &byte in bytes {
            self.state = self.dfa.next_state(&mut self.cache, self.state, byte).map_err(io::Error::other)?;
            if self.state.is_tagged() {
                if self.state.is_match() {
                    return Ok(Verdict::Matched);
                }
                if self.state.is_dead() {
                    return Ok(Verdict::Hopeless);
                }
                if self.state.is_quit() {
                    return Err(io::Error::other("the expression can not be matched against these bytes"));
                }
            }
        }
        Ok(Verdict::Open)
    }

    /// Matches are seen one byte late, and `$` only at the end.
    fn end(mut self) -> io::Result<bool> {
        let last = self.dfa.next_eoi_state(&mut self.cache, self.state).map_err(io::Error::other)?;
        Ok(last.is_match())
    }
}

/// The same expression with ASCII's word boundaries, as Go has them; a DFA could not have the others.
fn go_words(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0.clone()),
        HirKind::Class(class) => Hir::class(class.clone()),
        HirKind::Look(look) => Hir::look(match look {
            Look::WordUnicode => Look::WordAscii,
            Look::WordUnicodeNegate => Look::WordAsciiNegate,
            Look::WordStartUnicode => Look::WordStartAscii,
            Look::WordEndUnicode => Look::WordEndAscii,
            Look::WordStartHalfUnicode => Look::WordStartHalfAscii,
            Look::WordEndHalfUnicode => Look::WordEndHalfAscii,
            other => *other,
        }),
        HirKind::Repetition(repetition) => {
            Hir::repetition(Repetition { sub: Box::new(go_words(&repetition.sub)), ..repetition.clone() })
        }
        HirKind::Capture(capture) => Hir::capture(Capture { sub: Box::new(go_words(&capture.sub)), ..capture.clone() }),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(go_words).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(go_words).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives its bytes in pieces of one size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn matches(pattern: &str, output: &[u8]) -> bool {
        Until::new(pattern).unwrap().matches(output).unwrap()
    }

    #[test]
    fn the_whole_output_counts_as_one_text() {
        let output = b"=== RUN   TestFlaky\n--- FAIL: TestFlaky (0.00s)\nunexpected return pc for x\nFAIL\n";
        for yes in ["FAIL", "unexpected return pc", r"^=== RUN", r"FAIL\n$", "(?m)^FAIL$", "(?s)RUN.*pc", r"\bpc\b", ""]
        {
            assert!(matches(yes, output), "{yes}");
        }
        for no in ["^FAIL$", "PASS", "RUN.*pc", r"\bai", "FAIL$"] {
            assert!(!matches(no, output), "{no}");
        }
        assert!(matches("^$", b"") && !matches("x", b""));
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        assert!(matches("panic", b"\xff\xfe\0panic\xff"));
        assert!(matches(r"\bend\b", "é end ü".as_bytes()) && matches("[é]x", "éx".as_bytes()));
        assert!(matches(r"\bx", b"\xffx"));
    }

    #[test]
    fn mistakes_are_told_on_one_line_and_giants_refused() {
        for bad in ["(", "a{2", r"\p{Nonsense}", "(((a{1000}){1000}){1000})"] {
            let said = Until::new(bad).err().unwrap();
            assert!(!said.is_empty() && !said.contains('\n'), "{bad}: {said}");
        }
    }

    #[test]
    fn a_long_output_needs_no_more_memory_than_a_short_one() {
        let until = Until::new("(a|b)*ab{5}$").unwrap();
        let tail: &[u8] = b"abbbbb";
        assert!(until.matches(io::repeat(b'b').take(5_000_000).chain(tail)).unwrap());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            output in "[ab\n ]{0,40}",
            size in 1usize..7,
            pattern in prop::sample::select(vec!["ab+a", "^a", "b$", r"(?m)^b", r"\ba\b", "a.b", "(?s)a.b", "(ab){2}"]),
        ) {
            let until = Until::new(pattern).unwrap();
            let whole = until.matches(output.as_bytes()).unwrap();
            prop_assert_eq!(until.matches(Pieces(output.as_bytes(), size)).unwrap(), whole);
            let by_regex = regex_automata::hybrid::regex::Regex::new(&pattern.replace(r"\b", r"(?-u:\b)")).unwrap();
            let mut cache = by_regex.create_cache();
            prop_assert_eq!(by_regex.is_match(&mut cache, output.as_bytes()), whole);
        }
    }
}
