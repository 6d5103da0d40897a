//! The clock that leases are counted on: `CLOCK_BOOTTIME`, which goes on while the machine sleeps and never jumps.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bellwether_core::time::Moment;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// The time now.
#[must_use]
pub fn now() -> Moment {
    let now = clock_gettime(ClockId::Boottime);
    Moment::from_boot(Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0)))
}

/// Rings at a moment of this clock. tokio's own timers stand still while the machine sleeps, and would ring that much late.
pub(crate) struct Alarm {
    fd: AsyncFd<OwnedFd>,
    set: Option<Moment>,
}

impl Alarm {
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        #[expect(unsafe_code, reason = "tokio has no safe way to wait for a descriptor that it does not know")]
        // SAFETY: the descriptor is owned, always the same one, and closed only after it was deregistered, when the `AsyncFd` is dropped.
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(Self { fd, set: None })
    }

    /// Rings at `at`, at once if that is past; never if it is `None`.
    pub fn set(&mut self, at: Option<Moment>) -> io::Result<()> {
        if self.set == at {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = at.map_or(zero, |at| {
            let at = at.since_boot().max(Duration::from_nanos(1));
            let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
            Timespec { tv_sec: seconds, tv_nsec: at.subsec_nanos().into() }
        });
        timerfd_settime(
            self.fd.get_ref(),
            TimerfdTimerFlags::ABSTIME,
            &Itimerspec { it_interval: zero, it_value: value },
        )?;
        self.set = at;
        Ok(())
    }

    /// Waits for it to ring.
    pub async fn rung(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.fd.readable().await?;
            let mut count = [0_u8; 8];
            match ready.try_io(|fd| rustix::io::read(fd.get_ref(), &mut count).map_err(io::Error::from)) {
                Ok(read) => {
                    self.set = None;
                    return read.map(drop);
                }
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_rings_when_it_is_due_and_not_before() {
        let mut alarm = Alarm::new().unwrap();
        for pause in [Duration::ZERO, Duration::from_millis(30)] {
            let due = now() + pause;
            alarm.set(Some(due)).unwrap();
            alarm.rung().await.unwrap();
            assert!(now() >= due);
        }
    }
}
