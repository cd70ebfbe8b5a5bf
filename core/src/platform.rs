//! What an action asks of a machine, and what machines offer.

use crate::host_type::HostType;
use std::collections::{BTreeMap, BTreeSet};

/// Most properties an action may ask for; real ones have a handful.
pub const MAX_PROPERTIES: usize = 100;
/// Longest name or value of a property, in bytes.
pub const MAX_PROPERTY_BYTES: usize = 4096;

/// The property by which an action asks how its input's files and the machine's come together, where both have
/// a directory of the same name in the root; without it the input's hides the machine's.
pub const SYSTEM_FILES: &str = "system-files";
/// Its one value: the input's lie over the machine's, file by file.
pub const MERGED: &str = "merged";

/// What runs actions is Linux. The API's lexicon has lower case, examples a capital.
const SYSTEM: &[&str] = &["linux", "Linux"];
/// Spellings of processors: the API's lexicon, the kernel's, Go's.
const PROCESSORS: &[&[&str]] = &[
    &["x86-64", "x86_64", "amd64"],
    &["arm-a64", "aarch64", "arm64"],
    &["x86-32", "x86", "386"],
    &["arm"],
    &["riscv64"],
    &["ppc64le"],
    &["s390x"],
    &["loong64"],
];

/// The properties an action asks for, by name and value; a name may occur with several values, all of
/// which are asked for. Equal demands are equal values, whatever order they came in.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Demand(BTreeSet<(String, String)>);

/// Why properties are no demand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DemandError {
    /// A property without a name.
    #[error("a property without a name, of value {0:?}")]
    Nameless(String),
    /// Too many.
    #[error("{0} properties; at most {MAX_PROPERTIES}")]
    TooMany(usize),
    /// Too long.
    #[error("property {0:?} is longer than {MAX_PROPERTY_BYTES} bytes")]
    TooLong(String),
}

impl Demand {
    /// From name and value of each property.
    pub fn new(properties: impl IntoIterator<Item = (String, String)>) -> Result<Self, DemandError> {
        let mut all = BTreeSet::new();
        for (at, (name, value)) in properties.into_iter().enumerate() {
            let shown = |text: &str| text.chars().take(80).collect();
            if at >= MAX_PROPERTIES {
                return Err(DemandError::TooMany(at + 1));
            }
            if name.is_empty() {
                return Err(DemandError::Nameless(shown(&value)));
            }
            if name.len().max(value.len()) > MAX_PROPERTY_BYTES {
                return Err(DemandError::TooLong(shown(&name)));
            }
            all.insert((name, value));
        }
        Ok(Self(all))
    }
}

/// The properties one machine has, each with the values that it answers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer(BTreeMap<String, BTreeSet<String>>);

impl Offer {
    /// What a machine of this type offers: `host-type`, `sandbox` (how actions are kept apart), [`SYSTEM_FILES`] where
    /// it can merge them, the labels it was given, and, in every spelling that clients are known to use, `OSFamily`, `ISA` and
    /// `Arch`. A label wins over those.
    pub fn new<'a>(
        host_type: &HostType,
        sandbox: &str,
        merges: bool,
        labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Self {
        let mut offer = Self::default();
        offer.insert("OSFamily", SYSTEM);
        // Host types are called as their operator likes; only what is surely a processor is taken for one.
        let spellings = PROCESSORS.iter().find(|known| host_type.as_str().split('-').any(|part| known.contains(&part)));
        if let Some(spellings) = spellings {
            offer.insert("ISA", spellings);
            offer.insert("Arch", spellings);
        }
        offer.insert("host-type", &[host_type.as_str()]);
        for (name, value) in labels {
            offer.insert(name, &[value]);
        }
        // After the labels: nobody may call themselves sandboxed.
        offer.insert("sandbox", &[sandbox]);
        offer.0.remove(SYSTEM_FILES);
        if merges {
            offer.insert(SYSTEM_FILES, &[MERGED]);
        }
        offer
    }

    fn insert(&mut self, name: &str, values: &[&str]) {
        self.0.insert(name.to_owned(), values.iter().map(|value| (*value).to_owned()).collect());
    }

    /// Whether this machine has all that is asked for.
    pub fn satisfies(&self, demand: &Demand) -> bool {
        self.unmet(demand).is_none()
    }

