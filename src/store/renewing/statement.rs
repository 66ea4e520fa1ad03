//! One statement whose rows are waited for, unless its connection is given up.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio_stream::Stream;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::no_answer;
use crate::store::room::Room;

/// What a statement answers, in one piece; the type that sqlx asks for.
pub(super) type Answer<'e, T> = Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send + 'e>>;
/// What it answers row by row.
pub(super) type Rows<'e, T> = Pin<Box<dyn Stream<Item = Result<T, sqlx::Error>> + Send + 'e>>;

/// The rows of a statement; where its connection is given up the last one is an error, and the connection is let go.
pub(super) struct Answers<'e, T> {
    /// `None` when it was given up.
    rows: Option<Rows<'e, T>>,
    given_up: Pin<Box<WaitForCancellationFutureOwned>>,
    room: Arc<Room>,
}

impl<'e, T> Answers<'e, T> {
    pub(super) fn new(rows: Rows<'e, T>, given_up: WaitForCancellationFutureOwned, room: Arc<Room>) -> Self {
        Self { rows: Some(rows), given_up: Box::pin(given_up), room }
    }
}

impl<T> Stream for Answers<'_, T> {
    type Item = Result<T, sqlx::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(rows) = &mut self.rows else { return Poll::Ready(None) };
        if let Poll::Ready(row) = rows.as_mut().poll_next(context) {
            if let Some(Err(error)) = &row {
                self.room.note(error);
            }
            return Poll::Ready(row);
        }
        ready!(self.given_up.as_mut().poll(context));
        self.rows = None;
        Poll::Ready(Some(Err(no_answer())))
    }
}
