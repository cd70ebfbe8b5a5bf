//! The variables that a running compiler_proxy was started with, by its `/flagz`, held against those of now.
//! Pure.

use super::variables::Variables;
use std::collections::BTreeMap;

/// What decides where and how it compiles: told even if only the running one has it.
const DECISIVE: &str = "ARBITRARY_TOOLCHAIN_SUPPORT DISABLED FALLBACK GCE_SERVICE_ACCOUNT HERMETIC HTTP_AUTHORIZATION_FILE \
    OAUTH2_CONFIG_FILE PROXY_HOST PROXY_PORT RPC_EXTRA_PARAMS SERVER_HOST SERVER_PORT SERVICE_ACCOUNT_JSON_FILE SETTINGS_SERVER \
    SSL_EXTRA_CERT STORE_ONLY URL_PATH_PREFIX USE_LOCAL USE_SSL";
/// What `goma_ctl.py` sets where nobody did.
const OF_GOMA_CTL: [(&str, &str); 2] = [("GOMA_USE_SSL", "true"), ("GOMA_SERVER_PORT", "80")];

/// The page's variables; those that it says it found out itself are left out.
pub fn parse(page: &str) -> BTreeMap<String, String> {
    let lines = page.lines().map(str::trim).filter(|line| !line.ends_with("(auto configured)"));
    let pairs = lines.filter_map(|line| line.split_once('=')).filter(|(name, _)| name.starts_with("GOMA_"));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

/// Whether it was sent to http_proxy on this port.
pub fn is_behind_http_proxy(running: &BTreeMap<String, String>, port: u16) -> bool {
    let is = |name: &str, value: &str| running.get(name).is_some_and(|running| running == value);
    is("GOMA_SERVER_HOST", "127.0.0.1") && is("GOMA_SERVER_PORT", &port.to_string())
}

/// Each difference in words. `but`: names that are judged elsewhere.
pub fn differences(running: &BTreeMap<String, String>, now: &Variables, but: &[&str]) -> Vec<String> {
    let now: BTreeMap<&str, &str> = now.goma().collect();
    let mut found = Vec::new();
    for (name, value) in &now {
        match running.get(*name) {
            _ if but.contains(name) => {}
            Some(running) if running == value => {}
            Some(running) => found.push(format!("{name} is {value:?} here and {running:?} there")),
            None => found.push(format!("{name} is {value:?} here and not set there")),
        }
    }
    for (name, value) in running.iter().filter(|(name, _)| !now.contains_key(name.as_str())) {
        let bare = name.trim_start_matches("GOMA_");
        let is_decisive = DECISIVE.split(' ').any(|decisive| decisive == bare);
        let by_goma_ctl = OF_GOMA_CTL.contains(&(name.as_str(), value.as_str()));
        if is_decisive && !by_goma_ctl && !but.contains(&name.as_str()) {
            found.push(format!("{name} is not set here and {value:?} there"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_and_what_goma_ctl_sets_is_not() {
        let page = "GOMA_SERVER_HOST=old.example\nGOMA_USE_SSL=true\nGOMA_MAX_SUBPROCS=3 (auto configured)\n\
            GOMA_PING_TIMEOUT_SEC=60\nGOMA_FALLBACK=true\nGOMA_HERMETIC=off\nno variable\n";
        let running = parse(page);
        assert_eq!(running.len(), 5);
        let pairs = [("GOMA_SERVER_HOST", "127.0.0.1"), ("GOMA_FALLBACK", "true"), ("GOMA_RETRY", ""), ("HOME", "/h")];
        let now: Variables = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        assert_eq!(
            differences(&running, &now, &[]),
            [
                "GOMA_RETRY is \"\" here and not set there",
                "GOMA_SERVER_HOST is \"127.0.0.1\" here and \"old.example\" there",
                "GOMA_HERMETIC is not set here and \"off\" there",
            ]
        );
        assert_eq!(
            differences(&running, &now, &["GOMA_SERVER_HOST", "GOMA_RETRY", "GOMA_HERMETIC"]),
            Vec::<String>::new()
        );
        assert!(!is_behind_http_proxy(&running, 19080));
        assert!(is_behind_http_proxy(&parse("GOMA_SERVER_HOST=127.0.0.1\nGOMA_SERVER_PORT=19080\n"), 19080));
    }
}
