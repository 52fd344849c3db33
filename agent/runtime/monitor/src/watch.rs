//! Descriptors in the event loop, and the words that name them there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::poll::{Epoll, Interest};

/// What an event is about. Serial numbers are never used twice, so an event for something that has
/// just gone finds nothing instead of its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Signals,
    Listener,
    /// The pidfd of the container's first process.
    Init,
    /// The child's side of the start.
    Sync,
    StopTimer,
    /// cgroup.events of the payload.
    Payload,
    /// The container's output: 0 or 1.
    Output(u32),
    Input,
    /// An attached client by its session.
    Client(u32),
    /// A connection by its serial number.
    Conn(u32),
}

impl Token {
    pub(crate) fn word(self) -> u64 {
        let (kind, number) = match self {
            Token::Signals => (1, 0),
            Token::Listener => (2, 0),
            Token::Init => (3, 0),
            Token::Sync => (4, 0),
            Token::StopTimer => (5, 0),
            Token::Payload => (6, 0),
            Token::Output(number) => (7, number),
            Token::Input => (8, 0),
            Token::Client(number) => (9, number),
            Token::Conn(number) => (10, number),
        };
        kind << 32 | u64::from(number)
    }

    pub(crate) fn from_word(word: u64) -> Option<Token> {
        let number = word as u32;
        Some(match word >> 32 {
            1 => Token::Signals,
            2 => Token::Listener,
            3 => Token::Init,
            4 => Token::Sync,
            5 => Token::StopTimer,
            6 => Token::Payload,
            7 => Token::Output(number),
            8 => Token::Input,
            9 => Token::Client(number),
            10 => Token::Conn(number),
            _ => return None,
        })
    }
}

/// A descriptor with what the event loop is asked about it.
#[derive(Debug)]
pub(crate) struct Watched {
    fd: OwnedFd,
    token: Token,
    asked: Option<Interest>,
}

impl Watched {
    pub(crate) fn new(fd: OwnedFd, token: Token) -> Watched {
        Watched {
            fd,
            token,
            asked: None,
        }
    }

    /// `None` takes it out of the loop altogether: even its hang-up is not told then.
    pub(crate) fn want(&mut self, epoll: &Epoll, interest: Option<Interest>) -> io::Result<()> {
        if interest == self.asked {
            return Ok(());
        }
        match (self.asked, interest) {
            (None, Some(interest)) => epoll.add(&self.fd, self.token.word(), interest)?,
            (Some(_), Some(interest)) => epoll.modify(&self.fd, self.token.word(), interest)?,
            (_, None) => epoll.remove(&self.fd)?,
        }
        self.asked = interest;
        Ok(())
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_tokens() {
        for token in [
            Token::Signals,
            Token::Listener,
            Token::Init,
            Token::Sync,
            Token::StopTimer,
            Token::Payload,
            Token::Output(1),
            Token::Input,
            Token::Client(u32::MAX),
            Token::Conn(7),
        ] {
            assert_eq!(Token::from_word(token.word()), Some(token));
        }
        assert_eq!(Token::from_word(0), None);
    }
}
