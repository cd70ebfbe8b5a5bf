//! Who calls, and what each call asks of them. The one place where calls are authorised.

use motefarm_core::name::UserName;

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs the farm; sees and ends everything.
    Admin,
    /// Has instances of their own.
    User,
}

impl Role {
    /// The word in SQL, on the wire and for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
        }
    }

    /// The role a word names.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Admin, Self::User].into_iter().find(|role| role.as_str() == word)
    }
}

/// A caller whose token (or socket) was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub user: UserName,
    /// With which rights.
    pub role: Role,
}

impl Identity {
    /// Whether what `owner` has is as good as this caller's own.
    pub fn may_own(&self, owner: &UserName) -> bool {
        self.user == *owner || self.role == Role::Admin
    }
}

/// What a path asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Nothing: the answer tells nothing worth protecting.
    Open,
    /// An unguessable name in the path, which the handler looks up.
    Capability,
    /// The farm's own user, in the clear on loopback.
    OwnUser,
    /// A join token, which the handler checks itself.
    JoinToken,
    /// Any user.
    User,
    /// An admin.
    Admin,
}

/// The services of the port: what each asks, method by method. A method that is not here is not
/// served, whatever the generated code would answer.
const METHODS: [(&str, Rule, &[&str]); 12] = [
    (
        "mote.v1.Farm",
        Rule::User,
        &[
            "WhoAmI",
            "ListHostTypes",
            "CreateInstance",
            "ListInstances",
            "PingInstance",
            "RenewInstance",
            "DestroyInstance",
            "Execute",
            "AttachExec",
            "ListExecs",
            "AckOutput",
            "WriteStdin",
            "SignalExec",
            "CancelExec",
            "UploadBlobs",
            "SyncTree",
            "GetTar",
            "PutFile",
            "PutTar",
            "PutTarFromUrl",
            "GetFile",
            "ListDir",
            "RemovePaths",
            "InstallBootstrap",
            "CreateSnapshot",
            "ListSnapshots",
            "RemoveSnapshot",
            "CreateGroup",
            "DestroyGroup",
            "ListGroups",
            "AddToGroup",
            "RemoveFromGroup",
            "SignSshKey",
        ],
    ),
    ("mote.v1.Access", Rule::User, &["ShareInstance", "UnshareInstance", "RevokeOwnToken"]),
    ("mote.v1.SignIn", Rule::Open, &["DescribeSignIn", "BeginSignIn", "PollSignIn"]),
    (
        "mote.v1.Admin",
        Rule::Admin,
        &[
            "AddUser",
            "ListUsers",
            "RemoveUser",
            "CreateToken",
            "ListTokens",
            "RevokeToken",
            "CreateJoinToken",
            "ListJoinTokens",
            "RevokeJoinToken",
            "ListBuildlets",
            "ListAudit",
        ],
    ),
    ("mote.v1.Content", Rule::Admin, &["DescribeContent", "CollectContent", "VerifyContent"]),
    (
        "protos.GomoteService",
        Rule::User,
        &[
            "Authenticate",
            "AddBootstrap",
            "CreateInstance",
            "DestroyInstance",
            "ExecuteCommand",
            "InstanceAlive",
            "ListDirectory",
            "ListDirectoryStreaming",
            "ListInstances",
            "ListSwarmingBuilders",
            "ReadTGZToURL",
            "RemoveFiles",
            "SignSSHKey",
            "UploadFile",
            "WriteFileFromURL",
            "WriteTGZFromURL",
        ],
    ),
    ("build.bazel.remote.execution.v2.Capabilities", Rule::User, &["GetCapabilities"]),
    ("build.bazel.remote.execution.v2.ActionCache", Rule::User, &["GetActionResult", "UpdateActionResult"]),
    ("build.bazel.remote.execution.v2.Execution", Rule::User, &["Execute", "WaitExecution"]),
    ("google.longrunning.Operations", Rule::User, &["GetOperation", "CancelOperation"]),
    (
        "build.bazel.remote.execution.v2.ContentAddressableStorage",
        Rule::User,
        &["FindMissingBlobs", "BatchUpdateBlobs", "BatchReadBlobs", "GetTree", "SplitBlob", "SpliceBlob"],
    ),
    ("google.bytestream.ByteStream", Rule::User, &["Read", "Write", "QueryWriteStatus"]),
];

/// Methods that bring content, whose rate is limited per user.
const UPLOADS: [&str; 4] = [
    "/mote.v1.Farm/UploadBlobs",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/SpliceBlob",
    "/google.bytestream.ByteStream/Write",
];

