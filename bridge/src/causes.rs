//! An error's words with those of what is below it: a transport that failed says only so, and why is further
//! down. Each thing is said once.

use std::error::Error;

/// `said`, and what the causes of `error` add to it.
pub(crate) fn causes(mut said: String, error: &dyn Error) -> String {
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !said.contains(&words) {
            said = format!("{said}: {words}");
        }
        source = cause.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Because {
        words: &'static str,
        source: Option<Box<Because>>,
    }

    #[test]
    fn each_cause_is_said_once() {
        let below = |words, source: Option<Because>| Because { words, source: source.map(Box::new) };
        let refused = below("refused", None);
        let error = below("transport error", Some(below("tcp: refused", Some(refused))));
        assert_eq!(causes(error.to_string(), &error), "transport error: tcp: refused");
        assert_eq!(causes(String::new(), &below("x", None)), "");
    }
}
