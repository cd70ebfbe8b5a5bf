//! What every action of a runner sees of the machine, made once: the runner's own namespaces, in which
//! nothing else is left.
//!
//! ```text
//! /actions   the actions' directories
//! /host      the system's parts, read-only; each is shown in an action's root that has none of that name
//! /dev       harmless devices, read-only
//! /proc      the machine's, without which the kernel lets no action have one of its own
//! /root      where a cell mounts the root of its action
//! ```
//!
//! User, network, host name and what is here are shared by the actions of one runner, which come one
//! after the other; nobody in them may change any of it. The network has a loopback and nothing else.

use super::cell::{DEV, PROC, TMP};
use super::mounts::{
    Bind, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, at, bind, failed, make_dir, memory, overlay, set,
};
use motefarm_proto::mote::RunnerPart;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::thread::CapabilitySet;
use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

pub(super) const ACTIONS: &str = "/actions";
pub(super) const HOST: &str = "/host";
pub(super) const ROOT: &str = "/root";
/// The machine's root while the template is being made.
const OLD: &str = "/old";

/// Who commands are inside, whoever the buildlet is outside: a plain user.
const USER_ID: u32 = 1000;
const HOST_NAME: &str = "mote";
/// Parts of the system that are links or directories, as on the machine.
const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// What of /etc the system's programs need to be found and started.
const ETC: [&str; 4] = ["alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"];
/// And directories that begin so: a JDK of Debian has its configuration there.
const ETC_PREFIX: &str = "java";
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// See the module.
pub(super) struct Template {
    /// Entries of [`HOST`].
    parts: Vec<RunnerPart>,
    /// The buildlet is the machine's root. Parts of /proc ask for no right, but who one is.
    pub(super) is_root: bool,
    /// An input's directory can be laid over a part of the system.
    pub(super) merges: bool,
}

impl Template {
    /// Moves this process into namespaces of its own. An error says what this machine does not allow.
    pub(super) fn make(actions: &Path, show: &[PathBuf], hide: &Path) -> io::Result<Self> {
        let show = show
            .iter()
            .map(|path| Ok((fs::canonicalize(path).map_err(at("show", path))?, path.clone())))
            .collect::<io::Result<Vec<_>>>()?;
        let is_root = nix::unistd::geteuid().is_root();
        new_namespaces()?;
        leave_the_machine()?;
        bind(&below(OLD, actions), Path::new(ACTIONS), Bind::Writable)?;
        bind(&below(OLD, Path::new("proc")), Path::new("/proc"), Bind::AsIs)?;
        devices()?;
        let parts = host(&show, hide)?;
        let merges = can_merge();
        umount2(OLD, MntFlags::MNT_DETACH).map_err(|e| failed("unmount", Path::new(OLD), e))?;
        // Nobody who is started from here gains any right, whatever he executes.
        rustix::thread::set_no_new_privs(true)?;
        for capability in CapabilitySet::all().iter() {
            // Those that this kernel does not know are not had either.
            let _ = rustix::thread::remove_capability_from_bounding_set(capability);
        }
        Ok(Self { parts, is_root, merges })
    }

    /// Entries of an action's root that can be shown in it.
    pub(super) fn offered(&self) -> Vec<RunnerPart> {
        let own = [DEV, PROC, TMP].map(|name| RunnerPart { name: name.to_owned(), link: String::new() });
        self.parts.iter().cloned().chain(own).collect()
    }
}

/// A user who has all rights in them, and outside only those it had.
fn new_namespaces() -> io::Result<()> {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let flags = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(flags).map_err(|e| io::Error::other(format!("namespaces are not allowed here: {}", e.desc())))?;
    let write = |name: &str, text: String| {
        let path = Path::new("/proc/self").join(name);
        fs::write(&path, text).map_err(at("write", &path))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{USER_ID} {user} 1"))?;
    write("gid_map", format!("{USER_ID} {group} 1"))?;
    rustix::system::sethostname(HOST_NAME.as_bytes())?;
    loopback_up()
}

/// Makes an empty directory in memory the root, with the machine's below [`OLD`].
fn leave_the_machine() -> io::Result<()> {
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(|e| failed("keep to ourselves", Path::new("/"), e))?;
    memory(Path::new("/tmp"))?;
    std::env::set_current_dir("/tmp")?;
    make_dir(Path::new("old"))?;
    nix::unistd::pivot_root(".", "old").map_err(|e| failed("change the root to", Path::new("/tmp"), e))?;
    std::env::set_current_dir("/")?;
    [ACTIONS, HOST, ROOT, "/dev", "/proc"].iter().try_for_each(|dir| make_dir(Path::new(dir)))
}

fn devices() -> io::Result<()> {
    let dev = Path::new("/dev");
    memory(dev)?;
    for name in DEVICES {
        fs::File::create(dev.join(name)).map_err(at("make", &dev.join(name)))?;
        bind(&below(OLD, &dev.join(name)), &dev.join(name), Bind::AsIs)?;
    }
    for (target, name) in DEVICE_LINKS {
        symlink(target, dev.join(name)).map_err(at("make", &dev.join(name)))?;
    }
    make_dir(&dev.join("shm"))?;
    let pts = dev.join("pts");
    make_dir(&pts)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("devpts"), &pts, Some("devpts"), flags, Some("newinstance,ptmxmode=0666,mode=620"))
        .map_err(|e| failed("mount", &pts, e))?;
    // The directory only: what is mounted in it stays as it is.
    set(dev, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, false)
}

