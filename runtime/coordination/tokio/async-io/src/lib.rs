//! The part of async-io that zookeeper-client uses, on tokio.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::Stream;
use tokio::time::{Sleep, sleep_until};

/// Fires at a moment, or again and again.
#[derive(Debug)]
pub struct Timer {
    /// None: never.
    sleep: Option<Pin<Box<Sleep>>>,
    /// How long after it has fired it fires again.
    period: Option<Duration>,
}

impl Timer {
    /// One that never fires.
    #[must_use]
    pub fn never() -> Self {
        Self { sleep: None, period: None }
    }

    /// One that fires once, after this time.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        tokio::time::Instant::now().checked_add(duration).map_or_else(Self::never, |at| Self::at(at.into()))
    }

    /// One that fires once, at this moment.
    #[must_use]
    pub fn at(moment: Instant) -> Self {
        Self { sleep: Some(Box::pin(sleep_until(moment.into()))), period: None }
    }

    /// One that fires again and again.
    #[must_use]
    pub fn interval(period: Duration) -> Self {
        Self { period: Some(period), ..Self::after(period) }
    }
}

impl Future for Timer {
    type Output = Instant;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Instant> {
        let this = &mut *self;
        let Some(sleep) = &mut this.sleep else { return Poll::Pending };
        ready!(sleep.as_mut().poll(context));
        let fired = sleep.deadline();
        match this.period.and_then(|period| fired.checked_add(period)) {
            Some(next) => sleep.as_mut().reset(next),
            None => this.sleep = None,
        }
        Poll::Ready(fired.into())
    }
}

impl Stream for Timer {
    type Item = Instant;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Instant>> {
        self.poll(context).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timer_fires_when_it_is_due() {
        let began = tokio::time::Instant::now();
        Timer::after(Duration::from_secs(3)).await;
        // tokio's timers count in milliseconds, and round up.
        assert_eq!(began.elapsed().as_secs(), 3);
        let mut ticks = Timer::interval(Duration::from_secs(2));
        for tick in 1..=3 {
            ticks.next().await;
            assert_eq!(began.elapsed().as_secs(), 3 + 2 * tick);
        }
        assert!(Timer::never().now_or_never().is_none() && Timer::after(Duration::MAX).now_or_never().is_none());
    }
}
