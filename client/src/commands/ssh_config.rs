//! `mote ssh-config`: `ssh INSTANCE.mote` for every instance, kept in step by create and destroy.

use crate::cli;
use crate::commands::{Context, ssh};
use crate::connection::Farm;
use crate::env_vars;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::ssh::{Block, Keyring, include_line, render, with_include};
use motefarm_core::instance::InstanceState;
use motefarm_net::private_file;
use motefarm_proto::mote;
use std::fs;
use std::io;
use std::path::PathBuf;

pub(crate) async fn act(context: &Context, flags: cli::SshConfig) -> Result<ExitStatus, Error> {
    let keyring = ssh::keyring(context)?;
    let farm = context.connect().await?;
    keyring.ensure_key()?;
    let count = write(context, &farm, &keyring).await?;
    let user_config = match flags.user_config {
        Some(file) => file,
        None => home()?.join(".ssh/config"),
    };
    let old = match fs::read_to_string(&user_config) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::file("read", &user_config, error)),
    };
    if let Some(new) = with_include(&old, &include_line(&keyring.all_configs())) {
        if let Some(dir) = user_config.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            private_file::create_dir(dir).map_err(|e| Error::file("make", dir, e))?;
        }
        // A link is somebody's way to keep it elsewhere.
        let place = fs::canonicalize(&user_config).unwrap_or_else(|_| user_config.clone());
        private_file::write(&place, new.as_bytes()).map_err(|e| Error::file("write", &place, e))?;
        context.printer.message(format_args!("{} includes the instances now", user_config.display()));
    }
    context.printer.message(format_args!("{count} instances: ssh INSTANCE.mote"));
    Ok(ExitStatus::Success)
}

/// Brings the blocks in step with what there is, if somebody wanted blocks at all. That they could not be
/// written is worth a warning, not the command's failure.
pub(super) async fn refresh(context: &Context, farm: &Farm) {
    let Ok(keyring) = ssh::keyring(context) else { return };
    if !keyring.config().is_file() {
        return;
    }
    if let Err(error) = write(context, farm, &keyring).await {
        context.printer.warning(format_args!("the ssh configuration is not up to date: {error}"));
    }
}

async fn write(context: &Context, farm: &Farm, keyring: &Keyring) -> Result<usize, Error> {
    let request = mote::ListInstancesRequest { all_users: false, shared: true };
    let answer = farm.call("list the instances", async |mut c| c.list_instances(request).await).await?;
    let usable = |i: &mote::InstanceInfo| {
        matches!(InstanceState::from_word(&i.state), Some(InstanceState::Ready | InstanceState::Lost))
    };
    let mut names: Vec<String> = answer.instances.into_iter().filter(usable).map(|i| i.name).collect();
    names.sort();
    // Where the gateway is comes with a certificate.
    if keyring.gateway().is_none()
        && let Some(name) = names.first()
    {
        keyring.ensure_certificate(async || Ok(farm.clone()), name, None, true).await?;
    }
    let Some(gateway) = keyring.gateway() else {
        keyring.write_config("# Kept by mote: no instances yet.\n")?;
        return Ok(0);
    };
    let blocks: Vec<Block> = names
        .into_iter()
        .map(|instance| Block { certificate: keyring.certificate(&instance, None), instance })
        .collect();
    let renew = renew_command(context)?;
    keyring.write_config(&render(&gateway, &keyring.key(), &keyring.known_hosts(), &renew, &blocks))?;
    Ok(blocks.len())
}

/// How ssh calls this program, wherever it is called from.
fn renew_command(context: &Context) -> Result<Vec<String>, Error> {
    let program = std::env::current_exe().map_err(|e| Error::local("find this program", e))?;
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let config = &context.settings.dirs.config;
    let mut words = vec!["env".to_owned(), format!("{}={}", env_vars::CONFIG_DIR, text(config.clone())), text(program)];
    if let Some(profile) = &context.settings.profile {
        let absolute = std::path::absolute(profile).map_err(|e| Error::file("find", profile, e))?;
        words.extend(["--profile".to_owned(), text(absolute)]);
    }
    words.extend(["--quiet", "ssh-cert", "--if-stale"].map(str::to_owned));
    Ok(words)
}

fn home() -> Result<PathBuf, Error> {
    use etcetera::BaseStrategy as _;
    let base = etcetera::choose_base_strategy().map_err(|_| Error::Settings {
        problem: "no home directory is known".to_owned(),
        next: "name your ssh configuration with --user-config".to_owned(),
    })?;
    Ok(base.home_dir().to_owned())
}
