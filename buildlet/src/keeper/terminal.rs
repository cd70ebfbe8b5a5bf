//! Pseudo-terminals, made in the sandbox so that processes there can find them by name.

use motefarm_proto::mote::{SessionResize, SessionTerminal, SessionTerminalMode};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{
    ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// A new terminal.
pub(super) struct Terminal {
    /// What types and reads the screen.
    pub(super) ours: OwnedFd,
    /// What programs have as their terminal.
    pub(super) end: OwnedFd,
    /// Of `end`, in the sandbox.
    pub(super) name: PathBuf,
}

/// Makes one of the wished size and modes.
pub(super) fn open(wish: &SessionTerminal) -> io::Result<Terminal> {
    let size = winsize(wish.size.unwrap_or_default());
    let pair = openpty(Some(&size), None)?;
    // Single-threaded: nobody forks between these lines.
    for fd in [&pair.master, &pair.slave] {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    let mut modes = tcgetattr(&pair.slave)?;
    wish.modes.iter().for_each(|mode| apply(&mut modes, mode));
    tcsetattr(&pair.slave, SetArg::TCSANOW, &modes)?;
    let name = nix::unistd::ttyname(&pair.slave)?;
    Ok(Terminal { ours: pair.master, end: pair.slave, name })
}

fn winsize(size: SessionResize) -> Winsize {
    let short = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    Winsize {
        ws_row: short(size.rows),
        ws_col: short(size.columns),
        ws_xpixel: short(size.width_pixels),
        ws_ypixel: short(size.height_pixels),
    }
}

/// RFC 4254, section 8: control characters that Linux has.
const CHARACTERS: [(u32, SpecialCharacterIndices); 15] = [
    (1, SpecialCharacterIndices::VINTR),
    (2, SpecialCharacterIndices::VQUIT),
    (3, SpecialCharacterIndices::VERASE),
    (4, SpecialCharacterIndices::VKILL),
    (5, SpecialCharacterIndices::VEOF),
    (6, SpecialCharacterIndices::VEOL),
    (7, SpecialCharacterIndices::VEOL2),
    (8, SpecialCharacterIndices::VSTART),
    (9, SpecialCharacterIndices::VSTOP),
    (10, SpecialCharacterIndices::VSUSP),
    (12, SpecialCharacterIndices::VREPRINT),
    (13, SpecialCharacterIndices::VWERASE),
    (14, SpecialCharacterIndices::VLNEXT),
    (16, SpecialCharacterIndices::VSWTC),
    (18, SpecialCharacterIndices::VDISCARD),
];
/// "No such character", on the wire.
const DISABLED: u32 = 255;

const INPUT: [(u32, InputFlags); 12] = [
    (30, InputFlags::IGNPAR),
    (31, InputFlags::PARMRK),
    (32, InputFlags::INPCK),
    (33, InputFlags::ISTRIP),
    (34, InputFlags::INLCR),
    (35, InputFlags::IGNCR),
    (36, InputFlags::ICRNL),
    (38, InputFlags::IXON),
    (39, InputFlags::IXANY),
    (40, InputFlags::IXOFF),
    (41, InputFlags::IMAXBEL),
    (42, InputFlags::IUTF8),
];

const LOCAL: [(u32, LocalFlags); 12] = [
    (50, LocalFlags::ISIG),
    (51, LocalFlags::ICANON),
    (53, LocalFlags::ECHO),
    (54, LocalFlags::ECHOE),
    (55, LocalFlags::ECHOK),
    (56, LocalFlags::ECHONL),
    (57, LocalFlags::NOFLSH),
    (58, LocalFlags::TOSTOP),
    (59, LocalFlags::IEXTEN),
    (60, LocalFlags::ECHOCTL),
    (61, LocalFlags::ECHOKE),
    (62, LocalFlags::PENDIN),
];

const OUTPUT: [(u32, OutputFlags); 6] = [
    (70, OutputFlags::OPOST),
    (71, OutputFlags::OLCUC),
    (72, OutputFlags::ONLCR),
    (73, OutputFlags::OCRNL),
    (74, OutputFlags::ONOCR),
    (75, OutputFlags::ONLRET),
];

const CONTROL: [(u32, ControlFlags); 4] =
    [(90, ControlFlags::CS7), (91, ControlFlags::CS8), (92, ControlFlags::PARENB), (93, ControlFlags::PARODD)];

fn apply(modes: &mut Termios, mode: &SessionTerminalMode) {
    fn named<T: Copy>(table: &[(u32, T)], opcode: u32) -> Option<T> {
        table.iter().find(|(known, _)| *known == opcode).map(|(_, value)| *value)
    }
    let on = mode.value != 0;
    if let Some(at) = named(&CHARACTERS, mode.opcode) {
        let character = if mode.value == DISABLED { 0 } else { u8::try_from(mode.value).unwrap_or(0) };
        modes.control_chars[at as usize] = character;
    } else if let Some(flag) = named(&INPUT, mode.opcode) {
        modes.input_flags.set(flag, on);
    } else if let Some(flag) = named(&LOCAL, mode.opcode) {
        modes.local_flags.set(flag, on);
    } else if let Some(flag) = named(&OUTPUT, mode.opcode) {
        modes.output_flags.set(flag, on);
    } else if let Some(flag) = named(&CONTROL, mode.opcode) {
        // The sizes share bits, and only the one that is on says which.
        if on && ControlFlags::CSIZE.contains(flag) {
            modes.control_flags.remove(ControlFlags::CSIZE);
            modes.control_flags.insert(flag);
        } else if !ControlFlags::CSIZE.contains(flag) {
            modes.control_flags.set(flag, on);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_the_size_and_modes_that_were_wished_for() {
        let size = SessionResize { columns: 100, rows: 70_000, ..Default::default() };
        let mode = |opcode, value| SessionTerminalMode { opcode, value };
        let modes = vec![mode(53, 0), mode(1, 7), mode(2, 255), mode(90, 0), mode(91, 1), mode(250, 1)];
        let terminal = open(&SessionTerminal { term: "xterm".into(), size: Some(size), modes }).unwrap();
        let found = tcgetattr(&terminal.end).unwrap();
        assert!(!found.local_flags.contains(LocalFlags::ECHO) && found.local_flags.contains(LocalFlags::ICANON));
        assert_eq!(found.control_chars[SpecialCharacterIndices::VINTR as usize], 7);
        assert_eq!(found.control_chars[SpecialCharacterIndices::VQUIT as usize], 0);
        assert!(found.control_flags.contains(ControlFlags::CS8));
        let size = rustix::termios::tcgetwinsize(&terminal.ours).unwrap();
        assert_eq!((size.ws_col, size.ws_row), (100, u16::MAX));
        assert!(terminal.name.starts_with("/dev/pts"));
    }
}