/// Whether calls of this path put content into the farm's store.
pub fn is_upload(path: &str) -> bool {
    UPLOADS.contains(&path)
}

/// The rule for a request path; `None`: there is no such path, whoever asks.
pub fn rule(path: &str) -> Option<Rule> {
    match path {
        "/healthz" => Some(Rule::Open),
        "/v1/buildlet/join" | "/reverse" => Some(Rule::JoinToken),
        "/revdial" => Some(Rule::Capability),
        _ if path.starts_with("/gomote/uploads/") || path.starts_with("/gomote/archives/") => Some(Rule::Capability),
        _ if path.starts_with("/computeMetadata/v1/") => Some(Rule::OwnUser),
        _ => {
            let (service, method) = path.strip_prefix('/')?.split_once('/')?;
            METHODS
                .iter()
                .find(|(name, _, methods)| *name == service && methods.contains(&method))
                .map(|(_, rule, _)| *rule)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use std::collections::BTreeSet;

    /// Services that are served elsewhere than on this port.
    const NOT_HERE: [&str; 1] = ["mote.v1.Buildlet"];

    fn declared() -> BTreeSet<String> {
        let set = prost_types::FileDescriptorSet::decode(motefarm_proto::DESCRIPTORS).unwrap();
        let mut paths = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                if !NOT_HERE.contains(&name.as_str()) {
                    paths.extend(service.method.iter().map(|method| format!("/{name}/{}", method.name())));
                }
            }
        }
        paths
    }

    #[test]
    fn every_method_that_is_declared_has_a_rule_and_every_rule_a_method() {
        let declared = declared();
        assert!(declared.len() > 60, "the descriptors are there: {}", declared.len());
        for path in &declared {
            assert!(rule(path).is_some(), "{path} has no rule in identity.rs");
        }
        // The Remote Execution API's services are another crate's; their methods are tried on the port itself.
        let ours = METHODS.iter().filter(|(name, _, _)| name.starts_with("mote.") || name.starts_with("protos."));
        for (name, _, methods) in ours {
            for method in *methods {
                assert!(declared.contains(&format!("/{name}/{method}")), "{name}/{method} is no method");
            }
        }
    }

    #[test]
    fn only_what_names_no_secret_is_open() {
        let open: Vec<String> = declared().into_iter().filter(|path| rule(path) == Some(Rule::Open)).collect();
        assert_eq!(
            open,
            ["/mote.v1.SignIn/BeginSignIn", "/mote.v1.SignIn/DescribeSignIn", "/mote.v1.SignIn/PollSignIn"]
        );
        let of_admins = |path: &&String| path.starts_with("/mote.v1.Admin/") || path.starts_with("/mote.v1.Content/");
        for path in declared().iter().filter(of_admins) {
            assert_eq!(rule(path), Some(Rule::Admin), "{path}");
        }
    }

    #[test]
    fn every_upload_is_a_method() {
        assert!(UPLOADS.iter().all(|path| rule(path) == Some(Rule::User)));
        assert!(is_upload("/google.bytestream.ByteStream/Write") && !is_upload("/google.bytestream.ByteStream/Read"));
    }

    #[test]
    fn what_has_no_rule_is_not_there() {
        assert_eq!(rule("/healthz"), Some(Rule::Open));
        assert_eq!(rule("/mote.v1.Admin/AddUser"), Some(Rule::Admin));
        assert_eq!(rule("/mote.v1.Farm/Execute"), Some(Rule::User));
        assert_eq!(rule("/protos.GomoteService/UploadFile"), Some(Rule::User));
        assert_eq!(rule("/reverse"), Some(Rule::JoinToken));
        assert_eq!(rule("/revdial"), Some(Rule::Capability));
        assert_eq!(rule("/gomote/uploads/x/"), Some(Rule::Capability));
        assert_eq!(rule("/computeMetadata/v1/project/project-id"), Some(Rule::OwnUser));
        let unknown = [
            "/",
            "/mote.v1.Buildlet/Execute",
            "/healthz/x",
            "/mote.v1.Farm",
            "/mote.v1.Farm/",
            "/mote.v1.Farm/Execute/",
            "//mote.v1.Farm/Execute",
            "/mote.v1.Farm/NoSuch",
            "/mote.v1.Admin/Execute",
            "/etc/passwd",
            "/reverse/x",
        ];
        for path in unknown {
            assert_eq!(rule(path), None, "{path}");
        }
    }
}
