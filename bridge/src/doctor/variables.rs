//! The client's variables: which it knows, and how it reads each. Pure.
//!
//! Names and kinds are those that clients from 2018 to 2023 are known to read. Whoever has the client itself
//! can ask it (`programs`): what it says counts more than this list.

use std::collections::BTreeMap;

/// How a variable is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As `true` or `false`, in abseil's spellings.
    Switch,
    /// As a whole number.
    Number,
    /// As a file's or directory's path, from wherever the client was started.
    Path,
    /// As it is.
    Text,
}

const SWITCHES: &str = "ARBITRARY_TOOLCHAIN_SUPPORT BACKEND_SOFT_STICKINESS BACKEND_SOFT_STICKINESS_REFRESH \
    COMPILER_PROXY_DAEMON_MODE COMPILER_PROXY_ENABLE_CRASH_DUMP COMPILER_PROXY_REUSE_CONNECTION COMPILER_PROXY_STORE_FILE DISABLED \
    DONT_KILL_SUBPROCESS DUMP DUMP_APPENDLOG DUMP_ARGV DUMP_REQUEST DUMP_RESPONSE DUMP_TIME ENABLE_AUTO_UPDATE ENABLE_CONTENTIONZ \
    ENABLE_COUNTERZ ENABLE_CWD_NORMALIZATION ENABLE_GCH_HACK ENABLE_GLOBAL_FILE_ID_CACHE ENABLE_GLOBAL_FILE_STAT_CACHE \
    ENABLE_REMOTE_CLANG_MODULES ENABLE_REMOTE_LINK EXTERNAL_USER FAIL_FAST FAIL_FOR_UNSUPPORTED_COMPILER_FLAGS FALLBACK FALLBACK_CONFTEST \
    FAN_OUT_EXEC_REQ GOMACC_ENABLE_CRASH_DUMP GOMACC_WRITE_LOG_FOR_TESTING HTTP_RPC_CAPTURE_RESPONSE_HEADER HTTP_RPC_START_COMPRESSION \
    LOCAL_RUN_FOR_FAILED_INPUT OUTPUT_EXEC_RESP PROVIDE_INFO RETRY SEND_COMPILER_BINARY_AS_INPUT SEND_EXPECTED_OUTPUTS SEND_USER_INFO \
    START_COMPILER_PROXY STORE_LOCAL_RUN_OUTPUT STORE_ONLY USE_LOCAL USE_RELATIVE_PATHS_IN_ARGV USE_SSL USE_SUCCESS \
    USE_USER_SPECIFIED_PATH_FOR_SUBPROGRAMS VERIFY_ASSEMBLER_CODE VERIFY_OUTPUT VERIFY_PREPROCESS_CODE";

