//! The text of ssh configuration: a block an instance, and the line that includes it. Pure.

use super::Gateway;
use std::path::{Path, PathBuf};

/// What names of instances end with here.
const SUFFIX: &str = ".mote";

/// One instance.
pub(crate) struct Block {
    pub(crate) instance: String,
    pub(crate) certificate: PathBuf,
}

/// A word of ssh configuration.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// A word of the shell.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@,+".contains(c);
    // ssh expands % in a command, and ends it at a double quote.
    let word = word.replace('%', "%%");
    if !word.is_empty() && word.chars().all(|c| plain(c) || c == '%') {
        word
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The blocks of a farm. `renew` is the command that renews an instance's certificate, without its name.
pub(crate) fn render(gateway: &Gateway, key: &Path, known_hosts: &Path, renew: &[String], blocks: &[Block]) -> String {
    let mut text = "# Kept by mote; changes are lost.\n".to_owned();
    let command: Vec<String> = renew.iter().map(|word| shell_word(word)).collect();
    let command = command.join(" ");
    for Block { instance, certificate } in blocks {
        let name = format!("{instance}{SUFFIX}");
        let lines = [
            format!("Host {name}"),
            format!("    HostName {}", gateway.host),
            format!("    Port {}", gateway.port),
            format!("    User {instance}"),
            format!("    HostKeyAlias {}", gateway.alias),
            format!("    UserKnownHostsFile {}", quoted(known_hosts)),
            "    GlobalKnownHostsFile /dev/null".to_owned(),
            "    StrictHostKeyChecking yes".to_owned(),
            format!("    IdentityFile {}", quoted(key)),
            format!("    CertificateFile {}", quoted(certificate)),
            "    IdentitiesOnly yes".to_owned(),
            "    PreferredAuthentications publickey".to_owned(),
            format!("Match originalhost {name} exec \"{command} {instance}\""),
            format!("    User {instance}"),
        ];
        text.push('\n');
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
    }
    // Whoever includes this goes on after it.
    text.push_str("\nMatch all\n");
    text
}

/// The line of a user's configuration that includes the blocks.
pub(crate) fn include_line(configs: &Path) -> String {
    format!("Include {}", quoted(configs))
}

/// A user's configuration with the line in it; `None` if it is there. Before everything else: further
/// down it would belong to somebody's Host.
pub(crate) fn with_include(config: &str, line: &str) -> Option<String> {
    if config.lines().any(|there| there.trim() == line) {
        return None;
    }
    let rest = if config.is_empty() { String::new() } else { format!("\n{config}") };
    Some(format!("# Instances of mote\n{line}\n{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_says_all_that_ssh_needs() {
        let gateway = Gateway { host: "farm.example".into(), port: 2222, alias: "motefarm".into() };
        let block = Block { instance: "alice-x-0".into(), certificate: "/c/alice-x-0-cert.pub".into() };
        let renew = ["/bin/mote".to_owned(), "--profile".to_owned(), "/my farms/50%.toml".to_owned()];
        let text = render(&gateway, Path::new("/k"), Path::new("/kh"), &renew, &[block]);
        assert!(text.contains("\nHost alice-x-0.mote\n    HostName farm.example\n    Port 2222\n    User alice-x-0\n"));
        assert!(text.contains("CertificateFile \"/c/alice-x-0-cert.pub\""));
        let renewal = "Match originalhost alice-x-0.mote exec \"/bin/mote --profile '/my farms/50%%.toml' alice-x-0\"";
        assert!(text.contains(renewal), "{text}");
        assert!(text.ends_with("\nMatch all\n"));
    }

    #[test]
    fn the_include_comes_first_and_once() {
        let line = include_line(Path::new("/c/ssh/farms/*/config"));
        let fresh = with_include("", &line).unwrap();
        assert_eq!(fresh, "# Instances of mote\nInclude \"/c/ssh/farms/*/config\"\n");
        let other = with_include("Host a\n  User b\n", &line).unwrap();
        assert!(other.ends_with("\n\nHost a\n  User b\n") && other.starts_with("# Instances"));
        assert_eq!(with_include(&other, &line), None);
    }
}
