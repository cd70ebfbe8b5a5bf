//! The line that makes a machine join by Go's own agent (golang.org/x/build/cmd/buildlet).
//!
//! The agent ends after each lease and whenever it is out of contact, hence the loop. It dials port 443 only,
//! so the farm's port is named as a proxy. Against `farmer.golang.org` alone it checks whom it talks to;
//! naming that coordinator, which in this mode it never dials, makes it do so, and the farm's CA added to the
//! machine's own is what it checks by.

use super::TOKEN_FILE;
use motefarm_net::tls::ROLE_NAME;

/// Where the line puts the farm's CA, and it together with the machine's own.
const CA_FILE: &str = "mote-farm-ca.pem";
const BUNDLE_FILE: &str = "mote-cas.pem";
/// Where systems keep their own.
const SYSTEM_BUNDLES: &str = "/etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem";
/// The agent's work directory.
const WORK_DIR: &str = "mote-workdir";

/// See the module. `None` if a word would not survive the shell.
pub(super) fn line(token: &str, coordinator: &str, host_type: &str, ca_pem: &str) -> Option<String> {
    let plain = |word: &str| super::is_plain(word);
    let pem_line = |line: &str| line.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=- ".contains(&b));
    if ![token, coordinator, host_type].iter().all(|word| plain(word)) || !ca_pem.lines().all(pem_line) {
        return None;
    }
    let ca: Vec<String> = ca_pem.lines().filter(|line| !line.is_empty()).map(|line| format!("'{line}'")).collect();
    Some(format!(
        "(umask 077 && printf '%s\\n' '{token}' > {TOKEN_FILE} && printf '%s\\n' {ca} > {CA_FILE}); \
         cat {SYSTEM_BUNDLES} {CA_FILE} > {BUNDLE_FILE} 2>/dev/null; \
         while :; do mkdir -p {WORK_DIR}; GOMOTEID='{host_type}' GO_BUILDLET_TOKEN=\"$(cat {TOKEN_FILE})\" HTTPS_PROXY='http://{coordinator}' \
         SSL_CERT_FILE=\"$PWD/{BUNDLE_FILE}\" buildlet -swarming-bot -coordinator=farmer.golang.org \
         -gomote-server-addr={ROLE_NAME}:443 -halt=false -health-addr=127.0.0.1:0 -workdir=\"$PWD/{WORK_DIR}\"; \
         sleep 2; done",
        ca = ca.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "-----BEGIN CERTIFICATE-----\nAb+/=\n-----END CERTIFICATE-----\n";

    #[test]
    fn the_line_is_one_line_that_never_halts_the_machine() {
        let line = line("id.secret.hash", "10.0.0.1:8119", "darwin-arm64", CA).unwrap();
        assert!(!line.contains('\n'));
        assert!(line.contains("-halt=false") && line.contains("HTTPS_PROXY='http://10.0.0.1:8119'"));
        assert!(line.contains("GOMOTEID='darwin-arm64'") && line.contains("'Ab+/='"));
        // In no process's arguments.
        assert_eq!(line.matches("id.secret.hash").count(), 1);
        assert!(line.contains("printf '%s\\n' 'id.secret.hash' > mote-join-token"));
    }

    #[test]
    fn what_a_shell_would_read_is_refused() {
        assert_eq!(line("a'; rm -rf ~'", "a:1", "t", CA), None);
        assert_eq!(line("a", "a:1 $(x)", "t", CA), None);
        assert_eq!(line("a", "a:1", "t", "x' ; reboot '"), None);
    }
}
