//! One session channel: what a client asks for on it, and the process that answers.

use super::backlog::Backlog;
use super::certificate::Grant;
use super::inbound::Inbound;
use super::relay::{self, Ended, Kind};
use crate::app::App;
use crate::farm::session::{self, Setting};
use crate::farm::usage::Usage;
use crate::farm::{FarmError, access};
use crate::identity::Identity;
use crate::store::InstanceRow;
use motefarm_proto::mote::session_start::What;
use motefarm_proto::mote::{
    SessionExit, SessionResize, SessionSftp, SessionShell, SessionTerminal, SessionTerminalMode,
};
use russh::server::{Handle, Msg};
use russh::{ChannelId, ChannelMsg, ChannelWriteHalf, Sig};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

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

/// Who has signed in on a connection: everything its channels share.
pub(super) struct Client {
    pub(super) app: Arc<App>,
    pub(super) grant: Grant,
    pub(super) identity: Identity,
    /// As it was when they signed in.
    pub(super) instance: InstanceRow,
    pub(super) backlog: Arc<Backlog>,
    from: SocketAddr,
    channels: AtomicUsize,
    /// Cancelled when nothing may go on; `why` says it.
    pub(super) over: CancellationToken,
    why: OnceLock<String>,
    /// Cuts the connection.
    pub(super) cut: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Client {
    #[expect(clippy::too_many_arguments, reason = "a connection's parts, put together once")]
    pub(super) fn new(
        app: &Arc<App>,
        grant: Grant,
        identity: Identity,
        instance: InstanceRow,
        backlog: Arc<Backlog>,
        cut: CancellationToken,
        from: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            app: app.clone(),
            grant,
            identity,
            instance,
            backlog,
            from,
            channels: AtomicUsize::new(0),
            over: CancellationToken::new(),
            why: OnceLock::new(),
            cut,
            _permit: permit,
        }
    }

    /// How many channels there are now.
    pub(super) fn channels(&self) -> usize {
        self.channels.load(Ordering::Relaxed)
    }

    /// Counts a channel until the guard goes.
    pub(super) fn count(self: &Arc<Self>) -> Counted {
        self.channels.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// Ends everything of this connection, for the reason given. The first reason is the one.
    pub(super) fn end(&self, why: String) {
        let _ = self.why.set(why);
        self.over.cancel();
    }

    /// Waits for the end, and answers its reason.
    pub(super) async fn ended(&self) -> String {
        self.over.cancelled().await;
        self.why.get().cloned().unwrap_or_default()
    }

    /// Begins to use the instance.
    pub(super) async fn usage(&self) -> Result<Usage, FarmError> {
        Usage::begin(&self.app, &self.identity, &self.instance.id.to_string()).await
    }

    /// Writes an audit row, in the background: nobody waits for it.
    pub(super) fn audit(&self, action: &'static str, detail: &str) {
        let (app, actor, name) = (self.app.clone(), self.identity.user.to_string(), self.instance.name.clone());
        let detail = format!("{detail} from {}", self.from);
        self.app.spawn(async move { app.audit(&actor, action, &name, &detail).await });
    }

    /// What to tell of an error: of an instance that has ended, why it has.
    pub(super) async fn explain(&self, error: &FarmError) -> String {
        match access::usable_instance(&self.app, &self.identity, &self.instance.id.to_string()).await {
            Err(ended @ FarmError::Ended { .. }) => ended.to_string(),
            _ => error.to_string(),
        }
    }
}

/// See [`Client::count`].
pub(super) struct Counted(Arc<Client>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.channels.fetch_sub(1, Ordering::Relaxed);
    }
}

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
    let _ =
        handle.exit_signal_request(id, signal_name(exit.signal), exit.core_dumped, String::new(), String::new()).await;
}

/// Signals by name and number, as Linux numbers them. RFC 4254, section 6.10, has the names.
const SIGNALS: [(&str, i32); 16] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("XCPU", 24),
];

fn signal_name(number: i32) -> Sig {
    let standard = [
        (1, Sig::HUP),
        (2, Sig::INT),
        (3, Sig::QUIT),
        (4, Sig::ILL),
        (6, Sig::ABRT),
        (8, Sig::FPE),
        (9, Sig::KILL),
        (10, Sig::USR1),
        (11, Sig::SEGV),
        (13, Sig::PIPE),
        (14, Sig::ALRM),
        (15, Sig::TERM),
    ];
    if let Some((_, name)) = standard.into_iter().find(|(known, _)| *known == number) {
        return name;
    }
    let name = SIGNALS.iter().find(|(_, known)| *known == number).map(|(name, _)| (*name).to_owned());
    // Names of one's own have an @, says the RFC.
    Sig::Custom(name.map_or_else(|| format!("{number}@motefarm"), |name| format!("{name}@motefarm")))
}

/// The number of a signal a client names; `None`: there is no such signal.
pub(super) fn signal_number(signal: &Sig) -> Option<i32> {
    let name = match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name.split('@').next().unwrap_or(name),
    };
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_one_name_each_way() {
        for (name, number) in SIGNALS {
            assert_eq!(signal_number(&signal_name(number)), Some(number), "{name}");
            assert_eq!(signal_number(&Sig::Custom(name.to_owned())), Some(number), "{name}");
        }
        assert_eq!(signal_number(&Sig::Custom("NONE".to_owned())), None);
        assert!(matches!(signal_name(99), Sig::Custom(name) if name == "99@motefarm"));
    }
}