/// Fills [`HOST`] and names what is in it.
fn host(show: &[(PathBuf, PathBuf)], hide: &Path) -> io::Result<Vec<RunnerPart>> {
    let host = Path::new(HOST);
    memory(host)?;
    let mut parts: Vec<RunnerPart> = Vec::new();
    let mut shown = Vec::new();
    for name in SYSTEM {
        let (from, to) = (below(OLD, Path::new(name)), host.join(name));
        let mut link = String::new();
        match fs::symlink_metadata(&from) {
            Ok(meta) if meta.is_symlink() => {
                let target = fs::read_link(&from)?;
                symlink(&target, &to).map_err(at("make", &to))?;
                link = target.to_string_lossy().into_owned();
            }
            Ok(meta) if meta.is_dir() => {
                make_dir(&to)?;
                bind(&from, &to, Bind::ReadOnly)?;
                shown.push(to);
            }
            _ => continue,
        }
        parts.push(RunnerPart { name: name.to_owned(), link });
    }
    let etc =
        fs::read_dir(below(OLD, Path::new("etc"))).map(|all| all.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let etc = etc
        .iter()
        .map(fs::DirEntry::file_name)
        .filter(|name| name.to_str().is_some_and(|name| ETC.contains(&name) || name.starts_with(ETC_PREFIX)));
    let etc = etc.map(|name| Path::new("/etc").join(name)).map(|path| (path.clone(), path));
    for (from, to) in etc.chain(show.iter().cloned()) {
        // What each action has of its own nothing can be shown in.
        let own = [DEV, PROC, TMP].iter().any(|own| to.starts_with(Path::new("/").join(own)));
        let to = below(HOST, &to);
        if own || shown.iter().any(|part| to.starts_with(part)) {
            continue;
        }
        let from = below(OLD, &from);
        if fs::metadata(&from).map_err(at("show", &from))?.is_dir() {
            fs::create_dir_all(&to).map_err(at("make", &to))?;
        } else {
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(at("make", parent))?;
            }
            fs::File::create(&to).map_err(at("make", &to))?;
        }
        bind(&from, &to, Bind::ReadOnly)?;
        shown.push(to.clone());
        let top = to.strip_prefix(HOST).ok().and_then(|path| path.components().next());
        if let Some(top) = top.and_then(|top| top.as_os_str().to_str())
            && !parts.iter().any(|part| part.name == top)
        {
            parts.push(RunnerPart { name: top.to_owned(), link: String::new() });
        }
    }
    let hidden = below(HOST, hide);
    if shown.iter().any(|part| hidden.starts_with(part)) && hidden.is_dir() {
        memory(&hidden)?;
        set(&hidden, MOUNT_ATTR_RDONLY, false)?;
    }
    set(host, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, false)?;
    Ok(parts)
}

/// Whether this kernel lets us lay directories over others: found out by doing it.
fn can_merge() -> bool {
    let root = Path::new(ROOT);
    overlay(Path::new("/dev"), &Path::new(HOST).join("usr"), root).is_ok()
        && umount2(root, MntFlags::MNT_DETACH).is_ok()
}

/// An absolute (or bare) path below another.
fn below(dir: &str, path: &Path) -> PathBuf {
    Path::new(dir).join(path.strip_prefix("/").unwrap_or(path))
}

/// Servers of tests listen on it.
fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    #[expect(unsafe_code, reason = "an interface is brought up by ioctl, which has no safe wrapper")]
    // SAFETY: an ifreq is plain data, for which zeros are a value; the kernel reads and writes it only
    // during the calls.
    let answer = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request)
    };
    nix::errno::Errno::result(answer).map(drop).map_err(|e| io::Error::other(format!("no loopback: {}", e.desc())))
}
