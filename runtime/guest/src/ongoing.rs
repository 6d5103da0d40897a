//! The requests of one call, and the answers that the guest holds: they end with the call.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use wasmtime_wasi_http::{Error, Result};

/// Requests of one call that are under way, or whose answers the guest still holds.
const AT_ONCE: usize = 16;
/// A guest is given an answer in pieces of this: one that it does not read on with keeps no more than this.
const PIECE: usize = 64 << 10;

type Held = Mutex<Option<(Bytes, OwnedSemaphorePermit)>>;
type Answers = Arc<Mutex<Option<Vec<Weak<Held>>>>>;

/// What the requests of one call have in common. When it is dropped, those that are under way are dropped too, and so is what the
/// guest has not read of their answers.
pub(crate) struct Ongoing {
    ended: watch::Sender<()>,
    /// None once the call has ended.
    answers: Answers,
    places: Arc<Semaphore>,
}

/// A request that is under way.
pub(crate) struct Place {
    ended: watch::Receiver<()>,
    answers: Answers,
    permit: OwnedSemaphorePermit,
}

impl Ongoing {
    pub(crate) fn new() -> Self {
        Self {
            ended: watch::Sender::default(),
            answers: Arc::new(Mutex::new(Some(Vec::new()))),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// A place for one more request.
    pub(crate) fn place(&self) -> Result<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Error::ConnectionLimitReached)?;
        Ok(Place { ended: self.ended.subscribe(), answers: Arc::clone(&self.answers), permit })
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        let answers = locked(&self.answers).take();
        for held in answers.into_iter().flatten().filter_map(|held| held.upgrade()) {
            locked(&held).take();
        }
    }
}

impl Place {
    /// Does `exchange`, unless the call ends before it.
    pub(crate) async fn unless_ended<T>(&mut self, exchange: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            _ = self.ended.changed() => Err(ended()),
            result = exchange => result,
        }
    }

    /// The answer's body; the place is given back when the guest has read it, or let go of it.
    pub(crate) fn answer(self, body: Bytes) -> Result<Answer> {
        let held = Arc::new(Mutex::new(Some((body, self.permit))));
        let mut answers = locked(&self.answers);
        let answers = answers.as_mut().ok_or_else(ended)?;
        answers.retain(|held| held.strong_count() > 0);
        answers.push(Arc::downgrade(&held));
        Ok(Answer { held, read: false })
    }
}

/// The body of an answer.
pub(crate) struct Answer {
    held: Arc<Held>,
    read: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        if self.read {
            return Poll::Ready(None);
        }
        let held = Arc::clone(&self.held);
        let mut held = locked(&held);
        let Some((rest, _)) = held.as_mut() else {
            self.read = true;
            return Poll::Ready(Some(Err(ended())));
        };
        if rest.is_empty() {
            self.read = true;
            held.take();
            return Poll::Ready(None);
        }
        let piece = rest.split_to(rest.len().min(PIECE));
        // A copy: a part of the whole would keep all of it.
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&piece)))))
    }

    fn size_hint(&self) -> SizeHint {
        let held = locked(&self.held);
        held.as_ref().map_or_else(SizeHint::default, |(rest, _)| SizeHint::with_exact(rest.len() as u64))
    }
}

fn ended() -> Error {
    Error::InternalError(Some("the call that this request was made in has ended".into()))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