    fn unmet<'a>(&self, demand: &'a Demand) -> Option<&'a (String, String)> {
        demand.0.iter().find(|(name, value)| !self.0.get(name).is_some_and(|values| values.contains(value)))
    }
}

/// Why none of `offers` satisfies a demand, for its author; `None`: one does.
pub fn unmet_by_all<'a>(demand: &Demand, offers: impl IntoIterator<Item = &'a Offer> + Clone) -> Option<String> {
    if offers.clone().into_iter().any(|offer| offer.satisfies(demand)) {
        return None;
    }
    if offers.clone().into_iter().next().is_none() {
        return Some("no machine of this farm takes actions".to_owned());
    }
    // A property that no machine has says most; failing that they only do not come together.
    for (name, value) in &demand.0 {
        let known: BTreeSet<&String> =
            offers.clone().into_iter().filter_map(|offer| offer.0.get(name)).flatten().collect();
        if known.is_empty() {
            return Some(format!("no machine of this farm has a property {name:?}"));
        }
        if !known.contains(value) {
            let known: Vec<&str> = known.into_iter().take(10).map(String::as_str).collect();
            return Some(format!("no machine of this farm has {name:?} of {value:?}; there is {}", known.join(", ")));
        }
    }
    Some("no one machine of this farm has all the properties asked for".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(properties: &[(&str, &str)]) -> Demand {
        Demand::new(properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))).unwrap()
    }

    fn offer(host_type: &str, labels: &[(&str, &str)]) -> Offer {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Offer::new(&host_type.parse().unwrap(), "bubblewrap", host_type.starts_with("linux"), &labels)
    }

    #[test]
    fn a_machine_is_known_by_type_labels_and_the_usual_spellings() {
        let machine = offer("linux-amd64-deb12", &[("pool", "big"), ("sandbox", "none"), ("system-files", "hidden")]);
        for good in [
            &[][..],
            &[("OSFamily", "linux"), ("ISA", "x86-64")],
            &[("OSFamily", "Linux"), ("Arch", "amd64"), ("Arch", "x86_64")],
            &[("host-type", "linux-amd64-deb12"), ("pool", "big")],
            &[("sandbox", "bubblewrap")],
            &[("system-files", "merged")],
        ] {
            assert!(machine.satisfies(&demand(good)), "{good:?}");
        }
        for bad in [
            &[("OSFamily", "windows")][..],
            &[("pool", "small")],
            &[("pool", "big"), ("pool", "small")],
            &[("container-image", "docker://x")],
            &[("sandbox", "none")],
            &[("system-files", "hidden")],
            &[("Arch", "386")],
        ] {
            assert!(!machine.satisfies(&demand(bad)), "{bad:?}");
        }
    }

    #[test]
    fn what_nobody_has_is_named() {
        let both = [offer("linux-amd64", &[("gpu", "no")]), offer("linux-arm64", &[("gpu", "yes")])];
        let why = |properties: &[(&str, &str)]| unmet_by_all(&demand(properties), &both);
        assert_eq!(why(&[("gpu", "yes")]), None);
        assert!(why(&[("disk", "x")]).unwrap().contains("\"disk\""));
        assert!(why(&[("gpu", "maybe")]).unwrap().contains("no, yes"));
        assert!(why(&[("gpu", "yes"), ("ISA", "x86-64")]).unwrap().contains("no one machine"));
        let named_at_will = offer("far-away", &[]);
        assert!(named_at_will.satisfies(&demand(&[("OSFamily", "linux"), ("host-type", "far-away")])));
        assert!(!named_at_will.satisfies(&demand(&[("ISA", "away")])));
        assert!(!named_at_will.satisfies(&demand(&[("system-files", "merged")])));
        assert!(unmet_by_all(&Demand::default(), &[]).unwrap().contains("takes actions"));
    }

    #[test]
    fn what_is_no_demand_is_refused() {
        let one = |name: &str, value: &str| Demand::new([(name.to_owned(), value.to_owned())]);
        assert_eq!(one("", "v"), Err(DemandError::Nameless("v".to_owned())));
        assert!(matches!(one("n", &"v".repeat(5000)), Err(DemandError::TooLong(_))));
        let many = (0..101).map(|n| (n.to_string(), String::new()));
        assert_eq!(Demand::new(many), Err(DemandError::TooMany(101)));
    }
}
