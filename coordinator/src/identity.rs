//! Who calls, and what each call asks of them. The one place where calls are authorised.

use motefarm_core::name::UserName;
use motefarm_net::token::SecretHash;

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
    /// Whether this caller may use what `owner` has.
    pub fn may_use(&self, owner: &UserName) -> bool {
        self.user == *owner || self.role == Role::Admin
    }
}

/// The token a caller showed, by its hash; none for the farm's own user, known by a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShownToken(pub Option<SecretHash>);

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

/// The rule for a request path; `None`: there is no such path, whoever asks.
pub fn rule(path: &str) -> Option<Rule> {
    const USER_SERVICES: [&str; 5] = [
        "/mote.v1.Farm/",
        "/protos.GomoteService/",
        "/build.bazel.remote.execution.v2.Capabilities/",
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/",
        "/google.bytestream.ByteStream/",
    ];
    match path {
        "/healthz" => Some(Rule::Open),
        "/v1/buildlet/join" => Some(Rule::JoinToken),
        _ if path.starts_with("/gomote/uploads/") || path.starts_with("/gomote/archives/") => Some(Rule::Capability),
        _ if path.starts_with("/computeMetadata/v1/") => Some(Rule::OwnUser),
        _ if path.starts_with("/mote.v1.Admin/") => Some(Rule::Admin),
        _ if USER_SERVICES.iter().any(|service| path.starts_with(service)) => Some(Rule::User),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_rule_is_not_there() {
        assert_eq!(rule("/healthz"), Some(Rule::Open));
        assert_eq!(rule("/mote.v1.Admin/AddUser"), Some(Rule::Admin));
        assert_eq!(rule("/mote.v1.Farm/Execute"), Some(Rule::User));
        assert_eq!(rule("/protos.GomoteService/UploadFile"), Some(Rule::User));
        assert_eq!(rule("/gomote/uploads/x/"), Some(Rule::Capability));
        assert_eq!(rule("/computeMetadata/v1/project/project-id"), Some(Rule::OwnUser));
        for unknown in ["/", "/mote.v1.Buildlet/Execute", "/healthz/x", "/mote.v1.Farm", "/etc/passwd"] {
            assert_eq!(rule(unknown), None, "{unknown}");
        }
    }
}
