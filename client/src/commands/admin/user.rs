//! `mote admin user`: who may use the farm.

use super::ago;
use crate::cli::User;
use crate::commands::Context;
use crate::error::Error;
use crate::table;
use motefarm_proto::mote;
use serde::Serialize;

#[derive(Serialize)]
struct Users {
    users: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    user: String,
    role: String,
    created_at_ms: i64,
}

#[derive(Serialize)]
struct Changed<'a> {
    user: &'a str,
}

pub(super) async fn act(context: &Context, user: User) -> Result<(), Error> {
    let farm = context.connect().await?;
    let mut admin = farm.admin();
    let printer = context.printer;
    match user {
        User::Add { user, role } => {
            let request = mote::AddUserRequest { user: user.clone(), role: role.clone() };
            farm.call_once(&format!("add the user {user}"), admin.add_user(request)).await?;
            printer
                .message(format_args!("added {user} ({role}); `mote admin token create --user {user}` makes a token"));
            printer.data(&Changed { user: &user }, String::new)
        }
        User::List => {
            let answer = farm.call_once("list the users", admin.list_users(mote::ListUsersRequest {})).await?;
            let row = |u: mote::UserInfo| Row { user: u.user, role: u.role, created_at_ms: u.created_at_ms };
            let body = Users { users: answer.users.into_iter().map(row).collect() };
            printer.data(&body, || {
                let rows: Vec<_> =
                    body.users.iter().map(|u| [u.user.clone(), u.role.clone(), ago(u.created_at_ms)]).collect();
                table::render(["USER", "ROLE", "ADDED"], &rows)
            })
        }
        User::Remove { user } => {
            let request = mote::RemoveUserRequest { user: user.clone() };
            farm.call_once(&format!("remove the user {user}"), admin.remove_user(request)).await?;
            printer.message(format_args!("removed {user} with all instances and tokens"));
            printer.data(&Changed { user: &user }, String::new)
        }
    }
}
