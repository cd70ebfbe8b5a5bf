//! What needs root: small file systems and networks that can be cut. Where it is not to be had,
//! the reason is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

fn is_root() -> Result<(), String> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err("not root".to_owned()) }
}

/// A tmpfs of a few megabytes, unmounted when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one at `dir`, which is made.
    pub fn mount(dir: &Path, megabytes: u32) -> Result<Self, String> {
        is_root()?;
        std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let at = dir.display().to_string();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=0755"), "mote-test", &at])?;
        Ok(Self(dir.to_owned()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is just ending may still have a file open there.
        let _ = run("umount", &["-l", &self.0.display().to_string()]);
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A network namespace with one cable to this one, removed when dropped.
pub struct FarNetwork {
    name: String,
    cable: String,
    net: u8,
}

impl FarNetwork {
    /// Makes one, or says why it can not.
    pub fn make() -> Result<Self, String> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        is_root()?;
        let own = std::process::id() % 200;
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let net = u8::try_from((own + u32::from(n) * 17) % 200 + 20).unwrap_or(20);
        let name = format!("mote{}x{n}", std::process::id());
        // An interface's name has at most 15 bytes.
        let cable = format!("mt{}x{n}", std::process::id() % 1_000_000);
        run("ip", &["netns", "add", &name])?;
        let far = Self { name, cable, net };
        let (near_end, far_end) = (format!("{}a", far.cable), format!("{}b", far.cable));
        run("ip", &["link", "add", &near_end, "type", "veth", "peer", "name", &far_end])?;
        run("ip", &["link", "set", &far_end, "netns", &far.name])?;
        run("ip", &["addr", "add", &format!("{}/24", far.near_address()), "dev", &near_end])?;
        run("ip", &["link", "set", &near_end, "up"])?;
        let inside = ["netns", "exec", &far.name, "ip"];
        let inside_run = |args: &[&str]| run("ip", &[&inside, args].concat());
        inside_run(&["addr", "add", &format!("10.219.{}.2/24", far.net), "dev", &far_end])?;
        inside_run(&["link", "set", &far_end, "up"])?;
        inside_run(&["link", "set", "lo", "up"])?;
        Ok(far)
    }

    /// This side's address, as the far side reaches it.
    pub fn near_address(&self) -> String {
        format!("10.219.{}.1", self.net)
    }

    /// What runs a program on the far side.
    pub fn wrapper(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// Pulls the cable: packets vanish, nobody is told.
    #[track_caller]
    pub fn cut(&self) {
        // The far end goes down, so that addresses and routes of this side stay.
        self.set_far_end("down");
    }

    /// Plugs it in again.
    #[track_caller]
    pub fn mend(&self) {
        self.set_far_end("up");
    }

    #[track_caller]
    fn set_far_end(&self, to: &str) {
        let far_end = format!("{}b", self.cable);
        run("ip", &["netns", "exec", &self.name, "ip", "link", "set", &far_end, to]).expect("a cable can be moved");
    }
}

impl Drop for FarNetwork {
    fn drop(&mut self) {
        let _ = run("ip", &["link", "del", &format!("{}a", self.cable)]);
        let _ = run("ip", &["netns", "del", &self.name]);
    }
}
