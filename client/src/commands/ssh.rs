//! `mote ssh` and `mote ssh-cert`: a certificate where one is needed, then the system's ssh.

use crate::cli;
use crate::commands::Context;
use crate::connection::Place;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::ssh::{Gateway, Keyring, no_openssh};
use crate::targets;
use motefarm_core::Digest;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

const SHAPE: &str = "mote ssh [INSTANCE] [COMMAND]...";
/// How long a connection that nobody uses stands ready for the next call.
const PERSIST: &str = "ControlPersist=60";
/// A socket's address holds 107 bytes, and ssh binds a name of 17 more.
const MOST_SOCKET: usize = 107 - 17;
/// Characters of the hash that names a socket. ssh's own `%C` has 40, for which many a home is too deep.
const SOCKET_NAME: usize = 16;

/// The keyring of the farm that is meant.
pub(super) fn keyring(context: &Context) -> Result<Keyring, Error> {
    match &context.settings.place {
        Place::Farm { address, .. } => Ok(Keyring::of(&context.settings.dirs, address)),
        Place::Direct(_) => {
            let problem = "a buildlet that is addressed directly has no ssh gateway";
            Err(Error::usage(problem, "use mote run there, or an instance of a farm"))
        }
    }
}

pub(crate) async fn certify(context: &Context, flags: cli::SshCert) -> Result<ExitStatus, Error> {
    let keyring = keyring(context)?;
    let connect = async || context.connect().await;
    keyring.ensure_certificate(connect, &flags.instance, None, !flags.if_stale).await?;
    Ok(ExitStatus::Success)
}

pub(crate) async fn act(context: &Context, flags: cli::Ssh) -> Result<ExitStatus, Error> {
    let keyring = keyring(context)?;
    let (instance, command) = target(context, &flags.words).await?;
    let connect = async || context.connect().await;
    let certificate = keyring.ensure_certificate(connect, &instance, flags.key.as_deref(), false).await?;
    let gateway = keyring.gateway().ok_or_else(|| {
        Error::protocol("find the ssh gateway", "it was told a moment ago and is gone from the config folder")
    })?;
    let key = flags.key.clone().unwrap_or_else(|| keyring.key());
    let mut ssh = Command::new("ssh");
    ssh.args(options(&gateway, &key, &certificate, &keyring.known_hosts()));
    if !flags.no_reuse
        && let Some(socket) = control_socket(&context.settings.dirs.cache, &gateway, &instance)
    {
        let path = format!("ControlPath=\"{}\"", socket.display());
        ssh.args(["-o", "ControlMaster=auto", "-o", PERSIST, "-o", &path]);
    }
    for option in &flags.options {
        ssh.arg("-o").arg(option);
    }
    for (flag, places) in [("-L", &flags.local), ("-R", &flags.remote), ("-D", &flags.dynamic)] {
        for place in places {
            ssh.arg(flag).arg(place);
        }
    }
    ssh.args(flags.no_command.then_some("-N")).args(flags.terminal.then_some("-t"));
    ssh.arg("-l").arg(&instance).arg("--").arg(&gateway.host).args(command);
    run(ssh)
}

/// The instance, and what to run there. Without a group the farm need not be asked.
async fn target(context: &Context, words: &[OsString]) -> Result<(String, Vec<String>), Error> {
    let not_text = |word: OsString| Error::usage(format!("{} is not UTF-8 text", word.display()), SHAPE);
    let words: Vec<String> =
        words.iter().cloned().map(|w| w.into_string().map_err(not_text)).collect::<Result<_, _>>()?;
    if let Some(found) = targets::without_group(&context.group, &words) {
        return Ok(found);
    }
    let farm = context.connect().await?;
    let targets = context.resolver(&farm, SHAPE).first(words).await?;
    match targets.instances.as_slice() {
        [instance] => Ok((instance.clone(), targets.rest)),
        several => {
            let problem = format!("the group has {} instances, and ssh leads to one", several.len());
            Err(Error::usage(problem, format!("name one: {SHAPE}")))
        }
    }
}

/// What makes ssh know the gateway, and sign in, without a question.
fn options(gateway: &Gateway, key: &Path, certificate: &Path, known_hosts: &Path) -> Vec<String> {
    let quoted = |name: &str, path: &Path| format!("{name}=\"{}\"", path.display());
    let set = [
        format!("Port={}", gateway.port),
        format!("HostKeyAlias={}", gateway.alias),
        quoted("UserKnownHostsFile", known_hosts),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        quoted("IdentityFile", key),
        quoted("CertificateFile", certificate),
        "IdentitiesOnly=yes".to_owned(),
        "PreferredAuthentications=publickey".to_owned(),
    ];
    set.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect()
}

/// Where the connection to an instance is found while it stands, if the path fits.
fn control_socket(cache: &Path, gateway: &Gateway, instance: &str) -> Option<PathBuf> {
    let dir = cache.join("ssh");
    let whose = format!("{instance}@{}:{}", gateway.host, gateway.port);
    let socket = dir.join(&Digest::of(whose.as_bytes()).hash_hex()[..SOCKET_NAME]);
    let fits = socket.as_os_str().len() <= MOST_SOCKET && !dir.to_string_lossy().contains(['%', '"']);
    (fits && motefarm_net::private_file::create_dir(&dir).is_ok()).then_some(socket)
}

/// Becomes ssh where the system can do that: its terminal and signals are ssh's from here on.
#[cfg(unix)]
fn run(mut ssh: Command) -> Result<ExitStatus, Error> {
    use std::os::unix::process::CommandExt as _;
    Err(no_openssh("start ssh")(ssh.exec()))
}

#[cfg(not(unix))]
fn run(mut ssh: Command) -> Result<ExitStatus, Error> {
    let status = ssh.status().map_err(no_openssh("start ssh"))?;
    Ok(ExitStatus::Command(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255)))
}
