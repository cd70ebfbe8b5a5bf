//! `mote-coordinator admin`: users and tokens straight in the farm's database.
//!
//! Works while the coordinator is stopped: that is how a farm whose last admin token was lost is opened
//! again. Works while it runs, too: SQLite keeps the two apart, and what is taken away here a running
//! coordinator notices by looking again (a token within seconds, an instance to end and a join token in
//! its next sweep). Every act leaves the same audit rows, under the system user's name.

use crate::bootstrap;
use crate::cli::{AdminCommand, JoinTokenCommand, TokenCommand, UserCommand};
use crate::config::Config;
use crate::farm::admin::{JOIN_TOKEN_LIFE, check_token_name};
use crate::identity::Role;
use crate::store::Store;
use anyhow::{Context as _, ensure};
use motefarm_core::instance::EndReason;
use motefarm_core::name::UserName;
use motefarm_core::{HostType, Timestamp};
use motefarm_net::tls;
use motefarm_net::token::{ApiToken, JoinToken};
use std::fs;

/// How a row of the audit says that it was done here.
const OFFLINE: &str = "mote-coordinator admin";

/// Does one thing; answers what is to be printed, if anything.
pub async fn act(config: &Config, command: &AdminCommand, now: Timestamp) -> anyhow::Result<String> {
    let dir = &config.data_dir;
    let database = dir.join("farm.db");
    ensure!(
        database.is_file(),
        "there is no farm in {}: name its folder with --data-dir or its configuration with --config",
        dir.display()
    );
    let ca_hash = || -> anyhow::Result<String> {
        let path = dir.join("tls/ca.pem");
        let pem = fs::read_to_string(&path).with_context(|| format!("can not read {}", path.display()))?;
        Ok(tls::ca_hash(&pem)?)
    };
    if matches!(command, AdminCommand::Fingerprint) {
        return ca_hash();
    }
    let store = Store::open(&database).await.with_context(|| format!("can not use {}", database.display()))?;
    let done = match command {
        AdminCommand::User(command) => user(&store, command, now).await,
        AdminCommand::Token(command) => token(&store, command, now).await,
        AdminCommand::JoinToken(command) => join_token(&store, command, &ca_hash()?, now).await,
        AdminCommand::Fingerprint => ca_hash(),
    };
    store.close().await;
    done
}

async fn user(store: &Store, command: &UserCommand, now: Timestamp) -> anyhow::Result<String> {
    let actor = bootstrap::own_user();
    match command {
        UserCommand::Add { user, role } => {
            let user: UserName = user.parse()?;
            let role = Role::from_word(role).context("a role is admin or user")?;
            store.add_user(&user, role, now).await?;
            store
                .audit(actor.as_str(), "user add", user.as_str(), &format!("{}; {OFFLINE}", role.as_str()), now)
                .await?;
            Ok(String::new())
        }
        UserCommand::List => {
            let row = |row: crate::store::UserRow| format!("{}\t{}", row.name, row.role.as_str());
            Ok(store.users().await?.into_iter().map(row).collect::<Vec<_>>().join("\n"))
        }
        UserCommand::Remove { user } => {
            let user: UserName = user.parse()?;
            store.remove_user(&user).await?;
            for row in store.instances(Some(&user)).await? {
                store.end_instance(row.id, EndReason::Destroyed, now).await?;
            }
            store.audit(actor.as_str(), "user remove", user.as_str(), OFFLINE, now).await?;
            Ok(String::new())
        }
    }
}

async fn token(store: &Store, command: &TokenCommand, now: Timestamp) -> anyhow::Result<String> {
    let actor = bootstrap::own_user();
    match command {
        TokenCommand::Create { user, name, expires } => {
            let user: UserName = user.parse()?;
            check_token_name(name)?;
            let token = ApiToken::generate();
            store.add_token(&user, name, &token.hash(), expires.map(|life| now + life), now).await?;
            store.audit(actor.as_str(), "token create", &format!("{user}/{name}"), OFFLINE, now).await?;
            Ok(token.secret().to_owned())
        }
        TokenCommand::List { user } => {
            let of = user.as_deref().map(str::parse::<UserName>).transpose()?;
            let row = |row: crate::store::TokenRow| {
                let expires = row.expires_at.map_or("never".to_owned(), shown);
                let used = row.last_used_at.map_or("-".to_owned(), shown);
                format!("{}\t{}\t{}\t{expires}\t{used}", row.user, row.name, shown(row.created_at))
            };
            Ok(store.tokens(of.as_ref()).await?.into_iter().map(row).collect::<Vec<_>>().join("\n"))
        }
        TokenCommand::Revoke { user, name } => {
            let user: UserName = user.parse()?;
            store.revoke_token(&user, name).await?;
            store.audit(actor.as_str(), "token revoke", &format!("{user}/{name}"), OFFLINE, now).await?;
            Ok(String::new())
        }
    }
}

async fn join_token(
    store: &Store,
    command: &JoinTokenCommand,
    ca_hash: &str,
    now: Timestamp,
) -> anyhow::Result<String> {
    let actor = bootstrap::own_user();
    match command {
        JoinTokenCommand::Create { host_type, expires, one_time } => {
            let host_type: HostType = host_type.parse()?;
            let token = JoinToken::generate(ca_hash);
            let ends = now + expires.unwrap_or(JOIN_TOKEN_LIFE);
            store.add_join_token(&token, &host_type, *one_time, ends, now).await?;
            let detail = format!("{host_type}; {OFFLINE}");
            store.audit(actor.as_str(), "join-token create", &token.id, &detail, now).await?;
            Ok(token.reveal())
        }
        JoinTokenCommand::List => {
            let row = |row: crate::store::JoinTokenRow| {
                let kind = if row.one_time { "one-time" } else { "reusable" };
                format!("{}\t{}\t{}\t{kind}\t{}", row.id, row.host_type, shown(row.expires_at), row.uses)
            };
            Ok(store.join_tokens().await?.into_iter().map(row).collect::<Vec<_>>().join("\n"))
        }
        JoinTokenCommand::Revoke { id } => {
            store.revoke_join_token(id, now).await?;
            store.audit(actor.as_str(), "join-token revoke", id, OFFLINE, now).await?;
            Ok(String::new())
        }
    }
}

/// `2026-01-31T12:00:00Z`.
fn shown(at: Timestamp) -> String {
    let since = std::time::Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since).to_string()
}
