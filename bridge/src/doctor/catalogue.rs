//! Every kind of finding: its id, which stays from version to version, how bad it is, and why it matters.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Remote compiles fail, or the client does not start.
    Wrong,
    /// They may.
    Doubtful,
    /// They do not; it only looks so.
    Harmless,
}

impl Severity {
    /// As people read it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::Doubtful => "doubtful",
            Self::Harmless => "harmless",
        }
    }
}

macro_rules! kinds {
    ($($kind:ident = $id:literal, $severity:ident, $why:literal;)*) => {
        /// A kind of finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = $why] $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// What programs know it by.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$kind => $id,)* }
            }

            /// How bad it is, unless what was found says otherwise.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$kind => Severity::$severity,)* }
            }

            /// Why it matters.
            pub const fn why(self) -> &'static str {
                match self { $(Self::$kind => $why,)* }
            }
        }
    };
}

kinds! {
    // The variables.
    UnexpandedValue = "unexpanded-value", Wrong,
        "the client expands neither ~ nor variables: it looks for a file of exactly that name, and ends if there is none";
    RelativePath = "relative-path", Wrong,
        "compiler_proxy looks for it from whatever directory it was started in";
    MissingFile = "missing-file", Wrong,
        "the client needs what is in it, and says little when it can not read it";
    NotACertificate = "not-a-certificate", Wrong,
        "the client reads PEM text there: BEGIN CERTIFICATE and so on";
    BadSwitch = "bad-switch", Wrong,
        "the client takes true and false (t, yes, y, 1; f, no, n, 0) and ends at anything else";
    BadNumber = "bad-number", Wrong,
        "the client takes whole numbers here, for ports from 1 to 65535";
    UnknownVariable = "unknown-variable", Wrong,
        "compiler_proxy and gomacc end at every GOMA_ variable that they do not know (\"unknown GOMA_ parameter\")";
    NoServer = "no-server", Wrong,
        "the client then calls goma.chromium.org";
    HostWithPort = "host-with-port", Wrong,
        "it is handed to the resolver as it is: neither port nor scheme belongs into it";
    NoPort = "no-port", Doubtful,
        "then it is 80 or 443 by who starts the client: goma_ctl.py takes 80 without TLS, compiler_proxy by itself 443";
    PathPrefix = "path-prefix", Wrong,
        "it is pasted into every request as it is: it is a path, begins with / and holds no port";
    ExtraParameters = "extra-parameters", Doubtful,
        "they are pasted behind every path as they are: without a ? in front they make another path of it";
    SchemeAndPort = "scheme-and-port", Doubtful,
        "443 usually speaks TLS and 80 does not";
    SettingsServer = "settings-server", Doubtful,
        "what it answers replaces GOMA_SERVER_HOST, GOMA_SERVER_PORT, GOMA_USE_SSL and GOMA_URL_PATH_PREFIX";
    Disabled = "disabled", Wrong,
        "gomacc then compiles locally, and the server is never asked";
    ToolchainSupport = "toolchain-support", Wrong,
        "without it the client expects the server to know its compiler, and the bridge knows none";
    Hermetic = "hermetic", Doubtful,
        "a compile whose compiler does not match fails all the same, and the compiler stays disabled";
    CachePolicy = "cache-policy", Wrong,
        "they exclude each other";
    LocalRace = "local-race", Harmless,
        "an idle machine then races the server with compiles of its own, so some never get there";
    Proxy = "proxy", Doubtful,
        "the client goes through it to every server, 127.0.0.1 included; it does not read no_proxy";
    HttpProxy = "http-proxy", Doubtful,
        "goma_ctl.py (by default, if it is newer) puts http_proxy in between: it is told the host only, so the port is lost, and it \
         speaks TLS to port 443 and nothing else, whatever GOMA_USE_SSL says. Its clients see \"bad gateway\"";
    Login = "login", Doubtful,
        "goma_ctl.py then asks for a login at Google before it starts; nothing need be patched to leave that out";
    Root = "root", Wrong,
        "gomacc then compiles locally without a word, and the server is never asked";
    // Who the client says it is.
    AuthorizationFile = "authorization-file", Wrong,
        "compiler_proxy ends at once (http_init.cc, \"you need http Authorization header\"), or sends what no server can read";
    OpenTokenFile = "open-token-file", Doubtful,
        "every user of this machine can read the token and be you";
    OtherLogin = "other-login", Harmless,
        "the client then shows what it gets for it at Google; whether that is worth anything the server decides";
    SlowStart = "slow-start", Harmless,
        "without any source of a token compiler_proxy looks for Google's at its start: 10 s longer on a machine without internet";
    // What is on this machine.
    TmpDir = "tmp-dir", Wrong,
        "compiler_proxy ends if its directory is not its user's alone (mode 0700)";
    PatchedAuth = "patched-auth", Doubtful,
        "a goma_auth.py that somebody cut down is undone by the next update, in some of the places where it lies; GOMACTL_SKIP_AUTH=true \
         does the same for all of them";
    HarmlessMessage = "harmless-message", Harmless,
        "the client's log says so at every first start, and it has nothing to do with the server";
    FatalMessage = "fatal-message", Doubtful,
        "compiler_proxy ended by itself, the last time or some time before";
    StaleCompilerProxy = "stale-compiler-proxy", Wrong,
        "a compiler_proxy keeps the variables that it was started with, and gomacc uses the one that runs";
    UnhealthyCompilerProxy = "unhealthy-compiler-proxy", Wrong,
        "as long as it says so it compiles locally or fails; after 401, 403 or a redirect for 10 to 20 minutes";
    PortTaken = "port-taken", Doubtful,
        "compiler_proxy then takes one of the ten next ports, and what looks for its pages where they should be finds something else";
    ClientRefuses = "client-refuses", Wrong,
        "compiler_proxy ends with this environment before it calls anybody";
    BridgeConfig = "bridge-config", Wrong,
        "mote-bridge serve does not start with it";
    // The server.
    UnknownHost = "unknown-host", Wrong,
        "nobody knows that name; goma_ctl.py says \"Now goma is ready!\" all the same";
    NoListener = "no-listener", Wrong,
        "goma_ctl.py says \"Now goma is ready!\" all the same";
    NoTls = "no-tls", Wrong,
        "GOMA_USE_SSL is on (it is unless it says false), and what answers there speaks none: \"first record does not look like a TLS \
         handshake\"";
    SpeaksTls = "speaks-tls", Wrong,
        "GOMA_USE_SSL=false makes the client speak cleartext";
    UntrustedCertificate = "untrusted-certificate", Doubtful,
        "the client trusts its own list of authorities, not the system's, and what GOMA_SSL_EXTRA_CERT names";
    OtherName = "other-name", Wrong,
        "the client holds the certificate against GOMA_SERVER_HOST, as it is written there";
    NoAnswer = "no-answer", Wrong,
        "something else than a Goma server may listen there";
    NotAdmitted = "not-admitted", Wrong,
        "after that the client stays away from its server for 10 to 20 minutes";
    WrongPath = "wrong-path", Wrong,
        "the server has its calls below another path";
    TurnedAway = "turned-away", Wrong,
        "the client is disabled for 10 to 20 minutes by that; a proxy that redirects to https does it, too";
    MalformedRequest = "malformed-request", Wrong,
        "what the variables make of a request is none: the client takes it for final, and stops compressing";
    BadStatus = "bad-status", Wrong,
        "only 200 is health to the client";
    Backend = "backend", Wrong,
        "the bridge answers, and its server does not: every compile is answered with that error";
    UnknownInstance = "unknown-instance", Wrong,
        "servers know their instances by name, letter for letter; no name at all is one, too, and \".\" is another";
    OtherServer = "other-server", Harmless,
        "nothing is known of what is behind it";
    OtherVersion = "other-version", Harmless,
        "this program knows what its own version does";
    // The compile.
    NoCompiler = "no-compiler", Doubtful,
        "whether a compile comes through is known by compiling only";
    LocalCompile = "local-compile", Doubtful,
        "what does not compile here can not be tried there";
    NoWorker = "no-worker", Wrong,
        "schedulers compare platform properties as text, name by name and letter by letter: Linux is not linux";
    WorkerLacksParts = "worker-lacks-parts", Wrong,
        "a client sends the compiler's driver and its links, never cc1, as or shared libraries: those are the worker's own";
    AbsoluteLink = "absolute-link", Wrong,
        "the compiler is found by an absolute link, which leads out of the input root";
    RefusedRequest = "refused-request", Wrong,
        "the server says that the request can not be served however often it is sent";
    RemoteFailure = "remote-failure", Wrong,
        "the client asks four times more, then compiles locally or fails; the user never sees this message";
    RemoteCompile = "remote-compile", Wrong,
        "what compiles here failed on the worker";
    ColdServer = "cold-server", Doubtful,
        "a client has five attempts of about 1 MiB each; what was brought is kept, so the next build goes on from there";
    NoCompileAnswer = "no-compile-answer", Wrong,
        "the client gives up as well, after 610 s at the latest";
    NoObject = "no-object", Wrong,
        "the client accepts that silently, and the build fails later, at the linker";
    OtherObject = "other-object", Doubtful,
        "the worker's compiler or headers are others than this machine's";
    GomaccFailed = "gomacc-failed", Wrong,
        "this is what the build does";
    GomaccLocal = "gomacc-local", Wrong,
        "gomacc compiled, and compiler_proxy counted no remote compile";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_words_and_each_is_one_kind() {
        let mut ids: Vec<&str> = Kind::ALL.iter().map(|kind| kind.id()).collect();
        assert!(ids.iter().all(|id| id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')), "{ids:?}");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Kind::ALL.len());
        assert!(Severity::Wrong < Severity::Doubtful && Severity::Doubtful < Severity::Harmless);
    }
}
