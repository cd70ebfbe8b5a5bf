//! Which instances a command acts on: the one place that decides it.
//!
//! Named instances win. Without any the members of the active group are meant. Where a command's
//! first word may be an instance or something else (`run [INSTANCE] COMMAND`), it is the instance
//! unless a group is active; then the farm is asked whether it is a live one.

use crate::connection::Farm;
use crate::error::Error;
use crate::group::ActiveGroup;
use crate::printer::Printer;
use motefarm_core::instance::InstanceState;
use motefarm_proto::mote;
use tonic::Code;

/// What a command acts on, and with which words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Targets {
    /// By name or id, each once, in order; at least one.
    pub(crate) instances: Vec<String>,
    /// What follows the instance.
    pub(crate) rest: Vec<String>,
    /// Whether the words named it; otherwise these are the group's members.
    pub(crate) named: bool,
}

/// Decides for one command line.
pub(crate) struct Resolver<'a> {
    /// Whom to ask.
    pub(crate) farm: &'a Farm,
    /// Tells which group was taken.
    pub(crate) printer: Printer,
    /// The group that counts if no instance is named.
    pub(crate) group: &'a ActiveGroup,
    /// How to write it, for those who wrote it wrong.
    pub(crate) shape: &'a str,
}

/// Instance and rest where no farm need be asked: no group is active, so the first word is it.
pub(crate) fn without_group(group: &ActiveGroup, words: &[String]) -> Option<(String, Vec<String>)> {
    match (group, words) {
        (ActiveGroup::Nobody, [instance, rest @ ..]) if !instance.is_empty() => Some((instance.clone(), rest.to_vec())),
        _ => None,
    }
}

