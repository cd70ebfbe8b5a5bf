//! Which platform properties an action carries: those of the configuration, and of the client's only the
//! allowed ones. No property is built in: schedulers match them exactly. Pure.

use super::refusal::Refusal;
use motefarm_proto::goma::RequesterInfo;
use motefarm_proto::goma::requester_info::PathStyle;
use motefarm_proto::reapi::{Platform, platform};
use std::collections::{BTreeMap, BTreeSet};

/// Properties for requests of some dimensions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlatformRule {
    /// What it is for (`os:linux`); a request is served by the first rule that has all of its own.
    pub dimensions: BTreeSet<String>,
    /// Name and value.
    pub properties: BTreeMap<String, String>,
}

/// What an operator decides of platforms.
#[derive(Debug, Clone, Default)]
pub struct PlatformRules {
    /// In order.
    pub rules: Vec<PlatformRule>,
    /// Names a client may set itself.
    pub client_may_set: BTreeSet<String>,
}

impl PlatformRules {
    /// The platform for a request.
    pub fn choose(&self, requester: &RequesterInfo) -> Result<Platform, Refusal> {
        if requester.path_style() == PathStyle::WindowsStyle {
            return Err(Refusal::never("paths in Windows style: this server's workers run Linux"));
        }
        let fits = |rule: &&PlatformRule| requester.dimensions.iter().all(|asked| rule.dimensions.contains(asked));
        let rule = self.rules.iter().find(fits).ok_or_else(|| {
            let known: Vec<String> = self.rules.iter().map(|rule| format!("{:?}", rule.dimensions)).collect();
            let (asked, known) = (&requester.dimensions, known.join(", "));
            Refusal::never(format!("no [[platform]] has the dimensions {asked:?}; configured are {known}"))
        })?;
        let mut properties = rule.properties.clone();
        for property in &requester.platform_properties {
            if !self.client_may_set.contains(property.name()) {
                return Err(Refusal::never(format!(
                    "a client may not set the platform property {:?}; the server's configuration allows {:?} \
                     (client_platform_properties)",
                    property.name(),
                    self.client_may_set
                )));
            }
            properties.insert(property.name().to_owned(), property.value().to_owned());
        }
        let properties = properties.into_iter().map(|(name, value)| platform::Property { name, value });
        Ok(Platform { properties: properties.collect() })
    }
}

/// Name and value of each, for people.
pub fn describe(platform: &Platform) -> String {
    let pairs: Vec<String> = platform.properties.iter().map(|p| format!("{}={}", p.name, p.value)).collect();
    if pairs.is_empty() { "no properties".to_owned() } else { pairs.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use motefarm_proto::goma::PlatformProperty;

    fn rules() -> PlatformRules {
        let rule = |dimensions: &[&str], properties: &[(&str, &str)]| PlatformRule {
            dimensions: dimensions.iter().map(|d| (*d).to_owned()).collect(),
            properties: properties.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        };
        PlatformRules {
            rules: vec![
                rule(&["os:linux"], &[("container-image", "docker://a"), ("OSFamily", "linux")]),
                rule(&["os:linux", "os:linux-hermetic"], &[("OSFamily", "chroot")]),
            ],
            client_may_set: ["container-image".to_owned()].into(),
        }
    }

    fn requester(dimensions: &[&str], properties: &[(&str, &str)]) -> RequesterInfo {
        let property = |(name, value): &(&str, &str)| PlatformProperty {
            name: Some((*name).to_owned()),
            value: Some((*value).to_owned()),
        };
        RequesterInfo {
            dimensions: dimensions.iter().map(|d| (*d).to_owned()).collect(),
            platform_properties: properties.iter().map(property).collect(),
            ..RequesterInfo::default()
        }
    }

    #[test]
    fn properties_are_exactly_the_configured_ones_and_sorted() {
        let chosen = |requester| rules().choose(&requester).map(|platform| describe(&platform)).ok();
        assert_eq!(chosen(requester(&["os:linux"], &[])).unwrap(), "OSFamily=linux, container-image=docker://a");
        assert_eq!(chosen(requester(&[], &[])).unwrap(), "OSFamily=linux, container-image=docker://a");
        assert_eq!(chosen(requester(&["os:linux-hermetic"], &[])).unwrap(), "OSFamily=chroot");
        let own = chosen(requester(&["os:linux"], &[("container-image", "docker://b")])).unwrap();
        assert_eq!(own, "OSFamily=linux, container-image=docker://b");
        assert_eq!(describe(&Platform::default()), "no properties");
    }

    #[test]
    fn what_is_not_served_is_named() {
        let why = |requester| match rules().choose(&requester).unwrap_err() {
            Refusal::Never(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(why(requester(&["os:win"], &[])).contains("os:win"));
        assert!(why(requester(&["os:linux"], &[("dockerPrivileged", "true")])).contains("dockerPrivileged"));
        let windows = RequesterInfo { path_style: Some(PathStyle::WindowsStyle.into()), ..RequesterInfo::default() };
        assert!(why(windows).contains("Windows"));
    }
}
