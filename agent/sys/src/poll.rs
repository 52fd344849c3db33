//! Waiting for descriptors: poll(2) with a deadline, epoll and timers for event loops that have no
//! async runtime.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};

/// Whether a read of `fd` would not block (data, end of file or hang-up).
pub fn readable_now(fd: impl AsFd) -> io::Result<bool> {
    wait(fd, PollFlags::IN, Some(Duration::ZERO))
}

/// Waits until a read of `fd` would not block; `false` = the time has passed.
pub fn wait_readable(fd: impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
    wait(fd, PollFlags::IN, timeout)
}

/// Waits until a write to `fd` would not block; `false` = the time has passed.
pub fn wait_writable(fd: impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
    wait(fd, PollFlags::OUT, timeout)
}

/// Waits for the exceptional condition that cgroup and sysfs files use to announce a change;
/// `false` = the time has passed.
pub fn wait_priority(fd: impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
    let fd = fd.as_fd();
    let mut fds = [PollFd::new(&fd, PollFlags::PRI)];
    rustix::event::poll(&mut fds, timespec(timeout).as_ref())?;
    Ok(fds[0].revents().contains(PollFlags::PRI))
}

fn wait(fd: impl AsFd, events: PollFlags, timeout: Option<Duration>) -> io::Result<bool> {
    let fd = fd.as_fd();
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(std::time::Instant::now()));
        let mut fds = [PollFd::new(&fd, events)];
        match rustix::event::poll(&mut fds, timespec(left).as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
    }
}

fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    })
}

/// What an event loop is interested in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
    /// The exceptional condition (cgroup.events).
    pub priority: bool,
}

impl Interest {
    pub const NONE: Interest = Interest {
        read: false,
        write: false,
        priority: false,
    };
    pub const READ: Interest = Interest {
        read: true,
        ..Interest::NONE
    };
    pub const WRITE: Interest = Interest {
        write: true,
        ..Interest::NONE
    };
    pub const PRIORITY: Interest = Interest {
        priority: true,
        ..Interest::NONE
    };

    fn flags(self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, self.read);
        flags.set(epoll::EventFlags::OUT, self.write);
        flags.set(epoll::EventFlags::PRI, self.priority);
        flags
    }
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The word that the descriptor was added with.
    pub token: u64,
    pub read: bool,
    pub write: bool,
    pub priority: bool,
    /// Hang-up or error: reading and writing will say more. Reported without being asked for.
    pub closed: bool,
}

/// A level-triggered epoll instance.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

/// Events fetched by one wait.
pub const EPOLL_BATCH: usize = 16;

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        Ok(Epoll(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// EPERM for a descriptor that cannot be waited for (a regular file).
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(
            &self.0,
            fd,
            epoll::EventData::new_u64(token),
            interest.flags(),
        )?)
    }

    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(
            &self.0,
            fd,
            epoll::EventData::new_u64(token),
            interest.flags(),
        )?)
    }

    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, fd)?)
    }

    /// Waits and hands each event to `each`. An interrupted wait counts as no event.
    pub fn wait(&self, timeout: Option<Duration>, mut each: impl FnMut(Ready)) -> io::Result<()> {
        let mut buffer = [std::mem::MaybeUninit::<epoll::Event>::uninit(); EPOLL_BATCH];
        let events = match epoll::wait(&self.0, &mut buffer[..], timespec(timeout).as_ref()) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in events.iter() {
            // The structure is packed on some architectures: fields are copied, not borrowed.
            let (flags, data) = (event.flags, event.data);
            each(Ready {
                token: data.u64(),
                read: flags.contains(epoll::EventFlags::IN),
                write: flags.contains(epoll::EventFlags::OUT),
                priority: flags.contains(epoll::EventFlags::PRI),
                closed: flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR),
            });
        }
        Ok(())
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A one-shot timer on the monotonic clock that becomes readable when it has run out.
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    pub fn new() -> io::Result<Timer> {
        Ok(Timer(rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?))
    }

    /// Starts it anew; `None` stops it. A zero duration fires at once.
    pub fn set(&self, after: Option<Duration>) -> io::Result<()> {
        let value = match after {
            // A zero value would disarm.
            Some(after) => timespec(Some(after.max(Duration::from_nanos(1)))),
            None => None,
        };
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let spec = Itimerspec {
            it_interval: zero,
            it_value: value.unwrap_or(zero),
        };
        rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    /// Whether it has run out since it was last set; taking the answer clears it.
    pub fn take_expired(&self) -> io::Result<bool> {
        let mut count = [0; 8];
        match rustix::io::read(&self.0, &mut count) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_end_by_data_or_by_time() {
        let (read, write) = crate::fd::pipe().unwrap();
        assert!(!readable_now(&read).unwrap());
        assert!(!wait_readable(&read, Some(Duration::from_millis(1))).unwrap());
        assert!(wait_writable(&write, None).unwrap());
        rustix::io::write(&write, b"x").unwrap();
        assert!(wait_readable(&read, None).unwrap());
    }

    #[test]
    fn epoll_tells_what_and_hang_up() {
        let epoll = Epoll::new().unwrap();
        let (read, write) = crate::fd::pipe().unwrap();
        epoll.add(&read, 7, Interest::READ).unwrap();
        rustix::io::write(&write, b"x").unwrap();
        let mut seen = Vec::new();
        epoll.wait(None, |ready| seen.push(ready)).unwrap();
        assert_eq!(
            (seen.len(), seen[0].token, seen[0].read, seen[0].closed),
            (1, 7, true, false)
        );
        epoll.modify(&read, 8, Interest::NONE).unwrap();
        drop(write);
        seen.clear();
        epoll.wait(None, |ready| seen.push(ready)).unwrap();
        assert_eq!((seen[0].token, seen[0].closed), (8, true));
        epoll.remove(&read).unwrap();
    }

    #[test]
    fn a_timer_fires_once() {
        let timer = Timer::new().unwrap();
        timer.set(Some(Duration::ZERO)).unwrap();
        assert!(wait_readable(&timer, Some(Duration::from_secs(5))).unwrap());
        assert!(timer.take_expired().unwrap());
        assert!(!timer.take_expired().unwrap());
        timer.set(Some(Duration::from_secs(600))).unwrap();
        timer.set(None).unwrap();
        assert!(!readable_now(&timer).unwrap());
    }
}
