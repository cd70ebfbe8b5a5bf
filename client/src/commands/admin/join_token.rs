//! `mote admin join-token`: what machines join with.

use super::{ago, ahead, lifetime_ms};
use crate::cli::{JoinTerms, JoinToken};
use crate::commands::Context;
use crate::connection::Farm;
use crate::error::Error;
use crate::table;
use motefarm_proto::mote;
use serde::Serialize;

#[derive(Serialize)]
struct Created<'a> {
    id: &'a str,
    token: &'a str,
    host_type: &'a str,
    expires_at_ms: i64,
    coordinator: &'a str,
}

#[derive(Serialize)]
struct Revoked<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct JoinTokens {
    join_tokens: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    id: String,
    host_type: String,
    created_at_ms: i64,
    expires_at_ms: i64,
    one_time: bool,
    uses: u64,
}

pub(super) async fn act(context: &Context, token: JoinToken) -> Result<(), Error> {
    let farm = context.connect().await?;
    let printer = context.printer;
    match token {
        JoinToken::Create(terms) => {
            let made = create(&farm, &terms).await?;
            printer.message(format_args!(
                "join token {} expires {}; it is shown once",
                made.id,
                ahead(made.expires_at_ms)
            ));
            let body = Created {
                id: &made.id,
                token: &made.token,
                host_type: &terms.host_type,
                expires_at_ms: made.expires_at_ms,
                coordinator: &made.coordinator,
            };
            printer.data(&body, || made.token.clone())
        }
        JoinToken::List => {
            let request = mote::ListJoinTokensRequest {};
            let answer = farm.call_once("list the join tokens", farm.admin().list_join_tokens(request)).await?;
            let row = |t: mote::JoinTokenInfo| Row {
                id: t.id,
                host_type: t.host_type,
                created_at_ms: t.created_at_ms,
                expires_at_ms: t.expires_at_ms,
                one_time: t.one_time,
                uses: t.uses,
            };
            let body = JoinTokens { join_tokens: answer.tokens.into_iter().map(row).collect() };
            printer.data(&body, || {
                let machines = |t: &Row| if t.one_time { format!("{} of 1", t.uses) } else { t.uses.to_string() };
                let cells = |t: &Row| {
                    [t.id.clone(), t.host_type.clone(), ago(t.created_at_ms), ahead(t.expires_at_ms), machines(t)]
                };
                let rows: Vec<_> = body.join_tokens.iter().map(cells).collect();
                table::render(["ID", "HOST TYPE", "MADE", "EXPIRES", "MACHINES"], &rows)
            })
        }
        JoinToken::Revoke { id } => {
            let request = mote::RevokeJoinTokenRequest { id: id.clone() };
            let doing = format!("revoke the join token {id}");
            farm.call_once(&doing, farm.admin().revoke_join_token(request)).await?;
            printer.message(format_args!(
                "revoked the join token {id}; the contact to machines that joined with it is cut"
            ));
            printer.data(&Revoked { id: &id }, String::new)
        }
    }
}

/// Asks the farm for one.
pub(super) async fn create(farm: &Farm, terms: &JoinTerms) -> Result<mote::CreateJoinTokenResponse, Error> {
    let request = mote::CreateJoinTokenRequest {
        host_type: terms.host_type.clone(),
        lifetime_ms: lifetime_ms(terms.expires),
        one_time: terms.one_time,
    };
    farm.call_once(&format!("make a join token for {}", terms.host_type), farm.admin().create_join_token(request)).await
}
