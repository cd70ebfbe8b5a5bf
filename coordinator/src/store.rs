//! The farm's state in SQLite: the only place that spells SQL.
//!
//! One writer connection and a few readers on one file. Every verb is one transaction and returns
//! vocabulary, not rows; every writing transaction is `BEGIN IMMEDIATE` (a deferred one that turns
//! into a writer fails with "database is locked" under load, whatever the busy timeout). Decisions
//! are made in the transaction; acts follow its commit, elsewhere.

mod action_results;
mod audit;
mod buildlets;
mod executions;
mod groups;
mod instances;
mod known_tokens;
mod leases;
mod shares;
mod sign_ins;
mod snapshots;
mod tokens;
mod users;

pub use audit::{ACTIONS, AuditFilter, AuditRow};
pub use buildlets::BuildletRow;
pub use executions::{ExecutionRow, NewExecution};
pub use groups::MAX_GROUPS;
pub use instances::{InstanceRow, NewInstance, SnapshotWish};
pub use sign_ins::NewSignIn;
pub use snapshots::{MAX_SNAPSHOTS, SnapshotRow};
pub use tokens::{JoinTokenRow, TokenRow};
pub use users::UserRow;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, Transaction};
use std::path::Path;
use std::time::Duration;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// What a verb of the store may fail with.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite failed: a full disk, a damaged file, a closed pool.
    #[error("the farm's database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the farm's database could not be migrated: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row holds what no version of this program wrote.
    #[error("the farm's database is damaged: {table}.{column} holds {value:?}")]
    Damaged {
        /// Which table.
        table: &'static str,
        /// Which column.
        column: &'static str,
        /// What it holds.
        value: String,
    },
    /// Nothing has this name or id.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// "user", "token", ...
        what: &'static str,
        /// What was asked for.
        name: String,
    },
    /// The name or id is taken by something else.
    #[error("there is a {what} {name:?} already")]
    Exists {
        /// "user", "token", ...
        what: &'static str,
        /// What was asked for.
        name: String,
    },
    /// A snapshot whose content is no longer all here.
    #[error("content of snapshot {name:?} is missing from the farm's store; remove it and take it again")]
    Incomplete {
        /// Which.
        name: String,
    },
    /// A bound of the configuration.
    #[error("{what}: the limit is {limit}")]
    Limit {
        /// What is full.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
    known_tokens: known_tokens::KnownTokens,
}

impl Store {
    /// Opens (or makes) the database and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            // Made here for its mode, 0600, which SQLite's other files take over.
            motefarm_net::private_file::write(path, b"").map_err(sqlx::Error::Io)?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Survives the death of every process; a power cut may cost the last commits.
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        // A connection to a file does not go stale, and trying it out would double the trips of every query.
        let pool = || SqlitePoolOptions::new().test_before_acquire(false);
        let writer = pool().max_connections(1).connect_with(options.clone()).await?;
        MIGRATIONS.run(&writer).await?;
        let readers = pool().max_connections(4).connect_with(options.read_only(true).create_if_missing(false)).await?;
        Ok(Self { writer, readers, known_tokens: known_tokens::KnownTokens::default() })
    }

    /// Changes whenever this process takes a right away: a token, a user, a share. What another process
    /// takes away (`mote-coordinator admin`) is only found by looking again.
    pub fn rights_taken(&self) -> tokio::sync::watch::Receiver<u64> {
        self.known_tokens.taken()
    }

    /// Closes both pools after what is in progress; later verbs fail.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

fn damaged(table: &'static str, column: &'static str, value: impl ToString) -> StoreError {
    StoreError::Damaged { table, column, value: value.to_string() }
}

/// SQLite's integers are signed; a duration or count beyond them is "as good as for ever".
fn to_db(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn from_db(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// Ids as one parameter, for `IN (SELECT value FROM json_each(?))`: SQLite has no lists.
fn id_list<Id: ToString>(ids: impl IntoIterator<Item = Id>) -> String {
    serde_json::Value::from_iter(ids.into_iter().map(|id| id.to_string())).to_string()
}
