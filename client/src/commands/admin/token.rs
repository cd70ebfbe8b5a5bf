//! `mote admin token`: what users prove themselves with.

use super::{ago, ahead, lifetime_ms};
use crate::cli::Token;
use crate::commands::Context;
use crate::error::Error;
use crate::table;
use motefarm_proto::mote;
use serde::Serialize;

#[derive(Serialize)]
struct Created<'a> {
    user: &'a str,
    name: &'a str,
    token: &'a str,
}

#[derive(Serialize)]
struct Revoked<'a> {
    user: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct Tokens {
    tokens: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    user: String,
    name: String,
    created_at_ms: i64,
    expires_at_ms: i64,
    last_used_at_ms: i64,
}

pub(super) async fn act(context: &Context, token: Token) -> Result<(), Error> {
    let farm = context.connect().await?;
    let mut admin = farm.admin();
    let printer = context.printer;
    match token {
        Token::Create { user, name, expires } => {
            let (of, called) = (user.clone(), name.clone());
            let request = mote::CreateTokenRequest { user: of, name: called, lifetime_ms: lifetime_ms(expires) };
            let doing = format!("make the token {name:?} of {user}");
            let answer = farm.call_once(&doing, admin.create_token(request)).await?;
            printer.message("this token is shown once; the farm keeps only its hash");
            printer.data(&Created { user: &user, name: &name, token: &answer.token }, || answer.token.clone())
        }
        Token::List { user } => {
            let request = mote::ListTokensRequest { user: user.unwrap_or_default() };
            let answer = farm.call_once("list the tokens", admin.list_tokens(request)).await?;
            let row = |t: mote::TokenInfo| Row {
                user: t.user,
                name: t.name,
                created_at_ms: t.created_at_ms,
                expires_at_ms: t.expires_at_ms,
                last_used_at_ms: t.last_used_at_ms,
            };
            let body = Tokens { tokens: answer.tokens.into_iter().map(row).collect() };
            printer.data(&body, || {
                let cells = |t: &Row| {
                    [
                        t.user.clone(),
                        t.name.clone(),
                        ago(t.created_at_ms),
                        ahead(t.expires_at_ms),
                        ago(t.last_used_at_ms),
                    ]
                };
                let rows: Vec<_> = body.tokens.iter().map(cells).collect();
                table::render(["USER", "NAME", "MADE", "EXPIRES", "LAST USED"], &rows)
            })
        }
        Token::Revoke { user, name } => {
            let request = mote::RevokeTokenRequest { user: user.clone(), name: name.clone() };
            let doing = format!("revoke the token {name:?} of {user}");
            farm.call_once(&doing, admin.revoke_token(request)).await?;
            printer.message(format_args!("revoked the token {name:?} of {user}"));
            printer.data(&Revoked { user: &user, name: &name }, String::new)
        }
    }
}