impl Resolver<'_> {
    /// For commands all of whose words are instances.
    pub(crate) async fn all(&self, mut words: Vec<String>) -> Result<Targets, Error> {
        if words.is_empty() {
            return self.members().await?.ok_or_else(|| self.nobody());
        }
        self.check_flag().await?;
        let mut seen = std::collections::HashSet::new();
        words.retain(|word| seen.insert(word.clone()));
        Ok(Targets { instances: words, rest: Vec::new(), named: true })
    }

    /// For commands whose first word may be the instance.
    pub(crate) async fn first(&self, mut words: Vec<String>) -> Result<Targets, Error> {
        if let Some((instance, rest)) = without_group(self.group, &words) {
            return Ok(Targets { instances: vec![instance], rest, named: true });
        }
        if *self.group == ActiveGroup::Nobody {
            return Err(self.nobody());
        }
        let Some(first) = words.first().cloned() else {
            return self.members().await?.ok_or_else(|| self.nobody());
        };
        let own = self.own().await?;
        let is_own = own.iter().any(|i| is_live(i) && (i.name == first || i.instance_id == first));
        if is_own || (may_be_instance(&first) && self.is_elses(&first).await?) {
            self.check_flag().await?;
            words.remove(0);
            return Ok(Targets { instances: vec![first], rest: words, named: true });
        }
        match self.members_among(&own).await? {
            Some(targets) => Ok(Targets { rest: words, ..targets }),
            // The variable names a group that is gone: as if it were not set.
            None => {
                words.remove(0);
                Ok(Targets { instances: vec![first], rest: words, named: true })
            }
        }
    }

    /// A group named by flag must exist, even if an instance is named too.
    pub(crate) async fn check_flag(&self) -> Result<(), Error> {
        match self.group {
            ActiveGroup::Flag(name) => self.listed(name).await?.map(drop).ok_or_else(|| no_group(name)),
            _ => Ok(()),
        }
    }

    /// The active group's members; `None` if there is no such group.
    async fn members(&self) -> Result<Option<Targets>, Error> {
        if *self.group == ActiveGroup::Nobody {
            return Ok(None);
        }
        let own = self.own().await?;
        self.members_among(&own).await
    }

    async fn members_among(&self, own: &[mote::InstanceInfo]) -> Result<Option<Targets>, Error> {
        let Some(name) = self.group.name() else { return Ok(None) };
        let Some(members) = self.listed(name).await? else {
            return match self.group {
                ActiveGroup::Flag(_) => Err(no_group(name)),
                _ => Ok(None),
            };
        };
        let (instances, ended): (Vec<String>, Vec<String>) =
            members.into_iter().partition(|member| own.iter().any(|i| i.name == *member && is_live(i)));
        for gone in ended {
            self.printer.warning(format_args!("{gone} of the group {name:?} has ended or is not known; going without"));
        }
        if instances.is_empty() {
            return Err(Error::usage(
                format!("the group {name:?} has no instances"),
                format!(
                    "put some in: mote -group {name} group add INSTANCE, or mote create TYPE with MOTE_GROUP={name}"
                ),
            ));
        }
        if let ActiveGroup::Env { variable, .. } = self.group {
            self.printer.message(format_args!("Using group {name:?} from {variable}"));
        }
        Ok(Some(Targets { instances, rest: Vec::new(), named: false }))
    }

    /// Members by name; `None` if there is no such group.
    async fn listed(&self, name: &str) -> Result<Option<Vec<String>>, Error> {
        let groups = list_groups(self.farm).await?;
        Ok(groups.into_iter().find(|group| group.group == name).map(|group| group.instances))
    }

    async fn own(&self) -> Result<Vec<mote::InstanceInfo>, Error> {
        let request = mote::ListInstancesRequest { all_users: false, shared: false };
        let answer = self.farm.call("list the instances", async |mut c| c.list_instances(request).await).await?;
        Ok(answer.instances)
    }

    /// Whether it is a live instance that is not one's own, but may be used (an admin's view).
    async fn is_elses(&self, word: &str) -> Result<bool, Error> {
        let request = mote::RenewInstanceRequest { instance: word.to_owned() };
        let doing = format!("see whether {word} is an instance");
        let asked = self.farm.call(&doing, async |mut c| c.renew_instance(request.clone()).await).await;
        match asked {
            Ok(_) => Ok(true),
            Err(Error::Refused { code: Code::NotFound | Code::InvalidArgument, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn nobody(&self) -> Error {
        match self.group {
            ActiveGroup::Nobody => Error::usage("no instance is named, and no group is active", self.shape),
            group => Error::usage(
                format!(
                    "no instance is named, and there is no group {:?} ({})",
                    group.name().unwrap_or_default(),
                    group.origin()
                ),
                format!("{}; `mote create` makes the group", self.shape),
            ),
        }
    }
}

/// All groups of the caller.
pub(crate) async fn list_groups(farm: &Farm) -> Result<Vec<mote::GroupInfo>, Error> {
    let request = mote::ListGroupsRequest {};
    Ok(farm.call("list the groups", async |mut c| c.list_groups(request).await).await?.groups)
}

/// A group that must be there and is not.
pub(crate) fn no_group(name: &str) -> Error {
    Error::usage(
        format!("there is no group {name:?}"),
        format!("`mote group list` shows them, `mote group create {name}` makes one"),
    )
}

fn is_live(instance: &mote::InstanceInfo) -> bool {
    InstanceState::from_word(&instance.state).is_none_or(InstanceState::is_live)
}

/// Whether a word has the form of an instance's name (`<user>-<type>-<n>`) or id. Spares a question
/// about every `go/src/make.bash`.
fn may_be_instance(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let numbered = word.rsplit_once('-').is_some_and(|(_, n)| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()));
    word.chars().all(plain) && (numbered || word.parse::<motefarm_core::InstanceId>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_may_be_instances_and_commands_may_not() {
        for word in ["alice-linux-amd64-0", "a.b_c-x-12", "0193a1b2-c3d4-7e5f-8a9b-000000000001"] {
            assert!(may_be_instance(word), "{word}");
        }
        for word in ["go/src/make.bash", "/bin/true", "ls", "-1/", "", ".", "x-", "a-0;b", "make-all"] {
            assert!(!may_be_instance(word), "{word}");
        }
    }

    #[test]
    fn without_a_group_the_first_word_is_the_instance() {
        let words = ["i".to_owned(), "x".to_owned()];
        assert_eq!(without_group(&ActiveGroup::Nobody, &words), Some(("i".into(), vec!["x".into()])));
        assert_eq!(without_group(&ActiveGroup::Flag("g".into()), &words), None);
        assert_eq!(without_group(&ActiveGroup::Nobody, &[]), None);
        assert_eq!(without_group(&ActiveGroup::Nobody, &[String::new()]), None);
    }
}
