//! Signals as ssh names them.

use russh::Sig;
use std::mem::discriminant;

/// The names that ssh has (RFC 4254, section 6.10), as Linux numbers them.
const STANDARD: [(Sig, i32); 12] = [
    (Sig::HUP, 1),
    (Sig::INT, 2),
    (Sig::QUIT, 3),
    (Sig::ILL, 4),
    (Sig::ABRT, 6),
    (Sig::FPE, 8),
    (Sig::KILL, 9),
    (Sig::USR1, 10),
    (Sig::SEGV, 11),
    (Sig::PIPE, 13),
    (Sig::ALRM, 14),
    (Sig::TERM, 15),
];
/// What Linux has besides.
const MORE: [(&str, i32); 4] = [("TRAP", 5), ("BUS", 7), ("USR2", 12), ("XCPU", 24)];

/// The name of a signal.
pub(super) fn name(number: i32) -> Sig {
    if let Some((name, _)) = STANDARD.into_iter().find(|(_, known)| *known == number) {
        return name;
    }
    // Names of one's own have an @, says the RFC.
    Sig::Custom(match MORE.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => format!("{name}@motefarm"),
        None => format!("{number}@motefarm"),
    })
}

/// The number of a signal a client names; `None`: there is no such signal.
pub(super) fn number(signal: &Sig) -> Option<i32> {
    if let Sig::Custom(name) = signal {
        let name = name.split('@').next()?;
        return MORE.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    }
    // All that is left have nothing in them but their kind.
    STANDARD.iter().find(|(known, _)| discriminant(known) == discriminant(signal)).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_one_name_each_way() {
        let numbers = STANDARD.map(|(_, number)| number).into_iter().chain(MORE.map(|(_, number)| number));
        for signal in numbers {
            assert_eq!(number(&name(signal)), Some(signal), "{signal}");
        }
        assert_eq!(number(&Sig::Custom("USR2".to_owned())), Some(12));
        assert_eq!(number(&Sig::Custom("NONE".to_owned())), None);
        assert!(matches!(name(99), Sig::Custom(name) if name == "99@motefarm"));
    }
}