const NUMBERS: &str = "ALLOWED_MAX_ACTIVE_FAIL_FALLBACK_DURATION ALLOWED_NETWORK_ERROR_DURATION AUTO_UPDATE_IDLE_COUNT BURST_MAX_SUBPROCS \
    BURST_MAX_SUBPROCS_HEAVY BURST_MAX_SUBPROCS_LOW COMPILER_INFO_CACHE_HOLDING_TIME_SEC COMPILER_INFO_POOL COMPILER_PROXY_HTTP_THREADS \
    COMPILER_PROXY_MAX_SOCKETS COMPILER_PROXY_NEW_FILE_THRESHOLD COMPILER_PROXY_NUM_FIND_PORTS COMPILER_PROXY_PORT COMPILER_PROXY_THREADS \
    DEPS_CACHE_IDENTIFIER_ALIVE_DURATION DEPS_CACHE_MAX_PROTO_SIZE_IN_MB DEPS_CACHE_TABLE_THRESHOLD EXCLUSIVE_NUM_PROCS FETCH_RETRY \
    GOMACC_COMPILER_PROXY_RESTART_DELAY HTTP_RPC_COMPRESSION_LEVEL HTTP_RPC_MAX_RETRY_BACKOFF HTTP_RPC_MIN_RETRY_BACKOFF \
    INCLUDE_PROCESSOR_THREADS LOCAL_OUTPUT_CACHE_MAX_CACHE_AMOUNT_IN_MB LOCAL_OUTPUT_CACHE_MAX_ITEMS \
    LOCAL_OUTPUT_CACHE_THRESHOLD_CACHE_AMOUNT_IN_MB LOCAL_OUTPUT_CACHE_THRESHOLD_ITEMS LOCAL_RUN_DELAY_MSEC LOCAL_RUN_PREFERENCE \
    LOG_CLEAN_INTERVAL LOG_PENDING_MS MAX_ACTIVE_FAIL_FALLBACK_TASKS MAX_ACTIVE_TASKS MAX_COMPILER_DISABLED_TASKS MAX_FAILED_TASKS \
    MAX_FINISHED_TASKS MAX_INCLUDE_CACHE_SIZE MAX_LIST_DIR_CACHE_ENTRY_NUM MAX_LONG_TASKS MAX_OVERCOMMIT_INCOMING_SOCKETS MAX_SLEEP_TIME \
    MAX_SUBPROCS MAX_SUBPROCS_HEAVY MAX_SUBPROCS_LOW MAX_SUBPROCS_PENDING MAX_SUM_OUTPUT_SIZE_IN_MB MEMORY_TRACK_INTERVAL \
    MEMORY_WARNING_THRESHOLD_IN_MB MULTI_STORE_IN_CALL MULTI_STORE_PENDING_MS MULTI_STORE_THRESHOLD_SIZE_IN_CALL NAMEDPIPE_WAIT_TIMEOUT_MS \
    NETWORK_ERROR_THRESHOLD_PERCENT NUM_LOG_IN_SAVE_LOG PING_RETRY_INTERVAL PING_TIMEOUT_SEC PROXY_PORT RPC_TRACE_PERIOD SERVER_PORT \
    SSL_CRL_MAX_VALID_DURATION STUBBY_PROXY_PORT WATCHDOG_TIMER";

const PATHS: &str = "CACHE_DIR HTTP_AUTHORIZATION_FILE LOCAL_OUTPUT_CACHE_DIR OAUTH2_CONFIG_FILE SERVICE_ACCOUNT_JSON_FILE SSL_EXTRA_CERT \
    TMP_DIR";

const TEXTS: &str = "API_TASKZ_FILE_FOR_TEST ASSERT_SETTINGS COMMAND_CHECK_LEVEL COMPILER_INFO_CACHE_FILE COMPILER_PROXY_BINARY \
    COMPILER_PROXY_CPU_PROFILE_FILE COMPILER_PROXY_DAEMON_STDERR COMPILER_PROXY_HEAP_PROFILE_FILE COMPILER_PROXY_LISTEN_ADDR \
    COMPILER_PROXY_LOCK_FILENAME COMPILER_PROXY_RPC_TIMEOUT_SECS COMPILER_PROXY_SOCKET_NAME COMPILER_PROXY_TRUSTED_IPS \
    CONTENT_TYPE_FOR_PROTOBUF CTL_SCRIPT_NAME DEPS_CACHE_FILE DIR DONT_KILL_COMMANDS DUMP_COUNTERZ_FILE DUMP_STATS_FILE \
    FALLBACK_INPUT_FILES GCE_SERVICE_ACCOUNT GOMACC_LOCK_FILENAME GOMACC_LOCK_GLOBALNAME HASH_REWRITE_RULE_FILE HERMETIC \
    HTTP_ACCEPT_ENCODING HTTP_HOST HTTP_SOCKET_READ_TIMEOUT_SECS IMPLICIT_INPUT_FILES INCLUDE_PROCESSOR_CPU_PROFILE_FILE \
    LOAD_AVERAGE_LIMIT PROXY_HOST RPC_EXTRA_PARAMS SERVER_HOST SETTINGS_SERVER SSL_EXTRA_CERT_DATA STUBBY_PROXY_IP_ADDRESS \
    URL_PATH_PREFIX USE_CASE VERIFY_COMMAND";

