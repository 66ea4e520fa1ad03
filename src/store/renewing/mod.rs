//! A pool whose connections can be given up all at once. Where the database's machine goes without a word, nobody says so on
//! the connections over which an answer is awaited: TCP gives up after a quarter of an hour.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Execute, Executor, PgPool, Postgres, SqlStr, Transaction};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::statement::{Answer, Answers, Rows};
use super::room::Room;
use super::{StoreError, connecting};

mod statement;

/// How long is waited for connections that are given up and nobody uses; those that hang are closed behind it.
const CLOSE: Duration = Duration::from_millis(200);

/// A pool that can be exchanged for a new one; whatever waits on the old one fails then. Clones are the same pool. It is an
/// executor of single statements; what takes several on one connection goes through [`RenewablePool::unless_given_up`]. What
/// is refused for want of room is noted.
#[derive(Clone, Debug)]
pub(super) struct RenewablePool {
    generation: Arc<RwLock<Generation>>,
    room: Arc<Room>,
}

/// The connections that were made since the last time.
#[derive(Clone, Debug)]
struct Generation {
    pool: PgPool,
    given_up: CancellationToken,
}

impl Generation {
    fn new(pool: PgPool) -> Self {
        Self { pool, given_up: CancellationToken::new() }
    }
}

impl RenewablePool {
    pub(super) fn new(pool: PgPool, room: Arc<Room>) -> Self {
        Self { generation: Arc::new(RwLock::new(Generation::new(pool))), room }
    }

    /// The pool of now: to look at it, not to wait for it.
    pub(super) fn now(&self) -> PgPool {
        self.generation().pool
    }

    /// How to connect.
    pub(super) fn connect_options(&self) -> Arc<PgConnectOptions> {
        self.now().connect_options()
    }

    /// A connection, for several statements.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let Generation { pool, given_up } = self.generation();
        unless(&given_up, Box::pin(pool.acquire())).await
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let Generation { pool, given_up } = self.generation();
        unless(&given_up, Box::pin(connecting::begin(&pool))).await
    }

    /// Does work that takes several statements, unless the connections are given up meanwhile. What became of it is not
    /// known then, as when an answer was lost.
    pub(super) async fn unless_given_up<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let done = unless(&self.generation().given_up, Box::pin(work)).await;
        done.inspect_err(|error| {
            if let StoreError::Unavailable(error) = error {
                self.room.note(error);
            }
        })
    }

    /// Gives up every connection that there is. Who waits for an answer on one of them is told that there is none, and
    /// whoever comes next has a new one.
    pub(super) async fn renew(&self) {
        let former = {
            let mut generation = self.generation.write().unwrap_or_else(PoisonError::into_inner);
            let (options, connect) = (generation.pool.options().clone(), generation.pool.connect_options());
            let pool = options.connect_lazy_with(connect.as_ref().clone());
            std::mem::replace(&mut *generation, Generation::new(pool))
        };
        // It is closed from this call on, awaited or not. That comes first: what is given back to a closed pool is closed
        // without the question whether it is still there, which nobody would answer either.
        let closing = former.pool.close();
        former.given_up.cancel();
        let _ = timeout(CLOSE, closing).await;
    }

    /// Closes it, waiting for the connections in use.
    pub(super) async fn close(&self) {
        self.now().close().await;
    }

    /// It is whole after every statement, so a panic elsewhere does not spoil it.
    fn generation(&self) -> Generation {
        self.generation.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The result of the work, or that there is none.
async fn unless<T, E: From<sqlx::Error>>(
    given_up: &CancellationToken,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::select! {
        biased;
        done = work => done,
        () = given_up.cancelled() => Err(no_answer().into()),
    }
}

/// What is told of a statement whose connection was given up.
fn no_answer() -> sqlx::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the database does not answer; its connections were given up")
        .into()
}

impl<'c> Executor<'c> for &RenewablePool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Rows<'e, Either<PgQueryResult, PgRow>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Generation { pool, given_up } = self.generation();
        Box::pin(Answers::new(pool.fetch_many(query), given_up.cancelled_owned(), Arc::clone(&self.room)))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> Answer<'e, Option<PgRow>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Generation { pool, given_up } = self.generation();
        let (answer, room) = (pool.fetch_optional(query), Arc::clone(&self.room));
        Box::pin(async move { unless(&given_up, answer).await.inspect_err(|error| room.note(error)) })
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> Answer<'e, PgStatement>
    where
        'c: 'e,
    {
        let Generation { pool, given_up } = self.generation();
        let answer = pool.prepare_with(sql, parameters);
        Box::pin(async move { unless(&given_up, answer).await })
    }

    fn describe<'e>(self, sql: SqlStr) -> Answer<'e, Describe<Postgres>>
    where
        'c: 'e,
    {
        let Generation { pool, given_up } = self.generation();
        let answer = pool.describe(sql);
        Box::pin(async move { unless(&given_up, answer).await })
    }
}
