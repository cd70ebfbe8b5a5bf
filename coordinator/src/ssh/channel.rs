//! One session channel: what a client asks for on it, and the process that answers.

use super::client::Client;
use super::inbound::Inbound;
use super::relay::{self, Ended, Kind};
use super::signals;
use crate::farm::session::{self, Setting};
use motefarm_proto::mote::session_start::What;
use motefarm_proto::mote::{
    SessionExit, SessionResize, SessionSftp, SessionShell, SessionTerminal, SessionTerminalMode,
};
use russh::server::{Handle, Msg};
use russh::{ChannelId, ChannelMsg, ChannelWriteHalf};
use std::sync::Arc;
use std::time::Duration;

/// The subsystem there is.
pub(super) const SFTP: &str = "sftp";
/// Exit code where there was no process, or it was taken away: as ssh itself has it.
const EXIT_OURS: u32 = 255;
/// For a client to say what it wants on a channel it opened.
const REQUEST_PATIENCE: Duration = Duration::from_secs(120);
/// Variables a client may set; the buildlet bounds their bytes.
const MOST_ENV: usize = 128;
/// Extended data that is standard error (RFC 4254, section 5.2).
pub(super) const STDERR: u32 = 1;

/// Serves a channel to its end.
pub(super) async fn serve(client: Arc<Client>, mut inbound: Inbound, out: ChannelWriteHalf<Msg>, handle: Handle) {
    let _counted = client.count();
    let asked = tokio::select! {
        asked = tokio::time::timeout(REQUEST_PATIENCE, request(&mut inbound)) => asked.ok().flatten(),
        _ = client.ended() => None,
    };
    if let Some((what, setting)) = asked {
        let on_terminal = setting.terminal.is_some();
        let ended = tokio::select! {
            ended = run(&client, &mut inbound, &out, &handle, what, setting) => ended,
            why = client.ended() => Err(why),
        };
        if let Err(problem) = ended {
            let end = if on_terminal { "\r\n" } else { "\n" };
            let line = format!("mote: {problem}{end}");
            // Whoever does not read it must not keep the rest.
            let told = async {
                let _ = out.extended_data_bytes(STDERR, line.into_bytes()).await;
                let _ = out.exit_status(EXIT_OURS).await;
            };
            let _ = tokio::time::timeout(Duration::from_secs(2), told).await;
        }
    }
    let _ = out.eof().await;
    let _ = out.close().await;
}

/// Runs what was asked for; an error is for the client to read.
async fn run(
    client: &Arc<Client>,
    inbound: &mut Inbound,
    out: &ChannelWriteHalf<Msg>,
    handle: &Handle,
    what: What,
    mut setting: Setting,
) -> Result<(), String> {
    match &what {
        What::Command(line) => client.audit("ssh", &format!("command: {}", String::from_utf8_lossy(line))),
        What::Sftp(_) => client.audit("ssh", "sftp"),
        _ => client.audit("ssh", "shell"),
    }
    let (from, gateway) = (client.from, std::net::IpAddr::from([127, 0, 0, 1]));
    // Programs tell by it that they are used from afar.
    setting.env.push(format!("SSH_CONNECTION={} {} {gateway} 22", from.ip(), from.port()));
    let opened = async {
        let usage = client.usage().await?;
        session::open(&usage, what, setting).await
    };
    let opened = match opened.await {
        Ok(opened) => opened,
        Err(error) => return Err(client.explain(&error).await),
    };
    match relay::run(inbound, out, opened, &client.backlog, Kind::Process, |exit| tell_exit(handle, out, exit)).await {
        Ended::Whole | Ended::ClientLeft => Ok(()),
        Ended::Broken(error) => Err(client.explain(&error).await),
    }
}

/// Gathers what a client asks for before it starts something; `None`: it left.
async fn request(inbound: &mut Inbound) -> Option<(What, Setting)> {
    let mut setting = Setting::default();
    loop {
        match inbound.next().await? {
            ChannelMsg::SetEnv { variable_name: name, variable_value: value, .. } => {
                let fits = !name.is_empty() && !name.contains('=') && !format!("{name}{value}").contains('\0');
                if fits && setting.env.len() < MOST_ENV {
                    setting.env.push(format!("{name}={value}"));
                }
            }
            ChannelMsg::RequestPty { term, col_width, row_height, pix_width, pix_height, terminal_modes, .. } => {
                let modes = terminal_modes
                    .into_iter()
                    .map(|(opcode, value)| SessionTerminalMode { opcode: opcode as u32, value })
                    .collect();
                let size = resize(col_width, row_height, pix_width, pix_height);
                setting.terminal = Some(SessionTerminal { term, size: Some(size), modes });
            }
            ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
                if let Some(terminal) = &mut setting.terminal {
                    terminal.size = Some(resize(col_width, row_height, pix_width, pix_height));
                }
            }
            ChannelMsg::RequestShell { .. } => return Some((What::Shell(SessionShell {}), setting)),
            ChannelMsg::Exec { command, .. } => return Some((What::Command(command.into()), setting)),
            ChannelMsg::RequestSubsystem { name, .. } if name == SFTP => {
                // A terminal would change bytes.
                return Some((What::Sftp(SessionSftp {}), Setting { terminal: None, ..setting }));
            }
            ChannelMsg::Data { data } => inbound.taken(data.len()),
            ChannelMsg::Eof | ChannelMsg::Close => return None,
            _ => {}
        }
    }
}

pub(super) fn resize(columns: u32, rows: u32, width_pixels: u32, height_pixels: u32) -> SessionResize {
    SessionResize { columns, rows, width_pixels, height_pixels }
}

async fn tell_exit(handle: &Handle, out: &ChannelWriteHalf<Msg>, exit: SessionExit) {
    let id: ChannelId = out.id();
    if exit.signal == 0 {
        let _ = out.exit_status(u32::try_from(exit.code).unwrap_or(EXIT_OURS)).await;
        return;
    }
    let _ = handle
        .exit_signal_request(id, signals::name(exit.signal), exit.core_dumped, String::new(), String::new())
        .await;
}
