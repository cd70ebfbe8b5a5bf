//! Which words of a command line are addresses of buildlets.

use super::address::Address;
use crate::cli::{GroupVerb, SnapshotVerb, Verb};
use crate::error::Error;
use crate::run_record::Runs;
use std::ffi::OsString;
use std::path::Path;

/// What was addressed.
pub(super) struct Named {
    /// Each once, in order.
    pub(super) addresses: Vec<Address>,
    /// Executions that this machine began there, by the index of their address.
    pub(super) execs: Vec<(String, usize)>,
}

/// The addresses in what was typed; `None` if it is about a farm. `runs` knows where executions are.
/// While a group is active a first word may be something else than an instance: a file that is
/// here is one.
pub(super) fn addresses(verb: &Verb, group_is_active: bool, runs: Option<&Runs>) -> Result<Option<Named>, Error> {
    let mut named = Named { addresses: Vec::new(), execs: Vec::new() };
    let mut others = Vec::new();
    let Words { words, sure } = instance_words(verb);
    for word in words {
        match Address::is_meant(&word).then(|| Address::parse(&word)) {
            Some(Ok(address)) if sure || !group_is_active || !Path::new(&word).exists() => {
                named.add(address);
            }
            Some(Err(error)) if sure || !group_is_active => return Err(error),
            _ => others.push(word),
        }
    }
    let mut at_a_farm = None;
    for word in others {
        // An id alone: our own record says where it runs.
        let server = runs.filter(|_| takes_execs(verb)).and_then(|runs| runs.find(&word)).map(|f| f.record.server);
        match server.filter(|server| Address::is_meant(server)) {
            Some(server) => {
                let index = named.add(Address::parse(&server)?);
                named.execs.push((word, index));
            }
            None => at_a_farm = Some(word),
        }
    }
    let newest = match verb {
        Verb::Attach(attach) if attach.target.is_none() => runs.and_then(|runs| runs.newest_anywhere(false)),
        Verb::Logs(logs) if logs.target.is_none() => runs.and_then(|runs| runs.newest_anywhere(true)),
        _ => None,
    };
    if let Some(server) = newest.map(|found| found.record.server).filter(|server| Address::is_meant(server)) {
        named.add(Address::parse(&server)?);
    }
    match (named.addresses.first(), at_a_farm) {
        (None, _) => Ok(None),
        (Some(_), None) => Ok(Some(named)),
        (Some(direct), Some(other)) => Err(Error::usage(
            format!("{other} is a farm's and {direct} a buildlet addressed directly"),
            "ask for the two in commands of their own",
        )),
    }
}

impl Named {
    fn add(&mut self, address: Address) -> usize {
        let known = self.addresses.iter().position(|known| *known == address);
        known.unwrap_or_else(|| {
            self.addresses.push(address);
            self.addresses.len() - 1
        })
    }
}

/// Whether the verb's words may be executions' ids.
const fn takes_execs(verb: &Verb) -> bool {
    matches!(verb, Verb::Attach(_) | Verb::Logs(_) | Verb::Cancel(_))
}

