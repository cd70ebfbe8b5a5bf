//! Every environment variable the program reads, once. Flags win over them, they win over the profile.

/// `HOST:PORT` of the farm, instead of the profile's.
pub(crate) const SERVER: &str = "MOTE_SERVER";
/// The token, instead of the profile's. There is no flag for it: arguments can be seen by everybody
/// on the machine.
pub(crate) const TOKEN: &str = "MOTE_TOKEN";
/// File with the farm's CA certificate (PEM), instead of the profile's.
pub(crate) const CA: &str = "MOTE_CA";
/// Name of the farm, which is the profile `farms/<name>.toml`; `local` if unset.
pub(crate) const FARM: &str = motefarm_net::profile::FARM;
/// The folder that holds `farms/`, instead of `${XDG_CONFIG_HOME:-~/.config}/mote`.
pub(crate) const CONFIG_DIR: &str = motefarm_net::profile::CONFIG_DIR;
/// The folder that holds `runs/` and `trees/`, instead of `${XDG_CACHE_HOME:-~/.cache}/mote`.
pub(crate) const CACHE_DIR: &str = "MOTE_CACHE_DIR";
/// Set and not empty: no colours (<https://no-color.org>).
pub(crate) const NO_COLOR: &str = "NO_COLOR";
/// The Go tree that `push` takes unless `-C` names another.
pub(crate) const GOROOT: &str = "GOROOT";
/// Who is at the keyboard, in the order they are asked: names one's own instance of a buildlet
/// that is addressed directly.
pub(crate) const USER_NAMES: [&str; 3] = ["USER", "LOGNAME", "USERNAME"];
/// The bootstrap toolchain that `push` of a Go tree brings to `go1.4`.
pub(crate) const GOROOT_BOOTSTRAP: &str = "GOROOT_BOOTSTRAP";
/// The group that commands without an instance act on.
pub(crate) const GROUP: &str = "MOTE_GROUP";
/// The same for those who come from gomote; [`GROUP`] wins.
pub(crate) const GOMOTE_GROUP: &str = "GOMOTE_GROUP";