/// How the client reads a `GOMA_` variable; `None`: it knows no such one.
pub fn reading(name: &str) -> Option<Reading> {
    let name = name.strip_prefix("GOMA_")?;
    let lists =
        [(SWITCHES, Reading::Switch), (NUMBERS, Reading::Number), (PATHS, Reading::Path), (TEXTS, Reading::Text)];
    lists.into_iter().find(|(list, _)| list.split(' ').any(|known| known == name)).map(|(_, reading)| reading)
}

/// A known name that is spelled like this one, nearly.
pub fn similar(name: &str) -> Option<String> {
    let bare = |text: &str| text.replace('_', "");
    let all = [SWITCHES, NUMBERS, PATHS, TEXTS].into_iter().flat_map(|list| list.split(' '));
    let asked = bare(name.strip_prefix("GOMA_")?);
    let near = |known: &&str| {
        let known = bare(known);
        known == asked || (asked.len() > 4 && (known.ends_with(&asked) || asked.ends_with(&known)) && known.len() > 4)
    };
    all.filter(|known| !known.is_empty()).find(near).map(|known| format!("GOMA_{known}"))
}

/// A switch's text, as abseil reads it; anything else ends the client.
pub fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// An environment.
#[derive(Debug, Clone, Default)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// The value, if it is one.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// A switch's position; what is no switch's text counts for nothing.
    pub fn is_on(&self, name: &str, default: bool) -> bool {
        self.text(name).and_then(switch).unwrap_or(default)
    }

    /// A port, if it is one.
    pub fn port(&self, name: &str) -> Option<u16> {
        self.text(name)?.parse().ok().filter(|port| *port != 0)
    }

    /// Every variable of the client's, empty ones included, in order of names.
    pub fn goma(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        all.filter(|(name, _)| name.starts_with("GOMA_"))
    }

    /// The first of these that has a value.
    pub fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.text(name))
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<Pairs: IntoIterator<Item = (String, String)>>(pairs: Pairs) -> Self {
        Self(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_env::ClientEnv;

    #[test]
    fn every_name_is_read_one_way() {
        for (name, expected) in [
            ("GOMA_USE_SSL", Some(Reading::Switch)),
            ("GOMA_SERVER_PORT", Some(Reading::Number)),
            ("GOMA_HTTP_AUTHORIZATION_FILE", Some(Reading::Path)),
            ("GOMA_SERVER_HOST", Some(Reading::Text)),
            ("GOMA_BRIDGE", None),
            ("GOMA_", None),
            ("GOMACTL_USE_PROXY", None),
        ] {
            assert_eq!(reading(name), expected, "{name}");
        }
        let mut all: Vec<&str> =
            [SWITCHES, NUMBERS, PATHS, TEXTS].into_iter().flat_map(|list| list.split(' ')).collect();
        assert!(all.iter().all(|name| !name.is_empty()), "names are apart by one space");
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn slips_have_a_name_that_was_meant() {
        assert_eq!(similar("GOMA_SERVERHOST").as_deref(), Some("GOMA_SERVER_HOST"));
        assert_eq!(similar("GOMA_AUTHORIZATION_FILE").as_deref(), Some("GOMA_HTTP_AUTHORIZATION_FILE"));
        assert_eq!(similar("GOMA_X"), None);
    }

    #[test]
    fn everything_that_mote_bridge_prints_is_known() {
        let files = [(Some("/t".into()), None), (None, Some("/l".into()))];
        for (token_file, local_auth) in files {
            let settings = Some("/settings".into());
            let env = ClientEnv { host: "h".into(), port: 1, token_file, local_auth, settings, strict: true };
            for (name, _) in env.variables() {
                let is_others = name.starts_with("GOMACTL_") || name == "LUCI_CONTEXT";
                assert!(is_others || reading(name).is_some(), "{name}");
            }
        }
    }
}