/// The words that name instances (or executions, or what a new instance is to be).
fn instance_words(verb: &Verb) -> Words {
    let text = |word: &OsString| word.to_string_lossy().into_owned();
    match verb {
        Verb::Create(create) => Words::all(create.host_type.as_slice()),
        Verb::Ping(ping) => Words::all(&ping.instances),
        Verb::Renew(renew) => Words::all(&renew.instances),
        Verb::Destroy(destroy) => Words::all(&destroy.instances),
        Verb::Group(group) => match &group.verb {
            GroupVerb::Add { instances } | GroupVerb::Remove { instances } => Words::all(instances),
            _ => Words::all(&[]),
        },
        Verb::Push(push) => Words::all(&push.instances),
        Verb::Putbootstrap(putbootstrap) => Words::all(&putbootstrap.instances),
        Verb::Gettar(gettar) => Words::all(&gettar.instances),
        Verb::Put(put) => Words::first(put.words.first().cloned()),
        Verb::Puttar(puttar) => Words::first(puttar.words.first().cloned()),
        Verb::Get(get) => Words::first(get.words.first().cloned()),
        Verb::Ls(ls) => Words::first(ls.words.first().cloned()),
        Verb::Rm(rm) => Words::first(rm.words.first().cloned()),
        Verb::Snapshot(snapshot) => match &snapshot.verb {
            SnapshotVerb::Create { words, .. } if words.len() > 1 => Words::first(words.first().cloned()),
            _ => Words::all(&[]),
        },
        Verb::Run(run) => Words::first(run.words.first().map(text)),
        Verb::Attach(attach) => Words::all(attach.target.as_slice()),
        Verb::Logs(logs) => Words::all(logs.target.as_slice()),
        Verb::Cancel(cancel) => Words::all(&cancel.targets),
        // What only a farm has.
        Verb::Share(_) | Verb::Unshare(_) | Verb::Login(_) | Verb::Logout(_) | Verb::Whoami(_) | Verb::Auth(_) => {
            Words::all(&[])
        }
        Verb::Ssh(ssh) => Words::first(ssh.words.first().map(text)),
        Verb::SshCert(cert) => Words::all(std::slice::from_ref(&cert.instance)),
        Verb::SshConfig(_) | Verb::List(_) | Verb::Admin(_) | Verb::Completions(_) | Verb::Man(_) => Words::all(&[]),
        Verb::Cas(_) | Verb::Reapi(_) => Words::all(&[]),
    }
}

struct Words {
    words: Vec<String>,
    /// Each is an instance, whatever it looks like; otherwise there is one, and it may be a file.
    sure: bool,
}

impl Words {
    fn all(words: &[String]) -> Self {
        Self { words: words.to_vec(), sure: true }
    }

    fn first(word: Option<String>) -> Self {
        Self { words: word.into_iter().collect(), sure: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::run_record::RunRecord;
    use clap::Parser as _;

    fn places(args: &[&str], group_is_active: bool, runs: Option<&Runs>) -> Option<Vec<String>> {
        let cli = Cli::try_parse_from(std::iter::once(&"mote").chain(args)).unwrap();
        let named = addresses(&cli.verb, group_is_active, runs).ok().unwrap()?;
        Some(named.addresses.iter().map(Address::full).collect())
    }

    #[test]
    fn an_address_counts_where_an_instance_stands_and_nowhere_else() {
        let one = Some(vec!["a@h:5936".to_owned()]);
        assert_eq!(places(&["run", "a@h", "/bin/echo", "b@h"], false, None), one);
        assert_eq!(places(&["run", "alice-a-0", "/bin/echo", "b@h"], false, None), None);
        assert_eq!(places(&["ls", "a@h", "x@y"], false, None), one);
        assert_eq!(places(&["ping", "a@h", "a@h:5936"], false, None), one, "each once");
        assert_eq!(places(&["destroy", "a@h", "b@h:1"], false, None).map(|all| all.len()), Some(2));
        assert_eq!(places(&["list"], false, None), None);
        // With a group the first word may be a file.
        assert_eq!(places(&["ls", "dir/x@y"], true, None), None);
        assert_eq!(places(&["ls", "a@h"], true, None), one);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a@h");
        std::fs::write(&file, "").unwrap();
        assert_eq!(places(&["put", file.to_str().unwrap()], true, None), None);
    }

    #[test]
    fn an_execution_is_where_our_record_says() {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::new(dir.path().join("runs"));
        let id = |n: u8| format!("0193a1b2-c3d4-7e5f-8a9b-0000000000{n:02}");
        for (n, server) in [(1, "a@h:5936"), (2, "farm:1")] {
            runs.remember(&RunRecord {
                exec_id: id(n),
                instance: String::new(),
                server: server.to_owned(),
                command: Vec::new(),
                output: "/tmp/x".into(),
                fresh: false,
                batch: None,
                plan: None,
            })
            .ok()
            .unwrap();
        }
        let one = Some(vec!["a@h:5936".to_owned()]);
        assert_eq!(places(&["attach", &id(1)], false, Some(&runs)), one);
        assert_eq!(places(&["cancel", &id(1), "a@h"], false, Some(&runs)), one);
        assert_eq!(places(&["attach", &id(2)], false, Some(&runs)), None);
        assert_eq!(places(&["attach"], false, Some(&runs)), None, "the newest is a farm's");
        runs.note_end(&id(2), 0);
        assert_eq!(places(&["attach"], false, Some(&runs)), one);
    }
}
